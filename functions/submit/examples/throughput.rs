//! Measures what submitting a thousand prompts costs: AWS calls, time and CPU.
//!
//! DynamoDB and SQS are stubs in a separate process that answer every call after five milliseconds. The function's own
//! handler is measured with one batch and with single requests, and compared with a boto3 client in Python, if one is
//! given:
//!
//! ```sh
//! python3 -m venv target/boto3 && target/boto3/bin/pip install boto3==1.44.5
//! cargo run --release -p submit --example throughput -- target/boto3/bin/python
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::future::IntoFuture;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use aws_lambda_events::http::Method;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use shared::Clock;
use shared::aws::{Aws, Endpoints, http_client};

const PROMPTS: usize = 1000;

const LATENCY: Duration = Duration::from_millis(5);

/// How many single requests run concurrently.
const AT_ONCE: usize = 16;

/// How often each measurement is repeated. The fastest counts, as the machine may be shared.
const ROUNDS: usize = 5;

type Anything = Box<dyn Error + Send + Sync>;

struct Cost {
    calls: u64,
    time: Duration,
    cpu: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Anything> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--stub") {
        return stub().await;
    }
    let stub = Stub::start()?;
    let app = app(&stub.address)?;
    let mut rows = vec![
        ("one batch", best(&stub, async || one_batch(&app).await).await?),
        ("one request after the other", best(&stub, async || one_by_one(&app, 1).await).await?),
        ("16 requests at once", best(&stub, async || one_by_one(&app, AT_ONCE).await).await?),
    ];
    if let Some(python) = argument {
        rows.push(("boto3, in batches, 16 threads", stub.python(&python, "batches")?));
        rows.push(("boto3, one after the other", stub.python(&python, "one-by-one")?));
    }
    let mut out = std::io::stdout();
    writeln!(out, "| {PROMPTS} prompts | AWS calls | time | CPU |\n|---|---:|---:|---:|")?;
    for (what, Cost { calls, time, cpu }) in rows {
        writeln!(out, "| {what} | {calls} | {} ms | {} ms |", time.as_millis(), cpu.as_millis())?;
    }
    Ok(())
}

async fn best(stub: &Stub, work: impl AsyncFn() -> Result<(), Anything>) -> Result<Cost, Anything> {
    let mut best: Option<Cost> = None;
    for _ in 0..ROUNDS {
        let (calls, cpu, begun) = (stub.calls()?, cpu()?, Instant::now());
        work().await?;
        let cost = Cost { time: begun.elapsed(), cpu: self::cpu()? - cpu, calls: stub.calls()? - calls };
        best = Some(best.filter(|best| best.time <= cost.time).unwrap_or(cost));
    }
    best.ok_or_else(|| "nothing was measured".into())
}

async fn one_batch(app: &submit::App) -> Result<(), Anything> {
    let jobs: Vec<_> = (0..PROMPTS).map(order).collect();
    take_in(app, "/batches", json!({ "jobs": jobs })).await
}

async fn one_by_one(app: &submit::App, at_once: usize) -> Result<(), Anything> {
    let mut submissions = stream::iter(0..PROMPTS).map(|number| take_in(app, "/jobs", order(number))).buffered(at_once);
    while let Some(submission) = submissions.next().await {
        submission?;
    }
    Ok(())
}

fn order(number: usize) -> Value {
    json!({ "prompt": format!("Poster {number} of many: a noir detective thriller in 1940s Venice") })
}

async fn take_in(app: &submit::App, route: &str, body: Value) -> Result<(), Anything> {
    let mut request = ApiGatewayProxyRequest::default();
    request.resource = Some(route.to_owned());
    request.http_method = Method::POST;
    request.headers.insert("content-type", "application/json".parse()?);
    request.body = Some(body.to_string());
    request.request_context.identity.api_key_id = Some("everyone".to_owned());
    let answer = submit::handle(app, LambdaEvent::new(request, Context::default())).await?;
    if answer.status_code == 202 { Ok(()) } else { Err(format!("{route} answers {}", answer.status_code).into()) }
}

