//! Strict JSON parsing that collects all faults.

use std::cell::Cell;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::fault::{Fault, Faults, FieldError, MAX_FAULTS};
use crate::text::cut;

/// Bounds the memory. A batch of a thousand jobs with every field and sixteen credits each has 79,000 values.
pub const MAX_VALUES: usize = 100_000;

/// Why a document was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, or an object repeats a key. The text says where.
    #[error("{0}")]
    NotJson(String),
    /// It has too many values.
    #[error("it has more than {MAX_VALUES} values")]
    TooManyValues,
}

/// Parses JSON in which no object repeats a key: RFC 8259 does not define what a repeated key means.
pub fn parse(bytes: &[u8]) -> Result<Value, Unreadable> {
    let left = Cell::new(MAX_VALUES + 1);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Values(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| match left.get() {
        0 => Unreadable::TooManyValues,
        _ => Unreadable::NotJson(error.to_string()),
    })
}

/// The length of a text inside a JSON string, in bytes. API Gateway passes bodies in JSON strings in both directions,
/// so this counts towards Lambda's limits.
pub fn escaped_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

/// The length of a value that is serialized inside a JSON string, in bytes.
pub fn escaped_len_of(value: &impl Serialize) -> usize {
    escaped_len(&serde_json::to_vec(value).expect("what the API shows is always JSON"))
}

/// A JSON value in which no object repeats a key, for reading a document in pieces.
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Values(&Cell::new(MAX_VALUES + 1)).deserialize(deserializer).map(Self)
    }
}

/// Counts down how many more values the document may have.
#[derive(Clone, Copy)]
struct Values<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() - 1);
        if self.0.get() == 0 {
            return Err(D::Error::custom(Unreadable::TooManyValues));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {:?} is repeated", cut(&key))));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// The fields of a JSON object. Each is taken out and parsed, and faults are collected.
pub(crate) struct Fields {
    pointer: String,
    map: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(crate) fn new(value: Value, pointer: &str) -> Result<Self, Faults> {
        let map = object(value).map_err(|detail| vec![FieldError::new(pointer, detail)])?;
        Ok(Self { pointer: pointer.to_owned(), map, errors: Vec::new() })
    }

    pub(crate) fn required<T, E: Into<Fault>>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, E>,
    ) -> Option<T> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.map.remove(name);
            self.fault(name, "is required".to_owned());
            return None;
        }
        self.optional(name, parse)
    }

    /// `null` is the same as no field.
    pub(crate) fn optional<T, E: Into<Fault>>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.map.remove(name).filter(|value| !value.is_null())?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fault(name, fault);
                None
            }
        }
    }

    /// Parses an optional field that is an object, given its JSON pointer.
    pub(crate) fn nested<T>(&mut self, name: &str, parse: impl FnOnce(Value, &str) -> Result<T, Faults>) -> Option<T> {
        let value = self.map.remove(name).filter(|value| !value.is_null())?;
        parse(value, &format!("{}/{name}", self.pointer)).map_err(|errors| self.errors.extend(errors)).ok()
    }

    pub(crate) fn fault(&mut self, name: &str, fault: impl Into<Fault>) {
        let name = cut(name).replace('~', "~0").replace('/', "~1");
        self.errors.push(FieldError::new(&format!("{}/{name}", self.pointer), fault));
    }

    /// Returns what was made of the fields if they have no fault. It is `None` only if a required one is missing.
    pub(crate) fn finish<T>(self, made: Option<T>) -> Result<T, Faults> {
        let faults = self.faults();
        made.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// The faults, up to a hundred, including one for each unknown field that is left.
    pub(crate) fn faults(mut self) -> Faults {
        let room = MAX_FAULTS.saturating_sub(self.errors.len());
        for (name, _) in std::mem::take(&mut self.map).into_iter().take(room) {
            self.fault(&name, "is not a field of this request".to_owned());
        }
        self.errors
    }
}

pub(crate) fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(format!("must be an object, not {}", kind(&other))),
    }
}

pub(crate) fn string(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_refused_at_any_depth() {
        assert!(parse(br#"{"a":1,"b":{"c":1}}"#).is_ok());
        for twice in [r#"{"a":1,"a":2}"#, r#"{"b":[{"c":1,"c":1}]}"#] {
            assert!(parse(twice.as_bytes()).is_err_and(|error| error.to_string().contains("repeated")), "{twice}");
        }
    }

    #[test]
    fn documents_of_too_many_values_are_refused_by_their_number() {
        let array = |values: usize| format!("[{}1]", "1,".repeat(values - 2));
        assert!(parse(array(MAX_VALUES).as_bytes()).is_ok());
        assert_eq!(parse(array(MAX_VALUES + 1).as_bytes()), Err(Unreadable::TooManyValues));
        let broken = array(MAX_VALUES).replace("1]", "1");
        assert!(matches!(parse(broken.as_bytes()), Err(Unreadable::NotJson(_))));
    }

    #[test]
    fn the_length_within_a_string_is_the_one_that_it_is_written_with() {
        let text: String = ('\0'..='\u{2ff}').chain("影🎬\u{2028}".chars()).collect();
        assert_eq!(escaped_len(text.as_bytes()) + 2, serde_json::to_string(&text).expect("a string").len());
    }

    #[test]
    fn hostile_documents_are_refused_without_a_panic() {
        let deep = "[".repeat(10_000);
        for text in ["", "{", "\u{feff}{}", r#"{"a":"\ud800"}"#, r#"{"a":1e400}"#, &deep] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.20}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }
}
