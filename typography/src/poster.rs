use std::cmp::Ordering;

use tiny_skia::{ColorU8, FillRule, Paint, Path, PathBuilder, Pixmap, Rect, Transform};

use crate::block::{Block, billing, fit_title};
use crate::color::{Light, Rgb, contrast, ink};
use crate::face::Face;
use crate::heads::{Head, heads};
use crate::line::{Align, Font};
use crate::raster::Raster;
use crate::style::{Design, Ornament, Setting, Style};
use crate::survey::Survey;

/// The minimum contrast between the title and each pixel beneath it: WCAG 2's level AAA for text.
pub(crate) const TITLE_CONTRAST: f32 = 7.0;

/// The minimum contrast of smaller words: level AA.
const SMALL_CONTRAST: f32 = 4.5;

/// The minimum height of a legible title's capitals, as a share of the picture's mean side: 25 pixels of 832 × 1216. A
/// gallery shows posters at a fifth of that, where a readable capital has five pixels or more.
pub(crate) const LEGIBLE: f32 = 1.0 / 40.0;

const OPAQUE: u32 = 256;

/// The words to set over a picture.
#[derive(Clone, Copy, Debug)]
pub struct Sheet<'a> {
    /// The title.
    pub title: &'a str,
    /// A line that accompanies the title.
    pub tagline: Option<&'a str>,
    /// Roles and names. A role may be empty.
    pub credits: &'a [(&'a str, &'a str)],
    /// The style; `None` chooses one that fits the picture's colors.
    pub style: Option<Style>,
    /// The position of the title; `None` chooses where the picture is calmest.
    pub place: Option<Place>,
}

/// The position of a title. The billing block is always at the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Place {
    Top,
    Bottom,
}

/// A picture with its lettering.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Poster {
    pub picture: Raster,
    pub style: Style,
    pub place: Place,
    /// The lowest contrast between the title and the pixels in its box, measured before it was drawn.
    pub contrast: f32,
    /// Whether the title's capitals are at least a fortieth of the picture's mean side high. A title that is too long for its place is not.
    pub legible: bool,
}

/// Why the lettering failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSet {
    /// No bundled face has this character.
    #[error("no bundled face has the character U+{:04X}", u32::from(*.0))]
    NoFace(char),
    /// The title has no ink, or the picture has no room for it.
    #[error("the title would not be visible")]
    NoTitle,
}

/// Whether the bundled faces have a character as it is and in upper case, so that one face can set any text of these.
pub fn covers(c: char) -> bool {
    c.is_whitespace() || std::iter::once(c).chain(c.to_uppercase()).all(|c| Face::PlayfairDisplay.has(c))
}

/// Sets a sheet over a picture.
pub fn typeset(mut picture: Raster, sheet: &Sheet<'_>) -> Result<Poster, NotSet> {
    let texts = sheet.credits.iter().flat_map(|(role, name)| [*role, *name]).chain(sheet.tagline).chain([sheet.title]);
    if let Some(missing) = texts.flat_map(str::chars).find(|c| !covers(*c)) {
        return Err(NotSet::NoFace(missing));
    }
    let survey = Survey::of(&picture);
    let style = sheet.style.unwrap_or_else(|| Style::of(&survey));
    let design = style.design(&survey);
    let (place, composition) = composed(&picture, sheet, &design, &survey)?;
    composition.shade(&mut picture, survey.dark, place);
    let light = Light::new();
    composition.draw(&mut picture, |kind| kind == Kind::Shadow);
    let title = light.luminance(composition.title_ink);
    let brightest = pixels_in(&picture, composition.title).map(|rgb| light.luminance(rgb)).fold(0.0, f32::max);
    composition.draw(&mut picture, |kind| kind != Kind::Shadow);
    let side = mean_side(picture.width as f32, picture.height as f32);
    let legible = composition.letters >= LEGIBLE * side;
    Ok(Poster { picture, style, place, contrast: contrast(title, brightest), legible })
}

