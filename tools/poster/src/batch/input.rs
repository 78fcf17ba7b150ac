use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::batch::{Entry, MAX_BYTES, faults_of_defaults};
use shared::batch_file::{self, Line, LineFault, Reader};
use shared::json::Strict;
use shared::order::DeadlineHours;
use shared::text::hex;
use tempfile::NamedTempFile;

use crate::arguments::Format;
use crate::digest::digest;
use crate::failure::{Failure, OfFile, blocking};
use crate::make::MODEL;
use crate::words::{errors_text, faults_text, thousands};

pub(super) const BUFFER: usize = 256 * 1024;

const MAX_DOCUMENT_BYTES: u64 = 64 * 1024 * 1024;

/// How many lines are checked between two reports of progress.
const STRIDE: u64 = 4096;

/// A file of jobs, and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) format: batch_file::Format,
    /// The fields for jobs that leave them out: those of the command line, and of a JSON document.
    pub(crate) defaults: Map<String, Value>,
    /// The name, the deadline and the webhook are those in a JSON document.
    pub(crate) name: Option<String>,
    pub(crate) deadline_hours: Option<DeadlineHours>,
    pub(crate) webhook: Option<Value>,
    /// The file itself, or a copy without a name with a line for each job of a JSON document.
    pub(super) file: Arc<File>,
    stamp: Stamp,
    /// Whether `path` is a copy of standard input that this run made.
    is_new_copy: bool,
}

/// The length of a file in bytes, and when it was last changed.
type Stamp = (u64, Option<SystemTime>);

fn stamp_of(file: &File) -> io::Result<Stamp> {
    file.metadata().map(|metadata| (metadata.len(), metadata.modified().ok()))
}

#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Whether the file as a whole is bad, so that leaving lines out does not help.
    pub(crate) is_of_file: bool,
    /// The numbers of all lines, good or bad, but those that are empty, in ascending order.
    pub(crate) lines: Vec<u32>,
    pub(crate) sha256: String,
}

impl Input {
    /// Opens the file at `path`. Standard input, named `-`, is first copied to a file that is named after its content, so
    /// that the same input finds its own state again.
    pub(crate) async fn open(
        path: &Path,
        format: Option<Format>,
        flags: Map<String, Value>,
        state: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (path, is_new_copy) = if path == Path::new("-") {
            copy_of_input(directory_of(state.unwrap_or(path))).await?
        } else {
            (path.to_owned(), false)
        };
        blocking(move || Self::read(path, format, flags, is_new_copy)).await
    }

    fn read(
        path: PathBuf,
        format: Option<Format>,
        flags: Map<String, Value>,
        is_new_copy: bool,
    ) -> Result<Self, Failure> {
        // Not opened yet, since opening a pipe would wait for its writer.
        if !std::fs::metadata(&path).of_file(&path)?.is_file() {
            // The input is read more than once.
            return Err(Failure::Usage(format!("{} is not a regular file; use - to read a pipe", path.display())));
        }
        let mut file = File::open(&path).of_file(&path)?;
        let format = match format.or_else(|| format_of_name(&path)) {
            Some(format) => format,
            None => format_of_content(&file).of_file(&path)?,
        };
        let (mut defaults, mut name, mut deadline_hours, mut webhook) = (flags, None, None, None);
        let format = match format {
            Format::Ndjson => batch_file::Format::Ndjson,
            Format::Csv => batch_file::Format::Csv,
            Format::Text => batch_file::Format::Text,
            Format::Json => {
                let document = Document::read(&file, &path)?;
                file = document.as_lines().of_file(&path)?;
                (name, deadline_hours) = (document.name, document.deadline_hours);
                webhook = document.webhook.map(|Strict(webhook)| webhook);
                // The flags override the document.
                let own = match document.defaults.map(|Strict(defaults)| defaults) {
                    None => Map::new(),
                    Some(Value::Object(own)) => own,
                    Some(_) => return Err(Failure::Usage("defaults must be an object".to_owned())),
                };
                for (field, value) in own {
                    defaults.entry(field).or_insert(value);
                }
                batch_file::Format::Ndjson
            }
        };
        let faults = faults_of_defaults(&defaults, MODEL);
        if !faults.is_empty() {
            return Err(Failure::Usage(errors_text(&faults)));
        }
        let stamp = stamp_of(&file).of_file(&path)?;
        if stamp.0 > MAX_BYTES {
            let most = thousands(MAX_BYTES / 1_000_000_000);
            return Err(Failure::Usage(format!("{} must have at most {most} GB; split it", path.display())));
        }
        Ok(Self { path, format, defaults, name, deadline_hours, webhook, file: Arc::new(file), stamp, is_new_copy })
    }

