//! Batches: many jobs that are submitted together, and their life.

mod counts;
mod input;
mod order;

use std::iter::repeat_n;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch_file::{Line, LineFault, Position};
use crate::caller::{IdempotencyKey, Owner};
use crate::id::{BatchId, JobId};
use crate::job::{Job, Lease, Membership, RetryKeys, Status, Terms};
use crate::label::BatchName;
use crate::order::DeadlineHours;
use crate::spelled::spelled;
use crate::time::Timestamp;
use crate::webhook::{EventType, Webhook};

pub use self::counts::{BatchStatus, Counts};
pub use self::input::{Checked, FIRST_FAULTS, Input, InputFile, MAX_BYTES, OnBadLine};
pub use self::order::{BatchOrder, Entry, FileBatchOrder, MAX_DEFAULTS_BYTES, MAX_JOBS, faults_of_defaults};

/// The number of jobs in a part of a new batch. The index lists parts, as one key takes only 1,000 writes a second.
pub const JOBS_PER_PART: usize = 1000;

/// How long a batch waits to be started.
pub const TIME_TO_START: Duration = Duration::from_secs(86_400);

/// How long after its deadline a batch may still be in progress: its jobs may wait six hours for a failing bucket.
const OVERTIME: Duration = Duration::from_secs(12 * 3600);

spelled! {
    /// What the function `batch` does next.
    Stage, "a stage of a batch",
    /// It waits until the jobs of a request are stored.
    Submitting = "submitting",
    /// Nothing: the file is not there.
    AwaitingInput = "awaiting_input",
    Checking = "checking",
    /// Nothing: a line is faulty.
    Invalid = "invalid",
    Admitting = "admitting",
    InProgress = "in_progress",
    /// Nothing: every job has ended, and the results are written.
    Ended = "ended",
}

/// Where the jobs of a batch come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// They were in the request.
    Request {
        /// The exclusive right to store them, while the stage is [`Stage::Submitting`].
        writer: Lease,
    },
    /// They are the lines of a file.
    File(Box<Input>),
}

/// What is done to all jobs of a batch because its owner asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// What is done to each job.
    pub action: Action,
    /// The index of the next job.
    pub next: usize,
}

/// What a pass does to each job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It cancels the job if it is queued.
    Cancel,
    /// It retries the job if it has failed. The number distinguishes the requests.
    Retry(u64),
}

/// The state of the jobs of a batch, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The parts with jobs that have not ended.
    pub open_parts: Vec<usize>,
    /// The jobs of all other parts.
    pub ended: Counts,
    /// All jobs, as of the last look.
    pub counts: Counts,
}

/// A batch, as recorded in the table.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Batch {
    pub id: BatchId,
    pub owner: Owner,
    pub name: Option<BatchName>,
    pub source: Source,
    /// The base URL of the API as its owner reached it, for the links in the results.
    pub base_url: String,
    /// How many jobs it has. For a file this is known once it is checked.
    pub total: usize,
    /// The number of jobs in each of its parts but the last.
    pub jobs_per_part: usize,
    pub created_at: Timestamp,
    /// When its jobs were submitted, or its file was. They have this creation time.
    pub started_at: Option<Timestamp>,
    /// How long each job may take; `None` leaves that to the service.
    pub deadline_hours: Option<DeadlineHours>,
    /// When its unfinished jobs fail.
    pub deadline_at: Timestamp,
    pub expires_at: Timestamp,
    pub fingerprint: String,
    /// The endpoint of its event and those of its jobs.
    pub webhook: Option<Webhook>,
    /// The [`Batch::since`] of the last end whose event is in the queue.
    pub told_for: Option<Timestamp>,
    pub fence: u64,
    pub stage: Stage,
    /// When it was canceled, if that was before all of its jobs were stored.
    pub canceled_at: Option<Timestamp>,
    pub retried_at: Option<Timestamp>,
    /// How many of its jobs are stored and have a ticket.
    pub admitted: usize,
    pub progress: Progress,
    pub pass: Option<Pass>,
    /// The keys of the last requests to retry it.
    pub retry_keys: RetryKeys,
    /// The name of the file of results, unique to its writer, so that a slow writer cannot replace newer results.
    pub results: Option<Uuid>,
}