/// Places the words where the sheet says, or else where the picture is calm. Shifts and scales down title and tagline
/// until they cover no face, or as little of one as possible.
fn composed(
    picture: &Raster,
    sheet: &Sheet<'_>,
    design: &Design,
    survey: &Survey,
) -> Result<(Place, Composition), NotSet> {
    let heads = heads(picture);
    let (width, height) = (picture.width as f32, picture.height as f32);
    let best = |place| {
        let compose = |fit| Composition::new(sheet, design, width, height, fit);
        let mut best: Option<(Cost, Composition)> = None;
        for scale in SCALES {
            let fit = Fit { place, scale, shift: 0.0 };
            let unshifted = compose(fit)?;
            let cost = unshifted.least_cost(&heads, fit, width, height);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                let shifted = cost.shift > 0.0;
                let composition = if shifted { compose(Fit { shift: cost.shift, ..fit })? } else { unshifted };
                best = Some((cost, composition));
            }
            if cost.is_least() {
                break;
            }
        }
        best.ok_or(NotSet::NoTitle)
    };
    if let Some(place) = sheet.place {
        return Ok((place, best(place)?.1));
    }
    let ((top_cost, top), (bottom_cost, bottom)) = (best(Place::Top)?, best(Place::Bottom)?);
    let trouble = |composition: &Composition| survey.trouble(composition.heading.top(), composition.heading.bottom());
    // The usual place is the bottom, so the top must be noticeably calmer.
    let calmer = top_cost == bottom_cost && trouble(&top) < 0.8 * trouble(&bottom);
    Ok(if calmer || top_cost < bottom_cost { (Place::Top, top) } else { (Place::Bottom, bottom) })
}

/// As a share of the picture's mean side.
const SHIFT: f32 = 0.02;

const SCALES: [f32; 6] = [1.0, 0.85, 0.72, 0.6, 0.5, 0.4];

#[derive(Clone, Copy)]
struct Fit {
    place: Place,
    scale: f32,
    /// Towards the middle of the picture.
    shift: f32,
}

/// In order of importance: the area of eyes and faces that is covered, how far the words reach beyond the middle of the
/// picture, how much they are scaled down, and how far they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Cost {
    eyes: f32,
    faces: f32,
    beyond: f32,
    shrunk: f32,
    shift: f32,
}

impl Cost {
    fn is_least(self) -> bool {
        self.faces == 0.0 && self.beyond == 0.0
    }
}

struct Composition {
    pieces: Vec<Piece>,
    title: Rect,
    title_ink: Rgb,
    letters: f32,
    words: Vec<Rect>,
    heading: Rect,
    /// Whether they are shifted away from the picture's edge and the billing block, so that a face may be in between.
    shifted: bool,
    billing: Option<Rect>,
}

struct Piece {
    path: Path,
    ink: Rgb,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shadow,
    Title,
    Small,
    Ornament,
}

impl Kind {
    fn contrast(self) -> Option<f32> {
        match self {
            Self::Title => Some(TITLE_CONTRAST),
            Self::Small => Some(SMALL_CONTRAST),
            Self::Shadow | Self::Ornament => None,
        }
    }
}

struct Item {
    block: Block,
    gap: f32,
    ink: Rgb,
    kind: Kind,
}

impl Composition {
    fn new(sheet: &Sheet<'_>, design: &Design, width: f32, height: f32, fit: Fit) -> Result<Self, NotSet> {
        // All lengths derive from the picture's mean side, so that a poster looks alike in every shape.
        let side = mean_side(width, height);
        let margin = (0.058 * side).min(0.09 * width);
        let measure = (width - 2.0 * margin).min(1.12 * side);
        let x = match design.align {
            Align::Left => margin,
            Align::Center => width / 2.0,
        };
        let inks = &design.inks;
        let (mut pieces, mut billing) = (Vec::new(), None);
        let edge = edge(width, height);
        let mut bottom = height - edge;
        if !sheet.credits.is_empty() {
            let block = fitted_billing(sheet.credits, side, measure, design.align);
            let top = bottom - block.height;
            let block = block.at(x, top);
            billing = block.bounds();
            push(&mut pieces, block, [inks.names, inks.roles], Kind::Small);
            bottom = top - 0.035 * side;
        }

        let items = items(sheet, design, side, measure, height, fit.scale);
        let tall = items.iter().map(|item| item.gap + item.block.height).sum::<f32>();
        let mut y = match fit.place {
            Place::Top => edge + fit.shift,
            Place::Bottom => bottom - tall - fit.shift,
        };
        let (mut words, mut title) = (Vec::new(), None);
        for item in items {
            y += item.gap;
            let block = item.block.at(x, y);
            let placed = block.bounds();
            words.extend(placed);
            if item.kind == Kind::Title {
                title = placed.zip(Some(block.letters));
                if design.ornament == Ornament::Shadow {
                    let step = (0.0011 * side).max(0.5);
                    // Many thin shadows next to each other form a thick one.
                    for off in (1..=6).map(|i| step * i as f32) {
                        push(&mut pieces, item.block.at(x + off, y + off), [inks.ornament; 2], Kind::Shadow);
                    }
                }
            }
            push(&mut pieces, block, [item.ink; 2], item.kind);
            y += item.block.height;
        }
        let heading = words.iter().copied().reduce(|one: Rect, other| one.join(&other).unwrap_or(one));
        // The title may consist of marks that no face draws, or the picture of a few pixels.
        let (heading, (title, letters)) = heading.zip(title).ok_or(NotSet::NoTitle)?;
        let shifted = fit.shift > 0.0;
        Ok(Self { pieces, title, title_ink: inks.title, letters, words, heading, shifted, billing })
    }

