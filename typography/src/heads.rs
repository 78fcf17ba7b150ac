//! Finds the faces of people in a picture, by YuNet: Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector",
//! Machine Intelligence Research 20, 2023. The weights are from libfacedetection; see `models/`.

use tiny_skia::Rect;

use crate::raster::Raster;

/// Determines the run time. A poster of 832 × 1216 is scaled down by a third; faces of thirty pixels are still found.
const MOST_PIXELS: f32 = 100_000.0;

/// The minimum confidence, from 0 to 1.
const SURE: f32 = 0.6;

/// Boxes that overlap by more than this share are of the same face.
const SAME: f32 = 0.3;

/// Both sides of the network's input are multiples of this, so that its coarsest map fits.
const COARSEST: usize = 32;

const LANES: usize = 8;

const TOGETHER: usize = 4;

static WEIGHTS: &[u8] = include_bytes!("../models/yunet.f32");

/// A person's face and the area around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// The face from ear to ear and from brow to chin, with a margin for hair and beard.
    pub(crate) area: Rect,
    pub(crate) eyes: Rect,
}

impl Head {
    /// From the network's box, which reaches from brow to chin.
    fn of(face: Rect) -> Option<Self> {
        let (width, height) = (face.width(), face.height());
        let part = |left: f32, top: f32, right: f32, bottom: f32| {
            let (x, y) = (face.left(), face.top());
            Rect::from_ltrb(x + left * width, y + top * height, x + right * width, y + bottom * height)
        };
        Some(Self { area: part(-0.12, -0.25, 1.12, 1.08)?, eyes: part(0.0, 0.2, 1.0, 0.55)? })
    }
}

/// Finds faces seen from the front or turned a little, down to a fortieth of the picture, in order of confidence.
pub fn heads(picture: &Raster) -> Vec<Head> {
    let mut found = boxes(picture, &mut Model(WEIGHTS));
    found.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut faces: Vec<Rect> = Vec::new();
    for (_, face) in found {
        if faces.iter().all(|other| common(&face, other) <= SAME) {
            faces.push(face);
        }
    }
    faces.into_iter().filter_map(Head::of).collect()
}

fn common(one: &Rect, other: &Rect) -> f32 {
    let area = |area: &Rect| area.width() * area.height();
    let common = one.intersect(other).map_or(0.0, |common| area(&common));
    common / (area(one) + area(other) - common)
}

/// All boxes above the minimum confidence, with their confidence; often several per face.
fn boxes(picture: &Raster, model: &mut Model) -> Vec<(f32, Rect)> {
    let scale = (MOST_PIXELS / (picture.width * picture.height) as f32).sqrt().min(1.0);
    let mut map = model.mixed(&windows(picture, scale), 16, 0);
    map.values.iter_mut().for_each(|value| *value = value.max(0.0));
    let map = model.unit(&map, 16, true).pooled();
    let map = model.unit(&map, 16, true);
    let map = model.unit(&map, 32, true);
    let map = model.unit(&map, 32, true);
    let map = model.unit(&map, 64, true).pooled();
    let mut stage = |map: &Map| {
        let map = model.unit(map, 64, true);
        model.unit(&map, 64, true)
    };
    let fine = stage(&map);
    let middle = stage(&fine.pooled());
    let coarse = stage(&middle.pooled());

    let mut found = Vec::new();
    let mut above: Option<Map> = None;
    for (mut map, step) in [(coarse, 32.0), (middle, 16.0), (fine, 8.0)] {
        if let Some(above) = above {
            map.add_doubled(&above);
        }
        let map = model.unit(&map, 64, true);
        // The confidences that each position is a face and that it is an object, and the face's position and size.
        let told = model.unit(&map, 6, false);
        for (at, told) in told.values.chunks_exact(told.channels).enumerate() {
            let sure = (sigmoid(told[0]) * sigmoid(told[5])).sqrt();
            if sure < SURE {
                continue;
            }
            let (x, y) = ((at % map.columns) as f32 + told[1], (at / map.columns) as f32 + told[2]);
            let (width, height) = (told[3].exp(), told[4].exp());
            let unscaled = |length: f32| length * step / scale;
            let [left, top] = [x - width / 2.0, y - height / 2.0].map(unscaled);
            found.extend(Rect::from_xywh(left, top, unscaled(width), unscaled(height)).map(|face| (sure, face)));
        }
        above = Some(map);
    }
    found
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// For every second pixel of the scaled picture in both directions, the nine around it, in blue, green and red.
fn windows(picture: &Raster, scale: f32) -> Map {
    let scaled = |side: usize| ((side as f32 * scale) as usize).max(1);
    let (width, height) = (scaled(picture.width), scaled(picture.height));
    // Each pixel is the mean of the original ones that it represents. Cells beyond the edge are black.
    let of = |at: usize, scaled: usize, side: usize| (at * side / scaled, ((at + 1) * side / scaled));
    let stride = width.next_multiple_of(COARSEST) + 2;
    let rows = height.next_multiple_of(COARSEST) + 2;
    let mut small = vec![0.0_f32; stride * rows * 3];
    let mut sums = vec![0_u32; width * 3];
    for y in 0..height {
        let (first, last) = of(y, height, picture.height);
        sums.fill(0);
        for row in picture.pixels[first * picture.width * 3..last * picture.width * 3].chunks_exact(picture.width * 3) {
            for (x, sum) in sums.chunks_exact_mut(3).enumerate() {
                let (left, right) = of(x, width, picture.width);
                for pixel in row[left * 3..right * 3].chunks_exact(3) {
                    sum.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += u32::from(*channel));
                }
            }
        }
        let target = &mut small[((y + 1) * stride + 1) * 3..];
        for (x, (target, sum)) in target.chunks_exact_mut(3).zip(sums.chunks_exact(3)).enumerate() {
            let (left, right) = of(x, width, picture.width);
            let count = ((right - left) * (last - first)) as f32;
            target.iter_mut().zip(sum.iter().rev()).for_each(|(target, sum)| *target = *sum as f32 / count);
        }
    }
    let (columns, rows) = ((stride - 2) / 2, (rows - 2) / 2);
    let mut map = Map { columns, rows, channels: 27, values: Vec::with_capacity(columns * rows * 27) };
    for y in 0..rows {
        for x in 0..columns {
            for row in 2 * y..2 * y + 3 {
                let at = (row * stride + 2 * x) * 3;
                map.values.extend_from_slice(&small[at..at + 9]);
            }
        }
    }
    map
}

