//! Batches whose jobs come from an uploaded file, and their life.
//!
//! A batch awaits its file. Once it is started, the function `batch` checks every line, admits the jobs, a thousand at a
//! time, watches them until all have ended, and writes the results. Its record says how far it got, so that each step
//! can be repeated by another invocation. A transition returns the next version of the record and does no I/O.

use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::batch::{Batch, BatchStatus, Counts, Entry, faults_of_defaults};
use crate::batch_file::{Format, Line, LineFault, Position};
use crate::caller::IdempotencyKey;
use crate::fault::FieldError;
use crate::job::{RetryKeys, Status};
use crate::json::{Fields, kind, string};
use crate::label::BatchName;
use crate::order::{DeadlineHours, Model};
use crate::spelled::spelled;
use crate::text::hex;
use crate::time::Timestamp;
use crate::webhook::Webhook;

/// The maximum size of a file, in bytes: what a single PUT of S3 takes, see
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html>.
pub const MAX_BYTES: u64 = 5_000_000_000;

/// The number of jobs in a part of a new batch. The index lists a batch by its parts, because one key of an index takes
/// only a thousand writes a second.
pub const JOBS_PER_PART: usize = 1000;

/// The maximum size of the defaults as JSON, in bytes. The record keeps them, and an item of DynamoDB has at most 400 KB.
/// The longest texts and metadata that the rules allow take less; spaces around a text count here, and not there.
pub const MAX_DEFAULTS_BYTES: usize = 100_000;

/// How many faults the record keeps. All of them are in the file of faults.
pub const FIRST_FAULTS: usize = 20;

/// How long a batch waits to be started.
pub const TIME_TO_START: Duration = Duration::from_secs(86_400);

spelled! {
    /// What a faulty line means for the batch.
    #[derive(Default)]
    OnBadLine, "an action",
    /// The whole batch is invalid, and nothing is painted.
    #[default]
    Refuse = "refuse",
    /// The line is left out.
    Skip = "skip",
}

spelled! {
    /// What the function `batch` does next.
    Stage, "a stage of a batch",
    /// Nothing: the file is not there.
    AwaitingInput = "awaiting_input",
    /// It checks the lines.
    Checking = "checking",
    /// Nothing: a line is faulty.
    Invalid = "invalid",
    /// It stores the jobs and sends their tickets.
    Admitting = "admitting",
    /// It looks at the jobs until they have ended.
    InProgress = "in_progress",
    /// Nothing: every job has ended, and the results are written.
    Ended = "ended",
}

/// The request to submit a batch from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileBatchOrder {
    /// The caller's name for the batch.
    pub name: Option<BatchName>,
    /// How to read the file.
    pub input: Input,
    /// Where its end, and those of its jobs, are told.
    pub webhook: Option<Webhook>,
}

/// How to read a batch's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The format of the file.
    pub format: Format,
    /// What a faulty line means.
    pub on_bad_line: OnBadLine,
    /// The fields for the jobs that leave them out.
    pub defaults: Map<String, Value>,
    /// The model for jobs that name none.
    pub model: Model,
    /// How long each job may take; `None` leaves that to the service.
    pub deadline_hours: Option<DeadlineHours>,
    /// Where each job tells its end.
    pub webhook: Option<Webhook>,
}

impl Input {
    /// Parses a line of the file as a job.
    pub fn entry(&self, line: Line) -> Result<Entry, Vec<LineFault>> {
        let mut entry = line.order(&self.defaults, self.model)?;
        entry.order.deadline_hours = self.deadline_hours;
        entry.order.webhook = self.webhook.clone();
        Ok(entry)
    }
}

impl FileBatchOrder {
    /// Whether a request to submit a batch is for one from a file.
    pub fn is_meant(value: &Value) -> bool {
        value.get("input").is_some_and(|input| !input.is_null())
    }

