//! Small worlds in which everything goes wrong that can, in an order that a seed decides.
//!
//! The functions' own handlers run over the embedded table and bucket. Every call that they make to AWS stops at a gate,
//! and a scheduler decides what happens next: which of the waiting calls is made, whether its answer is lost, whether its
//! caller dies before or after it, whether a ticket is delivered late, twice or out of order, whether somebody cancels or
//! retries a job, or how far the clock jumps. One call is under way at a time, so a seed always makes the same history.
//!
//! The queue and the model are played at the gate: the queue because its time must be the world's and not the machine's,
//! the model because its pictures are to be counted, not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use aws_lambda_events::http::Method;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use lambda_runtime::{Context, LambdaEvent};
use local::{Apps, Options, Stack};
use serde_json::{Value, json};
use shared::api::JobView;
use shared::job::Status;
use shared::{BatchId, Clock, Job, JobId, JobState, Owner, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How many paintings of one job may be begun: few, so that the limit is met.
const MAX_ATTEMPTS: u32 = 2;

/// How many steps a world takes in disorder before everything is let to settle.
const STEPS: usize = 70;

/// How long an invocation of the worker lasts at the most, and so how long a call of it can be outstanding.
const INVOCATION: Duration = Duration::from_secs(90);

/// How long a ticket stays away when nobody says how long.
const VISIBILITY: Duration = Duration::from_secs(540);

/// A rule that the code under test might have left out. Each is left out at the gate, and each must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A claim is written whoever holds the job.
    ClaimWithoutCondition,
    /// The end of a job is written even after the job has moved on.
    FinishWithoutCondition,
    /// A new job overwrites one of the same name.
    CreateWithoutCondition,
    /// Attempts are not counted when they begin.
    AttemptsUncounted,
    /// A second painting is begun without a look for the first one's picture.
    NoLookBeforePaying,
    /// A picture is stored over the one that is there.
    PictureOverwritten,
    /// The late picture of a canceled job is kept.
    LatePictureKept,
    /// A job is accepted whose ticket was not sent.
    TicketNotSent,
    /// The ticket of a job that somebody holds is deleted.
    BusyTicketDeleted,
    /// Entries that a batch of messages left out are not sent again.
    PartialFailureIgnored,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ClaimWithoutCondition,
        Self::FinishWithoutCondition,
        Self::CreateWithoutCondition,
        Self::AttemptsUncounted,
        Self::NoLookBeforePaying,
        Self::PictureOverwritten,
        Self::LatePictureKept,
        Self::TicketNotSent,
        Self::BusyTicketDeleted,
        Self::PartialFailureIgnored,
    ];
}

/// What was done to the worlds, for the reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worlds.
    pub worlds: usize,
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Calls of AWS services.
    pub calls: usize,
    /// Pictures painted.
    pub pictures: usize,
    /// What went wrong, by its kind.
    pub faults: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Adds what was done to another world.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.jobs += other.jobs;
        self.calls += other.calls;
        self.pictures += other.pictures;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
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

/// What an actor tells the scheduler.
enum News {
    /// It wants to make a call.
    Call { actor: usize, fate: oneshot::Sender<Fate> },
    /// It has died of a call's fate.
    Died { actor: usize },
    /// It has come to its end.
    Done { actor: usize, outcome: Outcome },
}

/// What an actor has come to.
enum Outcome {
    /// The status of an answer over HTTP, and the body.
    Answer(u16, Value),
    /// The positions of the tickets that come back.
    ComeBack(BTreeSet<usize>),
}

/// Who acts.
enum Role {
    /// Somebody who submits the jobs of the order with this number.
    Submitter { order: usize },
    /// Somebody who cancels or retries a job.
    Steersman,
    /// A worker, or the function of dead letters, with these tickets.
    Worker { tickets: Vec<usize>, began: Timestamp },
}

struct Actor {
    role: Role,
    task: JoinHandle<()>,
    waiting: Option<oneshot::Sender<Fate>>,
}

/// A ticket in the queue.
#[derive(Clone, Debug)]
struct Message {
    body: String,
    receives: u32,
    visible_at: Timestamp,
    dead: bool,
}

