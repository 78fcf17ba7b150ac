//! Load: many jobs at once in a pipeline whose model is slow and fails.
//!
//! A job waits longer with each setback, up to fifteen minutes when the model is too busy, and for ten to fifteen minutes
//! when it fails a second time. With the rates of [`Load::default`] few jobs meet more than three faults, hardly one meets
//! two failures, and the last of twenty thousand ends half a minute after the others. Greater rates make long tails, which
//! is what the product promises, not a fault of the load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use local::Options;
use local::bedrock::{Behavior, Faults, Stats};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use shared::BatchId;
use shared::api::BatchView;
use shared::batch::{BatchStatus, Counts};
use shared::job::{ErrorCode, Status};
use tokio::time::{Instant, sleep};

use crate::audit::{Accepted, Audit, audit};
use crate::pipeline::Pipeline;

/// How long a caller waits for an answer: as long as API Gateway, see
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>.
const ANSWER: Duration = Duration::from_secs(29);

/// How often a batch's counts are requested.
const POLL: Duration = Duration::from_millis(500);

/// The load on a pipeline.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many jobs.
    pub jobs: usize,
    /// How many of them one request contains.
    pub per_batch: usize,
    /// How the model behaves.
    pub model: Behavior,
    /// How many worker invocations run at once.
    pub invocations: usize,
    /// How many pictures one invocation paints at once.
    pub in_flight: usize,
    /// After this time without progress, the jobs that have not ended count as lost.
    pub patience: Duration,
}

