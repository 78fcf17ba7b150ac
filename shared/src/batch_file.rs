//! The reader of a batch's file: NDJSON, CSV, or a prompt on each line.
//!
//! It takes the file in pieces, cut anywhere, and keeps no more than a line of it. It can go on from any line, so that
//! the jobs of a large file are admitted in steps.

mod csv;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::batch::Entry;
use crate::json;
use crate::order::Model;
use crate::spelled::spelled;

use self::csv::{Columns, Quotes, separator};

/// The longest line, in bytes. The longest job that the API accepts has a third of it.
pub const MAX_LINE_BYTES: usize = 1_000_000;

/// The length of the longest line end, CRLF.
const LINE_END: usize = 2;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const NOT_UTF_8: &str = "is not in UTF-8; save the file as UTF-8";

spelled! {
    /// The format of a batch's file.
    Format, "a format of a file",
    /// A job on each line, as a JSON object with the fields of `POST /jobs`.
    Ndjson = "ndjson",
    /// Comma-separated values, whose first line names the columns.
    Csv = "csv",
    /// A prompt on each line.
    Text = "txt",
}

/// A place in a file, between two lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of bytes before it.
    pub offset: u64,
    /// The number of lines before it, including empty ones.
    pub lines: u64,
    /// The columns of a CSV file, once they are known.
    pub header: Option<Vec<String>>,
}

/// A fault of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// The number of the line, from one.
    pub line: u64,
    /// A JSON pointer to the field; empty for the whole line.
    pub pointer: String,
    /// The violated rule, to be read after the field's name.
    pub detail: String,
}

/// A line that is not empty.
#[derive(Debug)]
pub struct Line {
    /// The number of the line on which it begins, from one.
    pub number: u64,
    /// The job with the fields of `POST /jobs`, or what is wrong with the line.
    pub job: Result<Value, String>,
}

impl Line {
    /// The job, whose missing fields are taken from `defaults`, or all faults of the line.
    pub fn entry(self, defaults: &Map<String, Value>, model: Model) -> Result<Entry, Vec<LineFault>> {
        let line = self.number;
        let job = self.job.map_err(|detail| vec![LineFault { line, pointer: String::new(), detail }])?;
        Entry::parse(job, "", defaults, model).map_err(|faults| {
            let fault =
                |fault: crate::fault::FieldError| LineFault { line, pointer: fault.pointer, detail: fault.detail };
            faults.into_iter().map(fault).collect()
        })
    }
}

/// Reads a file line by line. Push the file's bytes, and take lines until there is none.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    position: Position,
    /// Bytes of the file, those from `begin` on not read.
    bytes: Vec<u8>,
    begin: usize,
    /// Where the search for the end of the line goes on.
    searched: usize,
    quotes: Quotes,
    columns: Option<Columns>,
    /// The bytes and line ends that were dropped of a line that is too long.
    dropped: Option<(u64, u64)>,
    /// No more bytes follow.
    finished: bool,
    /// Nothing more is read, because the file is not what it is said to be.
    stopped: bool,
}

impl Reader {
    /// Reads a file from its beginning.
    pub fn new(format: Format) -> Self {
        Self::resume(format, Position::default())
    }

    /// Goes on at an earlier [`Reader::position`]. The bytes to push are those from its offset on.
    pub fn resume(format: Format, position: Position) -> Self {
        Self {
            format,
            columns: position.header.clone().map(Columns::new),
            position,
            bytes: Vec::new(),
            begin: 0,
            searched: 0,
            quotes: Quotes::default(),
            dropped: None,
            finished: false,
            stopped: false,
        }
    }

    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Says that the file has no more bytes.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The position after the last line that was taken.
    pub fn position(&self) -> Position {
        self.position.clone()
    }

    /// The number of bytes before the position.
    pub fn offset(&self) -> u64 {
        self.position.offset
    }

    /// The next line that is not empty. `None` asks for more bytes, or is the end after [`Reader::finish`].
    pub fn next_line(&mut self) -> Option<Line> {
        while !self.stopped {
            if self.position.offset == 0 && self.dropped.is_none() && !self.skip_byte_order_mark()? {
                return Some(self.stop(1, "is in UTF-16; save the file as UTF-8"));
            }
            let Some(end) = self.end_of_line() else {
                if self.bytes.len() - self.begin > MAX_LINE_BYTES + LINE_END {
                    self.drop_line(self.bytes.len());
                }
                return None;
            };
            if self.dropped.is_some() || end - self.begin > MAX_LINE_BYTES + LINE_END {
                return Some(self.end_dropped(end));
            }
            let line = self.take(end);
            if line.is_some() {
                return line;
            }
        }
        None
    }

