//! Classifies the errors of Amazon Bedrock, as documented in
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html> and
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>. The request is blamed only
//! if Bedrock explicitly says so. Any other 3xx or 4xx status is for the operator to fix, because a job must not fail
//! for a reason that its owner cannot change.

use aws_sdk_bedrockruntime::config::http::HttpResponse;
use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::operation::invoke_model::InvokeModelError;

use super::error::without_answer;

/// Bedrock refused to call the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Bedrock answered {code}")]
pub struct Refusal {
    /// Bedrock's error code, or a word for what happened to the connection.
    pub code: String,
    /// What it means.
    pub meaning: Meaning,
}

/// What an error of Bedrock means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Throttled. The model painted nothing.
    Busy,
    /// The request was not sent, or Bedrock has no capacity. The model painted nothing.
    Unavailable,
    /// The service has no access to the model. It painted nothing.
    Denied,
    /// The model does not exist in this region. It painted nothing.
    Missing,
    /// Bedrock rejected the request as invalid. The model painted nothing.
    Invalid,
    /// The model failed, or its answer was lost. It may have painted and been billed.
    Failed,
}

impl Refusal {
    /// `sent` says whether the request was sent.
    pub(super) fn new(error: &SdkError<InvokeModelError, HttpResponse>, sent: bool) -> Self {
        let (code, meaning) = match error {
            SdkError::ServiceError(context) => {
                let error = context.err();
                let code = error.code().unwrap_or("Unknown");
                let of_model = match error {
                    InvokeModelError::ModelErrorException(model) => model.original_status_code(),
                    _ => None,
                };
                let message = error.message().unwrap_or_default();
                (code, meaning(context.raw().status().as_u16(), code, message, of_model))
            }
            _ if !sent => ("NotSent", Meaning::Unavailable),
            _ => match without_answer(error) {
                (code, true) => (code, Meaning::Failed),
                (code, false) => (code, Meaning::Unavailable),
            },
        };
        Self { code: code.to_owned(), meaning }
    }
}

/// Classifies a response. `of_model` is the status of the model's own server, as a model error reports it.
fn meaning(status: u16, code: &str, message: &str, of_model: Option<i32>) -> Meaning {
    match (status, code) {
        (429, _) | (_, "ThrottlingException" | "ModelNotReadyException" | "ServiceQuotaExceededException") => {
            Meaning::Busy
        }
        (503, _) | (_, "ServiceUnavailableException") => Meaning::Unavailable,
        (_, "ModelErrorException") => match of_model {
            Some(408 | 429) => Meaning::Failed,
            Some(400..=499) => Meaning::Invalid,
            _ => Meaning::Failed,
        },
        (408 | 424 | 500.., _) | (_, "ModelTimeoutException") => Meaning::Failed,
        (_, "ValidationException" | "ValidationError") => whom_it_blames(message),
        (_, "FTUFormNotFilled") => Meaning::Denied,
        (404, _) | (_, "ResourceNotFoundException") => Meaning::Missing,
        _ => Meaning::Denied,
    }
}

