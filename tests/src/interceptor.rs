//! An HTTP client between the SDK's clients and the services that lets a rule of the test decide what happens to each call.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::sync::Notify;

use crate::pipeline::Pipeline;

/// What happens to a call.
#[derive(Debug)]
pub enum Action {
    /// The call is made.
    Pass,
    /// The call is made when the test resumes it.
    Hold,
    /// The call is made at once, and its answer is lost when the test resumes it.
    LoseAnswer,
    /// This status and body are answered, and no call is made.
    Answer(u16, String),
    /// The connection fails before anything was sent.
    Refuse,
    /// The call gets the answer of the first such call again, as an eventually consistent read may.
    Stale,
}

/// A call that an [`Interceptor`] decides about.
#[derive(Debug)]
pub struct Call<'a> {
    /// How many calls came before it.
    pub number: usize,
    /// The operation of DynamoDB or SQS, such as `GetItem`; empty for the other services.
    pub operation: &'a str,
    /// The request.
    pub request: &'a HttpRequest,
}

impl Call<'_> {
    /// The body as JSON, or null.
    pub fn json(&self) -> Value {
        self.request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.request.body().bytes().unwrap_or_default()).into_owned()
    }

    /// Whether it asks the model for a picture.
    pub fn is_to_model(&self) -> bool {
        self.request.uri().contains("/model/")
    }
}

type Rule = dyn Fn(&Call<'_>) -> Action + Send + Sync;

/// The HTTP client.
#[derive(Clone)]
pub struct Interceptor {
    inner: SharedHttpClient,
    state: Arc<State>,
}

struct State {
    rule: Box<Rule>,
    calls: AtomicUsize,
    first_answers: Mutex<HashMap<String, (u16, Vec<u8>)>>,
    held: Notify,
    resume: Notify,
}

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interceptor")
    }
}

impl Interceptor {
    /// A client in front of the pipeline's services that asks `rule` about each call.
    pub fn new(pipeline: &Pipeline, rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static) -> Self {
        let inner = pipeline.stack.config().http_client().expect("the stack has a client");
        let state = State {
            rule: Box::new(rule),
            calls: AtomicUsize::new(0),
            first_answers: Mutex::default(),
            held: Notify::new(),
            resume: Notify::new(),
        };
        Self { inner, state: Arc::new(state) }
    }

    /// Resolves when a call is held.
    pub async fn held(&self) {
        self.state.held.notified().await;
    }

    /// Lets the held call go on.
    pub fn resume(&self) {
        self.state.resume.notify_one();
    }
}

impl Pipeline {
    /// The functions with `rule` for all calls but those that hide a message. These are not made; the second value has
    /// their seconds.
    pub fn intercept_hiding(
        &self,
        rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static,
    ) -> (local::Apps, Arc<Mutex<Vec<u64>>>) {
        let hidden = Arc::new(Mutex::new(Vec::new()));
        let seen = hidden.clone();
        let (_, apps) = self.intercept(move |call| match call.operation {
            "ChangeMessageVisibility" => {
                let secs = call.json()["VisibilityTimeout"].as_u64().expect("whole seconds");
                seen.lock().expect("no one panicked").push(secs);
                Action::Answer(200, "{}".to_owned())
            }
            _ => rule(call),
        });
        (apps, hidden)
    }

    /// The functions over an [`Interceptor`] with this rule.
    pub fn intercept(&self, rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static) -> (Interceptor, local::Apps) {
        let interceptor = Interceptor::new(self, rule);
        let apps = self.stack.apps_over(interceptor.clone()).expect("good settings");
        (interceptor, apps)
    }
}

impl HttpClient for Interceptor {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { inner, state: self.state.clone() })
    }
}

struct Connector {
    inner: SharedHttpConnector,
    state: Arc<State>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Sends a request to a port without a listener, so that its connection is refused.
pub(crate) async fn refuse(
    inner: &SharedHttpConnector,
    mut request: HttpRequest,
) -> Result<HttpResponse, ConnectorError> {
    /// A port that is bound, but has no listener.
    static CLOSED: LazyLock<(TcpSocket, SocketAddr)> = LazyLock::new(|| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        (socket, address)
    });
    request.set_uri(format!("http://{}/", CLOSED.1)).expect("a good address");
    inner.call(request).await
}

fn answer(status: u16, body: Vec<u8>) -> HttpResponse {
    HttpResponse::new(status.try_into().expect("a status"), SdkBody::from(body))
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        let number = state.calls.fetch_add(1, Ordering::SeqCst);
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let action = (state.rule)(&Call { number, operation, request: &request });
        HttpConnectorFuture::new(async move {
            match action {
                Action::Pass => inner.call(request).await,
                Action::Answer(status, body) => Ok(answer(status, body.into_bytes())),
                Action::Refuse => refuse(&inner, request).await,
                Action::Hold => {
                    state.held.notify_one();
                    state.resume.notified().await;
                    inner.call(request).await
                }
                Action::LoseAnswer => {
                    inner.call(request).await?;
                    state.held.notify_one();
                    state.resume.notified().await;
                    Err(ConnectorError::io("the answer was lost".into()))
                }
                Action::Stale => {
                    let key = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
                    if let Some((status, body)) = state.first_answers.lock().expect("no panic").get(&key) {
                        return Ok(answer(*status, body.clone()));
                    }
                    let fresh = inner.call(request).await?;
                    let (status, body) = (fresh.status().as_u16(), fresh.body().bytes().unwrap_or_default().to_vec());
                    state.first_answers.lock().expect("no panic").insert(key, (status, body.clone()));
                    Ok(answer(status, body))
                }
            }
        })
    }
}
