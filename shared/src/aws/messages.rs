//! Processes the SQS messages of one invocation concurrently, with a verdict for each. SQS redelivers the messages that
//! the response names and deletes all others, see
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::{FutureExt, StreamExt, stream};
use lambda_runtime::Context;
use tokio::time::Instant;
use tracing::field::display;

use super::{Queue, Result};
use crate::backoff::full_jitter;
use crate::ticket::{Message, Ticket, TicketError};
use crate::time::Timestamp;

/// A message as received from its queue.
#[derive(Clone, Debug)]
pub struct Received<T = Ticket> {
    /// The message.
    pub message: T,
    /// The receive count, including this time.
    pub receives: u32,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
}

/// What happens to a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is deleted.
    Done,
    /// It becomes visible again after this delay.
    Again(Duration),
}

/// Processes an invocation's messages, at most `in_flight` at once. A failure or panic redelivers its message without
/// affecting the others. A malformed message moves to the queue `parked`, because no retry can help it.
pub async fn process_batch<T: Message, F>(
    event: SqsEvent,
    queue: &Queue,
    parked: &Queue,
    in_flight: usize,
    work: impl Fn(Received<T>) -> F,
) -> SqsBatchResponse
where
    F: Future<Output = Result<Verdict>>,
{
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = stream::iter(event.records)
        .map(|message| async {
            match judge(&message, parked, &work).await {
                Verdict::Done => None,
                Verdict::Again(delay) => {
                    change_visibility(queue, &message, delay).await;
                    let mut failure = BatchItemFailure::default();
                    failure.item_identifier = message.message_id.unwrap_or_default();
                    Some(failure)
                }
            }
        })
        .buffer_unordered(in_flight)
        .filter_map(|failure| async { failure })
        .collect()
        .await;
    response
}

/// When Lambda will stop this invocation.
pub fn end_of(context: &Context) -> Instant {
    let now = Timestamp::from(std::time::SystemTime::now());
    let deadline = Timestamp::from_ms(i64::try_from(context.deadline).unwrap_or(i64::MAX));
    Instant::now() + deadline.since(now)
}

async fn judge<T: Message, F>(message: &SqsMessage, parked: &Queue, work: impl Fn(Received<T>) -> F) -> Verdict
where
    F: Future<Output = Result<Verdict>>,
{
    const BASE: Duration = Duration::from_secs(2);
    const CAP: Duration = Duration::from_secs(300);
    let receives = attribute(message, "ApproximateReceiveCount").unwrap_or(1);
    // If the record could not be read, the receive count is all that is known. Otherwise the record's counters decide.
    let again = || Verdict::Again(full_jitter(BASE, CAP, u32::try_from(receives).unwrap_or(u32::MAX)));
    let body = message.body.as_deref().unwrap_or_default();
    let message_id = message.message_id.as_deref().unwrap_or_default();

    let read = match T::from_body(body) {
        Ok(read) => read,
        Err(error @ TicketError::Newer(_)) => {
            tracing::warn!(message.id = message_id, %error, "ticket returned to wait for a newer version");
            return again();
        }
        Err(error @ TicketError::Malformed) => {
            return match parked.park(body, &error.to_string()).await {
                Ok(()) => {
                    tracing::error!(message.id = message_id, "parked a malformed message");
                    Verdict::Done
                }
                Err(error) => {
                    tracing::error!(message.id = message_id, %error, "cannot park a malformed message");
                    again()
                }
            };
        }
    };
    let (job, batch) = read.subject().ids();
    let (job, batch) = (job.map(display), batch.map(display));
    let received = Received {
        message: read,
        receives: u32::try_from(receives).unwrap_or(u32::MAX),
        sent_at: attribute(message, "SentTimestamp").map(Timestamp::from_ms),
    };
    match AssertUnwindSafe(work(received)).catch_unwind().await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => {
            tracing::warn!(job.id = job, batch.id = batch, receives, %error, "ticket returned: a service call failed");
            again()
        }
        Err(_) => {
            tracing::error!(job.id = job, batch.id = batch, receives, "ticket returned: its work panicked");
            again()
        }
    }
}

/// Makes the message visible again after `delay`. If that fails, it becomes visible when its current timeout ends.
pub async fn change_visibility(queue: &Queue, message: &SqsMessage, delay: Duration) {
    let receipt_handle = message.receipt_handle.as_deref().unwrap_or_default();
    if let Err(error) = queue.change_visibility(receipt_handle, delay).await {
        let message_id = message.message_id.as_deref().unwrap_or_default();
        tracing::warn!(message.id = message_id, %error, "cannot change a message's visibility timeout");
    }
}

fn attribute(message: &SqsMessage, name: &str) -> Option<i64> {
    message.attributes.get(name)?.parse().ok()
}
