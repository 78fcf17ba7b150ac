//! The life of a job: its states, and all transitions between them. See [the crate](crate) for the fence.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::{IdempotencyKey, KeyDigests, Owner};
use crate::id::{BatchId, JobId};
use crate::image::{Image, Variant};
use crate::label::CustomId;
use crate::order::{DeadlineHours, Order};
use crate::settings::Settings;
use crate::spelled::spelled;
use crate::time::Timestamp;

/// A job, as recorded in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Job {
    pub id: JobId,
    pub owner: Owner,
    pub order: Order,
    pub membership: Option<Membership>,
    pub created_at: Timestamp,
    /// When it was last queued, by its submission or a retry.
    pub queued_at: Timestamp,
    /// When it fails if it has not ended by then.
    pub deadline_at: Timestamp,
    /// When its record and files are deleted.
    pub expires_at: Timestamp,
    pub fence: u64,
    /// How many paintings were started that may have been billed.
    pub attempts: u32,
    /// How many times the model was busy.
    pub throttles: u32,
    /// How many times a worker claimed the job but started no painting that counts.
    pub setbacks: u32,
    /// When a worker last claimed it.
    pub started_at: Option<Timestamp>,
    /// Until when a worker may still be working on it, even if it was canceled in the meantime.
    pub held_until: Option<Timestamp>,
    /// Why it has not ended yet, or the last error before it ended.
    pub last_error: Option<LastError>,
    /// Until when a worker that held the job before its last retry may store a file, under a key of its own.
    pub former_until: Option<Timestamp>,
    /// The keys of the requests that retried it, newest last, so that a repeated request does not retry it again.
    pub retry_keys: RetryKeys,
    /// The [`Job::queued_at`] of the last end whose event is in the queue, set without a new version of the record.
    pub told_for: Option<Timestamp>,
    pub state: JobState,
}

/// Digests of the last keys that retried a job or a batch. Each takes 17 bytes of the record.
pub type RetryKeys = KeyDigests<16>;

/// A job's place in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The batch.
    pub batch: BatchId,
    /// The part of the batch, under which the index lists the job.
    pub part: usize,
    /// The caller's name for the job.
    pub custom_id: Option<CustomId>,
}

/// The state of a job, with the data of that state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum JobState {
    /// It waits for a worker.
    Queued,
    /// A worker has claimed it.
    Running(Lease),
    /// Its picture is stored.
    Succeeded { finished_at: Timestamp, image: Image },
    /// It has no picture and will get none.
    Failed { finished_at: Timestamp, error: JobError },
    /// Its owner canceled it.
    Canceled { finished_at: Timestamp },
}

spelled! {
    /// The name of a job's state.
    Status, "a status",
    Queued = "queued",
    Running = "running",
    Succeeded = "succeeded",
    Failed = "failed",
    Canceled = "canceled",
}

/// A worker's right to work on a job, which expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Identifies this lease, so that a worker whose answer was lost recognizes its own write.
    pub id: Uuid,
    /// When it ends.
    pub until: Timestamp,
}

impl Lease {
    /// A new lease that ends at `until`.
    pub fn new(until: Timestamp) -> Self {
        Self { id: Uuid::new_v4(), until }
    }

    /// The same lease, but expired: since the beginning of time, so that setting a clock back cannot revive it.
    fn ended(self) -> Self {
        Self { until: Timestamp::from_ms(0), ..self }
    }
}

spelled! {
    /// Why a job failed or has not ended yet.
    ErrorCode, "an error code",
    ContentFiltered = "content_filtered",
    InvalidRequest = "invalid_request",
    /// The model failed, timed out, or returned no picture.
    ModelError = "model_error",
    DeadlineExceeded = "deadline_exceeded",
    /// The maximum number of paintings was started, or the ticket moved to the dead-letter queue.
    AttemptsExhausted = "attempts_exhausted",
    TypesettingFailed = "typesetting_failed",
    Internal = "internal",
    Throttled = "throttled",
    ModelAccessDenied = "model_access_denied",
    /// The model is unreachable or has no capacity.
    ModelUnavailable = "model_unavailable",
    ModelNotFound = "model_not_found",
    StorageUnavailable = "storage_unavailable",
}

impl ErrorCode {
    /// Whether the same order may succeed later.
    pub const fn may_pass(self) -> bool {
        !matches!(self, Self::ContentFiltered | Self::InvalidRequest)
    }
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct JobError {
    pub code: ErrorCode,
    pub message: String,
    /// Whether retrying the job may succeed.
    pub retryable: bool,
    /// Whether a painting may have been billed.
    pub billed: bool,
}

/// Why a job has not ended yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct LastError {
    pub code: ErrorCode,
    pub message: String,
    pub at: Timestamp,
}

/// Why a worker may not claim a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// The job has ended.
    Ended,
    /// Another worker holds it until this time.
    Leased(Timestamp),
    /// Its deadline has passed.
    DeadlinePassed,
    /// The maximum number of paintings was started.
    AttemptsExhausted,
}

/// Whether a failed attempt may have been billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Maybe, so it counts.
    Counts,
    /// No: the model did not start.
    NeverBegan,
}

