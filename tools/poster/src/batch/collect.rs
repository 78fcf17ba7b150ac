//! Waiting for the parts of a batch, and saving their pictures as they are painted.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use shared::api::JobView;
use shared::batch::{BatchStatus, Counts};
use shared::job::Status;
use shared::{BatchId, JobId};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use crate::api::{Api, PAGE};
use crate::failure::{Failure, if_found};
use crate::journal::Part;
use crate::manifest::Manifest;
use crate::pictures::{Unfetched, fetch, name_of};
use crate::progress::{Progress, ended, ticking};
use crate::terminal::{Event, Terminal};
use crate::words::title_warning;

/// A part is listed again once a tenth of its jobs have newly ended: each listing costs a request for every hundred jobs.
const SHARE: usize = 10;

/// After so many listings without news, the missing jobs of a part that has ended are asked for one by one.
const LISTINGS: u32 = 5;

/// A group in which nothing ends, behind another one, is polled up to so many times less often than the service says.
const SLOWEST: u32 = 8;

/// How many line numbers a reason shows.
const SHOWN: usize = 10;

/// The results of a batch.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) groups: Vec<BatchId>,
    /// The groups with failures that can be retried.
    pub(crate) to_retry: Vec<BatchId>,
    /// How many jobs have their picture saved.
    pub(crate) saved: u64,
    /// How many of these this run downloaded.
    pub(crate) downloaded: u64,
    /// How many pictures were painted but could not be downloaded. The same command tries again at no cost.
    pub(crate) unfetched: u64,
    /// The lines of the jobs that failed or were canceled.
    pub(crate) failed: Vec<u64>,
    /// Why they failed, by error code.
    pub(crate) reasons: BTreeMap<String, Reason>,
    /// The lines whose posters this run downloaded and whose titles are too small to read.
    pub(crate) small_titles: Lines,
}

impl Tally {
    fn add_failure(&mut self, line: u64, code: &str, message: &str) {
        self.failed.push(line);
        let new = || Reason { message: message.to_owned(), lines: Lines::default() };
        self.reasons.entry(code.to_owned()).or_insert_with(new).lines.add(line);
    }
}

/// Why jobs failed.
#[derive(Debug)]
pub(crate) struct Reason {
    /// The message of the first of them.
    pub(crate) message: String,
    pub(crate) lines: Lines,
}

/// Lines of the input, of which only the first are shown.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) count: u64,
    pub(crate) first: Vec<u64>,
}

impl Lines {
    fn add(&mut self, line: u64) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(line);
        }
    }
}

#[derive(Debug)]
struct Group {
    id: BatchId,
    /// Its parts that have unfinished jobs.
    parts: Vec<OpenPart>,
    /// How many jobs its parts have.
    jobs: usize,
    /// How many of these are known to have succeeded.
    succeeded: usize,
    failed: usize,
    to_retry: bool,
    /// The counts of the last poll.
    seen: Option<Counts>,
    polled_at: Instant,
    pause: Duration,
    /// How many times longer to wait while an earlier group is unfinished.
    slowness: u32,
}

/// A part with unfinished jobs.
#[derive(Debug)]
struct OpenPart {
    part: Part,
    /// How often it was listed without news since it ended.
    listings: u32,
}

impl OpenPart {
    fn known(&self) -> usize {
        self.part.ended.iter().filter(|&&ended| ended).count()
    }

    fn is_done(&self) -> bool {
        self.part.ended.iter().all(|&ended| ended)
    }

    /// The indexes of the jobs that are not known to have ended.
    fn unfinished(&self) -> Vec<usize> {
        (0..self.part.jobs()).filter(|&index| !self.part.ended[index]).collect()
    }
}

impl Group {
    fn new(id: BatchId) -> Self {
        let (parts, polled_at, pause) = (Vec::new(), Instant::now(), Duration::ZERO);
        let (jobs, succeeded, failed, to_retry, seen, slowness) = (0, 0, 0, false, None, 1);
        Self { id, parts, jobs, succeeded, failed, to_retry, seen, polled_at, pause, slowness }
    }

