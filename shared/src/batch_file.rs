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

/// x
#[derive(Debug)]
pub struct Line {
    /// x
    pub number: u64,
}
impl Line {
    /// x
    pub fn entry(
        &self,
        _d: &serde_json::Map<String, serde_json::Value>,
        _m: crate::order::Model,
    ) -> Result<crate::batch::Entry, Vec<LineFault>> {
        todo!()
    }
}
/// x
#[derive(Debug)]
pub struct Reader;
impl Reader {
    /// x
    pub fn resume(_f: Format, _p: Position) -> Self {
        Self
    }
    /// x
    pub fn push(&mut self, _b: &[u8]) {}
    /// x
    pub fn finish(&mut self) {}
    /// x
    pub fn next_line(&mut self) -> Option<Line> {
        None
    }
    /// x
    pub fn position(&self) -> Position {
        Position::default()
    }
}