/// How long a job may take if its order does not say it, and how long it is kept.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Terms {
    pub deadline: Duration,
    pub retention: Duration,
}

impl Terms {
    /// Reads the settings.
    pub fn read(settings: &mut Settings<'_>) -> Self {
        let deadline = settings.time("DEADLINE_HOURS", 1..=DeadlineHours::MAX, Duration::from_hours(1));
        Self { deadline, retention: settings.time("RETENTION_DAYS", 5..=3650, Duration::from_hours(24)) }
    }

    pub(crate) fn deadline_at(self, hours: Option<DeadlineHours>, now: Timestamp) -> Timestamp {
        now + DeadlineHours::or(hours, self.deadline)
    }

    /// Rounded up to a second for DynamoDB's TTL.
    pub(crate) fn expires_at(self, now: Timestamp) -> Timestamp {
        (now + self.retention).whole_secs()
    }
}

impl Job {
    /// A new job.
    pub fn new(id: JobId, owner: Owner, order: Order, now: Timestamp, terms: Terms) -> Self {
        Self {
            id,
            owner,
            deadline_at: terms.deadline_at(order.deadline_hours, now),
            order,
            membership: None,
            created_at: now,
            queued_at: now,
            expires_at: terms.expires_at(now),
            fence: 0,
            attempts: 0,
            throttles: 0,
            setbacks: 0,
            started_at: None,
            held_until: None,
            last_error: None,
            former_until: None,
            retry_keys: RetryKeys::default(),
            told_for: None,
            state: JobState::Queued,
        }
    }

    /// Whether this stored job is the one that a submission `wanted` to store. A job that was retried may outlive its
    /// batch, and so have the id of a job of the next batch with the same key.
    pub fn is_as_wanted(&self, wanted: &Self) -> bool {
        self.order == wanted.order && self.membership == wanted.membership
    }

    /// Whether this is the same version of the same job.
    pub fn is_same_version(&self, other: &Self) -> bool {
        Self { told_for: other.told_for, ..self.clone() } == *other
    }

    /// The name of the state.
    pub fn status(&self) -> Status {
        match self.state {
            JobState::Queued => Status::Queued,
            JobState::Running(_) => Status::Running,
            JobState::Succeeded { .. } => Status::Succeeded,
            JobState::Failed { .. } => Status::Failed,
            JobState::Canceled { .. } => Status::Canceled,
        }
    }

