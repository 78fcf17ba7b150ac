//! A picture in linear light, and the ways to put paint on it.

use tiny_skia::{FillRule, LineJoin, Mask, Path, Stroke, Transform};
use typography::Raster;

use crate::noise::hash_point;

/// A color in linear light: 1 is white, and more is brighter than the picture can show.
pub(crate) type Rgb = [f32; 3];

/// A color from its sRGB notation, such as `#FFB048`.
pub(crate) fn rgb(notation: &str) -> Rgb {
    [1, 3, 5].map(|at| {
        let v = f32::from(u8::from_str_radix(&notation[at..at + 2], 16).expect("a color in our own data")) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    })
}

pub(crate) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t)
}

pub(crate) fn scale(a: Rgb, k: f32) -> Rgb {
    a.map(|v| v * k)
}

pub(crate) fn add(a: Rgb, b: Rgb) -> Rgb {
    [0, 1, 2].map(|i| a[i] + b[i])
}

pub(crate) fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

pub(crate) struct Canvas {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<Rgb>,
}

impl Canvas {
    /// Replaces each pixel between two corners by a function of its position and color.
    pub(crate) fn shade(&mut self, from: (f32, f32), to: (f32, f32), f: impl Fn(f32, f32, Rgb) -> Rgb) {
        let limit = |v: f32, most: usize| (v.max(0.0) as usize).min(most);
        let (left, right) = (limit(from.0, self.width), limit(to.0.ceil(), self.width));
        for y in limit(from.1, self.height)..limit(to.1.ceil(), self.height) {
            for x in left..right {
                let pixel = &mut self.pixels[y * self.width + x];
                *pixel = f(x as f32, y as f32, *pixel);
            }
        }
    }

    pub(crate) fn fill(&mut self, path: Option<&Path>, color: impl Fn(f32, f32, Rgb) -> Rgb) {
        let Some(path) = path else { return };
        let (bounds, width, height) = (path.bounds(), self.width as f32, self.height as f32);
        let (left, top) = (bounds.left().floor().max(0.0), bounds.top().floor().max(0.0));
        let (right, bottom) = (bounds.right().min(width).ceil(), bounds.bottom().min(height).ceil());
        let Some(mut mask) = Mask::new((right - left) as u32, (bottom - top) as u32) else { return };
        mask.fill_path(path, FillRule::Winding, true, Transform::from_translate(-left, -top));
        let columns = mask.width() as usize;
        self.shade((left, top), (right, bottom), |x, y, under| {
            match mask.data()[(y - top) as usize * columns + (x - left) as usize] {
                0 => under,
                cover => mix(under, color(x, y, under), f32::from(cover) / 255.0),
            }
        });
    }

    /// Fills a path with light, which fades within `reach` around it.
    pub(crate) fn glow(&mut self, path: Option<&Path>, reach: f32, color: Rgb) {
        for step in [0.08, 0.2, 0.36, 0.55, 0.76, 1.0] {
            let stroke =
                Stroke { width: (2.0 * reach * step).max(0.4), line_join: LineJoin::Round, ..Stroke::default() };
            let rim = path.and_then(|path| path.stroke(&stroke, 1.0));
            self.fill(rim.as_ref(), |_, _, under| add(under, scale(color, 0.07)));
        }
        self.fill(path, |_, _, _| mix(color, [1.0; 3], 0.25));
    }

    pub(crate) fn light(&mut self, (x, y): (f32, f32), radius: f32, color: Rgb) {
        self.shade((x - radius, y - radius), (x + radius, y + radius), |px, py, under| {
            let near = (1.0 - (px - x).hypot(py - y) / radius).max(0.0);
            add(under, scale(color, near * near * near))
        });
    }

    /// The picture in sRGB, with a soft shoulder, darker corners and film grain.
    pub(crate) fn develop(&self, seed: u32) -> Raster {
        const STEPS: f32 = 4095.0;
        let srgb = |v: f32| if v <= 0.003_130_8 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        let table: Vec<f32> = (0..=STEPS as u32).map(|i| 255.0 * srgb(i as f32 / STEPS)).collect();
        let mut pixels = Vec::with_capacity(self.pixels.len() * 3);
        for (i, pixel) in self.pixels.iter().enumerate() {
            let (x, y) = (i % self.width, i / self.width);
            let (dx, dy) = (x as f32 / self.width as f32 - 0.5, y as f32 / self.height as f32 - 0.5);
            let vignette = 1.0 - 0.5 * smooth(0.12, 0.62, dx * dx * 1.3 + dy * dy);
            // The sum of a few uniform random numbers is nearly a bell curve.
            let bell =
                hash_point(x as i32, y as i32, seed).to_le_bytes().map(f32::from).iter().sum::<f32>() / 255.0 - 2.0;
            pixels.extend(pixel.map(|v| {
                let v = v * vignette;
                let v = if v > 0.8 { 0.8 + 0.2 * (1.0 - 0.2 / (v - 0.6)) } else { v };
                (table[(v.clamp(0.0, 1.0) * STEPS) as usize] + 4.0 * bell + 0.5).clamp(0.0, 255.0) as u8
            }));
        }
        Raster { width: self.width, height: self.height, pixels, notes: Vec::new() }
    }
}