/// What the world knows of a job by watching the wire.
#[derive(Debug, Default)]
struct Ledger {
    /// The state that was written last.
    status: Option<Status>,
    /// Pictures painted.
    pictures: u32,
    /// Pictures that were painted once too often for a good reason.
    excused: u32,
    /// Who holds the job, as far as the writes tell.
    holder: Option<usize>,
    /// Whether somebody has retried it, which begins the count anew.
    retried: bool,
    accepted: bool,
}

/// What the gate shares with the scheduler.
struct Shared {
    random: fastrand::Rng,
    clock: Clock,
    bug: Option<Bug>,
    calm: bool,
    queue: Vec<Option<Message>>,
    jobs: BTreeMap<String, Ledger>,
    /// Pictures that an actor has been given and has not stored.
    in_hand: BTreeMap<usize, String>,
    prompts: BTreeMap<String, String>,
    violations: Vec<String>,
    /// What happened, for whoever has to find out why it must not.
    history: Vec<String>,
    tally: Tally,
}

impl Shared {
    fn chance(&mut self, share: f64) -> bool {
        !self.calm && self.random.f64() < share
    }

    fn fault(&mut self, kind: &'static str) {
        *self.tally.faults.entry(kind).or_default() += 1;
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// An actor is gone; a picture that it had in its hand was paid for in vain.
    fn forget(&mut self, actor: usize) {
        if let Some(job) = self.in_hand.remove(&actor) {
            self.ledger(&job).excused += 1;
        }
        for ledger in self.jobs.values_mut() {
            if ledger.holder == Some(actor) {
                ledger.holder = None;
            }
        }
    }

    fn ledger(&mut self, job: &str) -> &mut Ledger {
        self.jobs.entry(job.to_owned()).or_default()
    }

    /// Watches a job's record being written: nobody may move a job on that has ended, but by a retry.
    fn written(&mut self, actor: usize, job: &str, status: Status, created: bool) {
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

/// The gate at which every call of an actor stops.
#[derive(Clone)]
struct Gate {
    actor: usize,
    /// Whether the actor makes several calls at once; its calls then pass, each with a fate of its own.
    hurried: bool,
    inner: SharedHttpClient,
    news: mpsc::UnboundedSender<News>,
    shared: Arc<Mutex<Shared>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({})", self.actor)
    }
}

impl HttpClient for Gate {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            inner: self.inner.http_connector(settings, components),
            gate: self.clone(),
        })
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    gate: Gate,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, gate) = (self.inner.clone(), self.gate.clone());
        HttpConnectorFuture::new(async move { gate.pass(&inner, request).await })
    }
}

