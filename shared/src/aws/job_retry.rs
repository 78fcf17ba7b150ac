//! Retries jobs.

use super::{Outbox, Result, Saved, Table};
use crate::caller::IdempotencyKey;
use crate::job::{Job, Status, Terms};
use crate::time::Timestamp;

/// The outcome of a request to retry a job.
pub enum Retried {
    /// The job is queued again.
    Now,
    /// An earlier request with this key retried it.
    Before,
    /// Its state does not allow a retry.
    Refused,
}

/// Queues the job again, unless an earlier request with this key did. Returns the job as it then is, or `None` if its
/// record was deleted. The event of its end is queued first, because that is impossible after the retry.
pub async fn requeue(
    table: &Table,
    outbox: &Outbox,
    mut job: Job,
    key: Option<&IdempotencyKey>,
    now: Timestamp,
    terms: Terms,
) -> Result<Option<(Job, Retried)>> {
    loop {
        if key.is_some_and(|key| job.retry_keys.contain(key)) {
            return Ok(Some((job, Retried::Before)));
        }
        if job.status() == Status::Queued && key.is_none() {
            return Ok(Some((job, Retried::Now)));
        }
        let Ok(next) = job.retry(key, now, terms) else {
            return Ok(Some((job, Retried::Refused)));
        };
        outbox.queue_end(&job).await?;
        match table.save(&next).await? {
            Saved::Stored => return Ok(Some((next, Retried::Now))),
            Saved::MovedOn(current) => job = *current,
            Saved::Gone => return Ok(None),
        }
    }
}
