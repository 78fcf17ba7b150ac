use tiny_skia::Color;

pub(crate) type Rgb = [u8; 3];

/// The linear light of each sRGB byte, from 0 to 1 (IEC 61966-2-1).
pub(crate) struct Light([f32; 256]);

impl Light {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|byte| linear(byte as f32 / 255.0)))
    }

    pub(crate) fn luminance(&self, rgb: Rgb) -> f32 {
        let [red, green, blue] = rgb.map(|byte| self.0[usize::from(byte)]);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}

/// The contrast of two relative luminances, from 1 to 21, as WCAG 2 defines it
/// (<https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>).
pub fn contrast(one: f32, other: f32) -> f32 {
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// The relative luminance of an sRGB color, from 0 to 1.
pub fn luminance(rgb: [u8; 3]) -> f32 {
    let [red, green, blue] = rgb.map(|byte| linear(f32::from(byte) / 255.0));
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

fn linear(value: f32) -> f32 {
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

fn encoded(value: f32) -> f32 {
    if value <= 0.003_130_8 { value * 12.92 } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
}

/// A color in OKLab (<https://bottosson.github.io/posts/oklab/>), where equal distances look equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lab {
    pub(crate) lightness: f32,
    pub(crate) a: f32,
    pub(crate) b: f32,
}

impl Lab {
    #[rustfmt::skip]
    pub(crate) fn of(rgb: Rgb) -> Self {
        let [r, g, b] = rgb.map(|byte| linear(f32::from(byte) / 255.0));
        let l = (0.412_221_46 * r + 0.536_332_55 * g + 0.051_445_995 * b).cbrt();
        let m = (0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b).cbrt();
        let s = (0.088_302_46 * r + 0.281_718_85 * g + 0.629_978_7 * b).cbrt();
        Self {
            lightness: 0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
            a: 1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
            b: 0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
        }
    }

    /// Lightness is from 0 to 1, hue in radians.
    pub(crate) fn polar(lightness: f32, chroma: f32, hue: f32) -> Self {
        Self { lightness, a: chroma * hue.cos(), b: chroma * hue.sin() }
    }

    pub(crate) fn chroma(self) -> f32 {
        self.a.hypot(self.b)
    }

    pub(crate) fn hue(self) -> f32 {
        self.b.atan2(self.a)
    }

    #[rustfmt::skip]
    fn light(self) -> [f32; 3] {
        let Self { lightness, a, b } = self;
        let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
        let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
        let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
        [
            4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
            -1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s,
            -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
        ]
    }

    /// The nearest sRGB color of the same lightness and hue, with less chroma if necessary.
    pub(crate) fn rgb(self) -> Rgb {
        let mut color = self;
        for _ in 0..24 {
            if color.light().iter().all(|channel| (-0.001..=1.001).contains(channel)) {
                break;
            }
            color = Self { a: color.a * 0.9, b: color.b * 0.9, ..color };
        }
        color.light().map(|channel| (encoded(channel.clamp(0.0, 1.0)) * 255.0).round() as u8)
    }
}

pub(crate) fn ink([red, green, blue]: Rgb) -> Color {
    Color::from_rgba8(red, green, blue, 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_standard() {
        assert!((contrast(luminance([255; 3]), luminance([0; 3])) - 21.0).abs() < 0.01);
        // The darkest gray that passes 4.5 on white, an example of the standard.
        let gray = contrast(luminance([0x76; 3]), 1.0);
        assert!((4.5..4.6).contains(&gray), "{gray}");
        let light = Light::new();
        assert!((light.luminance([12, 200, 77]) - luminance([12, 200, 77])).abs() < 1e-6);
    }

    #[test]
    fn colors_go_there_and_back() {
        for rgb in [[0, 0, 0], [255, 255, 255], [200, 30, 40], [10, 120, 220], [128, 128, 128]] {
            let back = Lab::of(rgb).rgb();
            assert!(rgb.iter().zip(&back).all(|(a, b)| a.abs_diff(*b) <= 1), "{rgb:?} {back:?}");
        }
        let [red, green, blue] = Lab::polar(0.9, 0.4, 0.5).rgb();
        assert!(red > green && red > blue, "what sRGB cannot show keeps its hue");
    }
}
