//! What a job that has ended may leave behind, and what becomes of its ticket.

use std::time::Duration;

use super::deliveries::Verdict;
use super::{Images, ServiceError};
use crate::job::{Job, JobState};
use crate::time::Timestamp;

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