fn app(stub: &str) -> Result<submit::App, Anything> {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-west-2"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "stub")))
        .http_client(http_client())
        .build();
    let endpoint = || Some(stub.to_owned());
    let aws = Aws::new(config, Endpoints { dynamodb: endpoint(), sqs: endpoint(), s3: None, bedrock: None });
    let queue = format!("{stub}/000000000000/queue");
    let settings: BTreeMap<_, _> = [
        ("TABLE_NAME", "jobs"),
        ("QUEUE_URL", queue.as_str()),
        ("MODEL_ID", "stability.stable-image-core-v1:1"),
        ("DEADLINE_HOURS", "24"),
        ("RETENTION_DAYS", "30"),
        ("OWNER_FROM", "ApiKey"),
    ]
    .into();
    Ok(submit::App::new(&aws, Clock::system(), &|name| settings.get(name).map(|value| (*value).to_owned()))?)
}

/// The CPU time of this process, from Linux's scheduler.
fn cpu() -> Result<Duration, Anything> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let times = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += times.split_whitespace().next().ok_or("no time")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// The stubs, in a separate process so that their CPU time does not count.
struct Stub {
    process: Child,
    address: String,
}

impl Stub {
    fn start() -> Result<Self, Anything> {
        let mut process = Command::new(std::env::current_exe()?).arg("--stub").stdout(Stdio::piped()).spawn()?;
        let out = process.stdout.take().ok_or("no output")?;
        let mut address = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }

    fn calls(&self) -> Result<u64, Anything> {
        use std::io::Read;
        let host = self.address.trim_start_matches("http://");
        let mut connection = std::net::TcpStream::connect(host)?;
        write!(connection, "GET /calls HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer.lines().last().unwrap_or_default().parse()?)
    }

    fn python(&self, python: &str, how: &str) -> Result<Cost, Anything> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/throughput.py");
        let before = self.calls()?;
        let mut command = Command::new(python);
        command.args([script, &self.address, how, &PROMPTS.to_string(), &ROUNDS.to_string()]);
        let output = command.stderr(Stdio::inherit()).output()?;
        let told: Value = serde_json::from_slice(&output.stdout)?;
        let seconds = |name: &str| Duration::from_secs_f64(told[name].as_f64().unwrap_or_default());
        let calls = (self.calls()? - before) / ROUNDS as u64;
        Ok(Cost { calls, time: seconds("time"), cpu: seconds("cpu") })
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // Ignore the error: it may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers like DynamoDB and SQS do on success, after the latency.
async fn stub() -> Result<(), Anything> {
    let calls = Arc::new(Mutex::new(0_u64));
    let answer = async |State(calls): State<Arc<Mutex<u64>>>, headers: HeaderMap, body: Bytes| {
        *calls.lock().expect("no one panicked") += 1;
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let reply = match target.rsplit('.').next() {
            Some("SendMessageBatch") => {
                let request: Value = serde_json::from_slice(&body).unwrap_or_default();
                let sent = |entry: &Value| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "d" });
                let sent: Vec<_> = request["Entries"].as_array().into_iter().flatten().map(sent).collect();
                json!({ "Successful": sent, "Failed": [] })
            }
            Some("SendMessage") => json!({ "MessageId": "m", "MD5OfMessageBody": "d" }),
            _ => json!({}),
        };
        tokio::time::sleep(LATENCY).await;
        ([("content-type", "application/x-amz-json-1.0")], reply.to_string())
    };
    let told = async |State(calls): State<Arc<Mutex<u64>>>| calls.lock().expect("no one panicked").to_string();
    let router = Router::new().route("/calls", get(told)).route("/", post(answer)).fallback(post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    axum::serve(listener, router.with_state(calls)).into_future().await?;
    Ok(())
}
