//! Error responses: problem details as defined by RFC 9457.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batch::{MAX_BYTES, Refused};
use crate::fault::{FaultKind, FieldError, MAX_FAULTS};
use crate::job::Status;
use crate::json::{MAX_VALUES, Unreadable};
use crate::time::Timestamp;
use crate::webhook_secret::MOST_VALID;

/// The prefix of each problem's `type`. A UUID is a URI without domain or registration; the fragment names the problem.
const TYPES: &str = "urn:uuid:5fc6eb8f-32fb-4a1a-adb4-10acaec19e66#";

/// The `type` of the problem with this code.
pub fn type_of(code: &str) -> String {
    format!("{TYPES}{code}")
}

/// Why a request failed. The variant determines the answer, see [`Problem::status`] and [`Problem::code`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has a title and a detail below")]
pub enum Problem {
    /// The body is not JSON; the text says where.
    InvalidJson(String),
    InvalidRequest(Vec<FieldError>),
    /// Texts contain characters that the fonts do not have; the body is otherwise valid.
    UnsupportedCharacter(Vec<FieldError>),
    InvalidIdempotencyKey,
    UnsupportedMediaType,
    /// The body exceeds this limit, in bytes as counted by [`crate::json::escaped_len`].
    PayloadTooLarge(usize),
    Unauthorized,
    IdempotencyKeyReused,
    /// The cursor is invalid, or belongs to another list.
    InvalidCursor,
    /// The job, batch or delivery does not exist, or belongs to another owner.
    NotFound,
    NotCancelable(Status),
    NotRetryable(Status),
    NotFinished(Status),
    NoInput,
    /// The batch's file has this size in bytes, and is empty or too large.
    InvalidInput(u64),
    WrongBatchState(Refused),
    NotFromFile,
    NoFaults,
    NoResults,
    /// So many secrets of the owner are valid that none can be added before this time.
    TooManyRotations(Timestamp),
    NoSuchRoute,
    MethodNotAllowed(Vec<String>),
    /// A service is unavailable. Nothing was accepted, and the same request may succeed later.
    Unavailable {
        retry_after: Duration,
    },
    Internal,
}

