//! Cancels the jobs of a batch.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::gateway::log_failure;
use shared::aws::{Saved, ServiceError};
use shared::batch::Counts;
use shared::job::Status;
use shared::{Batch, JobId, Problem};

use crate::App;

const AT_ONCE: usize = 16;

/// A request cancels no further jobs after this time. API Gateway waits 29 seconds.
const TIME: Duration = Duration::from_secs(18);

/// Cancels the jobs of a batch that have not started, and returns the new counts. If the table is too slow for that, the
/// request can be repeated.
///
/// The index shows which jobs have started, but it may lag behind. All others are read, including those that it does
/// not know and those that ended without a picture: they may have just been written or retried.
pub(crate) async fn cancel(app: &App, mut batch: Batch) -> Result<Counts, Problem> {
    let (id, end) = (batch.id, Instant::now() + TIME);
    let known = app.table.states_of_batch(id).await.map_err(log_failure(id))?;
    if batch.writing.is_some() {
        // Whoever is still writing jobs reads this note afterwards, and cancels them.
        let now = app.clock.now();
        app.table.note_cancellation(id, now).await.map_err(log_failure(id))?;
        batch.canceled_at = Some(now);
    }
    let batch = &batch;
    let states: Vec<_> = stream::iter(batch.jobs(known))
        .map(|(job, status)| async move {
            match status {
                Some(Status::Running | Status::Succeeded) => Ok(status),
                _ if Instant::now() >= end => Err(Problem::Unavailable { retry_after: Duration::from_secs(1) }),
                _ => cancel_waiting(app, batch, job).await.map_err(log_failure(id)),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    tracing::info!(batch.id = %id, "batch canceled");
    Ok(Counts::of(states.into_iter().flatten()))
}

/// The job's status after it was canceled if it was queued; `None` if it does not count.
async fn cancel_waiting(app: &App, batch: &Batch, id: JobId) -> Result<Option<Status>, ServiceError> {
    let missing = || batch.state_of_missing(app.clock.now());
    let Some(job) = app.table.get(id).await? else { return Ok(missing()) };
    if job.status() != Status::Queued {
        return Ok(Some(job.status()));
    }
    let Ok(canceled) = job.cancel(app.clock.now()) else { return Ok(Some(job.status())) };
    Ok(match app.table.save(&canceled).await? {
        Saved::Stored => {
            app.outbox.try_to_tell(&canceled).await;
            Some(Status::Canceled)
        }
        Saved::MovedOn(current) => Some(current.status()),
        Saved::Gone => missing(),
    })
}
