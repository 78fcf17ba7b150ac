use std::collections::HashSet;
use std::time::Duration;

use shared::api::BatchJobView;
use shared::aws::gateway::{found, log_failure};
use shared::aws::job_end::cancel_new;
use shared::aws::{Saved, send_tickets};
use shared::batch::{BatchOrder, Entry};
use shared::caller::IdempotencyKey;
use shared::job::Lease;
use shared::{Batch, BatchId, Job, JobId, Owner, Problem};
use tokio::time::{Instant, sleep};

use crate::App;

/// Longer than an invocation, so that the writer has finished or crashed when its lease ends.
const WRITING: Duration = Duration::from_secs(45);

const PATIENCE: Duration = Duration::from_secs(10);

/// When the function `batch` first looks at the jobs. No job ends sooner.
const FIRST_LOOK: Duration = Duration::from_secs(1);

pub(crate) struct SubmittedBatch {
    pub(crate) batch: Batch,
    pub(crate) jobs: Vec<BatchJobView>,
    pub(crate) replayed: bool,
}

/// Stores a batch and its jobs. It is accepted only when every job is stored and every ticket is sent.
pub(crate) async fn submit(
    app: &App,
    owner: Owner,
    order: BatchOrder,
    key: Option<&IdempotencyKey>,
    base_url: String,
    trace: Option<String>,
) -> Result<SubmittedBatch, Problem> {
    let id = key.map_or_else(BatchId::new, |key| BatchId::from_key(&owner, key));
    let now = app.clock.now();
    let batch = Batch::from_request(id, owner, &order, base_url, now, Lease::new(now + WRITING));
    let batch = batch.lasting(now, app.terms);
    let (batch, replayed) = match app.table.create_batch(&batch).await.map_err(log_failure(id))? {
        None => {
            let jobs = batch.jobs(0, order.entries.iter().cloned());
            (write(app, batch, jobs, Vec::new(), trace).await?, false)
        }
        Some(existing) if existing.fingerprint == batch.fingerprint => {
            (complete(app, existing, &order, trace).await?, true)
        }
        Some(_) => return Err(Problem::IdempotencyKeyReused),
    };
    tracing::info!(batch.id = %id, jobs = batch.total, replayed, "batch submitted");
    let view = |(index, Entry { custom_id, .. })| BatchJobView { index, id: JobId::in_batch(id, index), custom_id };
    Ok(SubmittedBatch { batch, jobs: order.entries.into_iter().enumerate().map(view).collect(), replayed })
}

/// Waits for the batch's writer, or takes over if it crashed. A canceled batch is left to the function `batch`.
async fn complete(app: &App, mut batch: Batch, order: &BatchOrder, trace: Option<String>) -> Result<Batch, Problem> {
    let id = batch.id;
    let patience = Instant::now() + PATIENCE;
    while let Some(lease) = batch.writing().filter(|_| batch.canceled_at.is_none()) {
        let now = app.clock.now();
        if lease.until <= now {
            let mine = batch.taken_over(Lease::new(now + WRITING));
            match app.table.save_batch(&mine).await.map_err(log_failure(id))? {
                Saved::Stored => {
                    let wanted = mine.jobs(0, order.entries.iter().cloned());
                    // Skip the jobs that exist, so that each repeated request makes progress.
                    let there = app.table.written_jobs(&wanted).await.map_err(log_failure(id))?;
                    let known: HashSet<_> = there.iter().map(|job| job.id).collect();
                    let missing = wanted.into_iter().filter(|job| !known.contains(&job.id)).collect();
                    return write(app, mine, missing, there, trace).await;
                }
                Saved::MovedOn(current) => batch = *current,
                Saved::Gone => return Err(Problem::NotFound),
            }
            continue;
        }
        if Instant::now() >= patience {
            return Err(Problem::Unavailable { retry_after: lease.until.since(now) });
        }
        sleep(Duration::from_millis(250)).await;
        batch = found(id, app.table.get_batch(id).await)?;
    }
    Ok(batch)
}

/// Stores the `missing` jobs, and sends the tickets of the queued ones. The record is read after the jobs are stored, so
/// that those of a batch that was canceled meanwhile are not painted.
async fn write(
    app: &App,
    batch: Batch,
    missing: Vec<Job>,
    there: Vec<Job>,
    trace: Option<String>,
) -> Result<Batch, Problem> {
    let id = batch.id;
    // First, so that the batch ends at its deadline even if this writer dies and the request is not repeated.
    app.batches.send_batch_ticket(id, &batch.owner, FIRST_LOOK).await.map_err(log_failure(id))?;
    let mut jobs = app.table.create_all(&missing).await.map_err(log_failure(id))?;
    if !jobs.iter().zip(&missing).all(|(job, wanted)| job.is_as_wanted(wanted)) {
        jobs.extend(there);
        jobs.retain(|job| job.created_at == batch.created_at);
        cancel_new(&app.table, &app.outbox, jobs, app.clock.now()).await.map_err(log_failure(id))?;
        app.table.save_batch(&batch.withdrawn(app.clock.now())).await.map_err(log_failure(id))?;
        return Err(Problem::IdempotencyKeyReused);
    }
    jobs.extend(there);
    let current = found(id, app.table.get_batch(id).await)?;
    if current.canceled_at.is_none() {
        let sent = send_tickets(&app.queue, &app.outbox, &batch.owner, &jobs, trace.as_ref()).await;
        sent.map_err(log_failure(id))?;
    }
    // Another request may have taken over from this writer and completed the batch, which does no harm.
    let submitted = |current: &Batch| (current.writing() == batch.writing()).then(|| current.submitted());
    Ok(found(id, app.table.change_batch(current, submitted).await)?.0)
}
