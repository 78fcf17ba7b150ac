use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{GlyphId, MetadataProvider};
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, PixmapMut, Rect, Transform};

use crate::face::{Face, plain};

/// A typeface at a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Font {
    /// The typeface.
    pub face: Face,
    /// Pixels per em.
    pub size: f32,
    /// The space added between letters, in ems. May be negative.
    pub tracking: f32,
}

/// Which part of a text is placed at the x coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The left edge of the ink.
    Left,
    /// The middle of the ink.
    Center,
}

impl Align {
    /// Where something of this width begins.
    pub(crate) fn left_of(self, width: f32) -> f32 {
        match self {
            Self::Left => 0.0,
            Self::Center => -width / 2.0,
        }
    }
}

/// A shaped and kerned line of text, as an outline.
#[derive(Clone, Debug)]
pub struct Line {
    outline: Option<Path>,
    advance: f32,
}

impl Line {
    /// Shapes `text` on one line. Line breaks and tabs count as spaces.
    pub fn new(text: &str, font: Font) -> Line {
        let shaped = font.face.shape(&plain(text));
        let scale = font.size / font.face.units_per_em();
        let outlines = font.face.outlines();
        let glyphs = outlines.outline_glyphs();
        let settings = || DrawSettings::unhinted(Size::new(font.size), LocationRef::default());
        let mut pen = Pen { path: PathBuilder::new(), x: 0.0, y: 0.0 };
        let mut cursor = 0.0;
        let infos = shaped.glyph_infos();
        for (at, (glyph, position)) in infos.iter().zip(shaped.glyph_positions()).enumerate() {
            pen.x = cursor + position.x_offset as f32 * scale;
            pen.y = -(position.y_offset as f32) * scale;
            if let Some(outline) = glyphs.get(GlyphId::new(glyph.glyph_id)) {
                // A glyph that cannot be drawn leaves a gap.
                let _ = outline.draw(settings(), &mut pen);
            }
            cursor += position.x_advance as f32 * scale;
            // A letter and its marks form a cluster, which tracking must not split.
            if infos.get(at + 1).is_some_and(|next| next.cluster != glyph.cluster) {
                cursor += font.tracking * font.size;
            }
        }
        Line { outline: pen.path.finish(), advance: cursor }
    }

    /// The width of the line, including its side bearings.
    pub fn advance(&self) -> f32 {
        self.advance
    }

    /// The box of the ink, with the start of the baseline at (0, 0). `None` if there is no ink.
    pub(crate) fn ink(&self) -> Option<Rect> {
        self.outline.as_ref().map(Path::bounds)
    }

    /// The outline with its baseline at `y` and its ink aligned at `x`, for the winding rule; `None` without ink.
    pub fn at(&self, x: f32, y: f32, align: Align) -> Option<Path> {
        let ink = self.ink()?;
        let origin = match align {
            Align::Left => ink.left(),
            Align::Center => (ink.left() + ink.right()) / 2.0,
        };
        shifted(self.outline.as_ref()?, x - origin, y)
    }

    /// Fills the line with a color; see [`Line::at`] for the position.
    pub fn draw(&self, picture: &mut PixmapMut<'_>, x: f32, y: f32, align: Align, color: Color) {
        let Some(path) = self.at(x, y, align) else { return };
        let mut paint = Paint { anti_alias: true, ..Paint::default() };
        paint.set_color(color);
        picture.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
    }
}

pub(crate) fn shifted(path: &Path, x: f32, y: f32) -> Option<Path> {
    path.clone().transform(Transform::from_translate(x, y))
}

/// Collects glyph outlines, which skrifa draws with the y axis up, into one path.
struct Pen {
    path: PathBuilder,
    x: f32,
    y: f32,
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.x + x, self.y - y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.x + x, self.y - y);
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        self.path.quad_to(self.x + cx, self.y - cy, self.x + x, self.y - y);
    }

    fn curve_to(&mut self, ax: f32, ay: f32, bx: f32, by: f32, x: f32, y: f32) {
        self.path.cubic_to(self.x + ax, self.y - ay, self.x + bx, self.y - by, self.x + x, self.y - y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_skia::Pixmap;

    const FONT: Font = Font { face: Face::Cinzel, size: 100.0, tracking: 0.0 };

    #[test]
    fn kerning_pulls_letters_together() {
        let width = |text| Line::new(text, FONT).advance();
        assert!(width("AV") < width("A") + width("V") - 1.0);
    }

    #[test]
    fn tracking_lies_between_letters_only() {
        let tracked = Line::new("ABC", Font { tracking: 0.1, ..FONT });
        let plain = Line::new("ABC", FONT);
        assert!((tracked.advance() - plain.advance() - 20.0).abs() < 0.01);
    }

    #[test]
    fn tracking_lies_between_a_letter_with_its_marks_and_the_next() {
        // No composed letter exists of either.
        for face in Face::ALL.into_iter().filter(|face| face.missing("N\u{308}M\u{304}").is_none()) {
            let font = Font { face, ..FONT };
            let advance = |tracking| Line::new("SPIN\u{308}AM\u{304}", Font { tracking, ..font }).advance();
            assert!((advance(0.3) - advance(0.0) - 5.0 * 30.0).abs() < 0.01, "{face:?}");
            let ink = |tracking| Line::new("N\u{308}", Font { tracking, ..font }).ink();
            assert_eq!(ink(0.3), ink(0.0), "{face:?}: the mark stays where it is");
        }
    }

    #[test]
    fn what_only_says_where_a_line_ends_takes_no_room() {
        let advance = |text| Line::new(text, Font { tracking: 0.3, ..FONT }).advance();
        assert_eq!(advance("SOFT\u{ad}LY"), advance("SOFTLY"));
        assert_eq!(advance("A\u{2060}B"), advance("AB"));
    }

    #[test]
    fn nothing_to_ink_is_no_path() {
        for text in ["", " ", "\n\t"] {
            assert!(Line::new(text, FONT).at(0.0, 0.0, Align::Center).is_none());
        }
    }

    #[test]
    fn drawing_inks_the_picture() {
        let mut picture = Pixmap::new(100, 100).expect("the size is not zero");
        Line::new("O", FONT).draw(&mut picture.as_mut(), 50.0, 90.0, Align::Center, Color::BLACK);
        assert!(picture.pixels().iter().any(|p| p.alpha() == 255));
    }
}