    /// Parses a request. The error lists every fault.
    pub fn parse(value: Value, default_model: Model) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::new(value, "")?;
        let name = fields.optional("name", |value| string(value)?.try_into());
        let defaults = fields.optional("defaults", |value| match value {
            Value::Object(map) => Ok(map),
            other => Err(format!("must be an object, not {}", kind(&other))),
        });
        let on_bad_line = fields.optional("on_bad_line", |value| string(value)?.parse());
        let format = fields.nested("input", |input, pointer| {
            let mut fields = Fields::new(input, pointer)?;
            let format = fields.required("format", |value| string(value)?.parse::<Format>());
            let errors = fields.finish();
            if errors.is_empty() { Ok(format) } else { Err(errors) }
        });
        let deadline_hours = fields.optional("deadline_hours", |value| DeadlineHours::parse(&value));
        let webhook = fields.nested("webhook", Webhook::of_batch);
        fields.optional::<(), _>("jobs", |_| Err("must not be given together with input".to_owned()));
        let mut errors = fields.finish();
        let defaults = defaults.unwrap_or_default();
        errors.extend(faults_of_defaults(&defaults, default_model));
        let bytes = serde_json::to_vec(&defaults).expect("an object is always JSON").len();
        if bytes > MAX_DEFAULTS_BYTES {
            let detail = format!("must be at most {MAX_DEFAULTS_BYTES} bytes long as JSON, but has {bytes}");
            errors.push(FieldError::new("/defaults", detail));
        }
        match format.flatten() {
            Some(format) if errors.is_empty() => {
                let on_bad_line = on_bad_line.unwrap_or_default();
                let of_jobs = webhook.as_ref().and_then(Webhook::for_jobs);
                let input =
                    Input { format, on_bad_line, defaults, model: default_model, deadline_hours, webhook: of_jobs };
                Ok(Self { name, input, webhook })
            }
            _ => Err(errors),
        }
    }

    /// A digest that is equal for two requests exactly if they ask for the same thing.
    pub fn fingerprint(&self) -> String {
        let Input { format, on_bad_line, defaults, model, deadline_hours, webhook: _ } = &self.input;
        let parts = (&self.name, format, on_bad_line, defaults, model, deadline_hours, &self.webhook);
        hex(&Sha256::digest(serde_json::to_vec(&parts).expect("an order is always JSON")))
    }
}

/// The file as it was when the batch was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its entity tag. A file with another one is not the batch's.
    pub etag: String,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// What the check found, so far or in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The lines that were read.
    pub lines: u64,
    /// The jobs among them.
    pub jobs: usize,
    /// The total number of faults.
    pub faults: u64,
    /// The first [`FIRST_FAULTS`] of them.
    pub first_faults: Vec<LineFault>,
    /// Whether one of them is a fault of the file as a whole: a repeated `custom_id`, too many lines, another format than
    /// it is said to have, or another file.
    pub is_of_file: bool,
}

impl Checked {
    /// Adds a fault.
    pub fn fault(&mut self, fault: LineFault) {
        self.faults += 1;
        if self.first_faults.len() < FIRST_FAULTS {
            self.first_faults.push(fault);
        }
    }
}

/// How far the jobs were admitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// How many jobs are stored and have a ticket.
    pub jobs: usize,
    /// Where in the file the next one is.
    pub position: Position,
}

/// Work on all jobs of a batch that its owner asked for.
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
    /// It retries the job if it has failed. The number tells one request from another.
    Retry(u64),
}

/// How far the jobs of a batch have got, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The parts with jobs that have not ended.
    pub open_parts: Vec<usize>,
    /// The jobs of all other parts.
    pub ended: Counts,
    /// All jobs, as of the last look.
    pub counts: Counts,
}

/// A batch from a file, as recorded in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct FileBatch {
    /// What it has in common with every batch. Its `total` is known once the file is checked.
    pub batch: Batch,
    /// How to read the file.
    pub input: Input,
    /// The number of jobs in each of its parts but the last.
    pub jobs_per_part: usize,
    /// The base URL of the API as its owner reached it, for the links in the results.
    pub base_url: String,
    /// The version of the record: each transition raises it by one.
    pub fence: u64,
    /// What happens next.
    pub stage: Stage,
    /// When it was started. Its jobs have this creation time.
    pub started_at: Option<Timestamp>,
    /// The file that was checked.
    pub file: Option<InputFile>,
    /// What the check found.
    pub checked: Checked,
    /// How far the jobs were admitted.
    pub admitted: Admitted,
    /// How far the jobs have got.
    pub progress: Progress,
    /// Work on all jobs that its owner asked for.
    pub pass: Option<Pass>,
    /// The keys of the last requests to retry it.
    pub retry_keys: RetryKeys,
    /// The name of the file of results. Each writer has one of its own, so that a slow one cannot replace newer results.
    pub results: Option<Uuid>,
}

