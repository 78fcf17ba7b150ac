use shared::aws::gateway::log_failure;
use shared::caller::IdempotencyKey;
use shared::order::Order;
use shared::ticket::Ticket;
use shared::{Job, JobId, Owner, Problem};

use crate::App;

pub(crate) struct Submitted {
    pub(crate) job: Job,
    pub(crate) replayed: bool,
}

/// Submits a job. It is accepted only when its record is stored and its ticket is sent.
pub(crate) async fn submit(
    app: &App,
    owner: Owner,
    order: Order,
    key: Option<&IdempotencyKey>,
    trace: Option<String>,
) -> Result<Submitted, Problem> {
    let id = key.map_or_else(JobId::new, |key| JobId::from_key(&owner, key));
    let job = Job::new(id, owner, order, app.clock.now(), app.terms);
    let submitted = match app.table.create(&job).await.map_err(log_failure(id))? {
        None => Submitted { job, replayed: false },
        Some(existing) if existing.order == job.order => Submitted { job: existing, replayed: true },
        Some(_) => return Err(Problem::IdempotencyKeyReused),
    };
    send_ticket(app, &submitted.job, trace).await?;
    tracing::info!(job.id = %id, replayed = submitted.replayed, "job submitted");
    Ok(submitted)
}

/// Sends the job's ticket. If the job has ended, queues its event instead, as it may have ended without a ticket.
pub(crate) async fn send_ticket(app: &App, job: &Job, trace: Option<String>) -> Result<(), Problem> {
    let sent = match Ticket::for_unfinished(job, trace.as_ref()) {
        Some(ticket) => app.queue.send(&ticket, &job.owner).await,
        None => app.outbox.tell(job).await,
    };
    sent.map_err(log_failure(job.id))
}
