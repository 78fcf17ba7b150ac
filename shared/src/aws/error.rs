//! The one place where an error of an AWS service is told apart, by its code and never by its message.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

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
            SdkError::ConstructionFailure(_) => ("ConstructionFailure", Kind::Rejected),
            SdkError::TimeoutError(_) => ("Timeout", Kind::Unavailable),
            SdkError::DispatchFailure(_) => ("NoConnection", Kind::Unavailable),
            SdkError::ResponseError(_) => ("BrokenResponse", Kind::Unavailable),
            SdkError::ServiceError(context) => {
                let code = context.err().code().unwrap_or("Unknown");
                (code, by_code(code).unwrap_or_else(|| by_status(context.raw().status().as_u16())))
            }
            _ => ("Unknown", Kind::Unavailable),
        };
        Self { service, code: code.to_owned(), kind }
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
        | "ModelNotReadyException"
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
        | "ModelTimeoutException"
        | "ModelErrorException"
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