    /// The lowest cost of these words at any shift that keeps them in the picture and above the billing block.
    fn least_cost(&self, heads: &[Head], Fit { place, scale, .. }: Fit, width: f32, height: f32) -> Cost {
        let side = mean_side(width, height);
        let heading = self.heading;
        let middle = (heading.top() + heading.bottom() - height) / 2.0;
        let (to_middle, room) = match place {
            Place::Top => {
                let end = self.billing.map_or(height - edge(width, height), |billing| billing.top() - 0.035 * side);
                (-middle, end - heading.bottom())
            }
            Place::Bottom => (middle, heading.top() - edge(width, height)),
        };
        let steps = if heads.is_empty() { 0 } else { (room.max(0.0) / (SHIFT * side)) as usize };
        let costs = (0..=steps).map(|step| {
            let shift = step as f32 * SHIFT * side;
            let down = if place == Place::Top { shift } else { -shift };
            let common = |part: Rect| {
                let words = self.words.iter().filter_map(|word| word.outset(0.01 * side, 0.01 * side));
                let moved = words.filter_map(|word| {
                    Rect::from_ltrb(word.left(), word.top() + down, word.right(), word.bottom() + down)
                });
                moved
                    .filter_map(|word| word.intersect(&part))
                    .map(|common| common.width() * common.height())
                    .sum::<f32>()
            };
            let eyes = heads.iter().map(|head| common(head.eyes)).sum();
            let faces = heads.iter().map(|head| common(head.area)).sum();
            Cost { eyes, faces, beyond: (shift - to_middle.max(0.0)).max(0.0), shrunk: 1.0 - scale, shift }
        });
        costs.min_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal)).expect("there is a first step")
    }

    /// Darkens the picture beneath the words as much as necessary, fading out around them.
    fn shade(&self, picture: &mut Raster, dark: Rgb, place: Place) {
        let light = Light::new();
        let mut strengths = vec![0_u32; picture.height];
        let mut band = |need: u32, area: Rect, dark_to: Option<Place>, fade: f32| {
            let (top, bottom) = (area.top() - 2.0, area.bottom() + 2.0);
            for (y, strength) in strengths.iter_mut().enumerate() {
                let (above, below) = (top - y as f32, y as f32 - bottom);
                let outside = match dark_to {
                    Some(Place::Top) => below,
                    Some(Place::Bottom) => above,
                    None => above.max(below),
                };
                let share = 1.0 - (outside / fade).clamp(0.0, 1.0);
                let share = share * share * (3.0 - 2.0 * share);
                *strength = (*strength).max((need as f32 * share).ceil() as u32);
            }
        };
        // Only words at the bottom, in their usual place, share the scrim of the billing block.
        let apart = place == Place::Top || self.shifted;
        let fade = 0.09 * picture.height as f32;
        let mut heading = 0;
        for piece in &self.pieces {
            let Some(least) = piece.kind.contrast() else { continue };
            let area = piece.path.bounds();
            let limit = (light.luminance(piece.ink) + 0.05) / least - 0.05;
            let need = needed(picture, area, limit, dark, &light);
            match self.billing.filter(|billing| apart && billing.top() <= area.top()) {
                Some(billing) => band(need, billing, Some(Place::Bottom), fade),
                None => heading = heading.max(need),
            }
        }
        if self.shifted {
            band(heading, self.heading, None, fade);
        } else {
            let area = self.billing.filter(|_| !apart).and_then(|billing| billing.join(&self.heading));
            band(heading, area.unwrap_or(self.heading), Some(place), 0.2 * picture.height as f32);
        }
        for (row, strength) in picture.pixels.chunks_exact_mut(picture.width * 3).zip(strengths) {
            if strength > 0 {
                row.chunks_exact_mut(3).for_each(|pixel| {
                    for (channel, dark) in pixel.iter_mut().zip(dark) {
                        *channel = veiled(*channel, dark, strength);
                    }
                });
            }
        }
    }

    fn draw(&self, picture: &mut Raster, wanted: impl Fn(Kind) -> bool) {
        let pieces: Vec<&Piece> = self.pieces.iter().filter(|piece| wanted(piece.kind)).collect();
        let areas = pieces.iter().map(|piece| piece.path.bounds());
        let Some((top, bottom)) =
            areas.map(|area| (area.top(), area.bottom())).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
        else {
            return;
        };
        let (first, last) = (row(top - 1.0, picture), row(bottom + 2.0, picture));
        let Some(mut canvas) = Pixmap::new(picture.width as u32, (last - first) as u32) else { return };
        let rows = &mut picture.pixels[first * picture.width * 3..last * picture.width * 3];
        for (pixel, &[red, green, blue]) in canvas.pixels_mut().iter_mut().zip(rows.as_chunks().0) {
            *pixel = ColorU8::from_rgba(red, green, blue, 255).premultiply();
        }
        let lift = Transform::from_translate(0.0, -(first as f32));
        for piece in pieces {
            let mut paint = Paint { anti_alias: true, ..Paint::default() };
            paint.set_color(ink(piece.ink));
            canvas.fill_path(&piece.path, &paint, FillRule::Winding, lift, None);
        }
        for (pixel, rgb) in canvas.pixels().iter().zip(rows.chunks_exact_mut(3)) {
            rgb.copy_from_slice(&[pixel.red(), pixel.green(), pixel.blue()]);
        }
    }
}

