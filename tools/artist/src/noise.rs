//! Smooth noise from integer hashes, the same on every machine.

pub(crate) fn hash_point(x: i32, y: i32, seed: u32) -> u32 {
    let (x, y) = ((x as u32).wrapping_mul(0x85EB_CA6B), (y as u32).wrapping_mul(0xC2B2_AE35));
    let mut h = x ^ y ^ seed.wrapping_mul(0x27D4_EB2F);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}

/// Gradient noise between about -1 and 1, zero on the lattice.
pub(crate) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let (dx, dy) = (x - column, y - row);
    let corner = |i: i32, j: i32| {
        let hash = hash_point(column as i32 + i, row as i32 + j, seed);
        let (x, y) = (dx - i as f32, dy - j as f32);
        (if hash & 1 == 0 { x } else { -x }) + (if hash & 2 == 0 { y } else { -y })
    };
    let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let blend = |a: f32, b: f32, t: f32| a + (b - a) * t;
    let top = blend(corner(0, 0), corner(1, 0), fade(dx));
    blend(top, blend(corner(0, 1), corner(1, 1), fade(dx)), fade(dy))
}

/// Octaves of noise, each turned so that the lattice does not show.
pub(crate) fn fractal(mut x: f32, mut y: f32, octaves: u32, seed: u32) -> f32 {
    let (mut sum, mut weight) = (0.0, 0.5);
    for octave in 0..octaves {
        sum += weight * noise(x, y, seed.wrapping_add(octave * 131));
        (x, y) = (1.6 * x + 1.2 * y, 1.6 * y - 1.2 * x);
        weight *= 0.5;
    }
    sum
}

/// A slow function of the plane, sampled every `step` pixels and read back between the samples.
pub(crate) fn sampled(size: (f32, f32), step: f32, f: impl Fn(f32, f32) -> f32) -> impl Fn(f32, f32) -> f32 {
    let step = step.max(1.0);
    let (columns, rows) = ((size.0 / step) as usize + 3, (size.1 / step) as usize + 3);
    let sample = |i: usize| f((i % columns) as f32 * step, (i / columns) as f32 * step);
    let samples: Vec<f32> = (0..columns * rows).map(sample).collect();
    move |x, y| {
        let (x, y) = (x.max(0.0) / step, y.max(0.0) / step);
        let (dx, dy, i) = (x.fract(), y.fract(), y as usize * columns + x as usize);
        let row = |i: usize| samples[i] * (1.0 - dx) + samples[i + 1] * dx;
        row(i) * (1.0 - dy) + row(i + columns) * dy
    }
}
