//! Reading jobs from a file.

use std::cell::RefCell;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::json::{self, Strict};

use crate::arguments::Format;

/// The longest line, in bytes: three times the longest job that the service accepts.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The longest JSON document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;

/// The fault of a line in another encoding, such as Windows-1252.
const NOT_UTF_8: &str = "is not in UTF-8; save the file as UTF-8";

/// Why a file cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The system cannot read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its format is wrong.
    #[error("{0}")]
    Form(String),
}

/// An item of a file.
#[derive(Debug)]
pub(crate) enum Item {
    /// Fields for the jobs that leave them out; only in a JSON document, before its jobs.
    Defaults(Map<String, Value>),
    /// The name of the batch; only in a JSON document.
    Name(String),
    /// The number of a line and its job, or what is wrong with the line.
    Job(u64, Result<Value, String>),
}

/// Calls `each` with each item of the file until it breaks. A job has the number of the line on which it begins; in a JSON
/// document, its position. Its `title` and `tagline` are moved into its `poster`.
pub(crate) fn read(
    mut file: impl BufRead,
    format: Format,
    mut each: impl FnMut(Item) -> ControlFlow<()>,
) -> Result<(), Broken> {
    skip_byte_order_mark(&mut file)?;
    let mut each = |item| match item {
        Item::Job(line, job) => each(Item::Job(line, job.and_then(with_poster))),
        item => each(item),
    };
    match format {
        Format::Ndjson => rows(file, |line, bytes| match bytes {
            Ok(bytes) if bytes.trim_ascii().is_empty() => ControlFlow::Continue(()),
            Ok(bytes) => each(Item::Job(line, json::parse(bytes).map_err(|error| format!("is not JSON: {error}")))),
            Err(rule) => each(Item::Job(line, Err(rule))),
        }),
        Format::Text => rows(file, |line, bytes| {
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).map_err(|_| NOT_UTF_8.to_owned()));
            match text.map(str::trim) {
                Ok("") => ControlFlow::Continue(()),
                Ok(prompt) => each(Item::Job(line, Ok(serde_json::json!({ "prompt": prompt })))),
                Err(rule) => each(Item::Job(line, Err(rule))),
            }
        }),
        Format::Csv => csv(file, each),
        Format::Json => document(file, each),
    }
}

/// Skips a leading byte order mark of UTF-8.
fn skip_byte_order_mark(file: &mut impl BufRead) -> Result<(), Broken> {
    let beginning = file.fill_buf()?;
    if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") {
        return Err(Broken::Form("the file is in UTF-16; save it as UTF-8".to_owned()));
    }
    if beginning.starts_with("\u{feff}".as_bytes()) {
        file.consume("\u{feff}".len());
    }
    Ok(())
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