    pub(crate) fn delete_copy(&self) {
        if self.is_new_copy {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        with_suffix(&self.path, &format!(".{ending}"))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.stamp.0
    }

    /// Fails if the file has changed since it was opened.
    pub(crate) fn unchanged(&self) -> Result<(), Failure> {
        if stamp_of(&self.file).of_file(&self.path)? == self.stamp { Ok(()) } else { Err(self.changed()) }
    }

    pub(super) fn changed(&self) -> Failure {
        Failure::Usage(format!("{} has changed since it was checked", self.path.display()))
    }

    /// Checks every line by the service's own rules. Calls `bad` with the number and the faults of each bad line, and
    /// `progress` with the number of lines from time to time.
    pub(crate) fn check(
        &self,
        mut bad: impl FnMut(u64, String) -> Result<(), Failure>,
        progress: impl Fn(u64),
    ) -> Result<Checked, Failure> {
        let (mut checked, mut digest) = (Checked::default(), Sha256::new());
        // Digests of the custom ids take less memory than the ids.
        let (mut ids, hashes) = (HashSet::new(), RandomState::new());
        self.lines(
            |bytes| digest.update(bytes),
            |line, is_unreadable| {
                let number = line.number;
                checked.lines.push(number as u32);
                checked.is_of_file |= is_unreadable;
                let faults = match line.order(&self.defaults, MODEL) {
                    Ok(Entry { custom_id: Some(id), .. }) if !ids.insert(hashes.hash_one(&id)) => {
                        checked.is_of_file = true;
                        Err(vec![LineFault {
                            line: number,
                            pointer: "/custom_id".to_owned(),
                            detail: format!("{:?} is used by another line too", id.as_str()),
                        }])
                    }
                    order => order.map(drop),
                };
                match faults {
                    Ok(()) => checked.good += 1,
                    Err(faults) => {
                        checked.bad += 1;
                        // A quotation mark that is never closed may be on a later line than its row.
                        let line = faults.first().map_or(number, |fault| fault.line);
                        bad(line, faults_text(faults.iter().map(|fault| (&*fault.pointer, &*fault.detail))))?;
                    }
                }
                if (checked.good + checked.bad).is_multiple_of(STRIDE) {
                    progress(checked.good + checked.bad);
                }
                Ok(())
            },
        )?;
        self.unchanged()?;
        checked.sha256 = hex(&digest.finalize());
        Ok(checked)
    }

    /// Writes the jobs on these lines, which must be sorted, with the defaults filled in, to the file at `path`.
    pub(crate) fn copy_jobs(&self, lines: &[u64], to: &mut impl Write, path: &Path) -> Result<(), Failure> {
        self.lines(
            |_| {},
            |line, _| {
                let Ok(Value::Object(mut job)) = line.job else { return Ok(()) };
                if lines.binary_search(&line.number).is_err() {
                    return Ok(());
                }
                for (name, value) in &self.defaults {
                    if job.get(name).is_none_or(Value::is_null) {
                        job.insert(name.clone(), value.clone());
                    }
                }
                writeln!(to, "{}", Value::from(job)).of_file(path)
            },
        )
    }

    /// Calls `seen` with all bytes, and `each` with each line, and whether the file cannot be read after it.
    fn lines(
        &self,
        mut seen: impl FnMut(&[u8]),
        mut each: impl FnMut(Line, bool) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut file, mut reader, mut buffer) = (&*self.file, Reader::new(self.format), vec![0; BUFFER]);
        file.rewind().of_file(&self.path)?;
        loop {
            let read = file.read(&mut buffer).of_file(&self.path)?;
            seen(&buffer[..read]);
            if read == 0 {
                reader.finish();
            } else {
                reader.push(&buffer[..read]);
            }
            while let Some(line) = reader.next_line() {
                each(line, reader.is_unreadable())?;
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// A JSON document: an array of jobs, or an object with `jobs`. It is held in memory, so its size is limited.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an array of jobs, or an object with jobs")]
struct Document {
    name: Option<String>,
    deadline_hours: Option<DeadlineHours>,
    webhook: Option<Strict>,
    defaults: Option<Strict>,
    jobs: Vec<Strict>,
}

impl Document {
    fn read(file: &File, path: &Path) -> Result<Self, Failure> {
        let mut text = Vec::new();
        let read = file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text).of_file(path)?;
        if read as u64 > MAX_DOCUMENT_BYTES {
            let rule = "a JSON document may be up to 64 MB long; NDJSON, a job a line, may be longer";
            return Err(Failure::Usage(format!("{}: {rule}", path.display())));
        }
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let document = if text.trim_ascii_start().starts_with(b"[") {
            serde_json::from_slice(text).map(|jobs| Self { jobs, ..Self::default() })
        } else {
            serde_json::from_slice(text)
        };
        document.map_err(|error| Failure::Usage(format!("{}: not a JSON document of jobs: {error}", path.display())))
    }

    /// A file without a name that has each job on the line of its position.
    fn as_lines(&self) -> io::Result<File> {
        let mut lines = BufWriter::new(tempfile::tempfile()?);
        for Strict(job) in &self.jobs {
            writeln!(lines, "{job}")?;
        }
        Ok(lines.into_inner()?)
    }
}

/// Copies standard input to a file in `directory` that is named after its content. The flag is whether the file is new.
async fn copy_of_input(directory: &Path) -> Result<(PathBuf, bool), Failure> {
    // This future owns the file, not the thread that writes it, so a command that is stopped deletes it.
    let copy = temporary_file(directory, directory)?;
    let (mut file, to) = (copy.reopen().of_file(directory)?, directory.to_owned());
    let copying = blocking(move || digest(io::stdin().lock(), |piece| file.write_all(piece)).of_file(&to));
    let (bytes, digest) = copying.await?;
    let path = directory.join(format!("poster-stdin-{}", &digest[..16]));
    // Another run may be reading an existing copy, which must not change.
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes) {
        return Ok((path, false));
    }
    copy.persist(&path).map_err(|error| error.error).of_file(directory)?;
    Ok((path, true))
}

fn format_of_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "txt" | "text" => Some(Format::Text),
        _ => None,
    }
}