    /// The counts of its jobs: those of the last poll, together with the jobs that have ended since.
    fn counts(&self) -> Counts {
        let seen = self.seen.unwrap_or_default();
        let total = seen.total.max(self.jobs);
        let succeeded = seen.succeeded.max(self.succeeded);
        let failed = seen.failed.max(self.failed.saturating_sub(seen.canceled));
        let left = total.saturating_sub(succeeded + failed + seen.canceled);
        let running = seen.running.min(left);
        Counts { total, queued: left - running, running, succeeded, failed, canceled: seen.canceled }
    }
}

#[derive(Debug)]
pub(crate) struct Collector<'a> {
    api: &'a Api,
    terminal: &'a Terminal,
    out: &'a Path,
    manifest: &'a mut Manifest,
    at_once: usize,
    lines: u64,
    /// The groups, in the order of the input.
    groups: Vec<Group>,
    progress: Progress,
    tally: Tally,
}

impl<'a> Collector<'a> {
    /// A collector for a batch of `lines` jobs, of which earlier runs submitted `parts`. It downloads `at_once` pictures
    /// at once.
    pub(crate) fn new(
        api: &'a Api,
        terminal: &'a Terminal,
        (out, manifest): (&'a Path, &'a mut Manifest),
        at_once: usize,
        lines: u64,
        parts: Vec<Part>,
    ) -> Self {
        let (groups, progress, tally) = (Vec::new(), Progress::default(), Tally::default());
        let mut collector = Self { api, terminal, out, manifest, at_once, lines, groups, progress, tally };
        parts.into_iter().for_each(|part| collector.add(part));
        collector
    }

    fn add(&mut self, part: Part) {
        let place = self.groups.iter().position(|group| group.id == part.group).unwrap_or_else(|| {
            self.groups.push(Group::new(part.group));
            self.groups.len() - 1
        });
        let open = OpenPart { part, listings: 0 };
        self.tally.saved += open.known() as u64;
        let group = &mut self.groups[place];
        group.jobs += open.part.jobs();
        group.succeeded += open.known();
        if !open.is_done() {
            group.parts.push(open);
        }
    }

    /// Waits until every job has ended and every picture is saved. `parts` delivers the parts that are submitted
    /// meanwhile, and closes after the last.
    pub(crate) async fn run(mut self, mut parts: UnboundedReceiver<Part>) -> Result<Tally, Failure> {
        let mut submitting = true;
        loop {
            let Some((place, at)) = self.next() else {
                match parts.recv().await {
                    Some(part) => self.add(part),
                    None => break,
                }
                continue;
            };
            if submitting {
                match ticking(timeout_at(at, parts.recv()), || self.show()).await {
                    Ok(Some(part)) => {
                        self.add(part);
                        continue;
                    }
                    Ok(None) => submitting = false,
                    Err(_) => {}
                }
            }
            ticking(tokio::time::sleep_until(at), || self.show()).await;
            self.poll(place).await?;
        }
        let groups = self.groups.iter().map(|group| group.id).collect();
        let to_retry = self.groups.iter().filter(|group| group.to_retry).map(|group| group.id).collect();
        Ok(Tally { groups, to_retry, ..self.tally })
    }

    /// The unfinished group that is to be polled next, and when.
    fn next(&self) -> Option<(usize, Instant)> {
        let unfinished = self.groups.iter().enumerate().filter(|(_, group)| !group.parts.is_empty());
        let due = unfinished.enumerate().map(|(before, (place, group))| {
            // Jobs are painted about in order, so a group behind another one may wait for long.
            (place, group.polled_at + if before == 0 { group.pause } else { group.pause * group.slowness })
        });
        due.min_by_key(|(_, due)| *due)
    }

