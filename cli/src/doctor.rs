//! Checking a service step by step, and saying what to do about what fails.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::Uri;
use hyper::header::{DATE, HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::api::{HealthView, ImageView, JobView, JobsView};
use shared::job::{ErrorCode, Status};
use shared::order::{Model, Order};
use shared::problem::ProblemDetails;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpStream, lookup_host};
use typography::Raster;

use crate::api::{Api, new_key, problem};
use crate::arguments::Doctor;
use crate::failure::{Failure, Outcome};
use crate::http::{Kind, Unreachable, read_body};
use crate::terminal::Terminal;
use crate::watch::wait_for_job_until;
use crate::words::{fault_text, thousands};

/// How long a name may be looked up, and a connection come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the picture may take. A service that has nothing else to do needs some ten seconds.
const PAINTING: Duration = Duration::from_secs(180);

/// How far the clocks may be apart. AWS refuses signatures that are five minutes off.
const APART: Duration = Duration::from_secs(60);

/// What is painted.
const PROMPT: &str = "A lighthouse on a cliff at dusk, oil painting";

/// What is wrong, and what to do about it.
#[derive(Debug)]
struct Trouble {
    why: String,
    advice: String,
    /// The exit code with which another command would end.
    code: u8,
}

impl Trouble {
    /// The service cannot be reached, or does not answer as it should.
    fn service(why: impl Display, advice: impl Display) -> Self {
        Self { why: why.to_string(), advice: advice.to_string(), code: Failure::Service(String::new()).exit_code() }
    }

    /// There is no picture, or not the one that was told.
    fn picture(why: impl Display, advice: impl Display) -> Self {
        Self { why: why.to_string(), advice: advice.to_string(), code: 1 }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let advice = match &failure {
            Failure::Refused(problem) => advice(problem),
            _ => "Run the doctor again; docs/first-day.md lists what errors mean.".to_owned(),
        };
        Self { why: failure.to_string(), advice, code: failure.exit_code() }
    }
}

/// What a step has found, and the words for it.
type Found<T> = Result<(T, String), Trouble>;

/// The steps that were taken.
struct Visit<'a> {
    terminal: &'a Terminal,
    /// The exit code of the first trouble.
    code: Option<u8>,
}

impl Visit<'_> {
    /// Takes a step and tells what it has found. `None` where that is trouble.
    async fn step<T>(&mut self, name: &str, work: impl Future<Output = Found<T>>) -> Result<Option<T>, Failure> {
        if self.terminal.is_watched() {
            self.terminal.status(format!("{name} …"));
        }
        let began = Instant::now();
        let found = work.await;
        let ms = began.elapsed().as_millis();
        let time = if ms > 0 { format!("  ({ms} ms)") } else { String::new() };
        match found {
            Ok((value, words)) => {
                self.terminal.show(format!("ok    {name:<10}  {words}{time}"))?;
                self.terminal.data(&data(name, Some(true), &words, None, ms))?;
                Ok(Some(value))
            }
            Err(Trouble { why, advice, code }) => {
                self.terminal.show(format!("FAIL  {name:<10}  {why}{time}\n      {advice}"))?;
                self.terminal.data(&data(name, Some(false), &why, Some(&advice), ms))?;
                self.code.get_or_insert(code);
                Ok(None)
            }
        }
    }
}

/// A step for programs; `ok` is `None` for one that was not taken.
fn data(name: &str, ok: Option<bool>, told: &str, advice: Option<&str>, ms: u128) -> Value {
    json!({ "step": name, "ok": ok, "told": told, "advice": advice, "milliseconds": ms as u64 })
}

/// Checks the service, each step only where those before it allow.
pub(crate) async fn run(api: &Api, terminal: &Terminal, doctor: &Doctor) -> Result<Outcome, Failure> {
    let mut visit = Visit { terminal, code: None };
    let reached = steps(api, &mut visit, doctor).await?.is_some();
    if reached && !doctor.paint {
        let words = "not painted; --paint has one painted and downloaded, for $0.04 to $0.14 on AWS, by the model";
        terminal.show(format!("skip  {:<10}  {words}", "picture"))?;
        terminal.data(&data("picture", None, words, None, 0))?;
    }
    Ok(visit.code.map_or(Outcome::AllDone, Outcome::Found))
}

