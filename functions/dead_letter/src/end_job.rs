use shared::aws::Result;
use shared::aws::job_end::{give_up, verdict_for};
use shared::aws::messages::{Received, Verdict};
use shared::job::ErrorCode;

use crate::App;

/// Ends the job of a ticket that moved to the dead-letter queue, unless a worker holds it.
pub(crate) async fn end(app: &App, received: Received) -> Result<Verdict> {
    let id = received.message.job;
    let now = app.clock.now();
    let Some(job) = app.table.get(id).await? else {
        tracing::warn!(job.id = %id, "dropped a dead letter whose job has no record");
        return Ok(Verdict::Done);
    };
    if job.finished_at().is_none() && received.message.predates_retry(&job) {
        tracing::warn!(job.id = %id, "dropped a dead letter whose job was retried since");
        return Ok(Verdict::Done);
    }
    let code = if job.is_overdue(now) { ErrorCode::DeadlineExceeded } else { ErrorCode::AttemptsExhausted };
    // The worker that holds the job may still succeed.
    match give_up(&app.table, &app.images, job, code, app.url_life, now).await? {
        Some(job) => verdict_for(&app.outbox, &app.images, &job, now).await,
        None => Ok(Verdict::Done),
    }
}
