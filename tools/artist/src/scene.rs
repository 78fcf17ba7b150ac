use fastrand::Rng;
use tiny_skia::Transform;
use typography::{Align, Face, Font, Line};

use crate::brief::Brief;
use crate::canvas::{Canvas, Rgb, add, mix, rgb, scale, smooth};
use crate::drawing::{parts, trace};
use crate::palette::Palette;
use crate::vocabulary::Layer;
use crate::{DISCLOSURE, Order};

pub(crate) struct Scene<'a> {
    pub(crate) canvas: Canvas,
    pub(crate) brief: &'a Brief,
    pub(crate) palette: &'a Palette,
    pub(crate) random: Rng,
    /// The length of one pixel of a picture of 832 × 1216.
    pub(crate) unit: f32,
    /// The x coordinate of the focus of the composition, and the y coordinate of the hero's feet.
    pub(crate) focus: f32,
    pub(crate) feet: f32,
    /// The height of an adult in the foreground.
    pub(crate) hero: f32,
    /// The side of the light: -1 is left, and 1 is right.
    pub(crate) side: f32,
    /// The height of the last ridge in each column.
    pub(crate) ridge: Vec<f32>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(order: &Order<'_>, brief: &'a Brief, palette: &'a Palette) -> Scene<'a> {
        // The prompt is part of the seed, so that two prompts of one genre differ too. FNV-1a is the same on every machine.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        let mut random = Rng::with_seed(order.prompt.bytes().fold(0xCBF2_9CE4_8422_2325 ^ u64::from(order.seed), step));
        let (width, height) = (order.width as f32, order.height as f32);
        let unit = (width * height).sqrt() / 1006.0;
        // The lettering, ours or another, goes below the hero, or above if there are reflections below.
        let reflecting = brief.layers.iter().any(|layer| matches!(layer, Layer::Water(depth) if *depth > 0.5));
        let feet = match (brief.lettered, reflecting) {
            (true, _) => (height - 490.0 * unit).max(0.54 * height),
            (false, true) => 0.74 * height,
            (false, false) => 0.66 * height,
        };
        let pixels = vec![[0.0; 3]; (order.width * order.height) as usize];
        Scene {
            canvas: Canvas { width: order.width as usize, height: order.height as usize, pixels },
            focus: width * (0.46 + 0.08 * random.f32()),
            hero: (240.0 * unit).min(0.3 * height).min(0.4 * width),
            side: if random.bool() { 1.0 } else { -1.0 },
            ridge: Vec::new(),
            brief,
            palette,
            random,
            unit,
            feet,
        }
    }

    pub(crate) fn compose(mut self) -> Canvas {
        self.sky();
        for layer in self.brief.layers {
            match layer {
                Layer::Sun(height) => self.sun(*height),
                Layer::Ridges(profile, row, depths, gap) => {
                    for depth in depths {
                        self.ridge(*profile, *depth);
                        self.row(row, *depth, gap * (0.3 + 0.5 * depth));
                        self.fog(self.level(*depth), 0.6 * (1.0 - depth));
                    }
                }
                Layer::Landmarks(depth) => {
                    for (drawing, aside, above) in self.brief.landmarks.iter().copied() {
                        let y = (self.level(*depth) - self.hero * above).max(1.45 * self.hero);
                        self.stand(drawing, *aside, y, depth.max(0.42) + 0.2 * above);
                    }
                }
                Layer::Stand(drawing, aside, depth) => self.stand(drawing, *aside, self.level(*depth), depth.min(1.0)),
                Layer::Water(depth) => self.water(self.level(*depth)),
                Layer::Hero => {
                    let people: Vec<_> = self.brief.cast.split(" + ").collect();
                    for (i, person) in people.iter().enumerate() {
                        let aside = 0.3 * ((people.len() - 1) as f32 / 2.0 - i as f32) * self.side;
                        self.stand(person, aside, self.feet + 2.0 * self.unit, 1.0);
                    }
                }
            }
        }
        let (width, height) = self.size();
        if let Some((drawing, count)) = self.brief.weather {
            self.scatter(drawing, *count, self.feet + 0.3 * self.hero);
        }
        if !self.brief.lettered {
            // Other lettering is unlikely to be in the middle of the right edge.
            let font = Font { face: Face::LeagueGothic, size: 15.0 * self.unit, tracking: 0.12 };
            let line = Line::new(&DISCLOSURE.to_uppercase(), font).at(0.0, 0.0, Align::Center);
            let edge = Transform::from_rotate(-90.0).post_translate(width - 8.0 * self.unit, 0.45 * height);
            self.canvas.fill(line.and_then(|path| path.transform(edge)).as_ref(), |_, _, under| {
                if under[1] > 0.25 { self.palette.ink } else { [0.9, 0.85, 0.75] }
            });
        }
        self.canvas
    }

    pub(crate) fn size(&self) -> (f32, f32) {
        (self.canvas.width as f32, self.canvas.height as f32)
    }

    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.random.f32()
    }

    /// The y coordinate of the ground at a depth.
    pub(crate) fn level(&self, depth: f32) -> f32 {
        self.feet - 0.36 * self.hero * (1.0 - depth)
    }

    /// Draws on the side away from the light, within the picture.
    fn stand(&mut self, drawing: &str, aside: f32, y: f32, depth: f32) {
        let edge = if aside.abs() > 0.5 { self.hero * 0.45 } else { 0.0 };
        let x = (self.focus - self.side * self.hero * aside).max(edge).min(self.size().0 - edge);
        self.draw(drawing, (x, y), self.hero, self.side, depth);
    }

    /// Drawings along the last ridge except for a gap, taller with the distance from the focus.
    fn row(&mut self, names: &str, depth: f32, gap: f32) {
        let (names, (width, _), mut x) = (names.split('|').collect::<Vec<_>>(), self.size(), 0.0);
        while let Some(name) = self.random.choice(&names).filter(|name| !name.is_empty() && x < width) {
            let away = (x - self.focus).abs();
            let size = self.hero * (0.35 + 0.65 * depth) * (0.35 + 1.4 * away / width) * self.between(0.8, 1.25);
            let (foot, turn) = (self.ridge[x as usize] + size * 0.03, if self.random.bool() { 1.0 } else { -1.0 });
            let open = away < gap * self.hero;
            let wide = if open { 0.0 } else { self.draw(name, (x, foot), size, turn, depth) };
            x += (wide * self.between(0.4, 1.05)).max(2.0);
        }
    }

    pub(crate) fn scatter(&mut self, drawing: &str, count: usize, bottom: f32) {
        for _ in 0..count {
            let (x, y) = (self.size().0 * self.random.f32(), bottom * self.random.f32());
            let size = self.hero * (0.4 + 1.2 * self.random.f32().powi(4));
            self.draw(drawing, (x, y), size, self.side, 1.0);
        }
    }

    /// Draws drawings on top of each other with their foot at a point. `size` is the height of an adult. Returns their width.
    pub(crate) fn draw(&mut self, names: &str, (x, y): (f32, f32), size: f32, turn: f32, depth: f32) -> f32 {
        let (k, side, palette, canvas, mut wide) = (size / 100.0, self.side, self.palette, &mut self.canvas, 0.0_f32);
        let (body, mist) = (palette.depth(depth), palette.mist);
        let place = |dx: f32, dy: f32| move |px: f32, py: f32| (x + turn * px * k + dx, y + (py - 100.0) * k + dy);
        for part in parts(names).filter(|part| part.0 == "body") {
            let edge = trace(part.2, place(1.8 * self.unit * depth * side, -1.2 * self.unit * depth));
            canvas.fill(edge.as_ref(), |_, _, under| mix(under, palette.rim, 0.85));
        }
        for part in parts(names) {
            let Some(path) = trace(part.2, place(0.0, 0.0)) else { continue };
            let (across, down, path) = (path.bounds().width(), path.bounds().height(), Some(&path));
            wide = wide.max(across);
            let color = part.1.map_or(body, rgb);
            let mut paint = |color: Rgb| {
                canvas.fill(path, |px, _, _| {
                    let lit = scale(color, 0.9 + 0.2 * side * ((px - x) / size).clamp(-1.0, 1.0));
                    mix(lit, mist, 0.4 * (1.0 - depth))
                });
            };
            match part.0 {
                "paint" => paint(color),
                "ground" => paint(palette.ground),
                "pale" => paint(mix(palette.light, [0.9, 0.85, 0.75], 0.5)),
                "dark" => paint(mix(body, palette.ink, 0.5)),
                "far" => paint(palette.depth(0.1)),
                "lit" => canvas.glow(path, 0.04 * size, palette.accent),
                "neon" => canvas.glow(path, 0.07 * size, color),
                "soft" => canvas.light((x, y), across, scale(palette.light, 1.3)),
                "fire" => canvas.light((x, y), across, [1.6, 0.6, 0.15]),
                "thin" => canvas.fill(path, |_, _, under| mix(under, palette.light, 0.3)),
                "beam" => canvas.fill(path, |px, py, under| {
                    let fade = (1.0 - (px - x).hypot(py - y) / across.max(down)).max(0.0);
                    add(under, scale(mix(palette.accent, palette.light, 0.5), 0.25 * fade * fade))
                }),
                // The foot of distant things is in mist.
                _ => {
                    let foot = mix(body, mist, (0.6 - depth).clamp(0.0, 0.6));
                    canvas.fill(path, |_, py, _| mix(body, foot, smooth(y - size, y, py)));
                }
            }
        }
        wide
    }
}
