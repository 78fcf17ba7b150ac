//! Cancels the jobs of a batch.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::gateway::log_failure;
use shared::aws::{Saved, ServiceError};
use shared::batch::Counts;
use shared::group::{BatchOrGroup, GroupCursor};
use shared::job::Status;
use shared::{Batch, JobId, Problem};

use crate::App;

const AT_ONCE: usize = 16;

/// Cancels the jobs of a batch that have not started. Returns the new counts, and the cursor of the next request if a
/// group was too large for this one.
pub(crate) async fn cancel(
    app: &App,
    batch: &BatchOrGroup,
    mut cursor: GroupCursor,
) -> Result<(Counts, Option<String>), Problem> {
    let mut states = Vec::with_capacity(batch.total());
    let before = app.table.states_of_batches(batch.parts()).await.map_err(log_failure(batch.id()))?;
    for (part, known) in batch.parts().iter().zip(before) {
        let Some(limit) = cursor.turn_of(part, Instant::now()) else {
            states.extend(part.states(known, app.clock.now()));
            continue;
        };
        let (canceled, broke_off) = cancel_part(app, part, known, limit).await.map_err(log_failure(part.id))?;
        tracing::info!(batch.id = %part.id, "batch canceled");
        if broke_off {
            cursor.stop_at(part);
        }
        states.extend(canceled);
    }
    Ok((Counts::of(states), cursor.next_cursor()))
}

/// Cancels the queued jobs of a part until `limit`. Returns the statuses of all its jobs, and whether time ran out.
///
/// The index shows which jobs have started, but it may lag behind. All others are read, including those that it does
/// not know and those that ended without a picture: they may have just been written or retried.
async fn cancel_part(
    app: &App,
    part: &Batch,
    known: Vec<(JobId, Status)>,
    limit: Instant,
) -> Result<(Vec<Status>, bool), ServiceError> {
    let mut part = part.clone();
    if part.writing.is_some() {
        // Whoever is still writing jobs reads this note afterwards, and cancels them.
        let now = app.clock.now();
        app.table.note_cancellation(part.id, now).await?;
        part.canceled_at = Some(now);
    }
    let part = &part;
    let jobs: Vec<_> = stream::iter(part.jobs(known))
        .map(|(id, status)| async move {
            Ok::<_, ServiceError>(match status {
                Some(Status::Running | Status::Succeeded) => (status, false),
                _ if Instant::now() >= limit => (status.or(Some(Status::Queued)), true),
                _ => (cancel_waiting(app, part, id).await?, false),
            })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let broke_off = jobs.iter().any(|(_, left)| *left);
    Ok((jobs.into_iter().filter_map(|(status, _)| status).collect(), broke_off))
}

/// The job's status after it was canceled if it was queued; `None` if it does not count.
async fn cancel_waiting(app: &App, part: &Batch, id: JobId) -> Result<Option<Status>, ServiceError> {
    let missing = || part.state_of_missing(app.clock.now());
    let Some(job) = app.table.get(id).await? else { return Ok(missing()) };
    if job.status() != Status::Queued {
        return Ok(Some(job.status()));
    }
    let Ok(canceled) = job.cancel(app.clock.now()) else { return Ok(Some(job.status())) };
    Ok(match app.table.save(&canceled).await? {
        Saved::Stored => Some(Status::Canceled),
        Saved::MovedOn(current) => Some(current.status()),
        Saved::Gone => missing(),
    })
}