/// Why a batch cannot be started or retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was not started in time.
    Expired,
    /// It is invalid, or was canceled before its jobs were admitted.
    NoJobs,
    /// Its jobs are not admitted yet.
    NotAdmitted,
    /// It is being canceled.
    BeingCanceled,
    /// Its jobs were kept as long as any, and are deleted.
    Deleted,
}

impl FileBatch {
    /// A new batch that awaits its file.
    pub fn new(batch: Batch, input: Input, base_url: String) -> Self {
        Self {
            batch,
            input,
            jobs_per_part: JOBS_PER_PART,
            base_url,
            fence: 0,
            stage: Stage::AwaitingInput,
            started_at: None,
            file: None,
            checked: Checked::default(),
            admitted: Admitted::default(),
            progress: Progress::default(),
            pass: None,
            retry_keys: RetryKeys::default(),
            results: None,
        }
    }

    fn next(&self) -> Self {
        Self { fence: self.fence + 1, ..self.clone() }
    }

    /// Whether this is the same version of the same record, regardless of whether its end was told.
    pub fn is_same_version(&self, other: &Self) -> bool {
        let batch = Batch { told_for: other.batch.told_for, ..self.batch.clone() };
        Self { batch, ..self.clone() } == *other
    }

    /// Until when it can be started.
    pub fn start_by(&self) -> Timestamp {
        self.batch.created_at + TIME_TO_START
    }