fn push(pieces: &mut Vec<Piece>, block: Block, inks: [Rgb; 2], kind: Kind) {
    let paths = [block.main, block.small].into_iter().zip(inks);
    pieces.extend(paths.filter_map(|(path, ink)| Some(Piece { path: path?, ink, kind })));
}

/// The side of a square with the same area as the picture.
fn mean_side(width: f32, height: f32) -> f32 {
    (width * height).sqrt()
}

fn edge(width: f32, height: f32) -> f32 {
    0.05 * height.min(1.2 * mean_side(width, height))
}

fn items(sheet: &Sheet<'_>, design: &Design, side: f32, measure: f32, height: f32, scale: f32) -> Vec<Item> {
    let inks = &design.inks;
    let gap = 0.026 * side;
    let set = |text: &str, setting: Setting, size: f32, tall: f32| {
        let (text, font) = set_in(text, setting, size * setting.size);
        fit_title(&text, font, measure, tall, design.align)
    };
    let title = set(sheet.title, design.title, 0.28 * side * scale, (0.225 * side).min(0.30 * height) * scale);
    let title_width = title.width;
    let title = Some(Item { block: title, gap, ink: inks.title, kind: Kind::Title });
    // A tagline is already small.
    let small = scale.max(0.72);
    let tagline = sheet.tagline.map(|text| set(text, design.tagline, 0.036 * side * small, 0.075 * side * small));
    let tagline = tagline.map(|block| Item { block, gap, ink: inks.tagline, kind: Kind::Small });
    let ornament = match design.ornament {
        Ornament::Rule | Ornament::Diamond | Ornament::Horizon if tagline.is_none() => None,
        ornament => shape(ornament, design.align, side, title_width),
    };
    let ornament = ornament.map(|block| Item { block, gap, ink: inks.ornament, kind: Kind::Ornament });
    let order = match design.ornament {
        Ornament::Bar => [ornament, title, tagline],
        _ if design.tagline_first => [tagline, ornament, title],
        _ => [title, ornament, tagline],
    };
    let mut items: Vec<Item> = order.into_iter().flatten().collect();
    if let Some(first) = items.first_mut() {
        first.gap = 0.0;
    }
    items
}