    /// Skips a byte order mark of UTF-8 at the beginning. `None` asks for more bytes; false means another encoding.
    fn skip_byte_order_mark(&mut self) -> Option<bool> {
        let beginning = &self.bytes[self.begin..];
        if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") {
            return Some(false);
        }
        if beginning.len() < BYTE_ORDER_MARK.len() && !self.finished {
            return None;
        }
        if beginning.starts_with(BYTE_ORDER_MARK) {
            self.begin += BYTE_ORDER_MARK.len();
            self.searched = self.searched.max(self.begin);
            self.position.offset += BYTE_ORDER_MARK.len() as u64;
        }
        Some(true)
    }

    /// The end of the next line, with its line end.
    fn end_of_line(&mut self) -> Option<usize> {
        let unsearched = &self.bytes[self.searched..];
        let end = match self.format {
            Format::Csv => self.quotes.end_of_row(unsearched, self.finished),
            Format::Ndjson | Format::Text => {
                memchr::memchr(b'\n', unsearched).map(|end| end + 1).ok_or(unsearched.len())
            }
        };
        match end {
            Ok(end) => {
                self.searched += end;
                Some(self.searched)
            }
            Err(searched) => {
                self.searched += searched;
                let rest = self.begin < self.bytes.len() || self.dropped.is_some();
                (self.finished && rest).then_some(self.bytes.len())
            }
        }
    }

    /// Forgets the bytes of a line that is too long.
    fn drop_line(&mut self, end: usize) {
        // A carriage return may be half of a line end.
        let end = if self.bytes[..end].ends_with(b"\r") { end - 1 } else { end };
        let (bytes, lines) = self.dropped.unwrap_or_default();
        let dropped = &self.bytes[self.begin..end];
        self.dropped = Some((bytes + dropped.len() as u64, lines + self.line_ends(dropped)));
        self.begin = end;
        self.searched = self.searched.max(end);
    }

    fn too_long(&self) -> String {
        let hint = if self.format == Format::Csv { "; is a quotation mark left open?" } else { "" };
        format!("is longer than {MAX_LINE_BYTES} bytes{hint}")
    }

    /// Ends a line of which bytes were dropped.
    fn end_dropped(&mut self, end: usize) -> Line {
        let number = self.position.lines + 1;
        let (bytes, lines) = self.dropped.take().unwrap_or_default();
        let rest = &self.bytes[self.begin..end];
        self.position.offset += bytes + rest.len() as u64;
        self.position.lines += lines + self.line_ends(rest) + u64::from(!is_ended(rest));
        self.begin = end;
        self.quotes = Quotes::default();
        Line { number, job: Err(self.too_long()) }
    }

    /// Takes the line that ends at `end`; `None` if it has no job: it is empty, or names the columns.
    fn take(&mut self, end: usize) -> Option<Line> {
        let number = self.position.lines + 1;
        let line = self.begin..end;
        let is_open = self.quotes.are_open();
        self.begin = end;
        self.quotes = Quotes::default();
        let is_first = self.position.lines == 0;
        let bytes = &self.bytes[line];
        let lines = self.line_ends(bytes) + u64::from(!is_ended(bytes));
        self.position.offset += bytes.len() as u64;
        self.position.lines += lines;
        let bytes = match bytes {
            [bytes @ .., b'\r', b'\n'] | [bytes @ .., b'\n'] => bytes,
            bytes => bytes,
        };
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF_8.to_owned());
        if let (true, Ok(text)) = (is_first, &text)
            && let Some(looks_like) = looks_like_another(self.format, text)
        {
            return Some(self.stop(number, &format!("looks like {looks_like}, but the format is {}", self.format)));
        }
        let job = match self.format {
            _ if bytes.len() > MAX_LINE_BYTES => Err(self.too_long()),
            _ if is_open => Err("has a quotation mark that is never closed".to_owned()),
            Format::Ndjson => json::parse(bytes).map_err(|error| format!("is not JSON: {error}")),
            Format::Text => text.and_then(|text| match json::parse(text.as_bytes()) {
                Ok(Value::Object(_)) => Err("is a JSON object; the format is txt, a prompt on each line".to_owned()),
                _ => Ok(serde_json::json!({ "prompt": text.trim() })),
            }),
            Format::Csv => match &mut self.columns {
                Some(columns) => columns.job(bytes)?,
                None => match Columns::parse(bytes) {
                    Ok(columns) => {
                        self.position.header = Some(columns.names().to_vec());
                        self.columns = Some(columns);
                        return None;
                    }
                    Err(rule) => return Some(self.stop(number, &rule)),
                },
            },
        };
        Some(Line { number, job: job.and_then(with_poster) })
    }

    /// The number of line ends: LF or CRLF, in CSV also CR, as some spreadsheets write it.
    fn line_ends(&self, bytes: &[u8]) -> u64 {
        let feeds = memchr::memchr_iter(b'\n', bytes).count();
        let alone = |place: &usize| bytes.get(place + 1) != Some(&b'\n');
        let returns = match self.format {
            Format::Csv => memchr::memchr_iter(b'\r', bytes).filter(alone).count(),
            Format::Ndjson | Format::Text => 0,
        };
        (feeds + returns) as u64
    }

    /// Reads nothing more, as every line would have the same fault.
    fn stop(&mut self, number: u64, rule: &str) -> Line {
        self.stopped = true;
        Line { number, job: Err(rule.to_owned()) }
    }
}

