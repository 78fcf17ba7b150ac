//! Volume: the command `poster` with a file of many prompts, over a network that loses answers. Both the command and the
//! local stack are killed several times.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use local::Options;
use reqwest::Client;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{BatchId, Job, JobId};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::audit::{Accepted, Audit, audit};
use crate::pipeline::Pipeline;
use crate::restart::{Local, Model};
use crate::runtime_api::binary;
use crate::soak::peak_kb;

/// How often a condition is polled.
const POLL: Duration = Duration::from_millis(20);

/// One in this many prompts is refused by the model's filter.
const UNFIT: usize = 1000;

/// How many worker invocations run at once, and how many pictures each paints at once.
const WORKERS: [usize; 2] = [4, 5];

/// What happens to the command and the stack.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many prompts the file has.
    pub jobs: usize,
    /// How many times the command and then the stack are killed: first when the batch exists, then during the downloads.
    pub kills: usize,
    /// How long the model takes for a picture.
    pub latency: Duration,
    /// The share of the requests that get a 503 instead of being served, and the share of the answers that are lost.
    pub busy: f64,
    /// How long one run of the command may take.
    pub patience: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The plan of the run.
    pub plan: Plan,
    /// What was killed, and how many pictures were saved then.
    pub killed_at: Vec<(&'static str, usize)>,
    /// How long all runs took together.
    pub took: Duration,
    /// After which time the last of the prompts was painted.
    pub painted: Duration,
    /// The peak memory of the command in kilobytes, without and with the sheet, if the operating system reports it.
    pub peak_kb: [Option<u64>; 2],
    /// How many requests were made, by method and path.
    pub requests: BTreeMap<String, usize>,
    /// How many of them got a 503 from the network.
    pub refused: usize,
    /// How many answers the network lost.
    pub lost_answers: usize,
    /// How many paintings the model began.
    pub paintings: usize,
    /// How many pictures are saved.
    pub saved: usize,
    /// How many lines are in the file of failed lines.
    pub failed: usize,
    /// The outcome of the jobs.
    pub audit: Audit,
}

