//! How a job that nobody works on ends, and what is deleted when a job has ended.

use std::time::Duration;

use super::deliveries::Verdict;
use super::{Images, Saved, ServiceError, Table};
use crate::image::Image;
use crate::job::{ErrorCode, Job, JobState};
use crate::time::Timestamp;

/// How long after its deadline a job waits for the bucket to tell whether its picture is there. That outlasts most outages,
/// and no job may wait for ever.
pub const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// Ends a job that nobody works on: with the picture that a lost worker left behind, if it did, for it was paid for;
/// else as failed for the reason `code`. Gives back the job as it then stands, or `None` when its record is gone.
///
/// A job that somebody works on, or that ended meanwhile, is given back as it stands. A picture that waits for its
/// lettering does not save a job; it is for whoever has the job's ticket to clean up.
///
/// A job for which something was painted does not end without a look into the bucket before [`PATIENCE`] has passed
/// after its deadline; then it does.
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
    let left_behind = if job.attempts > 0 { left_behind(images, &job, url_life, now).await } else { Ok(None) };
    let ended = match left_behind {
        Ok(Some(image)) => job.adopt(image, now),
        Ok(None) => job.give_up(code, now),
        Err(error) if now < job.deadline_at + PATIENCE => return Err(error),
        Err(error) => {
            tracing::error!(job.id = %job.id, %error, "a job is given up without a look into the bucket");
            job.give_up(code, now)
        }
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

/// The picture that a lost worker left behind, if it did.
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

/// Deletes what workers may have stored for a job that has ended and that its record does not speak of: everything where
/// it has ended without a picture, and what was stored before its last retry in any case. The answer is what becomes of
/// the job's ticket.
///
/// While such a worker may still be alive the ticket comes back, for it may store its picture yet.
///
/// # Errors
/// When the bucket does not answer as it should.
pub async fn clean_up(images: &Images, job: &Job, now: Timestamp) -> Result<Verdict, ServiceError> {
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

/// What becomes of the ticket of a job that somebody else may have moved on. While a worker holds the job its ticket must
/// not be deleted, because that worker may crash.
///
/// # Errors
/// When the bucket does not answer as it should.
pub async fn verdict_for(images: &Images, job: &Job, now: Timestamp) -> Result<Verdict, ServiceError> {
    match &job.state {
        JobState::Queued => Ok(Verdict::Again(Duration::ZERO)),
        JobState::Running(lease) => Ok(Verdict::Again(lease.until.since(now))),
        _ => clean_up(images, job, now).await,
    }
}
