//! A queue in Amazon SQS.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeNameForSends, MessageSystemAttributeValue};

use super::ServiceError;
use crate::job::Owner;
use crate::ticket::Ticket;

const SERVICE: &str = "SQS";

/// The longest visibility timeout, see
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html>.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    pub(super) fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// Sends a ticket.
    ///
    /// The owner is its message group, so that one owner's many tickets do not keep another's waiting; see "Amazon SQS
    /// fair queues",
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>.
    ///
    /// # Errors
    /// When the queue does not answer as it should. The ticket may then have been sent all the same.
    pub async fn send(&self, ticket: &Ticket, owner: &Owner) -> Result<(), ServiceError> {
        let mut send = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(ticket.to_body())
            .message_group_id(group(owner));
        if let Some(trace) = &ticket.trace {
            let header = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
            send = send.message_system_attributes(
                MessageSystemAttributeNameForSends::AwsTraceHeader,
                header.expect("its data type is set"),
            );
        }
        send.send().await.map(drop).map_err(|error| ServiceError::new(SERVICE, &error))
    }

    /// Sends on a message that is no ticket, for a person to look at, with the reason beside it.
    ///
    /// # Errors
    /// When the queue does not answer as it should.
    pub async fn park(&self, body: &str, reason: &str) -> Result<(), ServiceError> {
        let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build();
        self.client
            .send_message()
            .queue_url(&self.url)
            // SQS takes no empty body.
            .message_body(if body.is_empty() { " " } else { body })
            .message_attributes("reason", reason.expect("its data type is set"))
            .send()
            .await
            .map(drop)
            .map_err(|error| ServiceError::new(SERVICE, &error))
    }

    /// Hides a received message for another `delay` from now, of at most 12 hours.
    ///
    /// # Errors
    /// When the queue does not answer as it should. The message then comes back when its present timeout ends.
    pub async fn hide(&self, receipt_handle: &str, delay: Duration) -> Result<(), ServiceError> {
        let secs = delay.min(MAX_VISIBILITY).as_secs_f64().ceil();
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt_handle)
            .visibility_timeout(secs as i32)
            .send()
            .await
            .map(drop)
            .map_err(|error| ServiceError::new(SERVICE, &error))
    }
}

/// The owner's message group. A group's name has at most 128 characters of a small alphabet, which a digest fits.
fn group(owner: &Owner) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(owner.as_str()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
