//! Ends jobs that no worker has claimed, and completes the work on ended jobs.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::messages::Verdict;
use super::{Images, Outbox, Result, Saved, Table};
use crate::image::Image;
use crate::job::{ErrorCode, Job, JobState};
use crate::time::Timestamp;

/// How long after its deadline a job waits for a failing bucket. This outlasts most outages, but no job waits forever.
pub const PATIENCE: Duration = Duration::from_secs(6 * 3600);

const AT_ONCE: usize = 16;

/// Ends a job that no worker has claimed: with the picture that a lost worker left in the bucket, as it was paid for,
/// or else as failed with `code`. Returns the job as it then is, or `None` if its record was deleted. Artwork without
/// lettering does not complete a job. If a painting may have started, the job ends only after the bucket was checked or
/// [`PATIENCE`] has passed after its deadline.
pub async fn give_up(
    table: &Table,
    images: &Images,
    job: Job,
    code: ErrorCode,
    url_life: Duration,
    now: Timestamp,
) -> Result<Option<Job>> {
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

/// Cancels those of a batch's jobs that have not changed since they were stored, and queues their events: without a
/// ticket, they have no other function to do so.
pub async fn cancel_new(table: &Table, outbox: &Outbox, jobs: Vec<Job>, now: Timestamp) -> Result<()> {
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

async fn left_behind(images: &Images, job: &Job, url_life: Duration, now: Timestamp) -> Result<Option<Image>> {
    match images.find(job).await? {
        Some(files) => images.publish(job, files, now, url_life).await.map(Some),
        None => Ok(None),
    }
}

/// Completes the work on an ended job, and returns the verdict on its ticket. Queues its event, then deletes the files
/// that its record does not mention: all files if it has no picture, and always those from before its last retry. While
/// a worker may be alive, the ticket is redelivered later, because that worker may still store a file.
pub async fn wind_up(outbox: &Outbox, images: &Images, job: &Job, now: Timestamp) -> Result<Verdict> {
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

/// The verdict on a ticket whose job may have changed: kept while a worker holds the job, as that worker may crash.
pub async fn verdict_for(outbox: &Outbox, images: &Images, job: &Job, now: Timestamp) -> Result<Verdict> {
    match &job.state {
        JobState::Queued => Ok(Verdict::Again(Duration::ZERO)),
        JobState::Running(lease) => Ok(Verdict::Again(lease.until.since(now))),
        _ => wind_up(outbox, images, job, now).await,
    }
}