/// Takes the steps. `None` where one of them keeps those behind it from being taken.
async fn steps(api: &Api, visit: &mut Visit<'_>, doctor: &Doctor) -> Result<Option<()>, Failure> {
    let address: Uri = api.address().parse().unwrap_or_default();
    let Some(next) = visit.step("address", async { next(api, &address) }).await? else { return Ok(None) };
    let Some(addresses) = visit.step("name", resolve(&next)).await? else { return Ok(None) };
    if visit.step("connection", connect(api, &next, &addresses)).await?.is_none() {
        return Ok(None);
    }
    if address.scheme_str() == Some("https") && visit.step("TLS", trust(api)).await?.is_none() {
        return Ok(None);
    }
    let Some((headers, about)) = visit.step("health", health(api)).await? else { return Ok(None) };
    // A wrong clock keeps no other step from being taken.
    visit.step("clock", async { clock(&headers, about) }).await?;
    if visit.step("key", key(api)).await?.is_none() {
        return Ok(None);
    }
    if doctor.paint {
        let terminal = visit.terminal;
        let Some(id) = visit.step("job", submit(api, terminal, doctor)).await? else { return Ok(None) };
        let Some(image) = visit.step("picture", paint(api, terminal, &id)).await? else { return Ok(None) };
        let Some(file) = visit.step("download", download(api, &image)).await? else { return Ok(None) };
        visit.step("file", async { decode(&file, &image) }).await?;
    }
    Ok(Some(()))
}

/// The host to connect to: the service's, or that of the proxy before it.
struct Next {
    host: String,
    port: u16,
    is_proxy: bool,
}

impl Next {
    fn new(address: &Uri, is_proxy: bool) -> Self {
        let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
        let usual = if address.scheme_str() == Some("https") { 443 } else { 80 };
        Self { host: host.to_owned(), port: address.port_u16().unwrap_or(usual), is_proxy }
    }
}

fn next(api: &Api, address: &Uri) -> Found<Next> {
    let (told, source) = (api.address(), api.service().source);
    let Some(proxy) = api.http().proxy_of(address) else {
        return Ok((Next::new(address, false), format!("{told}, {source}")));
    };
    if proxy.scheme_str() != Some("http") {
        let scheme = proxy.scheme_str().unwrap_or_default();
        return Err(Trouble {
            why: format!("{told} is to be reached by a proxy that speaks {scheme}"),
            advice: "Name one by http in HTTPS_PROXY or HTTP_PROXY, or this host in NO_PROXY.".to_owned(),
            code: 2,
        });
    }
    let next = Next::new(&proxy, true);
    let words = format!("{told}, {source}; through the proxy {}:{}", next.host, next.port);
    Ok((next, words))
}

async fn resolve(next: &Next) -> Found<Vec<SocketAddr>> {
    let Next { host, port, is_proxy } = next;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok((vec![(address, *port).into()], format!("{host} is an address itself")));
    }
    let advice = if *is_proxy {
        "Is the proxy spelled right in HTTPS_PROXY or HTTP_PROXY?"
    } else {
        "Is the address spelled right? That of a deployed service is the output ApiUrl of its stack. Where only a proxy \
         knows the names of hosts, name it in HTTPS_PROXY."
    };
    let trouble = |why: &dyn Display| Trouble::service(format!("{host}: {why}"), advice);
    let looked_up = tokio::time::timeout(CONNECT, lookup_host((host.as_str(), *port))).await;
    let found = looked_up.map_err(|_| trouble(&"no name server answers"))?.map_err(|error| trouble(&error))?;
    let addresses: Vec<_> = found.collect();
    let first = addresses.first().ok_or_else(|| trouble(&"it leads to no address"))?;
    let others = if addresses.len() > 1 { format!(", and {} more", addresses.len() - 1) } else { String::new() };
    let words = format!("{host} is {}{others}", first.ip());
    Ok((addresses, words))
}

