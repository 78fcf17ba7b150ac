//! Classifies the errors of AWS services by their codes, never by their messages. Bedrock's are in
//! [`refusals`](super::refusals).

use std::error::Error;
use std::iter::successors;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::problem::Problem;

/// A failed call to an AWS service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} answered {code}")]
pub struct ServiceError {
    /// The service.
    pub service: &'static str,
    /// The service's error code, or a word for what happened to the connection.
    pub code: String,
    /// How to react.
    pub kind: Kind,
}

/// The outcome of a call to an AWS service.
pub type Result<T, E = ServiceError> = std::result::Result<T, E>;

/// What an error means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Too many requests; retry later.
    Throttled,
    /// The service failed or did not answer, so the call may or may not have taken effect.
    Unavailable,
    /// Permission or valid credentials are missing.
    Denied,
    /// The configured resource does not exist.
    Missing,
    /// The service rejected the request itself, and would do so again.
    Rejected,
}

impl ServiceError {
    pub(super) fn corrupt(service: &'static str) -> Self {
        Self { service, code: "CorruptRecord".to_owned(), kind: Kind::Rejected }
    }

    pub(super) fn cut_short(service: &'static str) -> Self {
        Self { service, code: "BrokenResponse".to_owned(), kind: Kind::Unavailable }
    }

    pub(super) fn of<E: ProvideErrorMetadata>(service: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Self {
        move |error| Self::new(service, &error)
    }

    pub(super) fn new<E: ProvideErrorMetadata>(service: &'static str, error: &SdkError<E, HttpResponse>) -> Self {
        let (code, kind) = match error {
            SdkError::ConstructionFailure(_) => (without_answer(error).0, Kind::Rejected),
            SdkError::ServiceError(context) => {
                let code = context.err().code().unwrap_or("Unknown");
                (code, by_code(code).unwrap_or_else(|| by_status(context.raw().status().as_u16())))
            }
            _ => (without_answer(error).0, Kind::Unavailable),
        };
        Self { service, code: code.to_owned(), kind }
    }
}

/// If the service rejected our request, the fault is ours. Everything else may succeed later.
impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error.kind {
            Kind::Throttled | Kind::Unavailable | Kind::Denied | Kind::Missing => Self::unavailable(),
            Kind::Rejected => Self::Internal,
        }
    }
}

/// A word for a call without a response, and whether the request may have been sent. It was not sent if no connection
/// was made, which `hyper`'s connector reports: refused, host not found, handshake failed, or connect timeout. A
/// connection that broke later may have carried the request.
pub(super) fn without_answer<E, R>(error: &SdkError<E, R>) -> (&'static str, bool) {
    match error {
        SdkError::ConstructionFailure(_) => ("ConstructionFailure", false),
        SdkError::DispatchFailure(failure) => {
            let first = failure.as_connector_error().map(|error| error as &(dyn Error + 'static));
            let mut causes = successors(first, |&error| error.source());
            let unconnected =
                causes.any(|error| error.downcast_ref().is_some_and(hyper_util::client::legacy::Error::is_connect));
            if unconnected { ("NoConnection", false) } else { ("BrokenConnection", true) }
        }
        SdkError::TimeoutError(_) => ("Timeout", true),
        SdkError::ResponseError(_) => ("BrokenResponse", true),
        _ => ("Unknown", true),
    }
}

fn by_code(code: &str) -> Option<Kind> {
    Some(match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestThrottled"
        | "RequestLimitExceeded"
        | "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ServiceQuotaExceededException"
        | "KmsThrottled"
        | "KMS.ThrottlingException"
        | "SlowDown"
        | "OverLimit" => Kind::Throttled,
        "InternalServerError"
        | "InternalServerException"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionInProgressException"
        | "ConditionalRequestConflict"
        | "OperationAborted"
        | "RequestTimeout" => Kind::Unavailable,
        // Expired credentials are for the operator to fix, like missing permissions.
        "AccessDenied"
        | "AccessDeniedException"
        | "KmsAccessDenied"
        | "KMS.AccessDeniedException"
        | "KMS.DisabledException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "OptInRequired" => Kind::Denied,
        "ResourceNotFoundException"
        | "NoSuchBucket"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => Kind::Missing,
        "ValidationException" | "ValidationError" => Kind::Rejected,
        _ => return None,
    })
}

fn by_status(status: u16) -> Kind {
    match status {
        429 => Kind::Throttled,
        401 | 403 => Kind::Denied,
        404 => Kind::Missing,
        400..=499 => Kind::Rejected,
        _ => Kind::Unavailable,
    }
}
