//! What is wrong with a field of a request.

use serde::{Deserialize, Serialize};

/// How many faults a problem names.
pub const MAX_FAULTS: usize = 100;

/// One fault of a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where in the body, as a JSON pointer (RFC 6901); empty for the body as a whole. A name of more than a hundred
    /// characters is cut.
    pub pointer: String,
    /// The rule that was broken, as the rest of a sentence that begins with the field's name.
    pub detail: String,
    /// What kind of fault it is. Callers are told by the problem's status.
    #[serde(skip)]
    pub kind: FaultKind,
}

/// Kinds of faults that are answered differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultKind {
    /// A rule is broken.
    #[default]
    Rule,
    /// A text is good, but for a character that the fonts do not have.
    Character,
}

impl FieldError {
    /// The fault `fault` at `pointer`.
    pub fn new(pointer: &str, fault: impl Into<Fault>) -> Self {
        let Fault { detail, kind } = fault.into();
        Self { pointer: pointer.to_owned(), detail, kind }
    }
}

/// What is wrong with a value, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// As the rest of a sentence that begins with the field's name.
    pub detail: String,
    /// What kind of fault it is.
    pub kind: FaultKind,
}

impl From<String> for Fault {
    fn from(detail: String) -> Self {
        Self { detail, kind: FaultKind::Rule }
    }
}
