//! The gate at which every call of an actor stops.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use shared::job::Status;
use tokio::sync::{mpsc, oneshot};

use super::Bug;
use super::actors::News;
use super::scene::{Fate, Scene};

/// The gate at which every call of an actor stops.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) actor: usize,
    /// Whether the actor makes several calls at once; its calls then pass, each with a fate of its own.
    pub(super) hurried: bool,
    pub(super) inner: SharedHttpClient,
    /// Which of several calls is under way. They are made one after the other, so that a seed makes the same history.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) scene: Arc<Mutex<Scene>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let fate = if self.hurried { self.scene().fate() } else { self.ask().await };
        {
            let mut scene = self.scene();
            scene.tally.calls += 1;
            let path = request.uri().splitn(4, '/').last().unwrap_or_default().split('?').next().unwrap_or_default();
            let what = request.headers().get("x-amz-target").unwrap_or(path);
            let call = format!("{}: {fate:?}: {} {what}", self.actor, request.method());
            scene.history.push(call);
        }
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

    pub(super) async fn ask(&self) -> Fate {
        let (fate, told) = oneshot::channel();
        // The scheduler is there as long as the actors are.
        let _ = self.news.send(News::Call { actor: self.actor, fate });
        told.await.unwrap_or(Fate::CrashBefore)
    }

    pub(super) async fn die(&self) -> Result<HttpResponse, ConnectorError> {
        let _ = self.news.send(News::Died { actor: self.actor });
        std::future::pending().await
    }

    /// Makes the call: plays the queue and the model, and watches the table and the bucket.
    pub(super) async fn make(
        &self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let body: Value = request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        match target.rsplit('.').next().unwrap_or_default() {
            "SendMessage" => Ok(self.scene().send(&body)),
            "SendMessageBatch" => Ok(self.scene().send_batch(&body)),
            "ChangeMessageVisibility" => Ok(self.scene().hide(&body)),
            "GetQueueAttributes" => Ok(answer(200, &json!({ "Attributes": {} }))),
            "PutItem" => self.put_item(inner, request, body).await,
            "UpdateItem" => self.update_item(inner, request, body).await,
            _ if request.uri().contains("/model/") => {
                let ailment = self.scene().ailment();
                match ailment {
                    Some(ailment) => ailment.answer(inner, request).await,
                    None => Ok(self.scene().paint(self.actor, &body)),
                }
            }
            _ if request.uri().contains("/images/") => self.object(inner, request).await,
            _ => inner.call(request).await,
        }
    }

    pub(super) async fn put_item(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let pk = body["Item"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
        if self.scene().bug == Some(Bug::CreateWithoutCondition) {
            strip_condition(&mut request, &mut body);
        }
        let response = inner.call(request).await?;
        if let Some(job) = pk.strip_prefix("JOB#").filter(|_| response.status().is_success()) {
            self.scene().written(self.actor, job, Status::Queued, true);
        }
        Ok(response)
    }

    pub(super) async fn update_item(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let pk = body["Key"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
        let status = body["ExpressionAttributeValues"][":status"]["S"].as_str().and_then(|text| text.parse().ok());
        let (Some(job), Some(status)) = (pk.strip_prefix("JOB#"), status) else { return inner.call(request).await };
        let bug = self.scene().bug;
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
            let mut scene = self.scene();
            let holder = scene.ledger(job).holder;
            if status == Status::Running && holder.is_some_and(|holder| holder != self.actor) {
                // The worker before was slower than its lease allows; what it paints is paid for in vain.
                scene.ledger(job).excused += 1;
            }
            scene.written(self.actor, job, status, false);
        }
        Ok(response)
    }

    pub(super) async fn object(
        &self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let bug = self.scene().bug;
        match (request.method(), bug) {
            ("HEAD", Some(Bug::NoLookBeforePaying)) => return Ok(answer(404, &Value::Null)),
            ("DELETE", Some(Bug::LatePictureKept)) => return Ok(answer(204, &Value::Null)),
            _ => {}
        }
        let put = request.method() == "PUT";
        let response = inner.call(request).await?;
        if put && response.status().is_success() {
            self.scene().in_hand.remove(&self.actor);
        } else if put && response.status().as_u16() == 412 {
            self.scene().forget_picture(self.actor);
        }
        Ok(response)
    }
}
pub(super) fn answer(status: u16, body: &Value) -> HttpResponse {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let status = status.try_into().expect("a good status");
    HttpResponse::new(status, SdkBody::from(body))
}

pub(super) fn strip_condition(request: &mut HttpRequest, body: &mut Value) {
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

pub(super) fn replace_body(request: &mut HttpRequest, body: &Value) {
    let body = body.to_string();
    request.headers_mut().insert("content-length", body.len().to_string());
    *request.body_mut() = SdkBody::from(body);
}
