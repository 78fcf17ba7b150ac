//! The state file: which parts of the input were taken in, and under which names.
//!
//! It is only ever added to, one JSON line at a time, and each line is on the disk before the work goes on. A line that
//! a crash has cut short is as good as none: the part that it was about is sent again under the same key, which the
//! service knows.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::BatchId;
use shared::group::Group;

use crate::failure::Failure;
use crate::lines_file::{open_lines, read_lines, write_line};

/// What all runs over the same input agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The version of the state file.
    pub(crate) version: u32,
    /// The address of the API.
    pub(crate) api: String,
    /// The name of the group that the first parts belong to.
    pub(crate) group: String,
    /// How many parts a group may have. Further parts belong to further groups.
    #[serde(default = "most_parts")]
    pub(crate) parts_per_group: usize,
    /// What a person calls the batch.
    pub(crate) name: String,
    /// The SHA-256 of the input.
    pub(crate) sha256: String,
    /// A digest of the input and of everything that decides how it is cut into parts and what is asked for.
    pub(crate) settings: String,
    /// What stands in for what jobs leave out.
    pub(crate) defaults: Map<String, Value>,
    /// How many jobs a part has at the most.
    pub(crate) chunk: usize,
    /// Where the pictures are saved.
    pub(crate) out: PathBuf,
}

fn most_parts() -> usize {
    Group::MAX_PARTS
}

/// What every state file begins with.
const BEGINNING: &[u8] = b"{\"begin\":";

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Begin(Header),
    Part { chunk: usize, id: BatchId, group: BatchId, lines: Vec<(u64, u64)> },
}

/// A part of the input that was taken in.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Which piece of the input it is, from zero.
    pub(crate) chunk: usize,
    /// The batch that it became.
    pub(crate) id: BatchId,
    /// The group of that batch.
    pub(crate) group: BatchId,
    /// The lines of its jobs, as ranges with both ends.
    pub(crate) lines: Vec<(u64, u64)>,
    /// Which of its jobs are known to have ended: with a saved picture, or without one.
    pub(crate) ended: Vec<bool>,
}

impl Part {
    /// A part with these lines, of which none is known to have ended.
    pub(crate) fn new(chunk: usize, id: BatchId, group: BatchId, lines: Vec<(u64, u64)>) -> Self {
        let jobs: u64 = lines.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum();
        // A state file is no more to be trusted than any other: no part has more than a thousand.
        Self { chunk, id, group, lines, ended: vec![false; jobs.min(shared::batch::MAX_JOBS as u64) as usize] }
    }

    /// How many jobs it has.
    pub(crate) fn jobs(&self) -> usize {
        self.ended.len()
    }

    /// The place of the job on this line.
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

    /// The line of the job at this place.
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

/// Line numbers as ranges with both ends.
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

/// The state file, locked against other runs.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the state file, and tells which parts earlier runs have had taken in.
    ///
    /// # Errors
    /// When another run has it, it is no state file, or it belongs to another input or other settings.
    pub(crate) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Part>), Failure> {
        let failed = |error: io::Error| Failure::file(path, error);
        // Before it is opened to be written to, since that mends its last line.
        check_beginning(path)?;
        let file = open_lines(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Usage(format!("{}: another run is at it", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut journal = Self { file, path: path.to_owned() };
        let (begun, parts) = read(path)?;
        match begun {
            Some(begun) => begun.agrees(header, path)?,
            None => {
                // A first line that was cut short would stay the beginning of the file, and might not look like one.
                if std::fs::read(path).map_err(failed)?.split_inclusive(|&byte| byte == b'\n').count() > 1 {
                    return Err(no_state_file(path));
                }
                journal.file.set_len(0).map_err(failed)?;
                journal.add(&Entry::Begin(header.clone()))?;
            }
        }
        Ok((journal, parts))
    }

    /// Records a part, so that no crash makes it forgotten.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn part(&mut self, part: &Part) -> Result<(), Failure> {
        self.add(&Entry::Part { chunk: part.chunk, id: part.id, group: part.group, lines: part.lines.clone() })
    }

    fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        let added = write_line(&mut self.file, entry).and_then(|()| self.file.sync_data());
        added.map_err(|error| Failure::file(&self.path, error))
    }
}

