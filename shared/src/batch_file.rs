//! Reads the file of a batch, line by line, in bounded memory: takes pieces of any size, and does no I/O.

mod csv;

use std::ops::ControlFlow;

use memchr::{memchr2, memchr2_iter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::csv::MAX_COLUMNS;
use self::csv::Row;
use crate::batch::Entry;
use crate::fault::FieldError;
use crate::json::{self, Unreadable};
use crate::order::Model;
use crate::spelled::spelled;

/// The maximum number of lines in a file, including empty ones and the header of a CSV file.
pub const MAX_LINES: u64 = 1_000_000;

/// The maximum length of a line without its end, in bytes. A CSV row with line breaks in its cells counts as one line.
pub const MAX_LINE_BYTES: usize = 1_000_000;

spelled! {
    /// The format of an input file: UTF-8 with or without a byte order mark; lines end in LF, CRLF or CR; empty ones
    /// are skipped.
    Format, "a format of an input file",
    /// A job of `POST /jobs` on each line. The fields `title` and `tagline`, or `poster.title` and `poster.tagline`,
    /// may replace those in `poster`.
    Ndjson = "ndjson",
    /// RFC 4180. The first row names the columns in upper or lower case: the fields of a job, such as `prompt`, `seed`
    /// and `metadata.campaign`. An empty cell is a field that is not given.
    Csv = "csv",
    /// A prompt on each line.
    Text = "txt",
}

/// A place between two lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// How many bytes come before it.
    pub offset: u64,
    /// How many line ends come before it.
    pub lines: u64,
}

/// A place in a file at which reading can resume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How many bytes were read.
    pub offset: u64,
    /// How many lines were read, including empty ones and the header of a CSV file.
    pub lines: u64,
    /// The columns of a CSV file, once its header was read. At most a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Vec<String>>,
}

/// A line of a file that is not empty.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// The number of the line, from 1. A CSV row has the number of the line on which it begins.
    pub number: u64,
    /// The place after it. Before it, if it makes the rest of the file unreadable.
    pub end: Place,
    /// The job, an object as in `POST /jobs` before defaults, or at least one fault.
    pub job: Result<Value, Vec<LineFault>>,
}

/// A fault in a line of a file. As JSON, it is a line of the list of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// The number of the line, from 1.
    pub line: u64,
    /// A JSON pointer (RFC 6901) to the field of the job; empty for the whole line.
    pub pointer: String,
    /// The violated rule, to be read after the field's name.
    pub detail: String,
}

impl LineFault {
    /// A fault of the field that `error` names.
    pub fn new(line: u64, error: FieldError) -> Self {
        Self { line, pointer: error.pointer, detail: error.detail }
    }

    fn of_line(line: u64, detail: impl Into<String>) -> Self {
        Self { line, pointer: String::new(), detail: detail.into() }
    }
}

impl Line {
    /// Checks the job by the rules of `POST /jobs`. `defaults` supply the fields that it leaves out.
    pub fn order(self, defaults: &Map<String, Value>, model: Model) -> Result<Entry, Vec<LineFault>> {
        Entry::parse(self.job?, "", defaults, model)
            .map_err(|errors| errors.into_iter().map(|error| LineFault::new(self.number, error)).collect())
    }
}

/// Reads a file that is pushed into it in pieces.
///
/// ```
/// use shared::batch_file::{Format, Reader};
///
/// let mut reader = Reader::new(Format::Text);
/// reader.push(b"A heist on the moon\nA heist in Ven");
/// assert_eq!(reader.next_line().unwrap().job.unwrap()["prompt"], "A heist on the moon");
/// assert!(reader.next_line().is_none());
/// reader.push(b"ice");
/// reader.finish();
/// assert_eq!(reader.next_line().unwrap().number, 2);
/// ```
pub struct Reader {
    format: Format,
    state: State,
    /// Without the bytes before an earlier `start`.
    buffer: Vec<u8>,
    start: usize,
    /// How many bytes of the current line are known not to end it.
    seen: usize,
    place: Place,
    finished: bool,
    /// The place after the last line that was returned, or after the header.
    done: Place,
    header: Option<Vec<String>>,
    row: Row,
}