    /// Starts the batch with its uploaded file; `None` if it was started before.
    pub fn start(
        &self,
        file: InputFile,
        now: Timestamp,
        deadline: Duration,
        retention: Duration,
    ) -> Result<Option<Self>, Refused> {
        if !self.awaits_start(now)? {
            return Ok(None);
        }
        let mut next = self.next();
        next.stage = Stage::Checking;
        next.started_at = Some(now);
        next.file = Some(file);
        next.batch.deadline_at = now + DeadlineHours::or(self.input.deadline_hours, deadline);
        next.batch.expires_at = (now + retention).whole_secs();
        Ok(Some(next))
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

    /// Records how far the check has got.
    pub fn checking(&self, so_far: Checked) -> Self {
        Self { checked: so_far, ..self.next() }
    }

    /// Ends the check. Without jobs, or with a fault that may not be skipped, the batch is invalid. A line can be skipped
    /// only for a fault of its own, which the admission finds again.
    pub fn checked(&self, checked: Checked) -> Self {
        let refused = checked.faults > 0 && self.input.on_bad_line == OnBadLine::Refuse;
        let stage = if refused || checked.is_of_file || checked.jobs == 0 { Stage::Invalid } else { Stage::Admitting };
        let mut next = self.next();
        next.stage = stage;
        if stage == Stage::Admitting {
            next.batch.total = checked.jobs;
        }
        next.checked = checked;
        next
    }

    /// Records that more jobs were admitted, `none_left` if these were the last.
    pub fn admitted(&self, admitted: Admitted, none_left: bool) -> Self {
        let mut next = Self { admitted, ..self.next() };
        if none_left {
            // A newer version of the code, with other rules, may have found another number than the check.
            next.batch.total = next.admitted.jobs;
            next = next.watched();
        }
        next
    }

    /// Stops the admission: the rest of the jobs counts as canceled.
    pub fn stop_admission(&self, now: Timestamp) -> Self {
        let mut next = self.next();
        next.batch.canceled_at = next.batch.canceled_at.or(Some(now));
        next.watched()
    }

    /// Goes on to watch the jobs.
    fn watched(mut self) -> Self {
        self.stage = Stage::InProgress;
        self.progress.open_parts = (0..self.batch.total.div_ceil(self.jobs_per_part)).collect();
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

    /// Looks at all jobs again, as some have turned out not to have ended.
    pub fn reopen(&self) -> Self {
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
        match self.stage {
            Stage::Invalid | Stage::Ended => return None,
            Stage::AwaitingInput if self.start_by() <= now => return None,
            Stage::AwaitingInput | Stage::Checking => {
                next.batch.canceled_at = Some(now);
                next.stage = Stage::Ended;
            }
            Stage::Admitting => {
                next.batch.canceled_at = next.batch.canceled_at.or(Some(now));
                next.pass = Some(Pass { action: Action::Cancel, next: 0 });
            }
            Stage::InProgress => next.pass = Some(Pass { action: Action::Cancel, next: 0 }),
        }
        Some(next)
    }

    /// Retries the failed jobs; `None` if a request with this key did so before.
    pub fn retry(
        &self,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
        deadline: Duration,
        retention: Duration,
    ) -> Result<Option<Self>, Refused> {
        if key.is_some_and(|key| self.retry_keys.contain(key)) {
            return Ok(None);
        }
        match (self.stage, &self.pass) {
            (Stage::Invalid | Stage::AwaitingInput, _) => return Err(Refused::NoJobs),
            (Stage::Ended, _) if self.batch.total == 0 => return Err(Refused::NoJobs),
            (Stage::Checking | Stage::Admitting, _) => return Err(Refused::NotAdmitted),
            (_, Some(Pass { action: Action::Cancel, .. })) => return Err(Refused::BeingCanceled),
            (Stage::InProgress | Stage::Ended, _) => {}
        }
        if self.started_at.is_some_and(|at| at + retention <= now) {
            return Err(Refused::Deleted);
        }
        let mut next = self.next().watched();
        next.pass = Some(Pass { action: Action::Retry(next.fence), next: 0 });
        next.retry_keys = self.retry_keys.with(key);
        next.batch.retried_at = Some(now.max(self.batch.since() + Duration::from_millis(1)));
        next.batch.deadline_at = now + DeadlineHours::or(self.input.deadline_hours, deadline);
        next.batch.expires_at = (now + retention).whole_secs();
        Ok(Some(next))
    }

    /// The status of an admitted job that the table or its index does not have, and of one that was not admitted.
    pub fn status_of_missing(&self, now: Timestamp) -> Status {
        if self.batch.canceled_at.is_some() {
            Status::Canceled
        } else if self.batch.deadline_at <= now {
            Status::Failed
        } else {
            Status::Queued
        }
    }

    /// The maximum number of jobs that are stored: those that are admitted, and those of one more step, which may be
    /// under way or may have been when the admission stopped.
    pub fn most_stored(&self) -> usize {
        self.batch.total.min(self.admitted.jobs + self.jobs_per_part)
    }

    /// The indexes of the jobs of a part.
    pub fn jobs_of_part(&self, part: usize) -> std::ops::Range<usize> {
        let begin = part * self.jobs_per_part;
        begin..self.batch.total.min(begin + self.jobs_per_part)
    }

    /// The status as its owner sees it.
    pub fn status(&self, now: Timestamp) -> BatchStatus {
        match self.stage {
            Stage::AwaitingInput if self.start_by() <= now => BatchStatus::Expired,
            Stage::AwaitingInput => BatchStatus::AwaitingInput,
            Stage::Checking => BatchStatus::Checking,
            Stage::Invalid => BatchStatus::Invalid,
            Stage::Admitting => BatchStatus::Admitting,
            Stage::InProgress => BatchStatus::InProgress,
            Stage::Ended if self.batch.total == 0 => BatchStatus::Canceled,
            Stage::Ended => match self.progress.counts.status() {
                BatchStatus::Completed if self.checked.faults > 0 => BatchStatus::CompletedWithErrors,
                status => status,
            },
        }
    }

    /// For how long the function `batch` has been at work on it, since its start or its last retry.
    pub fn age(&self, now: Timestamp) -> Duration {
        self.batch.retried_at.or(self.started_at).map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Whether the function `batch` has something to do.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Checking | Stage::Admitting | Stage::InProgress)
    }

    /// Whether it has come to its end: every job has ended, or the file was refused.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Invalid | Stage::Ended)
    }