/// Why a batch cannot be started or retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was not started in time.
    Expired,
    /// It is invalid, or was canceled before its jobs were admitted.
    NoJobs,
    /// Not all of its jobs are stored yet.
    NotAdmitted,
    /// It is being canceled.
    BeingCanceled,
    /// The jobs that had succeeded may be deleted before the retried ones end.
    TooOld,
}

impl Batch {
    /// A new batch whose jobs are in a request, and are stored by `writer`.
    pub fn from_request(
        id: BatchId,
        owner: Owner,
        order: &BatchOrder,
        base_url: String,
        now: Timestamp,
        writer: Lease,
    ) -> Self {
        Self {
            name: order.name.clone(),
            deadline_hours: order.deadline_hours,
            webhook: order.webhook.clone(),
            fingerprint: order.fingerprint(),
            total: order.entries.len(),
            started_at: Some(now),
            ..Self::new(id, owner, Source::Request { writer }, base_url, now)
        }
    }

    /// A new batch that awaits its file.
    pub fn from_file(id: BatchId, owner: Owner, order: FileBatchOrder, base_url: String, now: Timestamp) -> Self {
        Self {
            fingerprint: order.fingerprint(),
            name: order.name,
            deadline_hours: order.deadline_hours,
            webhook: order.webhook,
            ..Self::new(id, owner, Source::File(Box::new(order.input)), base_url, now)
        }
    }

    pub(crate) fn new(id: BatchId, owner: Owner, source: Source, base_url: String, now: Timestamp) -> Self {
        let stage = match source {
            Source::Request { .. } => Stage::Submitting,
            Source::File(_) => Stage::AwaitingInput,
        };
        Self {
            id,
            owner,
            name: None,
            source,
            base_url,
            total: 0,
            jobs_per_part: JOBS_PER_PART,
            created_at: now,
            started_at: None,
            deadline_hours: None,
            deadline_at: now,
            expires_at: now,
            fingerprint: String::new(),
            webhook: None,
            told_for: None,
            fence: 0,
            stage,
            canceled_at: None,
            retried_at: None,
            admitted: 0,
            progress: Progress::default(),
            pass: None,
            retry_keys: RetryKeys::default(),
            results: None,
        }
    }

    /// The batch, with the deadline and the retention of jobs that are queued at `now`.
    pub fn lasting(mut self, now: Timestamp, terms: Terms) -> Self {
        self.deadline_at = terms.deadline_at(self.deadline_hours, now);
        self.expires_at = terms.expires_at(now);
        self
    }

    fn next(&self) -> Self {
        Self { fence: self.fence + 1, ..self.clone() }
    }

    fn next_with_input(&self, change: impl FnOnce(&mut Input)) -> Self {
        let mut next = self.next();
        if let Source::File(input) = &mut next.source {
            change(input);
        }
        next
    }

    /// The file of its jobs; `None` if they were in the request.
    pub fn input(&self) -> Option<&Input> {
        match &self.source {
            Source::Request { .. } => None,
            Source::File(input) => Some(input),
        }
    }

    /// Whether this is the same version of the same record, except for `told_for`.
    pub fn is_same_version(&self, other: &Self) -> bool {
        Self { told_for: other.told_for, ..self.clone() } == *other
    }

    /// When it was submitted or last retried. It has one end after that.
    pub fn since(&self) -> Timestamp {
        self.retried_at.unwrap_or(self.created_at)
    }

    /// The webhook, if the event of the batch's end is still to be sent.
    pub fn webhook_for_end(&self) -> Option<&Webhook> {
        let webhook = self.webhook.as_ref().filter(|webhook| webhook.wants(EventType::BatchEnded));
        webhook.filter(|_| self.told_for != Some(self.since()))
    }

    /// The lease of the writer of a request's jobs; `None` once they are stored, or if they come from a file.
    pub fn writing(&self) -> Option<Lease> {
        match self.source {
            Source::Request { writer } if self.stage == Stage::Submitting => Some(writer),
            _ => None,
        }
    }

