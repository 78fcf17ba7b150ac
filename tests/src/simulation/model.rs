//! The simulated model: it paints, refuses, breaks off, and has outages.

use std::sync::LazyLock;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};
use typography::{Format, Raster};

use super::scene::{Scene, answer};

/// What the model paints: a small picture, so that setting a title over it takes no time.
static PICTURE: LazyLock<String> = LazyLock::new(|| {
    let pixels = [200, 150, 90].repeat(96 * 144);
    let picture = Raster { width: 96, height: 144, pixels, notes: Vec::new() };
    base64_simd::STANDARD.encode_to_string(picture.encode(Format::Png).expect("it fits"))
});

/// What a caller gets instead of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) enum ModelFault {
    /// An answer with this status, code and message, and whether the model may have begun.
    Answer(u16, &'static str, &'static str, bool),
    /// The model answers that it failed.
    Inference,
    /// No connection is made.
    NotConnected,
    /// The connection breaks off before the model has painted.
    BrokenOff,
    /// The model paints, and answers after the caller has given up.
    TooLate,
}

/// The faults of the model: how often in a thousand calls, the name in the reports, and what the caller gets.
///
/// The messages are those that Bedrock's users report. Bedrock answers some faults that the operator must fix with 400.
const MODEL_FAULTS: &[(u32, &str, ModelFault)] = &[
    (90, "model throttled", ModelFault::Answer(429, "ThrottlingException", "Too many requests.", false)),
    (
        30,
        "model had no capacity",
        ModelFault::Answer(503, "ServiceUnavailableException", "Too many connections.", false),
    ),
    (30, "model failed", ModelFault::Answer(500, "InternalServerException", "Try again.", true)),
    (10, "model's own server failed", ModelFault::Answer(424, "ModelErrorException", "It failed.", true)),
    (10, "model timed out", ModelFault::Answer(408, "ModelTimeoutException", "It took too long.", true)),
    (5, "operator: not allowed", ModelFault::Answer(400, "ValidationException", "Operation not allowed", false)),
    (
        5,
        "operator: no such model",
        ModelFault::Answer(400, "ValidationException", "The provided model identifier is invalid.", false),
    ),
    (
        5,
        "operator: no throughput",
        ModelFault::Answer(
            400,
            "ValidationException",
            "Invocation of model ID stability.stable-image-core-v1:1 with on-demand throughput isn\u{2019}t supported. \
             Retry your request with the ID or ARN of an inference profile that contains this model.",
            false,
        ),
    ),
    (5, "operator: no access", ModelFault::Answer(403, "AccessDeniedException", "You don't have access.", false)),
    (5, "operator: model not found", ModelFault::Answer(404, "ResourceNotFoundException", "No such model.", false)),
    (20, "model's inference failed", ModelFault::Inference),
    (15, "model not connected", ModelFault::NotConnected),
    (15, "model's connection broke off", ModelFault::BrokenOff),
    (15, "model answered too late", ModelFault::TooLate),
];

impl Scene {
    /// The fault of the next call to the model, if any.
    fn model_fault(&mut self) -> Option<ModelFault> {
        let now = self.clock.now();
        if let Some((index, _)) = self.spell.filter(|(_, until)| now < *until) {
            let (_, kind, fault) = MODEL_FAULTS[index];
            self.fault(kind);
            return Some(fault);
        }
        if self.calm {
            return None;
        }
        let mut dice = self.random.u32(..1000);
        for &(rate, kind, fault) in MODEL_FAULTS {
            if dice < rate {
                self.fault(kind);
                return Some(fault);
            }
            dice -= rate;
        }
        None
    }

    /// Begins an outage in which each call to the model has the same fault.
    pub(super) fn begin_spell(&mut self) {
        let index = self.random.usize(..MODEL_FAULTS.len());
        self.spell = Some((index, self.clock.now() + super::SPELL));
        self.fault("ten bad minutes of the model");
        self.history.push(format!("the model's bad minutes: {}", MODEL_FAULTS[index].1));
    }

    /// Simulates one call to the model; `None` if the connection is refused.
    pub(super) fn paint(&mut self, actor: usize, body: &Value) -> Option<Result<HttpResponse, ConnectorError>> {
        let prompt = body["prompt"].as_str().unwrap_or_default();
        let Some(job) = self.prompts.get(prompt).cloned() else {
            self.violation(format!("a prompt was painted that nobody submitted: {prompt}"));
            return Some(Ok(answer(500, &Value::Null)));
        };
        if self.ledger(&job).was_stored {
            self.violation(format!("job {job} was sent to the model, and a picture of it was stored"));
        }
        let fault = self.model_fault();
        self.history.push(format!("{actor}: job {job} is sent to the model: {fault:?}"));
        let counts = match fault {
            None | Some(ModelFault::TooLate) => !prompt.contains("nsfw"),
            Some(ModelFault::Answer(_, _, _, begun)) => begun,
            Some(ModelFault::NotConnected) => false,
            Some(ModelFault::Inference | ModelFault::BrokenOff) => true,
        };
        if counts {
            self.ledger(&job).count();
        }
        match fault {
            Some(ModelFault::NotConnected) => return None,
            Some(ModelFault::BrokenOff) => {
                return Some(Err(ConnectorError::io("the connection broke off".into())));
            }
            Some(ModelFault::Inference) => {
                return Some(Ok(answer(200, &json!({ "finish_reasons": ["Inference error"] }))));
            }
            Some(ModelFault::Answer(status, code, message, _)) => {
                let mut response = answer(status, &json!({ "message": message, "originalStatusCode": 500 }));
                response.headers_mut().insert("x-amzn-errortype", code);
                return Some(Ok(response));
            }
            Some(ModelFault::TooLate) | None => {}
        }
        if prompt.contains("nsfw") {
            return Some(Ok(answer(200, &json!({ "finish_reasons": ["Filter reason: prompt"] }))));
        }
        self.tally.pictures += 1;
        let seed = self.tally.pictures;
        self.history.push(format!("{actor}: job {job} is painted"));
        self.ledger(&job).pictures += 1;
        if matches!(fault, Some(ModelFault::TooLate)) {
            self.ledger(&job).excused += 1;
            return Some(Err(ConnectorError::timeout("the answer comes too late".into())));
        }
        // The actor has lost the picture that it had before: the answer was lost, or the bucket did not store it.
        if let Some(before) = self.in_hand.insert(actor, job) {
            self.ledger(&before).excused += 1;
        }
        Some(Ok(answer(200, &json!({ "seeds": [seed], "finish_reasons": [null], "images": [*PICTURE] }))))
    }
}
