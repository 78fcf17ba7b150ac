use crate::brief::Brief;
use crate::canvas::{Rgb, add, mix, rgb, scale, smooth};

pub(crate) struct Palette {
    /// The zenith, the middle of the sky and the horizon.
    pub(crate) sky: [Rgb; 3],
    pub(crate) light: Rgb,
    /// The air in the light of the sun or moon.
    pub(crate) glow: Rgb,
    pub(crate) ground: Rgb,
    /// The darkest color, of figures and of the foreground.
    pub(crate) ink: Rgb,
    pub(crate) accent: Rgb,
    pub(crate) mist: Rgb,
    /// The bright edge of things in front of the light.
    pub(crate) rim: Rgb,
}

impl Palette {
    pub(crate) fn new(brief: &Brief, seed: u32) -> Palette {
        let skies = &brief.genre.skies;
        let [zenith, middle, horizon, light, ground] =
            skies[(seed / 2) as usize % skies.len()].each_ref().map(|color| rgb(color));
        let (mut sky, mut glow, mut washed) = ([zenith, middle, horizon], mix(middle, horizon, 0.6), ground);
        for (tint, [upper, mid, lower], dim) in brief.washes.iter().copied() {
            let wash = |color: Rgb, share: f32| scale(mix(color, rgb(tint), share), *dim);
            sky = [wash(sky[0], *upper), wash(sky[1], *mid), wash(sky[2], *lower)];
            (glow, washed) = (wash(glow, *lower), wash(washed, mid * 0.5));
        }
        Palette {
            mist: mix(sky[2], glow, 0.3),
            rim: add(scale(glow, 0.7), scale(light, 0.3)),
            ink: scale(ground, 0.06),
            accent: mix(light, rgb("#FFB048"), 0.75),
            light: brief.light.map_or(light, rgb),
            ground: washed,
            sky,
            glow,
        }
    }

    /// The sky at a height from 0, the zenith, to 1, the horizon.
    pub(crate) fn sky_at(&self, t: f32) -> Rgb {
        // A blend of square roots looks even.
        let [zenith, middle, horizon] = self.sky.map(|color| color.map(f32::sqrt));
        let upper = mix(zenith, middle, smooth(-0.1, 0.65, t));
        mix(upper, horizon, smooth(0.4, 1.05, t)).map(|v| v * v)
    }

    /// The color of things at a depth, seen through air.
    pub(crate) fn depth(&self, t: f32) -> Rgb {
        let haze = mix(self.sky[2], self.ground, 0.3);
        if t < 0.5 { mix(haze, self.ground, t * 2.0) } else { mix(self.ground, self.ink, (t * 2.0 - 1.0).min(1.0)) }
    }
}
