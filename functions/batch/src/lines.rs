use shared::BatchId;
use shared::aws::{BatchFiles, Result};
use shared::batch::{Input, InputFile};
use shared::batch_file::{Line, Position, Reader};

use crate::App;

pub(crate) struct Lines<'a> {
    files: &'a BatchFiles,
    batch: BatchId,
    file: Option<&'a InputFile>,
    pub(crate) reader: Reader,
    /// The first unread byte.
    offset: u64,
    finished: bool,
}

pub(crate) enum Next {
    Line(Line),
    End,
    /// The file was replaced or deleted after the batch was started.
    Replaced,
}

impl<'a> Lines<'a> {
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

    pub(crate) async fn next(&mut self) -> Result<Next> {
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
}
