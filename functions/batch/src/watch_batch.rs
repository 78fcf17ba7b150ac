//! Looks at a batch whose jobs were in its request, until all of them have ended, if somebody is to be told that.

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::JobId;
use shared::aws::ServiceError;
use shared::aws::messages::Verdict;
use shared::batch::{Batch, Counts};
use shared::job::Status;

use crate::App;
use crate::step::INDEX_LAG;
use crate::watch_jobs::{end_abandoned, until_next_look};

const JOBS_AT_ONCE: usize = 16;

/// Counts the jobs, and queues the event of the batch's end when all have ended.
pub(crate) async fn watch(app: &App, batch: &Batch) -> Result<Verdict, ServiceError> {
    let now = app.clock.now();
    if batch.webhook_for_end().is_none() || batch.expires_at <= now {
        return Ok(Verdict::Done);
    }
    let known = app.table.states_of_batch(batch.id).await?;
    let known = if batch.deadline_at <= now { end_overdue(app, known).await? } else { known };
    let counts = Counts::of(batch.states(known, now));
    if counts.queued + counts.running > 0 {
        return Ok(Verdict::Again(until_next_look(counts, now.since(batch.since()))));
    }
    // The index may not know yet that a job was retried.
    let ids: Vec<_> = (0..batch.total).map(|index| JobId::in_batch(batch.id, index)).collect();
    let jobs = app.table.get_all(&ids).await?;
    let counts = Counts::of(batch.states(jobs.into_values().map(|job| (job.id, job.status())).collect(), now));
    if counts.queued + counts.running > 0 {
        return Ok(Verdict::Again(INDEX_LAG));
    }
    app.outbox.tell_batch(batch, counts.status(), counts, now).await?;
    tracing::info!(batch.id = %batch.id, "the end of a batch was told");
    Ok(Verdict::Done)
}

/// Ends the jobs whose tickets were lost.
async fn end_overdue(app: &App, known: Vec<(JobId, Status)>) -> Result<Vec<(JobId, Status)>, ServiceError> {
    stream::iter(known)
        .map(|(id, status)| async move {
            let status = if status > Status::Running { status } else { end_abandoned(app, id, false).await? };
            Ok((id, status))
        })
        .buffer_unordered(JOBS_AT_ONCE)
        .try_collect()
        .await
}
