//! The state file: which parts of the input were submitted, and their ids.
//!
//! It is only appended to, one JSON line at a time, and each line is on the disk before the work continues. If a crash
//! cuts a line short, its part is sent again under the same idempotency key, which the service recognizes.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::BatchId;
use shared::group::Group;

use crate::failure::Failure;
use crate::lines_file::{open_lines, read_lines, write_line};

/// What all runs over the same input must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) api: String,
    /// The name of the group that the first parts belong to.
    pub(crate) group: String,
    /// How many parts a group may have. The parts behind belong to further groups.
    #[serde(default = "most_parts")]
    pub(crate) parts_per_group: usize,
    pub(crate) name: String,
    pub(crate) sha256: String,
    /// A digest of the input, its format, the defaults and the chunk size.
    pub(crate) settings: String,
    /// The fields for jobs that leave them out.
    pub(crate) defaults: Map<String, Value>,
    /// The most jobs of a part.
    pub(crate) chunk: usize,
    pub(crate) out: PathBuf,
}

fn most_parts() -> usize {
    Group::MAX_PARTS
}

const BEGINNING: &[u8] = b"{\"begin\":";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Begin(Header),
    Part { chunk: usize, id: BatchId, group: BatchId, lines: Vec<(u64, u64)> },
}

/// A part of the input that was submitted: a batch of the service.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The number of its chunk of the input, from zero.
    pub(crate) chunk: usize,
    pub(crate) id: BatchId,
    pub(crate) group: BatchId,
    /// The lines of its jobs, as inclusive ranges.
    pub(crate) lines: Vec<(u64, u64)>,
    /// Which of its jobs are known to have ended: with a saved picture, or as failed.
    pub(crate) ended: Vec<bool>,
}

impl Part {
    /// A part of which no job is known to have ended.
    pub(crate) fn new(chunk: usize, id: BatchId, group: BatchId, lines: Vec<(u64, u64)>) -> Self {
        let jobs: u64 = lines.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum();
        // The state file may be damaged: no part has more than a thousand jobs.
        Self { chunk, id, group, lines, ended: vec![false; jobs.min(shared::batch::MAX_JOBS as u64) as usize] }
    }

    pub(crate) fn jobs(&self) -> usize {
        self.ended.len()
    }

    /// The index of the job on this line.
    pub(crate) fn index_of(&self, line: u64) -> Option<usize> {
        let mut before = 0;
        for &(first, last) in &self.lines {
            if (first..=last).contains(&line) {
                return usize::try_from(before + line - first).ok().filter(|index| *index < self.jobs());
            }
            before += last.saturating_sub(first) + 1;
        }
        None
    }

    /// The line of the job with this index.
    pub(crate) fn line_of(&self, index: usize) -> Option<u64> {
        let mut left = index as u64;
        for &(first, last) in &self.lines {
            let lines = last.saturating_sub(first) + 1;
            if left < lines {
                return Some(first + left);
            }
            left -= lines;
        }
        None
    }
}

pub(crate) fn ranges(lines: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    ranges
}

/// The state file, locked against other processes.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the state file, or makes a new one. Returns the parts that earlier runs submitted. Fails if another process uses
    /// the file, if it is not a state file, or if it belongs to another input or other settings.
    pub(crate) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Part>), Failure> {
        let failed = |error: io::Error| Failure::file(path, error);
        // Before it is opened for writing, which ends a torn last line.
        check_beginning(path)?;
        let file = open_lines(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Usage(format!("{} is in use by another `poster` process", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut journal = Self { file, path: path.to_owned() };
        let (earlier, parts) = read(path)?;
        match earlier {
            Some(earlier) => earlier.agrees(header, path)?,
            None => {
                // A torn first line is overwritten, since the file would begin with it.
                if std::fs::read(path).map_err(failed)?.split_inclusive(|&byte| byte == b'\n').count() > 1 {
                    return Err(not_a_state_file(path));
                }
                journal.file.set_len(0).map_err(failed)?;
                journal.add(&Entry::Begin(header.clone()))?;
            }
        }
        Ok((journal, parts))
    }

    pub(crate) fn part(&mut self, part: &Part) -> Result<(), Failure> {
        self.add(&Entry::Part { chunk: part.chunk, id: part.id, group: part.group, lines: part.lines.clone() })
    }

    fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        let added = write_line(&mut self.file, entry).and_then(|()| self.file.sync_data());
        added.map_err(|error| Failure::file(&self.path, error))
    }
}

/// The header and the parts of a state file.
pub(crate) fn read_parts(path: &Path) -> Result<(Header, Vec<Part>), Failure> {
    check_beginning(path)?;
    let (header, parts) = read(path)?;
    header.map(|header| (header, parts)).ok_or_else(|| not_a_state_file(path))
}

fn read(path: &Path) -> Result<(Option<Header>, Vec<Part>), Failure> {
    let (mut header, mut parts) = (None, Vec::new());
    read_lines(path, |_, entry| match entry {
        Entry::Begin(found) => header = Some(found),
        Entry::Part { chunk, id, group, lines } => parts.push(Part::new(chunk, id, group, lines)),
    })
    .map_err(|error| Failure::file(path, error))?;
    Ok((header, parts))
}

/// Fails if there is a file at `path` that is neither a state file nor the beginning of one that a crash cut short.
fn check_beginning(path: &Path) -> Result<(), Failure> {
    let mut beginning = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.and_then(|file| file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)),
    }
    .map_err(|error| Failure::file(path, error))?;
    if BEGINNING.starts_with(&beginning) { Ok(()) } else { Err(not_a_state_file(path)) }
}

