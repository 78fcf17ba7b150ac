use std::iter::repeat_n;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::Result;
use shared::aws::job_end::give_up;
use shared::batch::{Counts, Progress};
use shared::job::{ErrorCode, Status};
use shared::{Batch, Job, JobId};
use tokio::time::Instant;

use crate::step::{Step, save};
use crate::{App, write_results};

/// The time between two looks is at least this, and a quarter of the time that has passed up to [`SHORTEST`].
const FIRST: Duration = Duration::from_secs(1);

const SHORTEST: Duration = Duration::from_secs(5);

const LONGEST: Duration = Duration::from_secs(15 * 60);

/// After so many parts in which nothing has begun, the later ones are taken for the same: jobs begin roughly in order.
const STILL_PARTS: usize = 10;

const PARTS_AT_ONCE: usize = 8;

const JOBS_AT_ONCE: usize = 16;

/// Counts the jobs of the open parts only, as a part that has ended stays so. When all have ended, writes the results.
pub(crate) async fn watch(app: &App, batch: &Batch, end: Instant) -> Result<Step> {
    let now = app.clock.now();
    let Progress { open_parts: before, ended, .. } = &batch.progress;
    let mut progress = Progress { open_parts: Vec::new(), ended: *ended, counts: *ended };
    let looks = stream::iter(before.clone()).map(|part| look(app, batch, part));
    let mut looks = std::pin::pin!(looks.buffered(PARTS_AT_ONCE));
    let (mut parts, mut still) = (before.iter().copied(), 0);
    while still < STILL_PARTS
        && let Some(counts) = looks.try_next().await?
    {
        progress.counts = [progress.counts, counts].into_iter().sum();
        if counts.queued + counts.running > 0 {
            progress.open_parts.extend(parts.next());
        } else {
            parts.next();
            progress.ended = [progress.ended, counts].into_iter().sum();
        }
        still = if counts.queued == counts.total { still + 1 } else { 0 };
    }
    for part in parts {
        let queued = batch.jobs_of_part(part).len();
        progress.counts.total += queued;
        progress.counts.queued += queued;
        progress.open_parts.push(part);
    }
    let delay = until_next_look(progress.counts, batch.age(now));
    if progress.open_parts.is_empty() {
        return write_results::write(app, batch, end).await;
    }
    if progress == batch.progress {
        return Ok(Step::Wait(delay));
    }
    match save(app, batch.looked(progress)).await? {
        // Its owner may have asked for a pass meanwhile.
        Step::Go(next) if next.pass.is_none() => Ok(Step::Wait(delay)),
        step => Ok(step),
    }
}

/// Counts the jobs of a part, and ends those without a worker or a ticket: those whose deadline has passed, as their
/// tickets were lost, and those that were stored after their batch was canceled.
async fn look(app: &App, batch: &Batch, part: usize) -> Result<Counts> {
    let known = &app.table.states_of_part(batch.id, part).await?;
    let jobs = batch.jobs_of_part(part);
    let overdue = batch.deadline_at <= app.clock.now();
    if !overdue && batch.canceled_at.is_none() {
        let queued = repeat_n(Status::Queued, jobs.len().saturating_sub(known.len()));
        return Ok(Counts::of(known.values().copied().chain(queued)));
    }
    let states = stream::iter(jobs).map(|index| async move {
        let id = JobId::in_batch(batch.id, index);
        let is_late = index >= batch.admitted && batch.canceled_at.is_some();
        let missing = if is_late { Status::Canceled } else { Status::Queued };
        let status = known.get(&id).copied().unwrap_or(missing);
        let is_abandoned = if is_late { index < batch.most_stored() } else { overdue && status <= Status::Running };
        if !is_abandoned {
            return status;
        }
        end_abandoned(app, id, is_late).await.unwrap_or_else(|error| {
            tracing::warn!(batch.id = %batch.id, job.id = %id, %error, "cannot end a job that nobody works on");
            // Its event may not be queued, so its part stays open, and the job is looked at again.
            status.min(Status::Running)
        })
    });
    Ok(Counts::of(states.buffered(JOBS_AT_ONCE).collect::<Vec<_>>().await))
}

