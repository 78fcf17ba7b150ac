//! The file of jobs.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::batch::{Entry, faults_of_defaults};
use shared::order::Model;
use shared::text::hex;

use super::lines::{self, Broken, Item};
use crate::arguments::Format;
use crate::failure::{Failure, blocking};
use crate::words::faults_text;

const BUFFER: usize = 256 * 1024;

/// How many custom ids are compared with each other. Those behind are checked by the service, within their request.
const MAX_NAMES: usize = 1_000_000;

/// How many lines are checked between two reports of progress.
const STRIDE: u64 = 4096;

/// The model that accepts the most, since the service's default model is not known here.
const MODEL: Model = Model::Sd35Large;

/// A file of jobs, and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// The fields of the command line, for jobs that leave them out.
    pub(crate) defaults: Map<String, Value>,
    /// Shows whether the file has changed.
    stamp: Stamp,
    /// Whether it is a copy of standard input that this run made.
    is_new_copy: bool,
}

/// The length of a file, and when it was last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.modified().ok())
    }
}

/// The result of the first pass.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// How many jobs can be submitted.
    pub(crate) good: u64,
    /// How many lines are bad.
    pub(crate) bad: u64,
    /// The file's own fields for jobs that leave them out.
    pub(crate) defaults: Map<String, Value>,
    /// The file's own name for the batch.
    pub(crate) name: Option<String>,
    pub(crate) sha256: String,
}

/// A job that can be submitted.
#[derive(Debug)]
pub(crate) struct Line {
    /// The line on which it begins.
    pub(crate) number: u64,
    pub(crate) job: String,
}

/// Checks jobs by the service's own rules.
struct Rules<'a> {
    flags: &'a Map<String, Value>,
    defaults: Map<String, Value>,
    names: HashSet<u64>,
    hashes: RandomState,
}

impl<'a> Rules<'a> {
    fn new(flags: &'a Map<String, Value>) -> Self {
        Self { flags, defaults: flags.clone(), names: HashSet::new(), hashes: RandomState::new() }
    }

    fn set_defaults(&mut self, file: &Map<String, Value>) {
        self.defaults = merged(file, self.flags);
    }

    fn bad_defaults(&self) -> Option<String> {
        let faults = faults_of_defaults(&self.defaults, MODEL);
        (!faults.is_empty()).then(|| faults_text(&faults))
    }

    /// What is wrong with a job.
    fn faults(&mut self, job: Value) -> Option<String> {
        match Entry::parse(job, "", &self.defaults, MODEL) {
            Err(errors) => Some(faults_text(&errors)),
            Ok(Entry { custom_id: Some(id), .. }) if self.names.len() < MAX_NAMES => {
                let new = self.names.insert(self.hashes.hash_one(id.as_str()));
                (!new).then(|| format!("custom_id {:?} is used by another line too", id.as_str()))
            }
            Ok(_) => None,
        }
    }
}

impl Input {
    /// Opens the file at `path`. Standard input, named `-`, is first copied to a file that is named after its content, so
    /// that the same input finds its own state again.
    pub(crate) async fn open(
        path: &Path,
        format: Option<Format>,
        defaults: Map<String, Value>,
        state: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (path, is_new_copy) = if path == Path::new("-") {
            let directory = state.and_then(Path::parent).filter(|directory| !directory.as_os_str().is_empty());
            copy_of_input(directory.unwrap_or(Path::new("."))).await?
        } else {
            (path.to_owned(), false)
        };
        let failed = |error: io::Error| Failure::file(&path, error);
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if !metadata.is_file() {
            // The input is read more than once.
            return Err(Failure::Usage(format!("{} is not a regular file; use - to read a pipe", path.display())));
        }
        let format = match (format, format_of_name(&path)) {
            (Some(format), _) => format,
            (None, named) => {
                let seen = format_of_content(&path).map_err(failed)?;
                // The heading of a table must not be painted as a prompt.
                if named == Some(Format::Text) && seen != Format::Text {
                    let (path, seen) = (path.display(), format!("{seen:?}").to_lowercase());
                    return Err(Failure::Usage(format!(
                        "{path} has the name of a text file but begins like {seen}: say --format {seen} or --format text"
                    )));
                }
                named.unwrap_or(seen)
            }
        };
        Ok(Self { path, format, defaults, stamp: Stamp::of(&metadata), is_new_copy })
    }

