//! Deliveries of events: how many leave the function `webhook` in how much memory, and whom a receiver holds back that
//! does not answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use shared::job::Terms;
use shared::order::Model;
use shared::ticket::Message as _;
use shared::{Job, JobId, Order, Owner, Timestamp, event};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::events::messages;
use crate::local;
use crate::process::Process;
use crate::products::{Endpoints, Product, Products, TlsFront};
use crate::report::{Report, mb, ms};
use crate::runtime_api::Function;
use crate::services::Services;
use crate::{Failure, Runs, median};

/// How long a receiver takes to answer.
const RECEIVER: Duration = Duration::from_millis(20);

/// How long the services take.
const LATENCY: Duration = Duration::from_millis(5);

/// The most messages of an invocation.
const MESSAGES: usize = 10;

/// How many instances work at once: the `MaximumConcurrency` of the function's event source.
const INSTANCES: usize = 5;

/// The timeout of the function.
const INVOCATION: Duration = Duration::from_secs(30);

/// The function's memory in `template.yaml`, and that for which Lambda gives a function a whole processor, in megabytes,
/// see <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>.
const MEMORY_MB: f64 = 256.0;
const WHOLE_PROCESSOR_MB: f64 = 1769.0;

/// How many events the instances deliver.
const EVENTS: usize = 20_000;

/// How many events of one owner are in the queue before those of another.
const BACKLOG: usize = 1000;

/// A receiver of events. At `/` it answers after [`RECEIVER`], at `/silent` never.
struct Receiver {
    address: SocketAddr,
    arrivals: Arrivals,
    server: JoinHandle<std::io::Result<()>>,
}

/// When the event of each `webhook-id` arrived first.
type Arrivals = Arc<Mutex<BTreeMap<String, SystemTime>>>;

