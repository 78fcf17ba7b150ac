//! Stores the jobs of a checked file and sends their tickets, a thousand at a time.

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::{Saved, SavedBatch, ServiceError};
use shared::batch::Entry;
use shared::file_batch::Admitted;
use shared::job::Membership;
use shared::ticket::Ticket;
use shared::{FileBatch, Job, JobId};
use tokio::time::Instant;

use crate::App;
use crate::lines::{Lines, Next};
use crate::step::{MARGIN, OTHER_AT_WORK, Step, save};

/// The size of the lines that are admitted together, in bytes. It bounds the memory when the jobs are large.
const BYTES_AT_ONCE: u64 = 2 * 1024 * 1024;

const AT_ONCE: usize = 16;

/// Admits jobs until all are admitted or the time is over: first their records, then their tickets, then the batch's
/// record says so. Their ids follow from the batch's id, so a step that is repeated writes nothing twice.
///
/// The batch may be canceled in the meantime. The record is read after the jobs are stored and before their tickets are
/// sent, so each job is canceled either here or by the pass over all jobs, which comes later.
pub(crate) async fn admit(app: &App, batch: &FileBatch, end: Instant) -> Result<Step, ServiceError> {
    let mut lines = Lines::from(app, batch, batch.admitted.position.clone());
    let mut current = batch.clone();
    while Instant::now() + MARGIN < end {
        let id = current.batch.id;
        let Some((entries, none_left)) = next_entries(&mut lines, &current).await? else {
            tracing::error!(batch.id = %id, admitted = current.admitted.jobs, "the file of a batch was replaced or deleted");
            return save(app, current.stop_admission(app.clock.now())).await;
        };
        let jobs = jobs_of(app, &current, entries);
        let stored = app.table.create_all(&jobs).await?;
        let Some(now) = app.table.get_file_batch(id).await? else { return Ok(Step::Gone) };
        if now.batch.canceled_at.is_some() {
            cancel_new(app, stored).await?;
            return Ok(Step::Go(Box::new(now)));
        }
        if !stored.iter().zip(&jobs).all(|(job, wanted)| job.is_as_wanted(wanted)) {
            tracing::error!(batch.id = %id, "a job of an earlier batch with the same key is in the way");
            let ours = stored.into_iter().filter(|job| job.created_at == jobs[0].created_at);
            cancel_new(app, ours.collect()).await?;
            return save(app, current.stop_admission(app.clock.now())).await;
        }
        let tickets: Vec<_> = stored.iter().filter_map(|job| Ticket::for_unfinished(job, None)).collect();
        app.jobs.send_batch(&tickets, &current.batch.owner).await?;
        let admitted = Admitted { jobs: current.admitted.jobs + jobs.len(), position: lines.position() };
        let next = current.admitted(admitted, none_left);
        current = match app.table.save_file_batch(&next).await? {
            SavedBatch::Stored if none_left => {
                tracing::info!(batch.id = %id, jobs = next.batch.total, "batch admitted");
                return Ok(Step::Go(Box::new(next)));
            }
            SavedBatch::Stored => next,
            SavedBatch::MovedOn(current) if current.batch.canceled_at.is_none() => {
                return Ok(Step::Wait(OTHER_AT_WORK));
            }
            SavedBatch::MovedOn(current) => return Ok(Step::Go(current)),
            SavedBatch::Gone => return Ok(Step::Gone),
        };
    }
    Ok(Step::Go(Box::new(current)))
}

/// The next jobs of the file, and whether they are the last; `None` if the file is not the one that was checked.
///
/// Faulty lines are passed over: the check has reported them.
async fn next_entries(lines: &mut Lines<'_>, batch: &FileBatch) -> Result<Option<(Vec<Entry>, bool)>, ServiceError> {
    let begin = lines.position().offset;
    let (mut entries, mut end) = (Vec::new(), begin);
    while entries.len() < batch.jobs_per_part && end - begin < BYTES_AT_ONCE {
        match lines.next().await? {
            Next::Line(line) => {
                end = line.end.offset;
                entries.extend(batch.input.entry(line).ok());
            }
            Next::End => return Ok(Some((entries, true))),
            Next::Replaced => return Ok(None),
        }
    }
    Ok(Some((entries, false)))
}

/// The jobs at the next indexes of the batch.
fn jobs_of(app: &App, batch: &FileBatch, entries: Vec<Entry>) -> Vec<Job> {
    let created_at = batch.started_at.unwrap_or(batch.batch.created_at);
    let job = |(index, entry): (usize, Entry)| {
        let id = JobId::in_batch(batch.batch.id, index);
        let Entry { order, custom_id } = entry;
        let membership = Membership { batch: batch.batch.id, part: index / batch.jobs_per_part, custom_id };
        let job = Job::new(id, batch.batch.owner.clone(), order, created_at, app.deadline, app.retention);
        let (deadline_at, expires_at) = (batch.batch.deadline_at, batch.batch.expires_at);
        Job { membership: Some(membership), deadline_at, expires_at, ..job }
    };
    (batch.admitted.jobs..).zip(entries).map(job).collect()
}

/// Cancels those of the jobs that nobody has changed since they were stored.
async fn cancel_new(app: &App, jobs: Vec<Job>) -> Result<(), ServiceError> {
    let new = jobs.into_iter().filter(|job| job.fence == 0);
    let canceled = new.filter_map(|job| job.cancel(app.clock.now()).ok());
    stream::iter(canceled)
        .map(|job| async move {
            match app.table.save(&job).await? {
                Saved::Stored => app.outbox.tell(&job).await,
                Saved::MovedOn(_) | Saved::Gone => Ok(()),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
