use std::f32::consts::TAU;

use crate::color::{Lab, Light, Rgb};
use crate::raster::Raster;

const CELL: usize = 16;

/// How much neighboring pixels may differ without counting as detail, out of 255.
const GRAIN: u8 = 16;

const STRIDE: usize = 6;

const HUES: usize = 24;

/// One pixel in this many.
const DARK_SHARE: usize = 10;

pub(crate) struct Survey {
    columns: usize,
    cells: Vec<Cell>,
    /// Dark enough for light letters.
    pub(crate) dark: Rgb,
    /// The dominant hue, in radians, and its chroma.
    pub(crate) hue: f32,
    pub(crate) chroma: f32,
    pub(crate) mean_chroma: f32,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    luminance: f32,
    /// The share of pixels that differ from a neighbor by more than grain.
    edges: f32,
}

impl Survey {
    pub(crate) fn of(picture: &Raster) -> Self {
        let (columns, cells) = cells(picture);
        let mut colors: Vec<Lab> = Vec::with_capacity(picture.pixels.len() / (3 * STRIDE * STRIDE) + 1);
        for row in picture.pixels.chunks_exact(picture.width * 3).step_by(STRIDE) {
            colors.extend(row.chunks_exact(3 * STRIDE).map(|pixel| Lab::of([pixel[0], pixel[1], pixel[2]])));
        }
        if colors.is_empty() {
            colors.push(Lab::of([picture.pixels[0], picture.pixels[1], picture.pixels[2]]));
        }
        let (hue, chroma) = accent(&colors);
        let mean_chroma = colors.iter().map(|color| color.chroma()).sum::<f32>() / colors.len() as f32;
        Self { columns, cells, dark: dark(&mut colors), hue, chroma, mean_chroma }
    }

    /// How much lettering on these rows would conflict with the picture, from zero: with its shapes, its detail, and
    /// its light, which a scrim would take away.
    pub(crate) fn trouble(&self, top: f32, bottom: f32) -> f32 {
        let rows = self.cells.len() / self.columns;
        let first = ((top / CELL as f32) as usize).min(rows - 1);
        let last = ((bottom / CELL as f32) as usize).clamp(first, rows - 1);
        // Roughly as the eye perceives it: a figure at dusk is as visible as one in the sun.
        let tone = |at: usize| self.cells[at].luminance.cbrt();
        let trouble = |at: usize| {
            let right = if (at + 1).is_multiple_of(self.columns) { at } else { at + 1 };
            let below = if at + self.columns < self.cells.len() { at + self.columns } else { at };
            let shapes = (tone(at) - tone(right)).abs() + (tone(at) - tone(below)).abs();
            2.0 * shapes + self.cells[at].edges + 0.3 * self.cells[at].luminance
        };
        let cells = first * self.columns..(last + 1) * self.columns;
        let count = cells.len() as f32;
        cells.map(trouble).sum::<f32>() / count
    }
}

fn cells(picture: &Raster) -> (usize, Vec<Cell>) {
    let light = Light::new();
    let (columns, rows) = (picture.width.div_ceil(CELL), picture.height.div_ceil(CELL));
    let mut cells = vec![Cell::default(); columns * rows];
    let mut counts = vec![0_u32; columns * rows];
    let stride = picture.width * 3;
    for y in (0..picture.height).step_by(2) {
        let row = &picture.pixels[y * stride..(y + 1) * stride];
        let next = &picture.pixels[(y + 1).min(picture.height - 1) * stride..];
        for x in (0..picture.width).step_by(2) {
            let right = (x + 1).min(picture.width - 1);
            let green = row[x * 3 + 1];
            // Green dominates perceived brightness, so its differences show detail.
            let difference = green.abs_diff(row[right * 3 + 1]).max(green.abs_diff(next[x * 3 + 1]));
            let at = y / CELL * columns + x / CELL;
            cells[at].edges += f32::from(u8::from(difference > GRAIN));
            cells[at].luminance += light.luminance([row[x * 3], green, row[x * 3 + 2]]);
            counts[at] += 1;
        }
    }
    for (cell, count) in cells.iter_mut().zip(counts) {
        cell.edges /= count as f32;
        cell.luminance /= count as f32;
    }
    (columns, cells)
}

