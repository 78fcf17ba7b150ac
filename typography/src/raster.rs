use std::io::Cursor;

use jpeg_encoder::{ColorType, SamplingFactor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The models paint one or two million pixels; many more would not fit a small function.
const MOST_PIXELS: usize = 8_000_000;

/// High, because the picture was already compressed once.
const JPEG_QUALITY: u8 = 93;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Format {
    Png,
    Jpeg,
    /// Written lossless.
    Webp,
}

/// Why a file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    pub(crate) fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

/// A picture: three bytes of sRGB per pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Raster {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
    /// The file's texts by keyword, such as how it was made.
    pub notes: Vec<(String, String)>,
}

impl Raster {
    /// Reads a PNG, JPEG or WebP file of up to eight million pixels. Transparent pixels are blended with black.
    pub fn decode(file: &[u8]) -> Result<Self, Unreadable> {
        match file {
            [0x89, b'P', b'N', b'G', ..] => decode_png(file),
            [0xff, 0xd8, 0xff, ..] => decode_jpeg(file),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => decode_webp(file),
            _ => Err(Unreadable::new("it is neither PNG nor JPEG nor WebP")),
        }
    }

    /// Writes the picture as a file. Fails if the format does not support its size.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, Unreadable> {
        match format {
            Format::Png => self.encode_png().map_err(Unreadable::new),
            Format::Jpeg => self.encode_jpeg().map_err(Unreadable::new),
            Format::Webp => self.encode_webp().map_err(Unreadable::new),
        }
    }

    fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, Unreadable> {
        if width == 0 || height == 0 || pixels.len() != width * height * 3 {
            return Err(Unreadable::new("its size is not that of its pixels"));
        }
        Ok(Self { width, height, pixels, notes: Vec::new() })
    }

    fn encode_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::with_capacity(self.pixels.len() / 2);
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        for (keyword, text) in &self.notes {
            encoder.add_text_chunk(keyword.clone(), text.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(file)
    }

    fn encode_jpeg(&self) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
        let mut file = Vec::with_capacity(self.pixels.len() / 6);
        let mut encoder = jpeg_encoder::Encoder::new(&mut file, JPEG_QUALITY);
        // Lettering has hard edges between colors, which subsampling would blur.
        encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
        let (width, height) = (self.width as u16, self.height as u16);
        encoder.encode(&self.pixels, width, height, ColorType::Rgb)?;
        Ok(file)
    }

    fn encode_webp(&self) -> Result<Vec<u8>, image_webp::EncodingError> {
        let mut file = Vec::with_capacity(self.pixels.len() / 2);
        let (width, height) = (self.width as u32, self.height as u32);
        image_webp::WebPEncoder::new(&mut file).encode(&self.pixels, width, height, image_webp::ColorType::Rgb8)?;
        Ok(file)
    }
}

fn area(width: usize, height: usize) -> Result<usize, Unreadable> {
    let area = width.checked_mul(height).filter(|area| *area <= MOST_PIXELS);
    area.ok_or_else(|| Unreadable::new(format_args!("it has more than {MOST_PIXELS} pixels")))
}

fn decode_png(file: &[u8]) -> Result<Raster, Unreadable> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(Unreadable::new)?;
    let (width, height) = reader.info().size();
    let (width, height) = (width as usize, height as usize);
    let area = area(width, height)?;
    let channels = reader.output_color_type().0.samples();
    let mut pixels = vec![0; area * channels];
    reader.next_frame(&mut pixels).map_err(Unreadable::new)?;
    // Texts may follow the pixels. A file that ends there is still a complete picture.
    let _ = reader.finish();
    let texts = &reader.info().uncompressed_latin1_text;
    let notes = texts.iter().map(|note| (note.keyword.clone(), note.text.clone())).collect();
    Ok(Raster { notes, ..Raster::new(width, height, rgb(pixels, channels))? })
}

