use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{LIFE, batch_item_of, batch_key, batch_of, life_of};
use super::{Saved, Table};
use crate::aws::{Kind, Result};
use crate::backoff::full_jitter;
use crate::batch::Batch;
use crate::caller::Owner;
use crate::id::BatchId;
use crate::job::Job;
use crate::time::Timestamp;

/// Each uses its own connection, and a small function is limited by CPU, not by waiting.
const WRITES_AT_ONCE: usize = 16;

/// How often a throttled write is retried, in addition to the SDK's retries.
const TRIES: u32 = 6;

impl Table {
    /// Creates a batch. Returns the unexpired batch that has its id already, if there is one.
    pub async fn create_batch(&self, batch: &Batch) -> Result<Option<Batch>> {
        let existing = self.put_new(batch_item_of(batch), batch.created_at).await?.map(batch_of).transpose()?;
        // An identical record is our own write, whose answer was lost.
        Ok(existing.filter(|existing| !existing.is_same_version(batch)))
    }

    /// The batch with this id, by a consistent read.
    pub async fn get_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        self.get_item(batch_key(id)).await?.map(batch_of).transpose()
    }

    /// The batch with this id; `None` if it belongs to another owner or has expired.
    pub async fn get_owned_batch(&self, id: BatchId, owner: &Owner, now: Timestamp) -> Result<Option<Batch>> {
        let batch = self.get_batch(id).await?;
        Ok(batch.filter(|batch| batch.owner == *owner && batch.expires_at > now))
    }

    /// Saves the next version of a batch's record, if the stored one is the version before it.
    pub async fn save_batch(&self, batch: &Batch) -> Result<Saved<Batch>> {
        let number = |number: i64| AttributeValue::N(number.to_string());
        let [canceled_at, retried_at] = [batch.canceled_at, batch.retried_at].map(|at| at.map(Timestamp::ms));
        // Older records of batches in requests have no version.
        let first = if batch.fence == 1 { "attribute_exists(pk) AND attribute_not_exists(#life) OR " } else { "" };
        let update = self
            .client
            .update_item()
            .key("pk", AttributeValue::S(batch_key(batch.id)))
            .update_expression(
                "SET #life = :life, #total = :total, deadline_at = :deadline, expires_at = :expires, \
                 canceled_at = :canceled, retried_at = :retried",
            )
            .condition_expression(format!("{first}#life.fence = :before"))
            .expression_attribute_names("#life", LIFE)
            .expression_attribute_names("#total", "total")
            .expression_attribute_values(":life", life_of(batch))
            .expression_attribute_values(":total", AttributeValue::N(batch.total.to_string()))
            .expression_attribute_values(":deadline", number(batch.deadline_at.ms()))
            .expression_attribute_values(":expires", number(batch.expires_at.secs_ceil()))
            .expression_attribute_values(":canceled", canceled_at.map_or(AttributeValue::Null(true), number))
            .expression_attribute_values(":retried", retried_at.map_or(AttributeValue::Null(true), number))
            .expression_attribute_values(":before", AttributeValue::N((batch.fence - 1).to_string()));
        self.save_version(update, batch_of, |stored| stored.is_same_version(batch)).await
    }

    /// Like [`Table::change`], for a batch.
    pub async fn change_batch(
        &self,
        mut batch: Batch,
        next: impl Fn(&Batch) -> Option<Batch>,
    ) -> Result<Option<(Batch, bool)>> {
        while let Some(changed) = next(&batch) {
            match self.save_batch(&changed).await? {
                Saved::Stored => return Ok(Some((changed, true))),
                Saved::MovedOn(current) => batch = *current,
                Saved::Gone => return Ok(None),
            }
        }
        Ok(Some((batch, false)))
    }

    /// Notes that the event of a batch's end is in the queue.
    pub async fn note_batch_told(&self, batch: &Batch) -> Result<()> {
        self.set_told(batch_key(batch.id), batch.since()).await
    }

    /// Creates those jobs of a batch that do not exist, and returns all of them as stored, in order.
    pub async fn create_all(&self, jobs: &[Job]) -> Result<Vec<Job>> {
        let writes = stream::iter(0..jobs.len()).map(|index| self.create_patiently(&jobs[index]));
        writes.buffered(WRITES_AT_ONCE).try_collect().await
    }

    async fn create_patiently(&self, job: &Job) -> Result<Job> {
        let mut tries = 0;
        loop {
            match self.create(job).await {
                Ok(existing) => return Ok(existing.unwrap_or_else(|| job.clone())),
                Err(error) if error.kind == Kind::Throttled && tries < TRIES => {
                    tokio::time::sleep(full_jitter(Duration::from_millis(50), Duration::from_secs(1), tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
