//! What the gate and the scheduler share: the simulated queue, and what was observed of the jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use shared::job::Status;
use shared::ticket::{Message as _, Ticket};
use shared::{Clock, Timestamp};

use super::events::SeenEvents;
use super::files::SeenFiles;
use super::gate::Late;
use super::versions::Version;
use super::{Ailment, Bug, INVOCATION, Tally};

/// The largest difference between the clocks of two machines.
pub(super) const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The call is made.
    Made,
    /// The call is made, and its answer is lost.
    AnswerLost,
    /// The call is not made.
    Refused,
    /// The caller dies before the call.
    CrashBefore,
    /// The call is made, and the caller dies.
    CrashAfter,
    /// The call is made, and the work on its ticket panics.
    Panic,
    /// Its connection breaks off, and it takes effect later, when its caller may have ended: it lay in the network, or in
    /// a function that was frozen.
    Late,
}

/// The faults of calls to any service: how often in a thousand, what happens, and the name in the reports.
const FATES: &[(u32, Fate, &str)] = &[
    (30, Fate::AnswerLost, "answer lost"),
    (30, Fate::Refused, "no answer"),
    (30, Fate::CrashBefore, "crash before a call"),
    (30, Fate::CrashAfter, "crash after a call"),
    (15, Fate::Panic, "panic in the work of a ticket"),
    (15, Fate::Late, "call that took effect later"),
];

/// A ticket in the queue.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) body: String,
    pub(super) receives: u32,
    pub(super) sent_at: Timestamp,
    pub(super) visible_at: Timestamp,
    pub(super) dead: bool,
}

impl Message {
    /// The batch from a file whose ticket this is; `None` for a ticket of a job.
    pub(super) fn batch(&self) -> Option<String> {
        let ticket: Value = serde_json::from_str(&self.body).ok()?;
        ticket["batch"].as_str().map(str::to_owned)
    }
}

/// What the world knows about a job from the calls that it observed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The status that was written last.
    pub(super) status: Option<Status>,
    /// When the record may be deleted.
    pub(super) expires_at: Option<Timestamp>,
    /// Pictures painted.
    pub(super) pictures: u32,
    /// Extra pictures that were painted for an accepted reason.
    pub(super) excused: u32,
    /// Attempts that may have been paid for, or whose worker was lost.
    pub(super) counted: u32,
    /// When the job was queued, which distinguishes the files of its lives.
    pub(super) queued_at: i64,
    /// Whether a file of this life is in the bucket, and whether one was when a worker last took the job up.
    pub(super) stored: bool,
    pub(super) was_stored: bool,
    /// Whether an attempt is in progress that is not counted yet.
    pub(super) under_way: bool,
    /// Who holds the job, according to the writes.
    pub(super) holder: Option<usize>,
    /// The worker whose attempt counts only because the worker was lost. A write of it that takes effect later says what
    /// came of the attempt after all.
    pub(super) lost: Option<usize>,
    /// How many times the job was retried, which resets the counts.
    pub(super) retries: u32,
    /// Whether a ticket of this life has reached the dead-letter queue.
    pub(super) given_up: bool,
    /// Whether a ticket without `queued_at`, as the version before sent, has reached it. Such a ticket may end any life.
    pub(super) given_up_blindly: bool,
    pub(super) accepted: bool,
    /// Whether a ticket of the job was ever sent.
    pub(super) ticketed: bool,
    /// Whether the retention has ended, so that the record and the files may be deleted.
    pub(super) aged: bool,
}

impl Ledger {
    /// A file of the life with this `queued_at` was stored or deleted.
    pub(super) fn file(&mut self, queued_at: &str, stored: bool) {
        if queued_at.trim_end_matches("-artwork") == self.queued_at.to_string() {
            self.stored = stored;
        }
    }

    /// The attempt in progress may have been paid for, or its worker is lost.
    pub(super) fn count(&mut self) {
        self.counted += u32::from(std::mem::take(&mut self.under_way));
    }
}