    /// Polls a group and those of its parts in which jobs have ended.
    async fn poll(&mut self, place: usize) -> Result<(), Failure> {
        let mut parts = std::mem::take(&mut self.groups[place].parts);
        let Some(answer) = if_found(self.api.batch(&self.groups[place].id.to_string()).await)? else {
            // Its retention has ended, and that of its parts. The other groups continue.
            parts.iter_mut().for_each(|open| self.give_up(place, open));
            return Ok(());
        };
        let (counts, over) = (answer.value.counts, answer.value.status != BatchStatus::InProgress);
        let before = self.groups[place].seen.replace(counts).unwrap_or_default();
        if self.groups.iter().all(|group| group.parts.is_empty() || group.seen.is_some()) {
            self.progress.learn(&self.counts());
        }
        self.show();
        let mut pause = answer.retry_after;
        let known = self.groups[place].succeeded + self.groups[place].failed;
        let mut unseen = ended(&counts).saturating_sub(known);
        for open in &mut parts {
            if unseen == 0 && !over {
                break;
            }
            let Some(answer) = if_found(self.api.batch(&open.part.id.to_string()).await)? else {
                self.give_up(place, open);
                continue;
            };
            let over = answer.value.status != BatchStatus::InProgress;
            let new = ended(&answer.value.counts).saturating_sub(open.known());
            unseen = unseen.saturating_sub(new);
            if new >= (open.part.jobs() / SHARE).max(1) || (over && !open.is_done()) {
                self.list(place, open, over).await?;
            }
            if over && !open.is_done() {
                // The list lags behind the counts by a moment.
                pause = pause.max(Some(Duration::from_secs(1)));
            }
        }
        parts.retain(|open| !open.is_done());
        let group = &mut self.groups[place];
        let unchanged = ended(&counts) == ended(&before);
        group.parts = parts;
        group.slowness = if unchanged { (group.slowness * 2).min(SLOWEST) } else { 1 };
        (group.polled_at, group.pause) = (Instant::now(), self.api.pause(pause));
        Ok(())
    }

    /// Lists the jobs of a part, and saves the new pictures.
    async fn list(&mut self, place: usize, open: &mut OpenPart, over: bool) -> Result<(), Failure> {
        let id = open.part.id;
        let path = format!("/batches/{id}/jobs");
        let indexes: HashMap<_, _> = open.unfinished().into_iter().map(|i| (JobId::in_batch(id, i), i)).collect();
        let before = open.known();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.api.jobs(&path, None, PAGE, cursor.as_deref()).await?;
            let mut succeeded = Vec::new();
            for job in page.jobs {
                if let Some(&index) = indexes.get(&job.id) {
                    succeeded.extend(self.sort_out(place, open, index, job)?);
                }
            }
            self.save(place, open, succeeded).await?;
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        if over && open.known() == before {
            open.listings += 1;
            if open.listings >= LISTINGS {
                open.listings = 0;
                self.ask_for_missing(place, open).await?;
            }
        }
        Ok(())
    }

    /// Asks one by one for the jobs that the list of an ended part leaves out. Those that are gone count as failed.
    async fn ask_for_missing(&mut self, place: usize, open: &mut OpenPart) -> Result<(), Failure> {
        let mut succeeded = Vec::new();
        for index in open.unfinished() {
            let id = JobId::in_batch(open.part.id, index).to_string();
            match if_found(self.api.job(&id, None).await)? {
                Some(answer) => succeeded.extend(self.sort_out(place, open, index, answer.value)?),
                None => self.miss(place, open, index),
            }
        }
        self.save(place, open, succeeded).await
    }

    /// Counts the job if it failed, and returns it if it succeeded.
    fn sort_out(
        &mut self,
        place: usize,
        open: &mut OpenPart,
        index: usize,
        job: JobView,
    ) -> Result<Option<(usize, JobView)>, Failure> {
        match job.status {
            // A page may repeat a job of the page before.
            _ if open.part.ended[index] => Ok(None),
            Status::Queued | Status::Running => Ok(None),
            Status::Succeeded => Ok(Some((index, job))),
            Status::Failed | Status::Canceled => {
                let error = job.error.as_ref();
                let code = error.map_or("canceled", |error| error.code.as_str());
                let message = error.map_or("It was canceled.", |error| error.message.as_str());
                let line = self.count_failure(place, open, index, code, message);
                self.groups[place].to_retry |= error.is_none_or(|error| error.retryable);
                self.report(line, &job, json!({ "error": { "code": code, "message": message } }))?;
                Ok(None)
            }
        }
    }

