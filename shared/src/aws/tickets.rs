use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Outbox, Queue, Result};
use crate::caller::Owner;
use crate::job::Job;
use crate::ticket::Ticket;

const TOLD_AT_ONCE: usize = 16;

/// Sends a ticket for each unfinished job, and queues the events of the others, which may have ended without a ticket.
pub async fn send_tickets(
    queue: &Queue,
    outbox: &Outbox,
    owner: &Owner,
    jobs: &[Job],
    trace: Option<&String>,
) -> Result<()> {
    let tickets: Vec<_> = jobs.iter().filter_map(|job| Ticket::for_unfinished(job, trace)).collect();
    queue.send_batch(&tickets, owner).await?;
    let ended = jobs.iter().filter(|job| job.finished_at().is_some());
    let ends: Vec<_> = ended.map(|job| outbox.tell(job)).collect();
    stream::iter(ends).buffer_unordered(TOLD_AT_ONCE).try_collect().await
}
