use std::iter::zip;

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, EncodingError, SamplingFactor};

use crate::raster::{Raster, Unreadable};

const WIDTH: usize = 400;

/// The tallest posters have 933.
const HEIGHT: usize = 1600;

/// Out of 100. Below the last one, a smaller picture looks better.
const QUALITIES: [u8; 4] = [82, 66, 50, 34];

/// A small copy of a picture, as a JPEG file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Thumbnail {
    pub width: usize,
    pub height: usize,
    pub file: Vec<u8>,
}

impl Thumbnail {
    /// A copy of `picture` that is at most 400 pixels wide, in a file of at most `most_bytes`. A picture that is hard
    /// to compress gets a lower quality, and then a smaller size.
    pub fn of(picture: &Raster, most_bytes: usize) -> Result<Self, Unreadable> {
        let mut width = picture.width.min(WIDTH);
        while width > 0 {
            let small = picture.scaled(width, HEIGHT);
            for quality in QUALITIES {
                let file = encode(&small, quality).map_err(Unreadable::new)?;
                if file.len() <= most_bytes {
                    return Ok(Self { width: small.width, height: small.height, file });
                }
            }
            width = width * 3 / 4;
        }
        Err(Unreadable::new(format_args!("it does not fit into {most_bytes} bytes")))
    }
}

fn encode(picture: &Raster, quality: u8) -> Result<Vec<u8>, EncodingError> {
    let mut file = Vec::new();
    // No custom tables: the encoder would write three scans, which `zune-jpeg` decodes incorrectly.
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.encode(&picture.pixels, picture.width as u16, picture.height as u16, ColorType::Rgb)?;
    Ok(file)
}

impl Raster {
    /// Scales the picture down to fit a box. Each pixel is the mean of its area, so that fine patterns become gray.
    pub fn scaled(&self, width: usize, height: usize) -> Self {
        let scale = (width as f64 / self.width as f64).min(height as f64 / self.height as f64).min(1.0);
        let small = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let (width, height) = (small(self.width), small(self.height));
        // Fits 32 bits, because a picture has fewer than 2^24 pixels.
        let whole = (self.width * self.height) as u32;
        let mut pixels = Vec::with_capacity(width * height * 3);
        let mut sums = vec![0_u32; self.width * 3];
        for y in 0..height {
            sums.fill(0);
            for (row, weight) in shares(y, height, self.height) {
                let row = &self.pixels[row * self.width * 3..][..self.width * 3];
                zip(&mut sums, row).for_each(|(sum, value)| *sum += weight * u32::from(*value));
            }
            for x in 0..width {
                let mut pixel = [whole / 2; 3];
                for (column, weight) in shares(x, width, self.width) {
                    zip(&mut pixel, &sums[column * 3..]).for_each(|(value, sum)| *value += weight * sum);
                }
                pixels.extend(pixel.map(|sum| (sum / whole) as u8));
            }
        }
        Self { width, height, pixels, notes: self.notes.clone() }
    }
}

/// The positions among `large` that position `at` among `small` represents, each with its share of `large`.
fn shares(at: usize, small: usize, large: usize) -> impl Iterator<Item = (usize, u32)> {
    let (begin, end) = (at * large, (at + 1) * large);
    let share = move |place: usize| (end.min((place + 1) * small) - begin.max(place * small)) as u32;
    (begin / small..end.div_ceil(small)).map(move |place| (place, share(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture as hard to compress as any: each of its bytes is as good as random.
    fn noise(width: usize, height: usize) -> Raster {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut byte = || {
            // Xorshift, by George Marsaglia.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let pixels = (0..width * height * 3).map(|_| byte()).collect();
        Raster { width, height, pixels, notes: Vec::new() }
    }

    /// Noise in blocks, which no scaling smooths.
    fn blocks(width: usize, height: usize, side: usize) -> Raster {
        let coarse = noise(width.div_ceil(side), height.div_ceil(side));
        let at = |x: usize, y: usize| (y / side * coarse.width + x / side) * 3;
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels = places.flat_map(|(x, y)| coarse.pixels[at(x, y)..][..3].to_vec()).collect();
        Raster { width, height, pixels, notes: Vec::new() }
    }

    #[test]
    fn a_thumbnail_keeps_its_bounds_whatever_the_picture() {
        for (width, height) in [(832, 1216), (1216, 832), (640, 1536), (1536, 640), (1024, 1024), (96, 144), (1, 3000)]
        {
            let plain = Raster { width, height, pixels: [30, 90, 160].repeat(width * height), notes: Vec::new() };
            for picture in [plain, noise(width, height), blocks(width, height, 4)] {
                for most in [39_000, 9_000] {
                    let small = Thumbnail::of(&picture, most).expect("it fits");
                    assert!(small.file.len() <= most, "{width}x{height}: {} bytes", small.file.len());
                    assert!(small.width <= WIDTH.min(width) && small.height <= HEIGHT.min(height));
                    let read = Raster::decode(&small.file).expect("a picture");
                    assert_eq!((read.width, read.height), (small.width, small.height));
                    let ratio = small.width as f64 * height as f64 / (small.height as f64 * width as f64);
                    assert!(width == 1 || (0.97..1.03).contains(&ratio), "{width}x{height}: {ratio}");
                }
            }
        }
        assert!(Thumbnail::of(&noise(4, 4), 100).is_err(), "no JPEG is so small");
    }

    #[test]
    fn what_is_easy_to_compress_keeps_its_width_and_quality() {
        let slope = (0..832 * 1216).flat_map(|at| [(at % 832 * 255 / 832) as u8, (at / 832 * 255 / 1216) as u8, 90]);
        let slope = Raster { width: 832, height: 1216, pixels: slope.collect(), notes: Vec::new() };
        let small = Thumbnail::of(&slope, 39_000).expect("it fits");
        assert_eq!((small.width, small.height), (400, 585));
        let read = Raster::decode(&small.file).expect("a picture");
        let off = zip(&read.pixels, &slope.scaled(400, 585).pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(8), "{off:?}");
    }

    #[test]
    fn a_scaled_pixel_is_the_mean_of_its_area() {
        let picture = Raster {
            width: 4,
            height: 4,
            pixels: [[0, 10, 200], [100, 30, 100]].repeat(8).concat(),
            notes: Vec::new(),
        };
        let small = picture.scaled(2, 2);
        assert_eq!((small.width, small.height, small.pixels), (2, 2, [50, 20, 150].repeat(4)));
        // Of five columns, the middle one belongs to both halves.
        let five = Raster {
            width: 5,
            height: 1,
            pixels: [[0; 3], [0; 3], [100; 3], [200; 3], [200; 3]].concat(),
            notes: Vec::new(),
        };
        assert_eq!(five.scaled(2, 1).pixels, [20, 20, 20, 180, 180, 180]);
        assert_eq!(five.scaled(9, 9), five, "nothing is made larger");
        let white = Raster { width: 2_828, height: 2_828, pixels: vec![255; 2_828 * 2_828 * 3], notes: Vec::new() };
        assert_eq!(white.scaled(3, 3).pixels, [255; 27], "the greatest sums fit");
    }

    #[test]
    fn a_fine_pattern_becomes_gray() {
        let board = (0..832 * 1216).flat_map(|at| [((at % 832 + at / 832) % 2 * 255) as u8; 3]).collect();
        let small = Raster { width: 832, height: 1216, pixels: board, notes: Vec::new() }.scaled(400, 585);
        assert!(small.pixels.iter().all(|value| (100..156).contains(value)));
    }
}