async fn connect(api: &Api, next: &Next, addresses: &[SocketAddr]) -> Found<()> {
    let why = match tokio::time::timeout(CONNECT, TcpStream::connect(addresses)).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            return Ok(((), format!("to {peer}")));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let advice = if next.is_proxy {
        "Does the proxy run there? HTTPS_PROXY or HTTP_PROXY names it; NO_PROXY names hosts that need none."
    } else if api.service().is_local() {
        "Is `cargo run` serving there? It says its address at its start. Name another one with --api or POSTER_API."
    } else {
        "Is the port right? A firewall, or a network without a way out, looks like this too; where there is a proxy, name \
         it in HTTPS_PROXY or HTTP_PROXY."
    };
    let Next { host, port, .. } = next;
    Err(Trouble::service(format!("{host}:{port}: {why}"), advice))
}

/// What to do about an answer that did not come although there is a connection.
fn unanswered(error: Unreachable) -> Trouble {
    let advice = match error.kind {
        Kind::Lasting if error.why.contains("InvalidContentType") => {
            "Something other than TLS answers there. A local service is at an address with http, not https."
        }
        Kind::Lasting => {
            "Does the date of this machine lie in the certificate's time? A proxy that reads along has a certificate of \
             its own: name its roots in SSL_CERT_FILE."
        }
        _ => "Is it the port of this service, and http or https as it should be? Run the doctor again in a minute.",
    };
    Trouble::service(error, advice)
}

async fn trust(api: &Api) -> Found<()> {
    api.get_once("/health").await.map_err(unanswered)?;
    Ok(((), "the certificate is trusted".to_owned()))
}

/// The headers of the answer, and this machine's time when it was given.
async fn health(api: &Api) -> Found<(HeaderMap, SystemTime)> {
    let (asked, began) = (SystemTime::now(), Instant::now());
    let (head, bytes) = api.get_once("/health").await.map_err(unanswered)?;
    let about = asked + began.elapsed() / 2;
    let health: HealthView = read(head.status, &bytes)?;
    let queue = health.queue;
    let words = format!(
        "version {}; {} waiting, {} in work, a new job would wait {} s",
        health.version,
        thousands(queue.waiting),
        thousands(queue.in_flight),
        thousands(queue.estimated_wait_seconds)
    );
    Ok(((head.headers, about), words))
}

/// What was asked for, or why it was not given.
fn read<T: DeserializeOwned>(status: u16, bytes: &[u8]) -> Result<T, Trouble> {
    let answer = if status < 300 { serde_json::from_slice(bytes).ok() } else { None };
    answer.ok_or_else(|| {
        let problem = problem(status, bytes);
        match problem.code.as_str() {
            "unknown" => Trouble::service(format!("it answers {status}, not as this API does"), advice(&problem)),
            _ => Failure::Refused(Box::new(problem)).into(),
        }
    })
}

/// What to do about a refusal.
fn advice(problem: &ProblemDetails) -> String {
    match (problem.status, problem.code.as_str()) {
        (_, "foreign_host" | "invalid_host") => "Use the address that the local service tells at its start.",
        (..500, "unknown") => {
            "Is this the whole address of the service? That of a deployed one is the output ApiUrl, which ends in /v1."
        }
        (401 | 403, _) => {
            "Set your key in POSTER_API_KEY, or as api_key in the configuration file. Of a deployed service it is the \
             value behind the output ApiKeyId (docs/deploy.md, Deploy); a new key needs up to a minute. A local service \
             was started with it: --api-key NAME=KEY."
        }
        (_, "quota_exceeded") => "Wait for the usage plan's next period, or have its quota raised.",
        (429, _) => "Others ask at the same time. Wait a minute and run the doctor again.",
        (500.., _) => {
            "Run the doctor again in a minute. If it stays so, the functions' logs say why: docs/first-day.md, While calling."
        }
        _ => "docs/api.md, Errors, says what the code means.",
    }
    .to_owned()
}