/// Runs the command with a file of prompts as `plan` says, and checks everything afterwards.
///
/// # Panics
/// When the pipeline does not start, or the command makes no progress.
pub async fn volume(plan: Plan) -> Report {
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::start(plan.latency).await;
    let [invocations, in_flight] = WORKERS;
    // The command has nothing to do with thumbnails, which would take most of the time.
    let mut stack = Local::new(directory.path(), &model)
        .with("MaximumConcurrency", invocations)
        .with("PostersInFlight", in_flight)
        .with("Thumbnails", false);
    let mut life = stack.spawn();
    let mut ready = stack.ready(&mut life).await;
    let network = Network::start(&ready.api, plan.busy).await;
    let command =
        Poster { binary: binary("poster"), directory: directory.path().to_owned(), api: network.address.clone(), plan };
    std::fs::write(command.input(), prompts(plan.jobs)).expect("the prompts are written");

    let start = Instant::now();
    let mut killed_at = Vec::new();
    let mut child = command.spawn(&["--no-sheet"]);
    let mut peak = None;
    for kill in 0..plan.kills {
        let pictures = plan.jobs * kill / plan.kills;
        let end = Instant::now() + plan.patience;
        while command.batch().is_none() || command.saved() < pictures {
            assert!(child.try_wait().expect("it can be asked").is_none(), "it ended before kill {kill}");
            assert!(Instant::now() < end, "it does not get as far as kill {kill}: {} saved", command.saved());
            sleep(POLL).await;
        }
        // These are SIGKILLs.
        peak = peak.max(child.id().and_then(peak_kb));
        child.kill().await.expect("it can be killed");
        killed_at.push(("command", command.saved()));
        child = command.spawn(&["--no-sheet"]);
        sleep(Duration::from_millis(fastrand::u64(..500))).await;
        life.kill().await.expect("it can be killed");
        killed_at.push(("stack", command.saved()));
        life = stack.spawn();
        ready = stack.ready(&mut life).await;
        network.lead_to(&ready.api);
    }
    let begun = || model.paintings.lock().expect("no one panicked").values().sum::<usize>();
    let painted = async {
        while model.paintings.lock().expect("no one panicked").len() < plan.jobs {
            sleep(POLL).await;
        }
        start.elapsed()
    };
    let ((status, last_peak), painted) = tokio::join!(command.finish(child), painted);
    let took = start.elapsed();
    let peak = peak.max(last_peak);

    // The same command has nothing left to do but the sheet, and the failed lines can be submitted again.
    let (requests, paintings, pictures) = (network.seen().requests, begun(), command.pictures_as_they_lie());
    let (again, peak_of_sheet) = command.finish(command.spawn(&[])).await;
    let repeated = network.seen().requests.get("POST /batches") != requests.get("POST /batches")
        || command.pictures_as_they_lie() != pictures
        || begun() != paintings;
    let batch = command.batch().expect("the batch is recorded");
    let jobs = (0..plan.jobs).map(|index| JobId::in_batch(batch, index)).collect();
    let accepted = Accepted { batch, jobs };
    stack.finish(&ready, &accepted).await;
    life.kill().await.expect("it can be killed");

    let options = Options { data: Some(stack.data()), event_sources: false, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    let mut audit = audit(&pipeline, &[accepted]).await;
    pipeline.stop().await;
    let (saved, failed) = command.compare(&mut audit, &model, status);
    if repeated || again.code() != status.code() {
        let why = format!("the same command once more ended with {again}, or submitted or downloaded again");
        audit.violations.push(why);
    }
    let Seen { refused, lost, .. } = network.seen();
    let peak_kb = [peak, peak_of_sheet];
    Report {
        plan,
        killed_at,
        took,
        painted,
        peak_kb,
        requests,
        refused,
        lost_answers: lost,
        paintings,
        saved,
        failed,
        audit,
    }
}

fn prompts(jobs: usize) -> String {
    let prompt = |number: usize| {
        let unfit = if number % UNFIT == UNFIT / 2 { " (nsfw)" } else { "" };
        json!({ "prompt": format!("Poster {number} of many{unfit}"), "seed": number + 1 })
    };
    (0..jobs).map(|number| format!("{}\n", prompt(number))).collect()
}

/// The command, and its files.
struct Poster {
    binary: PathBuf,
    directory: PathBuf,
    api: String,
    plan: Plan,
}

/// What the command writes about a picture.
#[derive(Deserialize)]
struct Saved {
    file: String,
    bytes: u64,
    job: JobId,
}

/// What the command's state file says.
#[derive(Deserialize)]
struct Recorded {
    poster_batch: BatchId,
}

impl Poster {
    fn input(&self) -> PathBuf {
        self.directory.join("prompts.ndjson")
    }

    fn pictures(&self) -> PathBuf {
        self.directory.join("prompts.ndjson-posters")
    }

    /// The pictures, each with the time at which it was written.
    fn pictures_as_they_lie(&self) -> BTreeMap<PathBuf, SystemTime> {
        let entries = std::fs::read_dir(self.pictures()).into_iter().flatten().flatten();
        let is_picture = |name: &OsStr| name.as_encoded_bytes()[0].is_ascii_digit();
        let entries = entries.filter(|entry| is_picture(&entry.file_name()));
        entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?))).collect()
    }

    fn spawn(&self, more: &[&str]) -> Child {
        Command::new(&self.binary)
            .args(["batch", "prompts.ndjson", "--quiet", "--patience", "5m"])
            .args(more)
            .current_dir(&self.directory)
            .env("POSTER_API", &self.api)
            .env("XDG_CONFIG_HOME", &self.directory)
            .env_remove("POSTER_API_KEY")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts")
    }

    /// Waits until the command ends, and returns its peak memory.
    async fn finish(&self, mut child: Child) -> (ExitStatus, Option<u64>) {
        let end = Instant::now() + self.plan.patience;
        let mut peak = None;
        loop {
            peak = peak.max(child.id().and_then(peak_kb));
            if let Some(status) = child.try_wait().expect("it can be asked") {
                return (status, peak);
            }
            assert!(Instant::now() < end, "it does not end: {} saved", self.saved());
            sleep(POLL).await;
        }
    }

    /// The batch, once it is recorded.
    fn batch(&self) -> Option<BatchId> {
        let state = std::fs::read(self.directory.join("prompts.ndjson.poster-state")).ok()?;
        serde_json::from_slice::<Recorded>(&state).ok().map(|state| state.poster_batch)
    }

    /// How many pictures are saved.
    fn saved(&self) -> usize {
        let manifest = std::fs::read(self.pictures().join("posters.ndjson")).unwrap_or_default();
        manifest.split(|&byte| byte == b'\n').count().saturating_sub(1)
    }

    /// Compares the command's files with the records and with what the model did.
    fn compare(&self, audit: &mut Audit, model: &Model, status: ExitStatus) -> (usize, usize) {
        let manifest = std::fs::read_to_string(self.pictures().join("posters.ndjson")).expect("a manifest");
        let saved: Vec<Saved> = manifest.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let failed = std::fs::read_to_string(self.directory.join("prompts.ndjson.failed.ndjson")).unwrap_or_default();
        let failed: Vec<Value> = failed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let whole = saved.iter().filter(|saved| {
            let size = std::fs::metadata(self.pictures().join(&saved.file)).map(|metadata| metadata.len());
            size.is_ok_and(|size| size == saved.bytes)
        });
        audit.same("prompts and records", self.plan.jobs, audit.jobs.len());
        let prompts = audit.jobs.iter().map(|job| job.order.prompt.as_str()).collect::<BTreeSet<_>>().len();
        audit.same("prompts and prompts of records", self.plan.jobs, prompts);
        audit.same("pictures that are saved and whole, and lines about them", whole.count(), saved.len());
        let jobs: BTreeSet<_> = saved.iter().map(|saved| saved.job).collect();
        audit.same("pictures that were downloaded, and jobs that they are of", saved.len(), jobs.len());
        audit.same("pictures that are saved, and jobs that succeeded", saved.len(), audit.succeeded);
        let paintings = model.paintings.lock().expect("no one panicked");
        let is_explained = |job: &Job| {
            let painted = paintings.get(job.order.prompt.as_str()).copied().unwrap_or_default();
            // A painting is counted before it begins, and only after a kill is a job claimed again. What the filter refuses
            // does not count.
            (1..=job.attempts.max(1) as usize).contains(&painted)
        };
        let unexplained = audit.jobs.iter().filter(|job| !is_explained(job)).count();
        audit.same("jobs that were not painted, or more often than they were claimed", 0, unexplained);
        let most = WORKERS.iter().product::<usize>() * self.plan.kills;
        audit.same("paintings that no kill explains", 0, (audit.interrupted() as usize).saturating_sub(most));
        audit.same("lines in the file of failed ones, and jobs that failed", failed.len(), audit.failed.values().sum());
        let unfit = (0..self.plan.jobs).filter(|number| number % UNFIT == UNFIT / 2).count();
        audit.same("prompts that are unfit, and failed lines", unfit, failed.len());
        audit.same("exit code", usize::from(unfit > 0), status.code().map_or(usize::MAX, |code| code as usize));
        if failed.iter().any(|line| !line["prompt"].as_str().is_some_and(|prompt| prompt.contains("nsfw"))) {
            audit.violations.push("a line that the filter accepts is among the failed lines".to_owned());
        }
        for name in ["contact-sheet.png", "index.html"] {
            if !self.pictures().join(name).exists() {
                audit.violations.push(format!("there is no {name}"));
            }
        }
        (saved.len(), failed.len())
    }
}

