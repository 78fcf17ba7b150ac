use std::cmp::Reverse;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Select};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{Item, batch_of, batches_of, job_id, job_key, job_of, part_key};
use super::{SERVICE, Table};
use crate::aws::{Kind, Result, ServiceError};
use crate::batch::Batch;
use crate::caller::Owner;
use crate::id::{BatchId, JobId};
use crate::job::{Job, Status};
use crate::time::Timestamp;

/// A filter that few jobs match would otherwise read the whole list.
const QUERIES_PER_PAGE: usize = 8;

/// The limit of BatchGetItem, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
const ITEMS_PER_READ: usize = 100;

const READS_AT_ONCE: usize = 8;

const TRIES: u32 = 5;

/// Which jobs to list.
#[derive(Clone, Copy, Debug)]
pub enum List<'a> {
    /// An owner's single jobs, newest first.
    OfOwner(&'a Owner),
    /// A batch's jobs, in the order of its request. Their ids are derived from the batch's, so no index is needed.
    OfBatch(&'a Batch),
}

impl List<'_> {
    /// The position after `job` in the list.
    pub fn place_after(self, job: &Job) -> String {
        match self {
            Self::OfOwner(_) => format!("{} {}", job_key(job.id), job.created_at.ms()),
            Self::OfBatch(batch) => {
                let index = (0..batch.total).position(|index| JobId::in_batch(batch.id, index) == job.id);
                index.map_or(batch.total, |index| index + 1).to_string()
            }
        }
    }
}

/// One page of a list of jobs.
#[derive(Debug)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The position of the next page; `None` at the end. Pages before the end may be shorter than requested, or empty.
    pub next: Option<String>,
}

impl Table {
    /// Lists up to `limit` jobs that are `wanted`, from the position `after` of an earlier page. The list may come from an
    /// index that lags behind the table, from which the jobs themselves are read.
    pub async fn list(
        &self,
        list: List<'_>,
        wanted: impl Fn(&Job) -> bool,
        limit: usize,
        after: Option<String>,
    ) -> Result<Page> {
        let mut jobs = Vec::new();
        let mut next = after;
        let mut read = limit;
        for _ in 0..QUERIES_PER_PAGE {
            let (keys, end) = self.keys(list, read, next.take()).await?;
            let ids: Vec<_> = keys.iter().map(|(id, _)| *id).collect();
            let mut found = self.get_all(&ids).await?;
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
            // If few jobs match, the next match is probably far away.
            read = (2 * read).min(ITEMS_PER_READ);
        }
        Ok(Page { jobs, next })
    }

    /// Lists up to `limit` of an owner's batches, newest first, from the position `after`, and the position of the next
    /// page. A page before the end may be shorter. The list comes from an index, so it may lack a new batch.
    pub async fn list_batches(
        &self,
        owner: &Owner,
        limit: usize,
        after: Option<String>,
        now: Timestamp,
    ) -> Result<(Vec<Batch>, Option<String>)> {
        let (keys, next) = self.query(&batches_of(owner), limit, after).await?;
        let items = self.read_items(keys.into_iter().map(|(key, _)| key)).await?;
        let mut batches = items.into_iter().map(batch_of).collect::<Result<Vec<_>, _>>()?;
        batches.retain(|batch| batch.owner == *owner && batch.expires_at > now);
        batches.sort_unstable_by_key(|batch| Reverse((batch.created_at, batch.id)));
        Ok((batches, next))
    }

    /// The status of each job of a part that the index has: those that have changed since they were created.
    pub async fn states_of_part(&self, batch: BatchId, part: usize) -> Result<HashMap<JobId, Status>> {
        let items = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("by_batch")
            .key_condition_expression("batch_id = :batch")
            .expression_attribute_values(":batch", AttributeValue::S(part_key(batch, part)))
            .select(Select::AllProjectedAttributes)
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(ServiceError::of(SERVICE))?;
        let state = |item: &Item| {
            let status = item.get("status")?.as_s().ok()?.parse().ok()?;
            Some((job_id(item.get("pk")?.as_s().ok()?)?, status))
        };
        items.iter().map(|item| state(item).ok_or_else(|| ServiceError::corrupt(SERVICE))).collect()
    }

