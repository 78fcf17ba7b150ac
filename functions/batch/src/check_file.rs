//! Checks every line of a batch's file before any of its jobs exists.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use shared::aws::{Document, SavedBatch, ServiceError, Writer};
use shared::batch::{Checked, Entry, Input, Stage};
use shared::batch_file::{LineFault, Position};
use shared::{Batch, BatchId};
use tokio::time::Instant;

use crate::App;
use crate::lines::{Lines, Next};
use crate::step::{MARGIN, OTHER_AT_WORK, Step, save};

/// How often the progress is recorded.
const BETWEEN_SAVES: Duration = Duration::from_secs(5);

/// What is wrong with a file that is no longer the one that the batch was started with.
const REPLACED: &str = "cannot be read: the file was replaced or deleted after the batch was started";

/// What is wrong with a file that takes longer than an invocation.
const TOO_SLOW: &str = "was not reached in time: submit the file again later, or in several batches";

/// Checks the whole file. An invocation that is interrupted leaves nothing behind, so the next one begins anew.
///
/// The largest file takes a fraction of the time that an invocation has. If the bucket is so slow that this does not
/// suffice, the batch is invalid: another invocation might be no faster, and the batch would be checked for ever.
pub(crate) async fn check(app: &App, batch: &Batch, input: &Input, end: Instant) -> Result<Step, ServiceError> {
    let mut lines = Lines::from(app, batch.id, input, Position::default());
    let mut check = Check::new(app, batch.id);
    let mut batch = batch.clone();
    let mut saved_at = Instant::now();
    loop {
        match lines.next().await? {
            Next::Line(line) => {
                let number = line.number;
                match batch.entry(input, line) {
                    Ok(entry) => check.job(number, &entry).await?,
                    Err(faults) => {
                        check.checked.is_of_file |= lines.are_unreadable();
                        check.faults(faults).await?;
                    }
                }
            }
            Next::End => break,
            Next::Replaced => {
                check.fault(lines.position().lines + 1, "", REPLACED.to_owned()).await?;
                break;
            }
        }
        let now = Instant::now();
        if now + MARGIN >= end {
            tracing::error!(batch.id = %batch.id, "cannot check a file within one invocation");
            check.fault(lines.position().lines + 1, "", TOO_SLOW.to_owned()).await?;
            break;
        }
        if now - saved_at >= BETWEEN_SAVES {
            saved_at = now;
            check.checked.lines = lines.position().lines;
            let next = batch.checking(check.checked.clone());
            batch = match app.table.save_batch(&next).await? {
                SavedBatch::Stored => next,
                SavedBatch::MovedOn(current) if current.stage == Stage::Checking => {
                    return Ok(Step::Wait(OTHER_AT_WORK));
                }
                SavedBatch::MovedOn(current) => return Ok(Step::Go(current)),
                SavedBatch::Gone => return Ok(Step::Gone),
            };
        }
    }
    check.checked.lines = lines.position().lines;
    if check.checked.jobs == 0 && check.checked.faults == 0 {
        check.fault(1, "", "is missing: the file has no jobs".to_owned()).await?;
    }
    let checked = check.finish().await?;
    save(app, batch.checked(checked)).await
}

/// What was found so far.
struct Check<'a> {
    app: &'a App,
    batch: BatchId,
    checked: Checked,
    /// All faults; `None` before the first.
    document: Option<Writer>,
    /// Digests of the custom ids, as a million of them may take 256 MB. That two ids in a million share a digest has a
    /// probability of 1 in 36 million.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl<'a> Check<'a> {
    fn new(app: &'a App, batch: BatchId) -> Self {
        Self {
            app,
            batch,
            checked: Checked::default(),
            document: None,
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    async fn job(&mut self, line: u64, entry: &Entry) -> Result<(), ServiceError> {
        if let Some(id) = &entry.custom_id
            && !self.seen.insert(self.hasher.hash_one(id))
        {
            let detail = "must be unique in the file, but an earlier line has the same".to_owned();
            return self.fault(line, "/custom_id", detail).await;
        }
        self.checked.jobs += 1;
        Ok(())
    }

    /// Adds a fault of the file as a whole.
    async fn fault(&mut self, line: u64, pointer: &str, detail: String) -> Result<(), ServiceError> {
        self.checked.is_of_file = true;
        self.faults(vec![LineFault { line, pointer: pointer.to_owned(), detail }]).await
    }

    async fn faults(&mut self, faults: Vec<LineFault>) -> Result<(), ServiceError> {
        for fault in faults {
            let document = self.document.get_or_insert_with(|| self.app.files.write(self.batch, Document::Faults));
            document.line(&fault).await?;
            self.checked.fault(fault);
        }
        Ok(())
    }

    async fn finish(self) -> Result<Checked, ServiceError> {
        if let Some(document) = self.document {
            document.finish().await?;
        }
        Ok(self.checked)
    }
}