/// Bedrock uses the code for invalid requests also for errors of the operator. Only the message distinguishes them, so
/// this is the one exception to classifying errors by code.
fn whom_it_blames(message: &str) -> Meaning {
    const OPERATOR: [(&str, Meaning); 4] = [
        ("operation not allowed", Meaning::Denied),
        ("not authorized", Meaning::Denied),
        ("model identifier is invalid", Meaning::Missing),
        ("on-demand throughput", Meaning::Missing),
    ];
    let message = message.to_lowercase();
    let found = OPERATOR.iter().find(|(text, _)| message.contains(text));
    found.map_or(Meaning::Invalid, |&(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::Meaning::{Busy, Denied, Failed, Invalid, Missing, Unavailable};
    use super::*;

    /// Every refusal that AWS documents for InvokeModel or its users have reported: status, code, message, meaning.
    const ANSWERS: &[(u16, &str, &str, Meaning)] = &[
        // Of "Troubleshooting Amazon Bedrock API error codes".
        (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", Denied),
        // Earlier editions of that page give 400 for it.
        (400, "AccessDeniedException", "", Denied),
        (403, "BadCScoreException", "Your account is not authorized to access this model", Denied),
        (404, "FTUFormNotFilled", "Model use case details have not been submitted for this account", Denied),
        (400, "IncompleteSignature", "", Denied),
        (500, "InternalFailure", "", Failed),
        (400, "InvalidAction", "", Denied),
        (403, "InvalidClientTokenId", "", Denied),
        (403, "MPAgreementBeingCreated", "", Denied),
        (400, "NotAuthorized", "", Denied),
        (400, "RequestExpired", "", Denied),
        (404, "ResourceNotFound", "", Missing),
        (503, "ServiceUnavailable", "", Unavailable),
        (429, "ThrottlingException", "Too many requests, please wait before trying again.", Busy),
        (400, "ValidationError", "", Invalid),
        // Of the reference of InvokeModel.
        (500, "InternalServerException", "", Failed),
        (424, "ModelErrorException", "", Failed),
        (429, "ModelNotReadyException", "", Busy),
        (408, "ModelTimeoutException", "", Failed),
        (
            404,
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
            Missing,
        ),
        (400, "ServiceQuotaExceededException", "", Busy),
        (503, "ServiceUnavailableException", "Too many connections, please wait before trying again.", Unavailable),
        (400, "ValidationException", "Malformed input request: #/seed: expected type: Integer", Invalid),
        // Of all AWS services, see "Common Errors" of Bedrock's API reference.
        (403, "ExpiredTokenException", "", Denied),
        (403, "IncompleteSignature", "", Denied),
        (400, "MalformedHttpRequestException", "", Denied),
        (401, "NotAuthorized", "", Denied),
        (403, "OptInRequired", "", Denied),
        (413, "RequestEntityTooLargeException", "", Denied),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid.", Denied),
        (404, "UnknownOperationException", "", Missing),
        // Errors of the operator that Bedrock reports as bad requests: an account that is new or not verified, a model
        // that the account or the region does not have, and one that is called by its profile only.
        (400, "ValidationException", "Operation not allowed", Denied),
        (400, "ValidationException", "Your account is not authorized to invoke this API operation.", Denied),
        (400, "ValidationException", "The provided model identifier is invalid.", Missing),
        (
            400,
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn\u{2019}t supported.",
            Missing,
        ),
        (400, "ValidationException", "The provided model doesn't support on-demand throughput.", Missing),
        // Responses of what only looks like Bedrock, such as a proxy, and responses that AWS may add.
        (302, "Unknown", "", Denied),
        (400, "Unknown", "", Denied),
        (401, "Unknown", "", Denied),
        (403, "Unknown", "", Denied),
        (404, "Unknown", "", Missing),
        (408, "Unknown", "", Failed),
        (429, "Unknown", "", Busy),
        (500, "Unknown", "", Failed),
        (502, "Unknown", "", Failed),
        (503, "Unknown", "", Unavailable),
        (504, "Unknown", "", Failed),
    ];

    #[test]
    fn every_answer_means_what_the_table_says() {
        for &(status, code, message, expected) in ANSWERS {
            assert_eq!(meaning(status, code, message, None), expected, "{status} {code}: {message}");
        }
    }

    #[test]
    fn a_model_error_means_what_the_models_own_server_says() {
        let rows =
            [(None, Failed), (Some(400), Invalid), (Some(422), Invalid), (Some(408), Failed), (Some(429), Failed)];
        for (of_model, expected) in rows.into_iter().chain([(Some(500), Failed), (Some(503), Failed)]) {
            assert_eq!(meaning(424, "ModelErrorException", "", of_model), expected, "{of_model:?}");
        }
    }

    #[test]
    fn a_call_without_an_answer_means_what_may_have_happened_to_its_request() {
        type Error = SdkError<InvokeModelError, HttpResponse>;
        let response = || HttpResponse::new(200.try_into().expect("a status"), SdkBody::empty());
        let broken = || ConnectorError::io("the connection broke".into());
        // The tests of the adapters make connections that really fail.
        let rows: [(Error, bool, &str, Meaning); 6] = [
            (SdkError::construction_failure("no body"), false, "NotSent", Unavailable),
            (
                SdkError::dispatch_failure(ConnectorError::other("no credentials".into(), None)),
                false,
                "NotSent",
                Unavailable,
            ),
            (SdkError::timeout_error("slow credentials"), false, "NotSent", Unavailable),
            (SdkError::dispatch_failure(broken()), true, "BrokenConnection", Failed),
            (SdkError::timeout_error("slow"), true, "Timeout", Failed),
            (SdkError::response_error("half a body", response()), true, "BrokenResponse", Failed),
        ];
        for (error, sent, code, meaning) in rows {
            assert_eq!(Refusal::new(&error, sent), Refusal { code: code.to_owned(), meaning }, "{error:?}");
        }
    }
}
