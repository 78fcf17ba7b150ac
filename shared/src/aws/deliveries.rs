//! The tickets of one invocation, worked off side by side and each answered for itself.
//!
//! See "Using Lambda with Amazon SQS", on partial batch responses,
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>: messages that the answer names come
//! back; an answer that names none, or is empty, deletes them all.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::{FutureExt, StreamExt, stream};

use super::{Queue, ServiceError};
use crate::backoff::full_jitter;
use crate::ticket::{Ticket, TicketError};
use crate::time::Timestamp;

/// A ticket as it was delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The ticket.
    pub ticket: Ticket,
    /// How many times it was received, this one among them.
    pub receives: u32,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
}

/// What becomes of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing left to do for it: it is deleted.
    Done,
    /// It comes back after this time.
    Again(Duration),
}

/// Works off an invocation's messages, at most `in_flight` at once.
///
/// A ticket whose work fails or panics comes back and leaves its neighbours unharmed. A message that is no ticket goes
/// to the queue `parked`, because no number of attempts would make it one.
pub async fn process_batch<F>(
    event: SqsEvent,
    queue: &Queue,
    parked: &Queue,
    in_flight: usize,
    work: impl Fn(Delivery) -> F,
) -> SqsBatchResponse
where
    F: Future<Output = Result<Verdict, ServiceError>>,
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

async fn judge<F>(message: &SqsMessage, parked: &Queue, work: impl Fn(Delivery) -> F) -> Verdict
where
    F: Future<Output = Result<Verdict, ServiceError>>,
{
    const BASE: Duration = Duration::from_secs(2);
    const CAP: Duration = Duration::from_secs(300);
    let receives = attribute(message, "ApproximateReceiveCount").unwrap_or(1);
    // Nothing else is known of a ticket whose record was not read. Where it was, the record's own counters tell.
    let again = || Verdict::Again(full_jitter(BASE, CAP, u32::try_from(receives).unwrap_or(u32::MAX)));
    let body = message.body.as_deref().unwrap_or_default();
    let message_id = message.message_id.as_deref().unwrap_or_default();

    let ticket = match Ticket::from_body(body) {
        Ok(ticket) => ticket,
        Err(error @ TicketError::Newer(_)) => {
            tracing::warn!(message.id = message_id, %error, "a ticket waits for a newer function");
            return again();
        }
        Err(error @ TicketError::Malformed) => {
            return match parked.park(body, &error.to_string()).await {
                Ok(()) => {
                    tracing::error!(message.id = message_id, "a message that is no ticket was parked");
                    Verdict::Done
                }
                Err(error) => {
                    tracing::error!(message.id = message_id, %error, "a message that is no ticket cannot be parked");
                    again()
                }
            };
        }
    };
    let job = ticket.job;
    let delivery = Delivery {
        ticket,
        receives: u32::try_from(receives).unwrap_or(u32::MAX),
        sent_at: attribute(message, "SentTimestamp").map(Timestamp::from_ms),
    };
    match AssertUnwindSafe(work(delivery)).catch_unwind().await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => {
            tracing::warn!(job.id = %job, receives, %error, "a ticket comes back because a service did not answer");
            again()
        }
        Err(_) => {
            tracing::error!(job.id = %job, receives, "a ticket comes back because its work panicked");
            again()
        }
    }
}

/// Makes the message come back after `delay`. Should that fail, it comes back when its present timeout ends.
async fn change_visibility(queue: &Queue, message: &SqsMessage, delay: Duration) {
    let receipt_handle = message.receipt_handle.as_deref().unwrap_or_default();
    if let Err(error) = queue.change_visibility(receipt_handle, delay).await {
        let message_id = message.message_id.as_deref().unwrap_or_default();
        tracing::warn!(message.id = message_id, %error, "a message's visibility cannot be changed");
    }
}

fn attribute(message: &SqsMessage, name: &str) -> Option<i64> {
    message.attributes.get(name)?.parse().ok()
}
