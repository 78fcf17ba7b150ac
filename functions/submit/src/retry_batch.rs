//! Retries the failed jobs of a batch.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::ServiceError;
use shared::aws::gateway::log_failure;
use shared::aws::job_retry::requeue;
use shared::batch::Counts;
use shared::caller::IdempotencyKey;
use shared::job::Status;
use shared::ticket::Ticket;
use shared::webhook::EventType;
use shared::{Batch, Job, JobId, Problem};

use crate::App;
use crate::submit_batch::send_batch_ticket;

const AT_ONCE: usize = 16;

/// A request retries no further jobs after this time. API Gateway waits 29 seconds.
const TIME: Duration = Duration::from_secs(18);

/// Retries the failed jobs of a batch, and returns the new counts. If the table is too slow for that, the request can be
/// repeated.
///
/// The index shows which jobs succeeded or were canceled, but it may lag behind. All others are read, including those
/// that it does not know.
pub(crate) async fn retry(
    app: &App,
    batch: &Batch,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<Counts, Problem> {
    let (id, end) = (batch.id, Instant::now() + TIME);
    let known = app.table.states_of_batch(id).await.map_err(log_failure(id))?;
    let mut jobs: Vec<_> = batch.jobs(known).collect();
    // Known failures first, so that repeated requests make progress.
    jobs.sort_by_key(|(_, status)| *status != Some(Status::Failed));
    let trace = &trace;
    let jobs: Vec<_> = stream::iter(jobs)
        .map(|(job, status)| async move {
            let missing = || batch.state_of_missing(app.clock.now());
            Ok::<_, ServiceError>(match status {
                Some(Status::Succeeded | Status::Canceled) => (status, None, true),
                _ if Instant::now() >= end => (None, None, false),
                _ => match retry_failed(app, job, key).await? {
                    Some(job) => (Some(job.status()), Ticket::for_unfinished(&job, trace.as_ref()), true),
                    None => (missing(), None, true),
                },
            })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .map_err(log_failure(id))?;
    let tickets: Vec<_> = jobs.iter().filter_map(|(_, ticket, _)| ticket.clone()).collect();
    app.queue.send_batch(&tickets, &batch.owner).await.map_err(log_failure(id))?;
    if batch.webhook.as_ref().is_some_and(|webhook| webhook.wants(EventType::BatchEnded)) {
        let now = app.clock.now().max(batch.since() + Duration::from_millis(1));
        app.table.note_retry(id, key.map(IdempotencyKey::digest), now).await.map_err(log_failure(id))?;
        send_batch_ticket(app, batch).await?;
    }
    tracing::info!(batch.id = %id, jobs = tickets.len(), "batch retried");
    if jobs.iter().any(|(_, _, in_time)| !in_time) {
        return Err(Problem::Unavailable { retry_after: Duration::from_secs(1) });
    }
    Ok(Counts::of(jobs.into_iter().filter_map(|(status, _, _)| status)))
}

/// Retries the job if it has failed. Returns the job as it then is; `None` if its record was deleted.
async fn retry_failed(app: &App, id: JobId, key: Option<&IdempotencyKey>) -> Result<Option<Job>, ServiceError> {
    let Some(job) = app.table.get(id).await? else { return Ok(None) };
    if job.status() != Status::Failed {
        return Ok(Some(job));
    }
    let now = app.clock.now();
    Ok(requeue(&app.table, &app.outbox, job, key, now, app.deadline, app.retention).await?.map(|(job, _)| job))
}
