//! A stand-in for Lambda's runtime API, which hands a function's binary one event and takes its answer.
//!
//! See "Using the Lambda runtime API for custom runtimes",
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// What a function's binary answered.
#[derive(Debug)]
pub enum Outcome {
    /// The handler's answer.
    Response(Value),
    /// The handler failed, or the runtime did.
    Error(Value),
}

#[derive(Clone)]
struct Api {
    event: Arc<Mutex<Option<String>>>,
    outcome: mpsc::Sender<Outcome>,
}

/// Runs the binary of the function `name` with these variables and hands it one event.
///
/// # Panics
/// When the binary cannot be started, or does not answer within half a minute.
pub async fn invoke(name: &str, variables: &BTreeMap<String, String>, event: &Value) -> Outcome {
    run(name, variables, event).await.outcome
}

/// As [`invoke`], with the most memory that the binary had at once, in bytes.
///
/// # Panics
/// When the binary cannot be started, does not answer within half a minute, or the system does not tell its memory.
pub async fn weigh(name: &str, variables: &BTreeMap<String, String>, event: &Value) -> (Outcome, usize) {
    let run = run(name, variables, event).await;
    (run.outcome, run.peak.expect("Linux tells the memory of a process"))
}

/// As [`invoke`], with what the binary wrote to its standard output, which is its log.
///
/// # Panics
/// When the binary cannot be started, or does not answer within half a minute.
pub async fn overhear(name: &str, variables: &BTreeMap<String, String>, event: &Value) -> (Outcome, String) {
    let run = run(name, variables, event).await;
    (run.outcome, run.log)
}

/// What came of an invocation.
struct Run {
    outcome: Outcome,
    log: String,
    peak: Option<usize>,
}

async fn run(name: &str, variables: &BTreeMap<String, String>, event: &Value) -> Run {
    let (sender, mut outcomes) = mpsc::channel(4);
    let api = Api { event: Arc::new(Mutex::new(Some(event.to_string()))), outcome: sender };
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(error))
        .with_state(api);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let mut child = command(name)
        .await
        .envs(variables)
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let outcome = tokio::time::timeout(Duration::from_secs(30), outcomes.recv()).await;
    let peak = child.id().and_then(peak);
    child.start_kill().expect("the binary can be stopped");
    let output = child.wait_with_output().await.expect("the binary ends");
    server.abort();
    let outcome = outcome.expect("the binary answers in time").expect("the runtime API stays up");
    Run { outcome, log: String::from_utf8_lossy(&output.stdout).into_owned(), peak }
}

/// The most memory that a process had at once, in bytes, where the system tells it.
fn peak(process: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    kibibytes.parse::<usize>().ok().map(|kibibytes| kibibytes * 1024)
}

/// The binary of the function `name`, with the variables that Lambda itself sets and no others.
pub async fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name).await);
    command
        .env_clear()
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Where the binary `name` lies, built if need be. `cargo test` builds it only for its own package's tests.
///
/// # Panics
/// When it cannot be built.
pub async fn binary(name: &str) -> PathBuf {
    static BUILT: AsyncMutex<bool> = AsyncMutex::const_new(false);
    let mut built = BUILT.lock().await;
    if !*built {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--workspace", "--bins", "--locked"]).stdin(Stdio::null());
        // Cargo tells a test which package it is of. A build script that looks at these would run again for it, and all
        // that depends on it would be built again, here and at the next test.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(name);
            }
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().await.expect("cargo runs").success(), "the functions are built");
        *built = true;
    }
    let this = std::env::current_exe().expect("the program knows where it lies");
    // A test lies in target/<profile>/deps, and a program in the directory above.
    let directory = this.parent().filter(|directory| !directory.ends_with("deps"));
    directory.or(this.ancestors().nth(2)).expect("it lies in target").join(name)
}

async fn next(State(api): State<Api>) -> Response {
    let event = api.event.lock().expect("no one panicked").take();
    let Some(event) = event else {
        // There is nothing more to do, and a function then waits.
        return std::future::pending().await;
    };
    let deadline = SystemTime::now() + Duration::from_secs(90);
    let deadline = deadline.duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis();
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-west-2:000000000000:function:test".to_owned()),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419".to_owned()),
    ];
    (headers, event).into_response()
}

async fn response(State(api): State<Api>, body: String) -> StatusCode {
    report(&api, Outcome::Response(parse(&body))).await
}

async fn error(State(api): State<Api>, body: String) -> StatusCode {
    report(&api, Outcome::Error(parse(&body))).await
}

async fn report(api: &Api, outcome: Outcome) -> StatusCode {
    // The receiver is gone once the test has what it wants.
    let _ = api.outcome.send(outcome).await;
    StatusCode::ACCEPTED
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
}
