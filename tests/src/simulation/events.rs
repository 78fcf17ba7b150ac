//! The queue of events: which ends must be told, what was queued, and the planted bugs of telling.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use shared::batch::Stage;
use shared::delivery::{DeliveryId, DeliveryMessage};
use shared::event;
use shared::id::Subject;
use shared::job::Status;
use shared::ticket::Message as _;
use shared::webhook::EventType;
use shared::{BatchId, JobId, Timestamp};

use super::Bug;
use super::files::CLEANUP;
use super::gate::{Gate, body_of};
use super::scene::{CLOCKS_DIFFER, Scene, answer};
use super::world::World;

/// What the world knows of events.
#[derive(Default)]
pub(super) struct SeenEvents {
    /// The URL of their queue.
    queue: String,
    /// When each actor began.
    pub(super) began: BTreeMap<usize, Timestamp>,
    /// The actors that retry jobs.
    pub(super) retrying: BTreeSet<usize>,
    /// A job whose event was not queued, or not for sure, because its caller failed.
    pub(super) interrupted: Option<JobId>,
    /// The batches whose ticket may be lost, as its sender or the function that should send it has failed.
    pub(super) lost: BTreeSet<BatchId>,
    /// The ends of jobs, and the lives of batches.
    ends: HashMap<DeliveryId, End>,
    /// Requests that a planted bug makes after the ones that should follow.
    held: BTreeMap<usize, (SharedHttpConnector, HttpRequest)>,
}

/// The end of a job, or the life of a batch, which has one end.
struct End {
    /// The event that its caller asked for, and the URL; `None` if there is nothing to tell.
    asked: Option<(EventType, String)>,
    /// Whether the end is stored.
    is_over: bool,
    /// The payloads that were queued.
    payloads: Vec<String>,
    /// When its record was seen to say that it was told.
    marked_at: Option<Timestamp>,
}

impl SeenEvents {
    /// Nothing was seen yet of the events in this queue.
    pub(super) fn of(queue: String) -> Self {
        Self { queue, ..Self::default() }
    }
}

/// The webhook of jobs and batches with an id that ends like this; null for none.
pub(super) fn webhook(id: &str, of_batch: bool) -> Value {
    let all = ["job.succeeded", "job.failed", "job.canceled", "batch.ended"];
    let events = match id.bytes().nth_back(1) {
        Some(b'0'..=b'7') if of_batch => &all,
        Some(b'0'..=b'7') => &all[..3],
        Some(b'8'..=b'a') => &all[1..3],
        Some(b'b'..=b'd') if of_batch => &all[3..],
        _ => return Value::Null,
    };
    json!({ "url": format!("https://example.com/{id}"), "events": events })
}

/// The event that the item of a job or a batch asks for, and the URL.
fn asked(webhook: &Value, event: EventType) -> Option<(EventType, String)> {
    let events = webhook["M"]["events"]["L"].as_array()?;
    let is_asked = events.iter().any(|name| name["S"] == json!(event.as_str()));
    let url = webhook["M"]["url"]["S"].as_str()?.to_owned();
    is_asked.then_some((event, url))
}

