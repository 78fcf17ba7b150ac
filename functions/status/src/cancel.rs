//! Canceling jobs.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::{Saved, ServiceError};
use shared::batch::{Counts, Steps, Whole};
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::{App, unread};

/// How many jobs of a batch are canceled at once.
const AT_ONCE: usize = 16;

impl App {
    /// Cancels the owner's job. One that is canceled already stays so.
    pub(crate) async fn cancel(&self, id: JobId, owner: &Owner) -> Result<Job, Problem> {
        let mut job = self.table.get_owned(id, owner, self.clock.now()).await.map_err(unread(id))?;
        // Each turn of the loop means that somebody else has moved the job on, which ends.
        while let Some(current) = job {
            let canceled = match current.cancel(self.clock.now()) {
                Ok(canceled) => canceled,
                Err(Status::Canceled) => return Ok(current),
                Err(status) => return Err(Problem::NotCancelable(status)),
            };
            job = match self.table.save(&canceled).await.map_err(unread(id))? {
                Saved::Stored => {
                    tracing::info!(job.id = %id, "a job was canceled");
                    return Ok(canceled);
                }
                Saved::MovedOn(current) => Some(*current),
                Saved::Gone => None,
            };
        }
        Err(Problem::NotFound)
    }

    /// Cancels the jobs of a batch that have not started, and tells how its jobs then stand, and where a group goes on
    /// that was too large to be worked off in one request.
    pub(crate) async fn cancel_batch(
        &self,
        batch: &Whole,
        mut steps: Steps,
    ) -> Result<(Counts, Option<String>), Problem> {
        steps.check(batch)?;
        let mut states = Vec::with_capacity(batch.total());
        let before = self.table.states_of_batches(batch.parts()).await.map_err(unread(batch.id()))?;
        for (part, waiting) in batch.parts().iter().zip(before) {
            let (turn, limit) = (steps.is_turn_of(part), steps.limit());
            let canceled: Vec<Status> = stream::iter(waiting)
                .map(|(id, status)| async move {
                    let due = turn && status == Status::Queued && Instant::now() < limit;
                    if due { self.cancel_waiting(id).await } else { Ok(status) }
                })
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await
                .map_err(unread(part.id))?;
            if turn {
                tracing::info!(batch.id = %part.id, "what had not started of a batch was canceled");
            }
            if turn && canceled.contains(&Status::Queued) && Instant::now() >= limit {
                steps.leave(part);
            }
            states.extend(canceled);
        }
        Ok((Counts::of(batch.total(), states), steps.next_cursor()))
    }

    async fn cancel_waiting(&self, id: JobId) -> Result<Status, ServiceError> {
        // A job whose record is gone counts as one that waits, as it does when the batch is read.
        let Some(job) = self.table.get(id).await? else { return Ok(Status::Queued) };
        if job.status() != Status::Queued {
            return Ok(job.status());
        }
        let Ok(canceled) = job.cancel(self.clock.now()) else { return Ok(job.status()) };
        Ok(match self.table.save(&canceled).await? {
            Saved::Stored => Status::Canceled,
            Saved::MovedOn(current) => current.status(),
            Saved::Gone => Status::Queued,
        })
    }
}