/// Holds this machine's clock against the service's, which is that of AWS where it is deployed.
fn clock(headers: &HeaderMap, about: SystemTime) -> Found<()> {
    let told = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(told) = told.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()) else {
        return Ok(((), "the service does not tell its time".to_owned()));
    };
    let ahead = (OffsetDateTime::from(about) - told).whole_seconds();
    let seconds = thousands(ahead.unsigned_abs());
    if ahead.unsigned_abs() <= APART.as_secs() {
        return Ok(((), format!("{seconds} s from the service's")));
    }
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    Err(Trouble {
        why: format!("this machine's clock is {seconds} s {side} the service's"),
        advice:
            "Set it, as by `timedatectl set-ntp true`. Certificates are judged by it, and AWS refuses what is signed \
                 on this machine with a time that is five minutes off. Where this machine is right and serves itself, \
                 URLs of pictures do not work."
                .to_owned(),
        code: 1,
    })
}

/// A cheap read that needs the key.
async fn key(api: &Api) -> Found<()> {
    let (head, bytes) = api.get_once("/jobs?limit=1").await.map_err(unanswered)?;
    let _: JobsView = read(head.status, &bytes)?;
    let words = if api.service().key.is_some() { "accepted" } else { "none is needed" };
    Ok(((), words.to_owned()))
}

async fn submit(api: &Api, terminal: &Terminal, doctor: &Doctor) -> Found<String> {
    let mut order = json!({ "prompt": PROMPT });
    if let Some(title) = &doctor.title {
        order["poster"] = json!({ "title": title });
    }
    if let Err(errors) = Order::parse(order.clone(), "", Model::Sd35Large) {
        return Err(Failure::Usage(errors.iter().map(fault_text).collect::<Vec<_>>().join("; ")).into());
    }
    let job = api.submit(Bytes::from(order.to_string())).await?;
    let id = job.id.to_string();
    terminal.set_resume_hint(format!("Job {id} goes on; `poster cancel {id}` stops it."));
    Ok((id.clone(), format!("{id} is {}", job.status)))
}

async fn paint(api: &Api, terminal: &Terminal, id: &str) -> Found<ImageView> {
    let began = Instant::now();
    let enough = |job: &JobView| began.elapsed() > PAINTING || waits_for(job).is_some_and(needs_its_operator);
    let job = wait_for_job_until(api, terminal, id, enough).await?;
    if job.finished_at.is_none() {
        // Nobody waits for it any longer, so that nothing is to be paid for it.
        let canceled = api.act_on_job(id, "cancel", &new_key()).await;
        let end = if canceled.is_ok() { "it is canceled" } else { "it goes on" };
        let code = waits_for(&job);
        let message = job.last_error.as_ref().map_or("nothing is told", |error| error.message.as_str());
        let why = format!("the job is {}, and waits: {message} Now {end}.", job.status);
        return Err(Trouble::picture(why, advice_of_job(code)));
    }
    match (job.status, job.image) {
        (Status::Succeeded, Some(image)) => {
            let seconds = began.elapsed().as_secs_f64();
            let lettering = image.poster.as_ref();
            let title = lettering.map(|set| format!(", its title set as {}", set.style.as_str())).unwrap_or_default();
            let price = price(job.model);
            let words = format!("painted by {} in {seconds:.1} s, for {price} on AWS{title}", job.model.as_str());
            Ok((image, words))
        }
        (status, _) => {
            let code = job.error.as_ref().map(|error| error.code);
            let message = job.error.map_or_else(String::new, |error| format!(": {}", error.message));
            Err(Trouble::picture(format!("the job is {status}{message}"), advice_of_job(code)))
        }
    }
}

/// Why a job waits.
fn waits_for(job: &JobView) -> Option<ErrorCode> {
    job.last_error.as_ref().map(|error| error.code)
}