    async fn save(&mut self, place: usize, open: &mut OpenPart, jobs: Vec<(usize, JobView)>) -> Result<(), Failure> {
        let (api, out) = (self.api, self.out);
        let fetches = jobs.into_iter().map(|(index, job)| (index, open.part.line_of(index).unwrap_or_default(), job));
        let fetches = fetches.map(|(index, line, job)| async move {
            let name = format!("{line:06}-{}", name_of(&job));
            let fetched = fetch(api, &job, out, &name, Some(line)).await;
            (index, line, job, fetched)
        });
        let fetches: Vec<_> = fetches.collect();
        let mut fetches = stream::iter(fetches).buffer_unordered(self.at_once);
        while let Some((index, line, job, fetched)) = fetches.next().await {
            let picture = match fetched {
                Ok(picture) => Ok(picture.keep(out, self.manifest)?),
                Err(Unfetched::Picture(why)) => Err(why),
                Err(Unfetched::All(failure)) => return Err(failure),
            };
            open.part.ended[index] = true;
            self.groups[place].succeeded += 1;
            let fields = match picture {
                Ok(picture) => {
                    self.tally.saved += 1;
                    self.tally.downloaded += 1;
                    if title_warning(&job).is_some() {
                        self.tally.small_titles.add(line);
                    }
                    let file = out.join(&picture.file);
                    json!({ "file": file, "bytes": picture.bytes, "sha256": picture.sha256 })
                }
                Err(why) => {
                    self.tally.unfetched += 1;
                    let message = format!("The picture: {why}.");
                    json!({ "error": { "code": "picture_unavailable", "message": message } })
                }
            };
            self.report(line, &job, fields)?;
            self.show();
        }
        Ok(())
    }

    /// Counts a job as failed, and returns its line.
    fn count_failure(&mut self, place: usize, open: &mut OpenPart, index: usize, code: &str, message: &str) -> u64 {
        let line = open.part.line_of(index).unwrap_or_default();
        open.part.ended[index] = true;
        self.groups[place].failed += 1;
        self.tally.add_failure(line, code, message);
        line
    }

    /// Counts the unfinished jobs of a part that the service no longer has as failed.
    fn give_up(&mut self, place: usize, open: &mut OpenPart) {
        for index in open.unfinished() {
            self.miss(place, open, index);
        }
    }

    fn miss(&mut self, place: usize, open: &mut OpenPart, index: usize) {
        self.count_failure(place, open, index, "not_found", "The service no longer has this job.");
    }

    fn report(&self, line: u64, job: &JobView, fields: Value) -> Result<(), Failure> {
        let mut value = json!({ "line": line, "custom_id": job.custom_id, "job": job.id, "status": job.status });
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        self.terminal.data(&Event { event: "poster", value })
    }

    fn counts(&self) -> Counts {
        self.groups.iter().map(Group::counts).sum()
    }

    fn show(&self) {
        let saved = Some(self.tally.saved);
        self.terminal.status(self.progress.line(&self.counts(), Some(self.lines), saved, self.terminal.columns()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_pictures_count_as_done_before_the_next_poll() {
        let seen = Counts { total: 30, queued: 4, running: 6, succeeded: 18, failed: 1, canceled: 1 };
        let looked = Group { jobs: 30, seen: Some(seen), ..Group::new(BatchId::new()) };
        assert_eq!(looked.counts(), seen);
        let listed = Group { succeeded: 25, failed: 3, ..looked };
        let counts = Counts { total: 30, queued: 0, running: 2, succeeded: 25, failed: 2, canceled: 1 };
        assert_eq!(listed.counts(), counts);
        // A continued run has not polled yet, and neither has a group whose part was just submitted.
        let unseen = Group { jobs: 30, succeeded: 12, ..Group::new(BatchId::new()) };
        assert_eq!(unseen.counts(), Counts { total: 30, queued: 18, succeeded: 12, ..Counts::default() });
    }
}
