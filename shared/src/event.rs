//! The contents of the events of jobs and batches.

use serde::Serialize;

use crate::batch::{Batch, BatchStatus, Counts};
use crate::caller::Owner;
use crate::delivery::{DeliveryId, DeliveryMessage};
use crate::id::{BatchId, JobId, Subject};
use crate::job::{Job, JobError, JobState, Status};
use crate::label::{BatchName, CustomId};
use crate::text::cut_to;
use crate::time::Timestamp;
use crate::webhook::{EventType, Webhook};

/// In characters. A payload should have less than 20 kB.
const MAX_MESSAGE_CHARS: usize = 1000;

#[derive(Serialize)]
struct Payload<T> {
    r#type: EventType,
    timestamp: Timestamp,
    data: T,
}

#[derive(Serialize)]
struct JobData<'a> {
    id: JobId,
    status: Status,
    batch_id: Option<BatchId>,
    custom_id: Option<&'a CustomId>,
    attempts: u32,
    created_at: Timestamp,
    finished_at: Timestamp,
    error: Option<JobError>,
}

#[derive(Serialize)]
struct BatchData<'a> {
    id: BatchId,
    name: Option<&'a BatchName>,
    status: BatchStatus,
    counts: Counts,
    created_at: Timestamp,
    finished_at: Timestamp,
}

/// The event of a job's end; `None` if the job has not ended, its caller did not ask for the event, or it was queued
/// before. It has neither prompt nor presigned URL, because its receiver asks the API for them.
pub fn of_job(job: &Job) -> Option<DeliveryMessage> {
    let finished_at = job.finished_at()?;
    let event = EventType::of_end(job.status())?;
    let webhook = job.order.webhook.as_ref().filter(|webhook| webhook.wants(event))?;
    if job.told_for == Some(job.queued_at) {
        return None;
    }
    let error = match &job.state {
        JobState::Failed { error, .. } => {
            Some(JobError { message: cut_to(MAX_MESSAGE_CHARS, &error.message).into_owned(), ..error.clone() })
        }
        _ => None,
    };
    let membership = job.membership.as_ref();
    let data = JobData {
        id: job.id,
        status: job.status(),
        batch_id: membership.map(|membership| membership.batch),
        custom_id: membership.and_then(|membership| membership.custom_id.as_ref()),
        attempts: job.attempts,
        created_at: job.created_at,
        finished_at,
        error,
    };
    let id = DeliveryId { subject: Subject::Job(job.id), since: job.queued_at };
    Some(message(id, &job.owner, webhook, event, finished_at, data))
}

/// The event of a batch's end, which was noticed at `now`; `None` as for [`of_job`].
pub fn of_batch(batch: &Batch, now: Timestamp) -> Option<DeliveryMessage> {
    let webhook = batch.webhook_for_end().filter(|_| batch.has_ended())?;
    let data = BatchData {
        id: batch.id,
        name: batch.name.as_ref(),
        status: batch.status(now),
        counts: batch.last_counts(now),
        created_at: batch.created_at,
        finished_at: now,
    };
    let id = DeliveryId { subject: Subject::Batch(batch.id), since: batch.since() };
    Some(message(id, &batch.owner, webhook, EventType::BatchEnded, now, data))
}

fn message(
    id: DeliveryId,
    owner: &Owner,
    webhook: &Webhook,
    event: EventType,
    at: Timestamp,
    data: impl Serialize,
) -> DeliveryMessage {
    let payload = serde_json::to_string(&Payload { r#type: event, timestamp: at, data });
    DeliveryMessage {
        id,
        owner: owner.clone(),
        url: webhook.url.clone(),
        event,
        at,
        round: 0,
        payload: payload.expect("an event is always JSON"),
    }
}
