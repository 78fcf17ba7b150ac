//! Reading jobs out of a file, one by one, however large it is.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use shared::json::{self, Strict};

use crate::arguments::Format;

/// The greatest length of one job in a file, in bytes. The longest that the service takes is a third of it.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// What is wrong with a line in another encoding, such as Windows-1252.
const NOT_UTF_8: &str = "is not in UTF-8; save the file as UTF-8";

/// Why a file cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not written as it should be.
    #[error("{0}")]
    Form(String),
}

/// Something that a file holds.
#[derive(Debug)]
pub(crate) enum Item {
    /// What jobs leave out; of a JSON document, before its jobs.
    Defaults(Map<String, Value>),
    /// What the batch is called; of a JSON document.
    Name(String),
    /// A job, or what is wrong with the place where one should be.
    Job(u64, Result<Value, String>),
}

/// Hands everything that the file holds to `each`, with the number of the line on which it begins, in a JSON document
/// with its own number, until `each` breaks. A job's `title` and `tagline` are those of its `poster`.
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

/// Passes over the byte order mark of UTF-8.
fn skip_byte_order_mark(file: &mut impl BufRead) -> Result<(), Broken> {
    let beginning = file.fill_buf()?;
    if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") {
        return Err(Broken::Form("it is in UTF-16; save it as UTF-8".to_owned()));
    }
    if beginning.starts_with("\u{feff}".as_bytes()) {
        file.consume("\u{feff}".len());
    }
    Ok(())
}

/// The job with the fields of a poster where `POST /jobs` has them. In every format `title` and `tagline` name them, and
/// so does `poster.title`, as a column may be called.
fn with_poster(mut job: Value) -> Result<Value, String> {
    let Some(fields) = job.as_object_mut() else { return Ok(job) };
    for name in ["title", "tagline"] {
        for key in [name.to_owned(), format!("poster.{name}")] {
            let Some(value) = fields.remove(&key) else { continue };
            let poster = fields.entry("poster").or_insert_with(|| Value::Object(Map::new()));
            let Some(poster) = poster.as_object_mut() else {
                return Err(format!("has {key}, and poster is no object"));
            };
            if poster.insert(name.to_owned(), value).is_some() {
                return Err(format!("has both {name} and poster.{name}"));
            }
        }
    }
    Ok(job)
}

/// The lines of a file, without their ends.
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
            skip_line(&mut file)?;
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

/// Reads on behind the end of the line.
fn skip_line(file: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = file.fill_buf()?;
        let (read, ended) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        file.consume(read);
        if ended {
            return Ok(());
        }
    }
}

/// Rows of fields, the first of which names them, in letters of either case. A dot in a name leads into an object:
/// `metadata.campaign`.
fn csv(file: impl BufRead, mut each: impl FnMut(Item) -> ControlFlow<()>) -> Result<(), Broken> {
    let mut rows = Rows::default();
    let mut reader =
        ::csv::ReaderBuilder::new().flexible(true).from_reader(Copied { file, unread: rows.unread.clone() });
    let broken = |error: ::csv::Error| match error.into_kind() {
        ::csv::ErrorKind::Io(error) => Broken::Io(error),
        other => Broken::Form(format!("it is no CSV: {other:?}")),
    };
    let names = reader.byte_headers().map_err(broken)?;
    let names: Vec<_> = names.iter().map(|name| column(&String::from_utf8_lossy(name))).collect();
    if !names.iter().any(|name| name == "prompt") {
        return Err(Broken::Form(match separator(&names.join(",")) {
            Some(separator) => format!("its columns are separated by {separator}; save it with commas"),
            None => "its first line must name the columns, one of them prompt".to_owned(),
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
            Some(line) => Err(format!("has a quotation mark on line {line} that nothing closes")),
            None => job_of(&names, &row),
        };
        if each(Item::Job(line, job)).is_break() {
            break;
        }
    }
    Ok(())
}

/// The name of a column. Only the caller's own names in `metadata` keep their capitals.
fn column(name: &str) -> String {
    let name = name.trim();
    match name.split_at_checked("metadata.".len()) {
        Some((object, key)) if object.eq_ignore_ascii_case("metadata.") => format!("metadata.{key}"),
        _ => name.to_lowercase(),
    }
}

/// What separates the names of columns on this line, one of which is `prompt`; `None` where it does not name columns.
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
        // A seed is the one number of a job; whatever else looks like one is text.
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

/// A JSON document, job by job: an array of them, or an object that has them in `jobs`.
fn document(file: impl BufRead, mut each: impl FnMut(Item) -> ControlFlow<()>) -> Result<(), Broken> {
    let meter = Meter::default();
    let mut stopped = false;
    let mut reader = serde_json::Deserializer::from_reader(Metered { file, meter: meter.clone() });
    let document = Document { meter: &meter, each: &mut each, stopped: &mut stopped };
    let read = reader.deserialize_any(document).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(()),
        Err(_) if stopped => Ok(()),
        Err(error) if error.is_io() => Err(Broken::Io(error.into())),
        Err(error) => Err(Broken::Form(format!("it is no JSON document of jobs: {error}"))),
    }
}

struct Document<'a, F> {
    meter: &'a Meter,
    each: &'a mut F,
    stopped: &'a mut bool,
}