    async fn keys(
        &self,
        list: List<'_>,
        limit: usize,
        after: Option<String>,
    ) -> Result<(Vec<(JobId, String)>, Option<String>)> {
        match list {
            List::OfOwner(owner) => {
                let (keys, end) = self.query(owner.as_str(), limit, after).await?;
                Ok((keys.into_iter().filter_map(|(key, place)| Some((job_id(&key)?, place))).collect(), end))
            }
            List::OfBatch(batch) => {
                let first = after.map_or(Ok(0), |place| place.parse()).map_err(|_| ServiceError::corrupt(SERVICE))?;
                let end = batch.total.min(first + limit);
                let keys = (first..end).map(|index| (JobId::in_batch(batch.id, index), (index + 1).to_string()));
                Ok((keys.collect(), (end < batch.total).then(|| end.to_string())))
            }
        }
    }

    async fn query(
        &self,
        owner: &str,
        limit: usize,
        after: Option<String>,
    ) -> Result<(Vec<(String, String)>, Option<String>)> {
        let start = after.map(|place| start_key(owner, &place)).transpose()?;
        let output = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("by_owner")
            .key_condition_expression("#owner = :key")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":key", AttributeValue::S(owner.to_owned()))
            .scan_index_forward(false)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(ServiceError::of(SERVICE))?;
        let key = |item: &Item| Some((item.get("pk")?.as_s().ok()?.clone(), place(item)?));
        let keys = output.items().iter().filter_map(key).collect();
        Ok((keys, output.last_evaluated_key().and_then(place)))
    }

    /// The existing jobs with these ids.
    pub async fn get_all(&self, ids: &[JobId]) -> Result<HashMap<JobId, Job>> {
        let items = self.read_items(ids.iter().map(|id| job_key(*id))).await?;
        items.into_iter().map(|item| job_of(item).map(|job| (job.id, job))).collect()
    }

    /// The existing jobs that belong to this submission: an id that is derived from a key may have been used before.
    pub async fn written_jobs(&self, jobs: &[Job]) -> Result<Vec<Job>> {
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let created_at = jobs.first().map(|job| job.created_at);
        Ok(self.get_all(&ids).await?.into_values().filter(|job| Some(job.created_at) == created_at).collect())
    }

    /// In no particular order, by consistent reads.
    pub(super) async fn read_items(&self, keys: impl Iterator<Item = String>) -> Result<Vec<Item>> {
        let keys: Vec<_> = keys.map(|key| HashMap::from([("pk".to_owned(), AttributeValue::S(key))])).collect();
        let reads: Vec<_> = keys.chunks(ITEMS_PER_READ).map(|keys| self.read_once(keys.to_vec())).collect();
        let found: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn read_once(&self, mut keys: Vec<Item>) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            if keys.is_empty() {
                return Ok(found);
            }
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
            let wanted = wanted.build().expect("its keys are set");
            let output = self.client.batch_get_item().request_items(&self.name, wanted).send().await;
            let mut output = output.map_err(ServiceError::of(SERVICE))?;
            let items = output.responses.as_mut().and_then(|tables| tables.remove(&self.name));
            found.extend(items.unwrap_or_default());
            let left = output.unprocessed_keys.and_then(|mut tables| tables.remove(&self.name));
            keys = left.map(|left| left.keys).unwrap_or_default();
        }
        Err(ServiceError { service: SERVICE, code: "UnprocessedKeys".to_owned(), kind: Kind::Throttled })
    }
}

/// A position in an owner's list as text: the item's key and its sort key, the creation time.
fn place(item: &Item) -> Option<String> {
    Some(format!("{} {}", item.get("pk")?.as_s().ok()?, item.get("created_at")?.as_n().ok()?))
}

fn start_key(owner: &str, place: &str) -> Result<Item> {
    let (key, created_at) = place.split_once(' ').ok_or_else(|| ServiceError::corrupt(SERVICE))?;
    Ok(HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.to_owned())),
        ("owner".to_owned(), AttributeValue::S(owner.to_owned())),
        ("created_at".to_owned(), AttributeValue::N(created_at.to_owned())),
    ]))
}
