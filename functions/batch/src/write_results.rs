use serde::Serialize;
use shared::api::{ImageView, JobView, Links};
use shared::aws::{Document, Result, Writer};
use shared::batch::{Counts, Entry, Input};
use shared::batch_file::{LineFault, Position};
use shared::job::{JobError, Status};
use shared::label::CustomId;
use shared::poster::Lettering;
use shared::{Batch, Job, JobId};
use tokio::time::Instant;
use uuid::Uuid;

use crate::App;
use crate::lines::{Lines, Next};
use crate::step::{INDEX_LAG, MARGIN, OTHER_AT_WORK, Step, save};

/// Bounds the memory when the jobs are large.
const LINES_AT_ONCE: usize = 200;

#[derive(Serialize)]
struct ResultLine {
    #[serde(flatten)]
    place: Place,
    custom_id: Option<CustomId>,
    /// Null if the line was skipped, or its job was canceled before it was stored.
    job_id: Option<JobId>,
    /// `invalid` for a line that was skipped.
    status: &'static str,
    image: Option<ResultImage>,
    error: Option<JobError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<LineFault>,
    links: Option<Links>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Index(usize),
    /// The line on which the job begins; null if the file was deleted, or a newer version reads it differently.
    Line(Option<u64>),
}

/// Without presigned URLs, which would soon expire, unlike `links.image`.
#[derive(Serialize)]
struct ResultImage {
    content_type: String,
    bytes: u64,
    width: u32,
    height: u32,
    seed: Option<u32>,
    poster: Option<Lettering>,
}

enum Wanted {
    Job(usize, Option<(u64, Entry)>),
    Skipped(u64, Vec<LineFault>),
}

/// Writes the results, one line for each job or line of the file, in order, and ends the batch. The jobs are read from
/// the table, because its index may lag. If a job has not ended, the batch goes back to watching.
pub(crate) async fn write(app: &App, batch: &Batch, end: Instant) -> Result<Step> {
    let input = batch.input();
    let mut lines = input.map(|input| (input, Lines::from(app, batch.id, input, Position::default())));
    let id = Uuid::new_v4();
    let mut results = app.files.write(batch.id, Document::Results(id));
    let (mut counts, mut index) = (Counts::default(), 0);
    loop {
        let wanted = next_lines(&mut lines, batch, &mut index).await?;
        if wanted.is_empty() {
            break;
        }
        // A million lines take a fraction of an invocation, unless the table or the bucket is slow.
        if Instant::now() + MARGIN >= end {
            results.abandon().await?;
            tracing::error!(batch.id = %batch.id, "cannot write results within one invocation");
            return Ok(Step::Wait(OTHER_AT_WORK));
        }
        match write_lines(app, batch, &wanted, &mut results).await? {
            Some(written) => counts = [counts, written].into_iter().sum(),
            None => {
                results.abandon().await?;
                tracing::info!(batch.id = %batch.id, "a job of a batch has not ended after all");
                return Ok(match save(app, batch.watch_all()).await? {
                    Step::Go(_) => Step::Wait(INDEX_LAG),
                    step => step,
                });
            }
        }
    }
    results.finish().await?;
    save(app, batch.end(counts, id)).await
}

async fn next_lines(lines: &mut Option<(&Input, Lines<'_>)>, batch: &Batch, index: &mut usize) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    while wanted.len() < LINES_AT_ONCE {
        let Some((input, file)) = lines else {
            if *index == batch.total {
                break;
            }
            wanted.push(Wanted::Job(*index, None));
            *index += 1;
            continue;
        };
        match file.next().await? {
            Next::Line(line) => {
                let number = line.number;
                match batch.entry(input, line) {
                    Ok(entry) => {
                        wanted.push(Wanted::Job(*index, Some((number, entry))));
                        *index += 1;
                    }
                    Err(faults) => wanted.push(Wanted::Skipped(number, faults)),
                }
            }
            Next::Replaced => {
                tracing::warn!(batch.id = %batch.id, "the file of a batch is gone, so its results have no line numbers");
                *lines = None;
            }
            Next::End => break,
        }
    }
    Ok(wanted)
}

/// Writes these lines. Returns how many jobs have each status; `None` if one has not ended.
async fn write_lines(app: &App, batch: &Batch, wanted: &[Wanted], results: &mut Writer) -> Result<Option<Counts>> {
    let ids = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Job(index, ..) => Some(JobId::in_batch(batch.id, *index)),
        Wanted::Skipped(..) => None,
    });
    let mut jobs = app.table.get_all(&ids.collect::<Vec<_>>()).await?;
    let missing = batch.status_of_missing(app.clock.now());
    let mut statuses = Vec::new();
    for wanted in wanted {
        let line = match wanted {
            Wanted::Skipped(line, faults) => {
                ResultLine { faults: faults.clone(), ..ResultLine::new(Place::Line(Some(*line)), "invalid") }
            }
            Wanted::Job(index, asked) => {
                let job = jobs.remove(&JobId::in_batch(batch.id, *index));
                let status = job.as_ref().map_or(missing, Job::status);
                if status <= Status::Running {
                    return Ok(None);
                }
                // A newer version with other rules may count the lines differently.
                let is_meant = |entry: &Entry| job.as_ref().is_none_or(|job| job.order == entry.order);
                let asked = asked.as_ref().filter(|(_, entry)| is_meant(entry));
                statuses.push(status);
                let place = match batch.input() {
                    None => Place::Index(*index),
                    Some(_) => Place::Line(asked.map(|(line, _)| *line)),
                };
                let custom_id = asked.and_then(|(_, entry)| entry.custom_id.clone());
                let line = ResultLine { custom_id, ..ResultLine::new(place, status.as_str()) };
                match job.map(|job| JobView::new(&job, &batch.base_url)) {
                    None => line,
                    Some(view) => ResultLine {
                        custom_id: line.custom_id.or(view.custom_id),
                        job_id: Some(view.id),
                        image: view.image.map(ResultImage::from),
                        error: view.error,
                        links: Some(view.links),
                        ..line
                    },
                }
            }
        };
        results.line(&line).await?;
    }
    Ok(Some(Counts::of(statuses)))
}

impl ResultLine {
    fn new(place: Place, status: &'static str) -> Self {
        let (custom_id, job_id, image, error, links) = (None, None, None, None, None);
        Self { place, custom_id, job_id, status, image, error, faults: Vec::new(), links }
    }
}

impl From<ImageView> for ResultImage {
    fn from(image: ImageView) -> Self {
        let ImageView { content_type, bytes, width, height, seed, poster, .. } = image;
        Self { content_type, bytes, width, height, seed, poster }
    }
}
