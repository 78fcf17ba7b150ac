//! Ends jobs that no worker has claimed, and does what is left to do for ended jobs.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::messages::Verdict;
use super::{Images, Outbox, Saved, ServiceError, Table};
use crate::image::Image;
use crate::job::{ErrorCode, Job, JobState};
use crate::time::Timestamp;

/// How long after its deadline a job waits for a failing bucket to say whether its picture exists. This outlasts most
/// outages, but no job waits forever.
pub const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// How many jobs are canceled at once.
const AT_ONCE: usize = 16;

/// Ends a job that no worker has claimed: with the picture that a lost worker left in the bucket, as it was paid for,
/// or else as failed with `code`. Returns the job as it then is, or `None` if its record was deleted.
///
/// A job that is claimed or has ended is returned unchanged. Artwork without lettering does not save a job; the handler
/// of its ticket deletes it.
///
/// If something may have been painted, the job does not end before the bucket was checked or [`PATIENCE`] has passed
/// after its deadline.
pub async fn give_up(
    table: &Table,
    images: &Images,
    job: Job,
    code: ErrorCode,
    url_life: Duration,
    now: Timestamp,
) -> Result<Option<Job>, ServiceError> {
    let left_behind = if job.attempts > 0 { left_behind(images, &job, url_life, now).await } else { Ok(None) };
    let ended = match left_behind {
        Ok(Some(image)) => job.adopt(image, now),
        Ok(None) => job.give_up(code, now),
        Err(error) if now < job.deadline_at + PATIENCE => return Err(error),
        Err(error) => {
            tracing::error!(job.id = %job.id, %error, "gave up a job without checking the bucket");
            job.give_up(code, now)
        }
    };
    let Some(ended) = ended else { return Ok(Some(job)) };
    match table.save(&ended).await? {
        Saved::Stored => {
            tracing::warn!(job.id = %ended.id, status = %ended.status(), reason = %code, "gave up a job");
            Ok(Some(ended))
        }
        Saved::MovedOn(job) => Ok(Some(*job)),
        Saved::Gone => Ok(None),
    }
}

/// Cancels those of a batch's jobs that nobody has changed since they were stored, and tells their ends: without a ticket,
/// they have nobody else to do so.
pub async fn cancel_new(table: &Table, outbox: &Outbox, jobs: Vec<Job>, now: Timestamp) -> Result<(), ServiceError> {
    let new = jobs.into_iter().filter(|job| job.fence == 0);
    let canceled = new.filter_map(|job| job.cancel(now).ok());
    stream::iter(canceled)
        .map(|job| async move {
            match table.save(&job).await? {
                Saved::Stored => outbox.tell(&job).await,
                Saved::MovedOn(_) | Saved::Gone => Ok(()),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// The picture that a lost worker left in the bucket.
async fn left_behind(
    images: &Images,
    job: &Job,
    url_life: Duration,
    now: Timestamp,
) -> Result<Option<Image>, ServiceError> {
    match images.find(job).await? {
        Some(files) => images.publish(job, files, now, url_life).await.map(Some),
        None => Ok(None),
    }
}

/// Does what is left to do for an ended job, and returns the verdict on its ticket. First its event is queued. Then files
/// are deleted that its record does not mention: all files if it has no picture, and always those from before its last
/// retry.
///
/// While a worker may still be alive, the ticket is redelivered later, because the worker may still store a file.
pub async fn wind_up(outbox: &Outbox, images: &Images, job: &Job, now: Timestamp) -> Result<Verdict, ServiceError> {
    outbox.tell(job).await?;
    let succeeded = matches!(job.state, JobState::Succeeded { .. });
    let held_until = if succeeded { None } else { job.held_until };
    if let Some(until) = held_until.max(job.former_until).filter(|&until| until > now) {
        return Ok(Verdict::Again(until.since(now)));
    }
    if !succeeded {
        images.delete(job).await?;
    }
    if job.former_until.is_some() {
        images.delete_earlier(job).await?;
    }
    Ok(Verdict::Done)
}

/// The verdict on the ticket of a job that somebody else may have changed. While a worker holds the job, its ticket
/// must be kept, because that worker may crash.
pub async fn verdict_for(outbox: &Outbox, images: &Images, job: &Job, now: Timestamp) -> Result<Verdict, ServiceError> {
    match &job.state {
        JobState::Queued => Ok(Verdict::Again(Duration::ZERO)),
        JobState::Running(lease) => Ok(Verdict::Again(lease.until.since(now))),
        _ => wind_up(outbox, images, job, now).await,
    }
}
