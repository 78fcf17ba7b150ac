use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::api::{BatchView, JobView};
use shared::batch::Counts;
use shared::batch_file::LineFault;
use shared::job::{JobError, Status};
use shared::label::CustomId;
use shared::poster::Lettering;
use shared::{BatchId, JobId};
use tokio::time::Instant;

use super::unknown;
use crate::api::{Answer, Api, PAGE};
use crate::failure::{Failure, blocking, if_found};
use crate::manifest::{self, Manifest, Picture};
use crate::pictures::{download_document, save};
use crate::progress::{Progress, counts_of_ended, ticking};
use crate::terminal::columns;
use crate::words::thousands;

/// A page is read again once so many of its jobs have newly ended, on average over all pages that are read again.
const NEWS: usize = PAGE / 10;

/// Pages with less news are read again after this time and a second for each of them.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) saved: u64,
    /// How many of the saved pictures this run downloaded.
    pub(crate) downloaded: u64,
    /// How many pictures were painted but could not be downloaded. The same command tries again at no cost.
    pub(crate) unfetched: u64,
    /// Why the first of them could not.
    pub(crate) why_unfetched: Option<String>,
    /// Why jobs failed or were canceled, by error code.
    pub(crate) reasons: BTreeMap<String, Reason>,
    pub(crate) can_retry: bool,
    /// Lines that the service left out.
    pub(crate) skipped: u64,
    /// The lines of the posters whose titles are too small to read.
    pub(crate) small_titles: Vec<u64>,
}

impl Tally {
    pub(crate) fn failed(&self) -> Vec<u64> {
        let mut lines: Vec<_> = self.reasons.values().flat_map(|reason| reason.lines.iter().copied()).collect();
        lines.sort_unstable();
        lines
    }
}

#[derive(Debug)]
pub(crate) struct Reason {
    /// The message of the first of them.
    pub(crate) message: String,
    pub(crate) lines: Vec<u64>,
}

/// What is known of a job: a byte for each, as there may be a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// That it has not ended, or nothing.
    Nothing,
    /// That it has ended. If it has a picture, that could not be downloaded.
    Ended,
    Saved,
}

/// A page of the batch's jobs that was read when some of them had not ended.
#[derive(Debug)]
struct Page {
    /// `None` for the first page.
    cursor: Option<String>,
    jobs: Range<usize>,
}

#[derive(Debug, Deserialize)]
struct ResultLine {
    custom_id: Option<CustomId>,
    job_id: Option<JobId>,
    /// The job's status, or `invalid` for a line that was left out.
    status: String,
    image: Option<ResultImage>,
    error: Option<JobError>,
}

#[derive(Debug, Deserialize)]
struct ResultImage {
    poster: Option<Lettering>,
}

/// Follows a batch, and saves its pictures.
///
/// The service lists the jobs of a batch in the order of the file. The pages are read in that order, each as soon as jobs
/// have ended there, and a page is read again only as long as some of its jobs have not ended.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    api: &'a Api,
    manifest: &'a Manifest,
    at_once: usize,
    batch: BatchId,
    /// The line of each job, by index.
    lines: Vec<u32>,
    /// By index; empty until the service knows which lines have jobs.
    jobs: Vec<Known>,
    /// How many are not [`Known::Nothing`].
    known: usize,
    /// How many of these have a picture that could not be downloaded.
    unsaved: usize,
    open: Vec<Page>,
    /// The cursor of the next page, and the index of its first job; `None` after the last page.
    next: Option<(Option<String>, usize)>,
    swept_at: Instant,
    progress: Progress,
    counts: Counts,
    admitted: usize,
    pub(crate) tally: Tally,
}

