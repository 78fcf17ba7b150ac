//! Queuing a failed or canceled job again.

use shared::aws::gateway::log_failure;
use shared::aws::{Saved, ServiceError};
use shared::caller::IdempotencyKey;
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::App;
use crate::submit_job::{Submitted, send_ticket};

/// What came of retrying a job.
pub(crate) enum Retried {
    /// It waits again.
    Now(Box<Job>),
    /// A request with this key had been accepted before.
    Before(Box<Job>),
    /// It is in a state in which it cannot be.
    Refused(Box<Job>),
    /// Its record is gone.
    Gone,
}

impl Retried {
    /// The job as it is now.
    pub(crate) fn job(&self) -> Option<&Job> {
        match self {
            Self::Now(job) | Self::Before(job) | Self::Refused(job) => Some(job),
            Self::Gone => None,
        }
    }
}

/// Queues a failed or canceled job again. The ticket of a job that has not finished is sent in any case.
///
/// An earlier request may have saved the job and ended before it sent the ticket, while a worker took the job up by its
/// old ticket and gave it back. A second ticket does no harm.
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
    tracing::info!(job.id = %id, replayed, "a job was retried");
    Ok(Submitted { job, replayed })
}

/// Moves the job to queued, unless a request with this key has done so before.
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
            // Each turn of the loop means that somebody else has moved the job on, which ends.
            Saved::MovedOn(current) => job = *current,
            Saved::Gone => return Ok(Retried::Gone),
        }
    }
}
