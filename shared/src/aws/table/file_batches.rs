//! The records of batches from files.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure as OnFailure};

use super::rows::{FILE, batch_key, file_batch_of, file_item_of, file_row_of};
use super::{SERVICE, Table};
use crate::aws::ServiceError;
use crate::file_batch::FileBatch;
use crate::id::BatchId;
use crate::time::Timestamp;

/// The outcome of saving the next version of a batch's record.
#[derive(Debug)]
pub enum SavedBatch {
    /// It was saved, now or by an earlier call whose answer was lost.
    Stored,
    /// Somebody else changed the batch first; this is its current version.
    MovedOn(Box<FileBatch>),
    /// Its record was deleted.
    Gone,
}

impl Table {
    /// Creates a batch from a file. Returns the unexpired batch that has its id already, if there is one: a
    /// batch from a file, or `None` for any other.
    pub async fn create_file_batch(&self, batch: &FileBatch) -> Result<Option<Option<FileBatch>>, ServiceError> {
        let existing = self.put_new(file_item_of(batch), batch.batch.created_at).await?;
        existing.map(|item| file_batch_of(&item).transpose()).transpose()
    }

    /// The batch from a file with this id, by a consistent read.
    pub async fn get_file_batch(&self, id: BatchId) -> Result<Option<FileBatch>, ServiceError> {
        let item = self.get_item(batch_key(id)).await?;
        item.as_ref().and_then(file_batch_of).transpose()
    }

    /// Saves the next version of a batch's record, if the stored one is the version before it.
    pub async fn save_file_batch(&self, batch: &FileBatch) -> Result<SavedBatch, ServiceError> {
        let number = |number: i64| AttributeValue::N(number.to_string());
        let [canceled_at, retried_at] =
            [batch.batch.canceled_at, batch.batch.retried_at].map(|at| at.map(Timestamp::ms));
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(batch_key(batch.batch.id)))
            .update_expression(
                "SET #file = :file, #total = :total, deadline_at = :deadline, expires_at = :expires, \
                 canceled_at = :canceled, retried_at = :retried",
            )
            .condition_expression("#file.fence = :before")
            .expression_attribute_names("#file", FILE)
            .expression_attribute_names("#total", "total")
            .expression_attribute_values(":file", file_row_of(batch))
            .expression_attribute_values(":total", AttributeValue::N(batch.batch.total.to_string()))
            .expression_attribute_values(":deadline", number(batch.batch.deadline_at.ms()))
            .expression_attribute_values(":expires", number(batch.batch.expires_at.secs_ceil()))
            .expression_attribute_values(":canceled", canceled_at.map_or(AttributeValue::Null(true), number))
            .expression_attribute_values(":retried", retried_at.map_or(AttributeValue::Null(true), number))
            .expression_attribute_values(":before", AttributeValue::N((batch.fence - 1).to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(_) => Ok(SavedBatch::Stored),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let Some(item) = failed.item() else { return Ok(SavedBatch::Gone) };
                    let stored = file_batch_of(item).ok_or_else(|| ServiceError::corrupt(SERVICE))??;
                    Ok(if stored.is_same_version(batch) {
                        SavedBatch::Stored
                    } else {
                        SavedBatch::MovedOn(Box::new(stored))
                    })
                }
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }
}
