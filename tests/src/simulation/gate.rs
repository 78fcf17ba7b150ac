//! The gate at which every call of an actor stops.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use shared::job::Status;
use shared::{JobId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::actors::News;
use super::events::job_of;
use super::files::{FileBug, hide_cancellation, shrink_parts};
use super::scene::{CLOCKS_DIFFER, Fate, Scene, answer};
use super::versions::{NEWER, Version};
use super::{Bug, INVOCATION};
use crate::interceptor::refuse;

/// The gate at which every call of an actor stops.
#[derive(Clone)]
pub(super) struct Gate {
    /// Who acts: a function serves one actor after another.
    pub(super) actor: Arc<AtomicUsize>,
    /// Lets only one of an actor's parallel calls through at a time.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// The version of the functions.
    pub(super) version: Version,
    pub(super) inner: SharedHttpClient,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) scene: Arc<Mutex<Scene>>,
}

/// A call that takes effect later.
pub(super) struct Late {
    pub(super) due: Timestamp,
    actor: usize,
    gate: Gate,
    inner: SharedHttpConnector,
    request: HttpRequest,
}

impl Late {
    /// The job whose file the call stores or deletes, and whether it deletes it.
    pub(super) fn file(&self) -> Option<(JobId, bool)> {
        let (_, key) = name(&self.request).split_once("/images/")?;
        let job = key.split('/').next()?.parse().ok()?;
        Some((job, self.request.method() == "DELETE"))
    }

    /// The call takes effect now.
    pub(super) async fn arrive(self) {
        let Self { actor, gate, inner, request, .. } = self;
        gate.scene().history.push(format!(
            "{actor}: a late call takes effect: {} {}",
            request.method(),
            name(&request)
        ));
        // Nothing waits for the answer.
        let _ = gate.make(actor, &inner, request).await;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.actor.load(Ordering::Relaxed))
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
pub(super) struct Connector {
    pub(super) inner: SharedHttpConnector,
    pub(super) gate: Gate,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, gate) = (self.inner.clone(), self.gate.clone());
        HttpConnectorFuture::new(async move { gate.pass(&inner, request).await })
    }
}

/// The operation of DynamoDB or SQS, or else the path, without what is random in it.
fn name(request: &HttpRequest) -> &str {
    let path = request.uri().splitn(4, '/').last().unwrap_or_default().split('?').next().unwrap_or_default();
    let path = path.find("/results-").map_or(path, |end| &path[..end]);
    request.headers().get("x-amz-target").unwrap_or(path)
}

impl Gate {
    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn pass(
        &self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let _turn = self.turn.lock().await;
        let actor = self.actor.load(Ordering::Relaxed);
        let Some(request) = self.meddle(actor, inner, request) else {
            return Ok(answer(200, &json!({ "MessageId": "m" })));
        };
        let held = self.held_until(actor, &request);
        let response = self.pass_one(actor, inner, request).await?;
        if let Some((inner, held)) = held {
            self.pass_one(actor, &inner, held).await?;
        }
        Ok(response)
    }

    async fn pass_one(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let mut fate = self.ask(actor).await;
        let to_model = request.uri().contains("/model/");
        // After its work, a message belongs to the delivery, and a panic there ends the invocation.
        if fate == Fate::Panic && (name(&request).starts_with("AmazonSQS") || !self.scene().alive.contains_key(&actor))
        {
            fate = Fate::CrashAfter;
        }
        // A painting or a read that takes effect when nobody waits for it has no effect that could be seen.
        if fate == Fate::Late && (to_model || request.method() == "GET" || request.method() == "HEAD") {
            fate = Fate::AnswerLost;
        }
        let event = self.event(&request);
        // A world has few events, so their senders die more often.
        if fate == Fate::Made && event.is_some() && self.scene().chance(0.1) {
            self.scene().fault("crash before an event");
            fate = Fate::CrashBefore;
        }
        let interrupted = event.filter(|_| fate != Fate::Made).and_then(job_of);
        {
            let mut scene = self.scene();
            scene.tally.calls += 1;
            scene.events.interrupted = interrupted;
            let call = format!("{actor}: {fate:?}: {} {}", request.method(), name(&request));
            scene.history.push(call);
        }
        match fate {
            Fate::Refused => return refuse(inner, request).await,
            Fate::CrashBefore => return self.die(actor).await,
            Fate::Late => {
                let mut scene = self.scene();
                // A file that arrives after its worker's lease could remain after the job was canceled; a request that
                // is signed is not accepted long afterwards.
                let most = if request.method() == "PUT" { CLOCKS_DIFFER.as_secs() - 1 } else { 600 };
                let due = scene.clock.now() + Duration::from_secs(scene.random.u64(0..most));
                scene.late.push(Late { due, actor, gate: self.clone(), inner: inner.clone(), request });
                return Err(ConnectorError::io("the connection broke off".into()));
            }
            _ => {}
        }
        let body = if to_model { body_of(request.body()) } else { Value::Null };
        let response = self.make(actor, inner, request).await;
        if fate == Fate::AnswerLost && to_model {
            self.scene().may_be_paid(&body);
        }
        match fate {
            Fate::CrashAfter => self.die(actor).await,
            Fate::AnswerLost => Err(ConnectorError::io("the answer was lost".into())),
            Fate::Panic => {
                self.scene().panic(actor);
                // It unwinds like any panic, but is not printed.
                std::panic::resume_unwind(Box::new("the work of a ticket panics"))
            }
            _ => response,
        }
    }

