//! The life of a job: its states, and the only ways from one to the next.
//!
//! A transition takes the present time and gives back the job as it should be stored. It never changes the job it is
//! called on, and it raises the *fence* by one; the store accepts a job only where the stored fence is one lower.
//! Whoever acts on a job that has moved on since is thereby refused, however late it comes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::{IdempotencyKey, Owner};
use crate::id::{BatchId, JobId};
use crate::image::{Image, Variant};
use crate::label::CustomId;
use crate::order::Order;
use crate::spelled::spelled;
use crate::time::Timestamp;

/// A job's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's name.
    pub id: JobId,
    /// Who may see it.
    pub owner: Owner,
    /// What to paint.
    pub order: Order,
    /// The batch that it belongs to, if it does.
    pub membership: Option<Membership>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it was queued: at its submission, or when it was last retried.
    pub queued_at: Timestamp,
    /// When it fails if it still waits.
    pub deadline_at: Timestamp,
    /// When the record and the picture are deleted.
    pub expires_at: Timestamp,
    /// The number of this version of the record.
    pub fence: u64,
    /// How many paintings were begun that may have been paid for.
    pub attempts: u32,
    /// How many times the model was too busy to begin.
    pub throttles: u32,
    /// How many times a worker took the job up and had no painting begun that counts.
    pub setbacks: u32,
    /// When a worker last took the job up.
    pub started_at: Option<Timestamp>,
    /// Until when a worker may still be at it, even if the job was canceled meanwhile.
    pub held_until: Option<Timestamp>,
    /// Why the job still waits, or what went wrong before it ended.
    pub last_error: Option<LastError>,
    /// Until when a worker that held the job before its last retry may store a file of it; `None` when none can have.
    /// Such files lie under keys of their own, and nobody asks for them.
    pub former_until: Option<Timestamp>,
    /// The keys of the requests that have retried it, newest last, so that none of them retries it again.
    pub retry_keys: RetryKeys,
    /// Where the job stands.
    pub state: JobState,
}

/// Digests of the keys of the last requests that have retried a job, of which it remembers [`RetryKeys::MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RetryKeys(Vec<String>);

impl RetryKeys {
    /// How many are remembered. Each takes 17 bytes of the job's record.
    pub const MOST: usize = 16;

    /// The same keys and the one of this digest, of which there may be more digits than are kept.
    pub fn with_digest(mut self, digest: &str) -> Self {
        let digest = digest.chars().take(16).collect();
        if !self.0.contains(&digest) {
            self.0.push(digest);
        }
        self
    }

    /// Whether a request with this key is among them.
    pub fn contain(&self, key: &IdempotencyKey) -> bool {
        self.0.contains(&key.digest())
    }

    /// The same keys and this one, without the oldest where they would be too many.
    fn with(&self, key: Option<&IdempotencyKey>) -> Self {
        let mut keys = self.0.clone();
        keys.extend(key.map(IdempotencyKey::digest));
        keys.drain(..keys.len().saturating_sub(Self::MOST));
        Self(keys)
    }
}

/// A job's place in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The batch.
    pub batch: BatchId,
    /// The caller's name for the job.
    pub custom_id: Option<CustomId>,
}

/// Where a job stands, with what is true only there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Running(Lease),
    /// Its picture is there.
    Succeeded {
        /// When the picture was recorded.
        finished_at: Timestamp,
        /// The picture.
        image: Image,
    },
    /// There will be no picture.
    Failed {
        /// When it was given up.
        finished_at: Timestamp,
        /// Why.
        error: JobError,
    },
    /// Its owner no longer wants it.
    Canceled {
        /// When it was canceled.
        finished_at: Timestamp,
    },
}

spelled! {
    /// The name of a state.
    Status, "a status",
    /// See [`JobState::Queued`].
    Queued = "queued",
    /// See [`JobState::Running`].
    Running = "running",
    /// See [`JobState::Succeeded`].
    Succeeded = "succeeded",
    /// See [`JobState::Failed`].
    Failed = "failed",
    /// See [`JobState::Canceled`].
    Canceled = "canceled",
}

/// A worker's right to a job, which ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Tells this lease from every other, so that a worker whose write succeeded but whose answer was lost knows its
    /// own write again.
    pub id: Uuid,
    /// When it ends.
    pub until: Timestamp,
}

impl Lease {
    /// A new lease that ends at `until`.
    pub fn new(until: Timestamp) -> Self {
        Self { id: Uuid::new_v4(), until }
    }

    /// The same lease, ended. It ended at the beginning of time, so that no clock that is set back can revive it.
    fn ended(self) -> Self {
        Self { until: Timestamp::from_ms(0), ..self }
    }
}

