//! The table of jobs in Amazon DynamoDB.

mod batches;
mod lists;
mod rows;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure as OnFailure};

pub use self::batches::{CreatedBatch, Joined};
pub use self::lists::{List, Page};
use self::rows::{Item, item_of, job_key, job_of, state_of};
use super::{Metrics, ServiceError};
use crate::caller::Owner;
use crate::id::JobId;
use crate::job::Job;
use crate::time::Timestamp;

const SERVICE: &str = "DynamoDB";

/// The table of jobs.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
    metrics: Option<Metrics>,
}

/// What came of recording a new job.
#[derive(Debug)]
pub enum Created {
    /// It was recorded.
    New,
    /// There is a job of this name already.
    Existing(Box<Job>),
}

/// What came of storing a job's next state.
#[derive(Debug)]
pub enum Saved {
    /// It was stored, now or by a call before whose answer was lost.
    Stored,
    /// Somebody else moved the job on; this is where it stands.
    MovedOn(Box<Job>),
    /// The record was deleted.
    Gone,
}

impl Table {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name, metrics: None }
    }

    /// The same table, with `metrics` told of each job whose end is stored here.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Records a new job, unless there is one of this name whose retention has not ended.
    ///
    /// # Errors
    /// When the table does not answer as it should. The job may then have been recorded all the same.
    pub async fn create(&self, job: &Job) -> Result<Created, ServiceError> {
        Ok(match self.put_new(item_of(job), job.created_at).await? {
            None => Created::New,
            Some(existing) => Created::Existing(Box::new(job_of(existing)?)),
        })
    }

    /// Puts an item, unless there is one with its key whose retention has not ended: that one is given back.
    async fn put_new(&self, item: Item, now: Timestamp) -> Result<Option<Item>, ServiceError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            // DynamoDB may take days to delete what has expired. That is at a full second, so until then a record stands.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", AttributeValue::N(now.ms().div_euclid(1000).to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    // The record may vanish between the check and a read, so without it there is nothing to say.
                    failed.item().cloned().map(Some).ok_or_else(|| ServiceError::corrupt(SERVICE))
                }
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }

    /// The job of this name, as it stands at this moment.
    ///
    /// A read that may be a moment behind would cost half as much, and show a job unfinished that was seen to end.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, ServiceError> {
        self.get_item(job_key(id)).await?.map(job_of).transpose()
    }

    /// The owner's job of this name, unless its retention has ended. Another owner's is as good as none.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get_owned(&self, id: JobId, owner: &Owner, now: Timestamp) -> Result<Option<Job>, ServiceError> {
        let job = self.get(id).await?;
        Ok(job.filter(|job| job.owner == *owner && job.expires_at > now))
    }

    async fn get_item(&self, key: String) -> Result<Option<Item>, ServiceError> {
        let get = self.client.get_item().table_name(&self.name).key("pk", AttributeValue::S(key)).consistent_read(true);
        let output = get.send().await.map_err(|error| ServiceError::new(SERVICE, &error))?;
        Ok(output.item)
    }

    /// Stores a job's next state, where the stored fence is the one before it.
    ///
    /// Attributes that a later version may have added to the record are left as they are, and a record that was
    /// deleted does not come back.
    ///
    /// # Errors
    /// When the table does not answer as it should. The state may then have been stored all the same.
    pub async fn save(&self, job: &Job) -> Result<Saved, ServiceError> {
        let state = state_of(job);
        let mut update = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(job_key(job.id)))
            .condition_expression("fence = :before")
            .expression_attribute_values(":before", AttributeValue::N((job.fence - 1).to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let mut assignments = Vec::with_capacity(state.len());
        for (name, value) in state {
            assignments.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), &name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        let saved = match update.update_expression(format!("SET {}", assignments.join(", "))).send().await {
            Ok(_) => Saved::Stored,
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => match failed.item() {
                    None => Saved::Gone,
                    Some(item) => {
                        let stored = job_of(item.clone())?;
                        if stored == *job { Saved::Stored } else { Saved::MovedOn(Box::new(stored)) }
                    }
                },
                _ => return Err(ServiceError::new(SERVICE, &error)),
            },
        };
        // Only one writer's end is ever stored, so each job is told of once, whoever ends it.
        if let (Saved::Stored, Some(metrics)) = (&saved, &self.metrics) {
            metrics.ended(job);
        }
        Ok(saved)
    }
}
