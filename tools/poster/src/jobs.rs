//! Listing, showing, canceling and retrying.

use std::fmt::Display;

use serde::Serialize;
use shared::Timestamp;
use shared::api::{BatchView, BatchesView, JobView, JobsView};
use shared::batch::BatchStatus;
use shared::job::Status;

use crate::api::{Api, Found, PAGE};
use crate::arguments::{Ids, List};
use crate::failure::{Failure, Outcome};
use crate::ids::{for_each_found, resolve_id};
use crate::progress::counts_text;
use crate::terminal::Terminal;
use crate::words::{count_of, ellipsize, faults_text, status_text, thousands, title_warning};

/// In a terminal of at most so many columns, a listed job takes two lines.
const NARROW: usize = 75;

pub(crate) async fn list(api: &Api, terminal: &Terminal, list: &List) -> Result<Outcome, Failure> {
    if list.batches {
        let page = async |limit, cursor: Option<String>| {
            let page: BatchesView = api.page("/batches", limit, cursor.as_deref()).await?;
            Ok((page.batches, page.next_cursor))
        };
        return list_pages(terminal, list, page, batch_row, "jobs, name").await;
    }
    let mut path = match &list.batch {
        None => "/jobs".to_owned(),
        Some(word) => format!("/batches/{}/jobs", resolve_id(word)?),
    };
    if let Some(status) = list.status {
        path = format!("{path}?status={status}");
    }
    let page = async |limit, cursor: Option<String>| {
        let page: JobsView = api.page(&path, limit, cursor.as_deref()).await?;
        Ok((page.jobs, page.next_cursor))
    };
    list_pages(terminal, list, page, row, "prompt").await
}