/// The lines of a file, without their line ends.
fn rows(
    mut file: impl BufRead,
    mut each: impl FnMut(u64, Result<&[u8], String>) -> ControlFlow<()>,
) -> Result<(), Broken> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut file).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let flow = if read > MAX_LINE_BYTES && !line.ends_with(b"\n") {
            file.skip_until(b'\n')?;
            each(number, Err(format!("is longer than {MAX_LINE_BYTES} bytes")))
        } else {
            let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
            each(number, Ok(bytes.strip_suffix(b"\r").unwrap_or(bytes)))
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// CSV, whose first row names the columns in upper or lower case. A dot in a name leads into an object, as in
/// `metadata.campaign`.
fn csv(file: impl BufRead, mut each: impl FnMut(Item) -> ControlFlow<()>) -> Result<(), Broken> {
    let mut rows = Rows::default();
    let mut reader =
        ::csv::ReaderBuilder::new().flexible(true).from_reader(Copied { file, unread: rows.unread.clone() });
    let broken = |error: ::csv::Error| match error.into_kind() {
        ::csv::ErrorKind::Io(error) => Broken::Io(error),
        other => Broken::Form(format!("not CSV: {other:?}")),
    };
    let names = reader.byte_headers().map_err(broken)?;
    let names: Vec<_> = names.iter().map(|name| column(&String::from_utf8_lossy(name))).collect();
    if !names.iter().any(|name| name == "prompt") {
        return Err(Broken::Form(match separator(&names.join(",")) {
            Some(separator) => format!("the columns are separated by {separator}; save it with commas"),
            None => "the first line must name the columns, one of them prompt".to_owned(),
        }));
    }
    rows.next(reader.position().byte());
    let mut row = ::csv::ByteRecord::new();
    while reader.read_byte_record(&mut row).map_err(broken)? {
        let Row { line, open_quote } = rows.next(reader.position().byte());
        if row.iter().all(|field| field.trim_ascii().is_empty()) {
            continue;
        }
        let job = match open_quote {
            Some(line) => Err(format!("has a quotation mark on line {line} that is never closed")),
            None => job_of(&names, &row),
        };
        if each(Item::Job(line, job)).is_break() {
            break;
        }
    }
    Ok(())
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

fn job_of(names: &[String], row: &::csv::ByteRecord) -> Result<Value, String> {
    if row.len() != names.len() {
        return Err(format!("has {} fields, but the first line names {}", row.len(), names.len()));
    }
    let mut job = Map::new();
    for (name, field) in names.iter().zip(row) {
        let field = std::str::from_utf8(field).map_err(|_| NOT_UTF_8.to_owned())?;
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
        if object.insert(last.to_owned(), value).is_some() {
            return Err(format!("has the column {name} twice"));
        }
    }
    Ok(job.into())
}

/// A JSON document: an array of jobs, or an object with `jobs`. It is held in memory, so its size is limited.
fn document(file: impl BufRead, mut each: impl FnMut(Item) -> ControlFlow<()>) -> Result<(), Broken> {
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_DOCUMENT_BYTES {
        let limit = MAX_DOCUMENT_BYTES / 1024 / 1024;
        return Err(Broken::Form(format!(
            "a JSON document may be up to {limit} MB long; NDJSON, a job a line, has no limit"
        )));
    }
    let broken = |error: serde_json::Error| Broken::Form(format!("not a JSON document of jobs: {error}"));
    let document = if text.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(&text).map(|jobs| Document { name: None, defaults: None, jobs })
    } else {
        serde_json::from_slice(&text)
    };
    let Document { name, defaults, jobs } = document.map_err(broken)?;
    let defaults = match defaults {
        None => None,
        Some(Strict(Value::Object(defaults))) => Some(defaults),
        Some(_) => return Err(Broken::Form("defaults must be an object".to_owned())),
    };
    let items = defaults.map(Item::Defaults).into_iter().chain(name.map(Item::Name));
    // All jobs of a document may be on one line, so they are numbered by their order.
    for item in items.chain((1..).zip(jobs).map(|(number, Strict(job))| Item::Job(number, Ok(job)))) {
        if each(item).is_break() {
            break;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an array of jobs, or an object with jobs")]
struct Document {
    name: Option<String>,
    defaults: Option<Strict>,
    jobs: Vec<Strict>,
}

/// A file whose bytes are kept until [`Rows`] has counted their lines. The CSV reader's own count is wrong after CRLF and
/// empty lines.
struct Copied<R> {
    file: R,
    unread: Rc<RefCell<Vec<u8>>>,
}

impl<R: BufRead> Read for Copied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut unread = self.unread.borrow_mut();
        unread.extend(&buffer[..read]);
        if unread.len() > MAX_LINE_BYTES + buffer.len() {
            let rule = format!("a row is longer than {MAX_LINE_BYTES} bytes; is a quotation mark left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, rule));
        }
        Ok(read)
    }
}

/// Finds the line on which each row of a CSV file begins.
#[derive(Default)]
struct Rows {
    /// The bytes since the end of the last row.
    unread: Rc<RefCell<Vec<u8>>>,
    /// The offset of these bytes in the file.
    before: u64,
    /// How many line ends came before.
    ended: u64,
    /// Whether the last byte was a carriage return, so that a line feed does not count again.
    after_return: bool,
}

/// The place of a row.
struct Row {
    /// The line on which it begins.
    line: u64,
    /// The line of a quotation mark that is never closed, so that the rest of the file became a part of its field.
    open_quote: Option<u64>,
}

impl Rows {
    /// The place of the row that ends at byte `end` of the file.
    fn next(&mut self, end: u64) -> Row {
        let length = usize::try_from(end - self.before).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = {
            let mut unread = self.unread.borrow_mut();
            let length = length.min(unread.len());
            unread.drain(..length).collect()
        };
        self.before = end;
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let (empty, row) = bytes.split_at(bytes.iter().position(|byte| !is_end(byte)).unwrap_or(bytes.len()));
        self.count(empty);
        let line = self.ended + 1;
        let open_quote = open_quote(row).map(|place| {
            self.count(&row[..place]);
            self.ended + 1
        });
        self.count(&row[open_quote.map_or(0, |_| row.len())..]);
        Row { line, open_quote }
    }

    fn count(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.ended += u64::from(byte == b'\r' || (byte == b'\n' && !self.after_return));
            self.after_return = byte == b'\r';
        }
    }
}

/// The position of a quotation mark that is never closed. One inside an unquoted field is text.
fn open_quote(row: &[u8]) -> Option<usize> {
    let (mut open, mut begins) = (None, true);
    let mut bytes = row.iter().enumerate().peekable();
    while let Some((place, byte)) = bytes.next() {
        match (open, byte) {
            (None, b'"') if begins => open = Some(place),
            // Inside a quoted field, two quotation marks stand for one.
            (Some(_), b'"') if bytes.next_if(|(_, next)| **next == b'"').is_none() => open = None,
            _ => {}
        }
        begins = open.is_none() && *byte == b',';
    }
    open
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jobs(format: Format, text: &str) -> Vec<(u64, Result<Value, String>)> {
        let mut jobs = Vec::new();
        let each = |item| {
            if let Item::Job(line, job) = item {
                jobs.push((line, job));
            }
            ControlFlow::Continue(())
        };
        read(text.as_bytes(), format, each).expect("it can be read to its end");
        jobs
    }

    fn broken(format: Format, text: &str) -> String {
        read(text.as_bytes(), format, |_| ControlFlow::Continue(())).expect_err("it is broken").to_string()
    }

    #[test]
    fn every_format_numbers_its_jobs() {
        let (one, two) = (json!({ "prompt": "One, two" }), json!({ "prompt": "Three", "seed": 7 }));
        let both = |first, second| vec![(first, Ok(one.clone())), (second, Ok(two.clone()))];
        let ndjson = "\u{feff}{\"prompt\":\"One, two\"}\r\n\n{\"prompt\":\"Three\",\"seed\":7}";
        assert_eq!(jobs(Format::Ndjson, ndjson), both(1, 3));
        let array = "[{\"prompt\":\"One, two\"},\n\n{\"prompt\":\"Three\",\n\"seed\":7}]";
        assert_eq!(jobs(Format::Json, array), both(1, 2));
        let batch = format!("{{\"name\":\"x\",\"defaults\":{{}},\"jobs\":{array}}}");
        assert_eq!(jobs(Format::Json, &batch), both(1, 2));
        assert_eq!(jobs(Format::Json, &array.replace('\n', "")), both(1, 2));
        let csv = "seed,prompt,x\n,\"One, two\",\n\n,,\n7,Three,\n";
        for end in ["\n", "\r\n", "\r"] {
            assert_eq!(jobs(Format::Csv, &csv.replace('\n', end)), both(2, 5), "{end:?}");
            let mark_and_no_end = format!("\u{feff}{}", csv.trim_end().replace('\n', end));
            assert_eq!(jobs(Format::Csv, &mark_and_no_end), both(2, 5), "{end:?}");
        }
        assert_eq!(
            jobs(Format::Text, "One\n\n Two \n"),
            [(1, Ok(json!({ "prompt": "One" }))), (3, Ok(json!({ "prompt": "Two" })))]
        );
    }

    #[test]
    fn dots_in_the_names_of_columns_lead_into_objects() {
        let csv = "prompt,metadata.a,metadata.b,custom_id\nx,1,,line 2\n";
        let job = json!({ "prompt": "x", "metadata": { "a": "1" }, "custom_id": "line 2" });
        assert_eq!(jobs(Format::Csv, csv), [(2, Ok(job))]);
        for (csv, fault) in [
            ("prompt,seed\nx\n", "has 1 fields"),
            ("prompt,prompt\nx,y\n", "twice"),
            ("prompt,a,a.b\nx,y,z\n", "has both"),
        ] {
            let found = jobs(Format::Csv, csv).remove(0).1.expect_err("it is bad");
            assert!(found.contains(fault), "{found}");
        }
        assert!(broken(Format::Csv, "text\nx\n").contains("one of them prompt"));
    }

    #[test]
    fn a_row_of_several_lines_has_the_number_of_its_first() {
        for end in ["\n", "\r\n"] {
            let csv = "prompt,seed\n\"One\n\ntwo\",1\nThree,x\n".replace('\n', end);
            let numbers: Vec<_> = jobs(Format::Csv, &csv).iter().map(|(line, _)| *line).collect();
            assert_eq!(numbers, [2, 5], "{end:?}");
        }
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_is_a_fault_of_its_line() {
        let csv = "custom_id,prompt\n1,A spy in Oslo\n2,\"A heist\n3,Moon landing\n4,A western\n";
        let found = jobs(Format::Csv, csv);
        let faults: Vec<_> = found.iter().map(|(line, job)| (*line, job.as_ref().err().map(String::as_str))).collect();
        assert_eq!(faults, [(2, None), (3, Some("has a quotation mark on line 3 that is never closed"))]);
        let closed = "prompt,custom_id\n\"He said \"\"run\"\"\",1\nThe 12\" single,2\n";
        assert!(jobs(Format::Csv, closed).iter().all(|(_, job)| job.is_ok()));
    }

    #[test]
    fn titles_are_named_alike_in_every_format_and_columns_in_either_case() {
        let job = json!({ "prompt": "x", "poster": { "title": "T", "tagline": "t" }, "metadata": { "Aa": "b" } });
        let csv = [
            "Prompt,TITLE,tagline,Metadata.Aa\nx,T,t,b\n",
            "prompt,poster.title,Poster.Tagline,metadata.Aa\nx,T,t,b\n",
        ];
        assert_eq!(csv.map(|csv| jobs(Format::Csv, csv)), [[(2, Ok(job.clone()))], [(2, Ok(job.clone()))]]);
        let line = r#"{"prompt":"x","title":"T","poster":{"tagline":"t"},"metadata":{"Aa":"b"}}"#;
        assert_eq!(jobs(Format::Ndjson, line), [(1, Ok(job.clone()))]);
        let dotted = r#"{"prompt":"x","poster.title":"T","poster":{"tagline":"t"},"metadata":{"Aa":"b"}}"#;
        assert_eq!(jobs(Format::Ndjson, dotted), [(1, Ok(job.clone()))]);
        assert_eq!(jobs(Format::Json, &format!("\u{feff}[{line}]")), [(1, Ok(job))]);
        let twice = jobs(Format::Csv, "prompt,title,poster.title\nx,a,b\n").remove(0).1;
        assert_eq!(twice, Err("has both title and poster.title".to_owned()));
        let twice = jobs(Format::Ndjson, r#"{"prompt":"x","title":"a","poster.title":"b"}"#).remove(0).1;
        assert_eq!(twice, Err("has both title and poster.title".to_owned()));
    }

    #[test]
    fn other_separators_and_encodings_are_named() {
        for (csv, fault) in [
            ("prompt;seed\nx;7\n", "separated by semicolons"),
            ("Seed\t\"Prompt\"\n7\tx\n", "separated by tabs"),
            ("\u{feff}text\nx\n", "one of them prompt"),
        ] {
            let found = broken(Format::Csv, csv);
            assert!(found.contains(fault), "{found}");
        }
        let utf_16: Vec<u8> = "\u{feff}prompt\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for format in [Format::Csv, Format::Text, Format::Ndjson, Format::Json] {
            let found = read(&utf_16[..], format, |_| ControlFlow::Continue(())).expect_err("it is not UTF-8");
            assert!(found.to_string().contains("UTF-16"), "{found}");
        }
        let mut faults = Vec::new();
        let each = |item| {
            faults.extend(if let Item::Job(line, Err(fault)) = item { Some((line, fault)) } else { None });
            ControlFlow::Continue(())
        };
        read(&b"prompt\nCaf\xe9\n"[..], Format::Csv, each).expect("it can be read to its end");
        assert_eq!(faults, [(2, NOT_UTF_8.to_owned())]);
    }

    #[test]
    fn one_bad_line_does_not_hide_the_next() {
        let long = format!("{{\"prompt\":\"{}\"}}\nx\n{{}}", "x".repeat(MAX_LINE_BYTES));
        let found = jobs(Format::Ndjson, &long);
        assert!(found[0].1.as_ref().is_err_and(|fault| fault.contains("longer")), "{:?}", found[0].0);
        assert!(found[1].1.as_ref().is_err_and(|fault| fault.contains("not JSON")));
        assert_eq!(found[2], (3, Ok(json!({}))));
    }

    #[test]
    fn a_broken_document_is_refused() {
        for (text, why) in [
            ("[{\"prompt\":\"x\"}", "EOF"),
            ("{\"jobs\":[],\"defaults\":7}", "must be an object"),
            ("{\"job\":[]}", "unknown field `job`"),
            ("{}", "missing field `jobs`"),
            ("7", "array of jobs"),
            ("[]x", "trailing"),
        ] {
            let found = broken(Format::Json, text);
            assert!(found.contains(why), "{text}: {found}");
        }
        let long = broken(Format::Json, &"[".repeat(MAX_DOCUMENT_BYTES + 1));
        assert!(long.contains("64 MB") && long.contains("NDJSON"), "{long}");
        let batch = "{\"jobs\":[{\"prompt\":\"x\"}],\"defaults\":{\"seed\":7},\"name\":\"late\"}";
        assert_eq!(jobs(Format::Json, batch).len(), 1, "the order of the fields does not matter");
    }
}