impl Default for Load {
    fn default() -> Self {
        let faults = Faults { throttle: 0.05, unavailable: 0.02, error: 0.001, filter: 0.01, ..Faults::NONE };
        Self {
            jobs: 20_000,
            per_batch: 1000,
            model: Behavior { latency: Duration::from_millis(200), faults, plain: true },
            invocations: 10,
            in_flight: 10,
            patience: Duration::from_secs(1000),
        }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The load of the run.
    pub load: Load,
    /// How long the submission of all jobs took.
    pub submission: Duration,
    /// The longest submission of one batch.
    pub slowest_batch: Duration,
    /// How many requests were refused with a status that allows a repetition, by status.
    pub refused: BTreeMap<u16, usize>,
    /// How long it took until every job had ended, from the first request on.
    pub took: Duration,
    /// What the model did.
    pub model: Stats,
    /// The peak memory of this process in kilobytes, if the operating system reports it.
    pub peak_kb: Option<u64>,
    /// The outcome of the jobs.
    pub audit: Audit,
}

/// Puts a new pipeline under `load`, and checks every job afterwards.
///
/// # Panics
/// When the pipeline does not start or does not answer at all.
pub async fn soak(load: Load) -> Report {
    let mut parameters: BTreeMap<_, _> = [
        ("MaximumConcurrency".to_owned(), load.invocations.to_string()),
        ("PostersInFlight".to_owned(), load.in_flight.to_string()),
    ]
    .into();
    if load.model.faults.hang > 0.0 {
        // This is the least that the template allows, so that a model that hangs does not hold the others up. Otherwise a
        // busy machine needs the longer time: a picture that comes too late is painted twice.
        parameters.insert("ModelTimeoutSeconds".to_owned(), "5".to_owned());
    }
    let options = Options { parameters, model: load.model, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    pipeline.stack.bedrock().behave(load.model);

    let start = Instant::now();
    let mut refused = BTreeMap::new();
    let mut accepted = Vec::new();
    let mut slowest_batch = Duration::ZERO;
    let mut violations = Vec::new();
    for (number, first) in (0..load.jobs).step_by(load.per_batch).enumerate() {
        let begun = Instant::now();
        let body = batch(first..load.jobs.min(first + load.per_batch));
        match submit(&pipeline, &body, &format!("soak-{number}"), load.patience, &mut refused).await {
            Ok(batch) => accepted.push(batch),
            Err(why) => violations.push(format!("batch {number} was not taken in: {why}")),
        }
        slowest_batch = slowest_batch.max(begun.elapsed());
    }
    let submission = start.elapsed();

    let mut totals = Totals::default();
    for batch in &accepted {
        match ended(&pipeline, batch.batch, load.patience).await {
            Ok(counts) => totals.add(&counts),
            Err(counts) => violations.push(format!("batch {} stays as it is: {counts:?}", batch.batch)),
        }
    }
    let took = start.elapsed();
    no_tickets(&pipeline, Duration::from_secs(30)).await;

    let mut audit = audit(&pipeline, &accepted).await;
    audit.violations.append(&mut violations);
    let model = pipeline.stack.bedrock().stats();
    let max_attempts = &pipeline.stack.deployment().functions["worker"].environment["MAX_ATTEMPTS"];
    audit.compare_totals(&totals, &model, &load.model.faults, max_attempts.parse().expect("a number"));
    pipeline.stack.stop().await;
    Report { load, submission, slowest_batch, refused, took, model, peak_kb: peak_kb("self"), audit }
}

fn batch(numbers: std::ops::Range<usize>) -> Value {
    let job =
        |number: usize| json!({ "prompt": format!("Poster {number} of a soak"), "custom_id": number.to_string() });
    json!({ "jobs": numbers.map(job).collect::<Vec<_>>() })
}

/// Submits a batch like a careful caller: with a key, and again while the service refuses it with 503.
///
/// # Errors
/// Why it was refused finally, or the last reason when `patience` ends.
pub async fn submit(
    pipeline: &Pipeline,
    body: &Value,
    key: &str,
    patience: Duration,
    refused: &mut BTreeMap<u16, usize>,
) -> Result<Accepted, String> {
    let end = Instant::now() + patience;
    loop {
        let post = pipeline.http.post(format!("{}/batches", pipeline.ready().api)).timeout(ANSWER);
        let (status, wait, why) = match post.header("Idempotency-Key", key).json(body).send().await {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                let batch: BatchView = answer.json().await.map_err(|error| error.to_string())?;
                let jobs = batch.jobs.unwrap_or_default().into_iter().map(|job| job.id).collect();
                return Ok(Accepted { batch: batch.id, jobs });
            }
            Ok(answer) => {
                let status = answer.status();
                let wait = answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
                let why = format!("{status}: {}", answer.text().await.unwrap_or_default());
                if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                    return Err(why);
                }
                (status.as_u16(), Duration::from_secs(wait.unwrap_or(1)), why)
            }
            Err(error) => (0, Duration::from_secs(1), error.to_string()),
        };
        *refused.entry(status).or_default() += 1;
        if Instant::now() + wait >= end {
            return Err(why);
        }
        sleep(wait).await;
    }
}

/// The batch's counts once all its jobs have ended, or once there has been no progress for `patience`.
async fn ended(pipeline: &Pipeline, batch: BatchId, patience: Duration) -> Result<Counts, Counts> {
    let mut last = Counts::default();
    let mut end = Instant::now() + patience;
    loop {
        let answer = pipeline.get(&format!("/batches/{batch}")).await;
        // The pipeline may be too busy to count.
        if let Ok(view) = answer.json::<BatchView>().await {
            if view.status != BatchStatus::InProgress {
                return Ok(view.counts);
            }
            if view.counts != last {
                (last, end) = (view.counts, Instant::now() + patience);
            }
        }
        if Instant::now() >= end {
            return Err(last);
        }
        sleep(POLL).await;
    }
}

/// Waits until the last tickets are deleted, which happens a moment after their jobs have ended.
async fn no_tickets(pipeline: &Pipeline, patience: Duration) {
    let end = Instant::now() + patience;
    while Instant::now() < end && pipeline.messages(&pipeline.ready().queue_url).await > 0 {
        sleep(POLL).await;
    }
}

/// The sum of the counts of all batches.
#[derive(Debug, Default)]
struct Totals {
    succeeded: usize,
    failed: usize,
}

