//! The offline artist: paints a poster from a prompt procedurally, in place of a diffusion model.
//!
//! It looks in the prompt for genre, place, time of day, colors and subject, and composes a scene of sky, ridges, water, fog
//! and drawings. The same order always gives the same bytes.

mod brief;
mod canvas;
mod drawing;
mod land;
mod noise;
mod palette;
mod scene;
mod sky;
mod title;
mod vocabulary;

pub use typography::Format;
use typography::{Place, Raster, Sheet, Style, typeset};

use brief::Brief;
use palette::Palette;
use scene::Scene;

/// The disclosure in every picture, in its lettering and in its metadata.
pub const DISCLOSURE: &str = "Painted offline from the prompt. No diffusion model was used.";

/// The largest width and height of a picture, in pixels. Larger orders are reduced to it.
pub const MOST_PIXELS: u32 = 2048;

/// What to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// What the picture shows, in any language.
    pub prompt: &'a str,
    /// What it must not show, such as "people", or "text" for all words but the disclosure.
    pub negative_prompt: &'a str,
    /// Each seed gives another picture of the same prompt.
    pub seed: u32,
    /// The width in pixels.
    pub width: u32,
    /// The height in pixels.
    pub height: u32,
}

/// Paints an order and encodes the picture. The same order and format always give the same bytes.
pub fn paint(order: &Order<'_>, format: Format) -> Vec<u8> {
    let limit = |pixels: u32| pixels.clamp(1, MOST_PIXELS);
    let order = Order { width: limit(order.width), height: limit(order.height), ..*order };
    let brief = Brief::read(&order);
    let palette = Palette::new(&brief, order.seed);
    let picture = Scene::new(&order, &brief, &palette).compose().develop(order.seed);
    let seed = order.seed.to_string();
    let sheet = Sheet {
        title: &brief.title,
        // Wide pictures have no room for it below the hero.
        tagline: Some(brief.tagline).filter(|_| order.width < order.height * 5 / 4),
        credits: &[
            ("painted offline from", "the prompt"),
            ("in the mood of", &brief.genre.name),
            ("from seed", &seed),
            ("", "No diffusion model was used"),
        ],
        style: Style::ALL.into_iter().find(|look| format!("{look:?}") == brief.genre.look),
        place: Some(Place::Bottom),
    };
    let lettered = if brief.lettered { typeset(picture.clone(), &sheet).ok() } else { None };
    encode(lettered.map_or(picture, |poster| poster.picture), format)
}

/// A PNG of one plain color, which depends on the seed, for load tests.
pub fn paint_plain(seed: u32, width: u32, height: u32) -> Vec<u8> {
    let [width, height] = [width, height].map(|pixels| pixels.clamp(1, MOST_PIXELS) as usize);
    let pixels = seed.to_le_bytes()[..3].repeat(width * height);
    encode(Raster { width, height, pixels, notes: Vec::new() }, Format::Png)
}

fn encode(mut picture: Raster, format: Format) -> Vec<u8> {
    let notes = [("Software", concat!("artist ", env!("CARGO_PKG_VERSION"))), ("Comment", DISCLOSURE)];
    picture.notes = notes.map(|(keyword, text)| (keyword.to_owned(), text.to_owned())).to_vec();
    picture.encode(format).expect("every format takes a picture of this size")
}

#[cfg(test)]
mod tests;
