use std::time::Duration;

use shared::api::QueueView;
use shared::aws::gateway::{found, log_failure};
use shared::aws::{Files, Result, job_end::give_up};
use shared::image::{SignedUrl, Variant};
use shared::job::ErrorCode;
use shared::{Job, JobId, JobState, Owner, Problem};
use tokio::time::{Instant, sleep};

use crate::App;

const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

pub(crate) async fn get(app: &App, id: JobId, owner: &Owner, wait: Duration) -> Result<Job, Problem> {
    let patience = Instant::now() + wait;
    loop {
        let job = found(id, app.table.get_owned(id, owner, app.clock.now()).await)?;
        let job = end_if_overdue(app, job).await.ok_or(Problem::NotFound)?;
        let left = patience.saturating_duration_since(Instant::now());
        if job.finished_at().is_some() || left.is_zero() {
            app.pace.learn(&job);
            return with_live_url(app, job).await.map_err(log_failure(id));
        }
        sleep(BETWEEN_LOOKS.min(left)).await;
    }
}

/// A new presigned URL of one of the job's files, or of its picture or poster if it does not have that file.
pub(crate) async fn image_url(app: &App, id: JobId, owner: &Owner, variant: Variant) -> Result<String, Problem> {
    let job = found(id, app.table.get_owned(id, owner, app.clock.now()).await)?;
    let JobState::Succeeded { image, .. } = &job.state else { return Err(Problem::NotFinished(job.status())) };
    let variant = match variant {
        Variant::Artwork if image.artwork.is_none() => Variant::Image,
        Variant::Thumbnail if image.thumbnail.is_none() => Variant::Image,
        variant => variant,
    };
    let signed = app.images.sign(&job, variant, app.clock.now(), app.url_life).await;
    Ok(signed.map_err(log_failure(id))?.url)
}

/// Ends an overdue job if it can be ended now, because its ticket may be lost. `None` if its record was deleted.
pub(crate) async fn end_if_overdue(app: &App, job: Job) -> Option<Job> {
    let now = app.clock.now();
    if !job.is_overdue(now) {
        app.outbox.tell_if_late(&job, now).await;
        return Some(job);
    }
    let ended = give_up(&app.table, &app.images, job.clone(), ErrorCode::DeadlineExceeded, app.url_life, now);
    let ended = ended.await.unwrap_or_else(|error| {
        tracing::warn!(job.id = %job.id, %error, "cannot end an overdue job yet");
        Some(job)
    })?;
    app.outbox.try_to_tell(&ended).await;
    Some(ended)
}

/// Replaces URLs that have less than half of their life left, or more than all of it: the clock was set back, and S3
/// rejects signatures from the future.
pub(crate) async fn with_live_url(app: &App, job: Job) -> Result<Job> {
    let now = app.clock.now();
    let is_live = |url: &SignedUrl| (app.url_life / 2..=app.url_life).contains(&url.expires_at.since(now));
    match &job.state {
        JobState::Succeeded { finished_at, image } if !is_live(&image.url) => {
            // Signing at a rounded time keeps the URL, and so the ETag, the same for a while.
            let signed_at = now.round_down(app.url_life / 2);
            let image = app.images.publish(&job, Files::from(image), signed_at, app.url_life).await?;
            let state = JobState::Succeeded { finished_at: *finished_at, image };
            Ok(Job { state, ..job })
        }
        _ => Ok(job),
    }
}

pub(crate) async fn place_in_queue(app: &App, job: &Job) -> Result<Option<QueueView>, Problem> {
    if job.state != JobState::Queued {
        return Ok(None);
    }
    let ahead = app.pace.depth().await.map_err(log_failure(job.id))?.waiting;
    let estimated_start_at = app.clock.now() + app.pace.time_for(ahead);
    Ok(Some(QueueView { ahead, estimated_start_at, estimate: true }))
}

pub(crate) async fn next_look(app: &App, job: &Job) -> Result<Option<Duration>, Problem> {
    Ok(match job.state {
        JobState::Queued => {
            let ahead = app.pace.depth().await.map_err(log_failure(job.id))?.waiting;
            Some(app.pace.time_for(ahead + 1))
        }
        JobState::Running(_) => Some(app.pace.time_left(job, app.clock.now())),
        _ => None,
    })
}
