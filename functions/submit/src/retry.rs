//! Taking failed and canceled jobs in again.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::{Saved, ServiceError};
use shared::batch::{Counts, Steps, Whole};
use shared::job::Status;
use shared::order::IdempotencyKey;
use shared::ticket::Ticket;
use shared::{Batch, BatchId, Job, JobId, Owner, Problem};

use crate::submit_job::Submitted;
use crate::{App, refused};

/// How many jobs of a batch are retried at once.
const AT_ONCE: usize = 16;

/// What came of retrying a job.
enum Retried {
    /// It waits again.
    Now(Box<Job>),
    /// A request with this key had been accepted before.
    Before(Box<Job>),
    /// It is in a state in which it cannot be.
    Refused(Status),
    /// Its record is gone.
    Gone,
}

impl App {
    /// Queues a failed or canceled job again. A job that waits already gets its ticket again, which may have been lost.
    pub(crate) async fn retry(
        &self,
        id: JobId,
        owner: &Owner,
        key: Option<&IdempotencyKey>,
        trace: Option<String>,
    ) -> Result<Submitted, Problem> {
        let owned = self.table.get_owned(id, owner, self.clock.now()).await.map_err(refused(id))?;
        let (job, replayed) = match self.requeue(owned.ok_or(Problem::NotFound)?, key).await.map_err(refused(id))? {
            Retried::Now(job) => (*job, false),
            Retried::Before(job) => (*job, true),
            Retried::Refused(status) => return Err(Problem::NotRetryable(status)),
            Retried::Gone => return Err(Problem::NotFound),
        };
        if job.status() == Status::Queued {
            self.send_ticket(&job, trace).await?;
        }
        tracing::info!(job.id = %id, replayed, "a job was retried");
        Ok(Submitted { job, replayed })
    }

    /// Queues the failed jobs of a batch again, and tells how its jobs then stand, and where a group goes on that was too
    /// large to be worked off in one request.
    pub(crate) async fn retry_batch(
        &self,
        id: BatchId,
        owner: &Owner,
        key: Option<&IdempotencyKey>,
        mut steps: Steps,
        trace: Option<String>,
    ) -> Result<(Whole, Counts, Option<String>), Problem> {
        let batch = self.table.get_owned_batch(id, owner, self.clock.now()).await.map_err(refused(id))?;
        let batch = batch.ok_or(Problem::NotFound)?;
        steps.check(&batch)?;
        let mut states = Vec::with_capacity(batch.total());
        let now = self.clock.now();
        let before = self.table.states_of_batches(batch.parts()).await.map_err(refused(id))?;
        for (part, part_states) in batch.parts().iter().zip(before) {
            states.extend(part.states_of_missing(part_states.len(), now));
            if !steps.is_turn_of(part) {
                states.extend(part_states.into_iter().map(|(_, status)| status));
                continue;
            }
            let limit = steps.limit();
            let retried = self.retry_part(part, part_states, key, limit, trace.clone()).await;
            let retried = retried.map_err(refused(part.id))?;
            if retried.iter().any(|(_, status)| *status == Status::Failed) && Instant::now() >= limit {
                steps.leave(part);
            }
            states.extend(retried.into_iter().map(|(_, status)| status));
        }
        Ok((batch, Counts::of(states), steps.next_cursor()))
    }

    /// Queues the failed ones of these jobs again until `limit`, and tells how all of them then stand.
    async fn retry_part(
        &self,
        part: &Batch,
        states: Vec<(JobId, Status)>,
        key: Option<&IdempotencyKey>,
        limit: Instant,
        trace: Option<String>,
    ) -> Result<Vec<(JobId, Status)>, ServiceError> {
        let states: Vec<(JobId, Status)> = stream::iter(states)
            .map(|(id, status)| async move {
                if status != Status::Failed || Instant::now() >= limit {
                    return Ok((id, status));
                }
                let Some(job) = self.table.get(id).await? else { return Ok((id, status)) };
                Ok(match self.requeue(job, key).await? {
                    Retried::Now(job) | Retried::Before(job) => (id, job.status()),
                    Retried::Refused(status) => (id, status),
                    Retried::Gone => (id, Status::Failed),
                })
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        // A job that waits may have lost its ticket to a retry that broke off. One too many does no harm.
        let waiting = states.iter().filter(|(_, status)| *status == Status::Queued);
        let tickets: Vec<_> = waiting.map(|(job, _)| Ticket { job: *job, trace: trace.clone() }).collect();
        self.queue.send_all(&tickets, &part.owner).await?;
        tracing::info!(batch.id = %part.id, jobs = tickets.len(), "a batch was retried");
        Ok(states)
    }

    async fn requeue(&self, mut job: Job, key: Option<&IdempotencyKey>) -> Result<Retried, ServiceError> {
        loop {
            if key.is_some_and(|key| job.retry_keys.contain(key)) {
                return Ok(Retried::Before(Box::new(job)));
            }
            if job.status() == Status::Queued && key.is_none() {
                return Ok(Retried::Now(Box::new(job)));
            }
            let next = match job.retry(key, self.clock.now(), self.deadline, self.retention) {
                Ok(next) => next,
                Err(status) => return Ok(Retried::Refused(status)),
            };
            match self.table.save(&next).await? {
                Saved::Stored => return Ok(Retried::Now(Box::new(next))),
                // Each turn of the loop means that somebody else has moved the job on, which ends.
                Saved::MovedOn(current) => job = *current,
                Saved::Gone => return Ok(Retried::Gone),
            }
        }
    }
}
