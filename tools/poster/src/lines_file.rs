//! Files of JSON lines whose last line a crash may have cut short.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Opens a file for appending, and ends a torn last line so that it does not spoil the next one.
pub(crate) fn open_lines(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Locks a file against other processes that lock it, as long as it is open.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::Usage(format!("{} is in use by another `poster` process", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(Failure::file(path, error)),
    }
}

/// Appends a line in one write.
pub(crate) fn write_line(mut file: &File, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Calls `each` with the offset and the value of every line that can be read. The others were cut short by a crash.
pub(crate) fn read_lines<T: for<'de> Deserialize<'de>>(path: &Path, mut each: impl FnMut(u64, T)) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut lines = BufReader::new(file);
    let (mut line, mut place) = (Vec::new(), 0);
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Ok(value) = serde_json::from_slice(&line) {
            each(place, value);
        }
        place += line.len() as u64;
        line.clear();
    }
    Ok(())
}
