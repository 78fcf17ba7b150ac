//! The lettering that a caller may ask for.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::decompose_canonical;

use crate::fault::{Fault, FaultKind, Faults, FieldError};
use crate::json::{Fields, kind, string};
use crate::spelled::spelled;
use crate::text::{check_visible, is_forbidden};

/// What the model should leave out of a picture that gets lettering.
pub const NO_LETTERING: &str = "text, lettering, title, words, watermark, signature, logo";

/// The maximum number of credits.
pub const MAX_CREDITS: usize = 16;

/// The words to set over a picture, and how to set them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Poster {
    pub title: Words<80>,
    /// A line that accompanies the title.
    pub tagline: Option<Words<120>>,
    pub credits: Vec<Credit>,
    pub style: Style,
    pub placement: Placement,
}

impl Poster {
    /// Parses the lettering at the JSON pointer `pointer` of the request. The error lists every fault.
    pub fn parse(value: Value, pointer: &str) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, pointer)?;
        let title = fields.required("title", Words::parse);
        let tagline = fields.optional("tagline", Words::parse);
        let credits = fields.nested("credits", Credit::parse_all).unwrap_or_default();
        let style = fields.optional("style", |value| string(value)?.parse()).unwrap_or_default();
        let placement = fields.optional("placement", |value| string(value)?.parse()).unwrap_or_default();
        fields.finish(title.map(|title| Self { title, tagline, credits, style, placement }))
    }
}

/// A name in the billing block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// What the person did; without it the name stands alone, like an actor's.
    pub role: Option<Words<32>>,
    /// The person's name.
    pub name: Words<48>,
}

impl Credit {
    fn parse_all(value: Value, pointer: &str) -> Result<Vec<Self>, Faults> {
        let fault = |detail: String| vec![FieldError::new(pointer, detail)];
        let credits = match value {
            Value::Array(credits) if credits.len() <= MAX_CREDITS => credits,
            Value::Array(credits) => {
                return Err(fault(format!("must have at most {MAX_CREDITS} credits, but has {}", credits.len())));
            }
            other => return Err(fault(format!("must be an array, not {}", kind(&other)))),
        };
        let (mut read, mut errors) = (Vec::with_capacity(credits.len()), Vec::new());
        for (index, credit) in credits.into_iter().enumerate() {
            match Self::parse(credit, &format!("{pointer}/{index}")) {
                Ok(credit) => read.push(credit),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    fn parse(value: Value, pointer: &str) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, pointer)?;
        let role = fields.optional("role", Words::parse);
        let name = fields.required("name", Words::parse);
        fields.finish(name.map(|name| Self { role, name }))
    }
}

spelled! {
    /// The style of the lettering, named after a genre.
    #[derive(Default)]
    Style, "a style",
    /// The one that fits the prompt, or else the picture.
    #[default]
    Auto = "auto",
    Noir = "noir",
    Epic = "epic",
    Modern = "modern",
    Retro = "retro",
    Scifi = "scifi",
    Romance = "romance",
}

spelled! {
    /// The position of the title. The billing block is always at the bottom.
    #[derive(Default)]
    Placement, "a placement",
    /// Where the picture is calmest.
    #[default]
    Auto = "auto",
    Top = "top",
    Bottom = "bottom",
}

/// How the lettering of a poster was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lettering {
    /// The style; never [`Style::Auto`].
    pub style: Style,
    /// The position of the title; never [`Placement::Auto`].
    pub placement: Placement,
    /// The contrast of the title.
    pub contrast: Contrast,
    /// Whether the title is large enough to be read on the whole poster; `None` on older posters.
    pub legible: Option<bool>,
}

/// The lowest contrast between a title and the pixels around it: 1 to 21 as in WCAG 2, rounded down to two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Contrast {
    hundredths: u16,
}

impl From<f64> for Contrast {
    fn from(ratio: f64) -> Self {
        // 7.02 is parsed as a number slightly below, which must not be rounded down to 7.01.
        Self { hundredths: (ratio.clamp(1.0, 21.0) * 100.0 + 1e-6) as u16 }
    }
}

impl From<Contrast> for f64 {
    fn from(contrast: Contrast) -> Self {
        Self::from(contrast.hundredths) / 100.0
    }
}

/// Words to set on a poster: one line, with a visible character, at most `MAX` characters, all of which the fonts have.
/// The text is normalized, so the Unicode form of the caller's text does not matter: a letter with marks is one
/// character if the fonts have it as one, and several otherwise.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Words<const MAX: usize>(String);

impl<const MAX: usize> Words<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(value: Value) -> Result<Self, Fault> {
        Self::of(&string(value)?)
    }

    fn of(text: &str) -> Result<Self, Fault> {
        let text: String = text.trim().nfc().collect();
        check_visible(&text)?;
        let chars = text.chars().count();
        if chars > MAX {
            return Err(Fault::from(format!("must have at most {MAX} characters, but has {chars}")));
        }
        if let Some(c) = text.chars().find(|&c| is_forbidden(c) || c.is_control()) {
            return Err(Fault::from(format!("must not contain the character U+{:04X}", u32::from(c))));
        }
        let mut spelled = String::with_capacity(text.len());
        for c in text.chars() {
            if !spell(c, &mut spelled) {
                return Err(Fault {
                    detail: format!("has the character {c} (U+{:04X}), which the fonts do not have", u32::from(c)),
                    kind: FaultKind::Character,
                });
            }
        }
        Ok(Self(spelled))
    }
}

