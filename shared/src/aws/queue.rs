use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message::builders::SendMessageFluentBuilder;
use aws_sdk_sqs::types::{
    MessageAttributeValue, MessageSystemAttributeNameForSends as SystemAttribute, MessageSystemAttributeValue,
    QueueAttributeName, SendMessageBatchRequestEntry,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Kind, Result, ServiceError};
use crate::backoff::full_jitter;
use crate::caller::Owner;
use crate::delivery::DeliveryMessage;
use crate::id::BatchId;
use crate::text::hex;
use crate::ticket::{BatchTicket, Message, Ticket};

const SERVICE: &str = "SQS";

/// SQS allows at most twelve hours from when the message was received, and an invocation lasts a quarter of an hour at
/// most. See <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html>.
const MAX_VISIBILITY: Duration = Duration::from_secs(11 * 3600 + 45 * 60);

/// The limit of SendMessageBatch, see
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.
const MESSAGES_PER_SEND: usize = 10;

const SENDS_AT_ONCE: usize = 8;

const TRIES: u32 = 5;

/// The approximate number of messages in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are visible.
    pub waiting: u64,
    /// Messages that were received and are invisible for now.
    pub in_flight: u64,
}

/// A queue in Amazon SQS. The owner is the message group, so that one owner's many messages do not delay another's, see
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>.
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
    pub async fn send(&self, ticket: &Ticket, owner: &Owner) -> Result<()> {
        let mut send = self.sending(ticket, owner);
        if let Some(trace) = &ticket.trace {
            send = send.message_system_attributes(SystemAttribute::AwsTraceHeader, text(trace));
        }
        send.send().await.map(drop).map_err(ServiceError::of(SERVICE))
    }

    /// Sends a ticket of a batch, which is received after `delay` at the earliest: whole seconds, up to 15 minutes.
    pub async fn send_batch_ticket(&self, batch: BatchId, owner: &Owner, delay: Duration) -> Result<()> {
        let send = self.sending(&BatchTicket { batch }, owner).delay_seconds(delay.as_secs() as i32);
        send.send().await.map(drop).map_err(ServiceError::of(SERVICE))
    }

    /// Sends a message to deliver an event.
    pub async fn send_delivery(&self, message: &DeliveryMessage) -> Result<()> {
        self.sending(message, &message.owner).send().await.map(drop).map_err(ServiceError::of(SERVICE))
    }

    fn sending(&self, message: &impl Message, owner: &Owner) -> SendMessageFluentBuilder {
        let send = self.client.send_message().queue_url(&self.url);
        send.message_body(message.to_body()).message_group_id(group(owner))
    }

    /// Sends many tickets of one owner. If this fails, some may have been sent.
    pub async fn send_batch(&self, tickets: &[Ticket], owner: &Owner) -> Result<()> {
        let sends: Vec<_> = tickets.chunks(MESSAGES_PER_SEND).map(|tickets| self.send_chunk(tickets, owner)).collect();
        stream::iter(sends).buffer_unordered(SENDS_AT_ONCE).try_collect().await
    }

    async fn send_chunk(&self, tickets: &[Ticket], owner: &Owner) -> Result<()> {
        let mut left: Vec<usize> = (0..tickets.len()).collect();
        for tries in 0..TRIES {
            let entries = left.iter().map(|&i| {
                let mut entry = SendMessageBatchRequestEntry::builder()
                    .id(i.to_string())
                    .message_body(tickets[i].to_body())
                    .message_group_id(group(owner));
                if let Some(trace) = &tickets[i].trace {
                    entry = entry.message_system_attributes(SystemAttribute::AwsTraceHeader, text(trace));
                }
                entry.build().expect("its id and body are set")
            });
            let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
            let output = send.send().await.map_err(ServiceError::of(SERVICE))?;
            left = output.failed().iter().filter_map(|failed| failed.id().parse().ok()).collect();
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(full_jitter(Duration::from_millis(50), Duration::from_secs(1), tries)).await;
        }
        Err(ServiceError { service: SERVICE, code: "BatchEntriesFailed".to_owned(), kind: Kind::Unavailable })
    }

    /// The approximate number of messages in the queue.
    pub async fn depth(&self) -> Result<Depth> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let asked = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = asked.attribute_names(Waiting).attribute_names(InFlight).send().await;
        let answer = answer.map_err(ServiceError::of(SERVICE))?;
        let count = |name| answer.attributes()?.get(&name)?.parse().ok();
        Ok(Depth { waiting: count(Waiting).unwrap_or_default(), in_flight: count(InFlight).unwrap_or_default() })
    }

    /// Sends a malformed message to this queue for a person to inspect, with the reason as an attribute.
    pub async fn park(&self, body: &str, reason: &str) -> Result<()> {
        let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build();
        self.client
            .send_message()
            .queue_url(&self.url)
            // SQS does not accept an empty body.
            .message_body(if body.is_empty() { " " } else { body })
            .message_attributes("reason", reason.expect("its data type is set"))
            .send()
            .await
            .map(drop)
            .map_err(ServiceError::of(SERVICE))
    }

    /// Makes a received message visible again `delay` from now, or after almost 12 hours if that is sooner.
    pub async fn change_visibility(&self, receipt_handle: &str, delay: Duration) -> Result<()> {
        let secs = delay.min(MAX_VISIBILITY).as_secs_f64().ceil();
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt_handle)
            .visibility_timeout(secs as i32)
            .send()
            .await
            .map(drop)
            .map_err(ServiceError::of(SERVICE))
    }
}

fn text(value: &str) -> MessageSystemAttributeValue {
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(value).build();
    value.expect("its data type is set")
}

/// SQS allows 128 characters of a small alphabet for a message group ID, so this is a digest.
fn group(owner: &Owner) -> String {
    use sha2::{Digest, Sha256};
    hex(&Sha256::digest(owner.as_str())[..16])
}
