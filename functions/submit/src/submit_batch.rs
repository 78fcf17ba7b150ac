//! Stores a batch and its jobs, and sends their tickets.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::api::BatchJobView;
use shared::aws::gateway::log_failure;
use shared::aws::{CreatedBatch, Saved, ServiceError};
use shared::batch::{BatchOrder, Entry};
use shared::caller::IdempotencyKey;
use shared::job::{Lease, Membership, Status};
use shared::order::DeadlineHours;
use shared::ticket::{BatchTicket, Ticket};
use shared::{Batch, BatchId, Job, JobId, Owner, Problem};
use tokio::time::{Instant, sleep};

use crate::App;

/// How long one writer has exclusive access to a batch: longer than an invocation, so that it is alone or dead.
const WRITING: Duration = Duration::from_secs(45);

/// How long a repeated request waits for the first one.
const PATIENCE: Duration = Duration::from_secs(10);

const AT_ONCE: usize = 16;

/// Whether jobs of a batch may already be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// None of them.
    Nothing,
    /// An earlier writer may have stored some.
    Perhaps,
}

/// A batch that was submitted, by this request or an earlier one with the same key.
pub(crate) struct SubmittedBatch {
    pub(crate) batch: Batch,
    pub(crate) jobs: Vec<BatchJobView>,
    pub(crate) states: Vec<Status>,
    pub(crate) replayed: bool,
}

