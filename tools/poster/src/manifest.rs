//! The file `posters.ndjson` beside saved pictures, which describes each of them.
//!
//! A picture is downloaded to a temporary file, then its line is written, then the file gets its name. So every named
//! picture has a line, and if a crash comes before the naming, the next run names the picture instead of downloading it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::{BatchId, JobId};

use crate::digest::digest;
use crate::failure::{Failure, OfFile};
use crate::lines_file::{lock, open_lines, read_lines, write_line};

pub(crate) const FILE: &str = "posters.ndjson";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Picture {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) job: JobId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<BatchId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    pub(crate) prompt: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

#[derive(Debug)]
pub(crate) struct Manifest {
    file: File,
    pub(crate) directory: PathBuf,
}

impl Manifest {
    /// Opens the manifest of `directory`, and makes both if they are missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory).of_file(directory)?;
        let path = directory.join(FILE);
        Ok(Self { file: open_lines(&path).of_file(&path)?, directory: directory.to_owned() })
    }

    /// Keeps other batches out until this one is closed. Two runs of one batch would write the same temporary files.
    pub(crate) fn lock(&self) -> Result<(), Failure> {
        lock(&self.file, &self.directory.join(FILE))
    }

    pub(crate) fn add(&self, picture: &Picture) -> Result<(), Failure> {
        write_line(&self.file, picture).of_file(&self.directory.join(FILE))
    }
}

/// Calls `each` with every picture, in the order in which they were saved, and the offset at which [`Lines`] finds it.
pub(crate) fn read(directory: &Path, each: impl FnMut(u64, Picture)) -> Result<(), Failure> {
    let path = directory.join(FILE);
    read_lines(&path, each).of_file(&path)
}

/// A manifest whose lines are read in any order.
#[derive(Debug)]
pub(crate) struct Lines {
    file: BufReader<File>,
    at: u64,
    path: PathBuf,
}

impl Lines {
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        Ok(Self { file: BufReader::with_capacity(256 * 1024, File::open(&path).of_file(&path)?), at: 0, path })
    }

    /// The picture whose line begins at this offset.
    pub(crate) fn at(&mut self, place: u64) -> Result<Picture, Failure> {
        let mut line = Vec::new();
        // A relative seek keeps the buffer, so lines close to each other are read from the disk once.
        let read = self.file.seek_relative(place.wrapping_sub(self.at).cast_signed());
        let read = read.and_then(|()| self.file.read_until(b'\n', &mut line));
        self.at = place + line.len() as u64;
        read.and_then(|_| Ok(serde_json::from_slice(&line)?)).of_file(&self.path)
    }
}

impl Picture {
    /// Whether the directory holds this picture unchanged. If only the name is missing, the file gets it.
    pub(crate) fn is_in(&self, directory: &Path) -> bool {
        // A manifest must not name a file outside of its directory.
        if Path::new(&self.file).file_name() != Some(self.file.as_ref()) {
            return false;
        }
        let path = directory.join(&self.file);
        self.is_at(&path) || {
            let unnamed = unnamed(directory, &self.file);
            self.is_at(&unnamed) && std::fs::rename(unnamed, path).is_ok()
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let size = std::fs::metadata(path).map(|metadata| metadata.len());
        let sha256 = || File::open(path).and_then(|file| digest(file, |_| Ok(())));
        size.is_ok_and(|size| size == self.bytes) && sha256().is_ok_and(|(_, sha256)| sha256 == self.sha256)
    }
}

/// The temporary file of a picture that has no name yet.
pub(crate) fn unnamed(directory: &Path, file: &str) -> PathBuf {
    directory.join(format!(".{file}.part"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sha2::{Digest, Sha256};
    use shared::text::hex;

    use super::*;

    fn picture(file: &str, content: &[u8]) -> Picture {
        Picture {
            file: file.to_owned(),
            bytes: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
            job: JobId::new(),
            batch: None,
            line: Some(7),
            title: None,
            prompt: "A heist".to_owned(),
            width: 1,
            height: 1,
        }
    }

    #[test]
    fn one_batch_at_a_time_saves_to_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let [first, second] = [(); 2].map(|()| Manifest::open(directory.path()).expect("a manifest"));
        first.lock().expect("nobody else uses it");
        assert!(second.lock().is_err_and(|failure| failure.to_string().contains("in use by another")));
        drop(first);
        second.lock().expect("nobody else uses it any more");
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut manifest = Manifest::open(directory.path()).expect("a manifest");
        manifest.add(&picture("a.png", b"a")).expect("it is written");
        manifest.file.write_all(b"{\"file\":\"b.p").expect("it is written");
        drop(manifest);
        let manifest = Manifest::open(directory.path()).expect("a manifest");
        manifest.add(&picture("c.png", b"c")).expect("it is written");
        let mut files = Vec::new();
        read(directory.path(), |_, picture| files.push(picture.file)).expect("it is read");
        assert_eq!(files, ["a.png", "c.png"]);
        let mut places = Vec::new();
        read(directory.path(), |place, picture| places.push((picture.file, place))).expect("it is read");
        let mut lines = Lines::open(directory.path()).expect("it is there");
        for (file, place) in places.into_iter().rev() {
            assert_eq!(lines.at(place).expect("it is read").file, file);
        }
    }

    #[test]
    fn a_picture_counts_only_if_it_is_complete() {
        let directory = tempfile::tempdir().expect("a directory");
        let poster = picture("a.png", b"poster");
        assert!(!poster.is_in(directory.path()));
        std::fs::write(unnamed(directory.path(), "a.png"), "poster").expect("it is written");
        assert!(poster.is_in(directory.path()), "a picture without its name gets it");
        assert!(directory.path().join("a.png").exists());
        for other in ["paster", "poste"] {
            std::fs::write(directory.path().join("a.png"), other).expect("it is written");
            assert!(!poster.is_in(directory.path()), "{other}");
        }
        assert!(!picture("../a.png", b"x").is_in(directory.path()));
    }
}
