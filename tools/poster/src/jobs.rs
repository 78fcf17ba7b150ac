//! Listing, showing, canceling and retrying.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::Timestamp;
use shared::api::{BatchView, ImageView, JobView};
use shared::batch::BatchStatus;

use crate::api::{Api, Found, PAGE};
use crate::arguments::{Ids, List};
use crate::failure::{Failure, Outcome};
use crate::ids::{for_each_found, resolve_id};
use crate::progress::counts_text;
use crate::terminal::Terminal;
use crate::words::{count_of, ellipsize, faults_text, status_text, thousands, title_warning};

/// In a terminal of at most so many columns, a listed job takes two lines.
const NARROW: usize = 75;

pub(crate) async fn list(api: &Api, list: &List) -> Result<Outcome, Failure> {
    if list.batches {
        return list_pages(api, list, "/batches", batch_row, "jobs, name").await;
    }
    let mut path = match &list.batch {
        None => "/jobs".to_owned(),
        Some(word) => format!("/batches/{}/jobs", resolve_id(word)?),
    };
    if let Some(status) = list.status {
        path = format!("{path}?status={status}");
    }
    list_pages(api, list, &path, row, "prompt").await
}

async fn list_pages<T: Serialize + DeserializeOwned>(
    api: &Api,
    list: &List,
    path: &str,
    row: fn(&T, usize) -> String,
    last_column: &str,
) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    let limit = if list.all { usize::MAX } else { list.limit };
    let columns = terminal.columns_of_output();
    let (mut listed, mut cursor) = (0, None);
    while listed < limit {
        let page = api.page::<T>(path, (limit - listed).min(PAGE), cursor.as_deref()).await?;
        for item in page.items.iter().take(limit - listed) {
            if listed == 0 && columns > NARROW {
                terminal.show(format!("{:36}  {:9}  {:11}  {last_column}", "id", "status", "created UTC"))?;
            }
            listed += 1;
            terminal.show(row(item, columns))?;
            terminal.data(item)?;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if listed == 0 {
        terminal.println(if list.batches { "no batches" } else { "no such jobs" });
    } else if cursor.is_some() {
        terminal.println("there are more; --all lists them");
    }
    Ok(Outcome::AllDone)
}

fn row(job: &JobView, columns: usize) -> String {
    row_of(&job.id, job.status.as_str(), job.created_at, job.prompt.as_str(), columns)
}

fn batch_row(batch: &BatchView, columns: usize) -> String {
    let jobs = count_of(batch.counts.total as u64, "job");
    let name = batch.name.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    row_of(&batch.id, &status_text(batch.status), batch.created_at, &format!("{jobs}{name}"), columns)
}

fn row_of(id: &dyn Display, status: &str, created_at: Timestamp, text: &str, columns: usize) -> String {
    let created = created_at.to_string();
    let created = created.get(5..16).unwrap_or(&created).replace('T', " ");
    let (gap, taken) = if columns > NARROW { ("  ", 54) } else { ("\n  ", 18) };
    let text = ellipsize(text, columns.saturating_sub(taken + status.len().max(9)).max(12));
    format!("{id}{gap}{status:9}  {created:11}  {text}")
}

pub(crate) async fn get(api: &Api, ids: &Ids) -> Result<Outcome, Failure> {
    for_each_found(api, ids, async |_, found| match found {
        Found::Job(job) => show_job(&api.terminal, &job),
        Found::Batch(batch) => show_batch(&api.terminal, &batch.value),
    })
    .await
}

/// Cancels or retries jobs, or jobs of batches: `action` is `cancel` or `retry`.
pub(crate) async fn act(api: &Api, ids: &Ids, action: &str) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    let mut refused = false;
    let found = for_each_found(api, ids, async |id, found| {
        let acted = match found {
            Found::Job(_) => {
                let job = api.post(&format!("/jobs/{id}/{action}"), "", None).await;
                job.map(|job| show_job(terminal, &job))
            }
            Found::Batch(_) => {
                let batch = api.post(&format!("/batches/{id}/{action}"), "", None).await;
                batch.map(|batch| show_batch(terminal, &batch))
            }
        };
        match acted {
            // A job that has ended does not keep the command from the others.
            Err(Failure::Refused(problem)) if problem.status == 409 => {
                terminal.println(format!("{id}: {}", problem.detail));
                refused = true;
                Ok(())
            }
            acted => acted?,
        }
    })
    .await?;
    Ok(if refused { Outcome::SomeFailed } else { found })
}

