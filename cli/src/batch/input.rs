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
use crate::failure::Failure;
use crate::words::fault_text;

/// How much is read at once.
const BUFFER: usize = 256 * 1024;

/// Up to how many names of jobs are held against each other. In files of more, each request checks its own.
const MAX_NAMES: usize = 1_000_000;

/// How many lines there are between two signs of life.
const STRIDE: u64 = 4096;

/// The model whose rules are checked where none is named: the service's own default may be any, and this takes the most.
const MODEL: Model = Model::Sd35Large;

/// A file of jobs, and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// How it is written.
    pub(crate) format: Format,
    defaults: Map<String, Value>,
    /// By what a change of it is noticed.
    stamp: Stamp,
    /// Whether it is a copy of standard input that was not there before.
    is_new_copy: bool,
}

/// How long a file is, and when it was changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.modified().ok())
    }
}

/// What the first reading has found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// How many jobs can be submitted.
    pub(crate) good: u64,
    /// How many places hold no job that can be.
    pub(crate) bad: u64,
    /// What jobs leave out, as the file says.
    pub(crate) defaults: Map<String, Value>,
    /// What the file calls the batch.
    pub(crate) name: Option<String>,
    /// The SHA-256 of the whole file.
    pub(crate) sha256: String,
}

/// A job that can be submitted.
#[derive(Debug)]
pub(crate) struct Line {
    /// The line on which it begins.
    pub(crate) number: u64,
    /// The job as JSON.
    pub(crate) job: String,
}

