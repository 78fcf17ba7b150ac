//! Takes up again what an earlier process left unfinished.
//!
//! The queue lives in memory and starts out empty, so every unfinished job gets a new ticket, and so does every job that
//! was canceled while a worker had it or that was retried, because that ticket has late pictures deleted. The stack that calls this
//! holds the lock on the data directory, so it knows what nobody can know of a deployed pipeline: that no worker and no
//! submission of an earlier process is still alive. What those held is let go of at once, rather than when it would have
//! ended by itself.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{TryStreamExt, stream};
use shared::aws::{Aws, Saved, ServiceError, Table};
use shared::job::Lease;
use shared::ticket::Ticket;
use shared::{BatchId, JobId, Owner, Timestamp};

use crate::Ready;

/// How many records are written at once.
const WRITES_AT_ONCE: usize = 8;

/// Why unfinished jobs could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    /// The unfinished jobs could not be listed.
    #[error("cannot read the unfinished jobs: {0}")]
    Read(String),
    /// A job could not be taken from a worker that is dead.
    #[error("cannot release the unfinished jobs: {0}")]
    Release(#[source] ServiceError),
    /// The queue did not answer.
    #[error("cannot queue the unfinished jobs again: {0}")]
    Send(#[source] ServiceError),
}

/// Sends a ticket for every job of the table that needs one, oldest first, and counts them.
///
/// # Errors
/// When the table or the queue does not answer as it should.
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
    for id in unfinished.batches {
        let batch = table.get_batch(id).await.map_err(RequeueError::Release)?;
        if let Some(lease) = batch.and_then(|batch| batch.writing) {
            // The same request, sent again, finishes the submission.
            let ended = Some(Lease { until: now, ..lease });
            table.move_writing_on(id, lease, ended).await.map_err(RequeueError::Release)?;
        }
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

/// Lets go of a job that a worker held.
async fn release(table: &Table, id: JobId, now: Timestamp) -> Result<(), ServiceError> {
    let Some(abandoned) = table.get(id).await?.and_then(|job| job.abandon(now)) else { return Ok(()) };
    match table.save(&abandoned).await? {
        Saved::Stored | Saved::MovedOn(_) | Saved::Gone => Ok(()),
    }
}

/// What an earlier process left behind.
struct Unfinished {
    jobs: Vec<UnfinishedJob>,
    /// Batches whose submission broke off.
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
        .projection_expression("pk, #owner, #status, created_at, queued_at, writing_until")
        .filter_expression(
            "#status IN (:queued, :running) OR attribute_type(held_until, :number) \
             OR attribute_type(former_until, :number) OR attribute_type(writing_until, :number)",
        )
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_names("#status", "status")
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
                let (Ok(id), Some(owner)) = (id.parse(), text("owner")) else { continue };
                let running = text("status").is_some_and(|status| status == "running");
                let created_at = number("created_at").unwrap_or_default();
                let queued_at = number("queued_at").map(Timestamp::from_ms);
                unfinished.jobs.push(UnfinishedJob { id, owner: Owner::new(owner), running, created_at, queued_at });
            }
            _ => {
                if let (Ok(id), Some(_)) = (id.parse(), number("writing_until")) {
                    unfinished.batches.push(id);
                }
            }
        }
    }
    unfinished.jobs.sort_by_key(|job| job.created_at);
    Ok(unfinished)
}