impl<'a> Follower<'a> {
    /// Follows a batch whose file has jobs on `lines`, unless the service leaves some out.
    pub(crate) fn new(api: &'a Api, manifest: &'a Manifest, at_once: usize, batch: BatchId, lines: Vec<u32>) -> Self {
        Self {
            api,
            manifest,
            at_once,
            batch,
            lines,
            jobs: Vec::new(),
            known: 0,
            unsaved: 0,
            open: Vec::new(),
            next: Some((None, 0)),
            swept_at: Instant::now(),
            progress: Progress::default(),
            counts: Counts::default(),
            admitted: 0,
            tally: Tally::default(),
        }
    }

    /// Learns which lines have jobs, once the service has checked the file, and finds the pictures that earlier runs saved.
    pub(crate) async fn learn(&mut self, batch: &BatchView) -> Result<(), Failure> {
        let total = batch.counts.total;
        if total == 0 || !self.jobs.is_empty() {
            return Ok(());
        }
        if batch.faults.as_ref().is_some_and(|faults| faults.total > 0) {
            let faults = download_document(self.api, &format!("/batches/{}/faults", self.batch)).await?;
            let left_out = lines_of(faults).map(|fault: Result<LineFault, _>| Ok(fault?.line));
            let left_out = left_out.collect::<Result<HashSet<_>, Failure>>()?;
            self.lines.retain(|&line| !left_out.contains(&line.into()));
        }
        if self.lines.len() != total {
            let (here, there) = (thousands(self.lines.len() as u64), thousands(total as u64));
            let why = format!("this file has {here} jobs for this command, and {there} for the service");
            return Err(Failure::Service(format!("{why}; use the command of the service's version")));
        }
        self.jobs = vec![Known::Nothing; total];
        self.find_pictures().await
    }

