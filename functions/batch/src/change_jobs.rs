use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::job_retry::requeue;
use shared::aws::{Result, send_tickets};
use shared::batch::{Action, Pass};
use shared::caller::IdempotencyKey;
use shared::job::Status;
use shared::{Batch, Job, JobId};

use crate::App;
use crate::step::{Step, save};

/// Bounds the memory when the jobs are large.
const JOBS_AT_ONCE: usize = 200;

const AT_ONCE: usize = 16;

pub(crate) async fn change(app: &App, batch: &Batch, pass: &Pass) -> Result<Step> {
    let Pass { action, next } = pass;
    let stored = batch.most_stored();
    let end = stored.min(next + batch.jobs_per_part);
    let ids: Vec<_> = (*next..end).map(|index| JobId::in_batch(batch.id, index)).collect();
    for ids in ids.chunks(JOBS_AT_ONCE) {
        let mut jobs = app.table.get_all(ids).await?;
        let jobs: Vec<_> = ids.iter().filter_map(|id| jobs.remove(id)).collect();
        match action {
            Action::Cancel => cancel(app, jobs).await?,
            Action::Retry(number) => retry(app, batch, jobs, *number).await?,
        }
    }
    let pass = (end < stored).then(|| Pass { action: action.clone(), next: end });
    if pass.is_none() {
        let action = if *action == Action::Cancel { "canceled" } else { "retried" };
        tracing::info!(batch.id = %batch.id, action, "every job of a batch was canceled or retried");
    }
    save(app, batch.passed(pass)).await
}

/// Cancels the queued jobs and queues the missing events, as a job without a ticket has no other function to do so.
async fn cancel(app: &App, jobs: Vec<Job>) -> Result<()> {
    let ends = stream::iter(jobs).map(|job| cancel_queued(app, job));
    ends.buffer_unordered(AT_ONCE).try_collect().await
}

async fn cancel_queued(app: &App, job: Job) -> Result<()> {
    let cancel = |job: &Job| job.cancel(app.clock.now()).ok().filter(|_| job.status() == Status::Queued);
    match app.table.change(job, cancel).await? {
        Some((job, _)) => app.outbox.tell(&job).await,
        None => Ok(()),
    }
}

async fn retry(app: &App, batch: &Batch, jobs: Vec<Job>, number: u64) -> Result<()> {
    let key: IdempotencyKey = format!("retry-{}-{number}", batch.id).parse().expect("it is visible ASCII");
    let key = &key;
    // The job may have no ticket, if this pass or one that it replaces was interrupted before it sent the tickets.
    let (failed, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.status() == Status::Failed);
    let waiting = others.into_iter().filter(|job| job.status() != Status::Running && !job.retry_keys.is_empty());
    let retried: Vec<_> = stream::iter(failed)
        .map(|job| requeue(&app.table, &app.outbox, job, Some(key), app.clock.now(), app.terms))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let jobs: Vec<_> = waiting.chain(retried.into_iter().flatten().map(|(job, _)| job)).collect();
    send_tickets(&app.jobs, &app.outbox, &batch.owner, &jobs, None).await
}
