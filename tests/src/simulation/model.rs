//! The model, which is played: it paints, refuses, breaks off, and has bad hours.

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

/// What comes in place of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) enum Setback {
    /// An answer with this status, code and message, and whether the model may have begun.
    Answer(u16, &'static str, &'static str, bool),
    /// The model answers that it failed.
    Inference,
    /// No connection is made.
    NotConnected,
    /// The connection breaks off before the model has painted.
    BrokenOff,
    /// The model paints, and answers when the caller has given up.
    TooLate,
}

/// What goes wrong with the model: how often in a thousand calls, its name in the reports, and what comes of the call.
///
/// The messages are those that Bedrock's users report. A fault that the operator must mend comes as a 400 as well.
const SETBACKS: &[(u32, &str, Setback)] = &[
    (90, "model throttled", Setback::Answer(429, "ThrottlingException", "Too many requests.", false)),
    (30, "model had no capacity", Setback::Answer(503, "ServiceUnavailableException", "Too many connections.", false)),
    (30, "model failed", Setback::Answer(500, "InternalServerException", "Try again.", true)),
    (10, "model's own server failed", Setback::Answer(424, "ModelErrorException", "It failed.", true)),
    (10, "model timed out", Setback::Answer(408, "ModelTimeoutException", "It took too long.", true)),
    (5, "operator: not allowed", Setback::Answer(400, "ValidationException", "Operation not allowed", false)),
    (
        5,
        "operator: no such model",
        Setback::Answer(400, "ValidationException", "The provided model identifier is invalid.", false),
    ),
    (
        5,
        "operator: no throughput",
        Setback::Answer(
            400,
            "ValidationException",
            "Invocation of model ID stability.stable-image-core-v1:1 with on-demand throughput isn\u{2019}t supported. \
             Retry your request with the ID or ARN of an inference profile that contains this model.",
            false,
        ),
    ),
    (5, "operator: no access", Setback::Answer(403, "AccessDeniedException", "You don't have access.", false)),
    (5, "operator: model not found", Setback::Answer(404, "ResourceNotFoundException", "No such model.", false)),
    (20, "model's inference failed", Setback::Inference),
    (15, "model not connected", Setback::NotConnected),
    (15, "model's connection broke off", Setback::BrokenOff),
    (15, "model answered too late", Setback::TooLate),
];

impl Scene {
    /// What goes wrong with the next call of the model, if anything does.
    fn setback(&mut self) -> Option<Setback> {
        let now = self.clock.now();
        if let Some((index, _)) = self.spell.filter(|(_, until)| now < *until) {
            let (_, kind, setback) = SETBACKS[index];
            self.fault(kind);
            return Some(setback);
        }
        if self.calm {
            return None;
        }
        let mut dice = self.random.u32(..1000);
        for &(rate, kind, setback) in SETBACKS {
            if dice < rate {
                self.fault(kind);
                return Some(setback);
            }
            dice -= rate;
        }
        None
    }

    /// Begins a time in which each call of the model comes to the same.
    pub(super) fn begin_spell(&mut self) {
        let index = self.random.usize(..SETBACKS.len());
        self.spell = Some((index, self.clock.now() + super::SPELL));
        self.fault("ten bad minutes of the model");
        self.history.push(format!("the model's bad minutes: {}", SETBACKS[index].1));
    }

    /// Plays one call of the model; `None` when no connection to it is made.
    pub(super) fn paint(&mut self, actor: usize, body: &Value) -> Option<Result<HttpResponse, ConnectorError>> {
        let prompt = body["prompt"].as_str().unwrap_or_default();
        let Some(job) = self.prompts.get(prompt).cloned() else {
            self.violation(format!("a prompt was painted that nobody submitted: {prompt}"));
            return Some(Ok(answer(500, &Value::Null)));
        };
        if self.ledger(&job).was_stored {
            self.violation(format!("job {job} was sent to the model, and a picture of it was stored"));
        }
        let setback = self.setback();
        self.history.push(format!("{actor}: job {job} is sent to the model: {setback:?}"));
        let counts = match setback {
            None | Some(Setback::TooLate) => !prompt.contains("nsfw"),
            Some(Setback::Answer(_, _, _, begun)) => begun,
            Some(Setback::NotConnected) => false,
            Some(Setback::Inference | Setback::BrokenOff) => true,
        };
        if counts {
            self.ledger(&job).count();
        }
        match setback {
            Some(Setback::NotConnected) => return None,
            Some(Setback::BrokenOff) => {
                return Some(Err(ConnectorError::io("the connection broke off".into())));
            }
            Some(Setback::Inference) => {
                return Some(Ok(answer(200, &json!({ "finish_reasons": ["Inference error"] }))));
            }
            Some(Setback::Answer(status, code, message, _)) => {
                let mut response = answer(status, &json!({ "message": message, "originalStatusCode": 500 }));
                response.headers_mut().insert("x-amzn-errortype", code);
                return Some(Ok(response));
            }
            Some(Setback::TooLate) | None => {}
        }
        if prompt.contains("nsfw") {
            return Some(Ok(answer(200, &json!({ "finish_reasons": ["Filter reason: prompt"] }))));
        }
        self.tally.pictures += 1;
        let seed = self.tally.pictures;
        self.history.push(format!("{actor}: job {job} is painted"));
        self.ledger(&job).pictures += 1;
        if matches!(setback, Some(Setback::TooLate)) {
            self.ledger(&job).excused += 1;
            return Some(Err(ConnectorError::timeout("the answer comes too late".into())));
        }
        // What an actor had in its hand before, it has let go of: the answer was lost, or the bucket did not take it.
        if let Some(before) = self.in_hand.insert(actor, job) {
            self.ledger(&before).excused += 1;
        }
        Some(Ok(answer(200, &json!({ "seeds": [seed], "finish_reasons": [null], "images": [*PICTURE] }))))
    }
}
