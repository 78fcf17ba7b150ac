//! Batches, and the creation of a batch's jobs.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{any_batch_of, batch_item_of, batch_key, batch_of};
use super::{Created, SERVICE, Table, unless_refused};
use crate::aws::{Kind, ServiceError};
use crate::backoff::full_jitter;
use crate::batch::Batch;
use crate::caller::Owner;
use crate::file_batch::FileBatch;
use crate::id::BatchId;
use crate::job::{Job, Lease};
use crate::time::Timestamp;

/// How many writes run at once. Each uses its own connection, and a small function is limited by CPU, not by waiting.
const WRITES_AT_ONCE: usize = 16;

/// How often a write that DynamoDB throttles is retried, in addition to the SDK's retries.
const TRIES: u32 = 6;

/// The outcome of creating a batch.
#[derive(Debug)]
pub enum CreatedBatch {
    /// It was created; the caller writes its jobs.
    New,
    /// A batch with this id exists.
    Existing(Box<Batch>),
}

/// A batch of either kind.
#[derive(Debug)]
pub enum AnyBatch {
    /// Its jobs were in the request.
    InRequest(Box<Batch>),
    /// Its jobs come from a file.
    FromFile(Box<FileBatch>),
}

impl AnyBatch {
    /// What both kinds have.
    pub fn batch(&self) -> &Batch {
        match self {
            Self::InRequest(batch) => batch,
            Self::FromFile(file) => &file.batch,
        }
    }

    pub(super) fn is_visible_to(&self, owner: &Owner, now: Timestamp) -> bool {
        self.batch().owner == *owner && self.batch().expires_at > now
    }
}

impl Table {
    /// Creates a batch, unless an unexpired one with its id exists.
    pub async fn create_batch(&self, batch: &Batch) -> Result<CreatedBatch, ServiceError> {
        let Some(existing) = self.put_new(batch_item_of(batch), batch.created_at).await? else {
            return Ok(CreatedBatch::New);
        };
        let existing = batch_of(existing)?;
        // An identical record is our own write, whose answer was lost.
        Ok(if existing == *batch { CreatedBatch::New } else { CreatedBatch::Existing(Box::new(existing)) })
    }

    /// The batch with this id.
    pub async fn get_batch(&self, id: BatchId) -> Result<Option<Batch>, ServiceError> {
        self.get_item(batch_key(id)).await?.map(batch_of).transpose()
    }

    /// The batch of either kind with this id.
    pub async fn get_any_batch(&self, id: BatchId) -> Result<Option<AnyBatch>, ServiceError> {
        self.get_item(batch_key(id)).await?.map(any_batch_of).transpose()
    }

    /// The batch with this id; `None` if it belongs to another owner or has expired.
    pub async fn get_owned_batch(
        &self,
        id: BatchId,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Option<AnyBatch>, ServiceError> {
        let batch = self.get_any_batch(id).await?;
        Ok(batch.filter(|batch| batch.is_visible_to(owner, now)))
    }

    /// Passes the right to write a batch's jobs from the holder of `before` to `after`, or to nobody once they are
    /// written. Returns whether this succeeded: somebody else may have been first.
    pub async fn move_writing_on(
        &self,
        id: BatchId,
        before: Lease,
        after: Option<Lease>,
    ) -> Result<bool, ServiceError> {
        let attribute = |value: Option<AttributeValue>| value.unwrap_or(AttributeValue::Null(true));
        let until = |lease: Lease| AttributeValue::N(lease.until.ms().to_string());
        let writer = |lease: Lease| AttributeValue::S(lease.id.to_string());
        // Older records have no writer id.
        let (holder, before) =
            if before.id.is_nil() { ("writing_until", until(before)) } else { ("writer", writer(before)) };
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key_of(id))
            .update_expression("SET writing_until = :until, writer = :writer")
            // Or this is our own write, whose answer was lost.
            .condition_expression(format!("{holder} = :before OR writer = :writer"))
            .expression_attribute_values(":until", attribute(after.map(until)))
            .expression_attribute_values(":writer", attribute(after.map(writer)))
            .expression_attribute_values(":before", before)
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

    /// Records that a batch was canceled, for whoever writes its jobs now or later.
    pub async fn note_cancellation(&self, id: BatchId, now: Timestamp) -> Result<(), ServiceError> {
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key_of(id))
            .update_expression("SET canceled_at = :now")
            // Do not recreate a deleted record.
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":now", AttributeValue::N(now.ms().to_string()))
            .send()
            .await;
        unless_refused(result)
    }

    /// Notes that the event of a batch's end is in the queue.
    pub async fn note_batch_told(&self, batch: &Batch) -> Result<(), ServiceError> {
        self.set_told(batch_key(batch.id), batch.since()).await
    }

    /// Notes when a batch was retried by a request with this digest of a key. Only the first request with a key counts,
    /// and each without one.
    pub async fn note_retry(&self, id: BatchId, key: Option<String>, now: Timestamp) -> Result<(), ServiceError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key_of(id))
            .expression_attribute_values(":now", AttributeValue::N(now.ms().to_string()));
        let update = match key {
            None => update.update_expression("SET retried_at = :now").condition_expression("attribute_exists(pk)"),
            Some(key) => update
                .update_expression("SET retried_at = :now, retry_key = :key")
                .condition_expression("attribute_exists(pk) AND (attribute_not_exists(retry_key) OR retry_key <> :key)")
                .expression_attribute_values(":key", AttributeValue::S(key)),
        };
        unless_refused(update.send().await)
    }

    /// Creates those jobs of a batch that do not exist, and returns all of them as stored, in order.
    pub async fn create_all(&self, jobs: &[Job]) -> Result<Vec<Job>, ServiceError> {
        let writes = stream::iter(0..jobs.len()).map(|index| self.create_patiently(&jobs[index]));
        writes.buffered(WRITES_AT_ONCE).try_collect().await
    }

    async fn create_patiently(&self, job: &Job) -> Result<Job, ServiceError> {
        let mut tries = 0;
        loop {
            match self.create(job).await {
                Ok(Created::New) => return Ok(job.clone()),
                Ok(Created::Existing(existing)) => return Ok(*existing),
                Err(error) if error.kind == Kind::Throttled && tries < TRIES => {
                    tokio::time::sleep(full_jitter(Duration::from_millis(50), Duration::from_secs(1), tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn key_of(id: BatchId) -> AttributeValue {
    AttributeValue::S(batch_key(id))
}
