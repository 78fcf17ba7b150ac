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

use crate::api::{Api, PAGE};
use crate::failure::Failure;
use crate::journal::Part;
use crate::manifest::Manifest;
use crate::pictures::{Unfetched, fetch, name_of};
use crate::progress::{Progress, ended, ticking};
use crate::terminal::{Event, Terminal};
use crate::words::title_warning;

/// What share of a part's jobs must have ended anew before the part is listed again. Each listing costs a request for
/// every hundred jobs.
const SHARE: usize = 10;

/// How often a part that has ended is listed without anything new before its missing jobs count as gone.
const LISTINGS: u32 = 5;

/// How many times less often than the service says a group is looked at in which nothing ends, while another one is
/// before it.
const SLOWEST: u32 = 8;

/// How many lines are told of each reason.
const SHOWN: usize = 10;

/// What became of the jobs.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// The groups of all parts.
    pub(crate) groups: Vec<BatchId>,
    /// Those of them in which something failed that can be queued again.
    pub(crate) to_retry: Vec<BatchId>,
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
    /// The lines whose posters this run has downloaded and whose titles are too small to read.
    pub(crate) small_titles: Lines,
}

/// A reason for which jobs have no picture.
#[derive(Debug)]
pub(crate) struct Reason {
    /// The words for it.
    pub(crate) message: String,
    /// The lines of these jobs.
    pub(crate) lines: Lines,
}

/// Some lines of the input, of which only the first are told.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// How many they are.
    pub(crate) count: u64,
    /// The first of them.
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

/// A group, and what is known of it.
#[derive(Debug)]
struct Group {
    id: BatchId,
    /// How many of its parts are not done.
    open: usize,
    /// How many jobs its parts have.
    jobs: usize,
    /// How many of these are known to have a picture.
    succeeded: usize,
    /// How many are known to have none, and will have none.
    failed: usize,
    /// Whether the service still has any of these that may succeed when it is queued again.
    to_retry: bool,
    /// How its jobs stood at the last look.
    seen: Option<Counts>,
    /// When it was looked at last, and how long after that the service says that another look is worthwhile.
    looked: (Instant, Duration),
    /// How many times longer that is while another group is before it.
    slowness: u32,
}

impl Group {
    fn new(id: BatchId) -> Self {
        let looked = (Instant::now(), Duration::ZERO);
        Self { id, open: 0, jobs: 0, succeeded: 0, failed: 0, to_retry: false, seen: None, looked, slowness: 1 }
    }

    /// How its jobs stand: as the last look has shown, and with those that were listed since as having ended.
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

/// A part that is not done, and what is known of it.
#[derive(Debug)]
struct Open {
    /// The place of its group.
    group: usize,
    part: Part,
    /// How often it was listed in vain since it ended.
    listings: u32,
}

impl Open {
    fn known(&self) -> usize {
        self.part.ended.iter().filter(|&&ended| ended).count()
    }

    fn is_done(&self) -> bool {
        self.part.ended.iter().all(|&ended| ended)
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
    /// The groups, in the order of the input.
    groups: Vec<Group>,
    /// The parts that are not done.
    open: Vec<Open>,
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
            groups: Vec::new(),
            open: Vec::new(),
            progress: Progress::default(),
            collected: Collected::default(),
        };
        parts.into_iter().for_each(|part| collector.add(part));
        collector
    }