    async fn ask(&self, actor: usize) -> Fate {
        let (fate, told) = oneshot::channel();
        // The scheduler lives as long as the actors.
        let _ = self.news.send(News::Call { actor, fate });
        told.await.unwrap_or(Fate::CrashBefore)
    }

    async fn die(&self, actor: usize) -> Result<HttpResponse, ConnectorError> {
        let _ = self.news.send(News::Died { actor });
        std::future::pending().await
    }

    /// Makes the call: simulates the queue and the model, and observes the table and the bucket.
    pub(super) async fn make(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let body = body_of(request.body());
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let operation = target.rsplit('.').next().unwrap_or_default();
        if matches!(operation, "PutItem" | "UpdateItem") && self.scene().is_throttled() {
            let code = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            let message = "The level of configured provisioned throughput for one or more global secondary indexes of the \
                           table was exceeded.";
            return Ok(answer(400, &json!({ "__type": code, "message": message })));
        }
        if operation == "SendMessageBatch" && self.scene().has_file_bug(actor, FileBug::TicketsForgotten) {
            let entries = body["Entries"].as_array().into_iter().flatten();
            let sent: Vec<_> =
                entries.map(|entry| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" })).collect();
            return Ok(answer(200, &json!({ "Successful": sent, "Failed": [] })));
        }
        match operation {
            "SendMessage" if self.event(&request).is_some() => Ok(self.scene().queue_event(actor, &body)),
            "SendMessage" => Ok(self.scene().send(self.version, &body)),
            "SendMessageBatch" => Ok(self.scene().send_batch(self.version, &body)),
            "ChangeMessageVisibility" => Ok(self.scene().hide(&body)),
            "GetQueueAttributes" => Ok(answer(200, &json!({ "Attributes": {} }))),
            "PutItem" => self.put_item(actor, inner, request, body).await,
            "UpdateItem" => self.update_item(actor, inner, request, body).await,
            "GetItem" => self.get_item(inner, request, body).await,
            "BatchGetItem" => self.batch_get(inner, request, body).await,
            "Query" => self.query(inner, request).await,
            _ if request.uri().contains("/model/") => {
                let ailment = self.scene().ailment(&body);
                match ailment {
                    Some(ailment) => ailment.answer(inner, request).await,
                    None => {
                        let painted = self.scene().paint(actor, &body);
                        match painted {
                            Some(answer) => answer,
                            None => refuse(inner, request).await,
                        }
                    }
                }
            }
            _ if request.uri().contains("/images/") => self.object(actor, inner, request).await,
            _ => inner.call(request).await,
        }
    }

    /// Observes what is stored, and whether this is another version of a job.
    fn stored(&self, actor: usize, item: Value, is_version: bool) {
        let mut scene = self.scene();
        let job = item["pk"]["S"].as_str().and_then(|pk| pk.strip_prefix("JOB#"));
        if let Some(job) = job.filter(|_| is_version) {
            let job = job.to_owned();
            let newer = |item: &Value| item.get(NEWER).is_some();
            let before = scene.versions.get(&format!("JOB#{job}")).is_some_and(|(_, now, _)| newer(now));
            if before && !newer(&item) && item["fence"]["N"] != json!("0") {
                scene.violation(format!("job {job} lost an attribute of a newer version"));
            }
            scene.written(actor, &job, &item);
        }
        if let Some(batch) = item["pk"]["S"].as_str().and_then(|pk| pk.strip_prefix("BATCH#")) {
            scene.batch_written(actor, batch, &item);
        }
        scene.end_written(&item);
        scene.stored(item);
    }

    async fn put_item(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        if self.scene().bug == Some(Bug::CreateWithoutCondition) {
            strip_condition(&mut request, &mut body);
        }
        let job = body["Item"]["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with("JOB#"));
        if job && self.scene().has_file_bug(actor, FileBug::RecordsNotWritten) {
            return Ok(answer(200, &json!({})));
        }
        shrink_parts(&mut body["Item"]);
        self.version.write(&mut body["Item"]);
        replace_body(&mut request, &body);
        let response = inner.call(request).await?;
        if response.status().is_success() {
            self.stored(actor, body["Item"].take(), true);
        }
        Ok(response)
    }

    async fn update_item(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let values = &mut body["ExpressionAttributeValues"];
        let status = values[":status"]["S"].as_str().and_then(|text| text.parse().ok());
        let bug = self.scene().bug;
        let released = status == Some(Status::Running) && values[":held_until"]["NULL"] == json!(true);
        match (bug, status) {
            (Some(Bug::AttemptsUncounted), Some(Status::Running)) => values[":attempts"]["N"] = "1".into(),
            (Some(Bug::EverySetbackCounts), Some(Status::Running)) if released => {
                let attempts = values[":attempts"]["N"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
                values[":attempts"]["N"] = (attempts + 1).to_string().into();
            }
            (Some(bug @ (Bug::LeaseTooShort | Bug::LeaseWithoutMargin)), Some(Status::Running)) if !released => {
                let short = if bug == Bug::LeaseTooShort { INVOCATION } else { CLOCKS_DIFFER };
                let until = &mut values[":lease"]["M"]["until"]["N"];
                let ms: i64 = until.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
                *until = (ms - short.as_millis() as i64).to_string().into();
            }
            _ => {}
        }
        match (bug, status) {
            (Some(Bug::ClaimWithoutCondition), Some(Status::Running))
            | (Some(Bug::FinishWithoutCondition), Some(Status::Succeeded | Status::Failed))
            | (Some(Bug::CancelWithoutCondition), Some(Status::Canceled)) => strip_condition(&mut request, &mut body),
            (Some(Bug::EventBeforeEnd), Some(status)) => self.scene().queue_too_early(actor, &body["Key"], status),
            _ => {}
        }
        self.version.update(&mut body);
        if bug == Some(Bug::NewerAttributesDropped) && status.is_some() {
            // A transition ends with the attributes that it removes.
            body["UpdateExpression"] =
                format!("{}, {NEWER}", body["UpdateExpression"].as_str().unwrap_or_default()).into();
        }
        // The functions request no attributes in return, but the world must know what is stored now.
        body["ReturnValues"] = "ALL_NEW".into();
        replace_body(&mut request, &body);
        let response = inner.call(request).await?;
        if response.status().is_success() {
            self.stored(actor, body_of(response.body())["Attributes"].take(), status.is_some());
        } else if self.scene().has_file_bug(actor, FileBug::CancellationOverlooked) {
            let mut failed = body_of(response.body());
            hide_cancellation(&mut failed["Item"]);
            return Ok(answer_like(&response, &failed));
        }
        Ok(response)
    }

    async fn object(
        &self,
        actor: usize,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let bug = self.scene().bug;
        match (request.method(), bug) {
            ("HEAD", Some(Bug::NoLookBeforePaying)) => return Ok(answer(404, &Value::Null)),
            ("DELETE", Some(Bug::LatePictureKept)) => return Ok(answer(204, &Value::Null)),
            _ => {}
        }
        let method = request.method().to_owned();
        let put = method == "PUT";
        let path = name(&request).to_owned();
        let response = inner.call(request).await?;
        let Some((job, queued_at)) = path.split_once("/images/").and_then(|(_, key)| key.split_once('/')) else {
            // The call is about the bucket, not about a file.
            return Ok(response);
        };
        if method != "GET" && method != "HEAD" && response.status().is_success() {
            self.scene().ledger(job).file(queued_at, put);
        }
        if put && response.status().is_success() {
            self.scene().in_hand.remove(&actor);
        } else if put && response.status().as_u16() == 412 {
            self.scene().forget_picture(actor);
        }
        Ok(response)
    }
}

/// Another body of an answer.
fn answer_like(response: &HttpResponse, body: &Value) -> HttpResponse {
    answer(response.status().as_u16(), body)
}

/// A body as JSON, or null.
pub(super) fn body_of(body: &SdkBody) -> Value {
    body.bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
}

pub(super) fn strip_condition(request: &mut HttpRequest, body: &mut Value) {
    if let Some(body) = body.as_object_mut() {
        body.remove("ConditionExpression");
        body.remove("ReturnValuesOnConditionCheckFailure");
        // DynamoDB refuses a value that no expression names.
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

pub(super) fn replace_body(request: &mut HttpRequest, body: &Value) {
    let body = body.to_string();
    request.headers_mut().insert("content-length", body.len().to_string());
    *request.body_mut() = SdkBody::from(body);
}
