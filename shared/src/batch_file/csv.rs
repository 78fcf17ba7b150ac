//! The rows of CSV as RFC 4180 has them.

use csv_core::ReadRecordResult;
use serde_json::{Map, Value};

use super::NOT_UTF_8;

/// Finds the end of a row, which may contain line ends between quotation marks. It reads quotation marks as `csv_core`
/// does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Quotes {
    /// At the beginning of a field, where a quotation mark opens it.
    #[default]
    Begin,
    /// In a field that is not quoted, where quotation marks are text.
    Unquoted,
    /// In a quoted field.
    Open,
    /// After a quotation mark in a quoted field: its end, or the first of two that stand for one.
    Closed,
}

impl Quotes {
    /// The length of the rest of the row, with its line end; the error is how much was searched without finding it.
    pub(super) fn end_of_row(&mut self, bytes: &[u8], finished: bool) -> Result<usize, usize> {
        let mut place = 0;
        while let Some(&byte) = bytes.get(place) {
            *self = match (*self, byte) {
                (Self::Open, b'"') => Self::Closed,
                (Self::Open, _) => {
                    place += memchr::memchr(b'"', &bytes[place..]).unwrap_or(bytes.len() - place);
                    continue;
                }
                (Self::Begin | Self::Closed, b'"') => Self::Open,
                (_, b',') => Self::Begin,
                (_, b'\n') => return Ok(place + 1),
                (_, b'\r') => match bytes.get(place + 1) {
                    Some(b'\n') => return Ok(place + 2),
                    None if !finished => return Err(place),
                    _ => return Ok(place + 1),
                },
                _ => Self::Unquoted,
            };
            place += 1;
        }
        Err(place)
    }

    /// Whether a quoted field is not closed.
    pub(super) fn are_open(self) -> bool {
        matches!(self, Self::Open)
    }
}

/// The columns of a file.
#[derive(Debug)]
pub(super) struct Columns {
    names: Vec<String>,
    reader: Box<csv_core::Reader>,
}

impl Columns {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, reader: Box::new(csv_core::Reader::new()) }
    }

    /// Reads the columns from the first row, which names them in upper or lower case.
    pub(super) fn parse(row: &[u8]) -> Result<Self, String> {
        let mut columns = Self::new(Vec::new());
        for name in columns.fields(row) {
            columns.names.push(column(std::str::from_utf8(&name).map_err(|_| NOT_UTF_8)?));
        }
        let names = &columns.names;
        if !names.iter().any(|name| name == "prompt") {
            return Err(match separator(&names.join(",")) {
                Some(separator) => format!("has columns that are separated by {separator}; save the file with commas"),
                None => "must name the columns, one of them prompt".to_owned(),
            });
        }
        match names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
            Some((_, twice)) => Err(format!("has the column {twice} twice")),
            None => Ok(columns),
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The job of a row; `None` if all its fields are empty. A dot in a column's name leads into an object, as in
    /// `metadata.campaign`.
    pub(super) fn job(&mut self, row: &[u8]) -> Option<Result<Value, String>> {
        let fields = self.fields(row);
        let is_empty = fields.iter().all(|field| field.trim_ascii().is_empty());
        (!is_empty).then(|| self.job_of(&fields))
    }

    fn job_of(&self, fields: &[Vec<u8>]) -> Result<Value, String> {
        if fields.len() != self.names.len() {
            return Err(format!("has {} fields, but the first line names {}", fields.len(), self.names.len()));
        }
        let mut job = Map::new();
        for (name, field) in self.names.iter().zip(fields) {
            let field = std::str::from_utf8(field).map_err(|_| NOT_UTF_8)?;
            if field.trim().is_empty() {
                continue;
            }
            // The seed is the only number; everything else is text.
            let number = (name == "seed").then(|| field.trim().parse::<u64>().ok()).flatten();
            let value = number.map_or_else(|| Value::from(field), Value::from);
            let mut path: Vec<_> = name.split('.').collect();
            let last = path.pop().unwrap_or_default();
            let mut object = &mut job;
            for step in path {
                let inner = object.entry(step).or_insert_with(|| Value::Object(Map::new()));
                object = inner.as_object_mut().ok_or_else(|| format!("has both {step} and {name}"))?;
            }
            object.insert(last.to_owned(), value);
        }
        Ok(job.into())
    }

    /// The fields of a row.
    fn fields(&mut self, mut row: &[u8]) -> Vec<Vec<u8>> {
        self.reader.reset();
        let (mut text, mut ends) = (vec![0; row.len()], vec![0; row.len() + 1]);
        let (mut written, mut fields) = (0, 0);
        loop {
            let (result, read, wrote, found) = self.reader.read_record(row, &mut text[written..], &mut ends[fields..]);
            row = &row[read..];
            written += wrote;
            fields += found;
            // An empty input ends the row.
            if matches!(result, ReadRecordResult::Record | ReadRecordResult::End) {
                break;
            }
        }
        let begins = std::iter::once(&0).chain(&ends);
        begins.zip(&ends[..fields]).map(|(&begin, &end)| text[begin..end].to_vec()).collect()
    }
}

/// The name of a column, in lower case except for the caller's own keys in `metadata`.
fn column(name: &str) -> String {
    let name = name.trim();
    match name.split_at_checked("metadata.".len()) {
        Some((object, key)) if object.eq_ignore_ascii_case("metadata.") => format!("metadata.{key}"),
        _ => name.to_lowercase(),
    }
}

/// What separates the columns on this line. `None` if none of them is `prompt`.
pub(super) fn separator(line: &str) -> Option<&'static str> {
    let others = [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];
    let is_prompt =
        |name: &str| name.trim_matches(|c: char| c == '"' || c.is_whitespace()).eq_ignore_ascii_case("prompt");
    let names_prompt = line.split([',', ';', '\t', '|']).any(is_prompt);
    let other = others.iter().find(|(separator, _)| line.contains(*separator));
    names_prompt.then(|| other.map_or("commas", |(_, word)| *word))
}
