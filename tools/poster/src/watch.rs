use std::time::{Duration, Instant};

use shared::api::{BatchView, JobView};
use shared::batch::BatchStatus;
use shared::job::Status;

use crate::api::{Answer, Api, Found};
use crate::arguments::Ids;
use crate::failure::{Failure, Outcome};
use crate::ids::for_each_found;
use crate::progress::{Progress, counts_text, ticking};
use crate::terminal::columns;
use crate::words::{human_duration, status_text, thousands, title_warning};

/// The longest wait that the service accepts in `Prefer: wait`.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Waits for jobs and batches to end, batches first.
pub(crate) async fn run(api: &Api, ids: &Ids) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    let (mut jobs, mut batches) = (Vec::new(), Vec::new());
    let mut outcome = for_each_found(api, ids, async |_, found| {
        match found {
            Found::Job(job) => jobs.push(job.id.to_string()),
            Found::Batch(answer) => batches.push(*answer),
        }
        Ok(())
    })
    .await?;
    if wait_for_batches(api, batches).await? == Outcome::SomeFailed {
        outcome = Outcome::SomeFailed;
    }
    for id in jobs {
        let job = wait_for_job(api, &id, |_| false).await?;
        let why = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
        terminal.println(format!("job {id}: {}{why}", job.status));
        if let Some(warning) = title_warning(&job) {
            terminal.println(format!("  warning: {warning}"));
        }
        terminal.data(&job)?;
        if job.status != Status::Succeeded {
            outcome = Outcome::SomeFailed;
        }
    }
    Ok(outcome)
}

/// Waits until all batches have ended, and shows the sum of their counts meanwhile.
async fn wait_for_batches(api: &Api, batches: Vec<Answer<BatchView>>) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    // Each batch with the time of its next poll.
    let due = |answer: Answer<BatchView>| (answer.value, Instant::now() + api.pause(answer.retry_after));
    let mut batches: Vec<_> = batches.into_iter().map(due).collect();
    let mut progress = Progress::default();
    loop {
        let counts = batches.iter().map(|(batch, _)| batch.counts).sum();
        // Somebody may upload the file of a batch in the meantime.
        let is_awaited = |status: BatchStatus| status.is_active() || status == BatchStatus::AwaitingInput;
        let waiting = batches.iter_mut().filter(|(batch, _)| is_awaited(batch.status));
        let Some(next) = waiting.min_by_key(|(_, due)| *due) else { break };
        progress.learn(&counts);
        let show = || match counts.total {
            0 if next.0.status == BatchStatus::AwaitingInput => terminal.status("the service awaits the file"),
            0 => terminal.status("the service checks the file"),
            _ => terminal.status(progress.line(&counts, None, None, columns())),
        };
        ticking(tokio::time::sleep_until(next.1.into()), show).await;
        *next = due(api.batch(&next.0.id.to_string()).await?);
    }
    for (batch, _) in &batches {
        let counts = if batch.counts.total > 0 { format!(": {}", counts_text(&batch.counts)) } else { String::new() };
        terminal.println(format!("batch {}: {}{counts}", batch.id, status_text(batch.status)));
        terminal.data(batch)?;
    }
    let done = batches.iter().all(|(batch, _)| batch.status == BatchStatus::Completed);
    Ok(if done { Outcome::AllDone } else { Outcome::SomeFailed })
}

/// Waits until the job has ended, or `enough` says not to wait any longer.
pub(crate) async fn wait_for_job(api: &Api, id: &str, enough: impl Fn(&JobView) -> bool) -> Result<JobView, Failure> {
    let began = Instant::now();
    let mut wait = Duration::from_secs(1);
    loop {
        let asked = Instant::now();
        let Answer { value: job, retry_after } = api.job(id, wait).await?;
        if job.finished_at.is_some() || enough(&job) {
            return Ok(job);
        }
        let waits = job.last_error.as_ref().map(|error| format!(" ({})", error.code)).unwrap_or_default();
        let ahead = job.queue.as_ref().filter(|queue| queue.ahead > 0);
        let ahead = ahead.map(|queue| format!(", about {} before it", thousands(queue.ahead))).unwrap_or_default();
        let what = if job.status == Status::Running { "painting" } else { "queued" };
        api.terminal.status(format!("{what}{ahead}{waits}  {}", human_duration(began.elapsed())));
        // A service that does not hold its answers must not be polled without a pause.
        if asked.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(api.pause(retry_after)).await;
        }
        wait = (wait * 2).min(MAX_WAIT);
    }
}