impl Totals {
    fn add(&mut self, counts: &Counts) {
        self.succeeded += counts.succeeded;
        self.failed += counts.failed;
    }
}

impl Audit {
    /// Compares the records with the API's answers and with what the model did.
    fn compare_totals(&mut self, totals: &Totals, model: &Stats, faults: &Faults, max_attempts: u32) {
        self.same("succeeded by the API and by the records", totals.succeeded, self.standing(Status::Succeeded));
        self.same("failed by the API and by the records", totals.failed, self.standing(Status::Failed));
        // Nothing here kills a worker, so there is no reason for a second picture.
        self.same("pictures painted and jobs that succeeded", model.images as usize, self.succeeded);
        self.same(
            "prompts refused and jobs that failed by it",
            model.filtered as usize,
            self.failed_as(ErrorCode::ContentFiltered),
        );
        for (code, count) in &self.failed {
            let explained = match *code {
                "content_filtered" => faults.filter > 0.0,
                "model_error" => faults.error > 0.0 || faults.hang > 0.0,
                _ => false,
            };
            if !explained {
                self.violations.push(format!("{count} jobs failed as {code}, which no fault explains"));
            }
        }
        let given_up = self.jobs.iter().filter(|job| {
            let shared::JobState::Failed { error, .. } = &job.state else { return false };
            error.code == ErrorCode::ModelError && job.attempts != max_attempts
        });
        self.violations
            .extend(given_up.map(|job| format!("job {} was given up after {} attempts", job.id, job.attempts)));
        // A painting is counted before it begins, so the model may have begun fewer, but never more. What was throttled
        // or filtered was not begun.
        let begun = model.invocations - model.throttled - model.filtered;
        if begun > self.attempts {
            self.violations.push(format!("the model began {begun} paintings, and the records count {}", self.attempts));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, model, audit, .. } = self;
        let Faults { throttle, unavailable, error, hang, filter, deny } = load.model.faults;
        let secs = self.took.as_secs_f64();
        writeln!(f, "jobs           {} in batches of {}", load.jobs, load.per_batch)?;
        writeln!(
            f,
            "model          {:?}; throttle={throttle},unavailable={unavailable},error={error},hang={hang},filter={filter},\
             deny={deny}",
            load.model.latency
        )?;
        writeln!(f, "workers        {} invocations with {} posters in flight", load.invocations, load.in_flight)?;
        writeln!(
            f,
            "taken in       {:.1} s, slowest batch {:.2} s",
            self.submission.as_secs_f64(),
            self.slowest_batch.as_secs_f64()
        )?;
        writeln!(f, "refused        {:?}", self.refused)?;
        writeln!(f, "time           {secs:.1} s")?;
        writeln!(f, "jobs/s         {:.1}", load.jobs as f64 / secs)?;
        match self.peak_kb {
            Some(kb) => writeln!(f, "peak memory    {} MB", kb / 1024)?,
            None => writeln!(f, "peak memory    unknown")?,
        }
        writeln!(f, "succeeded      {}", audit.succeeded)?;
        writeln!(f, "failed         {:?}", audit.failed)?;
        writeln!(
            f,
            "model calls    {} ({:.4} per poster), pictures {}",
            model.invocations,
            model.invocations as f64 / audit.succeeded.max(1) as f64,
            model.images
        )?;
        let hung = model.invocations - model.images - model.throttled - model.errors - model.filtered;
        writeln!(
            f,
            "faults         throttled {}, errors {}, hung {hung}, filtered {}",
            model.throttled, model.errors, model.filtered
        )?;
        writeln!(f, "attempts       {} counted, {} throttled", audit.attempts, audit.throttles)?;
        write!(f, "{audit}")
    }
}

/// The peak memory of a process, by its number or `self`, in kilobytes, on Linux.
pub(crate) fn peak_kb(process: impl fmt::Display) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
}
