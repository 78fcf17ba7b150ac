//! Restarts: the local stack's own binary, killed again and again while a batch is painted.
//!
//! The model runs outside the process that is killed, as it does when the service is deployed. So every painting is
//! counted for its job, even if its worker died during it.

use std::collections::HashMap;
use std::fmt;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use local::bedrock::{Bedrock, Behavior, Faults};
use local::{Options, Ready};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::api::{BatchView, HealthView, JobsView};
use shared::batch::BatchStatus;
use shared::job::Status;
use shared::{BatchId, JobId};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::audit::{Accepted, Audit, audit};
use crate::pipeline::Pipeline;
use crate::runtime_api::binary;

/// How many times a job may be painted: so often that no job fails because it is interrupted each time.
const MAX_ATTEMPTS: u32 = 10;

/// The longest wait for something that a running stack does soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// The latest time after its start at which a stack is killed while it starts.
const START: u64 = 400;

/// The latest time at which a stack is killed after it has begun the planned number of paintings.
const AFTERWARDS: u64 = 100;

/// How often a condition is polled.
const POLL: Duration = Duration::from_millis(10);

/// The idempotency key of the batch.
const KEY: &str = "restart";

/// How many jobs of a file a batch admits before it records how far it is.
const PART: usize = shared::batch::JOBS_PER_PART;

/// What happens to a stack.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many jobs the batch has.
    pub jobs: usize,
    /// How many times the process is killed.
    pub kills: usize,
    /// How long the model takes for a picture.
    pub latency: Duration,
    /// The seed of the moments of the kills.
    pub seed: u64,
}

/// What happens to a stack that paints the lines of a file.
#[derive(Clone, Copy, Debug)]
pub struct FilePlan {
    /// How many lines the file has.
    pub lines: usize,
    /// How long the model takes for a picture.
    pub latency: Duration,
    /// How long the batch may take.
    pub patience: Duration,
}

/// How the batch from a file fared.
#[derive(Debug)]
pub struct FileReport {
    /// What it was put through.
    pub plan: FilePlan,
    /// The status of the batch at each kill, and how many lines were checked, jobs admitted, and paintings begun.
    pub killed_at: Vec<(BatchStatus, u64, usize, usize)>,
    /// How many lines the results have.
    pub results: usize,
    /// How many paintings the model began.
    pub paintings: usize,
    /// The longest that a process took from its start until everything answered.
    pub slowest_start: Duration,
    /// How long all of it took.
    pub took: Duration,
    /// The outcome of the jobs.
    pub audit: Audit,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// While it starts.
    Starting(Duration),
    /// While it writes the batch.
    Submitting(Duration),
    /// This long after the model has begun this many paintings.
    Painting(usize, Duration),
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The plan of the run.
    pub plan: Plan,
    /// How many kills came while the process started, while it wrote the batch, and while it painted.
    pub kills: [usize; 3],
    /// How many paintings the model began.
    pub paintings: usize,
    /// How many paintings were of a job that had been painted before.
    pub repeated: usize,
    /// How many times a job was taken from a worker by a kill.
    pub interrupted: u64,
    /// The longest that a process took from its start until everything answered.
    pub slowest_start: Duration,
    /// How long the run took.
    pub took: Duration,
    /// The outcome of the jobs.
    pub audit: Audit,
}