    /// Passes the right to store the jobs of the request to `writer`.
    pub fn taken_over(&self, writer: Lease) -> Self {
        Self { source: Source::Request { writer }, ..self.next() }
    }

    /// Records that the jobs of the request are stored and have their tickets.
    pub fn submitted(&self) -> Self {
        Self { admitted: self.total, ..self.next() }.watched()
    }

    /// Ends a request that was refused after all. Its record counts as deleted, so its key can be used again.
    pub fn withdrawn(&self, now: Timestamp) -> Self {
        Self { stage: Stage::Ended, expires_at: Timestamp::from_ms(now.ms() - 1000), ..self.next() }
    }

    /// Until when it can be started.
    pub fn start_by(&self) -> Timestamp {
        self.created_at + TIME_TO_START
    }

    /// Starts the batch with its uploaded file; `None` if it was started before.
    pub fn start(&self, file: InputFile, now: Timestamp, terms: Terms) -> Result<Option<Self>, Refused> {
        if !self.awaits_start(now)? {
            return Ok(None);
        }
        let next = self.next_with_input(|input| input.file = Some(file));
        let next = Self { stage: Stage::Checking, started_at: Some(now), ..next };
        Ok(Some(next.lasting(now, terms)))
    }

    /// Whether the batch can be started; `false` if it was started before.
    pub fn awaits_start(&self, now: Timestamp) -> Result<bool, Refused> {
        match self.stage {
            Stage::AwaitingInput if self.start_by() <= now => Err(Refused::Expired),
            Stage::AwaitingInput => Ok(true),
            Stage::Ended if self.started_at.is_none() => Err(Refused::NoJobs),
            _ => Ok(false),
        }
    }

    /// Parses a line of `input`, its file, as a job.
    pub fn entry(&self, input: &Input, line: Line) -> Result<Entry, Vec<LineFault>> {
        let mut entry = line.order(&input.defaults, input.model)?;
        entry.order.deadline_hours = self.deadline_hours;
        entry.order.webhook = self.webhook.as_ref().and_then(Webhook::for_jobs);
        Ok(entry)
    }

    /// The jobs of these entries, the first of which has the index `first`.
    pub fn jobs(&self, first: usize, entries: impl IntoIterator<Item = Entry>) -> Vec<Job> {
        let created_at = self.started_at.unwrap_or(self.created_at);
        let job = |(index, Entry { order, custom_id }): (usize, Entry)| {
            let membership = Membership { batch: self.id, part: index / self.jobs_per_part, custom_id };
            let (id, owner) = (JobId::in_batch(self.id, index), self.owner.clone());
            let job = Job::new(id, owner, order, created_at, Terms::default());
            let (deadline_at, expires_at) = (self.deadline_at, self.expires_at);
            Job { membership: Some(membership), deadline_at, expires_at, ..job }
        };
        (first..).zip(entries).map(job).collect()
    }

    /// Records how far the check has got.
    pub fn checking(&self, so_far: Checked) -> Self {
        self.next_with_input(|input| input.checked = so_far)
    }

    /// Ends the check. Without jobs, or with a fault that may not be skipped, the batch is invalid. A line can be
    /// skipped only for a fault of its own, which the admission finds again.
    pub fn checked(&self, checked: Checked) -> Self {
        let refuses = self.input().is_some_and(|input| input.on_bad_line == OnBadLine::Refuse);
        let refused = checked.faults > 0 && refuses || checked.is_of_file || checked.jobs == 0;
        let (stage, total) = if refused { (Stage::Invalid, 0) } else { (Stage::Admitting, checked.jobs) };
        Self { stage, total, ..self.next_with_input(|input| input.checked = checked) }
    }

    /// Records that more jobs were admitted, up to the one at `position`; `none_left` if these were the last.
    pub fn admitted(&self, admitted: usize, position: Position, none_left: bool) -> Self {
        let next = Self { admitted, ..self.next_with_input(|input| input.position = position) };
        // A newer version of the code, with other rules, may find another number than the check.
        if none_left { Self { total: admitted, ..next }.watched() } else { next }
    }

