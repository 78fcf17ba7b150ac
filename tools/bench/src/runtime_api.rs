//! A local Lambda runtime API, which starts a function's process, sends it events, and measures it.
//!
//! See "Using the Lambda runtime API for custom runtimes",
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Failure;
use crate::process::Process;

/// The longest wait for a function, which is fifty times slower under callgrind, if its invocations are short.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a function's process reports to the runtime API.
enum Signal {
    /// It asks for its next event.
    Next,
    /// It has answered.
    Answer(Bytes),
    /// It has failed.
    Failure(String),
}

#[derive(Clone)]
struct Api {
    events: Arc<Mutex<mpsc::Receiver<String>>>,
    signals: mpsc::Sender<Signal>,
    /// The timeout of an invocation.
    limit: Duration,
}

/// A running function.
pub struct Function {
    child: Child,
    /// Its process.
    pub process: Process,
    events: mpsc::Sender<String>,
    signals: mpsc::Receiver<Signal>,
    patience: Duration,
    server: JoinHandle<std::io::Result<()>>,
}

/// One invocation, and what it took.
pub struct Invocation {
    /// The handler's answer.
    pub answer: Value,
    /// From the event to the answer.
    pub took: Duration,
    /// The processor time from the event until the function asks for the next event.
    pub cpu: Duration,
}

impl Function {
    /// Starts a function and waits until it asks for its first event.
    pub async fn start(command: &mut Command) -> Result<Self, Failure> {
        Self::start_with_limit(command, Duration::from_secs(90)).await
    }

    /// Starts a function whose invocations have this timeout.
    pub async fn start_with_limit(command: &mut Command, limit: Duration) -> Result<Self, Failure> {
        let (events, receiver) = mpsc::channel(1);
        let (sender, signals) = mpsc::channel(4);
        let api = Api { events: Arc::new(Mutex::new(receiver)), signals: sender, limit };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(error))
            .with_state(api);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = tokio::spawn(axum::serve(listener, router).into_future());
        let child = command
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{:?} does not start: {error}", command.as_std().get_program()))?;
        let process = Process(child.id().ok_or("a function ended at once")?);
        let mut function = Self { child, process, events, signals, patience: limit.max(PATIENCE), server };
        function.ready().await?;
        Ok(function)
    }

    /// Sends the function an event, and waits for its answer and until it is idle again.
    pub async fn invoke(&mut self, event: &Value) -> Result<Invocation, Failure> {
        let event = event.to_string();
        let cpu = self.process.cpu()?;
        let begun = Instant::now();
        self.events.send(event).await?;
        let answer = match self.signal().await? {
            Signal::Answer(answer) => answer,
            Signal::Failure(error) => return Err(format!("a function failed: {error}").into()),
            Signal::Next => return Err("a function gave no answer".into()),
        };
        let took = begun.elapsed();
        self.ready().await?;
        let cpu = self.process.cpu()? - cpu;
        Ok(Invocation { answer: serde_json::from_slice(&answer)?, took, cpu })
    }

    /// Ends the process by SIGTERM, and returns what it wrote to standard error.
    pub async fn terminate(self) -> Result<String, Failure> {
        Command::new("kill").args(["-TERM", &self.process.0.to_string()]).status().await?;
        let output = timeout(PATIENCE, self.child.wait_with_output()).await??;
        self.server.abort();
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Kills the process, and returns what it wrote to the streams that its command piped.
    pub async fn stop(mut self) -> Result<Output, Failure> {
        self.child.start_kill()?;
        let output = self.child.wait_with_output().await?;
        self.server.abort();
        Ok(output)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        match self.signal().await? {
            Signal::Next => Ok(()),
            Signal::Answer(_) => Err("a function answered twice".into()),
            Signal::Failure(error) => Err(format!("a function failed: {error}").into()),
        }
    }

    async fn signal(&mut self) -> Result<Signal, Failure> {
        tokio::select! {
            signal = self.signals.recv() => signal.ok_or_else(|| "the runtime API ended".into()),
            status = self.child.wait() => Err(format!("a function ended with {}", status?).into()),
            () = tokio::time::sleep(self.patience) => Err("a function did not answer in time".into()),
        }
    }
}

async fn next(State(api): State<Api>) -> Response {
    // The receiver is gone after the last answer.
    let _ = api.signals.send(Signal::Next).await;
    let Some(event) = api.events.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline = SystemTime::now() + api.limit;
    let deadline = deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-west-2:000000000000:function:bench".to_owned()),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419".to_owned()),
    ];
    (headers, event).into_response()
}

async fn response(State(api): State<Api>, body: Bytes) -> StatusCode {
    let _ = api.signals.send(Signal::Answer(body)).await;
    StatusCode::ACCEPTED
}

async fn error(State(api): State<Api>, body: String) -> StatusCode {
    let _ = api.signals.send(Signal::Failure(body)).await;
    StatusCode::ACCEPTED
}
