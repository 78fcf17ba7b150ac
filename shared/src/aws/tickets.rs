//! Sends the tickets of a batch's jobs.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Outbox, Queue, ServiceError};
use crate::caller::Owner;
use crate::job::Job;
use crate::ticket::Ticket;

/// How many ends are told at once.
const TOLD_AT_ONCE: usize = 16;

/// Sends a ticket for each of these jobs that is unfinished, and tells the ends of the others, as they may have ended
/// without a ticket.
pub async fn send_tickets(
    queue: &Queue,
    outbox: &Outbox,
    owner: &Owner,
    jobs: &[Job],
    trace: Option<&String>,
) -> Result<(), ServiceError> {
    let tickets: Vec<_> = jobs.iter().filter_map(|job| Ticket::for_unfinished(job, trace)).collect();
    queue.send_batch(&tickets, owner).await?;
    let ended = jobs.iter().filter(|job| job.finished_at().is_some());
    let ends: Vec<_> = ended.map(|job| outbox.tell(job)).collect();
    stream::iter(ends).buffer_unordered(TOLD_AT_ONCE).try_collect().await
}