/// The body of an error response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct ProblemDetails {
    /// The URI of the problem, see [`type_of`].
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with the single field at `pointer`.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        Self::InvalidRequest(vec![FieldError::new(pointer, detail.into())])
    }

    /// A problem with these faults, limited to a hundred.
    pub fn faults(mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_FAULTS);
        if errors.iter().all(|error| error.kind == FaultKind::Character) {
            Self::UnsupportedCharacter(errors)
        } else {
            Self::InvalidRequest(errors)
        }
    }

    /// A required service is unavailable.
    pub fn unavailable() -> Self {
        Self::Unavailable { retry_after: Duration::from_secs(2) }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.describe().0
    }

    /// The code for programs.
    pub fn code(&self) -> &'static str {
        self.describe().1
    }

    /// The body of the response.
    pub fn details(&self) -> ProblemDetails {
        let (status, code, title) = self.describe();
        ProblemDetails {
            kind: type_of(code),
            title: title.to_owned(),
            status,
            detail: self.detail(),
            code: code.to_owned(),
            errors: match self {
                Self::InvalidRequest(errors) | Self::UnsupportedCharacter(errors) => errors.clone(),
                _ => Vec::new(),
            },
        }
    }

    fn describe(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::InvalidJson(_) => (400, "invalid_json", "The body is not JSON"),
            Self::InvalidRequest(_) => (400, "invalid_request", "The request is invalid"),
            Self::InvalidIdempotencyKey => (400, "invalid_idempotency_key", "The idempotency key is invalid"),
            Self::InvalidCursor => (400, "invalid_cursor", "The cursor is not valid"),
            Self::Unauthorized => (401, "unauthorized", "The caller is unknown"),
            Self::NotFound => (404, "not_found", "There is no such job, batch or delivery"),
            Self::NoSuchRoute => (404, "no_such_route", "There is no such path"),
            Self::MethodNotAllowed(_) => (405, "method_not_allowed", "The path does not support this method"),
            Self::NotCancelable(_) => (409, "not_cancelable", "The job can no longer be canceled"),
            Self::NotRetryable(_) => (409, "not_retryable", "The job cannot be retried"),
            Self::NotFinished(_) => (409, "not_finished", "The job has no picture"),
            Self::NoInput => (409, "no_input", "The file was not uploaded"),
            Self::WrongBatchState(_) => (409, "wrong_batch_state", "The status of the batch does not allow this"),
            Self::NotFromFile => (409, "not_from_file", "The batch is not one from a file"),
            Self::NoFaults => (409, "no_faults", "The batch has no list of faults"),
            Self::NoResults => (409, "no_results", "The batch has no results"),
            Self::TooManyRotations(_) => (409, "too_many_rotations", "The secret was rotated too often"),
            Self::PayloadTooLarge(_) => (413, "payload_too_large", "The body is too large"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "The body must be JSON"),
            Self::UnsupportedCharacter(_) => (422, "unsupported_character", "The fonts lack a character"),
            Self::InvalidInput(_) => (422, "invalid_input", "The uploaded file cannot be used"),
            Self::IdempotencyKeyReused => (422, "idempotency_key_reused", "The idempotency key was used before"),
            Self::Internal => (500, "internal", "The service failed"),
            Self::Unavailable { .. } => (503, "unavailable", "The service is busy or unavailable"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::InvalidJson(why) => format!("The body cannot be read as JSON: {why}."),
            Self::InvalidRequest(errors) | Self::UnsupportedCharacter(errors) => {
                let faults: Vec<_> = errors
                    .iter()
                    .map(|error| match error.pointer.as_str() {
                        "" => format!("the body {}", error.detail),
                        pointer => format!("{pointer} {}", error.detail),
                    })
                    .collect();
                let more = if errors.len() < MAX_FAULTS { "" } else { "; there may be more faults than these hundred" };
                format!("{}{more}.", faults.join("; "))
            }
            Self::InvalidIdempotencyKey => {
                "The header Idempotency-Key must be sent once, with 1 to 255 visible ASCII characters.".to_owned()
            }
            Self::UnsupportedMediaType => {
                "Send the body with the header Content-Type: application/json and without a content encoding."
                    .to_owned()
            }
            Self::PayloadTooLarge(limit) => format!(
                "The body must not be larger than {limit} bytes, where each quote, backslash, line break and tab counts \
                 as two."
            ),
            Self::IdempotencyKeyReused => {
                "This Idempotency-Key belongs to an earlier request that asked for something else, or that came when \
                 another model was the default. Use a new key for a new request, and the same key only to send the \
                 same request again."
                    .to_owned()
            }
            Self::InvalidCursor => {
                "Use next_cursor unchanged, with the same path and filter, or omit it to start from the beginning."
                    .to_owned()
            }
            Self::Unauthorized => {
                "Send what identifies you to this service: an API key, a token, or a signature.".to_owned()
            }
            Self::NotFound => {
                "Nothing of yours has this id. Jobs, batches and deliveries are deleted when their retention ends."
                    .to_owned()
            }
            Self::NotCancelable(status) => format!("The job has already {status}."),
            Self::NotRetryable(status) => {
                format!("The job is {status}; only a failed or canceled one can be retried.")
            }
            Self::NotFinished(status) => format!("The job is {status}; only a succeeded one has a picture."),
            Self::NoInput => {
                "Upload the file with a PUT to upload.url, then start the batch. If that URL has expired, send the \
                 request that submitted the batch again with the same Idempotency-Key to get a new one; without a key, \
                 submit a new batch."
                    .to_owned()
            }
            Self::InvalidInput(0) => {
                "The uploaded file is empty. Upload it again to the same URL, then start the batch.".to_owned()
            }
            Self::InvalidInput(bytes) => {
                format!(
                    "The uploaded file has {bytes} bytes, but may have at most {MAX_BYTES}. Divide it into several batches."
                )
            }
            Self::WrongBatchState(refused) => match refused {
                Refused::Expired => "The batch was not started within a day. Submit a new one.",
                Refused::NoJobs => {
                    "The batch has no jobs: its file is not checked, is invalid, or the batch was canceled before its \
                     jobs were stored. Submit a new one."
                }
                Refused::NotAdmitted => "The jobs of the batch are not all queued yet. Repeat the request later.",
                Refused::TooOld => {
                    "The other jobs of the batch may be deleted before the retried ones end. Submit the prompts of the \
                     failed jobs in a new batch."
                }
                Refused::BeingCanceled => "The batch is being canceled. Wait until it has ended, then retry it.",
            }
            .to_owned(),
            Self::NotFromFile => {
                "The jobs of this batch were in the request that submitted it, so it has no file to start or to check. \
                 GET /batches/{id}/jobs lists the jobs."
                    .to_owned()
            }
            Self::NoFaults => {
                "The faults are listed when the file has been checked, if a line is faulty. The batch then has a link \
                 to them."
                    .to_owned()
            }
            Self::NoResults => {
                "The results are written when all jobs have ended. The batch then has a link to them.".to_owned()
            }
            Self::TooManyRotations(until) => {
                format!("{MOST_VALID} secrets are still valid. Rotate again when the oldest has expired, at {until}.")
            }
            Self::NoSuchRoute => "The paths of this API are listed in its OpenAPI document.".to_owned(),
            Self::MethodNotAllowed(allowed) => format!("This path supports {}.", allowed.join(", ")),
            Self::Unavailable { .. } => {
                "The request was not accepted. Send it again after the time in Retry-After; with an Idempotency-Key \
                 it cannot be done twice."
                    .to_owned()
            }
            Self::Internal => "This is an error in the service, and it was logged.".to_owned(),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::WrongBatchState(refused)
    }
}

impl From<Unreadable> for Problem {
    fn from(why: Unreadable) -> Self {
        match why {
            Unreadable::NotJson(why) => Self::InvalidJson(why),
            Unreadable::TooManyValues => Self::field("", format!("must not have more than {MAX_VALUES} values")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_a_hundred_faults_and_says_when_there_may_be_more() {
        let faults = |count| {
            Problem::faults(vec![FieldError::new("/x", "is not a field of this request".to_owned()); count]).details()
        };
        assert!(!faults(99).detail.contains("more"));
        assert_eq!(faults(300_000).errors.len(), 100);
        assert!(faults(300_000).detail.ends_with("; there may be more faults than these hundred."));
    }
}
