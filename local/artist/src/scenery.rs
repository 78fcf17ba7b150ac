//! The vocabulary that scenes are composed from: sky, sun and moon, ridges, fog, water, trees,
//! buildings, weather and people.

use crate::canvas::{Canvas, Rgb, Shape, add, mix, scale, smooth};
use crate::figure::Figure;
use crate::lettering::Lettering;
use crate::noise::{Field, Random, fractal, noise};
use crate::outlines::{BIRDS, LAMP, LAMP_GLASS, PINE};
use crate::palette::Palette;
use crate::reading::{Brief, Genre, Time, Weather};

/// A picture in the making, and where the main things in it stand.
pub(crate) struct Scene<'a> {
    pub(crate) canvas: &'a mut Canvas,
    pub(crate) palette: &'a Palette,
    pub(crate) brief: &'a Brief,
    pub(crate) random: Random,
    pub(crate) width: f32,
    pub(crate) height: f32,
    /// The length that is one pixel in a picture of 832 by 1216.
    pub(crate) unit: f32,
    /// The x coordinate that the composition leads the eye to.
    pub(crate) focus: f32,
    pub(crate) horizon: f32,
    /// Where the hero stands. What is lower may be under the words.
    pub(crate) feet: f32,
    /// The height of a grown-up near us.
    pub(crate) hero: f32,
    /// The side that the light is on: -1 for the left or 1 for the right.
    pub(crate) side: f32,
}