fn format_of_content(mut file: &File) -> io::Result<Format> {
    let mut beginning = Vec::new();
    file.take(BUFFER as u64).read_to_end(&mut beginning)?;
    file.rewind()?;
    let text = beginning.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&beginning).trim_ascii_start();
    let first = text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    Ok(match first.first() {
        Some(b'[') => Format::Json,
        Some(b'{') => match serde_json::from_slice::<Map<String, Value>>(first) {
            Ok(line) if !line.contains_key("jobs") => Format::Ndjson,
            _ => Format::Json,
        },
        _ => {
            let mut reader = Reader::new(batch_file::Format::Text);
            reader.push(&beginning);
            reader.finish();
            reader.next_line();
            // What is no text is not CSV either, and the reader of CSV says so.
            if reader.is_unreadable() { Format::Csv } else { Format::Text }
        }
    })
}

/// A temporary file. An error blames `path`: the name of the temporary file would say nothing to the user.
pub(super) fn temporary_file(directory: &Path, path: &Path) -> Result<NamedTempFile, Failure> {
    NamedTempFile::new_in(directory).map_err(|error| error.kind()).of_file(path)
}

pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, content: &str) -> (tempfile::TempDir, Input) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("it is written");
        let input = Input::read(path, None, Map::new(), false).expect("it can be read");
        (directory, input)
    }

    /// The check of the file, and the bad lines with their faults.
    fn checked(input: &Input) -> (Checked, Vec<(u64, String)>) {
        let mut faults = Vec::new();
        let bad = |line, text| {
            faults.push((line, text));
            Ok(())
        };
        let checked = input.check(bad, |_| {}).expect("it can be read");
        (checked, faults)
    }

    #[test]
    fn bad_lines_are_reported_with_their_numbers() {
        let content = "{\"prompt\":\"a\",\"custom_id\":\"1\"}\n{\"prompt\":\"\"}\nx\n\n{\"prompt\":\"b\",\"sede\":1}\n";
        let (_directory, jobs) = input("jobs.ndjson", content);
        let (result, faults) = checked(&jobs);
        assert_eq!((result.good, result.bad, result.is_of_file, result.lines.len()), (1, 3, false, 4));
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!((&*faults[0].1, &*faults[2].1), ("prompt must not be empty", "sede is not a field of this request"));
        let mut failed = Vec::new();
        jobs.copy_jobs(&[1], &mut failed, Path::new("failed")).expect("it is written");
        assert_eq!(failed, b"{\"custom_id\":\"1\",\"prompt\":\"a\"}\n");
        for whole in ["{\"prompt\":\"a\",\"custom_id\":\"1\"}\n".repeat(2), "[{\n}]\n".to_owned()] {
            let (_directory, jobs) = input("jobs.ndjson", &whole);
            assert!(checked(&jobs).0.is_of_file, "{whole}");
        }
    }

    #[test]
    fn the_jobs_of_a_document_are_numbered_by_their_position() {
        let document = "\u{feff}{\"name\":\"friday\",\"deadline_hours\":2,\"webhook\":{\"url\":\"https://example.com\"},\"defaults\":{\"seed\":5},\n\"jobs\":[{\"prompt\":\"a\"},7,{\"prompt\":\"b\"}]}";
        let (_directory, jobs) = input("jobs.json", document);
        let (result, faults) = checked(&jobs);
        assert_eq!((result.good, faults[0].0, jobs.name.as_deref()), (2, 2, Some("friday")));
        assert_eq!(serde_json::json!(jobs.deadline_hours), 2);
        assert_eq!(jobs.webhook, Some(serde_json::json!({ "url": "https://example.com" })));
        let mut failed = Vec::new();
        jobs.copy_jobs(&[3], &mut failed, Path::new("failed")).expect("it is written");
        assert_eq!(failed, b"{\"prompt\":\"b\",\"seed\":5}\n");
        for wrong in ["{\"jobs\":[{\"prompt\":\"a\",\"prompt\":\"b\"}]}", "{\"jobs\":{}}", "{}", "[", "7"] {
            let path = jobs.path.with_file_name("wrong.json");
            std::fs::write(&path, wrong).expect("it is written");
            assert!(Input::read(path, None, Map::new(), false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_format_is_guessed() {
        for (content, format) in [
            ("[\n{\"prompt\":\"x\"}]", Format::Json),
            ("{\"jobs\":[]}", Format::Json),
            ("{\n\"jobs\":[]}", Format::Json),
            ("{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("A heist\n", Format::Text),
            ("\u{feff}{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("\r\n \n{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("Prompt,seed,custom_id\nA heist,7,moon\n", Format::Csv),
            ("\u{feff}\"prompt\";\"seed\"\nA heist;7\n", Format::Csv),
            ("prompt\nA heist\n", Format::Csv),
            ("", Format::Text),
        ] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(content.as_bytes()).expect("it is written");
            file.rewind().expect("a file");
            assert_eq!(format_of_content(&file).expect("it can be read"), format, "{content}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_content_and_a_change_is_noticed() {
        let sum = |content| checked(&input("a.txt", content).1).0.sha256;
        assert_eq!(sum("x\n"), sum("x\n"));
        assert_ne!(sum("x\n"), sum("x\n\n"));
        let (_directory, jobs) = input("a.txt", "One\nTwo\n");
        assert!(jobs.unchanged().is_ok());
        std::fs::write(&jobs.path, "One\nTwo\nThree\n").expect("it is written");
        let failure = jobs.unchanged().expect_err("it is another");
        assert!(failure.to_string().contains("has changed"), "{failure}");
    }
}
