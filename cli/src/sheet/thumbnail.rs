//! Reading a picture and making it small.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use shared::order::OutputFormat;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The greatest file that is read, in bytes; the service's are a few million.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The greatest side of a picture that is read, in pixels.
const MAX_SIDE: usize = 8192;

/// A picture in memory: three bytes a pixel, row by row.
#[derive(Debug)]
pub(crate) struct Picture {
    /// In pixels.
    pub(crate) width: usize,
    /// In pixels.
    pub(crate) height: usize,
    /// Red, green and blue.
    pub(crate) pixels: Vec<u8>,
}

/// The picture in this file, made small enough for a box; `None` when it is none that can be read.
pub(crate) fn read(path: &Path, width: usize, height: usize) -> Option<Picture> {
    let mut bytes = Vec::new();
    BufReader::new(File::open(path).ok()?).take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let picture = match OutputFormat::sniff(&bytes)? {
        OutputFormat::Png => png(&bytes),
        OutputFormat::Jpeg => jpeg(&bytes),
        OutputFormat::Webp => webp(&bytes),
    }?;
    picture.scaled(width, height)
}

fn png(bytes: &[u8]) -> Option<Picture> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let size = reader.output_buffer_size().filter(|_| fits(width, height))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).ok()?;
    let pixels = match frame.color_type {
        png::ColorType::Rgb => data,
        png::ColorType::Rgba => opaque(&data),
        png::ColorType::Grayscale => data.iter().flat_map(|&grey| [grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => data.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return None,
    };
    Some(Picture { width, height, pixels })
}

fn jpeg(bytes: &[u8]) -> Option<Picture> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    let pixels = decoder.decode().ok()?;
    let (width, height) = decoder.dimensions()?;
    Some(Picture { width, height, pixels })
}

fn webp(bytes: &[u8]) -> Option<Picture> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).ok()?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let size = decoder.output_buffer_size().filter(|_| fits(width, height))?;
    let mut data = vec![0; size];
    decoder.read_image(&mut data).ok()?;
    let pixels = if decoder.has_alpha() { opaque(&data) } else { data };
    Some(Picture { width, height, pixels })
}

fn fits(width: usize, height: usize) -> bool {
    (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height)
}

/// The colours of pixels with transparency, without it.
fn opaque(data: &[u8]) -> Vec<u8> {
    data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

impl Picture {
    /// The picture in the greatest size that fits the box. Each of its pixels is the mean of those that it stands for.
    fn scaled(&self, width: usize, height: usize) -> Option<Self> {
        if self.pixels.len() < self.width * self.height * 3 || !fits(self.width, self.height) {
            return None;
        }
        let scale = (width as f64 / self.width as f64).min(height as f64 / self.height as f64).min(1.0);
        let small = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let (width, height) = (small(self.width), small(self.height));
        let mut pixels = Vec::with_capacity(width * height * 3);
        let span = |place: usize, of: usize, from: usize| {
            let begin = place * from / of;
            begin..((place + 1) * from / of).max(begin + 1)
        };
        for y in 0..height {
            let rows = span(y, height, self.height);
            for x in 0..width {
                let columns = span(x, width, self.width);
                let mut sums = [0_u32; 3];
                for row in rows.clone() {
                    let begin = (row * self.width + columns.start) * 3;
                    for pixel in self.pixels[begin..begin + columns.len() * 3].chunks_exact(3) {
                        for (sum, &value) in sums.iter_mut().zip(pixel) {
                            *sum += u32::from(value);
                        }
                    }
                }
                let number = (rows.len() * columns.len()) as u32;
                pixels.extend(sums.map(|sum| (sum / number) as u8));
            }
        }
        Some(Self { width, height, pixels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_is_the_mean_of_a_large_one() {
        let pixels = [[0, 10, 200], [100, 30, 100]].repeat(8).concat();
        let picture = Picture { width: 4, height: 4, pixels };
        let small = picture.scaled(2, 2).expect("it is whole");
        assert_eq!((small.width, small.height, small.pixels), (2, 2, [50, 20, 150].repeat(4)));
        let small = picture.scaled(1, 100).expect("it is whole");
        assert_eq!((small.width, small.height), (1, 1));
        assert!(Picture { width: 5, ..picture }.scaled(2, 2).is_none());
    }

    #[test]
    fn what_is_no_picture_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        for content in [&b"\x89PNG\r\n\x1a\nx"[..], b"\xff\xd8\xff", b"RIFF....WEBP", b"x", b""] {
            let path = directory.path().join("a");
            std::fs::write(&path, content).expect("it is written");
            assert!(read(&path, 10, 10).is_none(), "{content:?}");
        }
    }
}
