//! An HTTP client between the SDK's clients and the services that disturbs a single call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use tokio::sync::Notify;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The caller dies before the call is made.
    CrashBefore,
    /// The caller dies after the call took effect and before it gets the answer.
    CrashAfter,
    /// The call takes effect, but its answer is lost.
    AnswerLost,
    /// The call is not made until the test resumes it.
    Pause,
}

/// An HTTP client that disturbs the call with a certain number.
#[derive(Clone, Debug)]
pub struct Wire {
    inner: SharedHttpClient,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    calls: AtomicUsize,
    disturbed: usize,
    disturbance: Disturbance,
    crash: Notify,
    paused: Notify,
    resume: Notify,
}

impl Wire {
    /// Disturbs call number `disturbed`, counted from zero, with `disturbance`.
    pub fn new(inner: SharedHttpClient, disturbed: usize, disturbance: Disturbance) -> Self {
        let [crash, paused, resume] = [Notify::new(), Notify::new(), Notify::new()];
        let state = State { calls: AtomicUsize::new(0), disturbed, disturbance, crash, paused, resume };
        Self { inner, state: Arc::new(state) }
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Resolves when the call is paused.
    pub async fn paused(&self) {
        self.state.paused.notified().await;
    }

    /// Resumes the paused call.
    pub fn resume(&self) {
        self.state.resume.notify_one();
    }

    /// Runs `work` until it ends, or drops it when the disturbance crashes it.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            result = work => Some(result),
            () = self.state.crash.notified() => None,
        }
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { inner, state: self.state.clone() })
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    state: Arc<State>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let number = self.state.calls.fetch_add(1, Ordering::SeqCst);
        if number != self.state.disturbed {
            return self.inner.call(request);
        }
        let (inner, state) = (self.inner.clone(), self.state.clone());
        HttpConnectorFuture::new(async move {
            if state.disturbance == Disturbance::Pause {
                state.paused.notify_one();
                state.resume.notified().await;
                return inner.call(request).await;
            }
            if state.disturbance != Disturbance::CrashBefore {
                let _ = inner.call(request).await;
            }
            if state.disturbance == Disturbance::AnswerLost {
                return Err(ConnectorError::io("the answer was lost".into()));
            }
            state.crash.notify_one();
            std::future::pending().await
        })
    }
}