/// The parts that a state file tells of, and what they agree on.
///
/// # Errors
/// When it cannot be read, or is no state file.
pub(crate) fn read_parts(path: &Path) -> Result<(Header, Vec<Part>), Failure> {
    check_beginning(path)?;
    let (header, parts) = read(path)?;
    header.map(|header| (header, parts)).ok_or_else(|| no_state_file(path))
}

fn read(path: &Path) -> Result<(Option<Header>, Vec<Part>), Failure> {
    let (mut begun, mut parts) = (None, Vec::new());
    read_lines(path, |_, entry| match entry {
        Entry::Begin(header) => begun = Some(header),
        Entry::Part { chunk, id, group, lines } => parts.push(Part::new(chunk, id, group, lines)),
    })
    .map_err(|error| Failure::file(path, error))?;
    Ok((begun, parts))
}

/// Makes sure that what lies at `path` is a state file, or the beginning of one that a crash has cut short, or nothing.
fn check_beginning(path: &Path) -> Result<(), Failure> {
    let mut beginning = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.and_then(|file| file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)),
    }
    .map_err(|error| Failure::file(path, error))?;
    if BEGINNING.starts_with(&beginning) { Ok(()) } else { Err(no_state_file(path)) }
}

fn no_state_file(path: &Path) -> Failure {
    Failure::Usage(format!("{} is no state file of a batch, and is left as it is", path.display()))
}

impl Header {
    /// The place of the group that a piece of the input belongs to.
    pub(crate) fn group_of(&self, chunk: usize) -> usize {
        chunk / self.parts_per_group.max(1)
    }

    /// The name of the group that a piece of the input belongs to, below the 128 characters that it may have.
    pub(crate) fn group_name(&self, chunk: usize) -> String {
        match self.group_of(chunk) {
            0 => self.group.clone(),
            place => format!("{}-{}", self.group, place + 1),
        }
    }

    /// Makes sure that a run with `other` may go on from here.
    fn agrees(&self, other: &Self, path: &Path) -> Result<(), Failure> {
        let other_than = if self.api != other.api {
            format!("for the service at {}", self.api)
        } else if self.sha256 != other.sha256 {
            "over another content of the file, which has changed since".to_owned()
        } else if (&self.settings, self.version, self.parts_per_group)
            != (&other.settings, other.version, other.parts_per_group)
        {
            "with other settings".to_owned()
        } else if self.group != other.group || self.name != other.name {
            format!("under the name {:?}, which --name gives", self.name)
        } else if self.out != other.out {
            format!("with its pictures in {}", self.out.display())
        } else {
            return Ok(());
        };
        let path = path.display();
        Err(Failure::Usage(format!(
            "{path} was begun {other_than}; go on as then, or begin anew with --state and another file"
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
    fn a_run_goes_on_from_what_was_written_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let (mut journal, parts) = Journal::open(&path, &header()).expect("a new state");
        assert!(parts.is_empty());
        let part = Part::new(0, BatchId::new(), BatchId::new(), ranges([1, 2, 5, 7, 8]));
        journal.part(&part).expect("it is written");
        assert!(Journal::open(&path, &header()).is_err_and(|failure| failure.to_string().contains("another run")));
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
    fn a_state_without_a_word_of_groups_has_parts_for_one() {
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
    fn a_file_that_is_no_state_is_left_as_it_is() {
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
    fn lines_and_places_belong_together() {
        let part = Part::new(0, BatchId::new(), BatchId::new(), ranges([1, 2, 5, 7, 8]));
        assert_eq!(part.lines, [(1, 2), (5, 5), (7, 8)]);
        for (index, line) in [1, 2, 5, 7, 8].into_iter().enumerate() {
            assert_eq!((part.line_of(index), part.index_of(line)), (Some(line), Some(index)));
        }
        assert_eq!((part.line_of(5), part.index_of(3)), (None, None));
    }
}