/// A proxy of the API that counts requests, refuses some, and loses some answers.
struct Network {
    address: String,
    to: Arc<Mutex<String>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    requests: BTreeMap<String, usize>,
    refused: usize,
    lost: usize,
}

#[derive(Clone)]
struct Way {
    to: Arc<Mutex<String>>,
    busy: f64,
    http: Client,
    seen: Arc<Mutex<Seen>>,
}

/// A client that does not follow redirects, so that the caller gets them.
fn direct() -> Client {
    Client::builder().redirect(Policy::none()).build().expect("a client")
}

impl Network {
    async fn start(to: &str, busy: f64) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let to = Arc::new(Mutex::new(to.to_owned()));
        let way = Way { to: to.clone(), busy, http: direct(), seen: seen.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("a bound address"));
        tokio::spawn(axum::serve(listener, Router::new().fallback(forward).with_state(way)).into_future());
        Self { address, to, seen }
    }

    /// Leads to another address from now on.
    fn lead_to(&self, to: &str) {
        to.clone_into(&mut self.to.lock().expect("no one panicked"));
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("no one panicked").clone()
    }
}

async fn forward(State(way): State<Way>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let shape: Vec<_> = path.split('/').map(|step| if step.len() == 36 { "{id}" } else { step }).collect();
    let strikes = |share: f64| fastrand::f64() < share;
    {
        let mut seen = way.seen.lock().expect("no one panicked");
        *seen.requests.entry(format!("{} {}", parts.method, shape.join("/"))).or_default() += 1;
        if strikes(way.busy) {
            seen.refused += 1;
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "busy").into_response();
        }
    }
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("{}{path}{query}", way.to.lock().expect("no one panicked"));
    let request = way.http.request(parts.method, to).headers(parts.headers).body(body);
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    if strikes(way.busy) {
        way.seen.lock().expect("no one panicked").lost += 1;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER, header::LOCATION] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    *response.body_mut() = Body::from(answer.bytes().await.unwrap_or_default());
    response
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, audit, .. } = self;
        let secs = self.took.as_secs_f64();
        writeln!(f, "prompts        {}, model {:?}", plan.jobs, plan.latency)?;
        for (what, saved) in &self.killed_at {
            writeln!(f, "killed         the {what} with {saved} pictures saved")?;
        }
        let painted = self.painted.as_secs_f64();
        let pace = self.saved as f64 / secs;
        writeln!(
            f,
            "time           {secs:.1} s, {pace:.1} posters a second; the last was painted after {painted:.1} s"
        )?;
        let megabytes = self.peak_kb.map(|kb| kb.map_or("unknown".to_owned(), |kb| format!("{} MB", kb / 1024)));
        writeln!(f, "peak memory    {} of the command, {} with the sheet", megabytes[0], megabytes[1])?;
        writeln!(f, "requests       {} to the API", self.requests.values().sum::<usize>())?;
        for (shape, number) in &self.requests {
            writeln!(f, "  {number:>6}       {shape}")?;
        }
        writeln!(f, "network        {} turned away, {} answers lost", self.refused, self.lost_answers)?;
        writeln!(f, "paintings      {}, {} attempts interrupted", self.paintings, audit.interrupted())?;
        writeln!(f, "saved          {}", self.saved)?;
        writeln!(f, "failed         {} {:?}", self.failed, audit.failed)?;
        write!(f, "{audit}")
    }
}
