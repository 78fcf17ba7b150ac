//! Queues again the events that an earlier process had queued and did not deliver.
//!
//! The queue is in memory and starts empty, while the records say that the events are queued. A delivery that is recorded as
//! pending goes on as it was. If there is no record of a delivery, its job or batch forgets that the event was queued and
//! gets a ticket, whose handler queues the event anew. The event of an end before a retry is lost if it was not tried
//! yet: the record has only the last end, and only the queue had the event.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use shared::aws::Aws;
use shared::delivery::{DeliveryId, DeliveryStatus, KEPT, Subject};
use shared::ticket::Ticket;
use shared::{Owner, Timestamp};

use crate::Ready;
use crate::requeue::RequeueError;

type Item = HashMap<String, AttributeValue>;

/// Queues undelivered events, at once or by the tickets of their jobs and batches. Returns their number.
pub(crate) async fn retell(
    config: &SdkConfig,
    ready: &Ready,
    aws: &Aws,
    now: Timestamp,
) -> Result<usize, RequeueError> {
    let (Some(queue), Some(table)) = (&ready.webhook_queue_url, &ready.deliveries_table) else { return Ok(0) };
    let client = aws_sdk_dynamodb::config::Builder::from(config).endpoint_url(&ready.dynamodb).build();
    let client = Client::from_conf(client);
    let (events, log) = (aws.queue(queue.clone()), aws.delivery_log(table.clone()));
    let mut recorded = HashSet::new();
    let mut count = 0;
    let names = [("#subject", "subject"), ("#at", "at"), ("#status", "status")];
    for item in scan(&client, table, "#subject, #at, #status", None, &names).await? {
        let subject = text(&item, "subject").and_then(|subject| subject.parse().ok());
        let Some((subject, since)) = subject.zip(time(&item, "at")) else { continue };
        let id = DeliveryId { subject, since };
        recorded.insert(id);
        let is_pending = text(&item, "status") == Some(DeliveryStatus::Pending.as_str());
        if is_pending && let Some(delivery) = log.get(id).await.map_err(RequeueError::Events)? {
            events.send_delivery(&delivery.message()).await.map_err(RequeueError::Events)?;
            count += 1;
        }
    }

    let (jobs, batches) = (aws.queue(ready.queue_url.clone()), aws.queue(ready.batch_queue_url.clone()));
    let names = [("#owner", "owner")];
    let wanted = "pk, #owner, batch_owner, told_for";
    let filter = Some("attribute_exists(told_for)");
    for item in scan(&client, &ready.table, wanted, filter, &names).await? {
        let Some((subject, since)) = told(&item) else { continue };
        // After that, the record of a delivered event may be gone too.
        if since + KEPT <= now || recorded.contains(&DeliveryId { subject, since }) {
            continue;
        }
        // An index has another owner for a batch.
        let Some(owner) = text(&item, "batch_owner").or_else(|| text(&item, "owner")).map(Owner::new) else { continue };
        let key = item["pk"].clone();
        let forget = client.update_item().table_name(&ready.table).key("pk", key).update_expression("REMOVE told_for");
        forget.send().await.map_err(read_error)?;
        match subject {
            Subject::Job(job) => jobs.send(&Ticket { job, queued_at: Some(since), trace: None }, &owner).await,
            Subject::Batch(batch) => batches.send_batch_ticket(batch, &owner, Duration::ZERO).await,
        }
        .map_err(RequeueError::Events)?;
        count += 1;
    }
    Ok(count)
}

/// Whose end was told, and since when it had been under way.
fn told(item: &Item) -> Option<(Subject, Timestamp)> {
    let subject = match text(item, "pk")?.split_once('#')? {
        ("JOB", id) => Subject::Job(id.parse().ok()?),
        (_, id) => Subject::Batch(id.parse().ok()?),
    };
    Some((subject, time(item, "told_for")?))
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn time(item: &Item, name: &str) -> Option<Timestamp> {
    item.get(name)?.as_n().ok()?.parse().ok().map(Timestamp::from_ms)
}

async fn scan(
    client: &Client,
    table: &str,
    projection: &str,
    filter: Option<&str>,
    names: &[(&str, &str)],
) -> Result<Vec<Item>, RequeueError> {
    let names = names.iter().map(|(short, name)| ((*short).to_owned(), (*name).to_owned())).collect();
    let scan = client.scan().table_name(table).projection_expression(projection);
    let scan = scan.set_filter_expression(filter.map(str::to_owned)).set_expression_attribute_names(Some(names));
    scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.map_err(read_error)
}

fn read_error<E: std::error::Error>(error: E) -> RequeueError {
    RequeueError::Read(DisplayErrorContext(error).to_string())
}
