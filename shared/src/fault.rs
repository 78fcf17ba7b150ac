//! What is wrong with a field of a request.

use serde::{Deserialize, Serialize};

/// The maximum number of faults in an answer.
pub const MAX_FAULTS: usize = 100;

/// A fault in a field of the request body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) to the field, with names cut to a hundred characters; empty for the whole body.
    pub pointer: String,
    /// The violated rule, to be read after the field's name.
    pub detail: String,
    #[serde(skip)]
    pub(crate) kind: FaultKind,
}

/// All faults of a request, in the order of its fields.
pub type Faults = Vec<FieldError>;

/// Kinds of faults that have different answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FaultKind {
    #[default]
    Rule,
    /// A text is valid, except for a character that the fonts do not have.
    Character,
}

impl FieldError {
    pub(crate) fn new(pointer: &str, fault: impl Into<Fault>) -> Self {
        let Fault { detail, kind } = fault.into();
        Self { pointer: pointer.to_owned(), detail, kind }
    }
}

/// What is wrong with a value, independent of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) detail: String,
    pub(crate) kind: FaultKind,
}

impl From<String> for Fault {
    fn from(detail: String) -> Self {
        Self { detail, kind: FaultKind::Rule }
    }
}