/// Kills the local stack during a batch as `plan` says, lets it finish the batch, and checks every job.
///
/// # Panics
/// When the stack does not start, or makes no progress.
pub async fn restart(plan: Plan) -> Report {
    let start = Instant::now();
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::start(plan.latency).await;
    let mut stack = Local::new(directory.path(), &model);
    let body = batch(plan.jobs);

    let moments = moments(&plan);
    let mut accepted = false;
    for &moment in &moments {
        let mut life = stack.spawn();
        match moment {
            Moment::Starting(after) => sleep(after).await,
            Moment::Submitting(after) => {
                let ready = stack.ready(&mut life).await;
                // A caller without an answer repeats the request with the same key.
                let _ = timeout(after, stack.submit(&ready, &body)).await;
            }
            Moment::Painting(paintings, after) => {
                let ready = stack.ready(&mut life).await;
                if !accepted {
                    stack.submit(&ready, &body).await;
                    accepted = true;
                }
                model.begins(paintings).await;
                sleep(after).await;
            }
        }
        // This is SIGKILL.
        life.kill().await.expect("the process can be killed");
    }

    let mut life = stack.spawn();
    let ready = stack.ready(&mut life).await;
    let batch = stack.submit(&ready, &body).await;
    stack.finish(&ready, &batch).await;
    let mut violations = stack.unfit_pictures(&ready, &batch).await;
    life.kill().await.expect("the process can be killed");
    let slowest_start = stack.slowest_start;

    let options = Options { data: Some(stack.data()), event_sources: false, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    let mut audit = audit(&pipeline, &[batch]).await;
    audit.violations.append(&mut violations);
    let at_once = paintings_at_once(&pipeline);
    pipeline.stop().await;

    let paintings = model.paintings.lock().expect("no one panicked").clone();
    audit.compare_paintings(&plan, &paintings, at_once);
    let count = |kind: fn(&Moment) -> bool| moments.iter().filter(|moment| kind(moment)).count();
    Report {
        plan,
        kills: [
            count(|moment| matches!(moment, Moment::Starting(_))),
            count(|moment| matches!(moment, Moment::Submitting(_))),
            count(|moment| matches!(moment, Moment::Painting(..))),
        ],
        paintings: paintings.values().sum(),
        repeated: paintings.values().map(|times| times - 1).sum(),
        interrupted: audit.interrupted(),
        slowest_start,
        took: start.elapsed(),
        audit,
    }
}

/// Kills the local stack three times over a batch from a file: as soon as it is started, while its jobs are admitted, and
/// while they are painted. Lets it finish, and looks at every line.
///
/// # Panics
/// When the stack does not start, or does not go on.
pub async fn restart_with_file(plan: FilePlan) -> FileReport {
    let start = Instant::now();
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::start(plan.latency).await;
    let mut stack = Local::new(directory.path(), &model);
    let mut killed_at = Vec::new();
    let mut id = None;
    for kill in 0..3 {
        let mut life = stack.spawn();
        let ready = stack.ready(&mut life).await;
        let batch = match id {
            Some(id) => id,
            None => stack.start_file(&ready, plan.lines).await,
        };
        id = Some(batch);
        let view = match kill {
            0 => stack.file_when(&ready, batch, plan.patience, |_| true).await,
            1 => {
                let admitted = plan.lines.min(PART);
                let reached = |view: &BatchView| {
                    view.progress.as_ref().is_some_and(|progress| progress.admitted_jobs >= admitted)
                };
                stack.file_when(&ready, batch, plan.patience, reached).await
            }
            _ => {
                model.begins(plan.lines / 2).await;
                stack.file_when(&ready, batch, plan.patience, |_| true).await
            }
        };
        // This is SIGKILL.
        life.kill().await.expect("the process can be killed");
        let (lines, jobs) =
            view.progress.map(|progress| (progress.checked_lines, progress.admitted_jobs)).unwrap_or_default();
        killed_at.push((view.status, lines, jobs, *model.begun.borrow()));
    }
    let id = id.expect("the batch was started");

    let mut life = stack.spawn();
    let ready = stack.ready(&mut life).await;
    let ended = |view: &BatchView| view.links.results.is_some();
    let view = stack.file_when(&ready, id, plan.patience, ended).await;
    let results = stack.results(&view).await;
    stack.finish(&ready, &Accepted { batch: id, jobs: Vec::new() }).await;
    life.kill().await.expect("the process can be killed");

    let options = Options { data: Some(stack.data()), event_sources: false, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    let jobs = (0..plan.lines).map(|index| JobId::in_batch(id, index)).collect();
    let mut audit = audit(&pipeline, &[Accepted { batch: id, jobs }]).await;
    let at_once = paintings_at_once(&pipeline);
    pipeline.stop().await;

    let paintings = model.paintings.lock().expect("no one panicked").clone();
    let same = Plan { jobs: plan.lines, kills: killed_at.len(), latency: plan.latency, seed: 0 };
    audit.compare_paintings(&same, &paintings, at_once);
    audit.compare_results(&view, &results);
    FileReport {
        plan,
        killed_at,
        results: results.len(),
        paintings: paintings.values().sum(),
        slowest_start: stack.slowest_start,
        took: start.elapsed(),
        audit,
    }
}

/// How many pictures the worker paints at once at most.
fn paintings_at_once(pipeline: &Pipeline) -> u64 {
    let worker = &pipeline.stack.deployment().functions["worker"];
    let in_flight: u64 = worker.environment["POSTERS_IN_FLIGHT"].parse().expect("a number");
    in_flight * worker.sources[0].scaling.maximum_concurrency as u64
}

/// The moments of the kills: the first during the submission, some during a start, the others spread over the paintings.
fn moments(plan: &Plan) -> Vec<Moment> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut after = |most: u64| Duration::from_millis(random.u64(..most));
    let mut moments: Vec<_> = (0..plan.kills)
        .map(|kill| match kill {
            0 => Moment::Submitting(after(AFTERWARDS)),
            _ if kill % 5 == 4 => Moment::Starting(after(START)),
            _ => Moment::Painting(0, after(AFTERWARDS)),
        })
        .collect();
    let mut paintings: Vec<_> = moments.iter().map(|_| random.usize(..plan.jobs * 9 / 10)).collect();
    paintings.sort_unstable();
    for (moment, sorted) in moments.iter_mut().zip(paintings) {
        if let Moment::Painting(paintings, _) = moment {
            *paintings = sorted;
        }
    }
    moments
}

pub(crate) fn batch(jobs: usize) -> Value {
    json!({ "jobs": (0..jobs).map(|number| json!({ "prompt": prompt(number) })).collect::<Vec<_>>() })
}

fn prompt(number: usize) -> String {
    format!("Poster {number} of a restart")
}

impl Audit {
    /// Holds the results of a batch from a file against the records and the batch.
    fn compare_results(&mut self, view: &BatchView, results: &[Value]) {
        let mut broken = Vec::new();
        if view.status != BatchStatus::Completed || view.counts.succeeded != results.len() {
            broken.push(format!("the batch is {} with {:?}, of {} results", view.status, view.counts, results.len()));
        }
        let jobs: HashMap<_, _> = self.jobs.iter().map(|job| (job.id.to_string(), job)).collect();
        for (number, line) in results.iter().enumerate() {
            let job = line["job_id"].as_str().and_then(|id| jobs.get(id));
            let good = job.is_some_and(|job| {
                job.order.prompt.as_str() == prompt(number) && line["status"] == json!(job.status().as_str())
            });
            if !good || line["line"] != json!(number + 1) {
                broken.push(format!("line {} of the results is {line}", number + 1));
            }
        }
        if results.len() != self.jobs.len() {
            broken.push(format!("{} results of {} jobs", results.len(), self.jobs.len()));
        }
        self.violations.append(&mut broken);
    }

    /// How many times a job was claimed again. Only kills disturb this pipeline.
    pub(crate) fn interrupted(&self) -> u64 {
        self.jobs.iter().map(|job| u64::from(job.attempts.saturating_sub(1))).sum()
    }

    /// Compares the records with what the model painted. `at_once` is how many paintings one process runs at once.
    fn compare_paintings(&mut self, plan: &Plan, paintings: &HashMap<String, usize>, at_once: u64) {
        self.same("jobs and jobs that succeeded", plan.jobs, self.succeeded);
        for job in &self.jobs {
            let painted = paintings.get(job.order.prompt.as_str()).copied().unwrap_or_default();
            // A painting is counted before it begins, and only after a kill is a job claimed again.
            if painted == 0 || painted > job.attempts as usize {
                self.violations
                    .push(format!("job {} was painted {painted} times in {} attempts", job.id, job.attempts));
            }
        }
        let most = at_once * plan.kills as u64;
        let interrupted = self.interrupted();
        if interrupted > most {
            self.violations.push(format!("{interrupted} paintings were begun again, and the kills explain {most}"));
        }
    }
}

/// The model, which keeps running when its callers are killed.
pub(crate) struct Model {
    pub(crate) address: String,
    /// How many paintings have begun, by their prompts.
    pub(crate) paintings: Arc<Mutex<HashMap<String, usize>>>,
    begun: watch::Receiver<usize>,
}

#[derive(Clone)]
struct Counter {
    paintings: Arc<Mutex<HashMap<String, usize>>>,
    begun: watch::Sender<usize>,
}

impl Model {
    pub(crate) async fn start(latency: Duration) -> Self {
        let bedrock = Bedrock::new(Behavior { latency, faults: Faults::NONE, plain: true });
        let paintings = Arc::default();
        let (sender, begun) = watch::channel(0);
        let counter = Counter { paintings: Arc::clone(&paintings), begun: sender };
        let router = bedrock.router().layer(from_fn_with_state(counter, count));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("a bound address"));
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { address, paintings, begun }
    }

    /// Resolves when this many paintings have begun.
    pub(crate) async fn begins(&self, paintings: usize) {
        let mut begun = self.begun.clone();
        let reached = begun.wait_for(|&begun| begun >= paintings);
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok_and(|reached| reached.is_ok()), "the stack paints no more");
    }
}

