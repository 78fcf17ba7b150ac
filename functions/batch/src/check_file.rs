use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use shared::aws::{Document, Result, Saved, Writer};
use shared::batch::{Checked, Entry, Input, Stage};
use shared::batch_file::{LineFault, Position};
use shared::{Batch, BatchId};
use tokio::time::Instant;

use crate::App;
use crate::lines::{Lines, Next};
use crate::step::{MARGIN, OTHER_AT_WORK, Step, save};

const BETWEEN_SAVES: Duration = Duration::from_secs(5);

const REPLACED: &str = "cannot be read: the file was replaced or deleted after the batch was started";

const TOO_SLOW: &str = "was not reached in time: submit the file again later, or in several batches";

/// Checks every line of the file before any job exists. The largest file takes a fraction of an invocation. If the
/// bucket is too slow for that, the batch becomes invalid, because another invocation might be no faster.
pub(crate) async fn check(app: &App, batch: &Batch, input: &Input, end: Instant) -> Result<Step> {
    let mut lines = Lines::from(app, batch.id, input, Position::default());
    let (seen, hasher) = (HashSet::new(), RandomState::new());
    let mut check = Check { app, batch: batch.id, checked: Checked::default(), document: None, seen, hasher };
    let mut batch = batch.clone();
    let mut saved_at = Instant::now();
    loop {
        match lines.next().await? {
            Next::Line(line) => {
                let number = line.number;
                match batch.entry(input, line) {
                    Ok(entry) => check.job(number, &entry).await?,
                    Err(faults) => {
                        check.checked.is_of_file |= lines.reader.is_unreadable();
                        check.faults(faults).await?;
                    }
                }
            }
            Next::End => break,
            Next::Replaced => {
                check.fault(lines.reader.position().lines + 1, "", REPLACED.to_owned()).await?;
                break;
            }
        }
        let now = Instant::now();
        if now + MARGIN >= end {
            tracing::error!(batch.id = %batch.id, "cannot check a file within one invocation");
            check.fault(lines.reader.position().lines + 1, "", TOO_SLOW.to_owned()).await?;
            break;
        }
        if now - saved_at >= BETWEEN_SAVES {
            saved_at = now;
            check.checked.lines = lines.reader.position().lines;
            let next = batch.checking(check.checked.clone());
            batch = match app.table.save_batch(&next).await? {
                Saved::Stored => next,
                Saved::MovedOn(current) if current.stage == Stage::Checking => {
                    return Ok(Step::Wait(OTHER_AT_WORK));
                }
                Saved::MovedOn(current) => return Ok(Step::Go(current)),
                Saved::Gone => return Ok(Step::Gone),
            };
        }
    }
    check.checked.lines = lines.reader.position().lines;
    if check.checked.jobs == 0 && check.checked.faults == 0 {
        check.fault(1, "", "is missing: the file has no jobs".to_owned()).await?;
    }
    let checked = check.finish().await?;
    save(app, batch.checked(checked)).await
}

struct Check<'a> {
    app: &'a App,
    batch: BatchId,
    checked: Checked,
    /// `None` before the first fault.
    document: Option<Writer>,
    /// Digests, as a million ids may take 256 MB. Two of a million share one with a probability of 1 in 36 million.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Check<'_> {
    async fn job(&mut self, line: u64, entry: &Entry) -> Result<()> {
        if let Some(id) = &entry.custom_id
            && !self.seen.insert(self.hasher.hash_one(id))
        {
            let detail = "must be unique in the file, but an earlier line has the same".to_owned();
            return self.fault(line, "/custom_id", detail).await;
        }
        self.checked.jobs += 1;
        Ok(())
    }

    async fn fault(&mut self, line: u64, pointer: &str, detail: String) -> Result<()> {
        self.checked.is_of_file = true;
        self.faults(vec![LineFault { line, pointer: pointer.to_owned(), detail }]).await
    }

    async fn faults(&mut self, faults: Vec<LineFault>) -> Result<()> {
        for fault in faults {
            let document = self.document.get_or_insert_with(|| self.app.files.write(self.batch, Document::Faults));
            document.line(&fault).await?;
            self.checked.fault(fault);
        }
        Ok(())
    }

    async fn finish(self) -> Result<Checked> {
        if let Some(document) = self.document {
            document.finish().await?;
        }
        Ok(self.checked)
    }
}