fn decode_jpeg(file: &[u8]) -> Result<Raster, Unreadable> {
    // Strict, or else the missing part of a cut-off file would be gray.
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB).set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(file), options);
    decoder.decode_headers().map_err(|error| Unreadable::new(format_args!("{error:?}")))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Unreadable::new("it does not tell its size"))?;
    area(width, height)?;
    let pixels = decoder.decode().map_err(|error| Unreadable::new(format_args!("{error:?}")))?;
    Raster::new(width, height, pixels)
}

fn decode_webp(file: &[u8]) -> Result<Raster, Unreadable> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).map_err(Unreadable::new)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; area(width, height)? * channels];
    decoder.read_image(&mut pixels).map_err(Unreadable::new)?;
    Raster::new(width, height, rgb(pixels, channels))
}

/// Converts pixels of one to four channels (gray, gray and alpha, RGB, RGBA) to RGB over black.
fn rgb(pixels: Vec<u8>, channels: usize) -> Vec<u8> {
    let over_black = |value: u8, alpha: u8| (u16::from(value) * u16::from(alpha) / 255) as u8;
    match channels {
        1 => pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
        2 => pixels.as_chunks().0.iter().flat_map(|&[gray, alpha]| [over_black(gray, alpha); 3]).collect(),
        4 => {
            pixels.as_chunks().0.iter().flat_map(|&[r, g, b, a]| [r, g, b].map(|value| over_black(value, a))).collect()
        }
        _ => pixels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(width: usize, height: usize) -> Raster {
        let pixels = (0..width * height).flat_map(|i| [(i % 251) as u8, (i / width % 241) as u8, 128]).collect();
        Raster { width, height, pixels, notes: vec![("Comment".to_owned(), "drawn".to_owned())] }
    }

    #[test]
    fn files_without_loss_read_back_as_they_were_written() {
        let picture = slope(61, 40);
        let png = Raster::decode(&picture.encode(Format::Png).expect("it fits")).expect("a picture");
        assert_eq!(png, picture, "the notes too");
        let webp = Raster::decode(&picture.encode(Format::Webp).expect("it fits")).expect("a picture");
        assert_eq!(webp.pixels, picture.pixels);
    }

    #[test]
    fn jpeg_reads_back_nearly_as_it_was_written() {
        let pixels = [40, 90, 160].repeat(64 * 64);
        let picture = Raster { pixels, notes: Vec::new(), ..slope(64, 64) };
        let read = Raster::decode(&picture.encode(Format::Jpeg).expect("it fits")).expect("a picture");
        let off = picture.pixels.iter().zip(&read.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(3), "{off:?}");
    }

    #[test]
    fn transparent_and_grey_pictures_are_read_too() {
        for (kind, pixels, expected) in [
            (png::ColorType::Grayscale, vec![7; 4], [7, 7, 7]),
            (png::ColorType::GrayscaleAlpha, [200, 128].repeat(4), [100, 100, 100]),
            (png::ColorType::Rgba, [200, 100, 50, 255].repeat(4), [200, 100, 50]),
        ] {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 2, 2);
            encoder.set_color(kind);
            let mut writer = encoder.write_header().expect("a header");
            writer.write_image_data(&pixels).expect("the pixels");
            writer.finish().expect("an end");
            assert_eq!(Raster::decode(&file).expect("a picture").pixels, expected.repeat(4));
        }
    }

    #[test]
    fn what_is_no_picture_is_an_error_and_never_a_panic() {
        let picture = slope(40, 40);
        for format in [Format::Png, Format::Jpeg, Format::Webp] {
            let file = picture.encode(format).expect("it fits");
            for end in [0, 3, 12, 20, 33, file.len() / 2] {
                let _ = Raster::decode(&file[..end]);
            }
            for end in [20, file.len() / 2, file.len() * 3 / 4] {
                assert!(Raster::decode(&file[..end]).is_err(), "{format:?} to {end} of {}", file.len());
            }
        }
        assert!(Raster::decode(b"<html>").is_err());
        // A header that promises four thousand million pixels is refused.
        let mut huge = slope(2, 2).encode(Format::Png).expect("it fits");
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(Raster::decode(&huge).is_err());
    }
}
