//! Recording a batch and its jobs, and sending their tickets.

use std::collections::HashSet;
use std::time::Duration;

use shared::api::BatchJobView;
use shared::aws::{CreatedBatch, Joined, ServiceError};
use shared::batch::{BatchOrder, Entry, Group};
use shared::job::{Membership, Status};
use shared::order::IdempotencyKey;
use shared::ticket::Ticket;
use shared::{Batch, BatchId, Job, JobId, Owner, Problem};
use tokio::time::{Instant, sleep};

use crate::{App, refused};

/// How long one writer has a batch for itself: longer than an invocation lasts, so that it is alone or dead.
const WRITING: Duration = Duration::from_secs(45);

/// How long an identical request waits for the one that came first.
const PATIENCE: Duration = Duration::from_secs(10);

/// A batch that was taken in, now or by an earlier request with the same key.
pub(crate) struct SubmittedBatch {
    pub(crate) batch: Batch,
    pub(crate) jobs: Vec<BatchJobView>,
    pub(crate) states: Vec<Status>,
    pub(crate) replayed: bool,
}

impl App {
    /// Takes a batch in, all of it or nothing: it is taken in only when every job's record is stored and every ticket is
    /// sent.
    ///
    /// The jobs' names follow from the batch's, so whoever finishes a submission that broke off finds what was written.
    pub(crate) async fn submit_batch(
        &self,
        owner: Owner,
        order: BatchOrder,
        key: Option<&IdempotencyKey>,
        trace: Option<String>,
    ) -> Result<SubmittedBatch, Problem> {
        let id = key.map_or_else(BatchId::new, |key| BatchId::from_key(&owner, key));
        let now = self.clock.now();
        let batch = Batch {
            id,
            group: order.group.as_ref().map(|group| BatchId::of_group(&owner, group)),
            owner,
            name: order.name.clone(),
            total: order.entries.len(),
            created_at: now,
            expires_at: (now + self.retention).whole_secs(),
            fingerprint: order.fingerprint(),
            writing_until: Some(now + WRITING),
        };
        let (batch, replayed) = match self.table.create_batch(&batch).await.map_err(refused(id))? {
            CreatedBatch::New => {
                self.join_group(&batch, &order).await?;
                let jobs = self.jobs_of(&batch, &order.entries);
                self.table.write_jobs(&jobs).await.map_err(refused(id))?;
                self.finish(&batch, jobs.iter().map(|job| job.id), trace).await.map_err(refused(id))?;
                (batch, false)
            }
            CreatedBatch::Existing(existing) if existing.fingerprint == batch.fingerprint => {
                (self.complete(existing, &order, trace).await?, true)
            }
            CreatedBatch::Existing(_) => return Err(Problem::IdempotencyKeyReused),
        };
        let states = if replayed { self.table.states_of_batch(id).await.map_err(refused(id))? } else { Vec::new() };
        tracing::info!(batch.id = %id, jobs = batch.total, replayed, "a batch was submitted");
        let jobs = order.entries.into_iter().enumerate();
        let jobs = jobs.map(|(index, entry)| {
            let Entry { custom_id, .. } = entry;
            BatchJobView { index, id: JobId::in_batch(id, index), custom_id }
        });
        Ok(SubmittedBatch {
            batch,
            jobs: jobs.collect(),
            states: states.into_iter().map(|(_, status)| status).collect(),
            replayed,
        })
    }

    /// Waits for whoever writes the batch, or finishes it where that one died.
    async fn complete(&self, mut batch: Batch, order: &BatchOrder, trace: Option<String>) -> Result<Batch, Problem> {
        let id = batch.id;
        let patience = Instant::now() + PATIENCE;
        while let Some(until) = batch.writing_until {
            let now = self.clock.now();
            if until <= now {
                let mine = Some(now + WRITING);
                if self.table.move_writing_on(id, Some(until), mine).await.map_err(refused(id))? {
                    batch.writing_until = mine;
                    self.join_group(&batch, order).await?;
                    // What is written already is not written again, so that each of several tries gets further.
                    let jobs = self.jobs_of(&batch, &order.entries);
                    let written = self.table.written_jobs(&jobs).await.map_err(refused(id))?;
                    let there: HashSet<_> = written.iter().map(|(job, _)| *job).collect();
                    let missing = jobs.into_iter().filter(|job| !there.contains(&job.id)).collect();
                    let completed = self.table.complete_jobs(missing).await.map_err(refused(id))?;
                    let completed = completed.iter().map(|job| (job.id, job.status()));
                    let waiting = written.iter().copied().chain(completed);
                    let waiting = waiting.filter(|(_, status)| *status == Status::Queued).map(|(job, _)| job);
                    self.finish(&batch, waiting, trace).await.map_err(refused(id))?;
                    return Ok(batch);
                }
            } else if Instant::now() >= patience {
                return Err(Problem::Unavailable { retry_after: until.since(now) });
            }
            sleep(Duration::from_millis(250)).await;
            batch = self.table.get_batch(id).await.map_err(refused(id))?.ok_or(Problem::NotFound)?;
        }
        Ok(batch)
    }

    /// Lists the batch under its group, if it has one. That comes before any job is written, so that whatever is painted
    /// is found under its group.
    async fn join_group(&self, batch: &Batch, order: &BatchOrder) -> Result<(), Problem> {
        let (Some(id), Some(name)) = (batch.group, &order.group) else { return Ok(()) };
        match self.table.join_group(batch, id, name).await.map_err(refused(batch.id))? {
            Joined::Part => Ok(()),
            Joined::Full => {
                let rule = format!("has {} parts already, which is the most; begin another group", Group::MAX_PARTS);
                Err(Problem::field("/group", rule))
            }
        }
    }

    /// Sends the tickets of the jobs that wait, and then lets the batch count as taken in.
    async fn finish(
        &self,
        batch: &Batch,
        waiting: impl Iterator<Item = JobId>,
        trace: Option<String>,
    ) -> Result<(), ServiceError> {
        let tickets: Vec<_> = waiting.map(|job| Ticket { job, trace: trace.clone() }).collect();
        self.queue.send_all(&tickets, &batch.owner).await?;
        // Somebody else may have thought this writer dead and have finished the batch; that does no harm.
        self.table.move_writing_on(batch.id, batch.writing_until, None).await.map(drop)
    }

    fn jobs_of(&self, batch: &Batch, entries: &[Entry]) -> Vec<Job> {
        let job = |(index, entry): (usize, &Entry)| {
            let id = JobId::in_batch(batch.id, index);
            let order = entry.order.clone();
            let membership = Membership { batch: batch.id, custom_id: entry.custom_id.clone() };
            let job = Job::new(id, batch.owner.clone(), order, batch.created_at, self.deadline, self.retention);
            Job { membership: Some(membership), ..job }
        };
        entries.iter().enumerate().map(job).collect()
    }
}
