use std::time::Duration;

use shared::Batch;
use shared::aws::messages::{Received, Verdict};
use shared::aws::{Result, Saved};
use shared::batch::{Counts, Source, Stage};
use shared::job::Lease;
use shared::ticket::BatchTicket;
use tokio::time::Instant;

use crate::{App, admit_jobs, change_jobs, check_file, watch_jobs};

/// The time that must be left of the invocation to start a piece of work.
pub(crate) const MARGIN: Duration = Duration::from_secs(30);

/// How long a ticket waits while another invocation works on its batch. If that one crashes, this one takes over.
pub(crate) const OTHER_AT_WORK: Duration = Duration::from_secs(60);

const SUBMISSION: Duration = Duration::from_secs(2);

/// How long the index of the table may lag behind it.
pub(crate) const INDEX_LAG: Duration = Duration::from_secs(5);

pub(crate) enum Step {
    Go(Box<Batch>),
    Wait(Duration),
    Gone,
}

/// Advances the batch as far as its record and the invocation's time allow. Several invocations may work on one batch:
/// if one of them was overtaken, its write is refused, and it continues with the current record.
pub(crate) async fn advance(app: &App, received: Received<BatchTicket>, end: Instant) -> Result<Verdict> {
    let id = received.message.batch;
    let Some(mut batch) = app.table.get_batch(id).await? else {
        tracing::warn!(batch.id = %id, "dropped the ticket of a batch that has no record");
        return Ok(Verdict::Done);
    };
    // A check and the writing of results take longer, but cannot be interrupted.
    let turn = end.min(Instant::now() + app.turn + MARGIN);
    while Instant::now() + MARGIN < turn {
        let step = match (batch.stage, &batch.source, &batch.pass) {
            (Stage::Submitting, Source::Request { writer }, _) => await_submission(app, &batch, *writer).await?,
            (Stage::Checking, Source::File(input), _) => check_file::check(app, &batch, input, end).await?,
            (Stage::Admitting, Source::File(_), _) if batch.canceled_at.is_some() => {
                save(app, batch.stop_admission(app.clock.now())).await?
            }
            (Stage::Admitting, Source::File(input), _) => admit_jobs::admit(app, &batch, input, turn).await?,
            (Stage::InProgress, _, Some(pass)) => change_jobs::change(app, &batch, pass).await?,
            (Stage::InProgress, _, None) => watch_jobs::watch(app, &batch, end).await?,
            _ => {
                app.outbox.tell_batch(&batch, app.clock.now()).await?;
                return Ok(Verdict::Done);
            }
        };
        match step {
            Step::Go(next) => batch = *next,
            Step::Wait(delay) => return Ok(Verdict::Again(delay)),
            Step::Gone => return Ok(Verdict::Done),
        }
    }
    Ok(Verdict::Again(Duration::ZERO))
}

/// Waits for the writer of a request's jobs. If the writer crashed, a repeated request may still complete them, but not
/// after the batch is canceled or its deadline has passed.
async fn await_submission(app: &App, batch: &Batch, writer: Lease) -> Result<Step> {
    let now = app.clock.now();
    if writer.until > now {
        Ok(Step::Wait(writer.until.since(now).min(SUBMISSION)))
    } else if batch.canceled_at.is_some() || batch.deadline_at <= now {
        save(app, batch.watch_all()).await
    } else {
        Ok(Step::Wait(batch.deadline_at.since(now)))
    }
}

pub(crate) async fn save(app: &App, next: Batch) -> Result<Step> {
    Ok(match app.table.save_batch(&next).await? {
        Saved::Stored => {
            log(&next);
            Step::Go(Box::new(next))
        }
        Saved::MovedOn(current) => Step::Go(current),
        Saved::Gone => Step::Gone,
    })
}

fn log(batch: &Batch) {
    let (id, faults) = (batch.id, batch.input().map(|input| input.checked.faults));
    match batch.stage {
        Stage::Invalid => tracing::info!(batch.id = %id, faults, "batch is invalid"),
        Stage::Admitting if batch.admitted == 0 => {
            tracing::info!(batch.id = %id, jobs = batch.total, faults, "batch checked");
        }
        Stage::Ended => {
            let Counts { succeeded, failed, canceled, .. } = batch.progress.counts;
            tracing::info!(batch.id = %id, succeeded, failed, canceled, "batch ended");
        }
        _ => {}
    }
}
