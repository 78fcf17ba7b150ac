//! How a job that nobody works on ends.

use std::time::Duration;

use super::{Images, Saved, ServiceError, Table};
use crate::job::{ErrorCode, Job};
use crate::time::Timestamp;

/// Ends a job that nobody works on: with the picture that a lost worker left behind, if it did, for it was paid for;
/// else as failed for the reason `code`. Gives back the job as it then stands, or `None` when its record is gone.
///
/// A job that somebody works on, or that ended meanwhile, is given back as it stands. A picture that waits for its
/// lettering does not save a job; it is for whoever has the job's ticket to clean up.
///
/// # Errors
/// When a service does not answer as it should. The job may then have ended all the same.
pub async fn give_up(
    table: &Table,
    images: &Images,
    job: Job,
    code: ErrorCode,
    url_life: Duration,
    now: Timestamp,
) -> Result<Option<Job>, ServiceError> {
    let left_behind = if job.attempts > 0 { images.find(&job).await? } else { None };
    let ended = match left_behind {
        Some(files) => job.adopt(images.publish(&job, files, now, url_life).await?, now),
        None => job.give_up(code, now),
    };
    let Some(ended) = ended else { return Ok(Some(job)) };
    match table.save(&ended).await? {
        Saved::Stored => {
            tracing::warn!(job.id = %ended.id, status = %ended.status(), reason = %code, "a job was given up");
            Ok(Some(ended))
        }
        Saved::MovedOn(job) => Ok(Some(*job)),
        Saved::Gone => Ok(None),
    }
}
