//! Looking a job up for its owner.

use shared::aws::{ServiceError, giving_up::give_up};
use shared::job::{ErrorCode, Image};
use shared::{Job, JobId, JobState, Owner, Problem};

use crate::App;

impl App {
    /// The owner's job as it stands, with a URL that works.
    ///
    /// A job whose deadline has passed while nobody worked on it is failed here, so that nobody waits for a ticket that
    /// was lost.
    pub(crate) async fn look(&self, id: JobId, owner: &Owner) -> Result<Job, Problem> {
        let unread = |error: ServiceError| {
            tracing::error!(job.id = %id, %error, "a job cannot be read");
            Problem::from(error)
        };
        let now = self.clock.now();
        let job = self.table.get(id).await.map_err(unread)?.filter(|job| job.expires_at > now && job.owner == *owner);
        let job = job.ok_or(Problem::NotFound)?;
        let job = if job.is_overdue(now) {
            let ended = give_up(&self.table, &self.images, job, ErrorCode::DeadlineExceeded, self.url_life, now).await;
            ended.map_err(unread)?.ok_or(Problem::NotFound)?
        } else {
            job
        };
        self.with_live_url(job).await.map_err(unread)
    }

    /// The job with a new URL where the saved one has less than half of its life left.
    async fn with_live_url(&self, job: Job) -> Result<Job, ServiceError> {
        let now = self.clock.now();
        match &job.state {
            JobState::Succeeded { finished_at, image } if image.url.expires_at.since(now) < self.url_life / 2 => {
                let url = self.images.sign(&job, now, self.url_life).await?;
                let image = Image { url, ..image.clone() };
                let state = JobState::Succeeded { finished_at: *finished_at, image };
                Ok(Job { state, ..job })
            }
            _ => Ok(job),
        }
    }
}