#[derive(Clone, Copy)]
enum State {
    Beginning,
    Reading,
    /// Within the line of this number, which is too long.
    Skipping(u64),
    Unreadable,
}

impl Reader {
    /// Reads a file from its beginning.
    pub fn new(format: Format) -> Self {
        Self::resume(format, Position::default())
    }

    /// Reads the rest of a file. The first byte to push is the one at `position.offset`.
    pub fn resume(format: Format, position: Position) -> Self {
        let Position { offset, lines, header } = position;
        let place = Place { offset, lines };
        Self {
            format,
            state: if offset == 0 { State::Beginning } else { State::Reading },
            buffer: Vec::new(),
            start: 0,
            seen: 0,
            place,
            finished: false,
            done: place,
            header,
            row: Row::new(),
        }
    }

    /// Adds bytes of the file. To bound the memory, read all complete lines before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Unreadable) {
            return;
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Ends the file. What was pushed after the last line end is the last line.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The place after the last line that was returned.
    pub fn position(&self) -> Position {
        Position { offset: self.done.offset, lines: self.done.lines, header: self.header.clone() }
    }

    /// Whether the last line made the rest of the file unreadable. No line follows; the position stays before this one.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.state, State::Unreadable)
    }

    /// The next line that is not empty. `None` if it is not complete or the file has ended.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let step = match self.state {
                State::Beginning => self.begin(),
                State::Reading => self.read(),
                State::Skipping(number) => self.skip(number),
                State::Unreadable => return None,
            };
            if let ControlFlow::Break(line) = step {
                return line;
            }
        }
    }

    fn begin(&mut self) -> ControlFlow<Option<Line>> {
        if self.buffer.len() < LONGEST_SIGNATURE && !self.finished {
            return ControlFlow::Break(None);
        }
        let signature = SIGNATURES.iter().find(|(bytes, _)| self.buffer.starts_with(bytes)).map(|(_, detail)| *detail);
        // Recognizes files without a byte order mark. A single NUL is a fault of its line only.
        let is_utf_16 = matches!(self.buffer[..], [0, _, 0, _, ..] | [_, 0, _, 0, ..]);
        if let Some(detail) = signature.or(is_utf_16.then_some(UTF_16)) {
            return self.stop(1, [LineFault::of_line(1, detail)]);
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len(), 0);
        }
        self.state = State::Reading;
        ControlFlow::Continue(())
    }

    fn read(&mut self) -> ControlFlow<Option<Line>> {
        let number = self.place.lines + 1;
        let length = match self.find() {
            Found::More => return ControlFlow::Break(None),
            Found::End(length) => length,
            Found::TooLong => return self.start_skipping(number),
            Found::OpenQuote(cell) => {
                let line = number + line_ends(&self.buffer[self.start..self.start + cell]);
                return self.stop(number, [LineFault::of_line(line, OPEN_QUOTE)]);
            }
        };
        if number > MAX_LINES {
            return self.stop(number, [LineFault::of_line(number, TOO_MANY)]);
        }
        let content = self.content(number, length);
        let (line, rest) = self.buffer[self.start..].split_at(length);
        self.advance(length + end_of_line(rest), 1 + line_ends(line));
        match content {
            Content::Empty => ControlFlow::Continue(()),
            Content::Header(header) => {
                self.header = Some(header);
                self.done = self.place;
                ControlFlow::Continue(())
            }
            Content::Job(job) => self.found(number, job),
            Content::Unreadable(faults) => self.stop(number, faults),
        }
    }

    fn start_skipping(&mut self, number: u64) -> ControlFlow<Option<Line>> {
        let bytes = &self.buffer[self.start..self.start + self.seen];
        let is_csv = self.format == Format::Csv;
        if self.is_first() {
            let other = other_format(self.format, &String::from_utf8_lossy(first_line(bytes)));
            if let Some(detail) = other.or(is_csv.then(|| NO_HEADER.to_owned())) {
                return self.stop(number, [LineFault::of_line(number, detail)]);
            }
        }
        if is_csv && let Some(cell) = self.row.end() {
            // The end of this row is unknown.
            let line = number + line_ends(&bytes[..cell]);
            return self.stop(number, [LineFault::of_line(line, LONG_QUOTE)]);
        }
        self.advance(self.seen, line_ends(bytes));
        self.state = State::Skipping(number);
        ControlFlow::Continue(())
    }

    fn skip(&mut self, number: u64) -> ControlFlow<Option<Line>> {
        let rest = &self.buffer[self.start..self.known()];
        match memchr2(b'\n', b'\r', rest).or(self.finished.then_some(rest.len())) {
            Some(length) => {
                self.advance(length + end_of_line(&rest[length..]), 1);
                self.state = State::Reading;
                self.found(number, Err(vec![LineFault::of_line(number, TOO_LONG)]))
            }
            None => {
                self.advance(rest.len(), 0);
                ControlFlow::Break(None)
            }
        }
    }

    /// The end of the bytes that can be judged. A CR at the end of `buffer` may be half of a CRLF.
    fn known(&self) -> usize {
        let end = self.buffer.len();
        if !self.finished && self.buffer[self.start..].ends_with(b"\r") { end - 1 } else { end }
    }

    fn find(&mut self) -> Found {
        let line = &self.buffer[self.start..self.known()];
        // Never further than the limit, so that the result does not depend on how the file is cut into pieces.
        let limit = line.len().min(MAX_LINE_BYTES + 1);
        let window = &line[self.seen..limit];
        let seen = std::mem::replace(&mut self.seen, limit);
        if self.format == Format::Csv && !matches!(line, [] | [b'\r' | b'\n', ..]) {
            return self.row.find(seen, window, self.finished);
        }
        match memchr2(b'\n', b'\r', window) {
            Some(length) => Found::End(seen + length),
            None if limit > MAX_LINE_BYTES => Found::TooLong,
            None if self.finished && limit > 0 => Found::End(limit),
            None => Found::More,
        }
    }

    fn is_first(&self) -> bool {
        self.done.offset == 0
    }

    fn content(&self, number: u64, length: usize) -> Content {
        let bytes = &self.buffer[self.start..self.start + length];
        let fault = |detail| vec![LineFault::of_line(number, detail)];
        if bytes.trim_ascii().is_empty() {
            return Content::Empty;
        }
        if self.is_first() {
            let first = String::from_utf8_lossy(first_line(bytes));
            if let Some(detail) = other_format(self.format, &first) {
                return Content::Unreadable(fault(detail));
            }
        }
        let job = match self.format {
            Format::Ndjson => object(bytes),
            Format::Text => match std::str::from_utf8(bytes).map(str::trim) {
                Ok("") => return Content::Empty,
                Ok(prompt) => Ok(json!({ "prompt": prompt })),
                Err(_) => Err(NOT_UTF_8.to_owned()),
            },
            Format::Csv if self.row.is_empty() => return Content::Empty,
            Format::Csv => match &self.header {
                Some(header) => self.row.job(header),
                None => {
                    return match self.row.header() {
                        Ok(header) => Content::Header(header),
                        Err(errors) => {
                            Content::Unreadable(errors.into_iter().map(|error| LineFault::new(number, error)).collect())
                        }
                    };
                }
            },
        };
        Content::Job(job.map_err(fault))
    }

    fn advance(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        self.seen = 0;
        self.place.offset += bytes as u64;
        self.place.lines += lines;
        self.row.clear();
    }

    fn found(&mut self, number: u64, job: Result<Value, Vec<LineFault>>) -> ControlFlow<Option<Line>> {
        self.done = self.place;
        ControlFlow::Break(Some(Line { number, end: self.done, job }))
    }

    fn stop(&mut self, number: u64, faults: impl Into<Vec<LineFault>>) -> ControlFlow<Option<Line>> {
        self.state = State::Unreadable;
        (self.buffer, self.start) = (Vec::new(), 0);
        ControlFlow::Break(Some(Line { number, end: self.done, job: Err(faults.into()) }))
    }
}