struct Map {
    columns: usize,
    rows: usize,
    channels: usize,
    values: Vec<f32>,
}

struct Model(&'static [u8]);

impl Model {
    fn take(&mut self, count: usize) -> impl Iterator<Item = f32> + use<> {
        let (taken, left) = self.0.split_at(count * size_of::<f32>());
        self.0 = left;
        taken.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }

    /// Mixes the channels of each cell, then each channel with its neighbors.
    fn unit(&mut self, map: &Map, channels: usize, positive: bool) -> Map {
        let edged = self.mixed(map, channels, 1);
        self.blurred(&edged, channels, positive)
    }

    /// Mixes the channels of each cell. Adds an edge of empty cells, and empty channels up to a multiple of [`LANES`].
    fn mixed(&mut self, map: &Map, channels: usize, edge: usize) -> Map {
        let lanes = channels.next_multiple_of(LANES);
        let mut weights = vec![[0.0_f32; LANES]; lanes / LANES * map.channels];
        for (at, weight) in self.take(channels * map.channels).enumerate() {
            let (to, from) = (at / map.channels, at % map.channels);
            weights[to / LANES * map.channels + from][to % LANES] = weight;
        }
        let mut biases = vec![[0.0_f32; LANES]; lanes / LANES];
        self.take(channels).enumerate().for_each(|(to, bias)| biases[to / LANES][to % LANES] = bias);

        let (columns, rows) = (map.columns + 2 * edge, map.rows + 2 * edge);
        let mut mixed = Map { columns, rows, channels: lanes, values: vec![0.0; columns * rows * lanes] };
        for (y, row) in map.values.chunks_exact(map.columns * map.channels).enumerate() {
            let start = ((y + edge) * columns + edge) * lanes;
            let target = &mut mixed.values[start..start + map.columns * lanes];
            // Several cells at once, so that each weight is loaded less often. If fewer are left, the last is repeated.
            for (cells, target) in row.chunks(TOGETHER * map.channels).zip(target.chunks_mut(TOGETHER * lanes)) {
                let count = cells.len() / map.channels;
                let cells: [&[f32]; TOGETHER] = std::array::from_fn(|nth| {
                    let at = nth.min(count - 1) * map.channels;
                    &cells[at..at + map.channels]
                });
                for (block, (weights, bias)) in weights.chunks_exact(map.channels).zip(&biases).enumerate() {
                    let mut sums = [*bias; TOGETHER];
                    for (from, weights) in weights.iter().enumerate() {
                        for (sum, cell) in sums.iter_mut().zip(cells) {
                            for lane in 0..LANES {
                                sum[lane] += weights[lane] * cell[from];
                            }
                        }
                    }
                    for (cell, sum) in target.chunks_exact_mut(lanes).zip(&sums) {
                        cell[block * LANES..(block + 1) * LANES].copy_from_slice(sum);
                    }
                }
            }
        }
        mixed
    }

    /// Mixes each cell of each channel with its eight neighbors. The edge is only read.
    fn blurred(&mut self, edged: &Map, channels: usize, positive: bool) -> Map {
        let lanes = edged.channels;
        let mut weights = vec![0.0_f32; 9 * lanes];
        for (at, weight) in self.take(9 * channels).enumerate() {
            weights[at / channels * lanes + at % channels] = weight;
        }
        let mut biases = vec![0.0_f32; lanes];
        biases.iter_mut().zip(self.take(channels)).for_each(|(to, bias)| *to = bias);
        let least = if positive { 0.0 } else { f32::NEG_INFINITY };

        let (columns, rows) = (edged.columns - 2, edged.rows - 2);
        let mut values = vec![0.0; columns * rows * lanes];
        let stride = edged.columns * lanes;
        let block = |values: &[f32], at: usize| -> [f32; LANES] {
            values[at..at + LANES].try_into().expect("as many are cut out")
        };
        for (y, target) in values.chunks_exact_mut(columns * lanes).enumerate() {
            let near = &edged.values[y * stride..(y + 3) * stride];
            for at in (0..lanes).step_by(LANES) {
                let bias = block(&biases, at);
                let weights: [[f32; LANES]; 9] = std::array::from_fn(|nth| block(&weights, nth * lanes + at));
                for x in 0..columns {
                    let mut sum = bias;
                    for (nth, weights) in weights.iter().enumerate() {
                        let values = block(near, nth / 3 * stride + (x + nth % 3) * lanes + at);
                        for lane in 0..LANES {
                            sum[lane] += weights[lane] * values[lane];
                        }
                    }
                    target[x * lanes + at..x * lanes + at + LANES].copy_from_slice(&sum.map(|sum| sum.max(least)));
                }
            }
        }
        Map { columns, rows, channels: lanes, values }
    }
}

impl Map {
    fn pooled(&self) -> Map {
        let (columns, rows, channels) = (self.columns / 2, self.rows / 2, self.channels);
        let mut values = Vec::with_capacity(columns * rows * channels);
        for rows in self.values.chunks_exact(2 * self.columns * channels) {
            let (upper, lower) = rows.split_at(self.columns * channels);
            for (upper, lower) in upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels)) {
                let greatest = |at: usize| upper[at].max(upper[at + channels]).max(lower[at].max(lower[at + channels]));
                values.extend((0..channels).map(greatest));
            }
        }
        Map { columns, rows, channels, values }
    }

    /// Adds a map with half the columns and rows, each of whose cells counts for four.
    fn add_doubled(&mut self, half: &Map) {
        let channels = self.channels;
        for (y, row) in self.values.chunks_exact_mut(self.columns * channels).enumerate() {
            for (x, cell) in row.chunks_exact_mut(channels).enumerate() {
                let at = (y / 2 * half.columns + x / 2) * channels;
                cell.iter_mut().zip(&half.values[at..at + channels]).for_each(|(to, value)| *to += value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portrait() -> Raster {
        Raster::decode(include_bytes!("../pictures/astronaut.jpg")).expect("a picture")
    }

    /// The one face, as the network boxed it.
    fn face(picture: &Raster) -> Rect {
        let found = heads(picture);
        let [head] = &found[..] else { panic!("{found:?}") };
        let (height, width) = (head.area.height() / 1.33, head.area.width() / 1.24);
        let (x, y) = (head.area.left() + 0.12 * width, head.area.top() + 0.25 * height);
        Rect::from_xywh(x, y, width, height).expect("a box")
    }

    #[test]
    fn a_face_is_where_the_library_that_the_weights_are_of_finds_it() {
        // libfacedetection finds (72, 37) and 54 × 66, in whole pixels.
        let found = face(&portrait());
        for (found, expected) in
            [(found.left(), 72.0), (found.top(), 37.0), (found.width(), 54.0), (found.height(), 66.0)]
        {
            assert!((expected - 0.1..expected + 1.1).contains(&found), "{found} for {expected}");
        }
    }

    #[test]
    fn a_face_is_found_in_a_picture_that_is_looked_at_smaller_and_in_its_mirror() {
        let Raster { width, height, pixels, .. } = portrait();
        let at = |x: usize, y: usize| pixels[(y * width + x) * 3..][..3].iter().copied();
        let large = (0..4 * height).flat_map(|y| (0..4 * width).flat_map(move |x| at(x / 4, y / 4)));
        let large = Raster { width: 4 * width, height: 4 * height, pixels: large.collect(), notes: Vec::new() };
        let found = face(&large);
        assert!((found.left() - 288.0).abs() < 16.0 && (found.bottom() - 412.0).abs() < 16.0, "{found:?}");
        let mirror = (0..height).flat_map(|y| (0..width).rev().flat_map(move |x| at(x, y)));
        let found = face(&Raster { width, height, pixels: mirror.collect(), notes: Vec::new() });
        assert!((found.right() - (width as f32 - 72.0)).abs() < 5.0, "{found:?}");
    }

    #[test]
    fn no_face_is_found_where_there_is_none_and_every_weight_is_used() {
        for (width, height) in [(1, 1), (1, 900), (31, 33), (320, 64), (1500, 700)] {
            let pixels = (0..width * height).flat_map(|i| [(i % 251) as u8, (i / width * 7) as u8, (i * i) as u8]);
            let picture = Raster { width, height, pixels: pixels.collect(), notes: Vec::new() };
            assert_eq!(heads(&picture), [], "{width} by {height}");
        }
        let mut model = Model(WEIGHTS);
        boxes(&portrait(), &mut model);
        assert!(model.0.is_empty(), "{} bytes are left", model.0.len());
    }
}
