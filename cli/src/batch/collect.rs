//! Waiting for the parts of a batch, and saving their pictures as they come.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use shared::api::{BatchView, JobView};
use shared::batch::{BatchStatus, Counts};
use shared::job::Status;
use shared::{BatchId, JobId};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use super::journal::Part;
use crate::api::{Api, PAGE};
use crate::failure::Failure;
use crate::jobs::Event;
use crate::manifest::Manifest;
use crate::pictures::{Unfetched, fetch, slug};
use crate::terminal::Terminal;
use crate::watch::{Progress, ended, ticking};

/// What share of a part's jobs must have ended anew before the part is listed again. Each listing costs a request for
/// every hundred jobs.
const SHARE: usize = 10;

/// How often a part that has ended is listed without anything new before its missing jobs count as gone.
const LISTINGS: u32 = 5;

/// How many lines are told of each reason.
const SHOWN: usize = 10;

/// What became of the jobs.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// The group of all parts.
    pub(crate) group: Option<BatchId>,
    /// How many jobs have their picture saved.
    pub(crate) saved: u64,
    /// How many were downloaded by this run.
    pub(crate) downloaded: u64,
    /// How many were painted and could not be downloaded. The same command tries again, and nothing is paid for twice.
    pub(crate) unfetched: u64,
    /// The lines of those that have none and will have none.
    pub(crate) failed: Vec<u64>,
    /// Why they have none, by the code of the reason.
    pub(crate) reasons: BTreeMap<String, Reason>,
}

/// A reason for which jobs have no picture.
#[derive(Debug)]
pub(crate) struct Reason {
    /// The words for it.
    pub(crate) message: String,
    /// How many jobs it is that of.
    pub(crate) jobs: u64,
    /// The lines of the first of them.
    pub(crate) lines: Vec<u64>,
}

/// A part, and what is known of it.
#[derive(Debug)]
struct Open {
    part: Part,
    /// Which jobs are known to have ended: with a saved picture, or without one.
    ended: Vec<bool>,
    /// How often it was listed in vain since it ended.
    listings: u32,
}

impl Open {
    fn new(part: Part) -> Self {
        Self { ended: part.saved.clone(), part, listings: 0 }
    }

    fn known(&self) -> usize {
        self.ended.iter().filter(|&&ended| ended).count()
    }

    fn is_done(&self) -> bool {
        self.ended.iter().all(|&ended| ended)
    }
}

/// Collects the pictures of a batch.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    api: &'a Api,
    terminal: &'a Terminal,
    out: &'a Path,
    at_once: usize,
    lines: u64,
    /// The parts that are not done.
    open: Vec<Open>,
    counts: Counts,
    progress: Progress,
    collected: Collected,
}

impl<'a> Collector<'a> {
    /// A collector for a batch of so many lines, of which `parts` were taken in by earlier runs.
    pub(crate) fn new(
        api: &'a Api,
        terminal: &'a Terminal,
        out: &'a Path,
        at_once: usize,
        lines: u64,
        parts: Vec<Part>,
    ) -> Self {
        let mut collector = Self {
            api,
            terminal,
            out,
            at_once,
            lines,
            open: Vec::new(),
            counts: Counts::default(),
            progress: Progress::default(),
            collected: Collected::default(),
        };
        parts.into_iter().for_each(|part| collector.add(part));
        collector
    }

    fn add(&mut self, part: Part) {
        self.collected.group = Some(part.group);
        let open = Open::new(part);
        self.collected.saved += open.known() as u64;
        if !open.is_done() {
            self.open.push(open);
        }
    }

    /// Waits until every job has ended and every picture is saved. `parts` brings what is taken in meanwhile, and closes
    /// when that is all.
    pub(crate) async fn run(
        mut self,
        mut parts: UnboundedReceiver<Part>,
        manifest: &mut Manifest,
    ) -> Result<Collected, Failure> {
        let mut submitting = true;
        loop {
            if self.open.is_empty() {
                match parts.recv().await {
                    Some(part) => self.add(part),
                    None => return Ok(self.collected),
                }
                continue;
            }
            let pause = self.look(manifest).await?;
            self.open.retain(|open| !open.is_done());
            if self.open.is_empty() {
                continue;
            }
            let end = Instant::now() + pause;
            while submitting {
                match ticking(timeout_at(end, parts.recv()), || self.show()).await {
                    Ok(Some(part)) => self.add(part),
                    Ok(None) => submitting = false,
                    Err(_) => break,
                }
            }
            ticking(tokio::time::sleep_until(end), || self.show()).await;
        }
    }

