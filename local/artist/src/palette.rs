//! The colours of a picture.

use crate::canvas::{Rgb, add, mix, scale, smooth};
use crate::noise::Random;
use crate::reading::{Brief, Genre, Place, Time};

/// The colours that a picture is painted with, in linear light.
pub(crate) struct Palette {
    /// From the zenith down to the horizon.
    pub(crate) sky: [Rgb; 4],
    /// The sun or moon.
    pub(crate) light: Rgb,
    /// What its light turns the air into.
    pub(crate) glow: Rgb,
    /// Ground in the middle distance.
    pub(crate) ground: Rgb,
    /// The darkest colour, of figures and of the foreground.
    pub(crate) ink: Rgb,
    /// Lamps, taglines and other small bright things.
    pub(crate) accent: Rgb,
}

/// Colours by genre: sky from zenith to horizon, light, glow, ground, ink, accent.
#[rustfmt::skip]
const TABLE: &[(Genre, [u32; 9])] = &[
    (Genre::Noir, [0x05090F, 0x10202E, 0x274355, 0x6E8C96, 0xF1EEDF, 0x8FB0B8, 0x1B2C38, 0x03060A, 0xFFB454]),
    (Genre::Noir, [0x080706, 0x1A1712, 0x453B2C, 0xA08A63, 0xF8EBCB, 0xC7A468, 0x2A241B, 0x050403, 0xFF9E3D]),
    (Genre::Noir, [0x040B0C, 0x0C2426, 0x1F4C4B, 0x79A08E, 0xEEF3D8, 0x86B39A, 0x16302F, 0x020707, 0xF2C14E]),
    (Genre::SciFi, [0x0B0A22, 0x331340, 0x9A2F46, 0xF6A059, 0xFFE9C4, 0xFF8A4C, 0xA53A2A, 0x14060F, 0xFFE39A]),
    (Genre::SciFi, [0x050A1E, 0x123063, 0x5A55A6, 0xF2A0B4, 0xFFE9DA, 0xFF86B0, 0x35336F, 0x060716, 0x8FEBFF]),
    (Genre::SciFi, [0x02100F, 0x08403F, 0x2B927F, 0xE3ECB2, 0xFAF8D8, 0x7BE8C0, 0x17564F, 0x031211, 0xFFE48A]),
    (Genre::Western, [0x123A48, 0x4A8180, 0xE8B873, 0xFFE0A3, 0xFFF0C4, 0xFFB056, 0xB65A2A, 0x1A0A08, 0xFFD27A]),
    (Genre::Western, [0x2C0B14, 0x8E2320, 0xEE6A2A, 0xFFC76A, 0xFFEBA8, 0xFF7A2C, 0x9A351C, 0x150607, 0xFFC85C]),
    (Genre::Western, [0x272544, 0x7A5A78, 0xE39A7C, 0xFFDDB0, 0xFFF0D0, 0xFF9D6E, 0xA0563F, 0x150A12, 0xFFCE8C]),
    (Genre::Horror, [0x05080B, 0x121F27, 0x35505A, 0x93A8A8, 0xEAF0EA, 0x8EA9AC, 0x223038, 0x030506, 0xFFB347]),
    (Genre::Horror, [0x0A0507, 0x27101A, 0x6B2A30, 0xC98A70, 0xF8E2CC, 0xD0684F, 0x38191C, 0x060203, 0xFFC45E]),
    (Genre::Horror, [0x040A08, 0x10271F, 0x3B6350, 0xA6BE9A, 0xEFF3D6, 0x8FBF90, 0x1F3A2E, 0x020504, 0xFFC04A]),
    (Genre::Samurai, [0xE9DEC4, 0xEFE6CE, 0xF2E8D0, 0xE7D7B6, 0xC42A22, 0xE8745A, 0x8F8A7C, 0x0E0C0C, 0xE9C9A8]),
    (Genre::Samurai, [0x30243F, 0x8C4A63, 0xEF8B72, 0xFFD9A8, 0xFFF0CF, 0xFF8F6A, 0x6A4560, 0x0D0812, 0xFFD79A]),
    (Genre::Samurai, [0x14323B, 0x4F8088, 0xC7CFB4, 0xF6E4BC, 0xD93A2B, 0xF2B48A, 0x5C7F80, 0x081113, 0xF6DFAE]),
    (Genre::Fantasy, [0x0A1A2E, 0x1F4C5E, 0x6FA59A, 0xF0E6B4, 0xFFF8DE, 0xFFD88A, 0x2F5A5C, 0x05101A, 0xFFD987]),
    (Genre::Fantasy, [0x170E34, 0x4A2A74, 0xC4698A, 0xFFC79A, 0xFFF1D4, 0xFF9E86, 0x4C2F66, 0x0B0718, 0xFFD08A]),
    (Genre::Fantasy, [0x0C1622, 0x2C4450, 0x9A9078, 0xFFD79A, 0xFFF3D6, 0xFFB45C, 0x3F4A44, 0x070B10, 0xFFCB74]),
    (Genre::Romance, [0xF3B7AE, 0xF8C7B4, 0xFBDDC0, 0xFFF0DA, 0xFFF8EA, 0xFFD9A0, 0x2F8086, 0x4B1631, 0xFFD27A]),
    (Genre::Romance, [0x3C3A80, 0x9A639F, 0xF29A90, 0xFFDDAE, 0xFFEFD0, 0xFFB07A, 0x8A4A78, 0x240F36, 0xFFC86A]),
    (Genre::Romance, [0xA9DAD6, 0xCBE7DA, 0xF6EBCB, 0xFFDCC0, 0xFFF6E4, 0xFFCF9A, 0xB5505A, 0x2E2038, 0xFFCB74]),
    (Genre::Adventure, [0x0B3550, 0x2F7F9C, 0xA9D8D0, 0xFFEBBE, 0xFFF6DC, 0xFFC979, 0x1F6A74, 0x051620, 0xFFD873]),
    (Genre::Adventure, [0x10283A, 0x34687A, 0xE0A66A, 0xFFDFA0, 0xFFF2CC, 0xFF9F4E, 0x3C5A58, 0x0A1218, 0xFFD27E]),
    (Genre::Adventure, [0x042A30, 0x0B6468, 0x5CC0A8, 0xF2F0C6, 0xFBFBE0, 0x8FF0D0, 0x0F5358, 0x02161A, 0xFFE08A]),
    (Genre::Drama, [0x1B3350, 0x56789A, 0xD9BFB0, 0xFFE2C2, 0xFFF4E4, 0xFFBE92, 0x4A5E70, 0x0A131C, 0xFFD9A8]),
    (Genre::Drama, [0x2C2448, 0x7A5384, 0xE8949A, 0xFFD6AC, 0xFFF0DA, 0xFFA184, 0x5E4468, 0x110B1A, 0xFFD8B0]),
    (Genre::Drama, [0x123439, 0x3F7E7A, 0xC4D0A8, 0xFDEBBF, 0xFFF8E6, 0xFFD48E, 0x3A625C, 0x071616, 0xFFE0A0]),
];

