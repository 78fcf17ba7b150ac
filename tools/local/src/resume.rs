//! Resumes what an earlier process left unfinished.
//!
//! The queues are in memory and start empty, so every unfinished job gets a new ticket. So does every job that was retried,
//! or canceled while a worker had it, because that ticket has late pictures deleted; and every job and batch whose end may
//! not be told yet. The stack holds the lock on the data directory, so unlike a deployed pipeline it knows that no worker and
//! no submission of an earlier process still runs. It ends their leases at once.
//!
//! A delivery that is recorded as pending goes on as it was. If there is no record of a delivery whose event was queued, its
//! job or batch forgets that, and its ticket has the event queued anew. The event of an end before a retry is lost if it was
//! not tried yet: the record has only the last end, and only the queue had the event.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_dynamo::aws_sdk_dynamodb_1::from_items;
use shared::aws::{Aws, ServiceError, Table};
use shared::batch::Stage;
use shared::delivery::{DeliveryId, DeliveryStatus, KEPT};
use shared::id::Subject;
use shared::job::{Lease, Status};
use shared::ticket::Ticket;
use shared::{BatchId, JobId, Owner, Timestamp};

use crate::Ready;

/// Why nothing was resumed.
#[derive(Debug, thiserror::Error)]
#[error("cannot resume what an earlier process left unfinished: {0}")]
pub struct ResumeError(Box<dyn Error + Send + Sync>);

impl From<ServiceError> for ResumeError {
    fn from(error: ServiceError) -> Self {
        Self(error.into())
    }
}

fn failed<E: Error>(error: E) -> ResumeError {
    ResumeError(DisplayErrorContext(error).to_string().into())
}

#[derive(Deserialize)]
struct Row {
    pk: String,
    owner: Option<Owner>,
    batch_owner: Option<Owner>,
    status: Option<Status>,
    created_at: Option<i64>,
    queued_at: Option<i64>,
    retried_at: Option<i64>,
    told_for: Option<i64>,
    held_until: Option<i64>,
    former_until: Option<i64>,
    webhook: Option<IgnoredAny>,
    order: Option<OrderRow>,
    file: Option<LifeRow>,
}

#[derive(Deserialize)]
struct OrderRow {
    webhook: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct LifeRow {
    stage: Stage,
}

const ATTRIBUTES: &str = "pk, #owner, batch_owner, #status, created_at, queued_at, retried_at, told_for, held_until, \
                          former_until, webhook, #order.webhook, #file.stage";

impl Row {
    fn subject(&self) -> Option<Subject> {
        match self.pk.split_once('#')? {
            ("JOB", id) => Some(Subject::Job(id.parse().ok()?)),
            (_, id) => Some(Subject::Batch(id.parse().ok()?)),
        }
    }