impl Gate {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, inner: &SharedHttpConnector, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let fate = if self.hurried { self.shared().fate() } else { self.ask().await };
        self.shared().tally.calls += 1;
        if fate == Fate::Refused {
            return Err(ConnectorError::io("the service does not answer".into()));
        }
        if fate == Fate::CrashBefore {
            return self.die().await;
        }
        let response = self.make(inner, request).await;
        match fate {
            Fate::CrashAfter => self.die().await,
            Fate::AnswerLost => Err(ConnectorError::io("the answer was lost".into())),
            _ => response,
        }
    }

    async fn ask(&self) -> Fate {
        let (fate, told) = oneshot::channel();
        // The scheduler is there as long as the actors are.
        let _ = self.news.send(News::Call { actor: self.actor, fate });
        told.await.unwrap_or(Fate::CrashBefore)
    }

    async fn die(&self) -> Result<HttpResponse, ConnectorError> {
        let _ = self.news.send(News::Died { actor: self.actor });
        std::future::pending().await
    }

    /// Makes the call: plays the queue and the model, and watches the table and the bucket.
    async fn make(&self, inner: &SharedHttpConnector, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let body: Value = request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        match target.rsplit('.').next().unwrap_or_default() {
            "SendMessage" => Ok(self.shared().send(&body)),
            "SendMessageBatch" => Ok(self.shared().send_batch(&body)),
            "ChangeMessageVisibility" => Ok(self.shared().hide(&body)),
            "GetQueueAttributes" => Ok(answer(200, &json!({ "Attributes": {} }))),
            "PutItem" => self.put_item(inner, request, body).await,
            "UpdateItem" => self.update_item(inner, request, body).await,
            "BatchWriteItem" => self.batch_write(inner, request, body).await,
            _ if request.uri().contains("/model/") => Ok(self.shared().paint(self.actor, &body)),
            _ if request.uri().contains("/images/") => self.object(inner, request).await,
            _ => inner.call(request).await,
        }
    }

    async fn put_item(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let pk = body["Item"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
        if self.shared().bug == Some(Bug::CreateWithoutCondition) {
            strip_condition(&mut request, &mut body);
        }
        let response = inner.call(request).await?;
        if let Some(job) = pk.strip_prefix("JOB#").filter(|_| response.status().is_success()) {
            self.shared().written(self.actor, job, Status::Queued, true);
        }
        Ok(response)
    }

    async fn update_item(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let pk = body["Key"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
        let status = body["ExpressionAttributeValues"][":status"]["S"].as_str().and_then(|text| text.parse().ok());
        let (Some(job), Some(status)) = (pk.strip_prefix("JOB#"), status) else { return inner.call(request).await };
        let bug = self.shared().bug;
        match (bug, status) {
            (Some(Bug::ClaimWithoutCondition), Status::Running)
            | (Some(Bug::FinishWithoutCondition), Status::Succeeded | Status::Failed) => {
                strip_condition(&mut request, &mut body);
            }
            (Some(Bug::AttemptsUncounted), Status::Running) => {
                body["ExpressionAttributeValues"][":attempts"]["N"] = "1".into();
                replace_body(&mut request, &body);
            }
            _ => {}
        }
        let response = inner.call(request).await?;
        if response.status().is_success() {
            let mut shared = self.shared();
            let holder = shared.ledger(job).holder;
            if status == Status::Running && holder.is_some_and(|holder| holder != self.actor) {
                // The worker before was slower than its lease allows; what it paints is paid for in vain.
                shared.ledger(job).excused += 1;
            }
            shared.written(self.actor, job, status, false);
        }
        Ok(response)
    }

    async fn batch_write(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let Some(table) = body["RequestItems"].as_object().and_then(|tables| tables.keys().next().cloned()) else {
            return inner.call(request).await;
        };
        let mut writes = body["RequestItems"][&table].as_array().cloned().unwrap_or_default();
        let mut left = Vec::new();
        if writes.len() > 1 && self.shared().chance(0.3) {
            left = writes.split_off(writes.len() / 2);
            self.shared().fault("unprocessed items");
        }
        body["RequestItems"][&table] = writes.clone().into();
        replace_body(&mut request, &body);
        let response = inner.call(request).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        for write in &writes {
            let pk = write["PutRequest"]["Item"]["pk"]["S"].as_str().unwrap_or_default();
            if let Some(job) = pk.strip_prefix("JOB#") {
                // A write whose answer was lost is made again, which is harmless while nobody knows of the jobs.
                let mut shared = self.shared();
                let known = shared.ledger(job).status;
                shared.written(self.actor, job, Status::Queued, known != Some(Status::Queued));
            }
        }
        let unprocessed = if left.is_empty() { json!({}) } else { json!({ table: left }) };
        Ok(answer(200, &json!({ "UnprocessedItems": unprocessed })))
    }

    async fn object(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let bug = self.shared().bug;
        match (request.method(), bug) {
            ("HEAD", Some(Bug::NoLookBeforePaying)) => return Ok(answer(404, &Value::Null)),
            ("DELETE", Some(Bug::LatePictureKept)) => return Ok(answer(204, &Value::Null)),
            ("PUT", Some(Bug::PictureOverwritten)) => {
                request.headers_mut().remove("if-none-match");
            }
            _ => {}
        }
        let call = format!("{}: {} {}", self.actor, request.method(), request.uri());
        self.shared().history.push(call);
        let put = request.method() == "PUT";
        let response = inner.call(request).await?;
        if put && response.status().is_success() {
            self.shared().in_hand.remove(&self.actor);
        } else if put && response.status().as_u16() == 412 {
            self.shared().forget_picture(self.actor);
        }
        Ok(response)
    }
}

impl Shared {
    fn fate(&mut self) -> Fate {
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

    fn forget_picture(&mut self, actor: usize) {
        if let Some(job) = self.in_hand.remove(&actor) {
            self.ledger(&job).excused += 1;
        }
    }

    fn send(&mut self, body: &Value) -> HttpResponse {
        if self.bug != Some(Bug::TicketNotSent) || self.random.f64() < 0.7 {
            self.enqueue(body);
        }
        answer(200, &json!({ "MessageId": "m" }))
    }

    fn send_batch(&mut self, body: &Value) -> HttpResponse {
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

    fn enqueue(&mut self, body: &Value) {
        let body = body["MessageBody"].as_str().unwrap_or_default().to_owned();
        let visible_at = self.clock.now();
        self.queue.push(Some(Message { body, receives: 0, visible_at, dead: false }));
    }

    fn hide(&mut self, body: &Value) -> HttpResponse {
        let ticket = body["ReceiptHandle"].as_str().and_then(|handle| handle.strip_prefix("receipt-")?.parse().ok());
        let delay = Duration::from_secs(body["VisibilityTimeout"].as_u64().unwrap_or_default());
        let now = self.clock.now();
        if let Some(Some(message)) = ticket.and_then(|ticket: usize| self.queue.get_mut(ticket)) {
            message.visible_at = now + delay;
        }
        answer(200, &json!({}))
    }

    fn paint(&mut self, actor: usize, body: &Value) -> HttpResponse {
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
        let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice();
        let picture = [header, &832_u32.to_be_bytes(), &1216_u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let image = base64_simd::STANDARD.encode_to_string(picture);
        answer(200, &json!({ "seeds": [seed], "finish_reasons": [null], "images": [image] }))
    }
}

fn answer(status: u16, body: &Value) -> HttpResponse {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let status = status.try_into().expect("a good status");
    HttpResponse::new(status, aws_smithy_types::body::SdkBody::from(body))
}

fn strip_condition(request: &mut HttpRequest, body: &mut Value) {
    if let Some(body) = body.as_object_mut() {
        body.remove("ConditionExpression");
        body.remove("ReturnValuesOnConditionCheckFailure");
        // A value that no expression names is refused.
        let values = body.get_mut("ExpressionAttributeValues").and_then(Value::as_object_mut);
        if let Some(values) = values {
            values.remove(":before");
            values.remove(":now");
            if values.is_empty() {
                body.remove("ExpressionAttributeValues");
            }
        }
    }
    replace_body(request, body);
}

fn replace_body(request: &mut HttpRequest, body: &Value) {
    let body = body.to_string();
    request.headers_mut().insert("content-length", body.len().to_string());
    *request.body_mut() = aws_smithy_types::body::SdkBody::from(body);
}

/// A stack in which many worlds come and go. Worlds share its table and bucket, and nothing in them.
pub struct Universe {
    stack: Stack,
    clock: Clock,
}

impl Universe {
    /// A universe whose clock stands still but for what the worlds advance it.
    pub async fn new() -> Self {
        let clock = Clock::still(Timestamp::from_ms(1_795_500_000_000));
        let parameters = [("MaxAttempts", MAX_ATTEMPTS.to_string()), ("PostersInFlight", "1".to_owned())];
        let options = Options {
            event_sources: false,
            clock: clock.clone(),
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Options::default()
        };
        Self { stack: Stack::start(options).await.expect("the stack starts"), clock }
    }

    /// Lets the world of a seed happen, with one rule left out or none.
    ///
    /// # Errors
    /// What happened that must not, each with the seed.
    pub async fn world(&self, seed: u64, bug: Option<Bug>) -> Result<Tally, String> {
        let mut world = World::new(self, seed, bug);
        world.disorder().await;
        world.settle().await;
        world.check().await;
        let shared = world.shared();
        if shared.violations.is_empty() {
            Ok(Tally { worlds: 1, ..shared.tally.clone() })
        } else {
            Err(format!("seed {seed}: {}\n{}", shared.violations.join("; "), shared.history.join("\n")))
        }
    }

    /// Stops the stack.
    pub async fn stop(self) {
        self.stack.stop().await;
    }
}

struct World<'a> {
    universe: &'a Universe,
    seed: u64,
    owner: Owner,
    shared: Arc<Mutex<Shared>>,
    news: mpsc::UnboundedReceiver<News>,
    sender: mpsc::UnboundedSender<News>,
    actors: BTreeMap<usize, Actor>,
    next_actor: usize,
    /// What was ordered, in its order.
    orders: Vec<Ordered>,
}

/// A request that may be sent again, because it has a key.
struct Ordered {
    jobs: Vec<JobId>,
    request: ApiGatewayProxyRequest,
    accepted: bool,
}

impl<'a> World<'a> {
    fn new(universe: &'a Universe, seed: u64, bug: Option<Bug>) -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        let shared = Shared {
            random: fastrand::Rng::with_seed(seed),
            clock: universe.clock.clone(),
            bug,
            calm: false,
            queue: Vec::new(),
            jobs: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            prompts: BTreeMap::new(),
            violations: Vec::new(),
            history: Vec::new(),
            tally: Tally::default(),
        };
        // A seed may be run twice in one universe, with a bug and without.
        let owner = Owner::new(format!("world {seed} of {:?} from {}", bug, universe.clock.now().ms()));
        let shared = Arc::new(Mutex::new(shared));
        Self { universe, seed, owner, shared, news, sender, actors: BTreeMap::new(), next_actor: 0, orders: Vec::new() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pick(&self, below: usize) -> usize {
        self.shared().random.usize(..below)
    }

    /// One step after another, of whatever kind the seed says.
    async fn disorder(&mut self) {
        for _ in 0..STEPS {
            let dice = self.pick(100);
            match dice {
                0..8 if self.orders.len() < 4 => self.submit_new().await,
                0..8 => self.submit_again().await,
                8..12 => self.steer("cancel").await,
                12..15 => self.steer("retry").await,
                15..35 => self.deliver().await,
                35..45 => self.pass_time(),
                _ => {
                    let fate = self.shared().fate();
                    self.release(fate).await;
                }
            }
        }
    }

    /// Nothing goes wrong any more, and everything comes to its end.
    async fn settle(&mut self) {
        self.shared().calm = true;
        while self.actors.values().any(|actor| actor.waiting.is_some()) {
            self.release(Fate::Made).await;
        }
        // Whoever got no answer asks again, once a writer that died can no longer be at it.
        self.universe.clock.advance(Duration::from_secs(60));
        for order in 0..self.orders.len() {
            if !self.orders[order].accepted {
                self.submit(order).await;
                while self.actors.values().any(|actor| actor.waiting.is_some()) {
                    self.release(Fate::Made).await;
                }
            }
        }
        for _ in 0..2_000 {
            if self.actors.values().any(|actor| actor.waiting.is_some()) {
                self.release(Fate::Made).await;
            } else if self.shared().queue.iter().any(Option::is_some) {
                let next = self.shared().queue.iter().flatten().map(|message| message.visible_at).min();
                let now = self.universe.clock.now();
                self.universe.clock.advance(next.map_or(Duration::ZERO, |next| next.since(now)));
                self.deliver_all().await;
            } else {
                return;
            }
        }
        self.shared().violation("tickets are left that nobody is done with".to_owned());
    }

    /// Holds the world against the rules.
    async fn check(&mut self) {
        let images = self.universe.stack.aws().images(self.universe.stack.ready().bucket.clone());
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        for id in self.jobs() {
            let job = table.get_latest(id).await.expect("the table answers");
            let Some(job) = self.check_ledger(id, job) else { continue };
            let stored = images.find(&job).await.expect("the bucket answers");
            let recorded = match &job.state {
                JobState::Succeeded { image, .. } => Some(image.facts),
                _ => None,
            };
            if job.finished_at().is_some() && stored != recorded {
                let what = format!("job {id} is {}; its record says {recorded:?}, the bucket {stored:?}", job.status());
                self.shared().violation(what);
            }
        }
    }

    /// Holds what was seen of a job against the rules, and its record against what was seen.
    fn check_ledger(&self, id: JobId, job: Option<Job>) -> Option<Job> {
        let mut shared = self.shared();
        let &mut Ledger { pictures, excused, accepted, retried, .. } = shared.ledger(&id.to_string());
        let Some(job) = job else {
            if accepted {
                shared.violation(format!("job {id} was accepted and has no record"));
            }
            return None;
        };
        shared.tally.jobs += usize::from(accepted);
        if accepted && job.finished_at().is_none() {
            shared.violation(format!("job {id} was accepted and is still {}", job.status()));
        }
        if pictures > 1 + excused && !retried {
            shared.violation(format!("job {id} was painted {pictures} times, {excused} of them for a reason"));
        }
        if pictures > MAX_ATTEMPTS && !retried {
            shared.violation(format!("job {id} was painted {pictures} times, more than is allowed"));
        }
        Some(job)
    }

    fn jobs(&self) -> Vec<JobId> {
        self.orders.iter().flat_map(|order| order.jobs.clone()).collect()
    }

    /// Submits one job, or a batch of three.
    async fn submit_new(&mut self) {
        let key = format!("{}-{}", self.seed, self.orders.len());
        let idempotency = key.parse().expect("a good key");
        let batch = self.pick(3) == 0;
        let mut jobs = Vec::new();
        if batch {
            let id = BatchId::from_key(&self.owner, &idempotency);
            jobs.extend((0..3).map(|index| JobId::in_batch(id, index)));
        } else {
            jobs.push(JobId::from_key(&self.owner, &idempotency));
        }
        let mut prompts = Vec::new();
        for job in &jobs {
            let unfit = if self.pick(10) == 0 { " nsfw" } else { "" };
            let prompt = format!("{job}{unfit}");
            self.shared().prompts.insert(prompt.clone(), job.to_string());
            prompts.push(json!({ "prompt": prompt }));
        }
        let (path, body) = if batch { ("/batches", json!({ "jobs": prompts })) } else { ("/jobs", prompts.remove(0)) };
        let request = self.request(path, None, Some(&key), &body);
        self.orders.push(Ordered { jobs, request, accepted: false });
        self.submit(self.orders.len() - 1).await;
    }

    /// Sends a request again that was sent before, whether or not it was answered.
    async fn submit_again(&mut self) {
        let order = self.pick(self.orders.len());
        // A second request for a batch would wait for the first one, and with it this world.
        if self.orders[order].jobs.len() == 1 {
            self.shared().fault("request sent again");
            self.submit(order).await;
        }
    }

    async fn submit(&mut self, order: usize) {
        let Ordered { jobs, request, .. } = &self.orders[order];
        let (hurried, event) = (jobs.len() > 1, LambdaEvent::new(request.clone(), Context::default()));
        let (actor, apps) = self.apps(hurried);
        self.act(actor, Role::Submitter { order }, async move { http(submit::handle(&apps.submit, event).await) })
            .await;
    }

    async fn steer(&mut self, action: &str) {
        let jobs = self.jobs();
        if jobs.is_empty() {
            return;
        }
        let job = jobs[self.pick(jobs.len())];
        let request = self.request(&format!("/jobs/{{id}}/{action}"), Some(job), None, &Value::Null);
        let (actor, apps) = self.apps(false);
        let event = LambdaEvent::new(request, Context::default());
        let retry = action == "retry";
        let work = async move {
            if retry {
                http(submit::handle(&apps.submit, event).await)
            } else {
                http(status::handle(&apps.status, event).await)
            }
        };
        self.act(actor, Role::Steersman, work).await;
    }

    /// Delivers one or two tickets, whose time may not have come, to a worker, or one to the function of dead letters.
    async fn deliver(&mut self) {
        let here: Vec<_> = {
            let shared = self.shared();
            let now = shared.clock.now();
            let there = |message: &Option<Message>| message.as_ref().map(|message| message.visible_at <= now);
            let visible = shared.queue.iter().enumerate().filter(|(_, message)| there(message) == Some(true));
            visible.map(|(ticket, _)| ticket).collect()
        };
        let early: Vec<_> = {
            let shared = self.shared();
            shared.queue.iter().enumerate().filter(|(_, message)| message.is_some()).map(|(ticket, _)| ticket).collect()
        };
        // A message may be delivered more than once, and before its time.
        let twice = self.shared().chance(0.15);
        let choice = if twice { early } else { here };
        if choice.is_empty() {
            return;
        }
        if twice {
            self.shared().fault("ticket delivered out of turn");
        }
        let first = choice[self.pick(choice.len())];
        let second = choice[self.pick(choice.len())];
        let tickets = if first != second && self.pick(2) == 0 { vec![first, second] } else { vec![first] };
        self.deliver_these(tickets).await;
    }

    async fn deliver_all(&mut self) {
        let now = self.universe.clock.now();
        let due: Vec<_> = {
            let shared = self.shared();
            let due = |message: &Option<Message>| message.as_ref().is_some_and(|message| message.visible_at <= now);
            shared.queue.iter().enumerate().filter(|(_, message)| due(message)).map(|(ticket, _)| ticket).collect()
        };
        for ticket in due {
            self.deliver_these(vec![ticket]).await;
            while self.actors.values().any(|actor| actor.waiting.is_some()) {
                self.release(Fate::Made).await;
            }
        }
    }

    async fn deliver_these(&mut self, tickets: Vec<usize>) {
        let (dead, event) = {
            let mut shared = self.shared();
            let now = shared.clock.now();
            let mut dead = shared.queue[tickets[0]].as_ref().is_some_and(|message| message.dead);
            if !dead && shared.chance(0.03) {
                shared.fault("ticket given up to the dead-letter queue");
                dead = true;
            }
            let mut event = aws_lambda_events::sqs::SqsEvent::default();
            for &ticket in &tickets {
                let newer = shared.chance(0.02);
                let Some(message) = shared.queue[ticket].as_mut() else { continue };
                message.receives += 1;
                message.visible_at = now + VISIBILITY;
                message.dead |= dead;
                let mut record = aws_lambda_events::sqs::SqsMessage::default();
                record.message_id = Some(format!("message-{ticket}"));
                record.receipt_handle = Some(format!("receipt-{ticket}"));
                record.attributes.insert("ApproximateReceiveCount".to_owned(), message.receives.to_string());
                // Half of a deployment writes tickets that the other half cannot read yet.
                record.body =
                    Some(if newer { message.body.replace("\"v\":1", "\"v\":2") } else { message.body.clone() });
                if newer {
                    shared.fault("ticket of a newer version");
                }
                event.records.push(record);
            }
            (dead, event)
        };
        let (actor, apps) = self.apps(false);
        let kind = if dead { "dead letters" } else { "tickets" };
        self.shared().history.push(format!("{actor}: is delivered the {kind} {tickets:?}"));
        let mut context = Context::default();
        let end = std::time::SystemTime::now() + INVOCATION;
        context.deadline = end.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        let role = Role::Worker { tickets, began: self.universe.clock.now() };
        let event = LambdaEvent::new(event, context);
        let work = async move {
            let answer = if dead {
                dead_letter::handle(&apps.dead_letter, event).await
            } else {
                worker::handle(&apps.worker, event).await
            };
            let failures = answer.expect("a worker always answers").batch_item_failures;
            let back =
                failures.iter().filter_map(|failure| failure.item_identifier.strip_prefix("message-")?.parse().ok());
            Outcome::ComeBack(back.collect())
        };
        self.act(actor, role, work).await;
    }

    /// Time passes: a little, or more than a lease lasts. Lambda stops an invocation whose time is over, most times.
    fn pass_time(&mut self) {
        let secs = match self.pick(10) {
            0..6 => self.pick(10),
            6..9 => 97 + self.pick(600),
            _ => 7_200,
        };
        self.universe.clock.advance(Duration::from_secs(secs as u64));
        self.shared().history.push(format!("{secs} seconds pass"));
        let now = self.universe.clock.now();
        let mut over = Vec::new();
        for (&id, actor) in &self.actors {
            if let Role::Worker { began, .. } = actor.role
                && now.since(began) >= INVOCATION
            {
                over.push(id);
            }
        }
        for id in over {
            if self.shared().chance(0.1) {
                self.shared().fault("worker outlives its lease");
            } else {
                self.shared().fault("invocation stopped at its end");
                self.bury(id);
            }
        }
    }

    /// Lets one of the waiting calls have its fate.
    async fn release(&mut self, fate: Fate) {
        let waiting: Vec<_> =
            self.actors.iter().filter(|(_, actor)| actor.waiting.is_some()).map(|(&id, _)| id).collect();
        if waiting.is_empty() {
            return;
        }
        let id = waiting[self.pick(waiting.len())];
        if let Some(told) = self.actors.get_mut(&id).and_then(|actor| actor.waiting.take()) {
            if fate != Fate::Made {
                self.shared().history.push(format!("{id}: {fate:?}"));
            }
            let _ = told.send(fate);
            self.listen().await;
        }
    }

    async fn act(&mut self, id: usize, role: Role, work: impl Future<Output = Outcome> + Send + 'static) {
        let news = self.sender.clone();
        let task = tokio::spawn(async move {
            let outcome = work.await;
            let _ = news.send(News::Done { actor: id, outcome });
        });
        self.actors.insert(id, Actor { role, task, waiting: None });
        self.listen().await;
    }

    /// Waits until the one actor that is not waiting itself has something to tell.
    async fn listen(&mut self) {
        loop {
            match self.news.recv().await.expect("the world holds a sender itself") {
                News::Call { actor, fate } => {
                    if let Some(actor) = self.actors.get_mut(&actor) {
                        actor.waiting = Some(fate);
                        return;
                    }
                }
                News::Died { actor } => {
                    if self.actors.contains_key(&actor) {
                        self.bury(actor);
                        return;
                    }
                }
                News::Done { actor, outcome } => {
                    if let Some(actor) = self.actors.remove(&actor).map(|gone| (actor, gone)) {
                        self.done(actor.0, actor.1, outcome);
                        return;
                    }
                }
            }
        }
    }

    fn bury(&mut self, id: usize) {
        if let Some(actor) = self.actors.remove(&id) {
            actor.task.abort();
        }
        self.shared().history.push(format!("{id}: is gone"));
        self.shared().forget(id);
    }

    fn done(&mut self, id: usize, actor: Actor, outcome: Outcome) {
        match (actor.role, outcome) {
            (Role::Submitter { order }, Outcome::Answer(202, _)) => {
                self.orders[order].accepted = true;
                for job in self.orders[order].jobs.clone() {
                    self.shared().ledger(&job.to_string()).accepted = true;
                }
            }
            (Role::Steersman, Outcome::Answer(200 | 202, body)) => {
                if let Ok(view) = serde_json::from_value::<JobView>(body) {
                    let known = self.shared().ledger(&view.id.to_string()).status;
                    if known.is_none() {
                        self.shared().violation(format!("job {} was steered and never written", view.id));
                    }
                }
            }
            (Role::Submitter { .. } | Role::Steersman, Outcome::Answer(status, body)) => {
                if !matches!(status, 404 | 409 | 503) {
                    self.shared().violation(format!("an answer was {status}: {body}"));
                }
            }
            (Role::Worker { tickets, .. }, Outcome::ComeBack(mut back)) => {
                self.shared().history.push(format!("{id}: is done; of {tickets:?} come back {back:?}"));
                let mut shared = self.shared();
                if shared.bug == Some(Bug::BusyTicketDeleted) {
                    back.clear();
                }
                for ticket in tickets {
                    if !back.contains(&ticket) {
                        shared.queue[ticket] = None;
                    }
                }
            }
            _ => unreachable!("an actor's outcome fits its role"),
        }
        self.shared().forget(id);
    }

    /// Functions of an actor's own, over its own gate.
    fn apps(&mut self, hurried: bool) -> (usize, Apps) {
        let actor = self.next_actor;
        self.next_actor += 1;
        let inner = self.universe.stack.config().http_client().expect("the stack has a client");
        let (news, shared) = (self.sender.clone(), self.shared.clone());
        let gate = Gate { actor, hurried, inner, news, shared };
        (actor, self.universe.stack.apps_over(gate).expect("the settings are good"))
    }

    fn request(&self, path: &str, id: Option<JobId>, key: Option<&str>, body: &Value) -> ApiGatewayProxyRequest {
        let mut request = ApiGatewayProxyRequest::default();
        request.resource = Some(path.to_owned());
        request.http_method = Method::POST;
        request.request_context.identity.api_key_id = Some(self.owner.as_str().to_owned());
        request.path_parameters.extend(id.map(|id| ("id".to_owned(), id.to_string())));
        if let Some(key) = key {
            request.headers.insert("idempotency-key", key.parse().expect("a header"));
        }
        if !body.is_null() {
            request.headers.insert("content-type", "application/json".parse().expect("a header"));
            request.body = Some(body.to_string());
        }
        request
    }
}

fn http(answer: Result<aws_lambda_events::apigw::ApiGatewayProxyResponse, lambda_runtime::Error>) -> Outcome {
    let answer = answer.expect("a function always answers");
    let body = match &answer.body {
        Some(aws_lambda_events::encodings::Body::Text(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Value::Null,
    };
    Outcome::Answer(u16::try_from(answer.status_code).unwrap_or_default(), body)
}