enum Found {
    End(usize),
    More,
    TooLong,
    /// The file ends inside a quoted cell that begins at this byte of the row.
    OpenQuote(usize),
}

enum Content {
    Empty,
    Header(Vec<String>),
    Job(Result<Value, Vec<LineFault>>),
    /// Faults that make the rest of the file unreadable.
    Unreadable(Vec<LineFault>),
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const TOO_MANY: &str = "is one too many: a file has at most 1,000,000 lines";
const TOO_LONG: &str = "must be at most 1,000,000 bytes long";
const OPEN_QUOTE: &str = "has a quotation mark that is never closed";
const LONG_QUOTE: &str = "must be at most 1,000,000 bytes long: is a quotation mark never closed?";
const UTF_16: &str = "is UTF-16: save the file as UTF-8";
const NOT_UTF_8: &str = "is not UTF-8: save the file as UTF-8";
const NO_HEADER: &str = "must name the columns, one of them prompt";

const SIGNATURES: [(&[u8], &str); 4] = [
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"PK\x03\x04", "is a ZIP file or a workbook: save it as a text file"),
    (b"\x1f\x8b", "is compressed with gzip: upload the file itself"),
];

const LONGEST_SIGNATURE: usize = 4;

fn end_of_line(bytes: &[u8]) -> usize {
    match bytes {
        [] => 0,
        [b'\r', b'\n', ..] => 2,
        [_, ..] => 1,
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr2_iter(b'\n', b'\r', bytes).filter(|&at| at == 0 || bytes[at - 1..=at] != *b"\r\n").count() as u64
}

fn first_line(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len())]
}