/// What the gate shares with the scheduler.
pub(super) struct Scene {
    pub(super) random: fastrand::Rng,
    pub(super) clock: Clock,
    pub(super) bug: Option<Bug>,
    pub(super) calm: bool,
    /// The highest receive count of a ticket.
    pub(super) most_receives: u32,
    /// How the model fails in an outage of a whole world, and until when.
    pub(super) outage: Option<(Ailment, Timestamp)>,
    /// The fault of each call to the model, by its index, and until when.
    pub(super) spell: Option<(usize, Timestamp)>,
    /// How many of the next writes to the table are throttled.
    pub(super) throttled_writes: u32,
    /// For each key of the table, the item before the last write, the item since, and the time of the write.
    pub(super) versions: BTreeMap<String, (Value, Value, Timestamp)>,
    /// Calls that take effect later.
    pub(super) late: Vec<Late>,
    /// Workers whose invocations are running, and since when.
    pub(super) alive: BTreeMap<usize, Timestamp>,
    /// Those of them that are the dead-letter function.
    pub(super) dead_letters: BTreeSet<usize>,
    /// Workers in which the work on a ticket has panicked.
    pub(super) panicked: BTreeSet<usize>,
    pub(super) queue: Vec<Option<Message>>,
    pub(super) jobs: BTreeMap<String, Ledger>,
    /// The jobs that were seen to end, with their status and their deadline, which a retry changes.
    pub(super) ended: BTreeMap<String, (Status, Timestamp)>,
    /// When each job was last retried.
    pub(super) retried: BTreeMap<String, Timestamp>,
    /// What was seen of batches from files.
    pub(super) files: SeenFiles,
    /// What was seen of events.
    pub(super) events: SeenEvents,
    /// Pictures that an actor has received and not stored yet.
    pub(super) in_hand: BTreeMap<usize, String>,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) violations: Vec<String>,
    /// What happened, to find the cause of a violation.
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

    /// An actor is gone. If it had a picture, the picture was paid for and lost.
    pub(super) fn forget(&mut self, actor: usize) {
        self.forget_picture(actor);
        self.alive.remove(&actor);
        self.panicked.remove(&actor);
        for ledger in self.jobs.values_mut().filter(|ledger| ledger.holder == Some(actor)) {
            ledger.holder = None;
            ledger.lost = ledger.under_way.then_some(actor);
            ledger.count();
        }
    }

    /// Whether a worker holds the job within the time of its invocation.
    fn is_held(&mut self, job: &str) -> Option<usize> {
        let holder = self.ledger(job).holder?;
        let began = *self.alive.get(&holder)?;
        (self.clock.now().since(began) < INVOCATION && !self.panicked.contains(&holder)).then_some(holder)
    }

    pub(super) fn ledger(&mut self, job: &str) -> &mut Ledger {
        self.jobs.entry(job.to_owned()).or_default()
    }

    /// Observes a write of a job's record: only a retry may change a job that has ended, and only the job's
    /// owner may take a job from a worker that is working on it.
    pub(super) fn written(&mut self, actor: usize, job: &str, item: &Value) {
        let Some(status) = item["status"]["S"].as_str().and_then(|text| text.parse().ok()) else { return };
        let now = self.clock.now();
        let number = |value: &Value| value["N"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0_i64);
        let before = self.ledger(job).status;
        let ended = |status: Status| status > Status::Running;
        let waited = before == Some(Status::Queued);
        if let Some(holder) = self.is_held(job)
            && holder != actor
            && !matches!(status, Status::Queued | Status::Canceled)
        {
            self.violation(format!("job {job} was made {status} while a worker was at it"));
        }
        match (before, status) {
            (Some(before), Status::Queued) if number(&item["fence"]) == 0 => {
                let ledger = self.ledger(job);
                let alive = ledger.expires_at.is_some_and(|end| end > now);
                // A write whose answer was lost is repeated, which is harmless as long as nobody else has changed the job.
                if alive && !(before == Status::Queued && ledger.retries == 0) {
                    self.violation(format!("job {job} was {before} and was overwritten"));
                }
                let accepted = alive && self.ledger(job).accepted;
                *self.ledger(job) = Ledger { accepted, ..Ledger::default() };
            }
            (Some(Status::Failed | Status::Canceled), Status::Queued) => {
                let Ledger { retries, accepted, pictures, aged, given_up_blindly, .. } =
                    std::mem::take(self.ledger(job));
                let retries = retries + 1;
                self.retried.insert(job.to_owned(), now);
                *self.ledger(job) = Ledger { retries, accepted, pictures, aged, given_up_blindly, ..Ledger::default() };
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
        // A claim writes a new lease; a release keeps the lease's id.
        let lease = |item: &Value| item["lease"]["M"]["id"].clone();
        let known = self.versions.get(&format!("JOB#{job}")).map(|(_, now, _)| lease(now)).unwrap_or_default();
        let held = status == Status::Running && lease(item) != known;
        let before = self.ledger(job).holder.filter(|&holder| holder != actor);
        let panicked = before.is_some_and(|holder| self.panicked.contains(&holder));
        let ledger = self.ledger(job);
        if before.is_some() {
            // The worker before was slower than its lease allows, so what it paints is paid for and lost.
            ledger.excused += u32::from(held && !panicked);
            ledger.count();
        }
        let lost = ledger.lost.take();
        ledger.counted -= u32::from(lost == Some(actor));
        ledger.status = Some(status);
        ledger.queued_at = number(&item["queued_at"]);
        let retries = ledger.retries;
        if held {
            ledger.was_stored = ledger.stored;
        }
        ledger.expires_at = Some(Timestamp::from_ms(number(&item["expires_at"]) * 1000));
        ledger.under_way = held;
        ledger.holder = held.then_some(actor);
        if held && waited && retries == 0 {
            self.claimed(job);
        }
    }
}
impl Scene {
    pub(super) fn fate(&mut self) -> Fate {
        if self.calm {
            return Fate::Made;
        }
        let mut dice = self.random.u32(..1000);
        for &(rate, fate, kind) in FATES {
            if dice < rate {
                self.fault(kind);
                return fate;
            }
            dice -= rate;
        }
        Fate::Made
    }

    /// Whether a write to the table is throttled: an index that cannot keep up throttles the table, for a while.
    pub(super) fn is_throttled(&mut self) -> bool {
        if self.throttled_writes == 0 && self.chance(0.01) {
            self.throttled_writes = self.random.u32(1..=8);
        }
        let throttled = self.throttled_writes > 0;
        if throttled {
            self.throttled_writes -= 1;
            self.fault("write throttled by an index");
        }
        throttled
    }

    /// The work on one of an actor's tickets panics. Its picture is lost, and nobody holds its job any more.
    pub(super) fn panic(&mut self, actor: usize) {
        self.forget_picture(actor);
        for ledger in self.jobs.values_mut().filter(|ledger| ledger.holder == Some(actor)) {
            ledger.count();
        }
        self.panicked.insert(actor);
    }

    /// As far as its caller knows, a call to the model may have been paid for.
    pub(super) fn may_be_paid(&mut self, body: &Value) {
        let job = body["prompt"].as_str().and_then(|prompt| self.prompts.get(prompt)).cloned();
        if let Some(job) = job {
            self.ledger(&job).count();
        }
    }

    pub(super) fn forget_picture(&mut self, actor: usize) {
        if let Some(job) = self.in_hand.remove(&actor) {
            self.ledger(&job).excused += 1;
        }
    }

    pub(super) fn send(&mut self, version: Version, body: &Value) -> HttpResponse {
        if self.bug != Some(Bug::TicketNotSent) || self.random.f64() < 0.7 {
            self.enqueue(version, body);
        }
        answer(200, &json!({ "MessageId": "m" }))
    }

    pub(super) fn send_batch(&mut self, version: Version, body: &Value) -> HttpResponse {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in body["Entries"].as_array().cloned().unwrap_or_default() {
            if self.chance(0.1) {
                self.fault("entry of a batch failed");
                failed.push(json!({ "Id": entry["Id"], "SenderFault": false, "Code": "InternalError" }));
            } else {
                self.enqueue(version, &json!({ "MessageBody": entry["MessageBody"] }));
                successful.push(json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" }));
            }
        }
        if self.bug == Some(Bug::PartialFailureIgnored) {
            failed.clear();
        }
        answer(200, &json!({ "Successful": successful, "Failed": failed }))
    }

    pub(super) fn enqueue(&mut self, version: Version, body: &Value) {
        let body = version.ticket(body["MessageBody"].as_str().unwrap_or_default());
        if let Ok(ticket) = Ticket::from_body(&body) {
            self.ledger(&ticket.job.to_string()).ticketed = true;
        }
        let now = self.clock.now();
        self.queue.push(Some(Message { body, receives: 0, sent_at: now, visible_at: now, dead: false }));
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
}

pub(super) fn answer(status: u16, body: &Value) -> HttpResponse {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let status = status.try_into().expect("a good status");
    HttpResponse::new(status, SdkBody::from(body))
}