    /// When the job ended; `None` if it has not.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match &self.state {
            JobState::Queued | JobState::Running(_) => None,
            JobState::Succeeded { finished_at, .. }
            | JobState::Failed { finished_at, .. }
            | JobState::Canceled { finished_at } => Some(*finished_at),
        }
    }

    /// The key of one of the job's files. It has the time when the job was queued, so a job with the id of an expired
    /// one cannot find the old picture, and deleting a canceled job's late picture cannot delete that of its retry.
    pub fn image_key(&self, variant: Variant) -> String {
        let key = format!("{}{}", self.files_prefix(), self.queued_at.ms());
        match variant {
            Variant::Image => key,
            Variant::Artwork | Variant::Thumbnail => format!("{key}-{variant}"),
        }
    }

    /// The key prefix of all files of the job, including those from before a retry.
    pub fn files_prefix(&self) -> String {
        format!("images/{}/", self.id)
    }

    /// Whether this is the key of a file from before the job was last queued.
    pub fn is_earlier_file(&self, key: &str) -> bool {
        let name = key.strip_prefix(&self.files_prefix()).and_then(|name| name.split('-').next());
        name.and_then(|queued_at| queued_at.parse().ok()).is_some_and(|queued_at: i64| queued_at < self.queued_at.ms())
    }

    /// The files that the job can have.
    pub fn variants(&self) -> &'static [Variant] {
        match self.order.poster {
            Some(_) => &[Variant::Image, Variant::Artwork, Variant::Thumbnail],
            None => &[Variant::Image, Variant::Thumbnail],
        }
    }

    /// Claims the job for one painting, which is counted now, before the model is called.
    pub fn claim(&self, lease: Lease, max_attempts: u32, now: Timestamp) -> Result<Claimed, ClaimRefused> {
        match self.state {
            JobState::Queued => {}
            JobState::Running(held) if held.until > now => return Err(ClaimRefused::Leased(held.until)),
            JobState::Running(_) => {}
            _ => return Err(ClaimRefused::Ended),
        }
        if self.deadline_at <= now {
            return Err(ClaimRefused::DeadlinePassed);
        }
        if self.attempts >= max_attempts {
            return Err(ClaimRefused::AttemptsExhausted);
        }
        let mut job = self.advanced(JobState::Running(lease));
        job.attempts += 1;
        job.started_at = Some(now);
        job.held_until = Some(lease.until);
        Ok(Claimed(job))
    }

    /// Fails a job that no worker holds; `None` if one does, or if the job has ended.
    pub fn give_up(&self, code: ErrorCode, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| {
            let message = match code {
                ErrorCode::DeadlineExceeded => "The job's deadline passed before there was a picture.",
                ErrorCode::AttemptsExhausted => "The job has no attempts left.",
                _ => "The service could not finish the job.",
            };
            let message = match &self.last_error {
                Some(last) => format!("{message} Last error: {}", last.message),
                None => message.to_owned(),
            };
            self.failed(code, message, now)
        })
    }

    /// Completes a job with the picture that a lost worker stored; `None` if a worker holds the job, or it has ended.
    pub fn adopt(&self, image: Image, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| self.advanced(JobState::Succeeded { finished_at: now, image }))
    }

    /// Ends a live lease, so that another worker can claim the job at once; `None` if there is none. Only for callers
    /// who know that every worker is dead, such as the local stack when it starts.
    pub fn abandon(&self, now: Timestamp) -> Option<Self> {
        match self.state {
            JobState::Running(lease) if lease.until > now => {
                let state = JobState::Running(lease.ended());
                Some(Self { held_until: None, ..self.advanced(state) })
            }
            _ => None,
        }
    }

    /// Cancels a job that has not ended. A worker's picture of it will be rejected. The error is the final state.
    pub fn cancel(&self, now: Timestamp) -> Result<Self, Status> {
        match self.state {
            JobState::Queued | JobState::Running(_) => Ok(self.advanced(JobState::Canceled { finished_at: now })),
            _ => Err(self.status()),
        }
    }

    /// Queues a failed or canceled job again, like a new job with the same id and age. A queued job only remembers the
    /// key, so that the same request does not retry it later. The error is a state that cannot be retried. `queued_at`
    /// grows even if the clock does not, because it distinguishes the files before and after a retry.
    pub fn retry(&self, key: Option<&IdempotencyKey>, now: Timestamp, terms: Terms) -> Result<Self, Status> {
        match self.state {
            JobState::Failed { .. } | JobState::Canceled { .. } => Ok(Self {
                attempts: 0,
                throttles: 0,
                setbacks: 0,
                started_at: None,
                held_until: None,
                last_error: None,
                queued_at: now.max(self.queued_at + Duration::from_millis(1)),
                deadline_at: terms.deadline_at(self.order.deadline_hours, now),
                expires_at: terms.expires_at(now),
                former_until: self.files_until(now),
                retry_keys: self.retry_keys.with(key),
                ..self.advanced(JobState::Queued)
            }),
            JobState::Queued => Ok(Self { retry_keys: self.retry_keys.with(key), ..self.advanced(JobState::Queued) }),
            _ => Err(self.status()),
        }
    }

    /// Until when a worker may store a file of the job, counting earlier workers; `None` if there is none.
    fn files_until(&self, now: Timestamp) -> Option<Timestamp> {
        let own = (self.attempts > 0).then(|| self.held_until.map_or(now, |until| until.max(now)));
        own.max(self.former_until)
    }

    /// Whether the job's deadline has passed and no worker holds it.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline_at <= now && self.idle(now)
    }

    fn idle(&self, now: Timestamp) -> bool {
        match self.state {
            JobState::Queued => true,
            JobState::Running(lease) => lease.until <= now,
            _ => false,
        }
    }

    /// The job may have been billed exactly if an attempt was counted.
    fn failed(&self, code: ErrorCode, message: String, now: Timestamp) -> Self {
        let error = JobError { code, message, retryable: code.may_pass(), billed: self.attempts > 0 };
        self.advanced(JobState::Failed { finished_at: now, error })
    }

    fn advanced(&self, state: JobState) -> Self {
        Self { fence: self.fence + 1, state, ..self.clone() }
    }
}

/// A job that this worker holds. Only a claim creates it, and each way to end it consumes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed(Job);

impl std::ops::Deref for Claimed {
    type Target = Job;
    fn deref(&self) -> &Job {
        &self.0
    }
}

impl Claimed {
    /// Completes the job with its stored picture.
    pub fn succeed(self, image: Image, now: Timestamp) -> Job {
        Job { held_until: None, ..self.0.advanced(JobState::Succeeded { finished_at: now, image }) }
    }

    /// Fails the job. `attempt` says whether this painting may have been billed.
    pub fn fail(self, code: ErrorCode, message: String, attempt: Attempt, now: Timestamp) -> Job {
        Job { held_until: None, ..self.settled(attempt).failed(code, message, now) }
    }

    /// Releases the job for the next worker. Its state stays `running`, with an expired lease, so that callers never
    /// see a status go backwards.
    pub fn release(self, error: LastError, attempt: Attempt) -> Job {
        let mut job = match self.0.state {
            JobState::Running(lease) => self.settled(attempt).advanced(JobState::Running(lease.ended())),
            _ => unreachable!("a claimed job is running"),
        };
        if error.code == ErrorCode::Throttled {
            job.throttles += 1;
        }
        job.held_until = None;
        job.last_error = Some(error);
        job
    }

    /// Uncounts the attempt if no painting was started.
    fn settled(self, attempt: Attempt) -> Job {
        let mut job = self.0;
        if attempt == Attempt::NeverBegan {
            job.attempts -= 1;
            job.setbacks += 1;
        }
        job
    }
}

#[cfg(test)]
mod tests;