/// Shows what `page` returns for a limit and a cursor, until the list ends or the command's own limit is reached.
async fn list_pages<T: Serialize>(
    terminal: &Terminal,
    list: &List,
    page: impl AsyncFn(usize, Option<String>) -> Result<(Vec<T>, Option<String>), Failure>,
    row: fn(&T, usize) -> String,
    last_column: &str,
) -> Result<Outcome, Failure> {
    let limit = if list.all { usize::MAX } else { list.limit };
    let columns = terminal.columns_of_output();
    let (mut listed, mut cursor) = (0, None);
    while listed < limit {
        let (items, next) = page((limit - listed).min(PAGE), cursor).await?;
        for item in items.iter().take(limit - listed) {
            if listed == 0 && columns > NARROW {
                terminal.show(format!("{:36}  {:9}  {:11}  {last_column}", "id", "status", "created UTC"))?;
            }
            listed += 1;
            terminal.show(row(item, columns))?;
            terminal.data(item)?;
        }
        cursor = next;
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

pub(crate) async fn get(api: &Api, terminal: &Terminal, ids: &Ids) -> Result<Outcome, Failure> {
    for_each_found(api, terminal, ids, async |_, found| {
        match found {
            Found::Job(job) => show_job(terminal, &job)?,
            Found::Batch(batch) => show_batch(terminal, &batch.value)?,
        }
        Ok(Outcome::AllDone)
    })
    .await
}

/// Cancels or retries jobs, or jobs of batches: `action` is `cancel` or `retry`.
pub(crate) async fn act(api: &Api, terminal: &Terminal, ids: &Ids, action: &str) -> Result<Outcome, Failure> {
    for_each_found(api, terminal, ids, async |id, found| {
        let acted = match found {
            Found::Job(_) => api.act_on_job(id, action).await.map(|job| show_job(terminal, &job)),
            Found::Batch(_) => api.act_on_batch(id, action).await.map(|batch| show_batch(terminal, &batch)),
        };
        match acted {
            Ok(shown) => shown.map(|()| Outcome::AllDone),
            // A job that has ended does not keep the command from the others.
            Err(Failure::Refused(problem)) if problem.status == 409 => {
                terminal.println(format!("{id}: {}", problem.detail));
                Ok(Outcome::SomeFailed)
            }
            Err(failure) => Err(failure),
        }
    })
    .await
}

fn show_job(terminal: &Terminal, job: &JobView) -> Result<(), Failure> {
    let width = terminal.columns_of_output().saturating_sub(12);
    let field = |name, value: &dyn Display| show_field(terminal, name, value);
    terminal.show(format!("job {}: {}", job.id, job.status))?;
    field("prompt", &ellipsize(job.prompt.as_str(), width))?;
    if let Some(id) = &job.custom_id {
        field("custom id", &ellipsize(id.as_str(), width))?;
    }
    field("created", &job.created_at)?;
    if let Some(batch) = job.batch_id {
        field("batch", &batch)?;
    }
    if let Some(webhook) = &job.webhook {
        field("webhook", &ellipsize(webhook.url.as_str(), width))?;
    }
    if let Some(queue) = &job.queue {
        field("queue", &format_args!("about {} before it", thousands(queue.ahead)))?;
    }
    if let Some(image) = &job.image {
        let (kind, kilobytes) = (&image.content_type, image.bytes.div_ceil(1000));
        field("picture", &format_args!("{} × {}, {kind}, {kilobytes} KB", image.width, image.height))?;
        if let Some(link) = &job.links.image {
            field("link", link)?;
        }
    }
    if let Some(warning) = title_warning(job) {
        field("warning", &warning)?;
    }
    if let Some(error) = &job.error {
        field("error", &format_args!("{}: {}", error.code.as_str(), error.message))?;
    }
    if let (Some(error), Status::Queued | Status::Running) = (&job.last_error, job.status) {
        field("waiting", &format_args!("{}: {}", error.code.as_str(), error.message))?;
    }
    terminal.data(job)
}

fn show_batch(terminal: &Terminal, batch: &BatchView) -> Result<(), Failure> {
    let field = |name, value: &dyn Display| show_field(terminal, name, value);
    terminal.show(format!("batch {}: {}", batch.id, status_text(batch.status)))?;
    if let Some(name) = &batch.name {
        field("name", name)?;
    }
    if let Some(progress) = batch.progress.as_ref().filter(|_| batch.status == BatchStatus::Checking) {
        field("lines", &format_args!("{} checked", thousands(progress.checked_lines)))?;
    }
    if let Some(webhook) = &batch.webhook {
        field("webhook", &webhook.url.as_str())?;
    }
    if batch.counts.total > 0 {
        field("jobs", &counts_text(&batch.counts))?;
    }
    for fault in batch.faults.iter().flat_map(|faults| &faults.first) {
        let text = faults_text([(&*fault.pointer, &*fault.detail)]);
        field("fault", &format_args!("line {}: {text}", fault.line))?;
    }
    field("created", &batch.created_at)?;
    if batch.status.is_active() {
        terminal.println(format!("`poster watch {}` waits for it", batch.id));
    }
    terminal.data(batch)
}

fn show_field(terminal: &Terminal, name: &str, value: &dyn Display) -> Result<(), Failure> {
    terminal.show(format!("  {name:9} {value}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use shared::order::{Model, Order};
    use shared::{Job, JobId, Owner, Timestamp};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn a_job_of_a_list_fits_its_terminal_and_is_whole_in_a_pipe() {
        let prompt = "A noir detective thriller in 1940s Venice, with 月面の強盗団, and more than a terminal shows";
        let order = Order::parse(json!({ "prompt": prompt }), "", Model::Core).expect("an order");
        let (now, day) = (Timestamp::from_ms(0), Duration::from_secs(86_400));
        let job = JobView::new(&Job::new(JobId::new(), Owner::new("alice"), order, now, day, day), "");
        for (columns, lines) in [(40, 2), (60, 2), (80, 1), (120, 1)] {
            let row = row(&job, columns);
            assert_eq!(row.lines().count(), lines, "{row}");
            assert!(row.lines().all(|line| line.width() <= columns), "{row}");
        }
        assert!(row(&job, usize::MAX).ends_with(prompt));
    }
}
