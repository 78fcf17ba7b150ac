//! Batches, and the writing of their jobs.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{GroupRow, Item, batch_item_of, batch_key, batch_of, group_of, item_of};
use super::{Created, SERVICE, Table};
use crate::aws::{Kind, ServiceError};
use crate::backoff::full_jitter;
use crate::batch::{Batch, Group, GroupName, Whole};
use crate::id::BatchId;
use crate::job::{Job, Owner};
use crate::time::Timestamp;

/// How many items one BatchWriteItem takes, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>.
const ITEMS_PER_WRITE: usize = 25;

/// How many writes are under way at once.
const WRITES_AT_ONCE: usize = 8;

/// How often what DynamoDB left undone is sent again.
const TRIES: u32 = 8;

/// What came of recording a new batch.
#[derive(Debug)]
pub enum CreatedBatch {
    /// It was recorded, and its jobs are the caller's to write.
    New,
    /// There is a batch of this name already.
    Existing(Batch),
}

/// What came of listing a batch as a part of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It is a part.
    Part,
    /// The group has as many parts as it may have, and this is none of them.
    Full,
}

impl Table {
    /// Records a new batch, unless there is one of this name whose retention has not ended.
    ///
    /// # Errors
    /// When the table does not answer as it should. The batch may then have been recorded all the same.
    pub async fn create_batch(&self, batch: &Batch) -> Result<CreatedBatch, ServiceError> {
        let Some(existing) = self.put_new(batch_item_of(batch), batch.created_at).await? else {
            return Ok(CreatedBatch::New);
        };
        let existing = batch_of(existing)?;
        // A write whose answer was lost knows itself again.
        Ok(if existing == *batch { CreatedBatch::New } else { CreatedBatch::Existing(existing) })
    }