fn other_format(format: Format, line: &str) -> Option<String> {
    let line = line.trim();
    let separator = separator(line);
    let is_array = line.strip_prefix('[').is_some_and(|rest| {
        let rest = rest.trim_start();
        rest.is_empty() || rest.starts_with(['{', '[', '"'])
    });
    let detail = match (format, separator) {
        (Format::Ndjson, _) if is_array => {
            "looks like a JSON array: write each job on its own line, without brackets and commas"
        }
        (Format::Ndjson, _) if line == "{" => "looks like JSON that takes several lines: write each job on one line",
        (Format::Ndjson, Some(_)) if !line.starts_with('{') => "looks like the header of a CSV file, not like NDJSON",
        (Format::Text, Some(_)) => "looks like the header of a CSV file, not like a prompt",
        (Format::Text, None) if is_array || line.starts_with('{') => "looks like JSON, not like a prompt",
        (Format::Csv, None) if is_array || line.starts_with('{') => {
            "looks like JSON, not like the header of a CSV file"
        }
        (Format::Csv, Some(separator)) if separator != "commas" => {
            return Some(format!("has columns that are separated by {separator}: separate them by commas"));
        }
        _ => return None,
    };
    Some(detail.to_owned())
}

/// The separator of the columns on this line; `None` if no column is `prompt`.
fn separator(line: &str) -> Option<&'static str> {
    let is_prompt =
        |name: &str| name.trim_matches(|c: char| c == '"' || c.is_whitespace()).eq_ignore_ascii_case("prompt");
    let separators = [(',', "commas"), (';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];
    separators.iter().find(|(separator, _)| line.split(*separator).any(is_prompt)).map(|(_, name)| *name)
}

fn object(line: &[u8]) -> Result<Value, String> {
    let job = json::parse(line).map_err(|error| match error {
        // The JSON parser checks the encoding of strings, but reports it badly.
        _ if std::str::from_utf8(line).is_err() => NOT_UTF_8.to_owned(),
        Unreadable::NotJson(error) => format!("is not JSON: {}", error.replace(" at line 1 column ", " at column ")),
        error @ Unreadable::TooManyValues => error.to_string(),
    })?;
    let mut fields = json::object(job)?;
    move_lettering(&mut fields)?;
    Ok(Value::Object(fields))
}

fn move_lettering(job: &mut Map<String, Value>) -> Result<(), String> {
    for (name, dotted) in [("title", "poster.title"), ("tagline", "poster.tagline")] {
        for key in [name, dotted] {
            let Some(value) = job.remove(key) else { continue };
            let poster = job.entry("poster").or_insert_with(|| Value::Object(Map::new()));
            let Some(poster) = poster.as_object_mut() else {
                return Err(format!("has {key}, but poster is not an object"));
            };
            if poster.insert(name.to_owned(), value).is_some() {
                return Err(format!("has both {name} and {dotted}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