/// Colours that a prompt may ask for, and how they lie on the sky.
const TINTS: &[(&str, u32)] = &[
    ("red,crimson,scarlet,mars,martian,blood,rust,rouge,rot", 0xD8432A),
    ("gold,golden,amber,orange,honey,doré", 0xF0A030),
    ("green,emerald,jade,vert,grün,verde", 0x3F9A6A),
    ("teal,turquoise,cyan", 0x2FA3A0),
    ("blue,azure,cobalt,bleu,blau,azul", 0x3F78C8),
    ("purple,violet,lavender,magenta", 0x8A4FC0),
    ("pink,rose,pastel", 0xF29AAE),
];

impl Palette {
    pub(crate) fn new(brief: &Brief, random: &mut Random) -> Palette {
        let fitting: Vec<_> = TABLE.iter().filter(|row| row.0 == brief.genre).collect();
        let [a, b, c, d, light, glow, ground, ink, accent] = random.pick(&fitting).1.map(rgb);
        let mut palette = Palette { sky: [a, b, c, d], light, glow, ground, ink, accent };
        if brief.place == Place::Deep {
            palette.sky = [0x021018, 0x06323F, 0x148A93, 0x9FE6D0].map(rgb);
            (palette.glow, palette.ground) = (rgb(0x6FD8C4), rgb(0x0B4650));
        } else if let Some((_, tint)) = TINTS.iter().find(|row| brief.mentions(row.0)) {
            palette.lay(rgb(*tint), [0.15, 0.4, 0.55, 0.35], 0.95);
        }
        match brief.time {
            Some(Time::Night) => {
                palette.lay(rgb(0x0A1836), [0.72, 0.62, 0.5, 0.42], 0.42);
                palette.light = mix(palette.light, rgb(0xE8EEF2), 0.7);
                palette.glow = mix(palette.glow, rgb(0x7F9CC4), 0.6);
            }
            Some(Time::Dawn) => palette.lay(rgb(0xFFB98F), [0.0, 0.1, 0.3, 0.5], 0.9),
            Some(Time::Dusk) => palette.lay(rgb(0xFF7A3C), [0.0, 0.1, 0.3, 0.55], 0.8),
            Some(Time::Day) => palette.lay(rgb(0x9CD2EE), [0.42, 0.42, 0.3, 0.15], 1.0),
            None => {}
        }
        palette
    }

    /// Lay a tint over the sky, from zenith to horizon, and dim it.
    fn lay(&mut self, tint: Rgb, strengths: [f32; 4], dim: f32) {
        for (color, strength) in self.sky.iter_mut().zip(strengths) {
            *color = scale(mix(*color, tint, strength), dim);
        }
        self.ground = scale(mix(self.ground, tint, strengths[2] * 0.5), dim);
        self.glow = mix(self.glow, tint, strengths[3] * 0.5);
    }

    /// The sky at a height from 0, the zenith, to 1, the horizon.
    pub(crate) fn sky_at(&self, t: f32) -> Rgb {
        let t = t.clamp(0.0, 1.0) * 2.999;
        let i = t as usize;
        // Square roots blend evenly to the eye, and the curve hides the joints between colours.
        let root = |c: Rgb| c.map(f32::sqrt);
        let blend = 0.5 * t.fract() + 0.5 * smooth(0.0, 1.0, t.fract());
        mix(root(self.sky[i]), root(self.sky[i + 1]), blend).map(|v| v * v)
    }

    /// Things seen through air, from 0, at the horizon, to 1, right before us.
    pub(crate) fn depth(&self, t: f32) -> Rgb {
        let haze = mix(self.sky[3], self.ground, 0.3);
        if t < 0.5 { mix(haze, self.ground, t * 2.0) } else { mix(self.ground, self.ink, t * 2.0 - 1.0) }
    }

    /// Mist lit by the sun or moon.
    pub(crate) fn mist(&self) -> Rgb {
        mix(self.sky[3], self.glow, 0.3)
    }

    /// The bright edge of things that stand against the light.
    pub(crate) fn rim(&self) -> Rgb {
        add(scale(self.glow, 0.7), scale(self.light, 0.3))
    }
}

/// A colour from its sRGB hexadecimal notation.
pub(crate) fn rgb(hex: u32) -> Rgb {
    [hex >> 16, hex >> 8, hex].map(|byte| {
        let v = (byte & 255) as f32 / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    })
}
