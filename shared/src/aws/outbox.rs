use std::fmt::Display;
use std::time::Duration;

use super::{Aws, Queue, Result, Table};
use crate::batch::Batch;
use crate::event;
use crate::job::Job;
use crate::settings::Settings;
use crate::time::Timestamp;
use crate::webhook::WebhookPolicy;

/// An event is queued this soon after the end of its job, if the function that ended the job does not crash.
const TIME_TO_TELL: Duration = Duration::from_secs(60);

/// Puts the events of ended jobs and batches into the queue of the function `webhook`, and then notes this in their
/// records. So an event may be queued twice, but is never lost.
#[derive(Clone, Debug)]
pub struct Outbox {
    table: Table,
    policy: WebhookPolicy,
    /// `None` if the service sends no webhooks.
    queue: Option<Queue>,
}

impl Outbox {
    /// Reads the settings.
    pub fn read(aws: &Aws, settings: &mut Settings<'_>, table: String) -> Self {
        let policy = settings.parse("WEBHOOKS").unwrap_or(WebhookPolicy::Off);
        let queue = (policy != WebhookPolicy::Off).then(|| aws.queue(settings.text("WEBHOOK_QUEUE_URL")));
        Self { table: aws.table(table), policy, queue }
    }

    /// Which webhooks the service accepts.
    pub fn policy(&self) -> WebhookPolicy {
        self.policy
    }

    /// Queues the event of a job if it has ended and its event is not queued yet.
    pub async fn tell(&self, job: &Job) -> Result<()> {
        if self.queue_end(job).await? { self.table.note_told(job).await } else { Ok(()) }
    }

    /// Like [`Outbox::tell`], for a job that changes right after that. Returns whether an event was queued.
    pub async fn queue_end(&self, job: &Job) -> Result<bool> {
        let Some((queue, message)) = self.queue.as_ref().zip(event::of_job(job)) else { return Ok(false) };
        queue.send_delivery(&message).await?;
        Ok(true)
    }

    /// Like [`Outbox::tell`], but does not fail: the handler of the job's ticket or the next reader tries again.
    pub async fn try_to_tell(&self, job: &Job) {
        log_failure(job.id, self.tell(job).await);
    }

    /// Like [`Outbox::try_to_tell`], for a reader, who leaves a job that has just ended to the function that ended it.
    pub async fn tell_if_late(&self, job: &Job, now: Timestamp) {
        if job.finished_at().is_some_and(|end| now.since(end) >= TIME_TO_TELL) {
            self.try_to_tell(job).await;
        }
    }

    /// Queues the event of a batch if it has ended and its event is not queued yet.
    pub async fn tell_batch(&self, batch: &Batch, now: Timestamp) -> Result<()> {
        let Some((queue, message)) = self.queue.as_ref().zip(event::of_batch(batch, now)) else { return Ok(()) };
        queue.send_delivery(&message).await?;
        self.table.note_batch_told(batch).await
    }

    /// Like [`Outbox::tell_batch`], but does not fail.
    pub async fn try_to_tell_batch(&self, batch: &Batch, now: Timestamp) {
        log_failure(batch.id, self.tell_batch(batch, now).await);
    }
}

fn log_failure(id: impl Display, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%id, %error, "cannot queue an event yet");
    }
}
