use shared::Batch;
use shared::aws::job_end::cancel_new;
use shared::aws::{Result, Saved, send_tickets};
use shared::batch::{Entry, Input};
use tokio::time::Instant;

use crate::App;
use crate::lines::{Lines, Next};
use crate::step::{MARGIN, OTHER_AT_WORK, Step, save};

/// Bounds the memory when the jobs are large.
const BYTES_AT_ONCE: u64 = 2 * 1024 * 1024;

/// Stores the jobs of a checked file and sends their tickets, a thousand at a time. The batch's record is read in
/// between, so that each job of a batch that was canceled is canceled either here or by the later pass.
pub(crate) async fn admit(app: &App, batch: &Batch, input: &Input, end: Instant) -> Result<Step> {
    let mut lines = Lines::from(app, batch.id, input, input.position.clone());
    let mut current = batch.clone();
    while Instant::now() + MARGIN < end {
        let id = current.id;
        let Some((entries, none_left)) = next_entries(&mut lines, &current, input).await? else {
            tracing::error!(batch.id = %id, admitted = current.admitted, "the file of a batch was replaced or deleted");
            return save(app, current.stop_admission(app.clock.now())).await;
        };
        let jobs = current.jobs(current.admitted, entries);
        let stored = app.table.create_all(&jobs).await?;
        let Some(now) = app.table.get_batch(id).await? else { return Ok(Step::Gone) };
        if now.canceled_at.is_some() {
            cancel_new(&app.table, &app.outbox, stored, app.clock.now()).await?;
            return Ok(Step::Go(Box::new(now)));
        }
        if !stored.iter().zip(&jobs).all(|(job, wanted)| job.is_as_wanted(wanted)) {
            tracing::error!(batch.id = %id, "a job of an earlier batch with the same key is in the way");
            let ours = stored.into_iter().filter(|job| job.created_at == jobs[0].created_at);
            cancel_new(&app.table, &app.outbox, ours.collect(), app.clock.now()).await?;
            return save(app, current.stop_admission(app.clock.now())).await;
        }
        send_tickets(&app.jobs, &app.outbox, &current.owner, &stored, None).await?;
        let next = current.admitted(current.admitted + jobs.len(), lines.reader.position(), none_left);
        current = match app.table.save_batch(&next).await? {
            Saved::Stored if none_left => {
                tracing::info!(batch.id = %id, jobs = next.total, "batch admitted");
                return Ok(Step::Go(Box::new(next)));
            }
            Saved::Stored => next,
            Saved::MovedOn(current) if current.canceled_at.is_none() => {
                return Ok(Step::Wait(OTHER_AT_WORK));
            }
            Saved::MovedOn(current) => return Ok(Step::Go(current)),
            Saved::Gone => return Ok(Step::Gone),
        };
    }
    Ok(Step::Go(Box::new(current)))
}

/// The next jobs of the file without its faulty lines, and whether they are the last; `None` if the file was replaced.
async fn next_entries(lines: &mut Lines<'_>, batch: &Batch, input: &Input) -> Result<Option<(Vec<Entry>, bool)>> {
    let begin = lines.reader.position().offset;
    let (mut entries, mut end) = (Vec::new(), begin);
    while entries.len() < batch.jobs_per_part && end - begin < BYTES_AT_ONCE {
        match lines.next().await? {
            Next::Line(line) => {
                end = line.end.offset;
                entries.extend(batch.entry(input, line).ok());
            }
            Next::End => return Ok(Some((entries, true))),
            Next::Replaced => return Ok(None),
        }
    }
    Ok(Some((entries, false)))
}
