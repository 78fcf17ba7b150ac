//! Retries a failed or canceled job.

use shared::aws::gateway::log_failure;
use shared::aws::{Saved, ServiceError};
use shared::caller::IdempotencyKey;
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::App;
use crate::submit_job::{Submitted, send_ticket};

pub(crate) enum Retried {
    /// The job is queued again.
    Now(Box<Job>),
    /// An earlier request with this key retried it.
    Before(Box<Job>),
    /// Its state does not allow a retry.
    Refused(Box<Job>),
    /// Its record was deleted.
    Gone,
}

impl Retried {
    pub(crate) fn job(&self) -> Option<&Job> {
        match self {
            Self::Now(job) | Self::Before(job) | Self::Refused(job) => Some(job),
            Self::Gone => None,
        }
    }
}

/// Retries a failed or canceled job. An unfinished job always gets another ticket: an earlier request may have saved the
/// job but crashed before it sent one, while a worker claimed the job by its old ticket and released it again.
pub(crate) async fn retry(
    app: &App,
    id: JobId,
    owner: &Owner,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<Submitted, Problem> {
    let owned = app.table.get_owned(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    let retried = requeue(app, owned.ok_or(Problem::NotFound)?, key).await.map_err(log_failure(id))?;
    if let Some(job) = retried.job().filter(|job| job.finished_at().is_none()) {
        send_ticket(app, job, trace).await?;
    }
    let (job, replayed) = match retried {
        Retried::Now(job) => (*job, false),
        Retried::Before(job) => (*job, true),
        Retried::Refused(job) => return Err(Problem::NotRetryable(job.status())),
        Retried::Gone => return Err(Problem::NotFound),
    };
    tracing::info!(job.id = %id, replayed, "job retried");
    Ok(Submitted { job, replayed })
}

/// Moves the job to queued, unless an earlier request with this key did.
pub(crate) async fn requeue(app: &App, mut job: Job, key: Option<&IdempotencyKey>) -> Result<Retried, ServiceError> {
    loop {
        if key.is_some_and(|key| job.retry_keys.contain(key)) {
            return Ok(Retried::Before(Box::new(job)));
        }
        if job.status() == Status::Queued && key.is_none() {
            return Ok(Retried::Now(Box::new(job)));
        }
        let Ok(next) = job.retry(key, app.clock.now(), app.deadline, app.retention) else {
            return Ok(Retried::Refused(Box::new(job)));
        };
        match app.table.save(&next).await? {
            Saved::Stored => return Ok(Retried::Now(Box::new(next))),
            // Each iteration means that somebody else changed the job, so the loop ends.
            Saved::MovedOn(current) => job = *current,
            Saved::Gone => return Ok(Retried::Gone),
        }
    }
}
