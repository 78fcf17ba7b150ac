//! Brings unfinished jobs back into the queue, which lives in memory and starts out empty.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use shared::aws::{Aws, ServiceError};
use shared::ticket::Ticket;
use shared::{JobId, Owner};

use crate::Ready;

/// Why unfinished jobs could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    /// The table did not answer.
    #[error("cannot read the unfinished jobs: {0}")]
    Read(String),
    /// The queue did not answer.
    #[error("cannot queue the unfinished jobs again: {0}")]
    Send(#[from] ServiceError),
}

/// Sends a ticket for every unfinished job of the table, and counts them.
///
/// # Errors
/// When the table or the queue does not answer as it should.
pub(crate) async fn requeue(config: &SdkConfig, ready: &Ready, aws: &Aws) -> Result<usize, RequeueError> {
    let client = aws_sdk_dynamodb::config::Builder::from(config).endpoint_url(&ready.dynamodb).build();
    let client = aws_sdk_dynamodb::Client::from_conf(client);
    let queue = aws.queue(ready.queue_url.clone());
    let unfinished = client
        .scan()
        .table_name(&ready.table)
        .projection_expression("pk, #owner")
        .filter_expression("#status IN (:queued, :running)")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":queued", AttributeValue::S("queued".to_owned()))
        .expression_attribute_values(":running", AttributeValue::S("running".to_owned()))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .map_err(|error| RequeueError::Read(DisplayErrorContext(error).to_string()))?;
    let text = |value: Option<&AttributeValue>| value.and_then(|value| value.as_s().ok()).cloned();
    let mut sent = 0;
    for item in &unfinished {
        let id = text(item.get("pk")).and_then(|pk| pk.strip_prefix("JOB#")?.parse::<JobId>().ok());
        let (Some(job), Some(owner)) = (id, text(item.get("owner"))) else { continue };
        queue.send(&Ticket { job, trace: None }, &Owner::new(owner)).await?;
        sent += 1;
    }
    Ok(sent)
}