/// Appends a character as the fonts have it: composed, or as a letter and its marks. Returns whether they have it.
fn spell(c: char, text: &mut String) -> bool {
    if is_covered(c) {
        text.push(c);
        return true;
    }
    let (start, mut covered) = (text.len(), true);
    decompose_canonical(c, |part| {
        covered &= is_covered(part);
        text.push(part);
    });
    if !covered {
        text.truncate(start);
    }
    covered
}

impl<const MAX: usize> TryFrom<String> for Words<MAX> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::of(&text).map_err(|fault| fault.detail)
    }
}

impl<const MAX: usize> From<Words<MAX>> for String {
    fn from(words: Words<MAX>) -> Self {
        words.0
    }
}

/// Shows only the length, so that no log can contain the words.
impl<const MAX: usize> fmt::Debug for Words<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words({} bytes)", self.0.len())
    }
}

/// What the fonts have, without white space. Only the worker links the fonts, so a test compares this table with them.
#[rustfmt::skip]
const COVERED: [(char, char); 77] = [
    ('\u{21}', '\u{7e}'), ('\u{a1}', '\u{b4}'), ('\u{b6}', '\u{17f}'), ('\u{18f}', '\u{18f}'),
    ('\u{1a0}', '\u{1a1}'), ('\u{1af}', '\u{1b0}'), ('\u{1b7}', '\u{1b7}'), ('\u{1cd}', '\u{1ce}'),
    ('\u{1d3}', '\u{1d4}'), ('\u{1e4}', '\u{1e9}'), ('\u{1ee}', '\u{1ef}'), ('\u{1f4}', '\u{1f5}'),
    ('\u{1fe}', '\u{1ff}'), ('\u{218}', '\u{21b}'), ('\u{21e}', '\u{21f}'), ('\u{237}', '\u{237}'),
    ('\u{259}', '\u{259}'), ('\u{292}', '\u{292}'), ('\u{2bb}', '\u{2bc}'), ('\u{2c6}', '\u{2c7}'),
    ('\u{2d8}', '\u{2dd}'), ('\u{300}', '\u{304}'), ('\u{306}', '\u{30c}'), ('\u{323}', '\u{323}'),
    ('\u{326}', '\u{328}'), ('\u{335}', '\u{335}'), ('\u{337}', '\u{338}'), ('\u{394}', '\u{394}'),
    ('\u{3a9}', '\u{3a9}'), ('\u{400}', '\u{45f}'), ('\u{462}', '\u{463}'), ('\u{46a}', '\u{46b}'),
    ('\u{490}', '\u{493}'), ('\u{496}', '\u{497}'), ('\u{49a}', '\u{49b}'), ('\u{4a2}', '\u{4a3}'),
    ('\u{4ae}', '\u{4b1}'), ('\u{4ba}', '\u{4bb}'), ('\u{4c9}', '\u{4ca}'), ('\u{4d8}', '\u{4d9}'),
    ('\u{4e8}', '\u{4e9}'), ('\u{1e80}', '\u{1e85}'), ('\u{1e9e}', '\u{1e9e}'), ('\u{1ea0}', '\u{1ef9}'),
    ('\u{2010}', '\u{2011}'), ('\u{2013}', '\u{2014}'), ('\u{2018}', '\u{201a}'), ('\u{201c}', '\u{201e}'),
    ('\u{2020}', '\u{2022}'), ('\u{2026}', '\u{2026}'), ('\u{2030}', '\u{2030}'), ('\u{2032}', '\u{2033}'),
    ('\u{2039}', '\u{203a}'), ('\u{2044}', '\u{2044}'), ('\u{2052}', '\u{2052}'), ('\u{2060}', '\u{2060}'),
    ('\u{20ac}', '\u{20ac}'), ('\u{20b9}', '\u{20b9}'), ('\u{2105}', '\u{2105}'), ('\u{2116}', '\u{2116}'),
    ('\u{2122}', '\u{2122}'), ('\u{212a}', '\u{212b}'), ('\u{2153}', '\u{2154}'), ('\u{2190}', '\u{2194}'),
    ('\u{2196}', '\u{2199}'), ('\u{2202}', '\u{2202}'), ('\u{220f}', '\u{220f}'), ('\u{2211}', '\u{2212}'),
    ('\u{221a}', '\u{221a}'), ('\u{221e}', '\u{221e}'), ('\u{222b}', '\u{222b}'), ('\u{2248}', '\u{2248}'),
    ('\u{2260}', '\u{2260}'), ('\u{2264}', '\u{2265}'), ('\u{25a0}', '\u{25a1}'), ('\u{25ca}', '\u{25ca}'),
    ('\u{fb01}', '\u{fb02}'),
];

