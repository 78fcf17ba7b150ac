//! Rules about characters, and conversions of text.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed, CodePointSetData, CodePointSetDataBorrowed};

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() }
}

pub(crate) fn check_visible(text: &str) -> Result<(), String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        _ if text.chars().all(is_invisible) => Err("must have at least one visible character".to_owned()),
        _ => Ok(()),
    }
}

/// Whether a character shows nothing by itself: white space, control and format characters, Unicode's
/// `Default_Ignorable_Code_Point` such as Hangul fillers and variation selectors, and the Braille blank.
fn is_invisible(c: char) -> bool {
    const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    const CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
    c.is_whitespace()
        || c == '\u{2800}'
        || IGNORABLE.contains(c)
        || matches!(CATEGORY.get(c), GeneralCategory::Control | GeneralCategory::Format)
}

/// Whether a character is forbidden in a prompt: controls other than line breaks and tabs, noncharacters, and those
/// that disguise text (bidirectional overrides and isolates, and tag characters).
pub(crate) fn is_forbidden(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || (c as u32 & 0xfffe) == 0xfffe
        || matches!(
            c,
            '\u{fdd0}'..='\u{fdef}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}'
        )
}

pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| is_forbidden(c) || c.is_control())
}

const MAX_NAME_CHARS: usize = 100;

/// A caller's name, cut to a hundred characters and … for use in a problem.
pub fn cut(name: &str) -> Cow<'_, str> {
    cut_to(MAX_NAME_CHARS, name)
}

pub(crate) fn cut_to(chars: usize, text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        for (name, told) in [
            ("🎬".repeat(100), "🎬".repeat(100)),
            ("🎬".repeat(101), "🎬".repeat(100) + "…"),
            (String::new(), String::new()),
        ] {
            assert_eq!(cut(&name), told);
        }
    }
}