impl Receiver {
    async fn start() -> Result<Self, Failure> {
        let arrivals = Arrivals::default();
        let router = Router::new()
            .route("/", post(answer))
            .route("/silent", post(never_answer))
            .with_state(Arrivals::clone(&arrivals));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, arrivals, server: tokio::spawn(axum::serve(listener, router).into_future()) })
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn take_arrivals(&self) -> BTreeMap<String, SystemTime> {
        std::mem::take(&mut lock(&self.arrivals))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(arrivals: &Arrivals, headers: &HeaderMap) {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    lock(arrivals).entry(id.to_owned()).or_insert_with(SystemTime::now);
}

async fn answer(State(arrivals): State<Arrivals>, headers: HeaderMap) -> StatusCode {
    note(&arrivals, &headers);
    tokio::time::sleep(RECEIVER).await;
    StatusCode::NO_CONTENT
}

async fn never_answer(State(arrivals): State<Arrivals>, headers: HeaderMap) -> StatusCode {
    note(&arrivals, &headers);
    std::future::pending().await
}

/// The message of an event, for an endpoint of an owner, and its `webhook-id`.
fn event(owner: &str, url: &str) -> Result<(String, String), Failure> {
    let webhook = json!({ "url": url, "events": ["job.canceled"] });
    let order = json!({ "prompt": "A noir detective thriller in 1940s Venice", "webhook": webhook });
    let order = Order::parse(order, "", Model::Core).map_err(|faults| format!("a bad order: {faults:?}"))?;
    let (now, day) = (Timestamp::from(SystemTime::now()), Duration::from_secs(86_400));
    let job = Job::new(JobId::new(), Owner::new(owner), order, now, Terms { deadline: day, retention: 30 * day });
    let canceled = job.cancel(now).map_err(|error| format!("not canceled: {error:?}"))?;
    let message = event::of_job(&canceled).ok_or("a job whose end is not told")?;
    Ok((message.id.to_string(), message.to_body()))
}

/// Events of an owner: their ids, and the messages.
fn events(owner: &str, url: &str, count: usize) -> Result<(Vec<String>, Vec<String>), Failure> {
    Ok((0..count).map(|_| event(owner, url)).collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

/// What one instance did with its share of the queue.
#[derive(Default)]
struct Share {
    cpu: Duration,
    /// How many messages came to nothing.
    failures: usize,
    /// The memory in use after each invocation, in bytes.
    memory: Vec<u64>,
}

/// Instances of the function, as Lambda runs them at the same time.
struct Instances(Vec<Function>);

impl Instances {
    async fn start(
        products: &Products,
        endpoints: &Endpoints,
        certificates: Option<&std::path::Path>,
        count: usize,
    ) -> Result<Self, Failure> {
        let mut instances = Vec::new();
        for _ in 0..count {
            let mut command = products.command(Product::Webhook, endpoints);
            // The variable of OpenSSL, which the function's reader of the system's certificates follows.
            command.envs(certificates.map(|bundle| ("SSL_CERT_FILE", bundle)));
            instances.push(Function::start_with_limit(&mut command, INVOCATION).await?);
        }
        Ok(Self(instances))
    }

    /// Has the instances work off a queue. Each takes the next ten messages as soon as it is idle.
    async fn work_off(&mut self, queue: &[String]) -> Result<(Duration, Vec<Share>), Failure> {
        let batches: Mutex<VecDeque<Value>> = Mutex::new(queue.chunks(MESSAGES).map(messages).collect());
        let begun = Instant::now();
        let shares = try_join_all(self.0.iter_mut().map(async |instance| {
            let mut share = Share::default();
            loop {
                let Some(batch) = lock(&batches).pop_front() else { return Ok::<_, Failure>(share) };
                let invocation = instance.invoke(&batch).await?;
                share.cpu += invocation.cpu;
                share.failures += invocation.answer["batchItemFailures"].as_array().map_or(0, Vec::len);
                share.memory.push(instance.process.memory()?);
            }
        }))
        .await?;
        Ok((begun.elapsed(), shares))
    }

    fn processes(&self) -> impl Iterator<Item = Process> {
        self.0.iter().map(|instance| instance.process)
    }

    async fn stop(self) -> Result<(), Failure> {
        for instance in self.0 {
            instance.stop().await?;
        }
        Ok(())
    }
}

/// What a flood of events took.
struct Flood {
    /// Deliveries in a second.
    rate: f64,
    /// Of all instances, in milliseconds for each delivery.
    cpu: f64,
    /// The peak of an instance, in bytes.
    peak: f64,
    /// How much more memory an instance had in its last quarter than in its first, in bytes.
    gained: f64,
}

/// Has so many instances deliver so many events. All must arrive.
async fn flood(mut instances: Instances, receiver: &Receiver, url: &str, count: usize) -> Result<Flood, Failure> {
    // Every client is made and every page touched before the time counts.
    instances.work_off(&events("warm", url, 20 * MESSAGES * instances.0.len())?.1).await?;
    receiver.take_arrivals();
    let (ids, queue) = events("bench", url, count)?;
    let (took, shares) = instances.work_off(&queue).await?;
    let arrivals = receiver.take_arrivals();
    let failures: usize = shares.iter().map(|share| share.failures).sum();
    if failures > 0 || arrivals.len() != count || !ids.iter().all(|id| arrivals.contains_key(id)) {
        return Err(format!("{} of {count} events arrived, {failures} failed", arrivals.len()).into());
    }
    let peaks = instances.processes().map(Process::peak).collect::<Result<Vec<_>, _>>()?;
    let gained = shares.iter().map(|share| {
        let quarter = share.memory.len().div_ceil(4);
        let most = |memory: &[u64]| memory.iter().copied().max().unwrap_or(0) as f64;
        most(&share.memory[share.memory.len() - quarter..]) - most(&share.memory[..quarter])
    });
    let flood = Flood {
        rate: count as f64 / took.as_secs_f64(),
        cpu: shares.iter().map(|share| share.cpu).sum::<Duration>().as_secs_f64() * 1e3 / count as f64,
        peak: peaks.into_iter().max().unwrap_or(0) as f64,
        gained: gained.fold(0.0, f64::max),
    };
    instances.stop().await?;
    Ok(flood)
}

pub(crate) async fn measure(products: &Products, runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let services = Services::default();
    services.behave(|behavior| behavior.latency = LATENCY);
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let receiver = Receiver::start().await?;
    floods(products, runs, report, &services, &endpoints, &receiver).await?;
    silence(products, report, &endpoints, &receiver).await?;
    from_a_jobs_end(products, runs, report, &receiver).await
}

/// Many deliveries to a receiver that answers.
async fn floods(
    products: &Products,
    runs: Runs,
    report: &mut Report,
    services: &Services,
    endpoints: &Endpoints,
    receiver: &Receiver,
) -> Result<(), Failure> {
    let url = receiver.url();
    let alone = Instances::start(products, endpoints, None, 1).await?;
    let alone = flood(alone, receiver, &url, runs.times(EVENTS) / INSTANCES).await?;
    let plain = Instances::start(products, endpoints, None, INSTANCES).await?;
    let plain = flood(plain, receiver, &url, runs.times(EVENTS)).await?;
    let front = TlsFront::start(products, &[receiver.address]).await?;
    let bundle = front.bundle("system", Some(&Products::roots_of_machine()?))?;
    let url = format!("https://{}/", front.address(0));
    let instances = Instances::start(products, endpoints, Some(&bundle), INSTANCES).await?;
    services.take_counts();
    let count = runs.times(EVENTS);
    let tls = flood(instances, receiver, &url, count).await?;
    let calls = services.take_counts();

    let note = format!(
        "over TLS, by {INSTANCES} instances, the function's MaximumConcurrency, with ten events each; receivers of {}, \
         services of {}, both on the same machine; over plain HTTP {:.0}, by one instance {:.0}",
        ms(RECEIVER.as_secs_f64() * 1e3),
        ms(LATENCY.as_secs_f64() * 1e3),
        plain.rate,
        alone.rate,
    );
    let (rate, target) = (format!("{:.0}", tls.rate), "≥ 1000".to_owned());
    report.check("webhooks", "deliveries a second", rate, target, tls.rate >= 1000.0, (&note, ""));
    let note = format!(
        "the target is what {INSTANCES} instances of {MEMORY_MB:.0} MB have for each of 1,000 a second; over plain HTTP {}",
        ms(plain.cpu)
    );
    let share = INSTANCES as f64 * MEMORY_MB / WHOLE_PROCESSOR_MB;
    report.at_most("webhooks", "CPU of a delivery, over TLS", tls.cpu, share, ms, (&note, ""));
    let note = format!("after {} deliveries over TLS; over plain HTTP {}", count / INSTANCES, mb(plain.peak));
    report.at_most("webhooks", "peak memory of an instance", tls.peak, 64e6, mb, (&note, ""));
    let note = format!("the most of {INSTANCES} instances; over plain HTTP {}", mb(plain.gained));
    let what = "memory gained, from the first quarter to the last";
    report.at_most("webhooks", what, tls.gained, 2e6, mb, (&note, ""));
    let all = (count + 20 * MESSAGES * INSTANCES) as u64;
    let (calls, target) = (calls.per(all), "1 GetItem, 1 PutItem, 1 Query");
    report.check("webhooks", "calls", calls.clone(), target.to_owned(), calls == target, ("", ""));
    Ok(())
}

/// The deliveries of one owner while a receiver of another owner does not answer.
async fn silence(
    products: &Products,
    report: &mut Report,
    endpoints: &Endpoints,
    receiver: &Receiver,
) -> Result<(), Failure> {
    let (url, silent) = (receiver.url(), format!("{}silent", receiver.url()));
    let half = MESSAGES / 2;
    let mut function = Instances::start(products, endpoints, None, 1).await?;
    function.work_off(&events("bob", &url, MESSAGES)?.1).await?;
    receiver.take_arrivals();

    // How long the second owner's events waited, how long the invocation took, and how many of the first were sent.
    let mut invocation = async || {
        let (_, hanging) = events("alice", &silent, half)?;
        let (ids, prompt) = events("bob", &url, half)?;
        let begun = SystemTime::now();
        let (took, shares) = function.work_off(&[hanging, prompt].concat()).await?;
        if shares[0].failures != half {
            return Err(Failure::from(format!("{} of {half} failed", shares[0].failures)));
        }
        let mut arrivals = receiver.take_arrivals();
        let worst = waited(&mut arrivals, &ids, begun)?;
        Ok((worst, took.as_secs_f64(), arrivals.len()))
    };
    let (first, took, sent) = invocation().await?;
    let (mut next, mut next_took, mut sent_after) = (0.0, 0.0, 0);
    for _ in 0..20 {
        let (waited, took, sent) = invocation().await?;
        next = f64::max(next, waited);
        next_took = f64::max(next_took, took);
        sent_after += sent;
    }
    function.stop().await?;
    let note = format!(
        "the slowest of {half} events of one owner, with {half} of another's to that receiver in the same invocation"
    );
    report.at_most("webhooks", "wait beside a receiver that never answers", first, 1000.0, ms, (&note, ""));
    let seconds = |seconds: f64| format!("{seconds:.1} s");
    let note = format!("{sent} requests to it, each given up after 15 s");
    report.at_most("webhooks", "invocation with a receiver that never answers", took, 16.0, seconds, (&note, ""));
    let note = format!("the slowest of {}; these invocations took {} at most", 20 * half, ms(next_took * 1e3));
    report.at_most("webhooks", "wait in the invocations after that", next, 1000.0, ms, (&note, ""));
    let note = format!("of {} that were due in this minute", 20 * half);
    let (sent, met) = (sent_after.to_string(), sent_after == 0);
    report.check("webhooks", "requests to it after three timeouts", sent, "0".to_owned(), met, (&note, ""));

    let mut instances = Instances::start(products, endpoints, None, INSTANCES).await?;
    receiver.take_arrivals();
    let (_, hanging) = events("alice", &silent, BACKLOG)?;
    let (ids, prompt) = events("bob", &url, MESSAGES)?;
    let begun = SystemTime::now();
    instances.work_off(&[hanging, prompt].concat()).await?;
    let mut arrivals = receiver.take_arrivals();
    let behind = waited(&mut arrivals, &ids, begun)? / 1e3;
    instances.stop().await?;
    let note = format!(
        "the slowest of {MESSAGES} events, behind {BACKLOG} of another owner, of which {} were sent, in a queue without \
         fairness and with {INSTANCES} instances. SQS's fair queues, which cannot be measured here, hand out the events \
         of an owner with few in flight first, but also these wait until an instance is free",
        arrivals.len()
    );
    report.at_most("webhooks", "wait behind a backlog to it", behind, 20.0, seconds, (&note, ""));
    Ok(())
}

/// How long the slowest of these events took to arrive, in milliseconds. Takes them out of the arrivals.
fn waited(arrivals: &mut BTreeMap<String, SystemTime>, ids: &[String], begun: SystemTime) -> Result<f64, Failure> {
    let mut worst = Duration::ZERO;
    for id in ids {
        let arrived = arrivals.remove(id).ok_or("an event did not arrive")?;
        worst = worst.max(arrived.duration_since(begun).unwrap_or_default());
    }
    Ok(worst.as_secs_f64() * 1e3)
}

/// The time between the end of a job and the arrival of its event, in the local stack.
async fn from_a_jobs_end(
    products: &Products,
    runs: Runs,
    report: &mut Report,
    receiver: &Receiver,
) -> Result<(), Failure> {
    let binary = local::build_stack(products).await?;
    let stack = local::Stack::start(&binary, &["--model-plain", "--webhooks-to-loopback"]).await?;
    receiver.take_arrivals();
    let order = json!({ "prompt": "A noir detective thriller in 1940s Venice", "webhook": { "url": receiver.url() } });
    let mut ends = Vec::new();
    for _ in 0..runs.times(60) {
        let job = stack.finished(&order).await?;
        let id = job["id"].as_str().ok_or("a job has no id")?.to_owned();
        let finished: Timestamp = serde_json::from_value(job["finished_at"].clone())?;
        ends.push((id, finished.to_system()));
    }
    // Each event is one of the jobs'.
    let begun = Instant::now();
    while lock(&receiver.arrivals).len() < ends.len() && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stack.stop().await?;
    let arrivals = receiver.take_arrivals();
    let mut spans = Vec::new();
    for (id, finished) in &ends {
        let arrival = arrivals.iter().find(|(delivery, _)| delivery.starts_with(&format!("job_{id}_")));
        let (_, arrived) = arrival.ok_or("the event of a job did not arrive")?;
        spans.push(arrived.duration_since(*finished).unwrap_or_default().as_secs_f64() * 1e3);
    }
    let worst = spans.iter().copied().fold(0.0, f64::max);
    let note = format!("the slowest of {} jobs of the local stack; median {}", spans.len(), ms(median(&spans)));
    report.at_most("webhooks", "from a job's end to its event's arrival", worst, 1000.0, ms, (&note, ""));
    Ok(())
}
