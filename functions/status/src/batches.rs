//! Looking a batch up for its owner.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::ServiceError;
use shared::batch::{Counts, Whole};
use shared::job::Status;
use shared::{BatchId, JobId, Owner, Problem};

use crate::{App, unread};

/// The least age at which a batch's unfinished jobs may be past their deadline.
const LEAST_DEADLINE: Duration = Duration::from_secs(3600);

/// How many unfinished jobs of a batch are held against their deadline at one look.
const SAMPLE: usize = 25;

/// How many parts of a group are counted at once.
const PARTS: usize = 16;

impl App {
    /// The owner's batch.
    pub(crate) async fn owned_batch(&self, id: BatchId, owner: &Owner) -> Result<Whole, Problem> {
        let batch = self.table.get_owned_batch(id, owner, self.clock.now()).await.map_err(unread(id))?;
        batch.ok_or(Problem::NotFound)
    }

    /// How many jobs of the batch stand where.
    ///
    /// Some of those that seem unfinished long after their submission are looked at one by one, so that a job whose ticket
    /// was lost does not keep its batch open for ever.
    pub(crate) async fn counts(&self, batch: &Whole) -> Result<Counts, Problem> {
        let now = self.clock.now();
        let reads: Vec<_> = batch
            .parts()
            .iter()
            .map(|part| async move {
                let old = now.since(part.created_at) >= LEAST_DEADLINE;
                let states = self.table.states_of_batch(part.id).await?;
                // Of a part whose submission died and was never finished, only what was written is waited for.
                let dead = part.writing_until.is_some_and(|until| until <= now);
                let total = if dead { states.len() } else { part.total };
                Ok((old, total, states))
            })
            .collect();
        let parts: Vec<_> =
            stream::iter(reads).buffer_unordered(PARTS).try_collect().await.map_err(unread(batch.id()))?;
        let total = parts.iter().map(|(_, total, _)| total).sum();
        let mut looks = SAMPLE;
        let states = parts.into_iter().flat_map(|(old, _, states)| states.into_iter().map(move |state| (old, state)));
        let states = states.map(|(old, (id, status))| {
            let look = old && looks > 0 && status <= Status::Running;
            looks -= usize::from(look);
            async move { if look { self.status_now(id).await } else { Ok(Some(status)) } }
        });
        let states = stream::iter(states).buffer_unordered(SAMPLE).try_collect::<Vec<_>>().await;
        Ok(Counts::of(total, states.map_err(unread(batch.id()))?.into_iter().flatten()))
    }

    /// The state of a job, after it was ended if its deadline has passed; `None` when its record is gone.
    async fn status_now(&self, id: JobId) -> Result<Option<Status>, ServiceError> {
        let Some(job) = self.table.get(id).await? else { return Ok(None) };
        Ok(self.end_if_overdue(job).await?.map(|job| job.status()))
    }
}
