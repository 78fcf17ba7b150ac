use tiny_skia::PathBuilder;

use crate::canvas::{Rgb, add, mix, scale, smooth};
use crate::noise::{fractal, noise, sampled};
use crate::scene::Scene;
use crate::vocabulary::Disc;

impl Scene<'_> {
    pub(crate) fn sky(&mut self) {
        const STEPS: f32 = 511.0;
        let (seed, horizon, (width, height)) = (self.random.u32(..), self.level(0.0), self.size());
        let ramp: Vec<Rgb> = (0..512).map(|i| self.palette.sky_at(i as f32 / STEPS)).collect();
        let wave = sampled((width, height), 16.0 * self.unit, |x, y| {
            y / horizon + 0.09 * fractal(x / width * 2.0, y / horizon * 5.0, 3, seed)
        });
        self.canvas.shade((0.0, 0.0), (width, height), |x, y, _| ramp[(wave(x, y).clamp(0.0, 1.0) * STEPS) as usize]);
        if [Disc::Moon, Disc::Rings].contains(&self.brief.disc) {
            self.scatter("star", 260, horizon * 0.9);
        }
    }

    /// Streaks of cloud between two heights, lit from above.
    fn clouds(&mut self, top: f32, bottom: f32, cover: f32) {
        let (seed, lift, (width, height)) = (self.random.u32(..), 9.0 * self.unit, self.size());
        let k = 2.5 / height.min(width * 1.3);
        let density = sampled((width, height), 4.0 * self.unit, |x, y| {
            let bend = fractal(x * k * 0.6, y * k * 2.4, 2, seed ^ 1);
            fractal(x * k + bend, y * k * 4.0 + 0.7 * bend, 5, seed)
        });
        let lit = mix(self.palette.glow, self.palette.light, 0.6);
        let dark = mix(self.palette.sky[1], self.palette.sky[2], 0.3);
        let span = bottom - top;
        self.canvas.shade((0.0, top), (width, bottom), |x, y, under| {
            let cloud = density(x, y);
            let edge = smooth(top, top + span * 0.2, y) * smooth(bottom, bottom - span * 0.3, y);
            let facing = smooth(-0.12, 0.16, cloud - density(x, y - lift));
            mix(under, mix(dark, lit, facing), 0.6 * edge * smooth(-cover, 0.45 - cover, cloud))
        });
    }

    /// The sun or moon behind the hero at a height, between clouds, and birds.
    pub(crate) fn sun(&mut self, rise: f32) {
        let (disc, seed, (width, height)) = (self.brief.disc, self.random.u32(..), self.size());
        let (light, glow) = (self.palette.light, self.palette.glow);
        let (size, aura, rings): (_, _, &[f32]) = match disc {
            Disc::Moon | Disc::Sun => (1.0, 0.4, &[]),
            Disc::Rings => (1.15, 0.4, &[1.9, 1.6, 1.3]),
            Disc::Ink => (1.3, 0.1, &[]),
        };
        let radius = (height * 0.2).min(width * 0.23) * size;
        let x = self.focus + self.side * radius * self.between(0.1, 0.5);
        let y = (self.feet - self.hero * rise - radius * self.between(0.1, 0.4)).max(radius * 1.1);
        self.clouds(0.0, self.level(0.0), -0.02);
        for reach in [4.6, 2.2] {
            self.canvas.light((x, y), radius * reach, scale(glow, aura));
        }
        for ring in rings {
            let ring = PathBuilder::from_circle(x, y, radius * ring);
            self.canvas.fill(ring.as_ref(), |_, _, under| add(under, scale(glow, 0.13)));
        }
        self.canvas.fill(PathBuilder::from_circle(x, y, radius).as_ref(), |px, py, under| {
            let (dx, dy) = ((px - x) / radius, (py - y) / radius);
            match disc {
                Disc::Sun => mix(light, mix(light, glow, 0.6), smooth(-0.3, 1.0, dy)),
                Disc::Moon => {
                    let seas = fractal(dx * 1.4 + 5.0, dy * 1.4, 5, seed);
                    let limb = 1.0 - (1.0 - dx * dx - dy * dy).max(0.0).sqrt();
                    scale(light, 1.0 - 0.34 * smooth(-0.05, 0.3, seas) - 0.22 * limb)
                }
                // The gaps between the stripes grow toward the foot.
                Disc::Rings => {
                    let gap = smooth(0.0, 0.06, (dy * 7.0 + 7.0).fract() - 1.0 + 0.45 * (dy + 0.3).max(0.0));
                    mix(mix(light, glow, smooth(-0.6, 1.0, dy)), under, 0.8 * gap)
                }
                // The brush is driest toward the edge.
                Disc::Ink => {
                    let worn = fractal(dx * 2.2, dy * 9.0, 4, seed) + 0.3 * noise(dx * 40.0, dy * 40.0, seed);
                    mix(light, under, 0.75 * smooth(0.4, 0.62, worn + 0.32 * (dx * dx + dy * dy)))
                }
            }
        });
        self.clouds(y - radius * 0.5, self.level(0.3), -0.1);
        if disc != Disc::Rings {
            let flock = (x - self.side * (radius + self.hero * 0.4), y - radius * 0.2);
            self.draw("birds", flock, self.hero, 1.0, 0.9);
        }
    }
}
