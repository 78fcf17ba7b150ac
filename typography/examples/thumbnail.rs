//! Make thumbnails of pictures and say how long it took:
//! `cargo run --release -p typography --example thumbnail -- DIRECTORY PICTURE...`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use typography::{Raster, Thumbnail};

/// How often the work is done over; the median of the times is told.
const TURNS: usize = 15;

/// What the worker leaves for the file, beside the mark of origin.
const MOST_BYTES: usize = 39_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((directory, pictures)) = arguments.split_first() else {
        return Err("usage: thumbnail DIRECTORY PICTURE...".into());
    };
    for path in pictures {
        let file = std::fs::read(path)?;
        let mut times = Vec::new();
        let mut made = None;
        for _ in 0..TURNS {
            let start = Instant::now();
            let picture = Raster::decode(&file)?;
            let decoded = start.elapsed();
            made = Some((Thumbnail::of(&picture, MOST_BYTES)?, picture.width, picture.height));
            times.push((start.elapsed(), decoded));
        }
        times.sort();
        let (whole, decoded) = times[TURNS / 2];
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        if let Some((small, width, height)) = made {
            let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            std::fs::write(Path::new(directory).join(format!("{name}.jpg")), &small.file)?;
            eprintln!(
                "{name}: {width}x{height} to {}x{}, {:.1} kB, {:.1} ms of which {:.1} to decode it",
                small.width,
                small.height,
                small.file.len() as f64 / 1000.0,
                millis(whole),
                millis(decoded),
            );
        }
    }
    Ok(())
}
