//! STUB, replaced by the reader.
use crate::spelled::spelled;
use serde::{Deserialize, Serialize};
spelled! {
    /// The format of a batch's file.
    Format, "a format of an input file",
    /// One JSON object per line.
    Ndjson = "ndjson",
    /// Comma-separated values.
    Csv = "csv",
    /// One prompt per line.
    Text = "txt",
}
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// x
    pub offset: u64,
    /// x
    pub lines: u64,
    /// x
    pub header: Option<Vec<String>>,
}
/// x
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// x
    pub line: u64,
    /// x
    pub pointer: String,
    /// x
    pub detail: String,
}