/// Whether waiting helps nothing until somebody acts.
fn needs_its_operator(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ModelAccessDenied | ErrorCode::ModelNotFound)
}

/// What to do about a job without a picture, by what it waits for or failed of.
fn advice_of_job(code: Option<ErrorCode>) -> &'static str {
    match code {
        None => "Nobody has taken the job up. docs/operations.md, Find why a job waits.",
        Some(ErrorCode::ModelAccessDenied) => {
            "The account has no access to the model: docs/deploy.md, Access to the model. ./preflight looks at it."
        }
        Some(ErrorCode::ModelNotFound) => "Deploy with a BedrockRegion that offers the model, such as us-west-2.",
        Some(ErrorCode::Throttled) => {
            "The model's quota is used up. Wait, have it raised, or lower MaximumConcurrency; ./preflight shows it."
        }
        Some(ErrorCode::StorageUnavailable) => "Look at the bucket's policy, and at the health of S3 in the region.",
        Some(ErrorCode::ModelUnavailable | ErrorCode::ModelError) => {
            "Bedrock does not paint at the moment. Look at its health in the region, and run the doctor again later."
        }
        Some(_) => "docs/first-day.md, While calling, lists what errors mean; the worker's log has the job's id.",
    }
}

/// What a picture costs on Bedrock in us-west-2, as of November 2026: <https://aws.amazon.com/bedrock/pricing/>. Of the
/// price of Stable Image Ultra sources tell different things.
fn price(model: Model) -> &'static str {
    match model {
        Model::Core => "$0.04",
        Model::Ultra => "$0.07 to $0.14",
        Model::Sd35Large => "$0.08",
    }
}

/// Gets the picture from where the service says that it is.
async fn download(api: &Api, image: &ImageView) -> Found<Bytes> {
    let host = image.url.parse::<Uri>().ok().and_then(|url| url.authority().map(ToString::to_string));
    let host = host.unwrap_or_default();
    let unreachable = |error: Unreachable| {
        let advice = format!(
            "The service is reached, and the bucket is not. Let {host} through where the network lets only some hosts \
             through, and name it in NO_PROXY where the proxy does not."
        );
        Trouble { code: 1, ..Trouble::service(format!("{host} does not hand the picture out: {error}"), advice) }
    };
    let answer = api.picture(&image.url).await.map_err(unreachable)?;
    let status = answer.status();
    let file = read_body(answer.into_body()).await.map_err(unreachable)?;
    if !status.is_success() {
        let told = String::from_utf8_lossy(&file);
        let code = told.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map(|(code, _)| format!(" ({code})")).unwrap_or_default();
        return Err(Trouble::picture(
            format_args!("{host} answers the presigned URL with {}{code}", status.as_u16()),
            "Does a policy of the bucket, the account or the network deny s3:GetObject? A local service must have the \
             right time. docs/first-day.md, While calling.",
        ));
    }
    let bytes = file.len() as u64;
    if bytes != image.bytes {
        return Err(Trouble::picture(
            format_args!("{host} hands out {} bytes in place of {}", thousands(bytes), thousands(image.bytes)),
            "Does something between here and the bucket change pictures, such as a proxy?",
        ));
    }
    Ok((file, format!("{} bytes from {host} by a presigned URL", thousands(bytes))))
}

/// Reads the picture.
fn decode(file: &[u8], image: &ImageView) -> Found<()> {
    let advice = "The file is not what the worker says that it stored. An issue, please, with the job's id.";
    let raster = Raster::decode(file)
        .map_err(|error| Trouble::picture(format!("the picture cannot be read: {error}"), advice))?;
    let (width, height) = (image.width, image.height);
    if (raster.width, raster.height) != (width as usize, height as usize) {
        let why = format!("the picture has {} × {} pixels in place of {width} × {height}", raster.width, raster.height);
        return Err(Trouble::picture(why, advice));
    }
    Ok(((), format!("{} of {width} × {height} pixels, whole", image.content_type)))
}
