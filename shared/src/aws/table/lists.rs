//! Lists of jobs: an owner's, and a batch's.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Select};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{Item, job_id, job_key, job_of};
use super::{SERVICE, Table};
use crate::aws::{Kind, ServiceError};
use crate::batch::Batch;
use crate::caller::Owner;
use crate::id::{BatchId, JobId};
use crate::job::{Job, Status};

/// How many queries one page may cost. A filter that few jobs pass would otherwise read the whole list.
const QUERIES_PER_PAGE: usize = 8;

/// How many items one BatchGetItem gives, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
const ITEMS_PER_READ: usize = 100;

/// How many reads of items are under way at once.
const READS_AT_ONCE: usize = 8;

/// How many batches' states are read at once.
const BATCHES_AT_ONCE: usize = 16;

/// How often what a read left out is asked for again.
const TRIES: u32 = 5;

/// Which jobs to list.
#[derive(Clone, Copy, Debug)]
pub enum List<'a> {
    /// An owner's, newest first.
    OfOwner(&'a Owner),
    /// A batch's, in the order of its request. Their names follow from the batch's, so no index is asked.
    OfBatch(&'a Batch),
}

impl List<'_> {
    /// The place behind `job`, where a page begins that goes on after it.
    pub fn place_after(self, job: &Job) -> String {
        match self {
            Self::OfOwner(_) => format!("{} {}", job.id, job.created_at.ms()),
            Self::OfBatch(batch) => {
                let index = (0..batch.total).position(|index| JobId::in_batch(batch.id, index) == job.id);
                index.map_or(batch.total, |index| index + 1).to_string()
            }
        }
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` when there is no more. A page may hold fewer jobs than were asked for, even
    /// none, and yet not be the last.
    pub next: Option<String>,
}

impl Table {
    /// At most `limit` jobs of a list that are `wanted`, from the place `after` on, which an earlier page has told.
    ///
    /// The list of an owner is an index that lags behind the table by a moment, so a job submitted just now may be missing;
    /// what is listed is read from the table itself, as it stands at that moment.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn list(
        &self,
        list: List<'_>,
        wanted: impl Fn(&Job) -> bool,
        limit: usize,
        after: Option<String>,
    ) -> Result<Page, ServiceError> {
        let mut jobs = Vec::new();
        let mut next = after;
        let mut read = limit;
        for _ in 0..QUERIES_PER_PAGE {
            let (keys, end) = self.query(list, read, next.take()).await?;
            let ids: Vec<_> = keys.iter().map(|(id, _)| *id).collect();
            let mut found = self.get_all(&ids).await?;
            // An answer's jobs come in no order.
            let mut keys = keys.into_iter();
            while let Some((id, place)) = keys.next() {
                jobs.extend(found.remove(&id).filter(|job| wanted(job)));
                if jobs.len() == limit {
                    let next = if keys.len() > 0 { Some(place) } else { end };
                    return Ok(Page { jobs, next });
                }
            }
            next = end;
            if next.is_none() {
                break;
            }
            // Where few jobs pass, the next of them is probably far off.
            read = (2 * read).min(ITEMS_PER_READ);
        }
        Ok(Page { jobs, next })
    }

    /// The states of all jobs of a batch, as far as the index knows them.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn states_of_batch(&self, batch: BatchId) -> Result<Vec<(JobId, Status)>, ServiceError> {
        let items = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("by_batch")
            .key_condition_expression("batch_id = :batch")
            .expression_attribute_values(":batch", AttributeValue::S(batch.to_string()))
            .select(Select::AllProjectedAttributes)
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(|error| ServiceError::new(SERVICE, &error))?;
        let state = |item: &Item| {
            let status = item.get("status")?.as_s().ok()?.parse().ok()?;
            Some((job_id(item.get("pk")?.as_s().ok()?)?, status))
        };
        items.iter().map(|item| state(item).ok_or_else(|| ServiceError::corrupt(SERVICE))).collect()
    }

    /// The states of all jobs of these batches, each batch's in its place.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn states_of_batches(&self, batches: &[Batch]) -> Result<Vec<Vec<(JobId, Status)>>, ServiceError> {
        let reads: Vec<_> = batches.iter().map(|batch| self.states_of_batch(batch.id)).collect();
        stream::iter(reads).buffered(BATCHES_AT_ONCE).try_collect().await
    }

    /// The jobs at the next `limit` places of a list, each with its place, and the place where the list goes on.
    async fn query(
        &self,
        list: List<'_>,
        limit: usize,
        after: Option<String>,
    ) -> Result<(Vec<(JobId, String)>, Option<String>), ServiceError> {
        let owner = match list {
            List::OfOwner(owner) => owner,
            List::OfBatch(batch) => {
                let first = after.map_or(Ok(0), |place| place.parse()).map_err(|_| ServiceError::corrupt(SERVICE))?;
                let end = batch.total.min(first + limit);
                let keys = (first..end).map(|index| (JobId::in_batch(batch.id, index), (index + 1).to_string()));
                return Ok((keys.collect(), (end < batch.total).then(|| end.to_string())));
            }
        };
        let start = after.map(|place| start_key(owner, &place)).transpose()?;
        let output = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("by_owner")
            .key_condition_expression("#owner = :key")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":key", AttributeValue::S(owner.as_str().to_owned()))
            .scan_index_forward(false)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| ServiceError::new(SERVICE, &error))?;
        let key = |item: &Item| Some((job_id(item.get("pk")?.as_s().ok()?)?, place(item)?));
        let keys = output.items().iter().filter_map(key).collect();
        Ok((keys, output.last_evaluated_key().and_then(place)))
    }

    /// The jobs of these names that are there.
    async fn get_all(&self, ids: &[JobId]) -> Result<HashMap<JobId, Job>, ServiceError> {
        let items = self.read_items(ids.iter().map(|id| job_key(*id))).await?;
        items.into_iter().map(|item| job_of(item).map(|job| (job.id, job))).collect()
    }

    /// Those of a batch's jobs whose records were written for this submission of it: a name that follows from a key may
    /// have had another life before.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn written_jobs(&self, jobs: &[Job]) -> Result<Vec<Job>, ServiceError> {
        let items = self.read_items(jobs.iter().map(|job| job_key(job.id))).await?;
        let mut written = items.into_iter().map(job_of).collect::<Result<Vec<_>, _>>()?;
        let created_at = jobs.first().map(|job| job.created_at);
        written.retain(|job| Some(job.created_at) == created_at);
        Ok(written)
    }

    /// The items with these keys that are there, in no order, each as it stands when it is read.
    pub(super) async fn read_items(&self, keys: impl Iterator<Item = String>) -> Result<Vec<Item>, ServiceError> {
        let keys: Vec<_> = keys.map(|key| HashMap::from([("pk".to_owned(), AttributeValue::S(key))])).collect();
        let reads: Vec<_> = keys.chunks(ITEMS_PER_READ).map(|keys| self.read_once(keys.to_vec())).collect();
        let found: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The same, of as many as one request takes.
    async fn read_once(&self, mut keys: Vec<Item>) -> Result<Vec<Item>, ServiceError> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            if keys.is_empty() {
                return Ok(found);
            }
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
            let wanted = wanted.build().expect("its keys are set");
            let output = self.client.batch_get_item().request_items(&self.name, wanted).send().await;
            let mut output = output.map_err(|error| ServiceError::new(SERVICE, &error))?;
            let items = output.responses.as_mut().and_then(|tables| tables.remove(&self.name));
            found.extend(items.unwrap_or_default());
            let left = output.unprocessed_keys.and_then(|mut tables| tables.remove(&self.name));
            keys = left.map(|left| left.keys).unwrap_or_default();
        }
        Err(ServiceError { service: SERVICE, code: "UnprocessedKeys".to_owned(), kind: Kind::Throttled })
    }
}

/// A place in an owner's list as text: the job's name and the time by which it is sorted.
fn place(key: &Item) -> Option<String> {
    let id = job_id(key.get("pk")?.as_s().ok()?)?;
    Some(format!("{id} {}", key.get("created_at")?.as_n().ok()?))
}

fn start_key(owner: &Owner, place: &str) -> Result<Item, ServiceError> {
    let (id, created_at) = place.split_once(' ').ok_or_else(|| ServiceError::corrupt(SERVICE))?;
    let id: JobId = id.parse().map_err(|_| ServiceError::corrupt(SERVICE))?;
    Ok(HashMap::from([
        ("pk".to_owned(), AttributeValue::S(job_key(id))),
        ("owner".to_owned(), AttributeValue::S(owner.as_str().to_owned())),
        ("created_at".to_owned(), AttributeValue::N(created_at.to_owned())),
    ]))
}
