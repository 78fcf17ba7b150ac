//! What a job that has ended without a picture may leave behind.

use super::deliveries::Verdict;
use super::{Images, ServiceError};
use crate::job::{Job, JobState};
use crate::time::Timestamp;

/// Deletes what a worker may have stored for a job that has ended without a picture: of one that was canceled, above all,
/// or the artwork of a poster that was never set. The answer is what becomes of the job's ticket.
///
/// While the worker may still be alive the ticket comes back, for it may store its picture yet.
///
/// # Errors
/// When the bucket does not answer as it should.
pub async fn clean_up(images: &Images, job: &Job, now: Timestamp) -> Result<Verdict, ServiceError> {
    if matches!(job.state, JobState::Succeeded { .. }) {
        return Ok(Verdict::Done);
    }
    if let Some(until) = job.held_until.filter(|&until| until > now) {
        return Ok(Verdict::Again(until.since(now)));
    }
    images.delete(job).await?;
    Ok(Verdict::Done)
}
