//! The words on the picture: where they go, and drawing them.

use tiny_skia::Path;
use typography::{Align, Block, Face, Line, Style, billing, fit_title};

use crate::canvas::{Canvas, Rgb, Shape, mix, smooth};
use crate::palette::{Palette, rgb};
use crate::reading::Brief;
use crate::{DISCLOSURE, Order};

/// Words in their places, and how much of the picture they take.
pub(crate) struct Lettering {
    title: Option<Path>,
    tagline: Option<Path>,
    billing: Block,
    disclosure: Option<Path>,
    /// The top of the words.
    pub(crate) top: f32,
    /// Whether the words stand in a column on the left, as in wide pictures, or else at the foot.
    pub(crate) column: bool,
}

impl Lettering {
    pub(crate) fn set(brief: &Brief, order: &Order<'_>) -> Lettering {
        let (width, height) = (order.width as f32, order.height as f32);
        let column = width > height * 1.35;
        let unit = (width * height).sqrt() / 1006.0;
        let measure = if column { width * 0.37 } else { width * 0.84 };
        let (x, align) = if column { (width * 0.055, Align::Left) } else { (width / 2.0, Align::Centre) };
        let line = |text: &str, face: Face, size: f32, tracking: f32, y: f32| {
            let style = Style { face, size, tracking };
            let wide = Line::new(text, style).advance().max(1.0);
            let style = Style { size: size * (measure / wide).min(1.0), ..style };
            Line::new(text, style).at(x, y, align)
        };
        let mut y = height - 26.0 * unit.min(height / 500.0);
        let disclosure = line(&DISCLOSURE.to_uppercase(), Face::LeagueGothic, 15.0 * unit, 0.12, y);
        let seed = order.seed.to_string();
        let credits = [
            ("an", "Offline Picture"),
            ("in the mood of", brief.mood.name),
            ("shapes by", "Geometry"),
            ("clouds by", "Fractal Noise"),
            ("light by", "Linear Arithmetic"),
            ("from seed", seed.as_str()),
        ];
        let block = billing(&credits, 28.0 * unit, measure, align);
        y -= 32.0 * unit + block.height;
        let billing = block.at(x, y);
        let face = brief.mood.face.covering(&brief.title).unwrap_or(brief.mood.face);
        let style = Style { face, size: 230.0 * unit, tracking: brief.mood.tracking };
        let room = if column { height * 0.36 } else { height * 0.15 };
        let block = fit_title(&brief.title, style, measure, room, align);
        y -= 30.0 * unit + block.height;
        let title = block.at(x, y).main;
        y -= 24.0 * unit;
        let face = Face::LeagueGothic.covering(brief.tagline).unwrap_or(Face::LeagueGothic);
        let tagline = line(&brief.tagline.to_uppercase(), face, 27.0 * unit, 0.17, y);
        let top = y - 24.0 * unit;
        Lettering { title, tagline, billing, disclosure, top, column }
    }

    /// Darken the picture where the words go, so that they can be read on whatever is there.
    pub(crate) fn darken(&self, canvas: &mut Canvas, palette: &Palette) {
        let (width, height) = (canvas.width as f32, canvas.height as f32);
        let (top, column) = (self.top, self.column);
        let soft = height * 0.05;
        canvas.shade((0.0, 0.0), (width, height), |x, y, under| {
            let shade = if column {
                0.92 * (1.0 - smooth(width * 0.3, width * 0.56, x))
                    * (0.4 + 0.6 * smooth(top - soft * 6.0, top + soft, y))
            } else {
                0.78 * smooth(top - soft, top + soft * 0.4, y) + 0.18 * smooth(top, top + soft * 4.0, y)
            };
            mix(under, palette.ink, shade)
        });
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, palette: &Palette) {
        let unit = ((canvas.width * canvas.height) as f32).sqrt() / 1006.0;
        let paper = rgb(0xF8F0DF);
        let mut put = |path: &Option<Path>, color: Rgb, opacity: f32, shadow: f32| {
            if let Some(shape) = path.as_ref().map(Shape::from) {
                canvas.blur(&shape.moved(0.0, 2.0 * unit), shadow * unit, [0.0; 3], 0.5);
                canvas.paint(&shape, color, opacity);
            }
        };
        put(&self.title, mix(paper, palette.accent, 0.12), 1.0, 7.0);
        put(&self.tagline, mix(palette.accent, paper, 0.15), 0.95, 4.0);
        put(&self.billing.main, paper, 0.82, 3.0);
        put(&self.billing.small, paper, 0.68, 2.0);
        put(&self.disclosure, paper, 0.62, 2.0);
    }
}
