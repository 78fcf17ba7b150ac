//! The lines of a batch's file, read from the bucket piece by piece.

use shared::BatchId;
use shared::aws::{BatchFiles, ServiceError};
use shared::batch::{Input, InputFile};
use shared::batch_file::{Line, Position, Reader};

use crate::App;

/// Reads the lines of a batch's file.
pub(crate) struct Lines<'a> {
    files: &'a BatchFiles,
    batch: BatchId,
    file: Option<&'a InputFile>,
    reader: Reader,
    /// The first byte that was not read.
    offset: u64,
    finished: bool,
}

/// What comes next in a file.
pub(crate) enum Next {
    /// A line with a job or a fault.
    Line(Line),
    /// The file has ended.
    End,
    /// The file was replaced or deleted after the batch was started.
    Replaced,
}

impl<'a> Lines<'a> {
    /// The lines of the batch's `input` from `position`.
    pub(crate) fn from(app: &'a App, batch: BatchId, input: &'a Input, position: Position) -> Self {
        Self {
            files: &app.files,
            batch,
            file: input.file.as_ref(),
            offset: position.offset,
            reader: Reader::resume(input.format, position),
            finished: false,
        }
    }

    /// The next line.
    pub(crate) async fn next(&mut self) -> Result<Next, ServiceError> {
        loop {
            if let Some(line) = self.reader.next_line() {
                return Ok(Next::Line(line));
            }
            if self.finished {
                return Ok(Next::End);
            }
            let Some(file) = self.file else { return Ok(Next::Replaced) };
            if self.offset < file.bytes {
                let Some(bytes) = self.files.read(self.batch, file, self.offset).await? else {
                    return Ok(Next::Replaced);
                };
                self.offset += bytes.len() as u64;
                self.reader.push(&bytes);
            } else {
                self.reader.finish();
                self.finished = true;
            }
        }
    }

    /// Whether the last line ended the reading, because the file is not what it is said to be.
    pub(crate) fn are_unreadable(&self) -> bool {
        self.reader.is_unreadable()
    }

    /// The position after the last line.
    pub(crate) fn position(&self) -> Position {
        self.reader.position()
    }
}
