//! Creates the queues that the template declares.

use aws_config::SdkConfig;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::QueueAttributeName;

use crate::Ready;
use crate::template::Deployment;

/// Why a queue could not be created.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the queue {queue}: {why}")]
pub struct ProvisionError {
    queue: String,
    why: String,
}

/// Creates the queues of `deployment`.
pub(crate) async fn provision(
    deployment: &Deployment,
    config: &SdkConfig,
    ready: &Ready,
) -> Result<(), ProvisionError> {
    let client = aws_sdk_sqs::config::Builder::from(config).endpoint_url(&ready.sqs).build();
    let client = aws_sdk_sqs::Client::from_conf(client);
    // A dead-letter queue must exist before the queues that name it.
    let (sources, sinks): (Vec<_>, Vec<_>) =
        deployment.queues.values().partition(|queue| queue.attributes.contains_key("RedrivePolicy"));
    for queue in sinks.into_iter().chain(sources) {
        let attributes =
            queue.attributes.iter().map(|(name, value)| (QueueAttributeName::from(name.as_str()), value.clone()));
        let create = client.create_queue().queue_name(&queue.name).set_attributes(Some(attributes.collect()));
        let created = create.send().await.map_err(|error| ProvisionError {
            queue: queue.name.clone(),
            why: DisplayErrorContext(error).to_string(),
        })?;
        debug_assert_eq!(created.queue_url(), Some(queue.url.as_str()));
    }
    Ok(())
}