    /// Deletes the copy of standard input if this run made it.
    pub(crate) fn delete_copy(&self) {
        if self.is_new_copy {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        with_suffix(&self.path, &format!(".{ending}"))
    }

    /// Fails if the file has changed since it was opened.
    pub(crate) fn unchanged(&self) -> Result<(), Failure> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| Failure::file(&self.path, error))?;
        if Stamp::of(&metadata) == self.stamp {
            return Ok(());
        }
        Err(Failure::Usage(format!("{} has changed since it was checked", self.path.display())))
    }

    /// Checks every job of the file. Calls `bad` with the number and the faults of each bad line, and `progress` with the
    /// number of lines from time to time.
    pub(crate) fn check(
        &self,
        mut bad: impl FnMut(u64, String) -> Result<(), Failure>,
        progress: impl Fn(u64),
    ) -> Result<Checked, Failure> {
        let (mut checked, mut rules, mut result) = (Checked::default(), Rules::new(&self.defaults), Ok(()));
        let mut bad_defaults = rules.bad_defaults();
        let mut digest = Sha256::new();
        let file = self.file()?;
        let file = BufReader::with_capacity(BUFFER, Digested { file, digest: &mut digest });
        let read = lines::read(file, self.format, |item| {
            match item {
                Item::Defaults(found) => {
                    rules.set_defaults(&found);
                    bad_defaults = rules.bad_defaults();
                    checked.defaults = found;
                }
                Item::Name(name) => checked.name = Some(name),
                Item::Job(..) if bad_defaults.is_some() => return ControlFlow::Break(()),
                Item::Job(number, job) => {
                    match job.map_or_else(|rule| Some(format!("the line {rule}")), |job| rules.faults(job)) {
                        None => checked.good += 1,
                        Some(faults) => {
                            checked.bad += 1;
                            result = bad(number, faults);
                        }
                    }
                    if (checked.good + checked.bad).is_multiple_of(STRIDE) {
                        progress(checked.good + checked.bad);
                    }
                }
            }
            if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.explain(read)?;
        result?;
        self.unchanged()?;
        if let Some(faults) = bad_defaults {
            return Err(Failure::Usage(faults));
        }
        checked.sha256 = hex(&digest.finalize());
        Ok(checked)
    }

    /// Calls `each` with each good job until it breaks. Fails if the file has changed since it was opened.
    pub(crate) fn lines(&self, mut each: impl FnMut(Line) -> ControlFlow<()>) -> Result<(), Failure> {
        let mut rules = Rules::new(&self.defaults);
        let file = BufReader::with_capacity(BUFFER, self.file()?);
        self.unchanged()?;
        let read = lines::read(file, self.format, |item| {
            match item {
                Item::Defaults(found) => rules.set_defaults(&found),
                Item::Job(number, Ok(value)) => {
                    let job = value.to_string();
                    if rules.faults(value).is_none() {
                        return each(Line { number, job });
                    }
                }
                Item::Name(_) | Item::Job(_, Err(_)) => {}
            }
            ControlFlow::Continue(())
        });
        self.explain(read)?;
        self.unchanged()
    }

    fn file(&self) -> Result<File, Failure> {
        File::open(&self.path).map_err(|error| Failure::file(&self.path, error))
    }

    fn explain(&self, read: Result<(), Broken>) -> Result<(), Failure> {
        read.map_err(|broken| match broken {
            Broken::Io(error) if error.kind() != io::ErrorKind::InvalidData => Failure::file(&self.path, error),
            broken => Failure::Usage(format!("{}: {broken}", self.path.display())),
        })
    }
}

/// Copies standard input to a file in `directory` that is named after its content. The flag is whether the file is new.
async fn copy_of_input(directory: &Path) -> Result<(PathBuf, bool), Failure> {
    let owned = directory.to_owned();
    let failed = move |error: io::Error| Failure::file(&owned, error);
    // This future owns the file, not the thread that writes it, so a command that is stopped deletes it.
    let copy = tempfile::NamedTempFile::new_in(directory).map_err(&failed)?;
    let mut file = copy.reopen().map_err(&failed)?;
    let failed_copy = failed.clone();
    let (bytes, digest) = blocking(move || {
        let mut digest = Sha256::new();
        let bytes = io::copy(&mut Digested { file: io::stdin().lock(), digest: &mut digest }, &mut file);
        Ok((bytes.map_err(failed_copy)?, hex(&digest.finalize())))
    })
    .await?;
    let path = directory.join(format!("poster-stdin-{}", &digest[..16]));
    // Another run may be reading an existing copy, which must not change.
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes) {
        return Ok((path, false));
    }
    copy.persist(&path).map_err(|error| failed(error.error))?;
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

/// Guesses the format from the first line that is not empty.
fn format_of_content(path: &Path) -> io::Result<Format> {
    let mut file = BufReader::new(File::open(path)?).take(BUFFER as u64);
    let mut line = Vec::new();
    let first = loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).trim_ascii();
        if read == 0 || !text.is_empty() {
            break text;
        }
    };
    Ok(match first.first() {
        Some(b'[') => Format::Json,
        Some(b'{') => match serde_json::from_slice::<Map<String, Value>>(first) {
            Ok(line) if !line.contains_key("jobs") => Format::Ndjson,
            _ => Format::Json,
        },
        // If other characters than commas separate the columns, reading it as CSV says so.
        _ if lines::separator(&String::from_utf8_lossy(first)).is_some() => Format::Csv,
        _ => Format::Text,
    })
}