/// The job whose end a delivery tells.
pub(super) fn job_of(id: DeliveryId) -> Option<JobId> {
    match id.subject {
        Subject::Job(job) => Some(job),
        Subject::Batch(_) => None,
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value["N"].as_str()?.parse().ok().map(Timestamp::from_ms)
}

impl Scene {
    /// Watches the record of a job or a batch being written.
    pub(super) fn end_written(&mut self, item: &Value) {
        let pk = item["pk"]["S"].as_str().unwrap_or_default();
        let (subject, since, asked, is_over) = if let Some(job) = pk.strip_prefix("JOB#") {
            let status = item["status"]["S"].as_str().and_then(|status| status.parse::<Status>().ok());
            let Some(event) = status.and_then(EventType::of_end) else { return };
            let Ok(job) = job.parse() else { return };
            (Subject::Job(job), time(&item["queued_at"]), asked(&item["order"]["M"]["webhook"], event), true)
        } else if let Some(batch) = pk.strip_prefix("BATCH#") {
            let Ok(batch) = batch.parse() else { return };
            let stage = item["file"]["M"]["stage"]["S"].as_str().and_then(|stage| stage.parse().ok());
            let is_over = matches!(stage, Some(Stage::Invalid | Stage::Ended));
            let since = time(&item["retried_at"]).or(time(&item["created_at"]));
            (Subject::Batch(batch), since, asked(&item["webhook"], EventType::BatchEnded), is_over)
        } else {
            return;
        };
        let Some(since) = since else { return };
        let now = self.clock.now();
        let new = End { asked, is_over, payloads: Vec::new(), marked_at: None };
        let end = self.events.ends.entry(DeliveryId { subject, since }).or_insert(new);
        end.is_over |= is_over;
        if time(&item["told_for"]) == Some(since) {
            end.marked_at.get_or_insert(now);
        }
    }

    /// Puts an event into its queue, and holds it against what is stored.
    pub(super) fn queue_event(&mut self, actor: usize, body: &Value) -> HttpResponse {
        let message = DeliveryMessage::from_body(body["MessageBody"].as_str().unwrap_or_default());
        let Ok(DeliveryMessage { id, event, url, payload, .. }) = message else {
            self.violation(format!("a message that is no event was queued: {body}"));
            return answer(200, &json!({ "MessageId": "m" }));
        };
        self.tally.events += 1;
        self.history.push(format!("{actor}: the event {event} is queued: {id}"));
        let data = serde_json::from_str::<Value>(&payload).unwrap_or_default();
        let began = self.events.began.get(&actor).copied();
        let what = match self.events.ends.get_mut(&id) {
            None => Some("before its end was stored".to_owned()),
            Some(End { asked: None, .. }) => Some("and nobody asked for it".to_owned()),
            Some(End { asked: Some((asked, _)), .. }) if *asked != event => Some(format!("instead of {asked}")),
            Some(End { asked: Some((_, to)), .. }) if to != url.as_str() => Some("for another URL".to_owned()),
            Some(_) if data["type"] != json!(event.as_str()) => Some(format!("and says {data}")),
            Some(end) => {
                let is_repeated = !end.payloads.is_empty();
                let is_needless = is_repeated && end.marked_at.is_some_and(|at| began.is_some_and(|began| at < began));
                let is_same = end.payloads.iter().all(|before| *before == payload);
                end.payloads.push(payload);
                if is_repeated {
                    self.fault(if is_needless { "event queued again needlessly" } else { "event queued again" });
                }
                // A batch has no record of when it ended, so whoever notices that says when.
                (!is_same && matches!(id.subject, Subject::Job(_))).then(|| format!("and another time as {data}"))
            }
        };
        if let Some(what) = what {
            self.violation(format!("the event {event} {id} was queued {what}"));
        }
        if let Subject::Batch(batch) = id.subject {
            self.batch_told(batch, id, &data["data"]);
        }
        answer(200, &json!({ "MessageId": "m" }))
    }

    /// Holds the event of a batch against its record.
    fn batch_told(&mut self, batch: BatchId, id: DeliveryId, data: &Value) {
        if self.events.ends.get(&id).is_some_and(|end| !end.is_over) {
            self.violation(format!("the end of batch {batch} was queued before it was stored"));
        }
        let counts = &data["counts"];
        if counts["queued"] != json!(0) || counts["running"] != json!(0) || data["id"] != json!(batch) {
            self.violation(format!("the end of batch {batch} says {data}"));
        }
    }

    /// Queues the event of a job that is about to end with this status, as a planted bug would.
    pub(super) fn queue_too_early(&mut self, actor: usize, key: &Value, status: Status) {
        let pk = key["pk"]["S"].as_str().unwrap_or_default();
        let Some((_, item, _)) = self.versions.get(pk) else { return };
        let Some(event) = EventType::of_end(status) else { return };
        let (Some(since), Some((_, url))) = (time(&item["queued_at"]), asked(&item["order"]["M"]["webhook"], event))
        else {
            return;
        };
        let id = format!("job_{}_{}", pk.trim_start_matches("JOB#"), since.ms());
        let payload = json!({ "type": event.as_str() }).to_string();
        let message = json!({
            "v": 1, "id": id, "owner": "x", "url": url, "type": event.as_str(), "at": 0, "round": 0, "payload": payload,
        });
        self.queue_event(actor, &json!({ "MessageBody": message.to_string() }));
    }
}

impl Gate {
    /// The event that a request queues.
    pub(super) fn event(&self, request: &HttpRequest) -> Option<DeliveryId> {
        if request.headers().get("x-amz-target") != Some("AmazonSQS.SendMessage") {
            return None;
        }
        let body = body_of(request.body());
        if body["QueueUrl"] != json!(self.scene().events.queue) {
            return None;
        }
        DeliveryMessage::from_body(body["MessageBody"].as_str()?).ok().map(|message| message.id)
    }

    /// Does with a request that queues an event what a planted bug would. Returns the request unless the bug keeps it.
    pub(super) fn meddle(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Option<HttpRequest> {
        let Some(id) = self.event(&request) else { return Some(request) };
        let mut scene = self.scene();
        let is_own = scene.alive.contains_key(&actor);
        match scene.bug {
            Some(Bug::MarkBeforeEvent) if is_own => {
                scene.events.held.insert(actor, (inner.clone(), request));
                return None;
            }
            Some(Bug::RetryTellsNothing) if scene.events.retrying.contains(&actor) => return None,
            _ => {}
        }
        if is_own && scene.bug == Some(Bug::TicketBeforeEvent) {
            let name = match id.subject {
                Subject::Job(job) => json!(job),
                Subject::Batch(batch) => json!(batch),
            };
            for message in &mut scene.queue {
                message.take_if(|message| {
                    let ticket: Value = serde_json::from_str(&message.body).unwrap_or_default();
                    ticket["job"] == name || ticket["batch"] == name
                });
            }
        }
        Some(request)
    }

    /// The request that a planted bug makes only after this one.
    pub(super) fn held_until(&self, actor: usize, request: &HttpRequest) -> Option<(SharedHttpConnector, HttpRequest)> {
        let mut scene = self.scene();
        if scene.bug != Some(Bug::MarkBeforeEvent)
            || body_of(request.body())["UpdateExpression"] != json!("SET told_for = :told")
        {
            return None;
        }
        scene.events.held.remove(&actor)
    }
}

impl World<'_> {
    /// The owner of a job whose event could not be queued retries the job.
    pub(super) async fn retry_untold(&mut self) {
        let Some(job) = self.scene().events.interrupted.take() else { return };
        if self.pick(2) == 0 {
            self.steer_at_once(job, "/jobs/{id}/retry").await;
        }
    }

    /// Looks at the batches that have no ticket any more and have not ended, or whose end nobody has told. The next look long
    /// after their deadline sends them another.
    pub(super) async fn look_at_lost_batches(&mut self) {
        for id in self.batches() {
            let Some(batch) = self.record(id).await else { continue };
            let is_untold = batch.has_ended() && batch.webhook_for_end().is_some();
            // A batch that is canceled before it is started has no ticket.
            let is_lost = self.scene().events.lost.contains(&id) || batch.canceled_at.is_some();
            if !(batch.is_active() || is_untold && is_lost) {
                continue;
            }
            let late = batch.deadline_at + CLEANUP + CLOCKS_DIFFER;
            self.advance(late.since(self.universe.clock.now())).await;
            self.look_at_batch(id).await;
            self.release_all().await;
            self.work_off(1).await;
        }
    }

    /// Checks that every end that is stored was told, except those of these jobs.
    pub(super) fn check_told(&self, except: &BTreeSet<JobId>) {
        let mut scene = self.scene();
        let is_untold = |id: &DeliveryId, end: &End| {
            let is_excepted = job_of(*id).is_some_and(|job| except.contains(&job));
            end.asked.is_some() && end.is_over && end.payloads.is_empty() && !is_excepted
        };
        let ends = scene.events.ends.iter().filter(|(id, end)| is_untold(id, end));
        let mut untold: Vec<_> = ends.map(|(id, _)| format!("nobody has queued the event {id}")).collect();
        untold.sort_unstable();
        scene.violations.extend(untold);
    }

    /// Checks that every end was told, and that the records say so.
    pub(super) async fn check_events(&mut self) {
        self.check_told(&BTreeSet::new());
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        for id in self.jobs() {
            if let Some(job) = table.get(id).await.expect("the table answers")
                && event::of_job(&job).is_some()
            {
                self.scene().violation(format!("job {id} has ended, and its record does not say that this was told"));
            }
        }
        for id in self.batches() {
            if let Some(batch) = self.record(id).await
                && batch.has_ended()
                && batch.webhook_for_end().is_some()
                && !self.aged
            {
                self.scene().violation(format!("nobody has told the end of batch {id}"));
            }
        }
    }
}
