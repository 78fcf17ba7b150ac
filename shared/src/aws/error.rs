//! The one place where an error of an AWS service is told apart, by its code and never by its message. What a refusal of
//! the model means is told in [`refusals`](super::refusals).

use std::error::Error;
use std::iter::successors;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::problem::Problem;

/// A call to an AWS service that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} answered {code}")]
pub struct ServiceError {
    /// The service.
    pub service: &'static str,
    /// The service's code, or a word for how the call came to nothing.
    pub code: String,
    /// What to do about it.
    pub kind: Kind,
}

/// What an error means for whoever made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Too much was asked; later it will do.
    Throttled,
    /// The service failed, or there was no answer: whether the call took effect is not known.
    Unavailable,
    /// The operator has not allowed it.
    Denied,
    /// What the operator named does not exist.
    Missing,
    /// The service refused the request itself, and would again.
    Rejected,
}

impl ServiceError {
    /// A stored record that cannot be read back.
    pub(super) fn corrupt(service: &'static str) -> Self {
        Self { service, code: "CorruptRecord".to_owned(), kind: Kind::Rejected }
    }

    /// An answer that broke off.
    pub(super) fn cut_short(service: &'static str) -> Self {
        Self { service, code: "BrokenResponse".to_owned(), kind: Kind::Unavailable }
    }

    /// Tells apart what the SDK reports.
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

/// A service that fails may work later, except when it rejected our request: that is our fault.
impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error.kind {
            Kind::Throttled | Kind::Unavailable | Kind::Denied | Kind::Missing => Self::unavailable(),
            Kind::Rejected => Self::Internal,
        }
    }
}

/// A word for a call that has no answer, and whether its request may have been sent.
///
/// It was not where no connection came about: a refused one, a name that is not resolved, a failed handshake, a timeout of
/// the connecting. All of these are errors of `hyper`'s connector. A connection that breaks may have carried the request.
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
        // Expired credentials are the operator's to mend, as missing rights are.
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