spelled! {
    /// What kept a job from its picture.
    ErrorCode, "an error code",
    /// The model's filter refused the prompt or the picture.
    ContentFiltered = "content_filtered",
    /// The model refused the request.
    InvalidRequest = "invalid_request",
    /// The model failed, did not answer in time, or answered what is no picture.
    ModelError = "model_error",
    /// The deadline passed before there was a picture.
    DeadlineExceeded = "deadline_exceeded",
    /// As many paintings as are allowed were begun without a picture, or the ticket was given up.
    AttemptsExhausted = "attempts_exhausted",
    /// The picture was painted, but the lettering cannot be set over it.
    TypesettingFailed = "typesetting_failed",
    /// A fault of ours.
    Internal = "internal",
    /// The model is too busy.
    Throttled = "throttled",
    /// The service may not use the model.
    ModelAccessDenied = "model_access_denied",
    /// The model cannot be reached, or Bedrock has no capacity for it.
    ModelUnavailable = "model_unavailable",
    /// The model does not exist in its region.
    ModelNotFound = "model_not_found",
    /// The picture cannot be stored.
    StorageUnavailable = "storage_unavailable",
}

impl ErrorCode {
    /// Whether the same order may succeed another time.
    pub const fn may_pass(self) -> bool {
        !matches!(self, Self::ContentFiltered | Self::InvalidRequest)
    }
}

/// Why a job has no picture and will have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A name for programs to branch on.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
    /// Whether the same order may succeed if the job is retried.
    pub retryable: bool,
    /// Whether a painting may have been paid for.
    pub billed: bool,
}

/// Why an unfinished job still waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// A name for programs to branch on.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
}

/// Why a worker may not take a job up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// The job has ended.
    Ended,
    /// Another worker has it until then.
    Leased(Timestamp),
    /// Its deadline has passed.
    DeadlinePassed,
    /// As many paintings as are allowed were begun.
    AttemptsExhausted,
}

/// Whether an attempt that came to nothing may have been paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may have been, and counts.
    Counts,
    /// The model never began, so it does not count.
    NeverBegan,
}

