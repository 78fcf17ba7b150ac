//! Set a title over a picture and say how long it took:
//! `cargo run --release -p typography --example typeset -- IN OUT STYLE PLACE TITLE [TAGLINE [ROLE NAME]...]`.
//!
//! The extension of OUT chooses the format: png, jpg or webp. STYLE and PLACE may be `auto`.

use std::error::Error;
use std::time::{Duration, Instant};

use typography::{Format, Place, Raster, Sheet, Style, heads, typeset};

/// How often the work is done over; the median of the times is told.
const TURNS: usize = 15;

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

    let mut times = Vec::new();
    for _ in 0..TURNS {
        let start = Instant::now();
        let picture = Raster::decode(&file)?;
        let decoded = start.elapsed();
        let faces = heads(&picture).len();
        let looked = start.elapsed();
        let poster = typeset(picture, &sheet)?;
        let set = start.elapsed();
        let bytes = poster.picture.encode(format)?;
        let whole = start.elapsed();
        times.push((whole + decoded - looked, decoded, set - looked, whole - set, looked - decoded));
        if times.len() == TURNS {
            times.sort();
            let millis = |time: Duration| time.as_secs_f64() * 1000.0;
            let (whole, decode, set, encode, style) = times[TURNS / 2];
            eprintln!(
                "{output}: {:?} {:?} contrast {:.2}{}, {faces} faces, {} kB, {:.1} ms (decode {:.1}, typeset {:.1} of which \
                 {:.1} for faces, encode {:.1})",
                poster.style,
                poster.place,
                poster.contrast,
                if poster.legible { "" } else { ", too small to be read" },
                bytes.len() / 1000,
                millis(whole),
                millis(decode),
                millis(set),
                millis(style),
                millis(encode),
            );
            std::fs::write(output, bytes)?;
        }
    }
    Ok(())
}
