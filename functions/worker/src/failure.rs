use std::time::Duration;

use shared::Job;
use shared::aws::{Kind, Meaning, PaintError, ServiceError};
use shared::backoff::{between, full_jitter};
use shared::job::{Attempt, ErrorCode};
use shared::stability::NoPicture;

use crate::typesetter::SetError;

/// Why a claim ended without an image. `attempt` says whether it counts.
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) attempt: Attempt,
    pub(crate) then: Then,
}

#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// Every attempt would fail in the same way.
    Fail,
    /// Try again soon, while attempts are left.
    Soon,
    /// Try again when the model may have recovered, while attempts are left.
    WhenRecovered,
    /// Try again when there may be capacity, without limit.
    WhenFree,
    WhenMended,
}

impl Then {
    /// How long the job waits after `before` earlier attempts, or claims without one; `None` if it fails. A model that
    /// failed twice may be in an incident: by the minimum waits, three attempts outlast one of ten minutes.
    pub(crate) fn wait(self, before: u32) -> Option<Duration> {
        let secs = Duration::from_secs;
        Some(match self {
            Self::Fail => return None,
            Self::Soon => full_jitter(secs(2), secs(60), before),
            Self::WhenRecovered if before == 0 => between(secs(20), secs(30)),
            Self::WhenRecovered => between(secs(600), secs(900)),
            Self::WhenFree => full_jitter(secs(2), secs(900), before),
            Self::WhenMended => full_jitter(secs(30), secs(900), before),
        })
    }
}

impl Failure {
    fn new(code: ErrorCode, attempt: Attempt, then: Then, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), attempt, then }
    }

    /// The model started, but there is no picture. The attempt may have been paid for.
    pub(crate) fn model_error(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ModelError, Attempt::Counts, Then::WhenRecovered, message)
    }

    pub(crate) fn out_of_time() -> Self {
        let message = "The service's own calls left the model too little time; the job will be retried.";
        Self::new(ErrorCode::Internal, Attempt::NeverBegan, Then::WhenFree, message)
    }

    /// Decides what a refusal does to a job. `has_answered`: whether the model has answered this process before.
    pub(crate) fn from_paint_error(error: &PaintError, has_answered: bool) -> Self {
        use Attempt::{Counts, NeverBegan};
        let refusal = match error {
            PaintError::NoPicture(NoPicture::PromptFiltered) => {
                let message = "The model's content filter refused the prompt. Change it and submit a new job.";
                return Self::new(ErrorCode::ContentFiltered, NeverBegan, Then::Fail, message);
            }
            PaintError::NoPicture(NoPicture::PictureFiltered) => {
                let message = "The model's content filter withheld the picture. Change the prompt or the seed and \
                               submit a new job.";
                return Self::new(ErrorCode::ContentFiltered, Counts, Then::Fail, message);
            }
            PaintError::NoPicture(NoPicture::InferenceError) => {
                return Self::model_error("The model failed while it painted.");
            }
            PaintError::NoPicture(NoPicture::Malformed(_)) => {
                return Self::model_error("The model's answer contained no picture.");
            }
            PaintError::Refused(refusal) => refusal,
        };
        let code = &refusal.code;
        let (error, then, message) = match refusal.meaning {
            Meaning::Failed => return Self::model_error(format!("The model did not answer ({code}).")),
            Meaning::Busy => {
                (ErrorCode::Throttled, Then::WhenFree, "The model is busy; the job will be retried.".to_owned())
            }
            Meaning::Unavailable => (
                ErrorCode::ModelUnavailable,
                Then::WhenFree,
                format!("The model cannot be reached or has no capacity ({code}); the job will be retried."),
            ),
            Meaning::Denied => (
                ErrorCode::ModelAccessDenied,
                Then::WhenMended,
                format!(
                    "Bedrock does not let the service use the model ({code}); the operator must enable access to it."
                ),
            ),
            Meaning::Missing => (
                ErrorCode::ModelNotFound,
                Then::WhenMended,
                format!(
                    "The model cannot be used in the service's Bedrock region ({code}); the operator must correct that."
                ),
            ),
            Meaning::Invalid if has_answered => (
                ErrorCode::InvalidRequest,
                Then::Fail,
                "The model refused the request as invalid, which is also how it answers some prompts that it filters."
                    .to_owned(),
            ),
            // The account or a setting may be the cause, and would fail every job.
            Meaning::Invalid => (
                ErrorCode::InvalidRequest,
                Then::WhenMended,
                format!(
                    "The model refused the request as invalid ({code}). It has not answered this worker before, so the \
                     operator may have to fix something; the job waits until the model answers."
                ),
            ),
        };
        Self::new(error, NeverBegan, then, message)
    }

    /// Typesetting is deterministic, so a retry would fail in the same way.
    pub(crate) fn from_typesetting_error(job: &Job, error: &SetError, attempt: Attempt) -> Self {
        tracing::error!(job.id = %job.id, %error, "typesetting failed");
        let message = "The picture was painted, but the lettering cannot be set over it.";
        Self::new(ErrorCode::TypesettingFailed, attempt, Then::Fail, message)
    }

    pub(crate) fn from_storage_error(attempt: Attempt) -> impl FnOnce(ServiceError) -> Self {
        move |error| {
            let then = match error.kind {
                Kind::Throttled | Kind::Unavailable => Then::Soon,
                Kind::Denied | Kind::Missing | Kind::Rejected => Then::WhenMended,
            };
            let message = format!("The bucket of pictures failed ({}).", error.code);
            Self::new(ErrorCode::StorageUnavailable, attempt, then, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_attempts_outlast_an_incident_of_ten_minutes() {
        let wait = |before| Then::WhenRecovered.wait(before).expect("it waits");
        for _ in 0..10_000 {
            assert!(wait(0) <= Duration::from_secs(30), "a model that failed once is tried again soon");
            assert!(wait(0) + wait(1) >= Duration::from_secs(600));
            assert!(wait(1).max(wait(9)) <= Duration::from_secs(900));
        }
    }
}
