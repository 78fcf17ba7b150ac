//! What a caller may ask for. Each rule is enforced by a type that cannot be created without it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::fault::Faults;
use crate::json::{Fields, kind, string};
use crate::poster::{NO_LETTERING, Poster};
use crate::spelled::spelled;
use crate::text::{check_visible, cut, is_forbidden, with_line_feeds};
use crate::webhook::Webhook;

/// What a caller asks for. Two orders are equal exactly if they ask for the same thing, in the same code points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Order {
    pub prompt: Prompt,
    /// What to keep out of the picture.
    pub negative_prompt: Option<Prompt>,
    pub aspect_ratio: AspectRatio,
    /// The seed; `None` lets the model choose one.
    pub seed: Option<Seed>,
    pub output_format: OutputFormat,
    pub model: Model,
    /// The caller's notes, returned unchanged.
    pub metadata: Metadata,
    /// The lettering; `None` leaves the picture as it is. Omitted if `None`, so that older digests still match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poster: Option<Poster>,
    /// How long the job may take after it is queued; `None` leaves that to the service. Omitted if `None`, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_hours: Option<DeadlineHours>,
    /// The endpoint of its events. Omitted if `None`, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

impl Order {
    /// Parses an order at the JSON pointer `pointer` of the request. The error lists every fault.
    pub fn parse(value: Value, pointer: &str, default_model: Model) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, pointer)?;
        let prompt = fields.required("prompt", |value| Prompt::parse(&string(value)?));
        let negative_prompt = fields.optional("negative_prompt", |value| Prompt::parse(&string(value)?));
        let aspect_ratio = fields.optional("aspect_ratio", |value| string(value)?.parse());
        let seed = fields.optional("seed", |value| Seed::parse(&value));
        let output_format = fields.optional("output_format", |value| string(value)?.parse());
        let model = fields.optional("model", |value| string(value)?.parse()).unwrap_or(default_model);
        let metadata = fields.optional("metadata", Metadata::parse);
        let poster = fields.nested("poster", Poster::parse);
        let deadline_hours = fields.optional("deadline_hours", |value| DeadlineHours::parse(&value));
        let webhook = fields.nested("webhook", Webhook::of_job);
        if let (Some(unwanted), Some(_)) = (&negative_prompt, &poster) {
            let chars = unwanted.as_str().chars().count();
            let most = Prompt::MAX_CHARS - NO_LETTERING.len() - SEPARATOR.len();
            if chars > most {
                let detail = format!("must have at most {most} characters with a poster, but has {chars}");
                fields.fault("negative_prompt", detail);
            }
        }
        if output_format == Some(OutputFormat::Webp) && !model.paints_webp() {
            fields.fault("output_format", format!("must be png or jpeg with the model {model}"));
        }
        fields.finish(prompt.map(|prompt| Self {
            prompt,
            negative_prompt,
            aspect_ratio: aspect_ratio.unwrap_or_default(),
            seed,
            output_format: output_format.unwrap_or_default(),
            model,
            metadata: metadata.unwrap_or_default(),
            poster,
            deadline_hours,
            webhook,
        }))
    }

    /// What the model should keep out of the picture: the caller's negative prompt, and any text if lettering follows.
    pub fn unwanted(&self) -> Option<Cow<'_, str>> {
        match (&self.negative_prompt, &self.poster) {
            (Some(unwanted), Some(_)) => Some(format!("{}{SEPARATOR}{NO_LETTERING}", unwanted.as_str()).into()),
            (Some(unwanted), None) => Some(unwanted.as_str().into()),
            (None, Some(_)) => Some(NO_LETTERING.into()),
            (None, None) => None,
        }
    }
}

const SEPARATOR: &str = ", ";

/// A text for the model: trimmed, with at least one visible character, and safe to show. Stored values are not checked
/// again, so that stricter rules do not make records unreadable. Clones share the text, as a batch keeps several.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt(Arc<str>);

impl Prompt {
    /// The model's limit, in Unicode scalar values.
    pub const MAX_CHARS: usize = 10_000;

