//! Set a title over a picture, make a thumbnail of the poster, and say how long each step took:
//! `cargo run --release -p typography --example typeset -- IN OUT STYLE PLACE TITLE [TAGLINE [ROLE NAME]...]`.
//!
//! The extension of OUT chooses the format: png, jpg or webp. The thumbnail is beside it, in OUT.thumbnail.jpg. STYLE and
//! PLACE may be `auto`.

use std::error::Error;
use std::time::{Duration, Instant};

use typography::{Format, Place, Raster, Sheet, Style, Thumbnail, heads, typeset};

const TURNS: usize = 15;

/// What the worker leaves for the file of a thumbnail, beside the mark of origin.
const MOST_BYTES: usize = 39_000;

const STEPS: [&str; 5] = ["decode", "find faces", "typeset with faces", "encode", "thumbnail"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, style, place, title, rest @ ..] = arguments.as_slice() else {
        return Err("usage: typeset IN OUT STYLE PLACE TITLE [TAGLINE [ROLE NAME]...]".into());
    };
    let (tagline, credits) = rest.split_first().map_or((None, rest), |(tagline, credits)| (Some(tagline), credits));
    let credits: Vec<_> = credits.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let style = Style::ALL.into_iter().find(|known| format!("{known:?}").eq_ignore_ascii_case(style));
    let place = match place.as_str() {
        "top" => Some(Place::Top),
        "bottom" => Some(Place::Bottom),
        _ => None,
    };
    let format = match output.rsplit('.').next() {
        Some("jpg" | "jpeg") => Format::Jpeg,
        Some("webp") => Format::Webp,
        _ => Format::Png,
    };
    let tagline = tagline.map(String::as_str).filter(|tagline| !tagline.is_empty());
    let sheet = Sheet { title, tagline, credits: &credits, style, place };
    let file = std::fs::read(input)?;

    let mut times: [Vec<Duration>; STEPS.len()] = Default::default();
    for turn in 1..=TURNS {
        let mut begun = Instant::now();
        let mut steps = times.iter_mut();
        let mut done = || {
            steps.next().expect("each step has a name").push(begun.elapsed());
            begun = Instant::now();
        };
        let picture = Raster::decode(&file)?;
        done();
        let faces = heads(&picture).len();
        done();
        let poster = typeset(picture, &sheet)?;
        done();
        let bytes = poster.picture.encode(format)?;
        done();
        let thumbnail = Thumbnail::of(&poster.picture, MOST_BYTES)?;
        done();
        if turn == TURNS {
            let (style, place, size) = (poster.style, poster.place, bytes.len() / 1000);
            let legible = if poster.legible { "" } else { ", too small to be read" };
            eprintln!(
                "{output}: {style:?} {place:?} contrast {:.2}{legible}, {faces} faces, {size} kB",
                poster.contrast
            );
            std::fs::write(output, bytes)?;
            std::fs::write(format!("{output}.thumbnail.jpg"), thumbnail.file)?;
        }
    }
    for (step, mut times) in STEPS.into_iter().zip(times) {
        times.sort();
        eprintln!("{step}: {:.1} ms", times[TURNS / 2].as_secs_f64() * 1000.0);
    }
    Ok(())
}