/// Whether the fonts have a character or can do without it, like the invisible word joiner.
pub fn is_covered(c: char) -> bool {
    let before = COVERED.partition_point(|(_, last)| *last < c);
    c.is_whitespace() || COVERED.get(before).is_some_and(|(first, _)| *first <= c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(value: Value) -> Vec<(String, FaultKind)> {
        let errors = Poster::parse(value, "/poster").expect_err("it breaks a rule");
        errors.into_iter().map(|error| (error.pointer, error.kind)).collect()
    }

    #[test]
    fn the_least_poster_is_a_title() {
        let poster = Poster::parse(json!({ "title": "  Solaris \n", "tagline": null, "credits": null }), "/poster");
        let poster = poster.expect("a good poster");
        assert_eq!((poster.title.as_str(), poster.tagline, poster.credits.len()), ("Solaris", None, 0));
        assert_eq!((poster.style, poster.placement), (Style::Auto, Placement::Auto));
    }

    #[test]
    fn every_fault_is_named_at_once_and_told_by_its_kind() {
        use FaultKind::{Character, Rule};
        let credits = json!([{ "name": "A" }, { "name": "侍", "role": "" }, 7]);
        let poster = json!({ "title": "七", "tagline": "a\u{202e}b", "credits": credits, "style": "x", "titel": 1 });
        let found = faults(poster);
        let expected = [
            ("/poster/title", Character),
            ("/poster/tagline", Rule),
            ("/poster/credits/1/role", Rule),
            ("/poster/credits/1/name", Character),
            ("/poster/credits/2", Rule),
            ("/poster/style", Rule),
            ("/poster/titel", Rule),
        ];
        assert_eq!(found, expected.map(|(pointer, kind)| (pointer.to_owned(), kind)));
    }

    #[test]
    fn words_have_something_to_see_and_keep_their_limit_in_characters() {
        for (text, good) in
            [("Ł".repeat(80), true), ("Ł".repeat(81), false), ("\u{ad}".to_owned(), false), ("a\tb".to_owned(), false)]
        {
            assert_eq!(Words::<80>::try_from(text.clone()).is_ok(), good, "{text:?}");
        }
        assert!(!format!("{:?}", Words::<80>::try_from("secret".to_owned())).contains("secret"));
    }

    #[test]
    fn letters_and_their_marks_are_spelled_as_the_fonts_have_them() {
        let words = |text: &str| Words::<80>::try_from(text.to_owned()).map(String::from);
        for (written, spelled) in [
            // U+031B, the horn, is in no font by itself, and no font has U+01EB or U+1E3E as one.
            ("Ngu\u{31b}o\u{31b}\u{300}i", "Người"),
            ("Vo\u{328}luspa\u{301}", "Vo\u{328}luspá"),
            ("V\u{1eb}luspá", "Vo\u{328}luspá"),
            ("Ḿ", "M\u{301}"),
            ("Spin\u{308}al", "Spin\u{308}al"),
            ("\u{2126}", "Ω"),
            ("Spider\u{2011}Man", "Spider\u{2011}Man"),
            ("Pourquoi\u{202f}?", "Pourquoi\u{202f}?"),
            ("A\u{2060}B", "A\u{2060}B"),
        ] {
            assert_eq!(words(written), Ok(spelled.to_owned()), "{written:?}");
            assert_eq!(words(spelled), Ok(spelled.to_owned()), "{spelled:?} reads back");
        }
        for marked in ["e\u{301}", "M\u{304}"] {
            assert_eq!(words(&marked.repeat(80)).is_ok(), marked.starts_with('e'), "80 letters, or 160 characters");
        }
        assert!(words("\u{2060}").is_err(), "a word joiner shows nothing");
        for (text, named) in [("x\u{31b}", "U+031B"), ("한", "U+D55C")] {
            assert!(words(text).is_err_and(|fault| fault.contains(named)), "{text}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_knows_its_ends() {
        assert!(COVERED.iter().all(|(first, last)| first <= last));
        assert!(COVERED.windows(2).all(|pair| pair[0].1 < pair[1].0));
        for (c, covered) in
            [('A', true), ('\u{7f}', false), ('Ѣ', true), ('ﬂ', true), ('\u{fb03}', false), ('α', false)]
        {
            assert_eq!(is_covered(c), covered, "{c}");
        }
    }

    #[test]
    fn lettering_of_an_older_record_does_not_say_whether_it_is_legible() {
        let old = json!({ "style": "noir", "placement": "top", "contrast": 7.02 });
        let lettering: Lettering = serde_json::from_value(old).expect("it reads");
        assert_eq!((lettering.style, lettering.legible), (Style::Noir, None));
    }

    #[test]
    fn contrasts_are_never_rounded_up_and_read_back_as_they_were_written() {
        assert_eq!(f64::from(Contrast::from(7.029_9)), 7.02);
        for hundredths in 100..=2100_u16 {
            let contrast = Contrast { hundredths };
            let text = serde_json::to_string(&contrast).expect("a number");
            assert_eq!(serde_json::from_str::<Contrast>(&text).expect("a contrast"), contrast, "{text}");
        }
    }
}