    /// Normalizes line breaks to LF, trims and checks a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = with_line_feeds(text);
        let text = text.trim();
        check_visible(text)?;
        let chars = text.chars().count();
        if chars > Self::MAX_CHARS {
            return Err(format!("must have at most {} characters, but has {chars}", Self::MAX_CHARS));
        }
        match text.chars().find(|&c| is_forbidden(c)) {
            Some(c) => Err(format!("must not contain the character U+{:04X}", c as u32)),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Prompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Shows only the length, so that no log can contain a prompt.
impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prompt({} bytes)", self.0.len())
    }
}

spelled! {
    /// The shape of the picture, width to height.
    #[derive(Default)]
    AspectRatio, "an aspect ratio",
    /// A one-sheet, the usual shape of a movie poster.
    #[default]
    OneSheet = "2:3",
    Square = "1:1",
    Wide = "16:9",
    UltraWide = "21:9",
    Landscape = "3:2",
    Tall = "4:5",
    Broad = "5:4",
    Phone = "9:16",
    UltraTall = "9:21",
}

spelled! {
    /// The file format of the picture.
    #[derive(Default)]
    OutputFormat, "a format",
    #[default]
    Png = "png",
    Jpeg = "jpeg",
    /// WebP, which only Stable Diffusion 3.5 supports.
    Webp = "webp",
}

impl OutputFormat {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The format that a file's first bytes indicate. A model may ignore the requested one.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }
}

spelled! {
    /// A text-to-image model of Stability AI on Bedrock.
    Model, "a model",
    /// Stable Image Core: fast and cheap.
    Core = "stability.stable-image-core-v1:1",
    /// Stable Image Ultra: the best.
    Ultra = "stability.stable-image-ultra-v1:1",
    Sd35Large = "stability.sd3-5-large-v1:0",
}

impl Model {
    /// Whether the model supports WebP.
    pub const fn paints_webp(self) -> bool {
        matches!(self, Self::Sd35Large)
    }
}

/// A nonzero seed. (Zero would ask the model for a random one.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(u32);

impl Seed {
    /// The largest seed that every model accepts.
    pub const MAX: u32 = 4_294_967_294;

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    fn parse(value: &Value) -> Result<Self, String> {
        whole_number(value, Self::MAX).map(Self)
    }
}

/// A deadline, in hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeadlineHours(u32);

impl DeadlineHours {
    /// The longest deadline. SQS keeps a ticket for much longer.
    pub const MAX: u32 = 96;

    /// Parses a number of hours.
    pub fn parse(value: &Value) -> Result<Self, String> {
        whole_number(value, Self::MAX).map(Self)
    }

    /// The caller's deadline, or else the service's.
    pub fn or(hours: Option<Self>, deadline: Duration) -> Duration {
        hours.map_or(deadline, |Self(hours)| Duration::from_secs(u64::from(hours) * 3600))
    }
}

fn whole_number(value: &Value, most: u32) -> Result<u32, String> {
    let rule = || format!("must be a whole number from 1 to {most}");
    // JSON does not distinguish 7 from 7.0.
    let whole = |number: f64| (number.fract() == 0.0 && number >= 0.0).then_some(number as u64);
    let number = value.as_u64().or_else(|| value.as_f64().and_then(whole)).ok_or_else(rule)?;
    u32::try_from(number).ok().filter(|number| (1..=most).contains(number)).ok_or_else(rule)
}

/// The caller's notes on a job. Clones share them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(Arc<BTreeMap<String, String>>);

impl Metadata {
    /// The maximum number of pairs.
    pub const MAX_PAIRS: usize = 16;
    /// The maximum length of a key, in Unicode scalar values.
    pub const MAX_KEY_CHARS: usize = 64;
    /// The maximum length of a value, in Unicode scalar values.
    pub const MAX_VALUE_CHARS: usize = 512;

    fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(map) = value else {
            return Err(format!("must be an object of strings, not {}", kind(&value)));
        };
        if map.len() > Self::MAX_PAIRS {
            return Err(format!("must have at most {} pairs, but has {}", Self::MAX_PAIRS, map.len()));
        }
        let mut pairs = BTreeMap::new();
        for (key, value) in map {
            let Value::String(value) = value else {
                return Err(format!("must be an object of strings, but {:?} holds {}", cut(&key), kind(&value)));
            };
            let value = with_line_feeds(&value);
            if !(1..=Self::MAX_KEY_CHARS).contains(&key.chars().count()) {
                return Err(format!("must have keys of 1 to {} characters", Self::MAX_KEY_CHARS));
            }
            if value.chars().count() > Self::MAX_VALUE_CHARS {
                return Err(format!("must have values of at most {} characters", Self::MAX_VALUE_CHARS));
            }
            if key.chars().chain(value.chars()).any(is_forbidden) {
                return Err(format!("must not contain control characters, but the pair {:?} does", cut(&key)));
            }
            pairs.insert(key, value.into_owned());
        }
        Ok(Self(pairs.into()))
    }

    /// The pairs, in the order of their keys.
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|pairs| Self(Arc::new(pairs)))
    }
}

/// Shows only the number of pairs, so that no log can contain them.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} pairs)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{BatchName, CustomId};
    use serde_json::json;

    fn parse(value: Value) -> Result<Order, Vec<(String, String)>> {
        Order::parse(value, "", Model::Core)
            .map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.detail)).collect())
    }

    fn fault_of(value: Value) -> String {
        let errors = parse(value.clone()).expect_err("it breaks a rule");
        assert_eq!(errors.len(), 1, "{value} has one fault: {errors:?}");
        errors[0].0.clone()
    }

    #[test]
    fn defaults_make_a_one_sheet() {
        let order = parse(json!({"prompt": "  A heist on the moon \n"})).expect("a good order");
        assert_eq!(order.prompt.as_str(), "A heist on the moon");
        assert_eq!(order.aspect_ratio.as_str(), "2:3");
        assert_eq!(order.output_format, OutputFormat::Png);
        assert_eq!((order.model, order.seed), (Model::Core, None));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let errors = parse(json!({"prompt": "", "aspect_ratio": "7:5", "seed": -1, "stauts": 1, "a/b": 2}))
            .expect_err("five faults");
        let pointers: Vec<_> = errors.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/prompt", "/aspect_ratio", "/seed", "/a~1b", "/stauts"]);
    }

    #[test]
    fn lines_end_in_lf_however_they_ended() {
        for text in ["a\nb\n\nc", "a\r\nb\r\n\r\nc", "a\rb\r\rc", "\r\na\nb\r\n\nc\r"] {
            assert_eq!(
                Prompt::parse(text).map(|prompt| prompt.as_str().to_owned()),
                Ok("a\nb\n\nc".to_owned()),
                "{text:?}"
            );
            let order = json!({ "prompt": "x", "negative_prompt": text, "metadata": { "a": text.trim() } });
            let order = Order::parse(order, "", Model::Core).expect("an order");
            assert_eq!(order.negative_prompt.map(|prompt| prompt.as_str().to_owned()).as_deref(), Some("a\nb\n\nc"));
            assert_eq!(order.metadata.pairs()["a"], "a\nb\n\nc", "{text:?}");
        }
        let half = Prompt::MAX_CHARS / 2;
        assert!(Prompt::parse(&"a\r\n".repeat(half)).is_ok(), "an end of a line is one character");
        assert!(Prompt::parse(&("a\r\n".repeat(half) + "ab")).is_err());
        let value = |text: String| Metadata::parse(json!({ "a": text }));
        assert!(value("\r\n".repeat(Metadata::MAX_VALUE_CHARS)).is_ok());
        assert!(value("\r\n".repeat(Metadata::MAX_VALUE_CHARS) + "a").is_err());
    }

    #[test]
    fn prompts_that_break_a_rule_are_refused() {
        for prompt in [json!(null), json!(7), json!(["a"]), json!({}), json!(""), json!(" \n\u{200b}\u{feff}")] {
            assert_eq!(fault_of(json!({ "prompt": prompt })), "/prompt");
        }
        for text in ["a\0b", "a\u{1b}[0m", "a\u{ffff}", "a\u{202e}b", "a\u{e0041}"] {
            assert_eq!(fault_of(json!({ "prompt": text })), "/prompt", "{text:?}");
        }
        assert_eq!(fault_of(json!({})), "/prompt");
        assert_eq!(fault_of(json!([])), "");
    }

    #[test]
    fn a_text_needs_something_to_see() {
        let invisible = [
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{17b5}',
            '\u{180b}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2028}',
            '\u{2060}',
            '\u{2065}',
            '\u{206a}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{fff9}',
            '\u{1bca0}',
            '\u{1d173}',
            '\u{e0100}',
            '\u{e0fff}',
        ];
        for c in invisible {
            for text in [c.to_string(), format!("{c}{c}"), format!(" {c}\n\u{3164} ")] {
                assert_eq!(fault_of(json!({ "prompt": text })), "/prompt", "{text:?}");
                assert_eq!(fault_of(json!({ "prompt": "x", "negative_prompt": text })), "/negative_prompt", "{text:?}");
                for told in [CustomId::try_from(text.clone()).err(), BatchName::try_from(text.clone()).err()] {
                    assert!(told.is_some(), "{text:?}");
                }
            }
            assert!(parse(json!({ "prompt": format!("{c}x{c}") })).is_ok(), "beside a letter {c:?} does no harm");
        }
        for text in [".", "七", "ف", "ไ", "🎬", "\u{301}", "\u{2801}", "👩\u{200d}🚀", "\u{e000}"] {
            assert!(parse(json!({ "prompt": text })).is_ok(), "{text}");
            assert!(CustomId::try_from(text.to_owned()).is_ok(), "{text}");
        }
        assert!(CustomId::try_from(" a b ".to_owned()).is_ok());
    }

    #[test]
    fn the_limit_counts_characters_not_bytes() {
        let longest = "\u{1f3ac}".repeat(Prompt::MAX_CHARS);
        assert!(parse(json!({ "prompt": longest })).is_ok());
        assert_eq!(fault_of(json!({ "prompt": longest + "." })), "/prompt");
    }

    #[test]
    fn seeds_are_whole_numbers_that_every_model_takes() {
        assert_eq!(parse(json!({ "prompt": "x", "seed": 7.0 })), parse(json!({ "prompt": "x", "seed": 7 })));
        for seed in [json!(-1), json!(0), json!(1.5), json!(4_294_967_295_u32), json!(1e300), json!("7")] {
            assert_eq!(fault_of(json!({ "prompt": "x", "seed": seed })), "/seed");
        }
        assert!(parse(json!({ "prompt": "x", "seed": Seed::MAX })).is_ok());
    }

    #[test]
    fn webp_needs_a_model_that_paints_it() {
        assert_eq!(fault_of(json!({ "prompt": "x", "output_format": "webp" })), "/output_format");
        let order = json!({ "prompt": "x", "output_format": "webp", "model": "stability.sd3-5-large-v1:0" });
        assert!(parse(order).is_ok());
    }

    #[test]
    fn metadata_is_bounded() {
        let pairs = |n: usize| (0..n).map(|i| (i.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>();
        assert!(parse(json!({ "prompt": "x", "metadata": pairs(16) })).is_ok());
        for metadata in [
            json!(pairs(17)),
            json!({ "": "v" }),
            json!({ "k".repeat(65): "v" }),
            json!({ "k": "v".repeat(513) }),
            json!({ "k": 1 }),
            json!([]),
        ] {
            assert_eq!(fault_of(json!({ "prompt": "x", "metadata": metadata })), "/metadata");
        }
    }

    #[test]
    fn text_is_compared_by_its_code_points() {
        let order = |value| parse(value).expect("a good order");
        let plain = order(json!({ "prompt": "x" }));
        assert_eq!(plain, order(json!({ "prompt": " x ", "aspect_ratio": "2:3", "seed": null })));
        assert_ne!(order(json!({ "prompt": "caf\u{e9}" })), order(json!({ "prompt": "cafe\u{301}" })));
    }

    #[test]
    fn logs_cannot_hold_a_prompt() {
        let order = parse(json!({ "prompt": "secret", "metadata": { "k": "hidden" } })).expect("a good order");
        let shown = format!("{order:?}");
        assert!(!shown.contains("secret") && !shown.contains("hidden"), "{shown}");
    }
}