fn not_a_state_file(path: &Path) -> Failure {
    Failure::Usage(format!("{} is not a poster state file; it was not changed", path.display()))
}

impl Header {
    /// The number of the group that a chunk belongs to, from zero.
    pub(crate) fn group_of(&self, chunk: usize) -> usize {
        chunk / self.parts_per_group.max(1)
    }

    pub(crate) fn group_name(&self, chunk: usize) -> String {
        match self.group_of(chunk) {
            0 => self.group.clone(),
            place => format!("{}-{}", self.group, place + 1),
        }
    }

    /// Fails if a run with `other` must not continue this one.
    fn agrees(&self, other: &Self, path: &Path) -> Result<(), Failure> {
        let difference = if self.api != other.api {
            format!("for the service at {}", self.api)
        } else if self.sha256 != other.sha256 {
            "with another content of the input, which has changed since".to_owned()
        } else if (&self.settings, self.version, self.parts_per_group)
            != (&other.settings, other.version, other.parts_per_group)
        {
            "with other settings".to_owned()
        } else if self.group != other.group || self.name != other.name {
            format!("under the name {:?} (set it with --name)", self.name)
        } else if self.out != other.out {
            format!("with its pictures in {}", self.out.display())
        } else {
            return Ok(());
        };
        let path = path.display();
        Err(Failure::Usage(format!(
            "{path} was started {difference}; use the same again, or start over with --state and another file"
        )))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    pub(crate) fn header() -> Header {
        Header {
            version: 1,
            api: "http://127.0.0.1:3000".to_owned(),
            group: "friday-1".to_owned(),
            parts_per_group: 2,
            name: "friday".to_owned(),
            sha256: "a".to_owned(),
            settings: "b".to_owned(),
            defaults: Map::new(),
            chunk: 3,
            out: "friday-posters".into(),
        }
    }

    #[test]
    fn a_run_continues_from_the_lines_that_were_written_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let (mut journal, parts) = Journal::open(&path, &header()).expect("a new state");
        assert!(parts.is_empty());
        let part = Part::new(0, BatchId::new(), BatchId::new(), ranges([1, 2, 5, 7, 8]));
        journal.part(&part).expect("it is written");
        assert!(
            Journal::open(&path, &header()).is_err_and(|failure| failure.to_string().contains("in use by another"))
        );
        journal.file.write_all(b"{\"part\":{\"id\":\"").expect("it is written");
        drop(journal);
        let (journal, parts) = Journal::open(&path, &header()).expect("the same state");
        assert_eq!(parts.iter().map(|part| (part.id, part.jobs())).collect::<Vec<_>>(), [(part.id, 5)]);
        drop(journal);
        for other in [
            Header { sha256: "c".to_owned(), ..header() },
            Header { api: "http://b.example".to_owned(), ..header() },
            Header { settings: "c".to_owned(), ..header() },
            Header { parts_per_group: 3, ..header() },
        ] {
            assert!(Journal::open(&path, &other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_state_of_an_older_version_has_groups_of_the_usual_size() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let mut begun = serde_json::to_value(Entry::Begin(header())).expect("it is JSON");
        begun["begin"].as_object_mut().expect("an object").remove("parts_per_group");
        std::fs::write(&path, format!("{begun}\n")).expect("it is written");
        let header = Header { parts_per_group: Group::MAX_PARTS, ..header() };
        assert!(Journal::open(&path, &header).is_ok());
        assert_eq!([0, 249, 250, 500].map(|chunk| header.group_of(chunk)), [0, 0, 1, 2]);
        assert_eq!([249, 250].map(|chunk| header.group_name(chunk)), ["friday-1", "friday-1-2"]);
    }

    #[test]
    fn a_file_that_is_not_a_state_file_is_not_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        for (content, is_state) in [
            ("{\"prompt\":\"x\"}\n{", false),
            ("{}", false),
            ("A heist", false),
            ("{\"begin\":\"of another version\"}\n{\"and\":1}\n", false),
            ("", true),
            ("{\"beg", true),
            ("{\"begin\":{\"version\":1", true),
        ] {
            std::fs::write(&path, content).expect("it is written");
            let opened = Journal::open(&path, &header());
            assert_eq!(opened.is_ok(), is_state, "{content:?}");
            let kept = std::fs::read_to_string(&path).expect("it is read");
            assert_eq!(kept == content, !is_state, "{content:?} became {kept:?}");
            drop(opened);
            assert_eq!(Journal::open(&path, &header()).is_ok(), is_state, "{content:?} the second time");
        }
    }

    #[test]
    fn lines_and_indexes_belong_together() {
        let part = Part::new(0, BatchId::new(), BatchId::new(), ranges([1, 2, 5, 7, 8]));
        assert_eq!(part.lines, [(1, 2), (5, 5), (7, 8)]);
        for (index, line) in [1, 2, 5, 7, 8].into_iter().enumerate() {
            assert_eq!((part.line_of(index), part.index_of(line)), (Some(line), Some(index)));
        }
        assert_eq!((part.line_of(5), part.index_of(3)), (None, None));
    }
}
