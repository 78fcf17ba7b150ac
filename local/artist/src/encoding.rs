//! From linear light to a file: tone, vignette, film grain, and PNG, JPEG or WebP.

use jpeg_encoder::SamplingFactor;
use png::{BitDepth, Compression};

use crate::canvas::{Canvas, luminance, smooth};
use crate::noise::hash_point;
use crate::{DISCLOSURE, Format};

/// The name that files give to what made them.
const SOFTWARE: &str = concat!("artist ", env!("CARGO_PKG_VERSION"), " (procedural, offline)");

/// The quality of JPEG files, of 100.
const JPEG_QUALITY: u8 = 90;

/// The strength of the film grain, of 255.
const GRAIN: f32 = 4.6;

pub(crate) fn encode(canvas: &Canvas, seed: u32, format: Format) -> Vec<u8> {
    let bytes = develop(canvas, seed);
    let (width, height) = (canvas.width as u32, canvas.height as u32);
    let mut file = Vec::with_capacity(bytes.len() / 2);
    match format {
        Format::Png => {
            write_png(&mut file, &bytes, width, height).expect("writing to memory does not fail");
        }
        Format::Jpeg => {
            let mut encoder = jpeg_encoder::Encoder::new(&mut file, JPEG_QUALITY);
            encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
            encoder
                .encode(&bytes, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
                .expect("the picture is small enough for JPEG");
            // The comment goes right after the start-of-image marker: FF FE and a length.
            let comment = format!("{SOFTWARE}: {DISCLOSURE}");
            let length = (comment.len() as u16 + 2).to_be_bytes();
            let segment = [&[0xFF, 0xFE], &length[..], comment.as_bytes()].concat();
            file.splice(2..2, segment);
        }
        Format::Webp => {
            image_webp::WebPEncoder::new(&mut file)
                .encode(&bytes, width, height, image_webp::ColorType::Rgb8)
                .expect("the picture is small enough for WebP");
        }
    }
    file
}

pub(crate) fn encode_plain(seed: u32, width: u32, height: u32) -> Vec<u8> {
    let [red, green, blue, _] = seed.to_le_bytes();
    let bytes = [red, green, blue].repeat((width * height) as usize);
    let mut file = Vec::new();
    write_png(&mut file, &bytes, width, height).expect("writing to memory does not fail");
    file
}

fn write_png(file: &mut Vec<u8>, bytes: &[u8], width: u32, height: u32) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.add_text_chunk("Software".to_owned(), SOFTWARE.to_owned())?;
    encoder.add_text_chunk("Comment".to_owned(), DISCLOSURE.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()
}

/// sRGB bytes with a soft shoulder, darker corners and film grain.
fn develop(canvas: &Canvas, seed: u32) -> Vec<u8> {
    const STEPS: f32 = 4095.0;
    let srgb = |v: f32| if v <= 0.003_130_8 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
    let table: Vec<f32> = (0..=STEPS as u32).map(|i| 255.0 * srgb(i as f32 / STEPS)).collect();
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let mut bytes = Vec::with_capacity(canvas.pixels.len() * 3);
    for (i, pixel) in canvas.pixels.iter().enumerate() {
        let (x, y) = (i % canvas.width, i / canvas.width);
        let (dx, dy) = (x as f32 / width - 0.5, y as f32 / height - 0.5);
        let vignette = 1.0 - 0.5 * smooth(0.12, 0.62, dx * dx * 1.3 + dy * dy);
        let hash = hash_point(x as i32, y as i32, seed);
        let byte = |shift: u32| (hash >> shift & 255) as f32 / 255.0;
        // The sum of a few even chances is nearly a bell curve. Grain shows most in the middle tones.
        let bell = byte(0) + byte(8) + byte(16) + byte(24) - 2.0;
        let tone = luminance(*pixel).clamp(0.0, 1.0).sqrt();
        let grain = GRAIN * bell * (0.5 + 2.0 * tone * (1.0 - tone));
        bytes.extend(pixel.map(|v| {
            let v = v * vignette;
            let v = if v > 0.8 { 0.8 + 0.2 * (1.0 - 0.2 / (v - 0.6)) } else { v };
            (table[(v.clamp(0.0, 1.0) * STEPS) as usize] + grain + 0.5).clamp(0.0, 255.0) as u8
        }));
    }
    bytes
}