/// The dominant hue and its chroma. A few vivid pixels count as much as many dull ones.
fn accent(colors: &[Lab]) -> (f32, f32) {
    let mut bins = [(0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32); HUES];
    for color in colors.iter().filter(|color| color.lightness > 0.2) {
        let chroma = color.chroma();
        let weight = chroma.powi(3);
        let bin = &mut bins[(color.hue().rem_euclid(TAU) / TAU * HUES as f32) as usize % HUES];
        bin.0 += weight;
        bin.1 += weight * color.a;
        bin.2 += weight * color.b;
        bin.3 += weight * chroma;
    }
    // A hue on the border of two bins must not lose to one in the middle of a bin.
    let with_neighbors = |i: usize| bins[i].0 + 0.5 * (bins[(i + 1) % HUES].0 + bins[(i + HUES - 1) % HUES].0);
    let loudest = (0..HUES).max_by(|&i, &j| with_neighbors(i).total_cmp(&with_neighbors(j))).unwrap_or_default();
    let (weight, a, b, chroma) = bins[loudest];
    if weight > 0.0 { (b.atan2(a), chroma / weight) } else { (0.0, 0.0) }
}

/// The mean of the darkest pixels, darkened until light letters stand out.
fn dark(colors: &mut [Lab]) -> Rgb {
    let count = colors.len().div_ceil(DARK_SHARE);
    colors.select_nth_unstable_by(count - 1, |one, other| one.lightness.total_cmp(&other.lightness));
    let darkest = &colors[..count];
    let mean = |part: fn(&Lab) -> f32| darkest.iter().map(part).sum::<f32>() / count as f32;
    let mean = Lab { lightness: mean(|c| c.lightness), a: mean(|c| c.a), b: mean(|c| c.b) };
    Lab::polar(mean.lightness.min(0.17), mean.chroma().min(0.035), mean.hue()).rgb()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::luminance;

    /// A picture whose upper half is plain and whose lower half is a chessboard of one pixel.
    fn half_calm(calm: Rgb) -> Raster {
        let pixel = |i: usize| {
            let (x, y) = (i % 64, i / 64);
            if y < 48 {
                calm
            } else if (x + y) % 2 == 0 {
                [0; 3]
            } else {
                [90; 3]
            }
        };
        Raster { width: 64, height: 96, pixels: (0..64 * 96).flat_map(pixel).collect(), notes: Vec::new() }
    }

    #[test]
    fn detail_and_light_are_trouble() {
        let night = Survey::of(&half_calm([10, 10, 30]));
        assert!(night.trouble(0.0, 47.0) < night.trouble(48.0, 95.0));
        let snow = Survey::of(&half_calm([250; 3]));
        assert!(snow.trouble(0.0, 47.0) > night.trouble(0.0, 47.0));
        assert!(night.trouble(-40.0, 4000.0).is_finite());
    }

    #[test]
    fn the_colors_are_the_pictures() {
        let mut picture = half_calm([30, 40, 60]);
        // The eye goes to a small lamp in a blue night.
        for pixel in picture.pixels[..64 * 6 * 3].chunks_exact_mut(3) {
            pixel.copy_from_slice(&[255, 140, 20]);
        }
        let survey = Survey::of(&picture);
        let [red, _, blue] = Lab::polar(0.8, survey.chroma, survey.hue).rgb();
        assert!(red > blue, "the accent is the lamp's");
        assert!(luminance(survey.dark) < 0.02);
    }

    #[test]
    fn the_least_picture_can_be_surveyed() {
        let picture = Raster { width: 1, height: 1, pixels: vec![255; 3], notes: Vec::new() };
        assert!(luminance(Survey::of(&picture).dark) < 0.02);
    }
}
