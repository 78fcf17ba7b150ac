//! What the gate and the scheduler share: the queue and the model, which are played, and what was seen of the jobs.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use serde_json::{Value, json};
use shared::job::Status;
use shared::{Clock, Timestamp};
use typography::{Format, Raster};

use super::gate::answer;
use super::{Ailment, Bug, Tally};

/// What the model paints: a small picture, so that setting a title over it takes no time.
static PICTURE: LazyLock<String> = LazyLock::new(|| {
    let pixels = [200, 150, 90].repeat(96 * 144);
    let picture = Raster { width: 96, height: 144, pixels, notes: Vec::new() };
    base64_simd::STANDARD.encode_to_string(picture.encode(Format::Png).expect("it fits"))
});

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is made.
    Made,
    /// It is made, and its answer is lost.
    AnswerLost,
    /// It is not made.
    Refused,
    /// Its caller dies before it.
    CrashBefore,
    /// It is made, and its caller dies.
    CrashAfter,
}
/// A ticket in the queue.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) body: String,
    pub(super) receives: u32,
    pub(super) visible_at: Timestamp,
    pub(super) dead: bool,
}

/// What the world knows of a job by watching the wire.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The state that was written last.
    pub(super) status: Option<Status>,
    /// Pictures painted.
    pub(super) pictures: u32,
    /// Pictures that were painted once too often for a good reason.
    pub(super) excused: u32,
    /// Who holds the job, as far as the writes tell.
    pub(super) holder: Option<usize>,
    /// Whether somebody has retried it, which begins the count anew.
    pub(super) retried: bool,
    pub(super) accepted: bool,
}

/// What the gate shares with the scheduler.
pub(super) struct Scene {
    pub(super) random: fastrand::Rng,
    pub(super) clock: Clock,
    pub(super) bug: Option<Bug>,
    pub(super) calm: bool,
    /// How many times the most received ticket was.
    pub(super) most_receives: u32,
    /// What ails the model, and until when.
    pub(super) outage: Option<(Ailment, Timestamp)>,
    pub(super) queue: Vec<Option<Message>>,
    pub(super) jobs: BTreeMap<String, Ledger>,
    /// Pictures that an actor has been given and has not stored.
    pub(super) in_hand: BTreeMap<usize, String>,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) violations: Vec<String>,
    /// What happened, for whoever has to find out why it must not.
    pub(super) history: Vec<String>,
    pub(super) tally: Tally,
}

impl Scene {
    pub(super) fn chance(&mut self, share: f64) -> bool {
        !self.calm && self.random.f64() < share
    }

    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.tally.faults.entry(kind).or_default() += 1;
    }

    pub(super) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// An actor is gone; a picture that it had in its hand was paid for in vain.
    pub(super) fn forget(&mut self, actor: usize) {
        if let Some(job) = self.in_hand.remove(&actor) {
            self.ledger(&job).excused += 1;
        }
        for ledger in self.jobs.values_mut() {
            if ledger.holder == Some(actor) {
                ledger.holder = None;
            }
        }
    }

    pub(super) fn ledger(&mut self, job: &str) -> &mut Ledger {
        self.jobs.entry(job.to_owned()).or_default()
    }

    /// Watches a job's record being written: nobody may move a job on that has ended, but by a retry.
    pub(super) fn written(&mut self, actor: usize, job: &str, status: Status, created: bool) {
        let before = self.ledger(job).status;
        let ended = |status: Status| status > Status::Running;
        match (before, status) {
            (Some(before), Status::Queued) if created => {
                self.violation(format!("job {job} was {before} and was overwritten"));
            }
            (Some(Status::Failed | Status::Canceled), Status::Queued) => {
                let ledger = self.ledger(job);
                ledger.retried = true;
                ledger.holder = None;
            }
            (Some(before), after) if ended(before) && before != after => {
                self.violation(format!("job {job} was {before} and became {after}"));
            }
            (Some(before), after) if after < before => {
                self.violation(format!("job {job} went back from {before} to {after}"));
            }
            _ => {}
        }
        self.history.push(format!("{actor}: job {job} becomes {status}"));
        let ledger = self.ledger(job);
        ledger.status = Some(status);
        if status == Status::Running {
            ledger.holder = Some(actor);
        }
    }
}
impl Scene {
    pub(super) fn fate(&mut self) -> Fate {
        if self.calm {
            return Fate::Made;
        }
        let (fate, kind) = match self.random.u32(..1000) {
            0..30 => (Fate::AnswerLost, "answer lost"),
            30..60 => (Fate::Refused, "no answer"),
            60..90 => (Fate::CrashBefore, "crash before a call"),
            90..120 => (Fate::CrashAfter, "crash after a call"),
            _ => return Fate::Made,
        };
        self.fault(kind);
        fate
    }

