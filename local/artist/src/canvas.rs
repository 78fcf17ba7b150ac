//! A picture in linear light, and the ways to put paint on it.

use tiny_skia::{FillRule, LineCap, LineJoin, Mask, Path, PathBuilder, Rect, Stroke, Transform};

/// A colour in linear light; 1 is white, and more than 1 is brighter than the picture can show.
pub(crate) type Rgb = [f32; 3];

pub(crate) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t)
}

pub(crate) fn scale(a: Rgb, k: f32) -> Rgb {
    a.map(|v| v * k)
}

pub(crate) fn add(a: Rgb, b: Rgb) -> Rgb {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(crate) fn luminance(c: Rgb) -> f32 {
    0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]
}

/// A smooth step from 0 at `from` to 1 at `to`.
pub(crate) fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Outlines gathered to be painted at once.
#[derive(Clone, Default)]
pub(crate) struct Shape(PathBuilder);

impl From<&Path> for Shape {
    fn from(path: &Path) -> Shape {
        let mut shape = Shape::default();
        shape.0.push_path(path);
        shape
    }
}

impl Shape {
    pub(crate) fn rect(self, x: f32, y: f32, width: f32, height: f32) -> Shape {
        self.polygon(&[(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    }

    pub(crate) fn polygon(self, points: &[(f32, f32)]) -> Shape {
        let mut shape = self.line(points);
        shape.0.close();
        shape
    }

    /// An open line, to be stroked.
    pub(crate) fn line(mut self, points: &[(f32, f32)]) -> Shape {
        for (i, (x, y)) in points.iter().enumerate() {
            if i == 0 { self.0.move_to(*x, *y) } else { self.0.line_to(*x, *y) }
        }
        self
    }

    pub(crate) fn ellipse(mut self, x: f32, y: f32, rx: f32, ry: f32) -> Shape {
        if let Some(bounds) = Rect::from_ltrb(x - rx, y - ry, x + rx, y + ry) {
            self.0.push_oval(bounds);
        }
        self
    }

    /// A window or door whose top is a pointed (`rise` above 1) or round arch.
    pub(crate) fn arch(mut self, x: f32, y: f32, width: f32, height: f32, rise: f32) -> Shape {
        let spring = y + width * 0.5 * rise;
        self.0.move_to(x, y + height);
        self.0.line_to(x, spring);
        self.0.quad_to(x + width * 0.06, y + width * 0.06, x + width * 0.5, y);
        self.0.quad_to(x + width * 0.94, y + width * 0.06, x + width, spring);
        self.0.line_to(x + width, y + height);
        self.0.close();
        self
    }

    /// SVG path data of absolute M, L, C, Q and Z commands, with blanks between all its tokens and
    /// each point put through `place`.
    pub(crate) fn svg(mut self, data: &str, place: impl Fn(f32, f32) -> (f32, f32)) -> Shape {
        let (mut command, mut numbers) = ("", Vec::new());
        for token in data.split_whitespace() {
            match token.parse::<f32>() {
                Ok(number) => numbers.push(number),
                Err(_) => command = token,
            }
            let points: Vec<_> = numbers.chunks_exact(2).map(|p| place(p[0], p[1])).collect();
            match (command, points.as_slice()) {
                ("M", &[(x, y)]) => self.0.move_to(x, y),
                ("L", &[(x, y)]) => self.0.line_to(x, y),
                ("Q", &[(ax, ay), (x, y)]) => self.0.quad_to(ax, ay, x, y),
                ("C", &[(ax, ay), (bx, by), (x, y)]) => self.0.cubic_to(ax, ay, bx, by, x, y),
                ("Z", []) => self.0.close(),
                _ => continue,
            }
            numbers.clear();
        }
        self
    }

    pub(crate) fn and(mut self, other: &Shape) -> Shape {
        if let Some(path) = other.path() {
            self.0.push_path(&path);
        }
        self
    }

    pub(crate) fn moved(&self, x: f32, y: f32) -> Shape {
        let path = self.path().and_then(|path| path.transform(Transform::from_translate(x, y)));
        path.as_ref().map(Shape::from).unwrap_or_default()
    }

    fn path(&self) -> Option<Path> {
        self.0.clone().finish()
    }
}

pub(crate) struct Canvas {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<Rgb>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, height, pixels: vec![[0.0; 3]; width * height] }
    }

    /// Replace every pixel between two corners by a function of its place and colour.
    pub(crate) fn shade(&mut self, from: (f32, f32), to: (f32, f32), f: impl Fn(f32, f32, Rgb) -> Rgb) {
        let limit = |v: f32, most: usize| (v.max(0.0) as usize).min(most);
        let (left, right) = (limit(from.0, self.width), limit(to.0.ceil(), self.width));
        for y in limit(from.1, self.height)..limit(to.1.ceil(), self.height) {
            let row = y * self.width;
            for x in left..right {
                let pixel = &mut self.pixels[row + x];
                *pixel = f(x as f32, y as f32, *pixel);
            }
        }
    }

    /// Fill a shape with colours that depend on the place and on what is under it.
    pub(crate) fn fill(&mut self, shape: &Shape, color: impl Fn(f32, f32, Rgb) -> Rgb) {
        self.spread(shape, 0.0, |x, y, under, cover| mix(under, color(x, y, under), cover));
    }

    pub(crate) fn paint(&mut self, shape: &Shape, color: Rgb, opacity: f32) {
        self.spread(shape, 0.0, |_, _, under, cover| mix(under, color, cover * opacity));
    }

    pub(crate) fn stroke(&mut self, shape: &Shape, width: f32, color: Rgb, opacity: f32) {
        let (line_cap, line_join) = (LineCap::Round, LineJoin::Round);
        let stroke = Stroke { width: width.max(0.4), line_cap, line_join, ..Stroke::default() };
        if let Some(outline) = shape.path().and_then(|path| path.stroke(&stroke, 1.0)) {
            self.paint(&Shape::from(&outline), color, opacity);
        }
    }

    /// Paint a shape out of focus.
    pub(crate) fn blur(&mut self, shape: &Shape, radius: f32, color: Rgb, opacity: f32) {
        self.spread(shape, radius, |_, _, under, cover| mix(under, color, cover * opacity));
    }

    /// Add the light that a shining shape sheds about it.
    pub(crate) fn glow(&mut self, shape: &Shape, radius: f32, color: Rgb) {
        self.spread(shape, radius, |_, _, under, cover| add(under, scale(color, cover)));
    }

    /// Add a round light that falls off smoothly to nothing at `radius`.
    pub(crate) fn light(&mut self, x: f32, y: f32, radius: f32, color: Rgb) {
        self.shade((x - radius, y - radius), (x + radius, y + radius), |px, py, under| {
            let near = (1.0 - (px - x).hypot(py - y) / radius).max(0.0);
            add(under, scale(color, near * near * near))
        });
    }

    /// Change the pixels that a shape covers, after blurring the shape.
    fn spread(&mut self, shape: &Shape, blur: f32, f: impl Fn(f32, f32, Rgb, f32) -> Rgb) {
        let Some(path) = shape.path() else { return };
        let (bounds, pad) = (path.bounds(), 3.0 * blur.ceil());
        let left = (bounds.left().floor() - pad).max(-pad);
        let top = (bounds.top().floor() - pad).max(-pad);
        let width = (bounds.right().ceil() + pad).min(self.width as f32 + pad) - left;
        let height = (bounds.bottom().ceil() + pad).min(self.height as f32 + pad) - top;
        if width < 1.0 || height < 1.0 {
            return;
        }
        let Some(mut mask) = Mask::new(width as u32, height as u32) else { return };
        mask.fill_path(&path, FillRule::Winding, true, Transform::from_translate(-left, -top));
        let mut cover = mask.take();
        if blur >= 1.0 {
            cover = blurred(cover, width as usize, height as usize, blur as usize);
        }
        let corner = (left.max(0.0), top.max(0.0));
        self.shade(corner, (left + width, top + height), |x, y, under| {
            match cover[(y - top) as usize * width as usize + (x - left) as usize] {
                0 => under,
                level => f(x, y, under, f32::from(level) / 255.0),
            }
        });
    }
}

/// Three passes of a running mean in each direction, which is close to a Gaussian blur.
fn blurred(mut cover: Vec<u8>, width: usize, height: usize, radius: usize) -> Vec<u8> {
    let mut line = vec![0; width.max(height)];
    let mut pass = |cover: &mut [u8], start: usize, step: usize, length: usize| {
        for _ in 0..3 {
            let mut sum = 0;
            for i in 0..length + radius {
                sum += if i < length { u32::from(cover[start + i * step]) } else { 0 };
                let window = 2 * radius + 1;
                sum -= if i >= window { u32::from(line[i - window]) } else { 0 };
                if i < length {
                    line[i] = cover[start + i * step];
                }
                if i >= radius {
                    cover[start + (i - radius) * step] = (sum / window as u32) as u8;
                }
            }
        }
    };
    (0..height).for_each(|y| pass(&mut cover, y * width, 1, width));
    (0..width).for_each(|x| pass(&mut cover, x, width, height));
    cover
}
