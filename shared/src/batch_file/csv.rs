use csv_core::{ReadFieldResult, Reader};
use serde_json::{Map, Value, json};

use super::{Found, MAX_LINE_BYTES, NO_HEADER, NOT_UTF_8};
use crate::batch::Entry;
use crate::fault::{Faults, FieldError};
use crate::order::Model;
use crate::text::cut;

/// The number of columns that a file may name.
pub const MAX_COLUMNS: usize = 100;

pub(super) struct Row {
    csv: Reader,
    /// The cells without their quotation marks, one after the other, and then unused bytes.
    text: Vec<u8>,
    used: usize,
    ends: Vec<usize>,
    /// The byte of the row at which the current cell begins.
    cell: usize,
}

impl Row {
    pub(super) fn new() -> Self {
        let mut csv = Reader::new();
        // Only the beginning of a file has a byte order mark, which the reader skips unless it has read something.
        csv.read_field(b"\n", &mut [0; 8]);
        Self { csv, text: Vec::new(), used: 0, ends: Vec::new(), cell: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.ends.clear();
        self.cell = 0;
    }

    /// Continues in the row, of which `seen` bytes were read and `bytes` follow. `is_last`: the file ends there.
    pub(super) fn find(&mut self, seen: usize, bytes: &[u8], is_last: bool) -> Found {
        // No cell is longer than its source.
        let room = self.used + bytes.len() + 1;
        if self.text.len() < room {
            self.text.resize(room, 0);
        }
        let mut read = 0;
        while read < bytes.len() {
            let (result, bytes_in, bytes_out) = self.csv.read_field(&bytes[read..], &mut self.text[self.used..]);
            read += bytes_in;
            self.used += bytes_out;
            if let ReadFieldResult::Field { record_end } = result {
                self.ends.push(self.used);
                self.cell = seen + read;
                if record_end {
                    return Found::End(seen + read - 1);
                }
            }
        }
        let length = seen + read;
        if length > MAX_LINE_BYTES {
            return Found::TooLong;
        }
        if !is_last {
            return Found::More;
        }
        self.end().map_or(Found::End(length), Found::OpenQuote)
    }

    /// Ends the row. Returns where the current cell begins if it is quoted, so that a line end does not end it.
    pub(super) fn end(&mut self) -> Option<usize> {
        match self.csv.read_field(b"\n", &mut [0; 8]).0 {
            ReadFieldResult::Field { .. } => {
                self.ends.push(self.used);
                None
            }
            _ => Some(self.cell),
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.text.len()
    }

    fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells().all(|cell| cell.trim_ascii().is_empty())
    }

    pub(super) fn header(&self) -> Result<Vec<String>, Faults> {
        let fault = |detail: String| vec![FieldError::new("", detail)];
        if self.ends.len() > MAX_COLUMNS {
            return Err(fault(format!("must name at most {MAX_COLUMNS} columns, but names {}", self.ends.len())));
        }
        let names = self.cells().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>();
        let columns: Vec<_> = names.map_err(|_| fault(NOT_UTF_8.to_owned()))?.into_iter().map(column).collect();
        if !columns.iter().any(|column| column == "prompt") {
            return Err(fault(NO_HEADER.to_owned()));
        }
        let mut errors = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            // A file with a comma at the end of each line has a column without a name.
            if column.is_empty() {
                continue;
            }
            let object = column.split_once('.').map(|(object, _)| object);
            let before = &columns[..index];
            if before.contains(column) {
                errors.push(FieldError::new("", format!("must name the column {:?} once", cut(column))));
            } else if let Some(object) = object.filter(|object| columns.iter().any(|column| column == object)) {
                let detail = format!("must not name both the columns {object:?} and {:?}", cut(column));
                errors.push(FieldError::new("", detail));
            } else {
                errors.extend(faults_of_column(column));
            }
        }
        if errors.is_empty() { Ok(columns) } else { Err(errors) }
    }

    pub(super) fn job(&self, columns: &[String]) -> Result<Value, String> {
        if self.ends.len() != columns.len() {
            let (all, named) = (self.ends.len(), columns.len());
            return Err(format!("must have {named} cells, one for each column, but has {all}"));
        }
        let mut job = Map::new();
        for (column, cell) in columns.iter().zip(self.cells()) {
            let cell = std::str::from_utf8(cell).map_err(|_| NOT_UTF_8.to_owned())?;
            if cell.trim().is_empty() {
                continue;
            }
            if column.is_empty() {
                return Err("must have nothing in a column without a name".to_owned());
            }
            // The seed is the only number. Everything else is text.
            let number = (column == "seed").then(|| cell.trim().parse::<u64>().ok()).flatten();
            set(&mut job, column, number.map_or_else(|| cell.into(), Value::from));
        }
        Ok(job.into())
    }
}

/// The field of a column: in lower case except for the caller's keys in `metadata`.
fn column(name: &str) -> String {
    let name = name.trim();
    if let Some((object, key)) = name.split_once('.')
        && object.eq_ignore_ascii_case("metadata")
    {
        return format!("metadata.{key}");
    }
    match name.to_lowercase().as_str() {
        name @ ("title" | "tagline") => format!("poster.{name}"),
        name => name.to_owned(),
    }
}

fn set(job: &mut Map<String, Value>, column: &str, value: Value) {
    let (fields, name) = match column.split_once('.') {
        None => (job, column),
        Some((object, name)) => match job.entry(object).or_insert_with(|| json!({})) {
            Value::Object(fields) => (fields, name),
            _ => unreachable!("the header does not name both an object and its fields"),
        },
    };
    fields.insert(name.to_owned(), value);
}

fn faults_of_column(column: &str) -> Faults {
    // A field that is null is not given, so a fault means that there is no such field.
    let mut job = Map::new();
    set(&mut job, column, if column.starts_with("metadata.") { "x".into() } else { Value::Null });
    // Without the required fields there would be other faults.
    if let Some(Value::Object(poster)) = job.get_mut("poster") {
        poster.insert("title".to_owned(), "x".into());
    }
    job.insert("prompt".to_owned(), "x".into());
    Entry::parse(job.into(), "", &Map::new(), Model::Core).err().unwrap_or_default()
}