    pub(super) fn forget_picture(&mut self, actor: usize) {
        if let Some(job) = self.in_hand.remove(&actor) {
            self.ledger(&job).excused += 1;
        }
    }

    pub(super) fn send(&mut self, body: &Value) -> HttpResponse {
        if self.bug != Some(Bug::TicketNotSent) || self.random.f64() < 0.7 {
            self.enqueue(body);
        }
        answer(200, &json!({ "MessageId": "m" }))
    }

    pub(super) fn send_batch(&mut self, body: &Value) -> HttpResponse {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in body["Entries"].as_array().cloned().unwrap_or_default() {
            if self.chance(0.1) {
                self.fault("entry of a batch failed");
                failed.push(json!({ "Id": entry["Id"], "SenderFault": false, "Code": "InternalError" }));
            } else {
                self.enqueue(&json!({ "MessageBody": entry["MessageBody"] }));
                successful.push(json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" }));
            }
        }
        if self.bug == Some(Bug::PartialFailureIgnored) {
            failed.clear();
        }
        answer(200, &json!({ "Successful": successful, "Failed": failed }))
    }

    pub(super) fn enqueue(&mut self, body: &Value) {
        let body = body["MessageBody"].as_str().unwrap_or_default().to_owned();
        let visible_at = self.clock.now();
        self.queue.push(Some(Message { body, receives: 0, visible_at, dead: false }));
    }

    pub(super) fn hide(&mut self, body: &Value) -> HttpResponse {
        let ticket = body["ReceiptHandle"].as_str().and_then(|handle| handle.strip_prefix("receipt-")?.parse().ok());
        let delay = Duration::from_secs(body["VisibilityTimeout"].as_u64().unwrap_or_default());
        let now = self.clock.now();
        if let Some(Some(message)) = ticket.and_then(|ticket: usize| self.queue.get_mut(ticket)) {
            message.visible_at = now + delay;
        }
        answer(200, &json!({}))
    }

    pub(super) fn paint(&mut self, actor: usize, body: &Value) -> HttpResponse {
        let error = |status, code: &str| {
            let mut response = answer(status, &json!({ "message": code }));
            response.headers_mut().insert("x-amzn-errortype", code.to_owned());
            response
        };
        let prompt = body["prompt"].as_str().unwrap_or_default().to_owned();
        if prompt.contains("nsfw") {
            return answer(200, &json!({ "finish_reasons": ["Filter reason: prompt"] }));
        }
        if self.chance(0.15) {
            self.fault("model throttled");
            return error(429, "ThrottlingException");
        }
        if self.chance(0.05) {
            self.fault("model failed");
            return error(500, "InternalServerException");
        }
        if self.chance(0.03) {
            self.fault("model's inference failed");
            return answer(200, &json!({ "finish_reasons": ["Inference error"] }));
        }
        let Some(job) = self.prompts.get(&prompt).cloned() else {
            self.violation(format!("a prompt was painted that nobody submitted: {prompt}"));
            return error(500, "InternalServerException");
        };
        self.tally.pictures += 1;
        let seed = self.tally.pictures;
        self.history.push(format!("{actor}: job {job} is painted"));
        self.ledger(&job).pictures += 1;
        // What an actor had in its hand before, it has let go of: the answer was lost, or the bucket did not take it.
        if let Some(before) = self.in_hand.insert(actor, job) {
            self.ledger(&before).excused += 1;
        }
        answer(200, &json!({ "seeds": [seed], "finish_reasons": [null], "images": [*PICTURE] }))
    }
}
