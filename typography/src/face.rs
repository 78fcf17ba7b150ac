use std::sync::OnceLock;

use harfrust::{Buffer, Font, ShapeOptions, ShaperFont, shape};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

/// A bundled typeface, licensed under the SIL Open Font License (see `fonts/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Bebas Neue: a tall sans of capitals.
    BebasNeue,
    /// League Gothic: a very condensed sans, the face of billing blocks.
    LeagueGothic,
    /// Cinzel Bold: Roman inscriptional capitals.
    Cinzel,
    /// Playfair Display Black Italic: a romantic serif, with Cyrillic.
    PlayfairDisplay,
    /// Orbitron Black: a geometric, futuristic sans.
    Orbitron,
    /// Alfa Slab One: a heavy slab serif.
    AlfaSlabOne,
}

impl Face {
    pub(crate) const ALL: [Face; 6] =
        [Face::BebasNeue, Face::LeagueGothic, Face::Cinzel, Face::PlayfairDisplay, Face::Orbitron, Face::AlfaSlabOne];

    /// White space is never missing, nor is a letter with a combining mark if the face has the composed form.
    pub(crate) fn missing(self, text: &str) -> Option<char> {
        let text = plain(text);
        let shaped = self.shape(&text);
        let absent = shaped.glyph_infos().iter().find(|glyph| glyph.glyph_id == 0)?;
        text.get(absent.cluster as usize..)?.chars().next()
    }

    pub(crate) fn has(self, c: char) -> bool {
        let charmap = self.outlines().charmap();
        plain(c.encode_utf8(&mut [0; 4])).chars().all(|c| charmap.map(c).is_some())
    }

    /// This face if it renders all of `text`, or else the first one that does.
    pub fn covering(self, text: &str) -> Option<Face> {
        let others = Face::ALL.into_iter().filter(|face| *face != self);
        std::iter::once(self).chain(others).find(|face| face.missing(text).is_none())
    }

    /// The glyphs of `text`, positioned in font units. Clusters are byte offsets into `text`.
    pub(crate) fn shape(self, text: &str) -> Buffer {
        let mut buffer = Buffer::new();
        buffer.push_str(text);
        buffer.guess_segment_properties();
        let shaper = ShaperFont::new(self.font());
        shape(&shaper, &mut buffer, ShapeOptions::new()).expect("a bundled font shapes any text");
        buffer
    }

    pub(crate) fn units_per_em(self) -> f32 {
        self.font().units_per_em() as f32
    }

    /// In ems.
    pub(crate) fn capitals(self) -> f32 {
        let metrics = self.outlines().metrics(Size::unscaled(), LocationRef::default());
        metrics.cap_height.unwrap_or(0.7 * self.units_per_em()) / self.units_per_em()
    }

    pub(crate) fn outlines(self) -> FontRef<'static> {
        FontRef::new(self.data()).expect("bundled font is valid")
    }

    fn font(self) -> &'static Font {
        // Parsing a font costs more than shaping a line.
        static FONTS: [OnceLock<Font>; Face::ALL.len()] = [const { OnceLock::new() }; 6];
        FONTS[self as usize].get_or_init(|| Font::new(self.data(), 0).expect("bundled font is valid"))
    }

    pub(crate) fn data(self) -> &'static [u8] {
        match self {
            Face::BebasNeue => include_bytes!("../fonts/BebasNeue-Regular.ttf"),
            Face::LeagueGothic => include_bytes!("../fonts/LeagueGothic-Regular.ttf"),
            Face::Cinzel => include_bytes!("../fonts/Cinzel-Bold.ttf"),
            Face::PlayfairDisplay => include_bytes!("../fonts/PlayfairDisplay-BlackItalic.ttf"),
            Face::Orbitron => include_bytes!("../fonts/Orbitron-Black.ttf"),
            Face::AlfaSlabOne => include_bytes!("../fonts/AlfaSlabOne-Regular.ttf"),
        }
    }
}

/// Replaces characters that some faces lack: white space and controls by a space, Unicode's hyphens by ASCII's. Removes
/// word joiners and soft hyphens, which only affect line breaks.
pub(crate) fn plain(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{ad}' | '\u{2060}' => None,
        '\u{2010}' | '\u{2011}' => Some('-'),
        c if c.is_whitespace() || c.is_control() => Some(' '),
        c => Some(c),
    };
    text.chars().filter_map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_renders_european_latin() {
        for face in Face::ALL {
            assert_eq!(face.missing("À bientôt, Größe, mañana, Şişli, Žižek & São 2049!"), None, "{face:?}");
        }
    }

    #[test]
    fn combining_marks_compose() {
        assert_eq!(Face::BebasNeue.missing("Cafe\u{301} \t\n noir"), None);
    }

    #[test]
    fn the_missing_character_is_named() {
        assert_eq!(Face::Cinzel.missing("Seven 侍"), Some('侍'));
        assert_eq!(Face::Cinzel.covering("Солярис"), Some(Face::PlayfairDisplay));
        assert_eq!(Face::Cinzel.covering("七人の侍"), None);
    }

    #[test]
    fn the_fonts_stay_small() {
        let total: usize = Face::ALL.iter().map(|face| face.data().len()).sum();
        assert!(total <= 600_000, "{total} bytes");
    }
}
