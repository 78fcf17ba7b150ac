//! The life of a job: its states, and the only ways from one to the next.
//!
//! A transition takes the present time and gives back the job as it should be stored. It never changes the job it is
//! called on, and it raises the *fence* by one; the store accepts a job only where the stored fence is one lower.
//! Whoever acts on a job that has moved on since is thereby refused, however late it comes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::order::{IdempotencyKey, Order, OutputFormat, spelled};
use crate::time::Timestamp;

/// The name of a job: a UUID in lower case with hyphens, and no other spelling of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Uuid);

impl JobId {
    /// A new name that sorts by time (a UUIDv7).
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The name that belongs to an owner's key (a UUIDv8), the same each time.
    pub fn from_key(owner: &Owner, key: &IdempotencyKey) -> Self {
        let digest = Sha256::new()
            .chain_update((owner.as_str().len() as u64).to_be_bytes())
            .chain_update(owner.as_str())
            .chain_update(key.as_bytes())
            .finalize();
        Self(Uuid::new_v8(std::array::from_fn(|i| digest[i])))
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

/// The text is not the name of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a job")]
pub struct NotAJobId;

impl FromStr for JobId {
    type Err = NotAJobId;
    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let id = Uuid::try_parse(text).map_err(|_| NotAJobId)?;
        // Other spellings are refused, so that one job has one address.
        if id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text { Ok(Self(id)) } else { Err(NotAJobId) }
    }
}

impl TryFrom<String> for JobId {
    type Error = NotAJobId;
    fn try_from(text: String) -> Result<Self, NotAJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who may see a job: the API key, IAM principal or authorizer principal that submitted it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(String);

impl Owner {
    /// The owner of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The one owner of an API that does not ask its callers who they are.
    pub fn everyone() -> Self {
        Self::new("everyone")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's name.
    pub id: JobId,
    /// Who may see it.
    pub owner: Owner,
    /// What to paint.
    pub order: Order,
    /// When it was submitted.
    pub created_at: Timestamp,
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
    /// When a worker last took the job up.
    pub started_at: Option<Timestamp>,
    /// Why the job still waits, or what went wrong before it ended.
    pub last_error: Option<LastError>,
    /// Where the job stands.
    pub state: JobState,
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
}

/// A stored picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the picture is.
    pub facts: ImageFacts,
    /// A presigned URL of it.
    pub url: SignedUrl,
}

/// What is known of a stored picture, all of it read from the picture itself or from the model's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The file format.
    pub format: OutputFormat,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
    /// The seed that the model says it used.
    pub seed: Option<u32>,
}

/// A URL that works for everybody until it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// The URL.
    pub url: String,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Shows only the end of its life, so that no log can hold a signature.
impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl(until {})", self.expires_at)
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
    /// A fault of ours.
    Internal = "internal",
    /// The model is too busy.
    Throttled = "throttled",
    /// The service may not use the model.
    ModelAccessDenied = "model_access_denied",
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
    pub fn new(id: JobId, owner: Owner, order: Order, now: Timestamp, deadline: Duration, retention: Duration) -> Self {
        Self {
            id,
            owner,
            order,
            created_at: now,
            deadline_at: now + deadline,
            expires_at: now + retention,
            fence: 0,
            attempts: 0,
            throttles: 0,
            started_at: None,
            last_error: None,
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

    /// Where in the bucket the picture lies.
    ///
    /// The time of creation is part of it, so that a job whose key was used before, and whose earlier record was
    /// deleted when its retention ended, cannot find the old picture.
    pub fn image_key(&self) -> String {
        format!("images/{}/{}", self.id, self.created_at.ms())
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
        Ok(Claimed(job))
    }

    /// Fails a job that nobody works on; `None` when somebody does, or when it has ended.
    pub fn give_up(&self, code: ErrorCode, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| {
            let message = match code {
                ErrorCode::DeadlineExceeded => "The job's deadline passed before there was a picture.",
                ErrorCode::AttemptsExhausted => "As many attempts as are allowed ended without a picture.",
                _ => "The service could not finish the job.",
            };
            let message = match &self.last_error {
                Some(last) => format!("{message} The last thing in its way: {}", last.message),
                None => message.to_owned(),
            };
            self.failed(JobError { code, message, retryable: code.may_pass(), billed: self.attempts > 0 }, now)
        })
    }

    /// Finishes a job that nobody works on with the picture that a lost worker left behind; `None` when somebody works
    /// on it, or when it has ended.
    pub fn adopt(&self, image: Image, now: Timestamp) -> Option<Self> {
        self.idle(now).then(|| self.advanced(JobState::Succeeded { finished_at: now, image }))
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

    fn failed(&self, error: JobError, now: Timestamp) -> Self {
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
        self.0.advanced(JobState::Succeeded { finished_at: now, image })
    }

    /// There will be no picture, and why. `attempt` says whether this one may have been paid for.
    pub fn fail(self, code: ErrorCode, message: String, attempt: Attempt, now: Timestamp) -> Job {
        let billed = attempt == Attempt::Counts || self.0.attempts > 1;
        self.0.failed(JobError { code, message, retryable: code.may_pass(), billed }, now)
    }

    /// Gives the job up to whichever worker comes next, and says why.
    ///
    /// The state stays `running`, with a lease that has ended: what a caller sees of a job never goes backwards.
    pub fn release(self, error: LastError, attempt: Attempt) -> Job {
        let mut job = match self.0.state {
            JobState::Running(lease) => self.0.advanced(JobState::Running(Lease { until: error.at, ..lease })),
            _ => unreachable!("a claimed job is running"),
        };
        if attempt == Attempt::NeverBegan {
            job.attempts -= 1;
        }
        if error.code == ErrorCode::Throttled {
            job.throttles += 1;
        }
        job.last_error = Some(error);
        job
    }
}

#[cfg(test)]
mod tests;
