use shared::aws::gateway::log_failure;
use shared::aws::job_retry::{Retried, requeue};
use shared::caller::IdempotencyKey;
use shared::{JobId, Owner, Problem};

use crate::App;
use crate::submit_job::{Submitted, send_ticket};

/// Retries a failed or canceled job. A job that has not ended gets another ticket, even if it cannot be retried.
pub(crate) async fn retry(
    app: &App,
    id: JobId,
    owner: &Owner,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<Submitted, Problem> {
    let owned = app.table.get_owned(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    let (owned, now) = (owned.ok_or(Problem::NotFound)?, app.clock.now());
    let requeued = requeue(&app.table, &app.outbox, owned, key, now, app.deadline, app.retention)
        .await
        .map_err(log_failure(id))?;
    let (job, retried) = requeued.ok_or(Problem::NotFound)?;
    send_ticket(app, &job, trace).await?;
    let replayed = match retried {
        Retried::Now => false,
        Retried::Before => true,
        Retried::Refused => return Err(Problem::NotRetryable(job.status())),
    };
    tracing::info!(job.id = %id, replayed, "job retried");
    Ok(Submitted { job, replayed })
}
