//! Retries a failed or canceled job.

use shared::aws::gateway::log_failure;
use shared::aws::{Saved, ServiceError};
use shared::caller::IdempotencyKey;
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::App;
use crate::submit_job::{Submitted, send_ticket};

/// What a request to retry a job came to.
pub(crate) enum Retried {
    /// The job is queued again.
    Now,
    /// An earlier request with this key retried it.
    Before,
    /// Its state does not allow a retry.
    Refused,
}

/// Retries a failed or canceled job. A job that has not ended gets another ticket, even if it cannot be retried.
pub(crate) async fn retry(
    app: &App,
    id: JobId,
    owner: &Owner,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<Submitted, Problem> {
    let owned = app.table.get_owned(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    let requeued = requeue(app, owned.ok_or(Problem::NotFound)?, key).await.map_err(log_failure(id))?;
    let (job, retried) = requeued.ok_or(Problem::NotFound)?;
    send_ticket(app, &job, trace).await?;
    let replayed = match retried {
        Retried::Now => false,
        Retried::Before => true,
        Retried::Refused => return Err(Problem::NotRetryable(job.status())),
    };
    tracing::info!(job.id = %id, replayed, "job retried");
    Ok(Submitted { job, replayed })
}

/// Moves the job to queued, unless an earlier request with this key did. Returns the job as it then is, or `None` if its
/// record is gone.
pub(crate) async fn requeue(
    app: &App,
    mut job: Job,
    key: Option<&IdempotencyKey>,
) -> Result<Option<(Job, Retried)>, ServiceError> {
    loop {
        if key.is_some_and(|key| job.retry_keys.contain(key)) {
            return Ok(Some((job, Retried::Before)));
        }
        if job.status() == Status::Queued && key.is_none() {
            return Ok(Some((job, Retried::Now)));
        }
        let Ok(next) = job.retry(key, app.clock.now(), app.deadline, app.retention) else {
            return Ok(Some((job, Retried::Refused)));
        };
        match app.table.save(&next).await? {
            Saved::Stored => return Ok(Some((next, Retried::Now))),
            // Each iteration means that somebody else changed the job, so the loop ends.
            Saved::MovedOn(current) => job = *current,
            Saved::Gone => return Ok(None),
        }
    }
}