    /// Looks how the whole batch stands, then at the parts in which something has ended, and tells how long to wait
    /// before the next look.
    async fn look(&mut self, manifest: &mut Manifest) -> Result<Duration, Failure> {
        let Some(group) = self.collected.group else { return Ok(Duration::ZERO) };
        let answer = self.api.batch(&group.to_string()).await?;
        self.counts = answer.value.counts;
        self.progress.learn(&self.counts);
        self.show();
        let mut pause = answer.retry_after;
        let over = answer.value.status != BatchStatus::InProgress;
        let known = (self.collected.saved + self.collected.unfetched) as usize + self.collected.failed.len();
        let mut unseen = ended(&self.counts).saturating_sub(known);
        for place in 0..self.open.len() {
            if unseen == 0 && !over {
                break;
            }
            let part = match self.api.batch(&self.open[place].part.id.to_string()).await {
                Ok(answer) => answer.value,
                Err(Failure::Refused(problem)) if problem.status == 404 => {
                    // Its time is over, and with it its jobs.
                    self.give_up(place);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let open = &self.open[place];
            let all = part.status != BatchStatus::InProgress;
            let new = ended(&part.counts).saturating_sub(open.known());
            unseen = unseen.saturating_sub(new);
            if new >= (open.part.jobs() / SHARE).max(1) || (all && !open.is_done()) {
                self.list(place, &part, manifest).await?;
            }
            if all && !self.open[place].is_done() {
                // The list lags behind the counts by a moment.
                pause = pause.max(Some(Duration::from_secs(1)));
            }
        }
        Ok(self.api.pause(pause))
    }

    /// Lists the jobs of a part, and saves what is new.
    async fn list(&mut self, place: usize, part: &BatchView, manifest: &mut Manifest) -> Result<(), Failure> {
        let path = format!("/batches/{}/jobs", part.id);
        let jobs = self.open[place].part.jobs();
        let places: HashMap<JobId, usize> = (0..jobs).map(|index| (JobId::in_batch(part.id, index), index)).collect();
        let before = self.open[place].known();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.api.jobs(&path, None, PAGE, cursor.as_deref()).await?;
            let mut to_fetch = Vec::new();
            for job in page.jobs {
                let Some(&index) = places.get(&job.id) else { continue };
                if self.open[place].ended[index] {
                    continue;
                }
                match job.status {
                    Status::Queued | Status::Running => {}
                    Status::Succeeded => to_fetch.push((index, job)),
                    Status::Failed | Status::Canceled => {
                        let error = job.error.as_ref();
                        let code = error.map_or("canceled", |error| error.code.as_str());
                        let message = error.map_or("It was canceled.", |error| error.message.as_str());
                        self.fail(place, index, &job, code, message)?;
                    }
                }
            }
            self.fetch(place, to_fetch, manifest).await?;
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let open = &mut self.open[place];
        if part.status != BatchStatus::InProgress && open.known() == before {
            open.listings += 1;
            if open.listings >= LISTINGS {
                self.give_up(place);
            }
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        place: usize,
        jobs: Vec<(usize, JobView)>,
        manifest: &mut Manifest,
    ) -> Result<(), Failure> {
        let (api, out) = (self.api, self.out);
        let fetches: Vec<_> = jobs
            .into_iter()
            .map(|(index, job)| {
                let line = self.open[place].part.line_of(index);
                async move {
                    let name = format!("{:06}-{}", line.unwrap_or_default(), slug(&job));
                    let fetched = fetch(api, &job, out, &name, line).await;
                    (index, job, fetched)
                }
            })
            .collect();
        let mut fetched = stream::iter(fetches).buffer_unordered(self.at_once);
        while let Some((index, job, picture)) = fetched.next().await {
            let picture = match picture {
                Ok(picture) => picture.keep(out, manifest)?,
                Err(Unfetched::Picture(why)) => {
                    self.open[place].ended[index] = true;
                    self.collected.unfetched += 1;
                    let message = format!("The picture: {why}.");
                    let error = json!({ "error": { "code": "picture_unavailable", "message": message } });
                    self.tell(place, index, &job, error)?;
                    continue;
                }
                Err(Unfetched::All(failure)) => return Err(failure),
            };
            self.open[place].ended[index] = true;
            self.collected.saved += 1;
            self.collected.downloaded += 1;
            let fields = json!({
                "file": out.join(&picture.file), "bytes": picture.bytes, "sha256": picture.sha256
            });
            self.tell(place, index, &job, fields)?;
            self.show();
        }
        Ok(())
    }

    fn fail(&mut self, place: usize, index: usize, job: &JobView, code: &str, message: &str) -> Result<(), Failure> {
        self.open[place].ended[index] = true;
        let line = self.open[place].part.line_of(index).unwrap_or_default();
        self.count_failure(line, code, message);
        self.tell(place, index, job, json!({ "error": { "code": code, "message": message } }))
    }

    fn count_failure(&mut self, line: u64, code: &str, message: &str) {
        self.collected.failed.push(line);
        let new = || Reason { message: message.to_owned(), jobs: 0, lines: Vec::new() };
        let reason = self.collected.reasons.entry(code.to_owned()).or_insert_with(new);
        reason.jobs += 1;
        if reason.lines.len() < SHOWN {
            reason.lines.push(line);
        }
    }

    /// Counts the jobs that a part lists no more as failed: their records were deleted.
    fn give_up(&mut self, place: usize) {
        let open = &mut self.open[place];
        let missing: Vec<_> = (0..open.part.jobs()).filter(|&index| !open.ended[index]).collect();
        open.ended.fill(true);
        let lines: Vec<_> = missing.into_iter().filter_map(|index| open.part.line_of(index)).collect();
        for line in lines {
            self.count_failure(line, "not_found", "The service has no such job any more.");
        }
    }

    fn tell(&self, place: usize, index: usize, job: &JobView, more: Value) -> Result<(), Failure> {
        let mut value = json!({
            "line": self.open[place].part.line_of(index),
            "custom_id": job.custom_id,
            "job": job.id,
            "status": job.status,
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        self.terminal.data(&Event { event: "poster", value })
    }

    fn show(&self) {
        let saved = Some(self.collected.saved);
        self.terminal.status(self.progress.line(&self.counts, Some(self.lines), saved, self.terminal.columns()));
    }
}