async fn end_abandoned(app: &App, id: JobId, is_late: bool) -> Result<Status> {
    let now = app.clock.now();
    let missing = if is_late { Status::Canceled } else { Status::Failed };
    let Some(mut job) = app.table.get(id).await? else { return Ok(missing) };
    if is_late {
        // Any other change gave the job a ticket.
        let cancel = |job: &Job| job.cancel(now).ok().filter(|_| job.fence == 0);
        let Some((changed, _)) = app.table.change(job, cancel).await? else { return Ok(missing) };
        job = changed;
    }
    if job.is_overdue(now) {
        let ended = give_up(&app.table, &app.images, job, ErrorCode::DeadlineExceeded, app.url_life, now).await?;
        let Some(ended) = ended else { return Ok(missing) };
        job = ended;
    }
    // Without a ticket, no other function queues the event.
    app.outbox.tell(&job).await?;
    Ok(job.status())
}

/// When to look again: sooner as the end comes closer, but at most a few hundred times in the whole life of a batch, as
/// SQS moves a ticket that was received a thousand times to the dead-letter queue. An early look sees too few jobs to
/// tell the pace, so no pause is longer than the time that has passed, and later none than a twentieth of it.
fn until_next_look(counts: Counts, elapsed: Duration) -> Duration {
    let Counts { queued, running, total, .. } = counts;
    let (open, ended) = ((queued + running) as f64, (total - queued - running) as f64);
    let left = elapsed.mul_f64(open / ended.max(1.0));
    let shortest = (elapsed / 4).clamp(FIRST, SHORTEST);
    // The jobs may have waited behind those of others until now, and then end much faster than that.
    let longest = (elapsed / 20).max(SHORTEST).min(LONGEST);
    (left / 4).min(elapsed).max(elapsed / 50).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a batch of `total` jobs is looked at, and how late its end is noticed, if its jobs end evenly between
    /// the seconds `first` and `last`.
    fn looks(total: usize, first: u64, last: u64) -> (usize, Duration) {
        let [first, last] = [first, last].map(Duration::from_secs);
        let (mut elapsed, mut looks) = (Duration::from_secs(2), 1);
        while elapsed < last {
            let done = elapsed.saturating_sub(first).as_secs_f64() / (last - first).as_secs_f64();
            let ended = (total as f64 * done) as usize;
            let counts = Counts { total, queued: total - ended, succeeded: ended, ..Counts::default() };
            elapsed += until_next_look(counts, elapsed);
            looks += 1;
        }
        (looks, elapsed - last)
    }

    #[test]
    fn the_ticket_of_a_batch_whose_last_job_lingers_stays_in_its_queue() {
        let counts = Counts { total: 1_000_000, queued: 1, succeeded: 999_999, ..Counts::default() };
        let (mut elapsed, mut looks) = (Duration::ZERO, 0);
        while elapsed < Duration::from_secs(96 * 3600) {
            elapsed += until_next_look(counts, elapsed);
            looks += 1;
        }
        assert!(looks < 700, "{looks}");
    }

    #[test]
    fn the_end_of_a_batch_of_one_is_noticed_within_two_seconds() {
        for last in 3..=8 {
            let (_, late) = looks(1, last - 1, last);
            assert!(late <= Duration::from_secs(2), "{late:?} after {last} s");
        }
    }

    #[test]
    fn the_end_of_a_batch_is_noticed_soon_with_few_looks() {
        for (total, first, last) in [
            (1, 9, 10),
            (50, 98, 104),
            (1_000, 1, 60),
            (1_000, 5, 60),
            (1_000, 60, 7_200),
            (1_000_000, 600, 4 * 86_400),
        ] {
            let (looks, late) = looks(total, first, last);
            let soon = SHORTEST.max(Duration::from_secs(last) / 20).min(LONGEST);
            assert!(late <= soon && looks < 500, "{total} jobs in {last} s: {looks} looks, {late:?} late");
        }
    }
}