/// The silhouette of a ridge.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Profile {
    Rolling,
    Jagged,
    Mesa,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(
        canvas: &'a mut Canvas,
        palette: &'a Palette,
        brief: &'a Brief,
        lettering: &Lettering,
        mut random: Random,
    ) -> Scene<'a> {
        let (width, height) = (canvas.width as f32, canvas.height as f32);
        let (focus, feet, hero) = if lettering.column {
            (width * random.range(0.66, 0.74), height * 0.84, height * 0.36)
        } else {
            let feet = (lettering.top - height * 0.012).clamp(height * 0.5, height * 0.78);
            (width * random.range(0.46, 0.54), feet, (height * 0.2).min(width * 0.4))
        };
        Scene {
            focus,
            feet,
            hero,
            horizon: feet - hero * 0.36,
            unit: (width * height).sqrt() / 1006.0,
            side: random.sign(),
            canvas,
            palette,
            brief,
            random,
            width,
            height,
        }
    }

    pub(crate) fn seed(&mut self) -> u32 {
        self.random.bits() as u32
    }

    /// An outline of 100 by 100 at a size, with its foot at (`x`, `y`).
    pub(crate) fn outline(&self, data: &str, x: f32, y: f32, size: f32) -> Shape {
        let k = size / 100.0;
        Shape::default().svg(data, |px, py| (x + px * k, y + (py - 100.0) * k))
    }

    /// The same, turned to the side of the light.
    pub(crate) fn mirrored(&self, data: &str, x: f32, y: f32, size: f32) -> Shape {
        let k = size / 100.0;
        Shape::default().svg(data, |px, py| (x + self.side * px * k, y + (py - 100.0) * k))
    }

    /// How large the sun or moon is.
    pub(crate) fn disc_radius(&self) -> f32 {
        (self.height * 0.24).min(self.width * 0.25)
    }

    /// Sky, clouds, and the sun or moon behind the hero. `size` is against the usual, and `lift` is
    /// how many heights of the hero the disc is above the ground. Returns where it is.
    pub(crate) fn sky_with_disc(&mut self, size: f32, lift: f32) -> (f32, f32) {
        self.sky();
        let radius = self.disc_radius() * size;
        let x = self.focus + self.side * radius * self.random.range(0.2, 0.6);
        let y = self.feet - self.hero * lift - radius * self.random.range(0.1, 0.4);
        let y = y.max(radius * 1.1);
        self.clouds(0.0, self.horizon, -0.02, 0.6);
        self.disc(x, y, radius);
        self.clouds(y - radius * 0.5, self.horizon + self.hero * 0.1, -0.1, 0.5);
        let away = self.side * (radius + self.hero * 0.3);
        let birds = self.outline(BIRDS, x - away, y - radius * 0.4, 100.0 * self.unit);
        self.canvas.paint(&birds, self.palette.ink, 0.7);
        (x, y)
    }

    /// Is the scene under stars?
    pub(crate) fn is_night(&self) -> bool {
        let dark = [Genre::Noir, Genre::SciFi, Genre::Horror].contains(&self.brief.genre);
        self.brief.time.map_or(dark, |time| time == Time::Night)
    }

    /// The sky down to the horizon, with stars at night.
    pub(crate) fn sky(&mut self) {
        let (width, horizon, seed) = (self.width, self.horizon, self.seed());
        let steps = 511.0;
        let ramp: Vec<Rgb> = (0..512).map(|i| self.palette.sky_at(i as f32 / steps)).collect();
        let wave = Field::new(width, self.height, 16.0 * self.unit.max(0.2), |x, y| {
            fractal(x / width * 2.0, y / horizon * 5.0, 3, seed)
        });
        self.canvas.shade((0.0, 0.0), (width, self.height), |x, y, _| {
            let t = (y / horizon + 0.09 * wave.at(x, y)).clamp(0.0, 1.0);
            ramp[(t * steps) as usize]
        });
        if self.is_night() {
            for _ in 0..260 {
                let x = self.random.range(0.0, width);
                let y = self.random.range(0.0, horizon * 0.9);
                let size = self.random.range(0.0, 1.0);
                let fade = 1.0 - (y / horizon).powi(2);
                let color = scale(self.palette.light, 1.3 * fade * (0.3 + size));
                self.canvas.light(x, y, (1.4 + 2.4 * size.powi(6)) * self.unit, color);
            }
        }
    }

    /// Streaks of cloud between two heights, lit from above.
    pub(crate) fn clouds(&mut self, top: f32, bottom: f32, cover: f32, strength: f32) {
        let (seed, lift) = (self.seed(), 9.0 * self.unit);
        let k = 2.5 / self.height.min(self.width * 1.3);
        let density = Field::new(self.width, self.height, 4.0 * self.unit.max(0.5), |x, y| {
            let bend = fractal(x * k * 0.6, y * k * 2.4, 2, seed ^ 1);
            fractal(x * k + bend, y * k * 4.0 + 0.7 * bend, 5, seed)
        });
        let lit = mix(self.palette.glow, self.palette.light, 0.6);
        let dark = mix(self.palette.sky[1], self.palette.sky[2], 0.6);
        self.canvas.shade((0.0, top), (self.width, bottom), |x, y, under| {
            let cloud = density.at(x, y);
            let edge =
                smooth(top, top + (bottom - top) * 0.2, y) * (1.0 - smooth(bottom - (bottom - top) * 0.3, bottom, y));
            let opacity = smooth(-cover, 0.45 - cover, cloud) * edge * strength;
            if opacity < 0.004 {
                return under;
            }
            let facing = smooth(-0.12, 0.16, cloud - density.at(x, y - lift));
            mix(under, mix(dark, lit, facing), opacity)
        });
    }

    /// The sun, or the moon at night.
    pub(crate) fn disc(&mut self, x: f32, y: f32, radius: f32) {
        let (light, glow, seed) = (self.palette.light, self.palette.glow, self.seed());
        let night = self.is_night();
        let flat = self.brief.genre == Genre::Samurai;
        let aura = match (flat, night) {
            (true, _) => 0.1,
            (false, true) => 0.3,
            (false, false) => 0.55,
        };
        self.canvas.light(x, y, radius * 4.6, scale(glow, aura));
        self.canvas.light(x, y, radius * 2.2, scale(glow, aura));
        let shape = Shape::default().ellipse(x, y, radius, radius);
        self.canvas.fill(&shape, |px, py, under| {
            let (dx, dy) = ((px - x) / radius, (py - y) / radius);
            if flat {
                // Ink laid on with a dry brush, most worn towards one edge.
                let worn = fractal(dx * 2.2, dy * 9.0, 4, seed) + 0.3 * noise(dx * 40.0, dy * 40.0, seed);
                let bare = smooth(0.2, 0.42, worn + 0.32 * (dx * dx + dy * dy) - 0.2);
                return mix(light, under, bare * 0.75);
            }
            if night {
                let seas = fractal(dx * 1.4 + 5.0, dy * 1.4, 5, seed);
                let limb = 1.0 - (1.0 - dx * dx - dy * dy).max(0.0).sqrt();
                return scale(light, 1.0 - 0.34 * smooth(-0.05, 0.3, seas) - 0.22 * limb);
            }
            mix(light, mix(light, glow, 0.55), smooth(-0.3, 1.0, dy))
        });
    }

    /// A range of hills across the picture, from 0 far to 1 near. Returns its height in each column.
    pub(crate) fn ridge(&mut self, profile: Profile, base: f32, rise: f32, waves: f32, depth: f32) -> Vec<f32> {
        let seed = self.seed();
        let scale_x = waves / self.height.min(self.width * 1.4);
        let shape = |x: f32| match profile {
            Profile::Rolling => 0.5 + 0.9 * fractal(x, 0.4, 3, seed),
            Profile::Jagged => {
                let octave = |k: f32, a: f32| a * (1.0 - 2.0 * noise(x * k, 0.3 * k, seed).abs());
                0.15 + octave(1.0, 0.5) + octave(2.1, 0.25) + octave(4.3, 0.12) + octave(9.0, 0.06)
            }
            Profile::Mesa => {
                let bulk = fractal(x * 1.3, 0.4, 3, seed);
                0.75 * smooth(0.02, 0.07, bulk)
                    + 0.25 * smooth(0.18, 0.21, bulk)
                    + 0.05 * fractal(x * 14.0, 0.0, 2, seed)
            }
        };
        let line: Vec<f32> = (0..self.canvas.width).map(|x| base - rise * shape(x as f32 * scale_x)).collect();
        self.land(&line, depth);
        line
    }

    /// Fill the land below a line of heights, one for each column.
    pub(crate) fn land(&mut self, line: &[f32], depth: f32) {
        let (seed, unit, side) = (self.seed(), self.unit, self.side);
        let body = self.palette.depth(depth);
        // Far land fades into mist at its foot, and near land into darkness.
        let foot = if depth < 0.6 {
            mix(body, self.palette.mist(), 0.75 * (1.0 - depth / 0.6))
        } else {
            mix(body, self.palette.ink, 0.85)
        };
        let glow = scale(self.palette.glow, 0.5 * (1.0 - depth));
        let reach = self.height * (0.1 + 0.08 * depth);
        let top = line.iter().copied().fold(f32::MAX, f32::min);
        let last = line.len() - 1;
        let step = (9.0 * unit).ceil() as usize;
        self.canvas.shade((0.0, top), (self.width, self.height), |x, y, under| {
            let column = x as usize;
            let below = y + 1.0 - line[column];
            if below <= 0.0 {
                return under;
            }
            if below > reach * 0.8 {
                return mix(body, foot, smooth(0.0, reach, below));
            }
            // Slopes are lit from the side. Their edges run down aslant, as those of rocks do.
            let rough = fractal(x / (50.0 * unit), y / (34.0 * unit), 2, seed);
            let from = (x + side * below * 0.8 + rough * 24.0 * unit).clamp(0.0, last as f32) as usize;
            let slope = line[(from + step).min(last)] - line[from.saturating_sub(step)];
            let facing = smooth(-10.0, 10.0, slope * -side / unit);
            let lit = facing * (1.0 - smooth(0.0, reach * 0.8, below));
            let color = add(mix(body, foot, smooth(0.0, reach, below)), scale(glow, lit));
            mix(under, color, below.min(1.0))
        });
    }

    /// A drifting bank of fog about a height.
    pub(crate) fn fog(&mut self, y: f32, spread: f32, strength: f32) {
        let (seed, k, color) = (self.seed(), 2.0 / self.height, self.palette.mist());
        let drift = Field::new(self.width, self.height, 12.0 * self.unit.max(0.3), |x, y| {
            let bend = fractal(x * k, y * k * 3.0, 2, seed ^ 1);
            fractal(x * k * 1.4 + bend, y * k * 4.0 + bend, 4, seed)
        });
        self.canvas.shade((0.0, y - spread), (self.width, y + spread), |px, py, under| {
            let near = 1.0 - smooth(0.0, spread, (py - y).abs());
            let thick = near * strength * (0.65 + 1.1 * drift.at(px, py));
            mix(under, color, thick.clamp(0.0, 1.0))
        });
    }

    /// Water from the horizon down, which mirrors what has been painted above and glitters under a
    /// light at `x`.
    pub(crate) fn water(&mut self, clear: f32, x: f32) {
        let (seed, unit, horizon) = (self.seed(), self.unit, self.horizon);
        let deep = mix(self.palette.ink, self.palette.sky[1], 0.3);
        let glitter = scale(self.palette.rim(), 0.8);
        let (width, height) = (self.canvas.width, self.canvas.height);
        let start = (horizon as usize).clamp(1, height);
        for y in start..height {
            let below = (y - start) as f32;
            let near = below / (height as f32 - horizon).max(1.0);
            let (long, tall) = ((16.0 + 150.0 * near) * unit, (1.6 + 9.0 * near) * unit);
            for column in 0..width {
                let px = column as f32;
                let wave =
                    noise(px / long, below / tall, seed) + 0.5 * noise(px / long * 2.6, below / tall * 1.7, seed ^ 1);
                let shift = wave * (2.0 + 18.0 * near) * unit;
                let from_x = (px + shift).clamp(0.0, width as f32 - 1.0) as usize;
                let from_y = (start as f32 - 1.0 - below * 0.95 - shift * 1.2).clamp(0.0, start as f32 - 1.0) as usize;
                let mirror = self.canvas.pixels[from_y * width + from_x];
                let kept = clear * (1.0 - 0.5 * near) * (1.0 + 0.3 * wave);
                let reach = (26.0 + 200.0 * near) * unit;
                let spark = smooth(0.15, 0.5, wave)
                    * (1.0 - smooth(0.0, reach, (px - x).abs()))
                    * (1.0 - smooth(0.3, 0.9, near));
                let color = add(mix(deep, mirror, kept.clamp(0.0, 1.0)), scale(glitter, spark));
                self.canvas.pixels[y * width + column] = color;
            }
        }
    }

    /// A silhouette standing against the light, with a bright edge on the side of the light.
    pub(crate) fn silhouette(&mut self, shapes: &[Shape], depth: f32) {
        let width = 1.7 * self.unit * depth;
        for shape in shapes {
            let edge = shape.moved(width * self.side, -width * 0.7);
            self.canvas.paint(&edge, self.palette.rim(), 0.85);
        }
        for shape in shapes {
            self.canvas.paint(shape, self.palette.depth(depth), 1.0);
        }
    }

    /// Does the negative prompt rule people out?
    pub(crate) fn unpeopled(&self) -> bool {
        self.brief.shuns("people,person,humans,figures,human,man,woman")
    }

    /// A person, unless people are not wanted.
    pub(crate) fn person(&mut self, figure: &Figure, x: f32, y: f32, height: f32) {
        if self.unpeopled() {
            return;
        }
        let spot = Shape::default().ellipse(x, y, height * 0.2, height * 0.022);
        self.canvas.blur(&spot, height * 0.02, self.palette.ink, 0.8);
        self.silhouette(&figure.outlines(x, y, height, -self.side), 1.0);
    }

    /// The hero near the focus, on a line of heights.
    pub(crate) fn stand(&mut self, line: &[f32]) {
        let x = self.focus - self.side * self.hero * 0.12;
        let y = at(line, x) + 2.0 * self.unit;
        self.person(&Figure::cast(self.brief), x, y, self.hero);
    }

    /// A dark, grassy hill under the hero. Returns its line.
    pub(crate) fn hill(&mut self, rise: f32) -> Vec<f32> {
        let (seed, wide) = (self.seed(), self.hero * 1.8);
        let height = |x: usize| {
            let t = (x as f32 - self.focus) / wide;
            let bumps = fractal(x as f32 / wide * 3.0, 0.2, 3, seed);
            self.feet + rise * (1.0 - (-t * t).exp()) + bumps * rise * 0.2
        };
        let line: Vec<f32> = (0..self.canvas.width).map(height).collect();
        self.land(&line, 0.97);
        self.grass(&line, self.hero * 0.09, 0.97);
        line
    }

    /// Blades of grass along a line of heights.
    pub(crate) fn grass(&mut self, line: &[f32], tall: f32, depth: f32) {
        let mut blades = Shape::default();
        for _ in 0..(self.width / tall.max(1.0) * 7.0) as usize {
            let x = self.random.range(0.0, self.width - 1.0);
            let (y, tall) = (line[x as usize] + tall * 0.2, tall * self.random.range(0.3, 1.2));
            let (lean, wide) = (-self.side * tall * self.random.range(0.1, 0.7), tall * 0.045);
            blades = blades.svg("M -1 0 Q -0.6 0.6 1 1 Q 0.5 0.5 1 0 Z", |px, py| {
                (x + px * wide * (1.0 - py) + lean * py * py, y - py * tall)
            });
        }
        self.canvas.paint(&blades, self.palette.depth(depth), 1.0);
    }

    /// A bare tree.
    pub(crate) fn tree(&mut self, x: f32, y: f32, height: f32, depth: f32) {
        let lean = self.random.range(-0.12, 0.12);
        let mut shape = Shape::default();
        // Branches that have yet to be drawn: foot, angle from upright, length, half width, age.
        let mut branches = vec![(x, y, lean, height * 0.27, height * 0.026, 0)];
        while let Some((x, y, angle, length, girth, age)) = branches.pop() {
            let turn = angle + self.random.range(-0.3, 0.3);
            let (mx, my) = (x + angle.sin() * length * 0.5, y - angle.cos() * length * 0.5);
            let (tx, ty) = (mx + turn.sin() * length * 0.5, my - turn.cos() * length * 0.5);
            let (nx, ny) = (angle.cos() * girth, angle.sin() * girth);
            let (ux, uy) = (turn.cos() * girth * 0.62, turn.sin() * girth * 0.62);
            shape = shape.polygon(&[
                (x - nx, y - ny),
                (mx - nx * 0.8, my - ny * 0.8),
                (tx - ux, ty - uy),
                (tx + ux, ty + uy),
                (mx + nx * 0.8, my + ny * 0.8),
                (x + nx, y + ny),
            ]);
            if age == 6 || girth < 0.3 {
                continue;
            }
            let way = self.random.sign();
            for spread in [0.35 * way, -0.6 * way] {
                let bend = turn + spread * self.random.range(0.5, 1.25);
                let grown = length * self.random.range(0.64, 0.86);
                branches.push((tx, ty, bend, grown, girth * 0.62, age + 1));
            }
        }
        self.canvas.paint(&shape, self.palette.depth(depth), 1.0);
    }

    /// A row of pines along a line of heights, taller away from the focus.
    pub(crate) fn pines(&mut self, line: &[f32], height: f32, depth: f32) {
        let mut x = 0.0;
        while x < self.width {
            let away = ((x - self.focus) / self.width).abs();
            let tall = height * (0.3 + 1.3 * away) * self.random.range(0.7, 1.25);
            let pine = self.outline(PINE, x, at(line, x) + height * 0.05, tall);
            self.canvas.paint(&pine, self.palette.depth(depth), 1.0);
            x += (height * self.random.range(0.1, 0.3)).max(2.0);
        }
    }

    /// A house front with rows of windows, some lit.
    pub(crate) fn facade(&mut self, left: f32, top: f32, size: (f32, f32), depth: f32, lit: f32, rise: f32) {
        let (width, height) = size;
        let wall = self.palette.depth(depth);
        let body = Shape::default().rect(left, top, width, height);
        let cornice = 7.0 * self.unit * (0.5 + depth);
        let ledge = Shape::default().rect(left - cornice, top - cornice, width + 2.0 * cornice, cornice * 1.3);
        self.canvas.paint(&body.and(&ledge), wall, 1.0);
        let pitch = (22.0 + 24.0 * depth) * self.unit;
        let (columns, rows) = ((width / pitch).floor(), (height / pitch / 1.45).floor());
        let (mut bright, mut dark) = (Shape::default(), Shape::default());
        for i in 0..(columns * rows) as usize {
            let (column, row) = (i as f32 % columns, (i as f32 / columns).floor());
            let x = left + (column + 0.28) * width / columns;
            let y = top + (row + 0.3) * height / rows;
            let window = Shape::default().arch(x, y, width / columns * 0.44, height / rows * 0.5, rise);
            if self.random.chance(lit) {
                bright = bright.and(&window);
            } else {
                dark = dark.and(&window);
            }
        }
        self.canvas.paint(&dark, mix(wall, self.palette.ink, 0.6), 0.8);
        self.canvas.glow(&bright, 9.0 * self.unit, scale(self.palette.accent, 0.5));
        self.canvas.paint(&bright, self.palette.accent, 0.9);
    }

    /// A lamp on a post.
    pub(crate) fn lamp(&mut self, x: f32, y: f32, height: f32) {
        let (post, glass) = (self.outline(LAMP, x, y, height), self.outline(LAMP_GLASS, x, y, height));
        let accent = self.palette.accent;
        self.canvas.light(x, y - height * 0.91, height * 1.2, scale(accent, 0.4));
        self.canvas.light(x, y - height * 0.91, height * 0.3, scale(accent, 0.9));
        self.canvas.paint(&post, self.palette.ink, 1.0);
        self.canvas.paint(&glass, mix(accent, [1.0; 3], 0.5), 1.0);
    }

    /// What falls through the air.
    pub(crate) fn weather(&mut self) {
        let Some(weather) = self.brief.weather else { return };
        let (light, unit) = (self.palette.rim(), self.unit);
        let count = if weather == Weather::Rain { 420 } else { 170 };
        for _ in 0..count {
            let x = self.random.range(-0.05, 1.05) * self.width;
            let y = self.random.range(-0.05, 1.0) * self.height;
            let near = self.random.range(0.0, 1.0).powi(3);
            match weather {
                Weather::Rain => {
                    let length = (18.0 + 60.0 * near) * unit;
                    let drop = Shape::default().line(&[(x, y), (x - length * 0.16, y + length)]);
                    self.canvas.stroke(&drop, (0.7 + near) * unit, light, 0.1 + 0.2 * near);
                }
                Weather::Snow => {
                    let flake = scale(mix(light, [1.0; 3], 0.6), 0.9 - 0.5 * near);
                    self.canvas.light(x, y, (2.6 + 9.0 * near) * unit, flake);
                }
                Weather::Embers => {
                    self.canvas.light(x, y, (7.0 + 12.0 * near) * unit, [0.9, 0.28, 0.05]);
                    self.canvas.light(x, y, (2.4 + 2.0 * near) * unit, [1.6, 0.9, 0.4]);
                }
                Weather::Petals => {
                    let (k, turn) = ((3.0 + 5.0 * near) * unit, self.random.range(0.0, 6.3));
                    let (c, s) = (turn.cos() * k, turn.sin() * k);
                    let petal = Shape::default()
                        .svg("M -1 0 Q 0 -0.9 1 0 Q 0 0.7 -1 0 Z", |px, py| (x + px * c - py * s, y + px * s + py * c));
                    let color = mix(self.palette.light, self.palette.accent, near);
                    self.canvas.paint(&petal, color, 0.85);
                }
            }
        }
    }
}

/// The height of a line at `x`, or of its nearest end.
pub(crate) fn at(line: &[f32], x: f32) -> f32 {
    line[(x.max(0.0) as usize).min(line.len() - 1)]
}