impl<F: FnMut(Item) -> ControlFlow<()>> Document<'_, F> {
    fn hand<E: serde::de::Error>(&mut self, item: Item) -> Result<(), E> {
        if (self.each)(item).is_break() {
            *self.stopped = true;
            return Err(E::custom("enough was read"));
        }
        Ok(())
    }
}

impl<'de, F: FnMut(Item) -> ControlFlow<()>> Visitor<'de> for Document<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of jobs, or an object with jobs")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut jobs: A) -> Result<(), A::Error> {
        // The jobs of a document may all stand on one line, so they are numbered by their order.
        for number in 1.. {
            self.meter.reset();
            let Some(Strict(job)) = jobs.next_element()? else { break };
            self.hand(Item::Job(number, Ok(job)))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut jobs = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "jobs" if !jobs => {
                    jobs = true;
                    map.next_value_seed(Document { meter: self.meter, each: self.each, stopped: self.stopped })?;
                }
                "defaults" | "name" if jobs => {
                    return Err(A::Error::custom(format!("{key} must stand before jobs")));
                }
                "defaults" => {
                    let Strict(value) = map.next_value()?;
                    let Value::Object(defaults) = value else {
                        return Err(A::Error::custom("defaults must be an object"));
                    };
                    self.hand(Item::Defaults(defaults))?;
                }
                "name" => {
                    let name = map.next_value()?;
                    self.hand(Item::Name(name))?;
                }
                _ => return Err(A::Error::custom(format!("{key} is not a field of a batch here"))),
            }
        }
        if jobs { Ok(()) } else { Err(A::Error::custom("jobs is required")) }
    }
}

impl<'de, F: FnMut(Item) -> ControlFlow<()>> DeserializeSeed<'de> for Document<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// Where a reader is in its file, and how much it has read since it was last reset.
#[derive(Clone, Debug, Default)]
struct Meter {
    lines: Rc<Cell<u64>>,
    bytes: Rc<Cell<usize>>,
}

impl Meter {
    fn reset(&self) {
        self.bytes.set(0);
    }

    fn line(&self) -> u64 {
        self.lines.get() + 1
    }
}

/// A file of which no single job may take all memory.
struct Metered<R> {
    file: R,
    meter: Meter,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let lines = buffer[..read].iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.meter.lines.set(self.meter.lines.get() + lines);
        self.meter.bytes.set(self.meter.bytes.get() + read);
        if self.meter.bytes.get() > MAX_LINE_BYTES {
            let rule = format!("the job on line {} is longer than {MAX_LINE_BYTES} bytes", self.meter.line());
            return Err(io::Error::new(io::ErrorKind::InvalidData, rule));
        }
        Ok(read)
    }
}

/// A file whose bytes are kept until [`Rows`] has counted its lines, which the reader of CSV does not do: it takes the
/// second half of CRLF and empty lines for the beginning of the next row.
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

/// The rows of a CSV file, as far as they were read.
#[derive(Default)]
struct Rows {
    /// The bytes from the end of the last row on.
    unread: Rc<RefCell<Vec<u8>>>,
    /// How many bytes come before these.
    before: u64,
    /// How many lines have ended.
    ended: u64,
    /// Whether the last byte was a carriage return, whose line feed is then no other end.
    after_return: bool,
}

/// Where a row stands.
struct Row {
    /// The line on which it begins.
    line: u64,
    /// The line of a quotation mark that nothing closes, so that all that follows has become a part of the field.
    open_quote: Option<u64>,
}

impl Rows {
    /// The row that ends at byte `end` of the file.
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

/// The place of the quotation mark in a row that nothing closes. One within a field that does not begin with one is text.
fn open_quote(row: &[u8]) -> Option<usize> {
    let (mut open, mut begins) = (None, true);
    let mut bytes = row.iter().enumerate().peekable();
    while let Some((place, byte)) = bytes.next() {
        match (open, byte) {
            (None, b'"') if begins => open = Some(place),
            // Two of them within quotation marks stand for one.
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
    fn every_format_tells_the_number_of_each_job() {
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
    fn a_quotation_mark_that_nothing_closes_is_a_fault_of_its_line() {
        let csv = "custom_id,prompt\n1,A spy in Oslo\n2,\"A heist\n3,Moon landing\n4,A western\n";
        let found = jobs(Format::Csv, csv);
        let faults: Vec<_> = found.iter().map(|(line, job)| (*line, job.as_ref().err().map(String::as_str))).collect();
        assert_eq!(faults, [(2, None), (3, Some("has a quotation mark on line 3 that nothing closes"))]);
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
            let found = read(&utf_16[..], format, |_| ControlFlow::Continue(())).expect_err("it is no UTF-8");
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
    fn a_document_that_breaks_off_is_told() {
        for (text, why) in [
            ("[{\"prompt\":\"x\"}", "EOF"),
            ("{\"jobs\":[],\"defaults\":{}}", "before jobs"),
            ("{\"job\":[]}", "not a field"),
            ("{}", "jobs is required"),
            ("7", "array of jobs"),
            ("[]x", "trailing"),
        ] {
            let found = broken(Format::Json, text);
            assert!(found.contains(why), "{text}: {found}");
        }
        let long = format!("[{{\"prompt\":\"{}\"}}]", "x".repeat(MAX_LINE_BYTES));
        assert!(broken(Format::Json, &long).contains("longer"));
    }
}
