//! Rules about characters, and texts in other forms.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed, CodePointSetData, CodePointSetDataBorrowed};

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text whose lines end in LF, whether they ended in LF, in CRLF or in CR.
pub(crate) fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() }
}

/// Makes sure that a trimmed text has something to see in it.
pub(crate) fn check_visible(text: &str) -> Result<(), String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        _ if text.chars().all(is_invisible) => Err("must have at least one visible character".to_owned()),
        _ => Ok(()),
    }
}

/// Characters that show nothing by themselves: white space, control and format characters, those that Unicode has as
/// `Default_Ignorable_Code_Point`, such as the Hangul fillers and the variation selectors, and the blank of Braille.
fn is_invisible(c: char) -> bool {
    const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    const CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
    c.is_whitespace()
        || c == '\u{2800}'
        || IGNORABLE.contains(c)
        || matches!(CATEGORY.get(c), GeneralCategory::Control | GeneralCategory::Format)
}

/// Characters that have no place in a prompt: controls other than line breaks and tabs, noncharacters, and those that
/// make text look other than it is (bidirectional overrides and isolates, and tag characters).
pub(crate) fn is_forbidden(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || (c as u32 & 0xfffe) == 0xfffe
        || matches!(
            c,
            '\u{fdd0}'..='\u{fdef}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether a text of one line is safe to show.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| is_forbidden(c) || c.is_control())
}

/// How many characters of a name that a caller has chosen a problem repeats.
const MAX_NAME_CHARS: usize = 100;

/// A name that a caller has chosen, as a problem repeats it: its first hundred characters, and … where there are more.
pub fn cut(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        None => name.into(),
        Some((end, _)) => format!("{}…", &name[..end]).into(),
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