/// Counts the painting, and continues it even if the caller dies, because it is paid for.
async fn count(State(counter): State<Counter>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body): Result<Bytes, _> = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let order: Value = serde_json::from_slice(&body).unwrap_or_default();
    let prompt = order["prompt"].as_str().unwrap_or_default().to_owned();
    *counter.paintings.lock().expect("no one panicked").entry(prompt).or_default() += 1;
    counter.begun.send_modify(|begun| *begun += 1);
    let painting = tokio::spawn(next.run(Request::from_parts(parts, Body::from(body))));
    painting.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The local stack's binary, with a data directory of its own.
pub(crate) struct Local {
    binary: PathBuf,
    directory: PathBuf,
    model: String,
    /// The parameters of the template, each as `NAME=VALUE`.
    parameters: Vec<String>,
    /// Further arguments.
    flags: Vec<&'static str>,
    http: Client,
    slowest_start: Duration,
}

/// A process from its start to its end.
pub(crate) struct Life {
    process: Child,
    since: Instant,
}

impl Life {
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.process.kill().await
    }
}

impl Local {
    /// A stack that keeps its data in `directory` and asks this model.
    pub(crate) fn new(directory: &Path, model: &Model) -> Self {
        Self {
            binary: binary("local"),
            directory: directory.to_owned(),
            model: model.address.clone(),
            parameters: vec![format!("MaxAttempts={MAX_ATTEMPTS}")],
            flags: Vec::new(),
            http: Client::new(),
            slowest_start: Duration::ZERO,
        }
    }

