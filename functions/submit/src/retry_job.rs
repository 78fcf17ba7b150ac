use shared::aws::gateway::found;
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
    let now = app.clock.now();
    let owned = found(id, app.table.get_owned(id, owner, now).await)?;
    let requeued = requeue(&app.table, &app.outbox, owned, key, now, app.terms).await;
    let (job, retried) = found(id, requeued)?;
    send_ticket(app, &job, trace).await?;
    let replayed = match retried {
        Retried::Now => false,
        Retried::Before => true,
        Retried::Refused => return Err(Problem::NotRetryable(job.status())),
    };
    tracing::info!(job.id = %id, replayed, "job retried");
    Ok(Submitted { job, replayed })
}