    /// Stops the admission: the rest of the jobs counts as canceled.
    pub fn stop_admission(&self, now: Timestamp) -> Self {
        Self { canceled_at: self.canceled_at.or(Some(now)), ..self.next() }.watched()
    }

    fn watched(mut self) -> Self {
        self.stage = Stage::InProgress;
        self.progress.open_parts = (0..self.total.div_ceil(self.jobs_per_part)).collect();
        self.progress.ended = Counts::default();
        self
    }

    /// Records what a look at the jobs found.
    pub fn looked(&self, progress: Progress) -> Self {
        Self { progress, ..self.next() }
    }

    /// Records how far a pass has got; `None` is its end.
    pub fn passed(&self, pass: Option<Pass>) -> Self {
        Self { pass, ..self.next() }
    }

    /// Watches all jobs, also those that were never stored, which count as missing, or were wrongly taken as ended.
    pub fn watch_all(&self) -> Self {
        self.next().watched()
    }

    /// Ends the batch, with the final counts and the name of its results.
    pub fn end(&self, counts: Counts, results: Uuid) -> Self {
        let progress = Progress { open_parts: Vec::new(), ended: counts, counts };
        Self { stage: Stage::Ended, progress, results: Some(results), ..self.next() }
    }

    /// Cancels the jobs that have not started; `None` if there is nothing to cancel.
    pub fn cancel(&self, now: Timestamp) -> Option<Self> {
        let mut next = self.next();
        let pass = Some(Pass { action: Action::Cancel, next: 0 });
        match self.stage {
            Stage::Invalid | Stage::Ended => return None,
            Stage::AwaitingInput if self.start_by() <= now => return None,
            Stage::AwaitingInput | Stage::Checking => {
                next.canceled_at = Some(now);
                next.stage = Stage::Ended;
            }
            Stage::Submitting | Stage::Admitting => {
                next.canceled_at = next.canceled_at.or(Some(now));
                next.pass = pass;
            }
            Stage::InProgress => next.pass = pass,
        }
        Some(next)
    }

    /// Retries the failed jobs; `None` if a request with this key did so before.
    pub fn retry(&self, key: Option<&IdempotencyKey>, now: Timestamp, terms: Terms) -> Result<Option<Self>, Refused> {
        if key.is_some_and(|key| self.retry_keys.contain(key)) {
            return Ok(None);
        }
        match (self.stage, &self.pass) {
            (Stage::Invalid | Stage::AwaitingInput, _) => return Err(Refused::NoJobs),
            (Stage::Ended, _) if self.total == 0 => return Err(Refused::NoJobs),
            (Stage::Submitting | Stage::Checking | Stage::Admitting, _) => return Err(Refused::NotAdmitted),
            (_, Some(Pass { action: Action::Cancel, .. })) => return Err(Refused::BeingCanceled),
            (Stage::InProgress | Stage::Ended, _) => {}
        }
        let mut next = self.next().watched().lasting(now, terms);
        if self.started_at.is_some_and(|at| at + terms.retention < next.deadline_at + OVERTIME) {
            return Err(Refused::TooOld);
        }
        next.pass = Some(Pass { action: Action::Retry(next.fence), next: 0 });
        next.retry_keys = self.retry_keys.with(key);
        next.retried_at = Some(now.max(self.since() + Duration::from_millis(1)));
        Ok(Some(next))
    }

    /// The status of a job that the table does not have.
    pub fn status_of_missing(&self, now: Timestamp) -> Status {
        if self.canceled_at.is_some() { Status::Canceled } else { self.status_of_waiting(now) }
    }

    /// The status of a stored job that is as it was created: failed after its deadline, even if it is not ended yet.
    fn status_of_waiting(&self, now: Timestamp) -> Status {
        if self.deadline_at <= now { Status::Failed } else { Status::Queued }
    }

    /// The maximum number of stored jobs: those that are admitted, and those of one more step, which may be in
    /// progress, or may have been when the admission stopped.
    pub fn most_stored(&self) -> usize {
        self.total.min(self.admitted + self.jobs_per_part)
    }