    /// Counts all jobs, as of the last look at them. Admitted jobs at which nobody has looked yet count as queued.
    pub fn last_counts(&self, now: Timestamp) -> Counts {
        let unknown = self.admitted.jobs.saturating_sub(self.progress.counts.total);
        let unknown = Counts { total: unknown, queued: unknown, ..Counts::default() };
        self.with_missing([self.progress.counts, unknown].into_iter().sum(), now)
    }

    /// Counts all jobs, if those that were found have these `counts`.
    pub fn with_missing(&self, counts: Counts, now: Timestamp) -> Counts {
        let missing = self.batch.total.saturating_sub(counts.total);
        [counts, Counts::of(std::iter::repeat_n(self.status_of_missing(now), missing))].into_iter().sum()
    }

    /// Whether the file of faults is complete, and lists any. A batch that was canceled during the check has none.
    pub fn has_faults(&self) -> bool {
        let was_checked = match self.stage {
            Stage::AwaitingInput | Stage::Checking => false,
            Stage::Invalid | Stage::Admitting | Stage::InProgress => true,
            Stage::Ended => self.batch.total > 0,
        };
        was_checked && self.checked.faults > 0
    }

    /// The name of the file of results; `None` while it is not complete.
    pub fn complete_results(&self) -> Option<Uuid> {
        self.results.filter(|_| self.stage == Stage::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Owner;
    use crate::id::BatchId;
    use serde_json::json;

    const HOUR: Duration = Duration::from_secs(3600);

    fn awaiting() -> FileBatch {
        let order = FileBatchOrder::parse(json!({ "input": { "format": "csv" } }), Model::Core).expect("an order");
        let batch = Batch {
            id: BatchId::new(),
            owner: Owner::new("somebody"),
            name: None,
            total: 0,
            created_at: Timestamp::from_ms(0),
            deadline_at: Timestamp::from_ms(0) + HOUR,
            expires_at: Timestamp::from_ms(0) + 100 * HOUR,
            fingerprint: order.fingerprint(),
            writing: None,
            canceled_at: None,
            retried_at: None,
            webhook: None,
            told_for: None,
        };
        FileBatch::new(batch, order.input, "https://example.com".to_owned())
    }

    fn started() -> FileBatch {
        let file = InputFile { etag: "a".to_owned(), bytes: 7 };
        awaiting().start(file, Timestamp::from_ms(5), HOUR, 100 * HOUR).expect("in time").expect("for the first time")
    }

    fn checked(jobs: usize) -> FileBatch {
        started().checked(Checked { lines: jobs as u64, jobs, ..Checked::default() })
    }

    fn watched(jobs: usize) -> FileBatch {
        checked(jobs).admitted(Admitted { jobs, position: Position::default() }, true)
    }

    fn counts(succeeded: usize, failed: usize) -> Counts {
        Counts { total: succeeded + failed, succeeded, failed, ..Counts::default() }
    }

    #[test]
    fn an_order_names_every_fault() {
        let order = json!({
            "input": { "format": "xlsx", "x": 1 }, "jobs": [], "on_bad_line": "ask", "defaults": { "seed": 0 }, "name": ""
        });
        let faults = FileBatchOrder::parse(order, Model::Core).expect_err("faults");
        let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/defaults/seed", "/input/format", "/input/x", "/jobs", "/name", "/on_bad_line"]);
        let faults = FileBatchOrder::parse(json!({ "input": {} }), Model::Core).expect_err("faults");
        assert_eq!(faults[0].pointer, "/input/format");
    }

    #[test]
    fn a_batch_is_checked_admitted_watched_and_ended() {
        let now = Timestamp::from_ms(10);
        let mut batch = started();
        assert_eq!(batch.status(now), BatchStatus::Checking);
        assert_eq!(batch.start(batch.file.clone().expect("a file"), now, HOUR, HOUR), Ok(None));
        batch = checked(2500);
        assert_eq!((batch.status(now), batch.batch.total), (BatchStatus::Admitting, 2500));
        batch = batch.admitted(Admitted { jobs: 1000, position: Position::default() }, false);
        assert_eq!(batch.status(now), BatchStatus::Admitting);
        batch = batch.admitted(Admitted { jobs: 2500, position: Position::default() }, true);
        assert_eq!((batch.status(now), &batch.progress.open_parts), (BatchStatus::InProgress, &vec![0, 1, 2]));
        assert_eq!([0, 2].map(|part| batch.jobs_of_part(part)), [0..1000, 2000..2500]);
        assert_eq!(batch.end(counts(2500, 0), Uuid::nil()).status(now), BatchStatus::Completed);
        assert_eq!(batch.end(counts(2499, 1), Uuid::nil()).status(now), BatchStatus::CompletedWithErrors);
        batch.checked.faults = 1;
        assert_eq!(
            batch.end(counts(2500, 0), Uuid::nil()).status(now),
            BatchStatus::CompletedWithErrors,
            "a line was skipped"
        );
    }

    #[test]
    fn a_faulty_line_makes_a_batch_invalid_unless_it_may_be_skipped() {
        let mut checked = Checked { lines: 2, jobs: 1, ..Checked::default() };
        checked.fault(LineFault { line: 2, pointer: "/prompt".to_owned(), detail: "is required".to_owned() });
        let mut batch = started();
        assert_eq!(batch.checked(checked.clone()).stage, Stage::Invalid);
        batch.input.on_bad_line = OnBadLine::Skip;
        assert_eq!(batch.checked(checked.clone()).stage, Stage::Admitting);
        let of_file = Checked { is_of_file: true, ..checked.clone() };
        assert_eq!(batch.checked(of_file).stage, Stage::Invalid, "no line is faulty by itself");
        assert_eq!(batch.checked(Checked { jobs: 0, ..checked }).stage, Stage::Invalid, "no job is left");
    }

    #[test]
    fn a_batch_that_is_not_started_within_a_day_expires() {
        let (late, file) = (Timestamp::from_ms(0) + TIME_TO_START, started().file.expect("a file"));
        assert_eq!(awaiting().status(late), BatchStatus::Expired);
        assert_eq!(awaiting().start(file, late, HOUR, HOUR), Err(Refused::Expired));
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
        let some = checked(3).admitted(Admitted { jobs: 1, position: Position::default() }, false);
        let shown = some.cancel(now).expect("it has not ended").last_counts(now);
        assert_eq!((shown.queued, shown.canceled), (1, 2), "nobody knows yet what became of the first");
        assert!(watched(3).cancel(now).expect("it has not ended").pass.is_some());
        assert_eq!(watched(3).end(counts(3, 0), Uuid::nil()).cancel(now), None);
        assert_eq!(started().checked(Checked::default()).cancel(now), None);
    }

    #[test]
    fn a_retry_looks_at_every_job_again_and_is_done_once_for_each_key() {
        let (now, key) = (Timestamp::from_ms(10), "friday".parse().expect("a key"));
        let ended = watched(1500).end(counts(1499, 1), Uuid::nil());
        let retried = ended.retry(Some(&key), now, HOUR, HOUR).expect("allowed").expect("for the first time");
        assert_eq!((retried.stage, retried.progress.open_parts.len()), (Stage::InProgress, 2));
        assert_eq!(retried.pass, Some(Pass { action: Action::Retry(retried.fence), next: 0 }));
        assert_eq!(retried.retry(Some(&key), now, HOUR, HOUR), Ok(None));
        let refused = |batch: FileBatch| batch.retry(None, now, HOUR, HOUR).expect_err("refused");
        assert_eq!(refused(awaiting()), Refused::NoJobs);
        assert_eq!(refused(awaiting().cancel(now).expect("canceled")), Refused::NoJobs);
        assert_eq!(refused(checked(3)), Refused::NotAdmitted);
        assert_eq!(refused(watched(3).cancel(now).expect("canceled")), Refused::BeingCanceled);
        let ended = watched(3).end(counts(2, 1), Uuid::nil());
        let late = ended.started_at.expect("it was started") + 24 * HOUR;
        assert_eq!(ended.retry(None, late, HOUR, 24 * HOUR), Err(Refused::Deleted));
        assert!(ended.retry(None, late, HOUR, 25 * HOUR).is_ok());
    }
}