    fn is_unfinished(&self, subject: Subject) -> bool {
        let is_told = self.told_for.is_some_and(|told| Some(told) >= self.queued_at && Some(told) >= self.retried_at);
        let is_awaited = self.webhook.is_some() || self.order.as_ref().is_some_and(|order| order.webhook.is_some());
        let is_at_work = match subject {
            Subject::Job(_) => {
                matches!(self.status, Some(Status::Queued | Status::Running))
                    || self.held_until.is_some()
                    || self.former_until.is_some()
            }
            Subject::Batch(_) => self.file.as_ref().is_none_or(|life| {
                matches!(life.stage, Stage::Submitting | Stage::Checking | Stage::Admitting | Stage::InProgress)
            }),
        };
        is_at_work || (is_awaited && !is_told)
    }
}

/// Returns how many jobs and batches got a ticket, and how many events were sent again.
pub(crate) async fn resume(
    client: &Client,
    ready: &Ready,
    aws: &Aws,
    now: Timestamp,
) -> Result<(usize, usize), ResumeError> {
    let table = aws.table(ready.table.clone());
    let (jobs, batches) = (aws.queue(ready.queue_url.clone()), aws.queue(ready.batch_queue_url.clone()));
    let (recorded, events) = resend(client, ready, aws).await?;
    let mut rows: Vec<Row> = scan(client, &ready.table, ATTRIBUTES, &["owner", "status", "order", "file"]).await?;
    rows.sort_by_key(|row| row.created_at);
    let (mut sent, mut tickets) = (0, HashMap::<Owner, Vec<Ticket>>::new());
    for row in rows {
        let Some(subject) = row.subject() else { continue };
        // After a time, the record of a delivered event may be gone too.
        let told = row.told_for.map(Timestamp::from_ms).filter(|&since| now < since + KEPT);
        let is_lost = told.is_some_and(|since| !recorded.contains(&DeliveryId { subject, since }));
        if is_lost && ready.deliveries_table.is_some() {
            let key = AttributeValue::S(row.pk.clone());
            let forget = client.update_item().table_name(&ready.table).key("pk", key);
            forget.update_expression("REMOVE told_for").send().await.map_err(failed)?;
        } else if !row.is_unfinished(subject) {
            continue;
        }
        sent += 1;
        match subject {
            Subject::Job(job) => {
                if row.status == Some(Status::Running) {
                    release(&table, job, now).await?;
                }
                let Some(owner) = row.owner.or(row.batch_owner) else { continue };
                let queued_at = row.queued_at.map(Timestamp::from_ms);
                tickets.entry(owner).or_default().push(Ticket { job, queued_at, trace: None });
            }
            Subject::Batch(batch) => {
                if let Some(owner) = take_over(&table, batch, now).await? {
                    batches.send_batch_ticket(batch, &owner, Duration::ZERO).await?;
                }
            }
        }
    }
    for (owner, tickets) in &tickets {
        jobs.send_batch(tickets, owner).await?;
    }
    Ok((sent, events))
}

async fn release(table: &Table, id: JobId, now: Timestamp) -> Result<(), ServiceError> {
    if let Some(abandoned) = table.get(id).await?.and_then(|job| job.abandon(now)) {
        table.save(&abandoned).await?;
    }
    Ok(())
}

/// Ends the lease of a submission, so that it finishes when the caller repeats the request. Returns the batch's owner.
async fn take_over(table: &Table, id: BatchId, now: Timestamp) -> Result<Option<Owner>, ServiceError> {
    let Some(mut batch) = table.get_batch(id).await? else { return Ok(None) };
    if let Some(lease) = batch.writing() {
        batch = batch.taken_over(Lease { until: now, ..lease });
        table.save_batch(&batch).await?;
    }
    Ok(Some(batch.owner))
}

#[derive(Deserialize)]
struct DeliveryRow {
    subject: Option<String>,
    at: Option<i64>,
    status: Option<DeliveryStatus>,
}

/// Sends the events again whose deliveries are pending. Returns all deliveries that are recorded, and how many are pending.
async fn resend(client: &Client, ready: &Ready, aws: &Aws) -> Result<(HashSet<DeliveryId>, usize), ResumeError> {
    let (mut recorded, mut count) = (HashSet::new(), 0);
    let (Some(queue), Some(table)) = (&ready.webhook_queue_url, &ready.deliveries_table) else {
        return Ok((recorded, count));
    };
    let (events, log) = (aws.queue(queue.clone()), aws.delivery_log(table.clone()));
    let names = ["subject", "at", "status"];
    for DeliveryRow { subject, at, status } in scan(client, table, "#subject, #at, #status", &names).await? {
        let subject = subject.and_then(|subject| subject.parse().ok());
        let Some((subject, since)) = subject.zip(at.map(Timestamp::from_ms)) else { continue };
        let id = DeliveryId { subject, since };
        recorded.insert(id);
        if status == Some(DeliveryStatus::Pending)
            && let Some(delivery) = log.get(id).await?
        {
            events.send_delivery(&delivery.message()).await?;
            count += 1;
        }
    }
    Ok((recorded, count))
}

/// Reads these attributes of all items. `names` are those of them that are words of DynamoDB.
async fn scan<T: DeserializeOwned>(
    client: &Client,
    table: &str,
    attributes: &str,
    names: &[&str],
) -> Result<Vec<T>, ResumeError> {
    let names = names.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect();
    let scan =
        client.scan().table_name(table).projection_expression(attributes).set_expression_attribute_names(Some(names));
    let items = scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.map_err(failed)?;
    from_items(items).map_err(failed)
}