/// Submits a batch as a whole: it is accepted only when every job is stored and every ticket sent.
///
/// The jobs' ids are derived from the batch's, so a repeated request can complete a submission that crashed.
pub(crate) async fn submit(
    app: &App,
    owner: Owner,
    order: BatchOrder,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<SubmittedBatch, Problem> {
    let id = key.map_or_else(BatchId::new, |key| BatchId::from_key(&owner, key));
    let now = app.clock.now();
    let lease = Lease::new(now + WRITING);
    let batch = Batch {
        id,
        owner,
        name: order.name.clone(),
        total: order.entries.len(),
        created_at: now,
        deadline_at: now + DeadlineHours::or(order.deadline_hours, app.deadline),
        expires_at: (now + app.retention).whole_secs(),
        fingerprint: order.fingerprint(),
        writing: Some(lease),
        canceled_at: None,
        retried_at: None,
        webhook: order.webhook.clone(),
        told_for: None,
    };
    let (batch, states, replayed) = match app.table.create_batch(&batch).await.map_err(log_failure(id))? {
        CreatedBatch::New => {
            let states = write(app, &batch, lease, &order, Written::Nothing, trace).await?;
            (batch, states, false)
        }
        CreatedBatch::Existing(existing) if existing.fingerprint == batch.fingerprint => {
            let batch = complete(app, *existing, &order, trace).await?;
            let known = app.table.states_of_batch(id).await.map_err(log_failure(id))?;
            let states = batch.states(known, app.clock.now()).collect();
            (batch, states, true)
        }
        CreatedBatch::Existing(_) => return Err(Problem::IdempotencyKeyReused),
    };
    tracing::info!(batch.id = %id, jobs = batch.total, replayed, "batch submitted");
    let jobs = order.entries.into_iter().enumerate();
    let jobs = jobs.map(|(index, entry)| {
        let Entry { custom_id, .. } = entry;
        BatchJobView { index, id: JobId::in_batch(id, index), custom_id }
    });
    Ok(SubmittedBatch { batch, jobs: jobs.collect(), states, replayed })
}

/// Waits for the batch's writer, or takes over if that one died.
async fn complete(app: &App, mut batch: Batch, order: &BatchOrder, trace: Option<String>) -> Result<Batch, Problem> {
    let id = batch.id;
    let patience = Instant::now() + PATIENCE;
    while let Some(lease) = batch.writing {
        let now = app.clock.now();
        if lease.until <= now {
            let mine = Lease::new(now + WRITING);
            if app.table.move_writing_on(id, lease, Some(mine)).await.map_err(log_failure(id))? {
                write(app, &batch, mine, order, Written::Perhaps, trace).await?;
                return Ok(batch);
            }
        } else if Instant::now() >= patience {
            return Err(Problem::Unavailable { retry_after: lease.until.since(now) });
        }
        sleep(Duration::from_millis(250)).await;
        batch = app.table.get_batch(id).await.map_err(log_failure(id))?.ok_or(Problem::NotFound)?;
    }
    Ok(batch)
}

/// Stores the missing jobs of a batch, sends the tickets of the queued ones, and marks the batch as written. Returns
/// the statuses of all jobs.
///
/// The batch may be canceled in the meantime. The cancellation is noted in the batch's record before the existing jobs
/// are canceled. Here the record is read after all jobs are stored and before any ticket is sent. So every job is
/// canceled by one of the two, whatever their order.
async fn write(
    app: &App,
    batch: &Batch,
    lease: Lease,
    order: &BatchOrder,
    written: Written,
    trace: Option<String>,
) -> Result<Vec<Status>, Problem> {
    let id = batch.id;
    let wanted = jobs_of(app, batch, &order.entries);
    // Skip the jobs that exist, so that repeated tries make progress.
    let (there, missing) = match written {
        Written::Nothing => (Vec::new(), wanted),
        Written::Perhaps => {
            let there = app.table.written_jobs(&wanted).await.map_err(log_failure(id))?;
            let known: HashSet<_> = there.iter().map(|job| job.id).collect();
            (there, wanted.into_iter().filter(|job| !known.contains(&job.id)).collect())
        }
    };
    let mut jobs = app.table.create_all(&missing).await.map_err(log_failure(id))?;
    let reused = !jobs.iter().zip(&missing).all(|(job, wanted)| job.is_as_wanted(wanted));
    jobs.extend(there);
    let canceled = app.table.get_batch(id).await.map_err(log_failure(id))?.is_some_and(|now| now.canceled_at.is_some());
    if reused || canceled {
        jobs = cancel_new(app, batch, jobs).await.map_err(log_failure(id))?;
    }
    if reused {
        return Err(Problem::IdempotencyKeyReused);
    }
    let tickets: Vec<_> = jobs.iter().filter_map(|job| Ticket::for_unfinished(job, trace.as_ref())).collect();
    app.queue.send_batch(&tickets, &batch.owner).await.map_err(log_failure(id))?;
    if batch.webhook_for_end().is_some() {
        send_batch_ticket(app, batch).await?;
    }
    // Somebody else may have assumed that this writer is dead, and completed the batch. That does no harm.
    app.table.move_writing_on(id, lease, None).await.map_err(log_failure(id))?;
    Ok(jobs.iter().map(Job::status).collect())
}

/// Has the function `batch` watch the batch.
pub(crate) async fn send_batch_ticket(app: &App, batch: &Batch) -> Result<(), Problem> {
    app.batches.send_batch_ticket(&BatchTicket { batch: batch.id }, &batch.owner).await.map_err(log_failure(batch.id))
}

/// Cancels those jobs that were written for this batch and have not changed since, and tells the ends of those that were
/// canceled here or before. Returns all jobs as they then are.
async fn cancel_new(app: &App, batch: &Batch, jobs: Vec<Job>) -> Result<Vec<Job>, ServiceError> {
    stream::iter(jobs)
        .map(|job| async move {
            if job.created_at != batch.created_at {
                return Ok(job);
            }
            let job = match job.cancel(app.clock.now()) {
                Ok(canceled) if job.fence == 0 => match app.table.save(&canceled).await? {
                    Saved::Stored => canceled,
                    Saved::MovedOn(current) => *current,
                    Saved::Gone => return Ok(job),
                },
                _ => job,
            };
            // These jobs have no ticket that would tell it later.
            app.outbox.tell(&job).await?;
            Ok(job)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn jobs_of(app: &App, batch: &Batch, entries: &[Entry]) -> Vec<Job> {
    let job = |(index, entry): (usize, &Entry)| {
        let id = JobId::in_batch(batch.id, index);
        let order = entry.order.clone();
        let membership = Membership { batch: batch.id, part: 0, custom_id: entry.custom_id.clone() };
        let job = Job::new(id, batch.owner.clone(), order, batch.created_at, app.deadline, app.retention);
        Job { membership: Some(membership), expires_at: batch.expires_at, ..job }
    };
    entries.iter().enumerate().map(job).collect()
}