fn show_job(terminal: &Terminal, job: &JobView) -> Result<(), Failure> {
    let width = terminal.columns_of_output().saturating_sub(12);
    let cut = |text: &str| ellipsize(text, width);
    let picture = |image: &ImageView| {
        let ImageView { width, height, content_type, bytes, .. } = image;
        format!("{width} × {height}, {content_type}, {} KB", bytes.div_ceil(1000))
    };
    terminal.show(format!("job {}: {}", job.id, job.status))?;
    show_fields(
        terminal,
        [
            ("prompt", Some(cut(job.prompt.as_str()))),
            ("custom id", job.custom_id.as_ref().map(|id| cut(id.as_str()))),
            ("created", Some(job.created_at.to_string())),
            ("batch", job.batch_id.map(|batch| batch.to_string())),
            ("webhook", job.webhook.as_ref().map(|webhook| cut(webhook.url.as_str()))),
            ("queue", job.queue.as_ref().map(|queue| format!("about {} before it", thousands(queue.ahead)))),
            ("picture", job.image.as_ref().map(picture)),
            ("link", job.image.as_ref().and(job.links.image.clone())),
            ("warning", title_warning(job).map(str::to_owned)),
            ("error", job.error.as_ref().map(|error| format!("{}: {}", error.code, error.message))),
            ("waiting", job.last_error.as_ref().map(|error| format!("{}: {}", error.code, error.message))),
        ],
    )?;
    terminal.data(job)
}

fn show_batch(terminal: &Terminal, batch: &BatchView) -> Result<(), Failure> {
    let progress = batch.progress.as_ref().filter(|_| batch.status == BatchStatus::Checking);
    terminal.show(format!("batch {}: {}", batch.id, status_text(batch.status)))?;
    show_fields(
        terminal,
        [
            ("name", batch.name.clone()),
            ("lines", progress.map(|progress| format!("{} checked", thousands(progress.checked_lines)))),
            ("webhook", batch.webhook.as_ref().map(|webhook| webhook.url.as_str().to_owned())),
            ("jobs", (batch.counts.total > 0).then(|| counts_text(&batch.counts))),
        ],
    )?;
    for fault in batch.faults.iter().flat_map(|faults| &faults.first) {
        let text = faults_text([(&*fault.pointer, &*fault.detail)]);
        show_fields(terminal, [("fault", Some(format!("line {}: {text}", fault.line)))])?;
    }
    show_fields(terminal, [("created", Some(batch.created_at.to_string()))])?;
    if batch.status.is_active() {
        terminal.println(format!("`poster watch {}` waits for it", batch.id));
    }
    terminal.data(batch)
}

fn show_fields<const N: usize>(terminal: &Terminal, fields: [(&str, Option<String>); N]) -> Result<(), Failure> {
    let mut known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.try_for_each(|(name, value)| terminal.show(format!("  {name:9} {value}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use shared::job::Terms;
    use shared::order::{Model, Order};
    use shared::{Job, JobId, Owner, Timestamp};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn a_job_of_a_list_fits_its_terminal_and_is_whole_in_a_pipe() {
        let prompt = "A noir detective thriller in 1940s Venice, with 月面の強盗団, and more than a terminal shows";
        let order = Order::parse(json!({ "prompt": prompt }), "", Model::Core).expect("an order");
        let (now, day) = (Timestamp::from_ms(0), Duration::from_secs(86_400));
        let job = JobView::new(
            &Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: day, retention: day }),
            "",
        );
        for (columns, lines) in [(40, 2), (60, 2), (80, 1), (120, 1)] {
            let row = row(&job, columns);
            assert_eq!(row.lines().count(), lines, "{row}");
            assert!(row.lines().all(|line| line.width() <= columns), "{row}");
        }
        assert!(row(&job, usize::MAX).ends_with(prompt));
    }
}