impl Job {
    /// A job that waits for its first worker.
    ///
    /// It is kept to the full second, because that is how DynamoDB counts the time to live of a record.
    pub fn new(id: JobId, owner: Owner, order: Order, now: Timestamp, deadline: Duration, retention: Duration) -> Self {
        Self {
            id,
            owner,
            order,
            membership: None,
            created_at: now,
            queued_at: now,
            deadline_at: now + deadline,
            expires_at: (now + retention).whole_secs(),
            fence: 0,
            attempts: 0,
            throttles: 0,
            setbacks: 0,
            started_at: None,
            held_until: None,
            last_error: None,
            former_until: None,
            retry_keys: RetryKeys::default(),
            state: JobState::Queued,
        }
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

    /// When the job ended, if it has.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match &self.state {
            JobState::Queued | JobState::Running(_) => None,
            JobState::Succeeded { finished_at, .. }
            | JobState::Failed { finished_at, .. }
            | JobState::Canceled { finished_at } => Some(*finished_at),
        }
    }

    /// Where in the bucket one of the job's files lies.
    ///
    /// The time at which the job was queued is part of it. So a job whose idempotency key was used before, and whose
    /// earlier record was deleted when its retention ended, cannot find the old picture; and whoever deletes the late
    /// picture of a canceled job cannot meet the picture of the same job after a retry.
    pub fn image_key(&self, variant: Variant) -> String {
        let key = format!("{}{}", self.files_prefix(), self.queued_at.ms());
        match variant {
            Variant::Image => key,
            Variant::Artwork | Variant::Thumbnail => format!("{key}-{variant}"),
        }
    }

    /// What the keys of all files of the job begin with, those of its earlier lives among them.
    pub fn files_prefix(&self) -> String {
        format!("images/{}/", self.id)
    }

    /// Whether this is the key of a file that was stored for the job before it was last queued.
    pub fn is_earlier_file(&self, key: &str) -> bool {
        let name = key.strip_prefix(&self.files_prefix()).and_then(|name| name.split('-').next());
        name.and_then(|queued_at| queued_at.parse().ok()).is_some_and(|queued_at: i64| queued_at < self.queued_at.ms())
    }

    /// The files that the job may have in the bucket.
    pub fn variants(&self) -> &'static [Variant] {
        match self.order.poster {
            Some(_) => &[Variant::Image, Variant::Artwork, Variant::Thumbnail],
            None => &[Variant::Image, Variant::Thumbnail],
        }
    }

    /// Takes the job up for one painting, which is counted now, before the model is called.
    ///
    /// # Errors
    /// Why it may not be taken up.
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

    /// Fails a job that nobody works on; `None` when somebody does, or when it has ended.
    pub fn give_up(&self, code: ErrorCode, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| {
            let message = match code {
                ErrorCode::DeadlineExceeded => "The job's deadline passed before there was a picture.",
                ErrorCode::AttemptsExhausted => "The job was given up after as many attempts as are allowed.",
                _ => "The service could not finish the job.",
            };
            let message = match &self.last_error {
                Some(last) => format!("{message} The last thing in its way: {}", last.message),
                None => message.to_owned(),
            };
            self.failed(code, message, now)
        })
    }

    /// Finishes a job that nobody works on with the picture that a lost worker left behind; `None` when somebody works
    /// on it, or when it has ended.
    pub fn adopt(&self, image: Image, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| self.advanced(JobState::Succeeded { finished_at: now, image }))
    }

    /// Ends the lease of a worker that is known to be dead, so that another one need not wait for it to end by itself;
    /// `None` when no lease lives.
    ///
    /// Only somebody who knows that every worker is dead may do this, as whoever runs all of them on one machine does
    /// when it starts.
    pub fn abandon(&self, now: Timestamp) -> Option<Self> {
        match self.state {
            JobState::Running(lease) if lease.until > now => {
                let state = JobState::Running(lease.ended());
                Some(Self { held_until: None, ..self.advanced(state) })
            }
            _ => None,
        }
    }

    /// Cancels a job that has not ended, whoever works on it: that worker's picture will be refused.
    ///
    /// # Errors
    /// The state in which the job has ended.
    pub fn cancel(&self, now: Timestamp) -> Result<Self, Status> {
        match self.state {
            JobState::Queued | JobState::Running(_) => Ok(self.advanced(JobState::Canceled { finished_at: now })),
            _ => Err(self.status()),
        }
    }

    /// Queues a job anew that failed or was canceled, with everything as for a new job but its name and its age. A job
    /// that is queued already only remembers the key, so that the same request does not retry it later.
    ///
    /// `queued_at` always grows, whatever the clock says, because it tells the files of one life from those of another.
    ///
    /// # Errors
    /// The state in which the job cannot be retried.
    pub fn retry(
        &self,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
        deadline: Duration,
        retention: Duration,
    ) -> Result<Self, Status> {
        match self.state {
            JobState::Failed { .. } | JobState::Canceled { .. } => Ok(Self {
                attempts: 0,
                throttles: 0,
                setbacks: 0,
                started_at: None,
                held_until: None,
                last_error: None,
                queued_at: now.max(self.queued_at + Duration::from_millis(1)),
                deadline_at: now + deadline,
                expires_at: (now + retention).whole_secs(),
                former_until: self.files_until(now),
                retry_keys: self.retry_keys.with(key),
                ..self.advanced(JobState::Queued)
            }),
            JobState::Queued => Ok(Self { retry_keys: self.retry_keys.with(key), ..self.advanced(JobState::Queued) }),
            _ => Err(self.status()),
        }
    }

    /// Until when a worker may store a file of the job, or of an earlier life of it; `None` when none can have.
    fn files_until(&self, now: Timestamp) -> Option<Timestamp> {
        let own = (self.attempts > 0).then(|| self.held_until.map_or(now, |until| until.max(now)));
        own.max(self.former_until)
    }

    /// Whether the job's deadline has passed while nobody works on it.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline_at <= now && self.idle(now)
    }

    /// Whether the job has not ended and no worker's lease on it lives.
    fn idle(&self, now: Timestamp) -> bool {
        match self.state {
            JobState::Queued => true,
            JobState::Running(lease) => lease.until <= now,
            _ => false,
        }
    }

    /// Whatever ends a job, it may have been paid for if an attempt was counted, and only then.
    fn failed(&self, code: ErrorCode, message: String, now: Timestamp) -> Self {
        let error = JobError { code, message, retryable: code.may_pass(), billed: self.attempts > 0 };
        self.advanced(JobState::Failed { finished_at: now, error })
    }

    fn advanced(&self, state: JobState) -> Self {
        Self { fence: self.fence + 1, state, ..self.clone() }
    }
}

/// A job that this worker holds. Only a claim makes one, and each way to end it uses it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed(Job);

impl std::ops::Deref for Claimed {
    type Target = Job;
    fn deref(&self) -> &Job {
        &self.0
    }
}

impl Claimed {
    /// The picture is stored.
    pub fn succeed(self, image: Image, now: Timestamp) -> Job {
        Job { held_until: None, ..self.0.advanced(JobState::Succeeded { finished_at: now, image }) }
    }

    /// There will be no picture, and why. `attempt` says whether this one may have been paid for.
    pub fn fail(self, code: ErrorCode, message: String, attempt: Attempt, now: Timestamp) -> Job {
        Job { held_until: None, ..self.settled(attempt).failed(code, message, now) }
    }

    /// Gives the job up to whichever worker comes next, and says why.
    ///
    /// The state stays `running`, with a lease that has ended: what a caller sees of a job never goes backwards.
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

    /// The job with the attempt that its claim has counted taken back, if no painting was begun that counts.
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