/// The fields of the file, with those of the command line over them.
pub(super) fn merged(file: &Map<String, Value>, flags: &Map<String, Value>) -> Map<String, Value> {
    let mut all = file.clone();
    all.extend(flags.clone());
    all
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// A reader that computes the digest of what it reads.
struct Digested<'a, R> {
    file: R,
    digest: &'a mut Sha256,
}

impl<R: Read> Read for Digested<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, content: &str) -> (tempfile::TempDir, Input) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("it is written");
        let format = format_of_name(&path).unwrap_or_else(|| format_of_content(&path).expect("it can be read"));
        let stamp = Stamp::of(&std::fs::metadata(&path).expect("it is there"));
        (directory, Input { path, format, defaults: Map::new(), stamp, is_new_copy: false })
    }

    #[test]
    fn bad_lines_are_told_with_their_numbers_and_left_out() {
        let content = "{\"prompt\":\"a\",\"custom_id\":\"1\"}\n{\"prompt\":\"\"}\nx\n{\"prompt\":\"b\",\"sede\":1}\n\
                       {\"prompt\":\"c\",\"custom_id\":\"1\"}\n{\"prompt\":\"d\"}\n";
        let (_directory, input) = input("jobs.ndjson", content);
        let mut told = Vec::new();
        let bad = |line, faults| {
            told.push((line, faults));
            Ok(())
        };
        let checked = input.check(bad, |_| {}).expect("it can be read");
        assert_eq!((checked.good, checked.bad), (2, 4));
        let lines: Vec<_> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        assert_eq!(told[0].1, "prompt must not be empty");
        assert_eq!(told[2].1, "sede is not a field of this request");
        let mut numbers = Vec::new();
        let each = |line: Line| {
            numbers.push(line.number);
            ControlFlow::Continue(())
        };
        input.lines(each).expect("it can be read");
        assert_eq!(numbers, [1, 6]);
    }

    #[test]
    fn the_format_is_seen() {
        for (name, content, format) in [
            ("a.csv", "prompt\nx\n", Format::Csv),
            ("a", "[\n{\"prompt\":\"x\"}]", Format::Json),
            ("a", "{\"jobs\":[]}", Format::Json),
            ("a", "{\n\"jobs\":[]}", Format::Json),
            ("a", "{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("a", "A heist\n", Format::Text),
            ("a", "\u{feff}{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("a", "\r\n \n{\"prompt\":\"x\"}\n", Format::Ndjson),
            ("a", "Prompt,seed,custom_id\nA heist,7,moon\n", Format::Csv),
            ("a", "\u{feff}\"prompt\";\"seed\"\nA heist;7\n", Format::Csv),
            ("a", "prompt\nA heist\n", Format::Csv),
            ("a", "", Format::Text),
        ] {
            assert_eq!(input(name, content).1.format, format, "{content}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_content() {
        let sum = |content| {
            let (_directory, input) = input("a.txt", content);
            input.check(|_, _| Ok(()), |_| {}).expect("it can be read").sha256
        };
        assert_eq!(sum("x\n"), sum("x\n"));
        assert_ne!(sum("x\n"), sum("x\n\n"));
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_noticed() {
        let (_directory, input) = input("a.txt", "One\nTwo\n");
        input.check(|_, _| Ok(()), |_| {}).expect("it is as it was");
        std::fs::write(&input.path, "One\nTwo\nThree\n").expect("it is written");
        let failure = input.lines(|_| ControlFlow::Continue(())).expect_err("it is another");
        assert!(failure.to_string().contains("has changed"), "{failure}");
    }
}