    fn add(&mut self, part: Part) {
        let group = self.groups.iter().position(|group| group.id == part.group).unwrap_or_else(|| {
            self.groups.push(Group::new(part.group));
            self.groups.len() - 1
        });
        let open = Open { group, part, listings: 0 };
        self.collected.saved += open.known() as u64;
        let group = &mut self.groups[group];
        group.jobs += open.part.jobs();
        group.succeeded += open.known();
        if !open.is_done() {
            group.open += 1;
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
            let Some((group, at)) = self.next() else {
                match parts.recv().await {
                    Some(part) => self.add(part),
                    None => return Ok(self.end()),
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
            self.look(group, manifest).await?;
        }
    }

    /// Of the groups that are not done the one that is to be looked at next, and when.
    fn next(&self) -> Option<(usize, Instant)> {
        let open = self.groups.iter().enumerate().filter(|(_, group)| group.open > 0);
        let due = open.enumerate().map(|(before, (place, group))| {
            let (at, pause) = group.looked;
            // Jobs are painted about in their order, so that those of a group behind another one may long have to wait.
            (place, at + if before == 0 { pause } else { pause * group.slowness })
        });
        due.min_by_key(|(_, due)| *due)
    }

    fn end(mut self) -> Collected {
        self.collected.groups = self.groups.iter().map(|group| group.id).collect();
        let to_retry = self.groups.iter().filter(|group| group.to_retry);
        self.collected.to_retry = to_retry.map(|group| group.id).collect();
        self.collected
    }

    /// Looks how a group stands, then at those of its parts in which something has ended, and settles when to look again.
    async fn look(&mut self, group: usize, manifest: &mut Manifest) -> Result<(), Failure> {
        let answer = match self.api.batch(&self.groups[group].id.to_string()).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_not_found() => {
                // Its time is over, and that of all its parts, which keeps no other group from going on.
                for place in 0..self.open.len() {
                    if self.open[place].group == group {
                        self.give_up(place);
                    }
                }
                self.close();
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let (counts, over) = (answer.value.counts, answer.value.status != BatchStatus::InProgress);
        let before = self.groups[group].seen.replace(counts).unwrap_or_default();
        if self.groups.iter().all(|group| group.open == 0 || group.seen.is_some()) {
            self.progress.learn(&self.counts());
        }
        self.show();
        let mut pause = answer.retry_after;
        let known = self.groups[group].succeeded + self.groups[group].failed;
        let mut unseen = ended(&counts).saturating_sub(known);
        for place in 0..self.open.len() {
            if self.open[place].group != group {
                continue;
            }
            if unseen == 0 && !over {
                break;
            }
            let part = match self.api.batch(&self.open[place].part.id.to_string()).await {
                Ok(answer) => answer.value,
                Err(failure) if failure.is_not_found() => {
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
        self.close();
        let group = &mut self.groups[group];
        let still = ended(&counts) == ended(&before);
        group.slowness = if still { (group.slowness * 2).min(SLOWEST) } else { 1 };
        group.looked = (Instant::now(), self.api.pause(pause));
        Ok(())
    }

    /// Lets go of the parts that are done.
    fn close(&mut self) {
        for open in self.open.extract_if(.., |open| open.is_done()) {
            self.groups[open.group].open -= 1;
        }
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
                if !self.open[place].part.ended[index] {
                    to_fetch.extend(self.sort_out(place, index, job)?);
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
                open.listings = 0;
                self.ask_for_missing(place, part.id, manifest).await?;
            }
        }
        Ok(())
    }

    /// Asks one by one for the jobs of a part that has ended and does not list them as ended. Those that the service has
    /// no more count as failed.
    async fn ask_for_missing(&mut self, place: usize, part: BatchId, manifest: &mut Manifest) -> Result<(), Failure> {
        let mut to_fetch = Vec::new();
        for index in 0..self.open[place].part.jobs() {
            if self.open[place].part.ended[index] {
                continue;
            }
            match self.api.job(&JobId::in_batch(part, index).to_string(), None).await {
                Ok(answer) => to_fetch.extend(self.sort_out(place, index, answer.value)?),
                Err(failure) if failure.is_not_found() => self.miss(place, index),
                Err(failure) => return Err(failure),
            }
        }
        self.fetch(place, to_fetch, manifest).await
    }

    /// Counts the job if it has failed, and gives it back if it has a picture.
    fn sort_out(&mut self, place: usize, index: usize, job: JobView) -> Result<Option<(usize, JobView)>, Failure> {
        match job.status {
            Status::Queued | Status::Running => Ok(None),
            Status::Succeeded => Ok(Some((index, job))),
            Status::Failed | Status::Canceled => {
                let error = job.error.as_ref();
                let code = error.map_or("canceled", |error| error.code.as_str());
                let message = error.map_or("It was canceled.", |error| error.message.as_str());
                self.count_failure(place, index, code, message);
                let group = self.open[place].group;
                self.groups[group].to_retry |= error.is_none_or(|error| error.retryable);
                self.tell(place, index, &job, json!({ "error": { "code": code, "message": message } }))?;
                Ok(None)
            }
        }
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
                    let name = format!("{:06}-{}", line.unwrap_or_default(), name_of(&job));
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
                    self.count_success(place, index);
                    self.collected.unfetched += 1;
                    let message = format!("The picture: {why}.");
                    let error = json!({ "error": { "code": "picture_unavailable", "message": message } });
                    self.tell(place, index, &job, error)?;
                    continue;
                }
                Err(Unfetched::All(failure)) => return Err(failure),
            };
            self.count_success(place, index);
            self.collected.saved += 1;
            self.collected.downloaded += 1;
            if title_warning(&job).is_some() {
                let line = self.open[place].part.line_of(index);
                self.collected.small_titles.add(line.unwrap_or_default());
            }
            let fields = json!({
                "file": out.join(&picture.file), "bytes": picture.bytes, "sha256": picture.sha256
            });
            self.tell(place, index, &job, fields)?;
            self.show();
        }
        Ok(())
    }

    fn count_success(&mut self, place: usize, index: usize) {
        let open = &mut self.open[place];
        open.part.ended[index] = true;
        self.groups[open.group].succeeded += 1;
    }

    fn count_failure(&mut self, place: usize, index: usize, code: &str, message: &str) {
        let open = &mut self.open[place];
        open.part.ended[index] = true;
        self.groups[open.group].failed += 1;
        let line = open.part.line_of(index).unwrap_or_default();
        self.collected.failed.push(line);
        let new = || Reason { message: message.to_owned(), lines: Lines::default() };
        self.collected.reasons.entry(code.to_owned()).or_insert_with(new).lines.add(line);
    }

    /// Counts the jobs of a part that the service has no more as failed.
    fn give_up(&mut self, place: usize) {
        for index in 0..self.open[place].part.jobs() {
            if !self.open[place].part.ended[index] {
                self.miss(place, index);
            }
        }
    }

    fn miss(&mut self, place: usize, index: usize) {
        self.count_failure(place, index, "not_found", "The service has no such job any more.");
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

    /// How all jobs stand, as far as that is known.
    fn counts(&self) -> Counts {
        self.groups.iter().map(Group::counts).sum()
    }

    fn show(&self) {
        let saved = Some(self.collected.saved);
        self.terminal.status(self.progress.line(&self.counts(), Some(self.lines), saved, self.terminal.columns()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_counts_as_done_before_the_next_look() {
        let seen = Counts { total: 30, queued: 4, running: 6, succeeded: 18, failed: 1, canceled: 1 };
        let looked = Group { jobs: 30, seen: Some(seen), ..Group::new(BatchId::new()) };
        assert_eq!(looked.counts(), seen);
        let listed = Group { succeeded: 25, failed: 3, ..looked };
        let counts = Counts { total: 30, queued: 0, running: 2, succeeded: 25, failed: 2, canceled: 1 };
        assert_eq!(listed.counts(), counts);
        // Another run goes on, and has not looked yet; a part that was just taken in is not among those seen either.
        let unseen = Group { jobs: 30, succeeded: 12, ..Group::new(BatchId::new()) };
        assert_eq!(unseen.counts(), Counts { total: 30, queued: 18, succeeded: 12, ..Counts::default() });
    }
}
