//! The state file of `poster batch`: which batch of the service a file became.
//!
//! It has one line, written when the service has accepted the batch. If a crash keeps it from being written, the next run
//! submits the batch again under the same idempotency key, and the service answers with the batch that it has.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::BatchId;

use crate::failure::{Failure, OfFile};
use crate::lines_file::{lock, write_line};

/// What all runs of a batch must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) api: String,
    pub(crate) name: String,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub(crate) sha256: String,
    /// The other fields of the request, as JSON.
    pub(crate) request: String,
    pub(crate) out: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    poster_batch: BatchId,
    #[serde(flatten)]
    settings: Settings,
}

const BEGINNING: &[u8] = b"{\"poster_batch\":";

#[derive(Debug)]
pub(crate) struct State {
    file: File,
    path: PathBuf,
}

impl State {
    /// Opens the state file, or makes an empty one. Returns the batch that an earlier run submitted. Fails if another process
    /// uses the file, if it is not a state file, or if the run before had other settings.
    pub(crate) fn open(path: &Path, settings: &Settings) -> Result<(Self, Option<BatchId>), Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).of_file(path)?;
        lock(&file, path)?;
        let known = read(&file, path)?;
        if let Some(earlier) = &known {
            earlier.settings.agree(settings, path)?;
        }
        Ok((Self { file, path: path.to_owned() }, known.map(|line| line.poster_batch)))
    }

    pub(crate) fn write(&mut self, batch: BatchId, settings: &Settings) -> Result<(), Failure> {
        let line = Line { poster_batch: batch, settings: settings.clone() };
        let mut file = &self.file;
        let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| write_line(file, &line));
        written.and_then(|()| file.sync_data()).of_file(&self.path)
    }

    /// Forgets the batch, so that the file can be used for another.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        self.file.set_len(0).of_file(&self.path)
    }
}

/// The batch of a state file; `None` if none is recorded yet.
pub(crate) fn batch_of(path: &Path) -> Result<Option<BatchId>, Failure> {
    Ok(read(&File::open(path).of_file(path)?, path)?.map(|line| line.poster_batch))
}

fn read(mut file: &File, path: &Path) -> Result<Option<Line>, Failure> {
    let mut text = Vec::new();
    // A state file is shorter by far. Any other file may be large.
    file.take(1 << 20).read_to_end(&mut text).of_file(path)?;
    file.rewind().of_file(path)?;
    match serde_json::from_slice(&text) {
        Ok(line) => Ok(Some(line)),
        // A crash cut it short.
        Err(_) if BEGINNING.starts_with(&text) || (text.starts_with(BEGINNING) && !text.ends_with(b"\n")) => Ok(None),
        Err(_) => Err(Failure::Usage(format!(
            "{} is not a state file of this version of poster; it was not changed",
            path.display()
        ))),
    }
}

impl Settings {
    /// Fails if a run with `other` must not continue this one.
    fn agree(&self, other: &Self, path: &Path) -> Result<(), Failure> {
        let differences = [
            (self.api != other.api, format!("for the service at {}", self.api)),
            (self.sha256 != other.sha256, "with another content of the input, which has changed since".to_owned()),
            (self.request != other.request, "with other settings".to_owned()),
            (self.name != other.name, format!("under the name {:?} (set it with --name)", self.name)),
            (self.out != other.out, format!("with its pictures in {}", self.out.display())),
        ];
        let found = differences.into_iter().find(|(differs, _)| *differs);
        let Some((_, difference)) = found else { return Ok(()) };
        let path = path.display();
        Err(Failure::Usage(format!(
            "{path} was started {difference}; use the same again, or start over with --state and another file"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            api: "http://127.0.0.1:3000".to_owned(),
            name: "friday".to_owned(),
            sha256: "a".to_owned(),
            request: "{}".to_owned(),
            out: "friday-posters".into(),
        }
    }

    #[test]
    fn a_run_continues_with_the_batch_and_the_settings_of_the_run_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let (mut state, known) = State::open(&path, &settings()).expect("a new state");
        assert_eq!((known, batch_of(&path).expect("it is read")), (None, None));
        let batch = BatchId::new();
        state.write(BatchId::new(), &settings()).expect("it is written");
        state.write(batch, &settings()).expect("it is written");
        let second = State::open(&path, &settings());
        assert!(second.is_err_and(|failure| failure.to_string().contains("in use by another")));
        drop(state);
        assert_eq!(State::open(&path, &settings()).expect("the same state").1, Some(batch));
        assert_eq!(batch_of(&path).expect("it is read"), Some(batch));
        for other in [
            Settings { sha256: "c".to_owned(), ..settings() },
            Settings { api: "http://b.example".to_owned(), ..settings() },
            Settings { request: "c".to_owned(), ..settings() },
            Settings { name: "c".to_owned(), ..settings() },
            Settings { out: "c".into(), ..settings() },
        ] {
            assert!(State::open(&path, &other).is_err(), "{other:?}");
        }
        let (mut state, _) = State::open(&path, &settings()).expect("the same state");
        state.clear().expect("it is emptied");
        drop(state);
        assert!(State::open(&path, &Settings { name: "c".to_owned(), ..settings() }).is_ok_and(|(_, id)| id.is_none()));
    }

    #[test]
    fn a_file_that_is_not_a_state_file_is_not_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        for (content, is_state) in [
            ("{\"prompt\":\"x\"}\n{", false),
            ("{}", false),
            ("A heist", false),
            ("{\"begin\":{\"version\":2}}\n", false),
            ("{\"poster_batch\":\"of another version\"}\n", false),
            ("", true),
            ("{\"post", true),
            ("{\"poster_batch\":\"77981ec5-c758-89cb", true),
        ] {
            std::fs::write(&path, content).expect("it is written");
            assert_eq!(State::open(&path, &settings()).is_ok(), is_state, "{content:?}");
            assert_eq!(std::fs::read_to_string(&path).expect("it is read"), content);
        }
    }
}
