mod batches;
mod lists;
mod rows;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure as OnFailure};

pub use self::lists::{List, Page};
use self::rows::{Item, PART, item_of, job_key, job_of, state_of};
use super::{Metrics, Result, ServiceError};
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

/// The outcome of saving the next version of a job or a batch.
#[derive(Debug)]
pub enum Saved<T> {
    /// It was saved, now or by an earlier call whose answer was lost.
    Stored,
    /// Another writer was first; this is the current version. Loops over this end, as each round follows another's write.
    MovedOn(Box<T>),
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

    /// Creates a job. Returns the unexpired job that has its id already, if there is one.
    pub async fn create(&self, job: &Job) -> Result<Option<Job>> {
        self.put_new(item_of(job), job.created_at).await?.map(job_of).transpose()
    }

    async fn put_new(&self, item: Item, now: Timestamp) -> Result<Option<Item>> {
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
    pub async fn get(&self, id: JobId) -> Result<Option<Job>> {
        self.get_item(job_key(id)).await?.map(job_of).transpose()
    }

    /// The job with this id; `None` if it belongs to another owner or has expired.
    pub async fn get_owned(&self, id: JobId, owner: &Owner, now: Timestamp) -> Result<Option<Job>> {
        let job = self.get(id).await?;
        Ok(job.filter(|job| job.owner == *owner && job.expires_at > now))
    }

    async fn get_item(&self, key: String) -> Result<Option<Item>> {
        let get = self.client.get_item().table_name(&self.name).key("pk", AttributeValue::S(key)).consistent_read(true);
        let output = get.send().await.map_err(ServiceError::of(SERVICE))?;
        Ok(output.item)
    }

    /// Saves a job's next state, if the stored fence is the one before it. Keeps attributes that a newer version may
    /// have added, and does not recreate a deleted record.
    pub async fn save(&self, job: &Job) -> Result<Saved<Job>> {
        let state = state_of(job);
        let mut update = self
            .client
            .update_item()
            .key("pk", AttributeValue::S(job_key(job.id)))
            .condition_expression("fence = :before")
            .expression_attribute_values(":before", AttributeValue::N((job.fence - 1).to_string()));
        let mut assignments = Vec::with_capacity(state.len());
        for (name, value) in state {
            assignments.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), &name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        let expression = format!("SET {} REMOVE #part", assignments.join(", "));
        let update = update.expression_attribute_names("#part", PART).update_expression(expression);
        let saved = self.save_version(update, job_of, |stored| stored.is_same_version(job)).await?;
        // Only one writer's end is ever stored, so each job is reported once.
        if let (Saved::Stored, Some(metrics)) = (&saved, &self.metrics) {
            metrics.ended(job);
        }
        Ok(saved)
    }

    /// Saves what `next` makes of the job, or of the current one if another writer was first. Returns the job as it then
    /// is, and whether that was saved here; `None` if its record was deleted.
    pub async fn change(&self, mut job: Job, next: impl Fn(&Job) -> Option<Job>) -> Result<Option<(Job, bool)>> {
        while let Some(changed) = next(&job) {
            match self.save(&changed).await? {
                Saved::Stored => return Ok(Some((changed, true))),
                Saved::MovedOn(current) => job = *current,
                Saved::Gone => return Ok(None),
            }
        }
        Ok(Some((job, false)))
    }

    async fn save_version<T>(
        &self,
        update: UpdateItemFluentBuilder,
        read: fn(Item) -> Result<T>,
        is_ours: impl Fn(&T) -> bool,
    ) -> Result<Saved<T>> {
        let update = update.table_name(&self.name).return_values_on_condition_check_failure(OnFailure::AllOld);
        let Err(error) = update.send().await else { return Ok(Saved::Stored) };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let Some(item) = failed.item() else { return Ok(Saved::Gone) };
                let stored = read(item.clone())?;
                Ok(if is_ours(&stored) { Saved::Stored } else { Saved::MovedOn(Box::new(stored)) })
            }
            _ => Err(ServiceError::new(SERVICE, &error)),
        }
    }

    /// Notes that the event of a job's end is in the queue.
    pub async fn note_told(&self, job: &Job) -> Result<()> {
        self.set_told(job_key(job.id), job.queued_at).await
    }

    async fn set_told(&self, key: String, told_for: Timestamp) -> Result<()> {
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
        match result {
            Err(error)
                if !error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Err(ServiceError::new(SERVICE, &error))
            }
            _ => Ok(()),
        }
    }
}