    /// The indexes of the jobs of a part.
    pub fn jobs_of_part(&self, part: usize) -> std::ops::Range<usize> {
        let begin = part * self.jobs_per_part;
        begin..self.total.min(begin + self.jobs_per_part)
    }

    /// The status as its owner sees it.
    pub fn status(&self, now: Timestamp) -> BatchStatus {
        match self.stage {
            Stage::AwaitingInput if self.start_by() <= now => BatchStatus::Expired,
            Stage::AwaitingInput => BatchStatus::AwaitingInput,
            Stage::Checking => BatchStatus::Checking,
            Stage::Invalid => BatchStatus::Invalid,
            Stage::Admitting => BatchStatus::Admitting,
            Stage::Submitting | Stage::InProgress => BatchStatus::InProgress,
            Stage::Ended if self.total == 0 => BatchStatus::Canceled,
            Stage::Ended => match self.progress.counts.status() {
                BatchStatus::Completed if self.input().is_some_and(|input| input.checked.faults > 0) => {
                    BatchStatus::CompletedWithErrors
                }
                status => status,
            },
        }
    }

    /// The time since its start or its last retry.
    pub fn age(&self, now: Timestamp) -> Duration {
        self.retried_at.or(self.started_at).map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Whether the function `batch` has something to do.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Submitting | Stage::Checking | Stage::Admitting | Stage::InProgress)
    }

    /// Whether every job has ended, or the file was refused.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Invalid | Stage::Ended)
    }

    /// Counts all jobs, as of the last look at them.
    pub fn last_counts(&self, now: Timestamp) -> Counts {
        self.with_missing(self.progress.counts, now)
    }

    /// Counts all jobs, if those in the index have these `counts`. The index lacks jobs that wait as they were created.
    pub fn with_missing(&self, counts: Counts, now: Timestamp) -> Counts {
        let stored = if self.stage == Stage::Submitting { self.total } else { self.admitted };
        let waiting = repeat_n(self.status_of_waiting(now), stored.saturating_sub(counts.total));
        let missing = repeat_n(self.status_of_missing(now), self.total.saturating_sub(stored.max(counts.total)));
        [counts, Counts::of(waiting.chain(missing))].into_iter().sum()
    }

    /// Whether the file of faults is complete, and lists any. A batch that was canceled during the check has none.
    pub fn has_faults(&self) -> bool {
        let was_checked = match self.stage {
            Stage::Submitting | Stage::AwaitingInput | Stage::Checking => false,
            Stage::Invalid | Stage::Admitting | Stage::InProgress => true,
            Stage::Ended => self.total > 0,
        };
        was_checked && self.input().is_some_and(|input| input.checked.faults > 0)
    }

    /// The name of the file of results; `None` while it is not complete.
    pub fn complete_results(&self) -> Option<Uuid> {
        self.results.filter(|_| self.stage == Stage::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Model;
    use serde_json::json;

    const HOUR: Duration = Duration::from_secs(3600);

    fn awaiting() -> Batch {
        let order = FileBatchOrder::parse(json!({ "input": { "format": "csv" } }), Model::Core).expect("an order");
        let (id, owner, now) = (BatchId::new(), Owner::new("somebody"), Timestamp::from_ms(0));
        Batch::from_file(id, owner, order, "https://example.com".to_owned(), now)
            .lasting(now, Terms { deadline: HOUR, retention: 100 * HOUR })
    }

    fn submitting(jobs: usize) -> Batch {
        let jobs = vec![json!({ "prompt": "A heist" }); jobs];
        let order = BatchOrder::parse(json!({ "jobs": jobs }), Model::Core).expect("an order");
        let (id, owner, now) = (BatchId::new(), Owner::new("somebody"), Timestamp::from_ms(0));
        let writer = Lease::new(now + Duration::from_secs(45));
        let batch = Batch::from_request(id, owner, &order, "https://example.com".to_owned(), now, writer);
        batch.lasting(now, Terms { deadline: HOUR, retention: 100 * HOUR })
    }

    fn file() -> InputFile {
        InputFile { etag: "a".to_owned(), bytes: 7 }
    }

    fn started() -> Batch {
        awaiting()
            .start(file(), Timestamp::from_ms(5), Terms { deadline: HOUR, retention: 100 * HOUR })
            .expect("in time")
            .expect("for the first time")
    }

    fn checked(jobs: usize) -> Batch {
        started().checked(Checked { lines: jobs as u64, jobs, ..Checked::default() })
    }

    fn watched(jobs: usize) -> Batch {
        checked(jobs).admitted(jobs, Position::default(), true)
    }

    fn counts(succeeded: usize, failed: usize) -> Counts {
        Counts { total: succeeded + failed, succeeded, failed, ..Counts::default() }
    }

    #[test]
    fn a_batch_is_checked_admitted_watched_and_ended() {
        let now = Timestamp::from_ms(10);
        let mut batch = started();
        assert_eq!(batch.status(now), BatchStatus::Checking);
        assert_eq!(batch.start(file(), now, Terms { deadline: HOUR, retention: HOUR }), Ok(None));
        batch = checked(2500);
        assert_eq!((batch.status(now), batch.total), (BatchStatus::Admitting, 2500));
        batch = batch.admitted(1000, Position::default(), false);
        assert_eq!(batch.status(now), BatchStatus::Admitting);
        batch = batch.admitted(2500, Position::default(), true);
        assert_eq!((batch.status(now), &batch.progress.open_parts), (BatchStatus::InProgress, &vec![0, 1, 2]));
        assert_eq!([0, 2].map(|part| batch.jobs_of_part(part)), [0..1000, 2000..2500]);
        assert_eq!(batch.end(counts(2500, 0), Uuid::nil()).status(now), BatchStatus::Completed);
        assert_eq!(batch.end(counts(2499, 1), Uuid::nil()).status(now), BatchStatus::CompletedWithErrors);
        let faulty = |input: &mut Input| input.checked.faults = 1;
        assert_eq!(
            batch.next_with_input(faulty).end(counts(2500, 0), Uuid::nil()).status(now),
            BatchStatus::CompletedWithErrors,
            "a line was skipped"
        );
    }

    #[test]
    fn a_faulty_line_makes_a_batch_invalid_unless_it_may_be_skipped() {
        let mut checked = Checked { lines: 2, jobs: 1, ..Checked::default() };
        checked.fault(LineFault { line: 2, pointer: "/prompt".to_owned(), detail: "is required".to_owned() });
        assert_eq!(started().checked(checked.clone()).stage, Stage::Invalid);
        let batch = started().next_with_input(|input| input.on_bad_line = OnBadLine::Skip);
        assert_eq!(batch.checked(checked.clone()).stage, Stage::Admitting);
        let of_file = Checked { is_of_file: true, ..checked.clone() };
        assert_eq!(batch.checked(of_file).stage, Stage::Invalid, "no line is faulty by itself");
        assert_eq!(batch.checked(Checked { jobs: 0, ..checked }).stage, Stage::Invalid, "no job is left");
    }

    #[test]
    fn a_batch_that_is_not_started_within_a_day_expires() {
        let late = Timestamp::from_ms(0) + TIME_TO_START;
        assert_eq!(awaiting().status(late), BatchStatus::Expired);
        assert_eq!(awaiting().start(file(), late, Terms { deadline: HOUR, retention: HOUR }), Err(Refused::Expired));
        assert_eq!(awaiting().cancel(late), None);
    }

    #[test]
    fn a_cancellation_is_noted_in_every_stage_before_the_end() {
        let now = Timestamp::from_ms(10);
        for batch in [awaiting(), started()] {
            let canceled = batch.cancel(now).expect("it has not ended");
            assert_eq!((canceled.status(now), canceled.complete_results()), (BatchStatus::Canceled, None));
        }
        let admitting = checked(3).cancel(now).expect("it has not ended");
        let stopped = admitting.stop_admission(now);
        assert_eq!((stopped.stage, stopped.status_of_missing(now)), (Stage::InProgress, Status::Canceled));
        assert!(stopped.pass.is_some(), "what was admitted is canceled next");
        let some = checked(3).admitted(1, Position::default(), false);
        let shown = some.cancel(now).expect("it has not ended").last_counts(now);
        assert_eq!((shown.queued, shown.canceled), (1, 2), "nobody knows yet what became of the first");
        assert!(watched(3).cancel(now).expect("it has not ended").pass.is_some());
        assert_eq!(watched(3).end(counts(3, 0), Uuid::nil()).cancel(now), None);
        assert_eq!(started().checked(Checked::default()).cancel(now), None);
    }

    #[test]
    fn a_retry_looks_at_every_job_again_and_is_done_once_for_each_key() {
        let (now, key) = (Timestamp::from_ms(10), "friday".parse().expect("a key"));
        let terms = Terms { deadline: HOUR, retention: 24 * HOUR };
        let ended = watched(1500).end(counts(1499, 1), Uuid::nil());
        let retried = ended.retry(Some(&key), now, terms).expect("allowed").expect("for the first time");
        assert_eq!((retried.stage, retried.progress.open_parts.len()), (Stage::InProgress, 2));
        assert_eq!(retried.pass, Some(Pass { action: Action::Retry(retried.fence), next: 0 }));
        assert_eq!(retried.retry(Some(&key), now, terms), Ok(None));
        let refused = |batch: Batch| batch.retry(None, now, terms).expect_err("refused");
        assert_eq!(refused(awaiting()), Refused::NoJobs);
        assert_eq!(refused(awaiting().cancel(now).expect("canceled")), Refused::NoJobs);
        assert_eq!(refused(checked(3)), Refused::NotAdmitted);
        assert_eq!(refused(watched(3).cancel(now).expect("canceled")), Refused::BeingCanceled);
    }

    #[test]
    fn a_batch_is_retried_only_if_it_can_end_before_its_first_jobs_are_deleted() {
        let ended = watched(3).end(counts(2, 1), Uuid::nil());
        let terms = Terms { deadline: 2 * HOUR, retention: 24 * HOUR };
        let latest = ended.started_at.expect("it was started") + 24 * HOUR - 2 * HOUR - OVERTIME;
        assert!(ended.retry(None, latest, terms).is_ok());
        assert_eq!(ended.retry(None, latest + Duration::from_millis(1), terms), Err(Refused::TooOld));
    }

    #[test]
    fn a_batch_in_a_request_is_in_progress_from_its_submission_and_watched_once_its_jobs_are_stored() {
        let (now, batch) = (Timestamp::from_ms(10), submitting(3));
        assert_eq!((batch.status(now), batch.is_active()), (BatchStatus::InProgress, true));
        let stored = batch.submitted();
        assert_eq!((stored.stage, stored.writing(), &stored.progress.open_parts), (Stage::InProgress, None, &vec![0]));
        let queued = Counts { total: 3, queued: 3, ..Counts::default() };
        assert_eq!([batch, stored.clone()].map(|batch| batch.last_counts(now)), [queued; 2]);
        assert_eq!(stored.end(counts(3, 0), Uuid::nil()).status(now), BatchStatus::Completed);
        assert!(!stored.has_faults() && stored.awaits_start(now) == Ok(false));
    }

    #[test]
    fn jobs_of_a_request_that_nobody_stores_are_canceled_with_their_batch_or_fail_at_its_deadline() {
        let (now, batch) = (Timestamp::from_ms(10), submitting(3));
        assert_eq!(batch.retry(None, now, Terms { deadline: HOUR, retention: HOUR }), Err(Refused::NotAdmitted));
        let late = batch.deadline_at;
        assert_eq!([now, late].map(|at| batch.watch_all().status_of_missing(at)), [Status::Queued, Status::Failed]);
        let canceled = batch.cancel(now).expect("it has not ended");
        let writer = Lease::new(late);
        assert_eq!((canceled.stage, canceled.taken_over(writer).writing()), (Stage::Submitting, Some(writer)));
        for next in [canceled.submitted(), canceled.watch_all()] {
            assert_eq!((next.stage, next.status_of_missing(now)), (Stage::InProgress, Status::Canceled));
            assert_eq!((next.pass.is_some(), next.most_stored()), (true, 3), "what was stored is canceled next");
        }
    }
}