/// If the face of a setting lacks a letter, uses another one, which has small letters and keeps the case.
fn set_in(text: &str, setting: Setting, size: f32) -> (String, Font) {
    let Setting { face, tracking, capitals, .. } = setting;
    let set = if capitals { text.to_uppercase() } else { text.to_owned() };
    match face.covering(&set) {
        Some(other) if other == face => (set, Font { face, size, tracking }),
        Some(Face::PlayfairDisplay) | None => {
            (text.to_owned(), Font { face: Face::PlayfairDisplay, size, tracking: tracking.min(0.02) })
        }
        Some(other) => (set, Font { face: other, size, tracking }),
    }
}

fn fitted_billing(credits: &[(&str, &str)], side: f32, measure: f32, align: Align) -> Block {
    let mut size = 0.036 * side;
    loop {
        let block = billing(credits, size, measure, align);
        if (block.height <= 0.14 * side && block.width <= measure) || size < 4.0 {
            return block;
        }
        size *= 0.93;
    }
}

fn shape(ornament: Ornament, align: Align, side: f32, title_width: f32) -> Option<Block> {
    let hair = (0.0018 * side).max(1.0);
    let (width, height) = match ornament {
        Ornament::None | Ornament::Shadow => return None,
        Ornament::Rule => (0.11 * side, hair * 1.4),
        Ornament::Diamond => (0.34 * side, 0.012 * side),
        Ornament::Bar => (0.085 * side, 0.0085 * side),
        Ornament::Horizon => (title_width, hair),
    };
    let left = align.left_of(width);
    let main = if ornament == Ornament::Diamond {
        diamond(left, width, height, hair)
    } else {
        Rect::from_xywh(left, 0.0, width, height).map(PathBuilder::from_rect)
    };
    Some(Block { main, small: None, width, height, letters: 0.0 })
}

fn diamond(left: f32, width: f32, height: f32, hair: f32) -> Option<Path> {
    let (middle, half) = (left + width / 2.0, height / 2.0);
    let mut path = PathBuilder::new();
    let mut kite = |x: f32, wide: f32, tall: f32| {
        path.move_to(x - wide, half);
        path.line_to(x, half - tall);
        path.line_to(x + wide, half);
        path.line_to(x, half + tall);
        path.close();
    };
    kite(middle, half, half);
    let long = width / 4.0 - height;
    kite(middle - height - long, long, hair / 2.0);
    kite(middle + height + long, long, hair / 2.0);
    path.finish()
}

fn row(y: f32, picture: &Raster) -> usize {
    (y.max(0.0) as usize).min(picture.height)
}

fn pixels_in(picture: &Raster, area: Rect) -> impl Iterator<Item = Rgb> + '_ {
    let left = (area.left().max(0.0) as usize).min(picture.width);
    let right = (area.right().ceil().max(0.0) as usize).clamp(left, picture.width);
    let rows = row(area.top(), picture)..row(area.bottom().ceil(), picture);
    rows.flat_map(move |y| {
        let row = &picture.pixels[(y * picture.width + left) * 3..(y * picture.width + right) * 3];
        row.as_chunks().0.iter().copied()
    })
}

/// `strength` is of 256.
fn veiled(channel: u8, dark: u8, strength: u32) -> u8 {
    ((u32::from(channel) * (OPAQUE - strength) + u32::from(dark) * strength + OPAQUE / 2) / OPAQUE) as u8
}

/// The minimum strength, of 256, of a scrim that makes no pixel of a box brighter than `limit`.
fn needed(picture: &Raster, area: Rect, limit: f32, dark: Rgb, light: &Light) -> u32 {
    // A dim pixel stays dim behind any scrim, as the scrim is darker still.
    let mut bright: Vec<Rgb> = pixels_in(picture, area).filter(|rgb| light.luminance(*rgb) > limit).collect();
    let (mut least, mut enough) = (0, OPAQUE);
    while least < enough && !bright.is_empty() {
        let strength = (least + enough) / 2;
        let veil = |rgb: Rgb| [0, 1, 2].map(|channel| veiled(rgb[channel], dark[channel], strength));
        let still: Vec<Rgb> = bright.iter().copied().filter(|rgb| light.luminance(veil(*rgb)) > limit).collect();
        if still.is_empty() {
            enough = strength;
        } else {
            // Only pixels that are too bright here can be too bright behind a stronger scrim.
            bright = still;
            least = strength + 1;
        }
    }
    if bright.is_empty() { 0 } else { enough }
}

#[cfg(test)]
mod tests;
