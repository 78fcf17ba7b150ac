//! Retries the failed jobs of a batch.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::ServiceError;
use shared::aws::gateway::log_failure;
use shared::aws::job_retry::requeue;
use shared::batch::Counts;
use shared::caller::IdempotencyKey;
use shared::group::{BatchOrGroup, GroupCursor};
use shared::job::Status;
use shared::ticket::Ticket;
use shared::{Batch, Job, JobId, Problem};

use crate::App;

const AT_ONCE: usize = 16;

/// Retries the failed jobs of a batch. Returns the new counts, and the cursor of the next request if a group was too
/// large for this one.
pub(crate) async fn retry(
    app: &App,
    batch: &BatchOrGroup,
    key: Option<&IdempotencyKey>,
    mut cursor: GroupCursor,
    trace: Option<String>,
) -> Result<(Counts, Option<String>), Problem> {
    let mut states = Vec::with_capacity(batch.total());
    let before = app.table.states_of_batches(batch.parts()).await.map_err(log_failure(batch.id()))?;
    for (part, known) in batch.parts().iter().zip(before) {
        let Some(limit) = cursor.turn_of(part, Instant::now()) else {
            states.extend(part.states(known, app.clock.now()));
            continue;
        };
        let retried = retry_part(app, part, known, key, limit, trace.clone()).await;
        let (retried, broke_off) = retried.map_err(log_failure(part.id))?;
        if broke_off {
            cursor.stop_at(part);
        }
        states.extend(retried);
    }
    Ok((Counts::of(states), cursor.next_cursor()))
}

/// Retries the failed jobs of a part until `limit`. Returns the statuses of all its jobs, and whether time ran out.
///
/// The index shows which jobs succeeded or were canceled, but it may lag behind. All others are read, including those
/// that it does not know.
async fn retry_part(
    app: &App,
    part: &Batch,
    known: Vec<(JobId, Status)>,
    key: Option<&IdempotencyKey>,
    limit: Instant,
    trace: Option<String>,
) -> Result<(Vec<Status>, bool), ServiceError> {
    let mut jobs: Vec<_> = part.jobs(known).collect();
    // Known failures first, so that repeated requests make progress.
    jobs.sort_by_key(|(_, status)| *status != Some(Status::Failed));
    let trace = &trace;
    let jobs: Vec<_> = stream::iter(jobs)
        .map(|(id, status)| async move {
            let missing = || part.state_of_missing(app.clock.now());
            Ok::<_, ServiceError>(match status {
                Some(Status::Succeeded | Status::Canceled) => (status, None, false),
                _ if Instant::now() >= limit => (status.or_else(missing), None, true),
                _ => match retry_failed(app, id, key).await? {
                    Some(job) => (Some(job.status()), Ticket::for_unfinished(&job, trace.as_ref()), false),
                    None => (missing(), None, false),
                },
            })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let tickets: Vec<_> = jobs.iter().filter_map(|(_, ticket, _)| ticket.clone()).collect();
    app.queue.send_batch(&tickets, &part.owner).await?;
    tracing::info!(batch.id = %part.id, jobs = tickets.len(), "batch retried");
    let broke_off = jobs.iter().any(|(_, _, left)| *left);
    Ok((jobs.into_iter().filter_map(|(status, _, _)| status).collect(), broke_off))
}

/// Retries the job if it has failed. Returns the job as it then is; `None` if its record was deleted.
async fn retry_failed(app: &App, id: JobId, key: Option<&IdempotencyKey>) -> Result<Option<Job>, ServiceError> {
    let Some(job) = app.table.get(id).await? else { return Ok(None) };
    if job.status() != Status::Failed {
        return Ok(Some(job));
    }
    let now = app.clock.now();
    Ok(requeue(&app.table, job, key, now, app.deadline, app.retention).await?.map(|(job, _)| job))
}
