//! Creates in the embedded services what the template declares.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use aws_sdk_sqs::types::QueueAttributeName;

use crate::Ready;
use crate::template::{Deployment, KeyElement, Table};

/// Why something that the template declares could not be created.
#[derive(Debug, thiserror::Error)]
#[error("cannot create {what}: {why}")]
pub struct ProvisionError {
    what: String,
    why: String,
}

fn failed(what: &str, error: impl std::error::Error) -> ProvisionError {
    ProvisionError { what: what.to_owned(), why: DisplayErrorContext(error).to_string() }
}

/// Creates the tables, queues and buckets of `deployment`. What is there already stays as it is.
///
/// # Errors
/// When a service refuses one of them.
pub(crate) async fn provision(
    deployment: &Deployment,
    config: &SdkConfig,
    ready: &Ready,
) -> Result<(), ProvisionError> {
    let tables = aws_sdk_dynamodb::config::Builder::from(config).endpoint_url(&ready.dynamodb).build();
    let tables = aws_sdk_dynamodb::Client::from_conf(tables);
    for table in deployment.tables.values() {
        create_table(&tables, table).await?;
    }
    let queues = aws_sdk_sqs::config::Builder::from(config).endpoint_url(&ready.sqs).build();
    let queues = aws_sdk_sqs::Client::from_conf(queues);
    // A queue that others fall back on must be there before them.
    let (sources, sinks): (Vec<_>, Vec<_>) =
        deployment.queues.values().partition(|queue| queue.attributes.contains_key("RedrivePolicy"));
    for queue in sinks.into_iter().chain(sources) {
        let attributes: HashMap<_, _> = queue
            .attributes
            .iter()
            .map(|(name, value)| (QueueAttributeName::from(name.as_str()), value.clone()))
            .collect();
        let created = queues.create_queue().queue_name(&queue.name).set_attributes(Some(attributes)).send().await;
        let created = created.map_err(|error| failed(&queue.name, error))?;
        debug_assert_eq!(created.queue_url(), Some(queue.url.as_str()));
    }
    let buckets = aws_sdk_s3::config::Builder::from(config).endpoint_url(&ready.s3).build();
    let buckets = aws_sdk_s3::Client::from_conf(buckets);
    for bucket in deployment.buckets.values() {
        if buckets.head_bucket().bucket(bucket).send().await.is_err() {
            buckets.create_bucket().bucket(bucket).send().await.map_err(|error| failed(bucket, error))?;
        }
    }
    Ok(())
}

async fn create_table(client: &aws_sdk_dynamodb::Client, table: &Table) -> Result<(), ProvisionError> {
    let name = table.name.as_str();
    if client.describe_table().table_name(name).send().await.is_ok() {
        return Ok(());
    }
    let broken = |error: aws_sdk_dynamodb::error::BuildError| failed(name, error);
    let mut create = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for attribute in &table.properties.attribute_definitions {
        let attribute = AttributeDefinition::builder()
            .attribute_name(&attribute.attribute_name)
            .attribute_type(ScalarAttributeType::from(attribute.attribute_type.as_str()))
            .build()
            .map_err(broken)?;
        create = create.attribute_definitions(attribute);
    }
    create = create.set_key_schema(Some(key_schema(&table.properties.key_schema).map_err(broken)?));
    for index in &table.properties.global_secondary_indexes {
        let mut projection =
            Projection::builder().projection_type(ProjectionType::from(index.projection.projection_type.as_str()));
        if !index.projection.non_key_attributes.is_empty() {
            projection = projection.set_non_key_attributes(Some(index.projection.non_key_attributes.clone()));
        }
        let index = GlobalSecondaryIndex::builder()
            .index_name(&index.index_name)
            .set_key_schema(Some(key_schema(&index.key_schema).map_err(broken)?))
            .projection(projection.build())
            .build()
            .map_err(broken)?;
        create = create.global_secondary_indexes(index);
    }
    create.send().await.map_err(|error| failed(name, error))?;
    if let Some(ttl) = table.properties.time_to_live_specification.as_ref().filter(|ttl| ttl.enabled) {
        let ttl = TimeToLiveSpecification::builder().attribute_name(&ttl.attribute_name).enabled(true).build();
        let update = client.update_time_to_live().table_name(name);
        let update = update.time_to_live_specification(ttl.map_err(broken)?);
        update.send().await.map_err(|error| failed(name, error))?;
    }
    Ok(())
}

fn key_schema(elements: &[KeyElement]) -> Result<Vec<KeySchemaElement>, aws_sdk_dynamodb::error::BuildError> {
    let element = |element: &KeyElement| {
        KeySchemaElement::builder()
            .attribute_name(&element.attribute_name)
            .key_type(KeyType::from(element.key_type.as_str()))
            .build()
    };
    elements.iter().map(element).collect()
}
