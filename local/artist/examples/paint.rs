//! Paint one picture: `cargo run -p artist --example paint -- PROMPT SEED RATIO FILE`.
//!
//! The ratio is one that Stability models take, such as 2:3. The file's extension chooses the
//! format: png, jpg or webp.

use std::error::Error;
use std::time::Instant;

use artist::{Format, Order, paint};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [prompt, seed, ratio, file] = arguments.as_slice() else {
        return Err("usage: paint PROMPT SEED RATIO FILE".into());
    };
    let (width, height) = match ratio.as_str() {
        "21:9" => (1536, 640),
        "16:9" => (1344, 768),
        "3:2" => (1216, 832),
        "5:4" => (1088, 896),
        "1:1" => (1024, 1024),
        "4:5" => (896, 1088),
        "2:3" => (832, 1216),
        "9:16" => (768, 1344),
        "9:21" => (640, 1536),
        _ => return Err(format!("unknown ratio {ratio}").into()),
    };
    let format = match file.rsplit('.').next() {
        Some("jpg" | "jpeg") => Format::Jpeg,
        Some("webp") => Format::Webp,
        _ => Format::Png,
    };
    let order = Order { prompt, negative_prompt: "", seed: seed.parse()?, width, height };
    let start = Instant::now();
    let bytes = paint(&order, format);
    eprintln!("{file}: {} kB in {} ms", bytes.len() / 1000, start.elapsed().as_millis());
    Ok(std::fs::write(file, bytes)?)
}
