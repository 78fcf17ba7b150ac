//! The offline artist: paints a poster from a prompt by procedure, in place of a diffusion model.
//!
//! The prompt is read for genre, place, time of day, weather and subject, and a scene
//! is composed from a small vocabulary of sky, ridges, water, buildings, fog and figures. The same
//! order always gives the same bytes. Every picture says of itself, in its lettering and in its
//! metadata, that no diffusion model was used.

mod canvas;
mod encoding;
mod figure;
mod lettering;
mod noise;
#[rustfmt::skip]
mod outlines;
mod palette;
mod places;
mod reading;
mod scenery;
mod shop;
mod title;

use canvas::Canvas;
use lettering::Lettering;
use noise::{Random, hash_text};
use palette::Palette;
use reading::Brief;
use scenery::Scene;

/// What every picture says of its making.
pub const DISCLOSURE: &str = "Painted offline from the prompt. No diffusion model was used.";

/// The largest width and height of a picture, in pixels. Larger orders are cut down to it.
pub const MOST_PIXELS: u32 = 2048;

/// What to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// What the picture shows, in any language.
    pub prompt: &'a str,
    /// What it must not show. "people" and "text" leave those out.
    pub negative_prompt: &'a str,
    /// Another seed gives another picture of the same prompt.
    pub seed: u32,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PNG, with the disclosure in its text chunks.
    Png,
    /// JPEG, with the disclosure in a comment.
    Jpeg,
    /// Lossless WebP.
    Webp,
}

/// Paint an order and encode the picture. The same order and format always give the same bytes.
pub fn paint(order: &Order<'_>, format: Format) -> Vec<u8> {
    let limit = |pixels: u32| pixels.clamp(1, MOST_PIXELS);
    let order = Order { width: limit(order.width), height: limit(order.height), ..*order };
    let brief = Brief::read(&order);
    // The prompt is part of the seed, so that two prompts of one genre differ as well.
    let mut random = Random::new(u64::from(order.seed) ^ hash_text(order.prompt).rotate_left(17));
    let palette = Palette::new(&brief, &mut random);
    let lettering = Lettering::set(&brief, &order);
    let mut canvas = Canvas::new(order.width as usize, order.height as usize);
    Scene::new(&mut canvas, &palette, &brief, &lettering, random).compose();
    if !brief.shuns("text,title,lettering,typography,words,letters") {
        lettering.darken(&mut canvas, &palette);
        lettering.draw(&mut canvas, &palette);
    }
    encoding::encode(&canvas, order.seed, format)
}

/// One plain colour as PNG, in no time, for whoever needs a picture of the right kind and not a poster. The seed picks the
/// colour.
pub fn paint_plain(seed: u32, width: u32, height: u32) -> Vec<u8> {
    encoding::encode_plain(seed, width.clamp(1, MOST_PIXELS), height.clamp(1, MOST_PIXELS))
}

#[cfg(test)]
mod tests;
