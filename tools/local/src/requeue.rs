//! Resumes what an earlier process left unfinished.
//!
//! The queue is in memory and starts empty, so every unfinished job gets a new ticket. So does every job that was retried,
//! or canceled while a worker had it, because that ticket has late pictures deleted; and every job and batch whose end may
//! not be told yet. The stack holds the lock on the data directory, so unlike a deployed pipeline it knows that no worker and
//! no submission of an earlier process still runs. It ends their leases at once.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{TryStreamExt, stream};
use shared::aws::{Aws, Saved, ServiceError, Table};
use shared::batch::Stage;
use shared::job::Lease;
use shared::ticket::Ticket;
use shared::{BatchId, JobId, Owner, Timestamp};

use crate::Ready;

/// How many records are written concurrently.
const WRITES_AT_ONCE: usize = 8;

/// Why unfinished jobs could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    /// The unfinished jobs could not be listed.
    #[error("cannot read the unfinished jobs: {0}")]
    Read(String),
    /// The lease of a job could not be ended.
    #[error("cannot release the unfinished jobs: {0}")]
    Release(#[source] ServiceError),
    /// The events of ended jobs and batches could not be queued.
    #[error("cannot queue the undelivered events again: {0}")]
    Events(#[source] ServiceError),
    /// The tickets could not be sent.
    #[error("cannot queue the unfinished jobs again: {0}")]
    Send(#[source] ServiceError),
}

/// Sends a ticket for every job that needs one, oldest first. Returns their number.
pub(crate) async fn requeue(
    config: &SdkConfig,
    ready: &Ready,
    aws: &Aws,
    now: Timestamp,
) -> Result<usize, RequeueError> {
    let table = aws.table(ready.table.clone());
    let unfinished = unfinished(config, ready).await?;

    let running = unfinished.jobs.iter().filter(|job| job.running).map(|job| Ok(release(&table, job.id, now)));
    let running: Vec<_> = running.collect();
    let released = stream::iter(running).try_buffer_unordered(WRITES_AT_ONCE).try_collect::<()>();
    released.await.map_err(RequeueError::Release)?;
    let batches = aws.queue(ready.batch_queue_url.clone());
    for id in unfinished.batches {
        let Some(mut batch) = table.get_batch(id).await.map_err(RequeueError::Release)? else { continue };
        if let Some(lease) = batch.writing() {
            // When the caller repeats the request, it finishes the submission.
            batch = batch.taken_over(Lease { until: now, ..lease });
            table.save_batch(&batch).await.map_err(RequeueError::Release)?;
        }
        batches.send_batch_ticket(id, &batch.owner, Duration::ZERO).await.map_err(RequeueError::Send)?;
    }
    let sent = unfinished.jobs.len();
    let mut tickets: HashMap<Owner, Vec<Ticket>> = HashMap::new();
    for job in unfinished.jobs {
        tickets.entry(job.owner).or_default().push(Ticket { job: job.id, queued_at: job.queued_at, trace: None });
    }
    let queue = aws.queue(ready.queue_url.clone());
    for (owner, tickets) in &tickets {
        queue.send_batch(tickets, owner).await.map_err(RequeueError::Send)?;
    }
    Ok(sent)
}

/// Ends the lease of a job that a worker held.
async fn release(table: &Table, id: JobId, now: Timestamp) -> Result<(), ServiceError> {
    let Some(abandoned) = table.get(id).await?.and_then(|job| job.abandon(now)) else { return Ok(()) };
    match table.save(&abandoned).await? {
        Saved::Stored | Saved::MovedOn(_) | Saved::Gone => Ok(()),
    }
}

/// What an earlier process left unfinished.
struct Unfinished {
    jobs: Vec<UnfinishedJob>,
    /// Batches that have not ended, or whose end may not be told.
    batches: Vec<BatchId>,
}

struct UnfinishedJob {
    id: JobId,
    owner: Owner,
    running: bool,
    created_at: i64,
    queued_at: Option<Timestamp>,
}

async fn unfinished(config: &SdkConfig, ready: &Ready) -> Result<Unfinished, RequeueError> {
    let client = aws_sdk_dynamodb::config::Builder::from(config).endpoint_url(&ready.dynamodb).build();
    let client = aws_sdk_dynamodb::Client::from_conf(client);
    let items = client
        .scan()
        .table_name(&ready.table)
        .projection_expression("pk, #owner, #status, created_at, queued_at, batch_owner")
        .filter_expression(
            "#status IN (:queued, :running) OR attribute_type(held_until, :number) \
             OR attribute_type(former_until, :number) \
             OR #life.stage IN (:submitting, :checking, :admitting, :in_progress) \
             OR (begins_with(pk, :batch) AND attribute_not_exists(#life)) \
             OR ((attribute_exists(#order.webhook) OR attribute_exists(webhook)) \
                 AND (attribute_not_exists(told_for) OR told_for < queued_at OR told_for < retried_at))",
        )
        .expression_attribute_names("#order", "order")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_names("#status", "status")
        .expression_attribute_names("#life", "file")
        .expression_attribute_values(":batch", AttributeValue::S("BATCH#".to_owned()))
        .expression_attribute_values(":submitting", AttributeValue::S(Stage::Submitting.to_string()))
        .expression_attribute_values(":checking", AttributeValue::S(Stage::Checking.to_string()))
        .expression_attribute_values(":admitting", AttributeValue::S(Stage::Admitting.to_string()))
        .expression_attribute_values(":in_progress", AttributeValue::S(Stage::InProgress.to_string()))
        .expression_attribute_values(":queued", AttributeValue::S("queued".to_owned()))
        .expression_attribute_values(":running", AttributeValue::S("running".to_owned()))
        .expression_attribute_values(":number", AttributeValue::S("N".to_owned()))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .map_err(|error| RequeueError::Read(DisplayErrorContext(error).to_string()))?;

    let mut unfinished = Unfinished { jobs: Vec::new(), batches: Vec::new() };
    for item in &items {
        let text = |name: &str| item.get(name)?.as_s().ok();
        let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
        let Some((kind, id)) = text("pk").and_then(|pk| pk.split_once('#')) else { continue };
        match kind {
            "JOB" => {
                let owner = text("owner").or_else(|| text("batch_owner"));
                let (Ok(id), Some(owner)) = (id.parse(), owner) else { continue };
                let running = text("status").is_some_and(|status| status == "running");
                let created_at = number("created_at").unwrap_or_default();
                let queued_at = number("queued_at").map(Timestamp::from_ms);
                unfinished.jobs.push(UnfinishedJob { id, owner: Owner::new(owner), running, created_at, queued_at });
            }
            _ => unfinished.batches.extend(id.parse::<BatchId>()),
        }
    }
    unfinished.jobs.sort_by_key(|job| job.created_at);
    Ok(unfinished)
}