    /// The same with another parameter of the template.
    pub(crate) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.parameters.push(format!("{name}={value}"));
        self
    }

    /// The same, which accepts webhooks to this machine.
    pub(crate) fn with_webhooks_to_loopback(mut self) -> Self {
        self.flags.push("--webhooks-to-loopback");
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn ready_file(&self) -> PathBuf {
        self.directory.join("ready.json")
    }

    pub(crate) fn spawn(&self) -> Life {
        // The file of an earlier process says nothing about this one.
        let _ = std::fs::remove_file(self.ready_file());
        let process = Command::new(&self.binary)
            .args(["--port", "0", "--bedrock", "aws"])
            .args(&self.flags)
            .args(self.parameters.iter().flat_map(|parameter| ["--parameter", parameter]))
            .args([Path::new("--data"), &self.data(), Path::new("--ready-file"), &self.ready_file()])
            .env("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", &self.model)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-west-2")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        Life { process, since: Instant::now() }
    }

    /// The addresses of the services, once they answer.
    pub(crate) async fn ready(&mut self, life: &mut Life) -> Ready {
        loop {
            // The file is written in one step.
            if let Ok(text) = std::fs::read(self.ready_file()) {
                self.slowest_start = self.slowest_start.max(life.since.elapsed());
                return serde_json::from_slice(&text).expect("the file is whole");
            }
            let ended = life.process.try_wait().expect("the process can be asked");
            assert!(ended.is_none(), "the stack ended before it was ready: {ended:?}");
            assert!(life.since.elapsed() < PATIENCE, "the stack does not get ready");
            sleep(POLL).await;
        }
    }

    /// Submits the batch, which is the same each time.
    pub(crate) async fn submit(&self, ready: &Ready, body: &Value) -> Accepted {
        let post = || self.http.post(format!("{}/batches", ready.api)).header("Idempotency-Key", KEY).json(body);
        let batch: BatchView = answer(post, StatusCode::ACCEPTED).await;
        Accepted { batch: batch.id, jobs: batch.jobs.unwrap_or_default().into_iter().map(|job| job.id).collect() }
    }

    /// Submits a batch, uploads its file, and starts it.
    async fn start_file(&self, ready: &Ready, lines: usize) -> BatchId {
        let order = json!({ "input": { "format": "ndjson" } });
        let post = || self.http.post(format!("{}/batches", ready.api)).header("Idempotency-Key", KEY).json(&order);
        let batch: BatchView = answer(post, StatusCode::ACCEPTED).await;
        let file: String = (0..lines).map(|number| format!("{}\n", json!({ "prompt": prompt(number) }))).collect();
        let put = self.http.put(batch.upload.expect("it awaits its file").url).body(file);
        assert_eq!(put.send().await.expect("the bucket answers").status(), StatusCode::OK);
        let start = || self.http.post(format!("{}/batches/{}/start", ready.api, batch.id));
        answer::<BatchView>(start, StatusCode::ACCEPTED).await.id
    }

    /// The batch once it is as `wanted`.
    async fn file_when(
        &self,
        ready: &Ready,
        id: BatchId,
        patience: Duration,
        wanted: impl Fn(&BatchView) -> bool,
    ) -> BatchView {
        let end = Instant::now() + patience;
        loop {
            let batch: BatchView = self.get(&format!("{}/batches/{id}", ready.api)).await;
            if wanted(&batch) {
                return batch;
            }
            assert!(Instant::now() < end, "the batch stays as it is: {batch:?}");
            sleep(POLL).await;
        }
    }

    /// The results of a batch that has ended.
    async fn results(&self, batch: &BatchView) -> Vec<Value> {
        let url = batch.links.results.as_ref().expect("it has results");
        let text = self.http.get(url).send().await.expect("the API answers").text().await.expect("a file");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
    }

    /// Waits until every job has ended and no ticket is left. Fails when there is no progress.
    pub(crate) async fn finish(&self, ready: &Ready, accepted: &Accepted) {
        let mut last = None;
        let mut end = Instant::now() + PATIENCE;
        loop {
            let batch: BatchView = self.get(&format!("{}/batches/{}", ready.api, accepted.batch)).await;
            let health: HealthView = self.get(&format!("{}/health", ready.api)).await;
            let tickets = health.queue.waiting + health.queue.in_flight;
            if batch.status != BatchStatus::InProgress && tickets == 0 {
                return;
            }
            if last.replace((batch.counts, tickets)) != Some((batch.counts, tickets)) {
                end = Instant::now() + PATIENCE;
            }
            if Instant::now() >= end {
                let stuck = format!("{}/batches/{}/jobs?limit=100&status=running", ready.api, accepted.batch);
                let stuck: JobsView = self.get(&stuck).await;
                panic!("nothing moves on with {tickets} tickets left: {:?}, {:?}", batch.counts, stuck.jobs.first());
            }
            sleep(POLL * 10).await;
        }
    }

    /// Downloads every picture like the owner of its job, and returns which are wrong.
    async fn unfit_pictures(&self, ready: &Ready, accepted: &Accepted) -> Vec<String> {
        let mut unfit = Vec::new();
        let mut page = format!("{}/batches/{}/jobs?limit=100", ready.api, accepted.batch);
        loop {
            let jobs: JobsView = self.get(&page).await;
            for job in jobs.jobs {
                let Some(image) = job.image.filter(|_| job.status == Status::Succeeded) else { continue };
                let answer = self.http.get(&image.url).send().await.expect("the bucket answers");
                let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
                let bytes = answer.bytes().await.unwrap_or_default();
                if status != StatusCode::OK
                    || kind.is_none_or(|kind| kind != image.content_type.as_str())
                    || bytes.len() as u64 != image.bytes
                {
                    unfit.push(format!("job {}: its picture is {status} with {} bytes", job.id, bytes.len()));
                }
            }
            let Some(cursor) = jobs.next_cursor else { return unfit };
            page = format!("{}/batches/{}/jobs?limit=100&cursor={cursor}", ready.api, accepted.batch);
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, url: &str, body: &Value) -> T {
        answer(|| self.http.post(url).json(body), StatusCode::ACCEPTED).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, url: &str) -> T {
        answer(|| self.http.get(url), StatusCode::OK).await
    }
}

/// The answer to a request, which is repeated while a busy machine refuses it.
async fn answer<T: DeserializeOwned>(request: impl Fn() -> RequestBuilder, wanted: StatusCode) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = request().send().await.expect("the API answers");
        if answer.status() == wanted {
            return answer.json().await.expect("the answer is as it should be");
        }
        let status = answer.status();
        let for_now = status.is_server_error() && Instant::now() < end;
        assert!(for_now, "{status}: {}", answer.text().await.unwrap_or_default());
        sleep(POLL * 100).await;
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, audit, .. } = self;
        writeln!(f, "lines          {} in one file, model {:?}", plan.lines, plan.latency)?;
        for (status, lines, jobs, paintings) in &self.killed_at {
            writeln!(
                f,
                "killed         {status}: {lines} lines checked, {jobs} jobs admitted, {paintings} paintings begun"
            )?;
        }
        let (took, slowest) = (self.took.as_secs_f64(), self.slowest_start.as_secs_f64());
        writeln!(f, "time           {took:.1} s, slowest start {slowest:.2} s")?;
        writeln!(f, "results        {} lines", self.results)?;
        writeln!(f, "succeeded      {}", audit.succeeded)?;
        writeln!(f, "failed         {:?}", audit.failed)?;
        writeln!(f, "paintings      {}, {} attempts interrupted", self.paintings, audit.interrupted())?;
        write!(f, "{audit}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, audit, .. } = self;
        let [starting, submitting, painting] = self.kills;
        writeln!(f, "jobs           {} in one batch, model {:?}, seed {}", plan.jobs, plan.latency, plan.seed)?;
        writeln!(f, "kills          {starting} starting, {submitting} submitting, {painting} painting")?;
        writeln!(
            f,
            "time           {:.1} s, slowest start {:.2} s",
            self.took.as_secs_f64(),
            self.slowest_start.as_secs_f64()
        )?;
        writeln!(f, "succeeded      {}", audit.succeeded)?;
        writeln!(f, "failed         {:?}", audit.failed)?;
        writeln!(f, "paintings      {}, of which {} repeated", self.paintings, self.repeated)?;
        writeln!(f, "interrupted    {} attempts", self.interrupted)?;
        write!(f, "{audit}")
    }
}