    /// The batch of this name.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get_batch(&self, id: BatchId) -> Result<Option<Batch>, ServiceError> {
        self.batch_item(id).await?.map(batch_of).transpose()
    }

    async fn batch_item(&self, id: BatchId) -> Result<Option<Item>, ServiceError> {
        for consistent in [false, true] {
            let get = self.client.get_item().table_name(&self.name).key("pk", key(id)).consistent_read(consistent);
            let output = get.send().await.map_err(|error| ServiceError::new(SERVICE, &error))?;
            // A group that is a moment behind would lack a part that was taken in already.
            if output.item.as_ref().is_some_and(|item| consistent || group_of(item).is_none()) {
                return Ok(output.item);
            }
        }
        Ok(None)
    }

    /// The owner's batch or group of this name, unless its retention has ended. Another owner's is as good as none.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get_owned_batch(
        &self,
        id: BatchId,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Option<Whole>, ServiceError> {
        let Some(item) = self.batch_item(id).await? else { return Ok(None) };
        let whole = match group_of(&item) {
            None => Whole::Batch(batch_of(item)?),
            Some(row) => {
                let GroupRow { batch_owner, group_name, created_at, expires_at, parts } = row?;
                Whole::Group(Group {
                    id,
                    owner: batch_owner,
                    name: group_name,
                    created_at: Timestamp::from_ms(created_at),
                    expires_at: Timestamp::from_ms(expires_at * 1000),
                    parts: self.parts(parts.into_iter().collect(), now).await?,
                })
            }
        };
        Ok(Some(whole).filter(|whole| whole.owner() == owner && whole.expires_at() > now))
    }

    /// The batches of these names whose retention has not ended, oldest first.
    async fn parts(&self, ids: Vec<BatchId>, now: Timestamp) -> Result<Vec<Batch>, ServiceError> {
        let items = self.read_items(ids.into_iter().map(batch_key), true).await?;
        let mut parts = items.into_iter().map(batch_of).collect::<Result<Vec<_>, _>>()?;
        parts.retain(|part| part.expires_at > now);
        parts.sort_unstable_by_key(|part| (part.created_at, part.id));
        Ok(parts)
    }

    /// Lists the batch as a part of its group, which comes about with its first part. Doing so twice changes nothing.
    ///
    /// The group's record holds the names of its parts alone, in a set: one write, which needs no read before it, and
    /// which a crash leaves done or not done. Its time of deletion moves on with each part.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn join_group(&self, batch: &Batch, group: BatchId, name: &GroupName) -> Result<Joined, ServiceError> {
        // A part that is finished late must not take time from those that came after it.
        let last = "(attribute_not_exists(expires_at) OR expires_at <= :expires)";
        match self.join(batch, group, name, "expires_at = :expires", last).await? {
            Joined::Full => self.join(batch, group, name, "expires_at = expires_at", "expires_at > :expires").await,
            joined => Ok(joined),
        }
    }

    async fn join(
        &self,
        batch: &Batch,
        group: BatchId,
        name: &GroupName,
        expiry: &str,
        condition: &str,
    ) -> Result<Joined, ServiceError> {
        let part = AttributeValue::S(batch.id.to_string());
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key(group))
            .update_expression(format!(
                "SET batch_owner = :owner, group_name = :name, {expiry}, \
                 created_at = if_not_exists(created_at, :now) ADD parts :parts",
            ))
            .condition_expression(format!(
                "{condition} AND (attribute_not_exists(parts) OR size(parts) < :most OR contains(parts, :part))"
            ))
            .expression_attribute_values(":owner", AttributeValue::S(batch.owner.as_str().to_owned()))
            .expression_attribute_values(":name", AttributeValue::S(name.as_str().to_owned()))
            .expression_attribute_values(":expires", AttributeValue::N(batch.expires_at.secs().to_string()))
            .expression_attribute_values(":now", AttributeValue::N(batch.created_at.ms().to_string()))
            .expression_attribute_values(":parts", AttributeValue::Ss(vec![batch.id.to_string()]))
            .expression_attribute_values(":part", part)
            .expression_attribute_values(":most", AttributeValue::N(Group::MAX_PARTS.to_string()))
            .send()
            .await;
        match result {
            Ok(_) => Ok(Joined::Part),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(Joined::Full),
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }

    /// Moves a batch's writing on, from `before` to `after`, unless somebody else has: the answer tells.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn move_writing_on(
        &self,
        id: BatchId,
        before: Option<Timestamp>,
        after: Option<Timestamp>,
    ) -> Result<bool, ServiceError> {
        let attribute = |time: Option<Timestamp>| match time {
            Some(time) => AttributeValue::N(time.ms().to_string()),
            None => AttributeValue::Null(true),
        };
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key(id))
            .update_expression("SET writing_until = :after")
            .condition_expression("writing_until = :before OR writing_until = :after")
            .expression_attribute_values(":before", attribute(before))
            .expression_attribute_values(":after", attribute(after))
            .send()
            .await;
        match result {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }

    /// Writes the jobs of a batch that nobody has written before.
    ///
    /// These writes know no conditions, so they must not meet a job that has moved on.
    ///
    /// # Errors
    /// When the table does not answer as it should, or leaves something undone again and again.
    pub async fn write_jobs(&self, jobs: &[Job]) -> Result<(), ServiceError> {
        let writes: Vec<_> = jobs.chunks(ITEMS_PER_WRITE).map(|jobs| self.write_chunk(jobs)).collect();
        stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_collect().await
    }

    async fn write_chunk(&self, jobs: &[Job]) -> Result<(), ServiceError> {
        let mut writes: Vec<_> = jobs
            .iter()
            .map(|job| {
                let put = PutRequest::builder().set_item(Some(item_of(job))).build().expect("its item is set");
                WriteRequest::builder().put_request(put).build()
            })
            .collect();
        for tries in 0..TRIES {
            let request = HashMap::from([(self.name.clone(), writes)]);
            let output = self.client.batch_write_item().set_request_items(Some(request)).send().await;
            let output = output.map_err(|error| ServiceError::new(SERVICE, &error))?;
            writes = output.unprocessed_items.and_then(|mut items| items.remove(&self.name)).unwrap_or_default();
            if writes.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(full_jitter(Duration::from_millis(50), Duration::from_secs(1), tries)).await;
        }
        Err(ServiceError { service: SERVICE, code: "UnprocessedItems".to_owned(), kind: Kind::Throttled })
    }

    /// Writes those jobs of a batch that are not there yet, and gives back all of them as they stand.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn complete_jobs(&self, jobs: Vec<Job>) -> Result<Vec<Job>, ServiceError> {
        stream::iter(jobs)
            .map(|job| async move {
                Ok(match self.create(&job).await? {
                    Created::New => job,
                    Created::Existing(existing) => *existing,
                })
            })
            .buffer_unordered(WRITES_AT_ONCE * 2)
            .try_collect()
            .await
    }
}

fn key(id: BatchId) -> AttributeValue {
    AttributeValue::S(batch_key(id))
}
