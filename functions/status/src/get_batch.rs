//! Gets a batch for its owner.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::gateway::log_failure;
use shared::aws::{AnyBatch, ServiceError};
use shared::batch::Counts;
use shared::job::Status;
use shared::ticket::BatchTicket;
use shared::{Batch, BatchId, JobId, Owner, Problem, Timestamp};

use crate::{App, get_job};

/// The shortest possible deadline. No job of a younger batch is overdue.
const LEAST_DEADLINE: Duration = Duration::from_secs(3600);

/// How many unfinished jobs of a batch one request checks for their deadline.
const SAMPLE: usize = 25;

/// A batch is over when its jobs' deadline has passed. If it is still open after this time, its ticket was lost.
const LONGEST_CLEANUP: Duration = Duration::from_secs(3600);

/// Whether a batch that the function `batch` still works on has lost its ticket.
pub(crate) fn is_ticket_lost(batch: &Batch, now: Timestamp) -> bool {
    batch.deadline_at + LONGEST_CLEANUP <= now
}

/// Sends a ticket of a batch. An extra one does no harm.
pub(crate) async fn send_ticket(app: &App, batch: &Batch) -> Result<(), Problem> {
    app.batches.send_batch_ticket(&BatchTicket { batch: batch.id }, &batch.owner).await.map_err(log_failure(batch.id))
}

pub(crate) async fn get(app: &App, id: BatchId, owner: &Owner) -> Result<AnyBatch, Problem> {
    let batch = app.table.get_owned_batch(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    batch.ok_or(Problem::NotFound)
}

/// Counts the statuses of the batch's jobs.
///
/// Long after the submission, some jobs that seem unfinished are read one by one, so that a job whose ticket was lost
/// does not keep its batch open forever.
pub(crate) async fn count(app: &App, batch: &Batch) -> Result<Counts, Problem> {
    let now = app.clock.now();
    if batch.webhook_for_end().is_some() && is_ticket_lost(batch, now) {
        send_ticket(app, batch).await?;
    }
    let found = app.table.states_of_batch(batch.id).await.map_err(log_failure(batch.id))?;
    let missing = batch.states_of_missing(found.len(), now);
    let old = now.since(batch.created_at) >= LEAST_DEADLINE;
    let mut looks = SAMPLE;
    let states = found.into_iter().map(|(id, status)| {
        let look = old && looks > 0 && status <= Status::Running;
        looks -= usize::from(look);
        async move { if look { status_now(app, id).await } else { Ok(Some(status)) } }
    });
    let states = stream::iter(states).buffer_unordered(SAMPLE).try_collect::<Vec<_>>().await;
    Ok(Counts::of(states.map_err(log_failure(batch.id))?.into_iter().flatten().chain(missing)))
}

/// The status of a job, which is ended first if it is overdue; `None` if its record was deleted.
async fn status_now(app: &App, id: JobId) -> Result<Option<Status>, ServiceError> {
    let Some(job) = app.table.get(id).await? else { return Ok(None) };
    Ok(get_job::end_if_overdue(app, job).await.map(|job| job.status()))
}