impl Input {
    /// The file at `path`; `defaults` stand in for what its jobs leave out.
    ///
    /// Standard input, named `-`, is first copied to a file whose name tells its content, so that the same input finds
    /// its own state again.
    ///
    /// # Errors
    /// When it cannot be read.
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
            // It is read more than once.
            return Err(Failure::Usage(format!("{} is no regular file; use - to read a pipe", path.display())));
        }
        let format = match (format, format_of_name(&path)) {
            (Some(format), _) => format,
            (None, named) => {
                let seen = format_of_content(&path).map_err(failed)?;
                // Nothing that looks like jobs is painted as prose.
                if named == Some(Format::Text) && seen != Format::Text {
                    let (path, seen) = (path.display(), format!("{seen:?}").to_lowercase());
                    return Err(Failure::Usage(format!(
                        "{path} is named as plain text, and begins like {seen}: say --format {seen} or --format text"
                    )));
                }
                named.unwrap_or(seen)
            }
        };
        Ok(Self { path, format, defaults, stamp: Stamp::of(&metadata), is_new_copy })
    }

    /// Deletes the copy of standard input, if this run made it.
    pub(crate) fn forget_copy(&self) {
        if self.is_new_copy {
            // What cannot be deleted is in nobody's way.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// What stands in for what jobs leave out, as the command line says.
    pub(crate) fn defaults(&self) -> Map<String, Value> {
        self.defaults.clone()
    }

    /// A file beside this one.
    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        with_suffix(&self.path, &format!(".{ending}"))
    }

    /// Makes sure that the file is the one that was opened.
    ///
    /// # Errors
    /// When it has changed since.
    pub(crate) fn unchanged(&self) -> Result<(), Failure> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| Failure::file(&self.path, error))?;
        if Stamp::of(&metadata) == self.stamp {
            return Ok(());
        }
        Err(Failure::Usage(format!("{} has changed since it was checked", self.path.display())))
    }

    /// Reads all of it and checks every job by the service's own rules. `bad` is told what is wrong with which line, and
    /// `sign` from time to time how many lines were read.
    ///
    /// # Errors
    /// When it cannot be read to its end, or `bad` fails.
    pub(crate) fn check(
        &self,
        mut bad: impl FnMut(u64, String) -> Result<(), Failure>,
        sign: impl Fn(u64),
    ) -> Result<Checked, Failure> {
        let mut checked = Checked::default();
        let mut told = Ok(());
        let (mut names, hashes) = (HashSet::new(), RandomState::new());
        let mut defaults = self.defaults.clone();
        let mut bad_defaults = faults_of_defaults(&defaults, MODEL);
        let mut digest = Sha256::new();
        let file = self.file()?;
        let file = BufReader::with_capacity(BUFFER, Digested { file, digest: &mut digest });
        let read = lines::read(file, self.format, |item| {
            let (number, job) = match item {
                Item::Defaults(found) => {
                    defaults = merged(&found, &self.defaults);
                    bad_defaults = faults_of_defaults(&defaults, MODEL);
                    checked.defaults = found;
                    return ControlFlow::Continue(());
                }
                Item::Name(name) => {
                    checked.name = Some(name);
                    return ControlFlow::Continue(());
                }
                Item::Job(number, job) => (number, job),
            };
            if !bad_defaults.is_empty() {
                return ControlFlow::Break(());
            }
            let faults = match job {
                Err(rule) => Some(format!("the line {rule}")),
                Ok(job) => match Entry::parse(job, "", &defaults, MODEL) {
                    Err(errors) => Some(errors.iter().map(fault_text).collect::<Vec<_>>().join("; ")),
                    Ok(Entry { custom_id: Some(id), .. }) if names.len() < MAX_NAMES => {
                        let new = names.insert(hashes.hash_one(id.as_str()));
                        (!new).then(|| format!("custom_id {:?} is that of another line too", id.as_str()))
                    }
                    Ok(_) => None,
                },
            };
            match faults {
                None => checked.good += 1,
                Some(faults) => {
                    checked.bad += 1;
                    told = bad(number, faults);
                }
            }
            if told.is_err() {
                return ControlFlow::Break(());
            }
            if (checked.good + checked.bad).is_multiple_of(STRIDE) {
                sign(checked.good + checked.bad);
            }
            ControlFlow::Continue(())
        });
        self.explain(read)?;
        told?;
        self.unchanged()?;
        if !bad_defaults.is_empty() {
            let faults: Vec<_> = bad_defaults.iter().map(fault_text).collect();
            return Err(Failure::Usage(faults.join("; ")));
        }
        checked.sha256 = hex(&digest.finalize());
        Ok(checked)
    }

    /// Hands each job that can be submitted to `each`, until that breaks. The others are passed over: a check has told
    /// of them.
    ///
    /// # Errors
    /// When it cannot be read to its end, or has changed since it was opened.
    pub(crate) fn lines(&self, mut each: impl FnMut(Line) -> ControlFlow<()>) -> Result<(), Failure> {
        let mut defaults = self.defaults.clone();
        let mut names = HashSet::new();
        let hashes = RandomState::new();
        let file = BufReader::with_capacity(BUFFER, self.file()?);
        self.unchanged()?;
        let read = lines::read(file, self.format, |item| match item {
            Item::Defaults(found) => {
                defaults = merged(&found, &self.defaults);
                ControlFlow::Continue(())
            }
            Item::Job(number, Ok(job)) => {
                let text = job.to_string();
                match Entry::parse(job, "", &defaults, MODEL) {
                    Ok(Entry { custom_id: Some(id), .. })
                        if names.len() < MAX_NAMES && !names.insert(hashes.hash_one(id.as_str())) =>
                    {
                        ControlFlow::Continue(())
                    }
                    Ok(_) => each(Line { number, job: text }),
                    Err(_) => ControlFlow::Continue(()),
                }
            }
            Item::Name(_) | Item::Job(_, Err(_)) => ControlFlow::Continue(()),
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

/// Copies standard input to a file in `directory` that is named after its content, and tells whether it is a new one.
async fn copy_of_input(directory: &Path) -> Result<(PathBuf, bool), Failure> {
    let failed = |error: io::Error| Failure::file(directory, error);
    // It belongs to this future and not to the thread that writes it, so that it is deleted when the command is stopped.
    let copy = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut file = copy.reopen().map_err(failed)?;
    let copying = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        let bytes = io::copy(&mut Digested { file: io::stdin().lock(), digest: &mut digest }, &mut file)?;
        Ok::<_, io::Error>((bytes, hex(&digest.finalize())))
    });
    let copied = copying.await.map_err(|error| Failure::Local(error.to_string()))?;
    let (bytes, digest) = copied.map_err(failed)?;
    let path = directory.join(format!("poster-stdin-{}", &digest[..16]));
    // Another run may read the copy that is there already, and must not find it changed.
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

/// What the first line of a file looks like that is not empty.
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
        // Reading it as CSV says what is wrong where it is separated otherwise than by commas.
        _ if lines::separator(&String::from_utf8_lossy(first)).is_some() => Format::Csv,
        _ => Format::Text,
    })
}

/// The defaults of the file, with those of the command line over them.
pub(super) fn merged(file: &Map<String, Value>, flags: &Map<String, Value>) -> Map<String, Value> {
    let mut all = file.clone();
    all.extend(flags.clone());
    all
}

/// A path with something at its end.
pub(super) fn with_suffix(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// A file that is digested as it is read.
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
