mod batches;
mod lists;
mod rows;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure as OnFailure};

pub use self::batches::SavedBatch;
pub use self::lists::{List, Page};
use self::rows::{Item, PART, item_of, job_key, job_of, state_of};
use super::{Metrics, ServiceError};
use crate::caller::Owner;
use crate::id::JobId;
use crate::job::Job;
use crate::time::Timestamp;

const SERVICE: &str = "DynamoDB";

/// The table of jobs in Amazon DynamoDB.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
    metrics: Option<Metrics>,
}

/// The outcome of creating a job.
#[derive(Debug)]
pub enum Created {
    /// It was created.
    New,
    /// A job with this id exists.
    Existing(Box<Job>),
}

/// The outcome of saving a job's next state.
#[derive(Debug)]
pub enum Saved {
    /// It was saved, now or by an earlier call whose answer was lost.
    Stored,
    /// Another writer was first; this is the current state. Loops over this end, as each round follows another's write.
    MovedOn(Box<Job>),
    /// Its record was deleted.
    Gone,
}

impl Table {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name, metrics: None }
    }

    /// Reports each ended job that is saved here to `metrics`.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Creates a job, unless an unexpired one with its id exists.
    pub async fn create(&self, job: &Job) -> Result<Created, ServiceError> {
        Ok(match self.put_new(item_of(job), job.created_at).await? {
            None => Created::New,
            Some(existing) => Created::Existing(Box::new(job_of(existing)?)),
        })
    }

    async fn put_new(&self, item: Item, now: Timestamp) -> Result<Option<Item>, ServiceError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            // DynamoDB may take days to delete expired items, so the condition checks `expires_at`, in whole seconds.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", AttributeValue::N(now.ms().div_euclid(1000).to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    // The item may be deleted before we could read it, so the check has to return it.
                    failed.item().cloned().map(Some).ok_or_else(|| ServiceError::corrupt(SERVICE))
                }
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }

    /// The job with this id, by a consistent read: an eventually consistent one could show an ended job as unfinished.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, ServiceError> {
        self.get_item(job_key(id)).await?.map(job_of).transpose()
    }

    /// The job with this id; `None` if it belongs to another owner or has expired.
    pub async fn get_owned(&self, id: JobId, owner: &Owner, now: Timestamp) -> Result<Option<Job>, ServiceError> {
        let job = self.get(id).await?;
        Ok(job.filter(|job| job.owner == *owner && job.expires_at > now))
    }

    async fn get_item(&self, key: String) -> Result<Option<Item>, ServiceError> {
        let get = self.client.get_item().table_name(&self.name).key("pk", AttributeValue::S(key)).consistent_read(true);
        let output = get.send().await.map_err(ServiceError::of(SERVICE))?;
        Ok(output.item)
    }

    /// Saves a job's next state, if the stored fence is the one before it. Keeps attributes that a newer version may
    /// have added, and does not recreate a deleted record.
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
        let expression = format!("SET {} REMOVE #part", assignments.join(", "));
        let update = update.expression_attribute_names("#part", PART).update_expression(expression);
        let saved = match update.send().await {
            Ok(_) => Saved::Stored,
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => match failed.item() {
                    None => Saved::Gone,
                    Some(item) => {
                        let stored = job_of(item.clone())?;
                        if stored.is_same_version(job) { Saved::Stored } else { Saved::MovedOn(Box::new(stored)) }
                    }
                },
                _ => return Err(ServiceError::new(SERVICE, &error)),
            },
        };
        // Only one writer's end is ever stored, so each job is reported once.
        if let (Saved::Stored, Some(metrics)) = (&saved, &self.metrics) {
            metrics.ended(job);
        }
        Ok(saved)
    }

    /// Notes that the event of a job's end is in the queue.
    pub async fn note_told(&self, job: &Job) -> Result<(), ServiceError> {
        self.set_told(job_key(job.id), job.queued_at).await
    }

    async fn set_told(&self, key: String, told_for: Timestamp) -> Result<(), ServiceError> {
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key))
            .update_expression("SET told_for = :told")
            // Do not recreate a deleted record.
            .condition_expression("attribute_exists(pk) AND (attribute_not_exists(told_for) OR told_for < :told)")
            .expression_attribute_values(":told", AttributeValue::N(told_for.ms().to_string()))
            .send()
            .await;
        unless_refused(result)
    }
}

fn unless_refused(result: Result<UpdateItemOutput, SdkError<UpdateItemError>>) -> Result<(), ServiceError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
            _ => Err(ServiceError::new(SERVICE, &error)),
        },
    }
}
