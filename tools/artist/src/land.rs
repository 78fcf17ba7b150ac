use crate::canvas::{add, mix, scale, smooth};
use crate::noise::{fractal, noise, sampled};
use crate::scene::Scene;
use crate::vocabulary::Profile;

impl Profile {
    /// Its height, in about heights of the hero.
    fn rise(self, x: f32, seed: u32) -> f32 {
        match self {
            Profile::Flat => 0.0,
            Profile::Rolling => 0.17 * (0.5 + 0.9 * fractal(x * 1.8, 0.4, 3, seed)),
            Profile::Jagged => {
                let octave = |k: f32, a: f32| a * (1.0 - 2.0 * noise(x * k, 0.3 * k, seed).abs());
                0.13 + octave(2.2, 0.42) + octave(4.6, 0.21) + octave(9.5, 0.1) + octave(20.0, 0.05)
            }
            Profile::Mesa => {
                let bulk = fractal(x * 3.6, 0.4, 3, seed);
                0.5 * smooth(0.02, 0.07, bulk)
                    + 0.17 * smooth(0.18, 0.21, bulk)
                    + 0.03 * fractal(x * 40.0, 0.0, 2, seed)
            }
        }
    }
}

impl Scene<'_> {
    /// A ridge across the picture. The nearest falls off on both sides of the hero.
    pub(crate) fn ridge(&mut self, profile: Profile, depth: f32) {
        let (seed, base, (width, height)) = (self.random.u32(..), self.level(depth), self.size());
        let (k, size) = (1.0 / height.min(width * 1.4), self.hero * (1.2 - 0.6 * depth));
        let mound = if depth > 0.95 && profile != Profile::Flat { 1.0 } else { 0.0 };
        let line = (0..self.canvas.width).map(|x| x as f32).map(|x| {
            let away = 1.0 - (-((x - self.focus) / (1.8 * self.hero)).powi(2)).exp();
            let rise = size * profile.rise(x * k, seed);
            base - rise + mound * (rise + (0.16 * self.hero - 0.3 * rise) * away)
        });
        self.ridge = line.collect();
        self.land(depth);
    }

    fn land(&mut self, depth: f32) {
        let (seed, unit, side, line) = (self.random.u32(..), self.unit, self.side, &self.ridge);
        let (body, mist, ink) = (self.palette.depth(depth), self.palette.mist, self.palette.ink);
        // Far land fades into mist at its foot, and near land into darkness.
        let foot = mix(mix(body, mist, 0.75 * (1.0 - depth)), mix(body, ink, 0.9), smooth(0.5, 0.7, depth));
        let glow = scale(self.palette.glow, 0.5 * (1.0 - 0.8 * depth));
        let (reach, step) = (self.hero * (0.5 + 0.4 * depth), (9.0 * unit).ceil() as usize);
        let (top, last) = (line.iter().copied().fold(f32::MAX, f32::min), line.len() - 1);
        self.canvas.shade((0.0, top), (line.len() as f32, f32::MAX), |x, y, under| {
            let below = y + 1.0 - line[x as usize];
            if below <= 0.0 || below > reach {
                return if below > 0.0 { foot } else { under };
            }
            // Slopes are lit from the side, with slanting edges like those of rocks.
            let rough = fractal(x / (50.0 * unit), y / (34.0 * unit), 2, seed);
            let from = (x + side * below * 0.8 + rough * 24.0 * unit).clamp(0.0, last as f32) as usize;
            let slope = line[(from + step).min(last)] - line[from.saturating_sub(step)];
            let lit = smooth(-10.0, 10.0, slope * -side / unit) * smooth(reach * 0.8, 0.0, below);
            mix(under, add(mix(body, foot, smooth(0.0, reach, below)), scale(glow, lit)), below.min(1.0))
        });
    }

    pub(crate) fn fog(&mut self, y: f32, strength: f32) {
        let (seed, color, (width, height)) = (self.random.u32(..), self.palette.mist, self.size());
        let (k, spread) = (2.0 / height, 0.4 * self.hero);
        let drift = sampled((width, height), 12.0 * self.unit, |x, y| {
            let bend = fractal(x * k, y * k * 3.0, 2, seed ^ 1);
            0.65 + 1.1 * fractal(x * k * 1.4 + bend, y * k * 4.0 + bend, 4, seed)
        });
        self.canvas.shade((0.0, y - spread), (width, y + spread), |px, py, under| {
            mix(under, color, (strength * smooth(spread, 0.0, (py - y).abs()) * drift(px, py)).clamp(0.0, 1.0))
        });
    }

    /// Water from a height down, which glitters before the focus.
    pub(crate) fn water(&mut self, start: f32) {
        let (seed, unit, focus, (width, height)) = (self.random.u32(..), self.unit, self.focus, self.size());
        let deep = mix(self.palette.ink, self.palette.sky[0], 0.3);
        let glitter = scale(self.palette.rim, 0.8);
        let (start, columns) = (start.floor().clamp(1.0, height), self.canvas.width);
        let above = self.canvas.pixels[..start as usize * columns].to_vec();
        self.canvas.shade((0.0, start), (width, height), |x, y, _| {
            let (below, near) = (y - start, (y - start) / (height - start));
            let (long, tall) = ((16.0 + 150.0 * near) * unit, (1.6 + 9.0 * near) * unit);
            let wave = noise(x / long, below / tall, seed) + 0.5 * noise(x / long * 2.6, below / tall * 1.7, seed ^ 1);
            let shift = wave * (2.0 + 18.0 * near) * unit;
            let from_x = (x + shift).clamp(0.0, width - 1.0) as usize;
            let from_y = (start - 1.0 - below * 0.95 - shift * 1.2).clamp(0.0, start - 1.0) as usize;
            let clear = (0.75 * (1.0 - 0.5 * near) * (1.0 + 0.3 * wave)).clamp(0.0, 1.0);
            let path = smooth((26.0 + 200.0 * near) * unit, 0.0, (x - focus).abs()) * smooth(0.9, 0.3, near);
            let mirrored = mix(deep, above[from_y * columns + from_x], clear);
            add(mirrored, scale(glitter, smooth(0.15, 0.5, wave) * path))
        });
    }
}