    async fn find_pictures(&mut self) -> Result<(), Failure> {
        let (out, terminal, batch) = (self.manifest.directory.clone(), self.api.terminal.clone(), self.batch);
        let (lines, mut jobs) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.jobs));
        let found = blocking(move || {
            let mut found = 0;
            manifest::read(&out, |_, picture| {
                if picture.batch != Some(batch) {
                    return;
                }
                let line = picture.line.and_then(|line| line.try_into().ok());
                let Some(index) = line.and_then(|line| lines.binary_search(&line).ok()) else { return };
                if jobs[index] == Known::Nothing && picture.job == JobId::in_batch(batch, index) && picture.is_in(&out)
                {
                    jobs[index] = Known::Saved;
                    found += 1;
                    terminal.status(format!("checking saved pictures: {}", thousands(found)));
                }
            })?;
            Ok((lines, jobs, found))
        });
        (self.lines, self.jobs, self.tally.saved) = found.await?;
        self.known = self.tally.saved as usize;
        Ok(())
    }

    /// Waits until the batch has ended and all its pictures are saved. Returns the batch as it is then.
    pub(crate) async fn run(&mut self) -> Result<BatchView, Failure> {
        loop {
            let answer = if_found(self.api.batch(&self.batch.to_string()).await)?;
            let Answer { value: batch, retry_after } = answer.ok_or_else(unknown)?;
            self.learn(&batch).await?;
            self.counts = batch.counts;
            self.admitted = batch.progress.as_ref().map_or(self.jobs.len(), |progress| progress.admitted_jobs);
            self.progress.learn(&self.counts);
            if !self.jobs.is_empty() && self.is_worth_a_sweep() {
                self.sweep().await?;
            }
            if !batch.status.is_active() {
                return Ok(batch);
            }
            let checked = batch.progress.map_or(0, |progress| progress.checked_lines);
            ticking(tokio::time::sleep(self.api.pause(retry_after)), || match self.jobs.is_empty() {
                true => self.api.terminal.status(format!("the service checks the file: {} lines", thousands(checked))),
                false => self.show(),
            })
            .await;
        }
    }

    /// How many jobs have ended without being known to have. Once all have, only those with a picture matter.
    fn news(&self) -> usize {
        if self.have_ended() {
            self.counts.succeeded.saturating_sub(self.tally.saved as usize + self.unsaved)
        } else {
            counts_of_ended(&self.counts).saturating_sub(self.known)
        }
    }

    fn have_ended(&self) -> bool {
        self.counts.queued + self.counts.running == 0
    }

    /// Whether so many jobs have ended that reading the pages costs few requests for each.
    fn is_worth_a_sweep(&self) -> bool {
        let pages = self.open.len() + 1;
        let enough = (NEWS * pages).min(self.jobs.len() / 10).max(1);
        let is_time = self.swept_at.elapsed() >= PAUSE + Duration::from_secs(pages as u64);
        self.have_ended() || self.news() >= enough || (self.news() > 0 && is_time)
    }

    /// Reads the pages in which jobs may have ended, and saves their pictures.
    async fn sweep(&mut self) -> Result<(), Failure> {
        for page in std::mem::take(&mut self.open) {
            if self.news() > 0 {
                self.read(page.cursor.clone(), page.jobs.start, Some(page.jobs.end)).await?;
            }
            if self.jobs[page.jobs.clone()].contains(&Known::Nothing) {
                self.open.push(page);
            }
        }
        while self.news() > 0
            && let Some((cursor, first)) = self.next.clone()
        {
            // Jobs that are not stored yet would be missing on the page.
            if !self.have_ended() && first + PAGE > self.admitted && self.admitted < self.jobs.len() {
                break;
            }
            let (next, end) = self.read(cursor.clone(), first, None).await?;
            self.next = next.map(|next| (Some(next), end));
            let jobs = first..end;
            let (known, all) =
                (self.jobs[jobs.clone()].iter().filter(|&&job| job != Known::Nothing).count(), jobs.len());
            if known < all {
                self.open.push(Page { cursor, jobs });
            }
            if known == 0 && !self.have_ended() {
                break;
            }
        }
        self.swept_at = Instant::now();
        Ok(())
    }

    /// Reads the jobs from a cursor on, the first of which has the index `first`: one page, or all up to the index `end`. The
    /// same cursor may give fewer jobs than before, as a page has a largest size. Returns the next cursor and index.
    async fn read(
        &mut self,
        mut cursor: Option<String>,
        first: usize,
        end: Option<usize>,
    ) -> Result<(Option<String>, usize), Failure> {
        let (path, mut index) = (format!("/batches/{}/jobs", self.batch), first);
        loop {
            let page = self.api.page::<JobView>(&path, PAGE, cursor.as_deref()).await?;
            let mut succeeded = Vec::new();
            for job in page.items {
                // Jobs that were deleted are not on the page.
                while index < self.jobs.len() && JobId::in_batch(self.batch, index) != job.id {
                    index += 1;
                }
                if index == self.jobs.len() {
                    return Err(Failure::Service(format!("job {} is not of this batch", job.id)));
                }
                if job.finished_at.is_some() && self.jobs[index] == Known::Nothing {
                    if job.status == Status::Succeeded {
                        succeeded.push((index, job));
                    } else {
                        self.learn_of(index, Known::Ended);
                    }
                }
                index += 1;
            }
            self.save(succeeded).await?;
            cursor = page.next_cursor;
            if cursor.is_none() || end.is_none_or(|end| index >= end) {
                // Nothing else can be on the last page.
                let end = if cursor.is_none() { self.jobs.len() } else { index };
                return Ok((cursor, end));
            }
        }
    }

    fn learn_of(&mut self, index: usize, known: Known) {
        self.jobs[index] = known;
        self.known += 1;
    }

    async fn save(&mut self, jobs: Vec<(usize, JobView)>) -> Result<(), Failure> {
        let (api, manifest) = (self.api, self.manifest);
        let jobs = jobs.into_iter().map(|(index, job)| (index, u64::from(self.lines[index]), job));
        let saves = jobs.map(|(index, line, job)| async move {
            let saved = save(api, manifest, &job, Some(line)).await;
            (index, line, job, saved)
        });
        let mut saves = stream::iter(saves.collect::<Vec<_>>()).buffer_unordered(self.at_once);
        while let Some((index, line, job, saved)) = saves.next().await {
            match saved? {
                Ok(Picture { file, bytes, sha256, .. }) => {
                    self.learn_of(index, Known::Saved);
                    self.tally.saved += 1;
                    self.tally.downloaded += 1;
                    let fields = json!({ "file": manifest.directory.join(file), "bytes": bytes, "sha256": sha256 });
                    self.report(line, job.custom_id.as_ref(), Some(job.id), job.status.as_str(), fields)?;
                }
                Err(why) => {
                    self.learn_of(index, Known::Ended);
                    self.unsaved += 1;
                    self.tally.why_unfetched.get_or_insert(why);
                }
            }
            self.show();
        }
        Ok(())
    }

    pub(crate) async fn results(mut self) -> Result<Tally, Failure> {
        self.api.terminal.status("reading the results …");
        let results = download_document(self.api, &format!("/batches/{}/results", self.batch)).await?;
        let incomplete = || Failure::Service("the results of the batch are not complete".to_owned());
        let mut jobs = std::mem::take(&mut self.lines).into_iter().zip(std::mem::take(&mut self.jobs));
        for result in lines_of::<ResultLine>(results) {
            let result = result?;
            if result.status == "invalid" {
                self.tally.skipped += 1;
            } else {
                let (line, known) = jobs.next().ok_or_else(incomplete)?;
                self.add(line.into(), known, result)?;
            }
        }
        if jobs.next().is_some() { Err(incomplete()) } else { Ok(self.tally) }
    }

    fn add(&mut self, line: u64, known: Known, result: ResultLine) -> Result<(), Failure> {
        let ResultLine { custom_id, job_id, status, image, error } = result;
        let error = if status == Status::Succeeded.as_str() {
            if image.and_then(|image| image.poster).is_some_and(|poster| poster.legible == Some(false)) {
                self.tally.small_titles.push(line);
            }
            if known == Known::Saved {
                return Ok(());
            }
            self.tally.unfetched += 1;
            let why = self.tally.why_unfetched.as_deref().unwrap_or("it was not there when this command looked for it");
            json!({ "code": "picture_unavailable", "message": format!("The picture: {why}.") })
        } else {
            let code = error.as_ref().map_or("canceled", |error| error.code.as_str());
            let message = error.as_ref().map_or("It was canceled.", |error| error.message.as_str());
            self.tally.can_retry |= error.as_ref().is_some_and(|error| error.retryable);
            let new = || Reason { message: message.to_owned(), lines: Vec::new() };
            self.tally.reasons.entry(code.to_owned()).or_insert_with(new).lines.push(line);
            json!({ "code": code, "message": message })
        };
        self.report(line, custom_id.as_ref(), job_id, &status, json!({ "error": error }))
    }

    fn report(
        &self,
        line: u64,
        custom_id: Option<&CustomId>,
        job: Option<JobId>,
        status: &str,
        fields: Value,
    ) -> Result<(), Failure> {
        let mut value =
            json!({ "event": "poster", "line": line, "custom_id": custom_id, "job": job, "status": status });
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        self.api.terminal.data(&value)
    }

    fn show(&self) {
        let (admitted, saved) = (Some(self.admitted as u64), Some(self.tally.saved));
        self.api.terminal.status(self.progress.line(&self.counts, admitted, saved, columns()));
    }
}

fn lines_of<T: DeserializeOwned>(document: File) -> impl Iterator<Item = Result<T, Failure>> {
    BufReader::new(document).lines().map(|line| {
        let line = line.map_err(|error| Failure::Local(error.to_string()))?;
        let value = serde_json::from_str(&line);
        value.map_err(|error| Failure::Service(format!("a document of the batch cannot be read: {error}")))
    })
}