/// Whether the bytes end with a line end.
fn is_ended(line: &[u8]) -> bool {
    matches!(line, [.., b'\n' | b'\r'])
}

/// What a file looks like by its first line, if that is another format than it is said to have.
fn looks_like_another(format: Format, line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    match format {
        Format::Ndjson if line.starts_with('[') => Some("a JSON array"),
        Format::Ndjson if !line.starts_with('{') && separator(line).is_some() => Some("CSV"),
        Format::Csv if line.starts_with('{') => Some("NDJSON"),
        Format::Csv if line.starts_with('[') => Some("a JSON array"),
        Format::Text if line.starts_with('{') && json::parse(line.as_bytes()).is_ok() => Some("NDJSON"),
        Format::Text if line.trim_end() == "[" || line.starts_with("[{") => Some("a JSON array"),
        Format::Text if separator(line).is_some() => Some("CSV"),
        _ => None,
    }
}

/// Moves the fields `title` and `tagline`, or `poster.title` and `poster.tagline`, into `poster`, where `POST /jobs` has
/// them.
fn with_poster(mut job: Value) -> Result<Value, String> {
    let Some(fields) = job.as_object_mut() else { return Ok(job) };
    for name in ["title", "tagline"] {
        for key in [name.to_owned(), format!("poster.{name}")] {
            let Some(value) = fields.remove(&key) else { continue };
            let poster = fields.entry("poster").or_insert_with(|| Value::Object(Map::new()));
            let Some(poster) = poster.as_object_mut() else {
                return Err(format!("has {key}, but poster is not an object"));
            };
            if poster.insert(name.to_owned(), value).is_some() {
                return Err(format!("has both {name} and poster.{name}"));
            }
        }
    }
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// All lines of a file that is pushed in pieces of these sizes, over and over, and the position after each.
    fn read(mut reader: Reader, mut bytes: &[u8], sizes: &[usize]) -> Vec<(u64, Result<Value, String>, Position)> {
        let (mut lines, mut sizes) = (Vec::new(), sizes.iter().cycle());
        loop {
            while let Some(Line { number, job }) = reader.next_line() {
                lines.push((number, job, reader.position()));
            }
            if bytes.is_empty() {
                if reader.finished {
                    return lines;
                }
                reader.finish();
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(*sizes.next().expect("it is a cycle")));
            reader.push(piece);
            bytes = rest;
        }
    }

    fn lines(format: Format, text: impl AsRef<[u8]>) -> Vec<(u64, Result<Value, String>)> {
        let read = read(Reader::new(format), text.as_ref(), &[usize::MAX]);
        read.into_iter().map(|(number, job, _)| (number, job)).collect()
    }

    fn prompts(format: Format, text: &str) -> Vec<(u64, String)> {
        let prompt = |job: Value| job["prompt"].as_str().expect("a prompt").to_owned();
        lines(format, text).into_iter().map(|(number, job)| (number, prompt(job.expect("a job")))).collect()
    }

    /// The number and the fault of the only line.
    fn fault(format: Format, text: impl AsRef<[u8]>) -> (u64, String) {
        let lines = lines(format, text);
        match &lines[..] {
            [(number, Err(rule))] => (*number, rule.clone()),
            other => panic!("not one fault: {other:?}"),
        }
    }

    #[test]
    fn empty_lines_are_counted_and_have_no_job() {
        let found = |pairs: &[(u64, &str)]| pairs.iter().map(|(n, text)| (*n, (*text).to_owned())).collect::<Vec<_>>();
        let two = found(&[(1, "a"), (4, "b")]);
        assert_eq!(prompts(Format::Text, "a\n\n  \r\nb"), two);
        assert_eq!(prompts(Format::Ndjson, "\u{feff}{\"prompt\":\"a\"}\r\n\n \n{\"prompt\":\"b\"}\n"), two);
        let rows = found(&[(2, "a,\nb"), (6, "c\"")]);
        for end in ["\n", "\r\n"] {
            let text = format!("custom_id,Prompt{end}1,\"a,\nb\"{end}{end},{end}2,\"c\"\"\"{end}");
            assert_eq!(prompts(Format::Csv, &text), rows, "{end:?}");
        }
        assert_eq!(prompts(Format::Csv, "prompt\ra\rb"), found(&[(2, "a"), (3, "b")]));
        for format in [Format::Text, Format::Ndjson, Format::Csv] {
            assert_eq!(lines(format, ""), []);
            assert_eq!(lines(format, "\u{feff}"), []);
        }
    }

    #[test]
    fn columns_lead_into_objects() {
        let text = "PROMPT,seed,metadata.Campaign,title,Poster.tagline,custom_id\nA,7,x,Heist,Go.,1\nB,x,,,,\n";
        let jobs: Vec<_> = lines(Format::Csv, text).into_iter().map(|(_, job)| job.expect("a job")).collect();
        let poster = json!({ "title": "Heist", "tagline": "Go." });
        assert_eq!(
            jobs,
            [
                json!({ "prompt": "A", "seed": 7, "metadata": { "Campaign": "x" }, "poster": poster, "custom_id": "1" }),
                json!({ "prompt": "B", "seed": "x" }),
            ]
        );
    }

    #[test]
    fn a_file_in_another_format_is_one_fault_and_no_prompt() {
        for (format, text, rule) in [
            (Format::Ndjson, "[\n{}\n]", "a JSON array"),
            (Format::Ndjson, "prompt,seed\na,1\n", "CSV"),
            (Format::Ndjson, "prompt\na\n", "CSV"),
            (Format::Csv, "{\"prompt\":\"a\"}\n{}", "NDJSON"),
            (Format::Csv, "[{\"prompt\":\"a\"}]", "a JSON array"),
            (Format::Csv, "prompt;seed\na;1\n", "semicolons"),
            (Format::Csv, "prompt\tseed\na\t1\n", "tabs"),
            (Format::Csv, "a heist\nb\n", "must name the columns"),
            (Format::Csv, "prompt,seed,Seed\na,1,2\n", "seed twice"),
            (Format::Text, "{\"prompt\":\"a\"}\nb", "NDJSON"),
            (Format::Text, "[\n{}]", "a JSON array"),
            (Format::Text, "custom_id,prompt\n1,b", "CSV"),
            (Format::Text, "\u{feff}\"Prompt\"\nb", "CSV"),
        ] {
            let (number, found) = fault(format, text);
            assert!(number == 1 && found.contains(rule), "{format} {text:?}: {found}");
        }
        for utf_16 in [b"\xff\xfea\0", b"\xfe\xff\0a"] {
            assert!(fault(Format::Text, utf_16).1.contains("UTF-16"));
        }
    }

    #[test]
    fn a_faulty_line_is_named_and_the_next_one_is_read() {
        for (format, before, bad, rule) in [
            (Format::Text, "a", &b"caf\xe9"[..], "UTF-8"),
            (Format::Text, "a", b"{\"prompt\":\"a\"}", "JSON object"),
            (Format::Ndjson, "{}", b"{\"a\":\"\xe9\"}", "JSON"),
            (Format::Ndjson, "{}", b"{\"a\":1,\"a\":1}", "repeated"),
            (Format::Ndjson, "{}", b"prompt", "not JSON"),
            (Format::Csv, "prompt,seed", b"caf\xe9,1", "UTF-8"),
            (Format::Csv, "prompt,seed", b"a", "has 1 fields"),
            (Format::Csv, "prompt,seed", b"a,1,2", "has 3 fields"),
        ] {
            let good = if format == Format::Csv { "a,1" } else { before };
            let text = [before.as_bytes(), b"\n", bad, b"\n", good.as_bytes()].concat();
            let mut found = lines(format, text);
            if format != Format::Csv {
                assert!(found.remove(0).1.is_ok());
            }
            let [(2, Err(fault)), (3, Ok(_))] = &found[..] else { panic!("{format}: {found:?}") };
            assert!(fault.contains(rule), "{fault}");
        }
        let (number, rule) = fault(Format::Csv, "prompt\n\"a\nb\nc\n");
        assert!(number == 2 && rule.contains("never closed"), "{rule}");
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_in_bounded_memory() {
        for (format, first) in [(Format::Text, ""), (Format::Ndjson, ""), (Format::Csv, "prompt\n")] {
            let good = if format == Format::Ndjson { "{\"prompt\":\"b\"}" } else { "b" };
            let before = first.lines().count() as u64;
            for length in [MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES] {
                let text = format!("{first}{}\n{good}", "a".repeat(length));
                let mut reader = Reader::new(format);
                let mut found = Vec::new();
                for piece in text.as_bytes().chunks(4096) {
                    reader.push(piece);
                    found.extend(std::iter::from_fn(|| reader.next_line()));
                    assert!(reader.bytes.len() <= MAX_LINE_BYTES + 2 * 4096);
                }
                reader.finish();
                found.extend(std::iter::from_fn(|| reader.next_line()));
                let found: Vec<_> = found.into_iter().map(|Line { number, job }| (number - before, job)).collect();
                let [(1, Err(fault)), (2, Ok(job))] = &found[..] else { panic!("{format} {length}: {found:?}") };
                assert!(fault.contains("longer") && job["prompt"] == "b");
                assert_eq!(reader.offset(), text.len() as u64);
            }
            let longest = format!("{first}{}\r\n", "a".repeat(MAX_LINE_BYTES));
            assert!(!lines(format, longest).iter().any(|(_, job)| matches!(job, Err(rule) if rule.contains("longer"))));
        }
        let open = format!("prompt\na\n\"{}", "b\n".repeat(MAX_LINE_BYTES));
        let found = lines(Format::Csv, open);
        let [(2, Ok(_)), (3, Err(fault))] = &found[..] else { panic!("{:?}", found.len()) };
        assert!(fault.contains("left open"), "{fault}");
    }

    #[test]
    fn faults_of_a_job_have_their_line() {
        let line = Line { number: 7, job: Ok(json!({ "prompt": "", "sede": 1 })) };
        let faults = line.entry(&Map::new(), Model::Core).expect_err("two faults");
        let places: Vec<_> = faults.iter().map(|fault| (fault.line, fault.pointer.as_str())).collect();
        assert_eq!(places, [(7, "/prompt"), (7, "/sede")]);
    }

    /// Text of the characters that matter.
    fn text(characters: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(characters), 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn pieces_and_pauses_do_not_change_what_is_read(
            csv in text(&["a", "é", ",", "\"", "\n", "\r\n", "\r", " "]),
            rows in text(&["{}", "{\"a\":1}", "x", "é", "\n", "\r\n", "\n\n", " "]),
            mark: bool,
            sizes in prop::collection::vec(1usize..7, 1..5),
        ) {
            let mark = if mark { "\u{feff}" } else { "" };
            for (format, text) in [
                (Format::Csv, format!("{mark}prompt,seed\n{csv}")),
                (Format::Ndjson, format!("{mark}{rows}")),
                (Format::Text, format!("{mark}{rows}")),
            ] {
                let whole = read(Reader::new(format), text.as_bytes(), &[usize::MAX]);
                prop_assert_eq!(&read(Reader::new(format), text.as_bytes(), &sizes), &whole);
                for (taken, (_, _, position)) in (1..).zip(&whole) {
                    let rest = &text.as_bytes()[usize::try_from(position.offset).expect("it is in memory")..];
                    let resumed = Reader::resume(format, position.clone());
                    let rest = if whole[taken - 1].1.is_err() && whole.len() == taken { &[] } else { rest };
                    prop_assert_eq!(&read(resumed, rest, &sizes), &whole[taken..]);
                }
            }
        }

        #[test]
        fn rows_are_those_of_the_csv_crate(csv in text(&["a", "é", ",", "\"", "\n", "\r\n", "\r", "b"])) {
            let text = format!("prompt,custom_id\n{csv}");
            let mut theirs = ::csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
            let mut theirs: Vec<_> = theirs.records().map(|row| row.expect("it is UTF-8")).collect();
            theirs.retain(|row| row.iter().any(|field| !field.trim().is_empty()));
            let mut ours = lines(Format::Csv, &text);
            // The crate takes the rest of the file as the field that is not closed.
            if ours.pop_if(|(_, job)| matches!(job, Err(rule) if rule.contains("never closed"))).is_some() {
                theirs.truncate(ours.len());
            }
            prop_assert_eq!(ours.len(), theirs.len());
            for ((_, job), row) in ours.iter().zip(&theirs) {
                prop_assert_eq!(job.is_ok(), row.len() == 2, "{:?}", row);
                let Ok(job) = job else { continue };
                for (name, field) in ["prompt", "custom_id"].into_iter().zip(row) {
                    let ours = job[name].as_str().unwrap_or_default();
                    prop_assert!(ours == field || (ours.is_empty() && field.trim().is_empty()));
                }
            }
        }
    }
}
