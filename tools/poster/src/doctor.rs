use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::header::{DATE, HeaderMap};
use hyper::{Response, Uri};
use serde::de::DeserializeOwned;
use serde_json::json;
use shared::api::{HealthView, ImageView, JobView, JobsView};
use shared::job::{ErrorCode, Status};
use shared::order::Model;
use shared::problem::ProblemDetails;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpStream, lookup_host};
use typography::Raster;

use crate::api::{Api, problem};
use crate::arguments::Doctor;
use crate::failure::{Failure, Outcome};
use crate::http::{Kind, Unreachable, read_whole};
use crate::make::checked;
use crate::terminal::Terminal;
use crate::watch::wait_for_job;
use crate::words::thousands;

/// How long resolving a name may take, and how long connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the picture may take. An idle service needs about ten seconds.
const PAINTING: Duration = Duration::from_secs(180);

/// How far the clocks may differ. AWS refuses signatures that are five minutes off.
const APART: Duration = Duration::from_secs(60);

/// The exit code if the service cannot be reached, or its answer is wrong.
const UNREACHED: u8 = 3;

/// The exit code if there is no picture, or the wrong one.
const UNPAINTED: u8 = 1;

const PROMPT: &str = "A lighthouse on a cliff at dusk, oil painting";

#[derive(Debug)]
struct Trouble {
    why: String,
    advice: String,
    /// The exit code of another command in this situation.
    code: u8,
}

impl Trouble {
    fn new(code: u8, why: impl Display, advice: impl Display) -> Self {
        Self { why: why.to_string(), advice: advice.to_string(), code }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let advice = match &failure {
            Failure::Refused(problem) => advice(problem),
            _ => "Run `poster doctor` again; docs/first-day.md explains the errors.".to_owned(),
        };
        Self { why: failure.to_string(), advice, code: failure.exit_code() }
    }
}

type Found<T> = Result<(T, String), Trouble>;

struct Visit<'a> {
    terminal: &'a Terminal,
    code: Option<u8>,
}

impl Visit<'_> {
    /// Takes a step and shows its result. The error is `None` if the step failed.
    async fn step<T>(&mut self, name: &str, work: impl Future<Output = Found<T>>) -> Result<T, Option<Failure>> {
        if self.terminal.is_interactive() {
            self.terminal.status(format!("{name} …"));
        }
        let began = Instant::now();
        let found = work.await;
        let ms = began.elapsed().as_millis() as u64;
        match found {
            Ok((value, words)) => {
                self.show(name, Some(true), &words, None, ms)?;
                Ok(value)
            }
            Err(Trouble { why, advice, code }) => {
                self.show(name, Some(false), &why, Some(&advice), ms)?;
                self.code.get_or_insert(code);
                Err(None)
            }
        }
    }

    /// `ok` is `None` if the step was skipped.
    fn show(&self, name: &str, ok: Option<bool>, message: &str, advice: Option<&str>, ms: u64) -> Result<(), Failure> {
        let mark = ok.map_or("skip", |ok| if ok { "ok" } else { "FAIL" });
        let time = if ms > 0 { format!("  ({ms} ms)") } else { String::new() };
        let below = advice.map(|advice| format!("\n      {advice}")).unwrap_or_default();
        self.terminal.show(format!("{mark:<4}  {name:<10}  {message}{time}{below}"))?;
        self.terminal.data(&json!({ "step": name, "ok": ok, "message": message, "advice": advice, "milliseconds": ms }))
    }
}

/// Checks the service. A failed step skips those that depend on it.
pub(crate) async fn run(api: &Api, doctor: &Doctor) -> Result<Outcome, Failure> {
    let mut visit = Visit { terminal: &api.terminal, code: None };
    match steps(api, &mut visit, doctor).await {
        Err(Some(failure)) => Err(failure),
        Ok(()) | Err(None) => Ok(visit.code.map_or(Outcome::AllDone, Outcome::Found)),
    }
}

async fn steps(api: &Api, visit: &mut Visit<'_>, doctor: &Doctor) -> Result<(), Option<Failure>> {
    let address: Uri = api.url().parse().unwrap_or_default();
    let next = visit.step("address", async { next(api, &address) }).await?;
    let addresses = visit.step("name", resolve(&next)).await?;
    visit.step("connection", connect(api, &next, &addresses)).await?;
    if address.scheme_str() == Some("https") {
        visit.step("TLS", trust(api)).await?;
    }
    let (headers, about) = visit.step("health", health(api)).await?;
    match visit.step("clock", async { clock(&headers, about) }).await {
        // The steps after a wrong clock are still worthwhile.
        Ok(()) | Err(None) => {}
        unshown => return unshown,
    }
    visit.step("key", key(api)).await?;
    if !doctor.paint {
        let words = "--paint paints and downloads one, which on AWS costs $0.04 to $0.14, depending on the model";
        return Ok(visit.show("picture", None, words, None, 0)?);
    }
    let id = visit.step("job", submit(api, doctor)).await?;
    let image = visit.step("picture", paint(api, &id)).await?;
    let file = visit.step("download", download(api, &image)).await?;
    visit.step("file", async { decode(&file, &image) }).await
}

/// The host to connect to: the service or its proxy.
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
    let (url, source) = (api.url(), api.service.source);
    let Some(proxy) = api.http.proxy_of(address) else {
        return Ok((Next::new(address, false), format!("{url}, {source}")));
    };
    if proxy.scheme_str() != Some("http") {
        let scheme = proxy.scheme_str().unwrap_or_default();
        let why = format!("the proxy for {url} speaks {scheme}, which is not supported");
        let advice = "Set HTTPS_PROXY or HTTP_PROXY to an http proxy, or add this host to NO_PROXY.";
        return Err(Trouble::new(2, why, advice));
    }
    let next = Next::new(&proxy, true);
    let words = format!("{url}, {source}; through the proxy {}:{}", next.host, next.port);
    Ok((next, words))
}

async fn resolve(next: &Next) -> Found<Vec<SocketAddr>> {
    let Next { host, port, is_proxy } = next;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok((vec![(address, *port).into()], format!("{host} is an IP address")));
    }
    let advice = if *is_proxy {
        "Is the proxy in HTTPS_PROXY or HTTP_PROXY spelled right?"
    } else {
        "Is the URL spelled right? For a deployed service it is the output ApiUrl of its stack. If your network resolves \
         names only through a proxy, set HTTPS_PROXY."
    };
    let trouble = |why: &dyn Display| Trouble::new(UNREACHED, format!("{host}: {why}"), advice);
    let looked_up = tokio::time::timeout(CONNECT, lookup_host((host.as_str(), *port))).await;
    let found = looked_up.map_err(|_| trouble(&"the name server does not answer"))?.map_err(|error| trouble(&error))?;
    let addresses: Vec<_> = found.collect();
    let first = addresses.first().ok_or_else(|| trouble(&"the name has no address"))?;
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
        "Is the proxy running? HTTPS_PROXY or HTTP_PROXY names it; NO_PROXY lists the hosts that need none."
    } else if api.service.is_local() {
        "Is `cargo run` serving there? It prints its URL when it starts. Set another URL with --api or POSTER_API."
    } else {
        "Is the port right? A firewall can cause this too. If your network needs a proxy, set HTTPS_PROXY or HTTP_PROXY."
    };
    let Next { host, port, .. } = next;
    Err(Trouble::new(UNREACHED, format!("{host}:{port}: {why}"), advice))
}

/// A request that was not answered although connecting worked.
fn unanswered(error: Unreachable) -> Trouble {
    let advice = match error.kind {
        Kind::Lasting if error.why.contains("InvalidContentType") => {
            "The server does not speak TLS. The URL of a local service begins with http, not https."
        }
        Kind::Lasting => {
            "Is the date of this machine right? If a proxy inspects your traffic, set SSL_CERT_FILE to its root \
             certificates."
        }
        _ => "Is the port right, and http or https? Run `poster doctor` again in a minute.",
    };
    Trouble::new(UNREACHED, error, advice)
}

async fn trust(api: &Api) -> Found<()> {
    api.get_once("/health").await.map_err(unanswered)?;
    Ok(((), "the certificate is trusted".to_owned()))
}

/// Returns the headers of the answer, and this machine's time in the middle of the request.
async fn health(api: &Api) -> Found<(HeaderMap, SystemTime)> {
    let (asked, began) = (SystemTime::now(), Instant::now());
    let answer = api.get_once("/health").await.map_err(unanswered)?;
    let about = asked + began.elapsed() / 2;
    let health: HealthView = read(&answer)?;
    let queue = health.queue;
    let words = format!(
        "version {}; {} jobs waiting, {} running; a new job would wait {} s",
        health.version,
        thousands(queue.waiting),
        thousands(queue.in_flight),
        thousands(queue.estimated_wait_seconds)
    );
    Ok(((answer.into_parts().0.headers, about), words))
}

fn read<T: DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, Trouble> {
    let value = if answer.status().is_success() { serde_json::from_slice(answer.body()).ok() } else { None };
    value.ok_or_else(|| {
        let (status, problem) = (answer.status().as_u16(), problem(answer));
        match problem.code.as_str() {
            "unknown" => {
                Trouble::new(UNREACHED, format!("the answer, {status}, is not from this API"), advice(&problem))
            }
            _ => Failure::Refused(Box::new(problem)).into(),
        }
    })
}

fn advice(problem: &ProblemDetails) -> String {
    match (problem.status, problem.code.as_str()) {
        (_, "foreign_host" | "invalid_host") => "Use the URL that the local service prints when it starts.",
        (..500, "unknown") => {
            "Is this the whole URL? For a deployed service it is the output ApiUrl, which ends in /v1."
        }
        (401 | 403, _) => {
            "Set your key in POSTER_API_KEY, or as api_key in the configuration file. For a deployed service, the output \
             ApiKeyId leads to it (docs/deploy.md, Deploy); a new key works within a minute. For a local service, it is \
             the KEY of --api-key NAME=KEY."
        }
        (_, "quota_exceeded") => "Wait for the next period of the usage plan, or ask for a higher quota.",
        (429, _) => "The service is busy. Run `poster doctor` again in a minute.",
        (500.., _) => {
            "Run `poster doctor` again in a minute. If it still fails, read the functions' logs: docs/first-day.md, While calling."
        }
        _ => "See the code in docs/api.md, Errors.",
    }
    .to_owned()
}

/// Compares this machine's clock with that of the service, which on AWS is exact.
fn clock(headers: &HeaderMap, about: SystemTime) -> Found<()> {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(service) = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()) else {
        return Ok(((), "unknown: the answer has no Date header".to_owned()));
    };
    let ahead = (OffsetDateTime::from(about) - service).whole_seconds();
    let seconds = thousands(ahead.unsigned_abs());
    if ahead.unsigned_abs() <= APART.as_secs() {
        return Ok(((), format!("{seconds} s off the service's")));
    }
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let advice = "Set it, for example with `timedatectl set-ntp true`. Certificates are checked by it, and AWS refuses \
                  signatures that are five minutes off. If the clock of the service is wrong instead, its image URLs do \
                  not work.";
    Err(Trouble::new(UNPAINTED, format!("this machine's clock is {seconds} s {side} the service's"), advice))
}

async fn key(api: &Api) -> Found<()> {
    let answer = api.get_once("/jobs?limit=1").await.map_err(unanswered)?;
    let _: JobsView = read(&answer)?;
    let words = if api.service.key.is_some() { "accepted" } else { "not needed" };
    Ok(((), words.to_owned()))
}

async fn submit(api: &Api, doctor: &Doctor) -> Found<String> {
    let mut order = json!({ "prompt": PROMPT });
    if let Some(title) = &doctor.title {
        order["poster"] = json!({ "title": title });
    }
    let job: JobView = api.post("/jobs", checked(order)?, None).await?;
    let id = job.id.to_string();
    api.terminal.set_resume_hint(format!("Job {id} is still running; `poster cancel {id}` cancels it."));
    Ok((id.clone(), format!("{id} is {}", job.status)))
}

async fn paint(api: &Api, id: &str) -> Found<ImageView> {
    let began = Instant::now();
    let waits_for = |job: &JobView| job.last_error.as_ref().map(|error| error.code);
    let needs_its_operator = |code| matches!(code, ErrorCode::ModelAccessDenied | ErrorCode::ModelNotFound);
    let enough = |job: &JobView| began.elapsed() > PAINTING || waits_for(job).is_some_and(needs_its_operator);
    let job = wait_for_job(api, id, enough).await?;
    if job.finished_at.is_none() {
        // Do not pay for a picture that nobody waits for.
        let canceled = api.post::<JobView>(&format!("/jobs/{id}/cancel"), "", None).await;
        let end = if canceled.is_ok() { "It was canceled." } else { "It could not be canceled." };
        let code = waits_for(&job);
        let message = job.last_error.as_ref().map_or("No worker has started it.", |error| error.message.as_str());
        let why = format!("the job is still {}: {message} {end}", job.status);
        return Err(Trouble::new(UNPAINTED, why, advice_of_job(code)));
    }
    match (job.status, job.image) {
        (Status::Succeeded, Some(image)) => {
            let seconds = began.elapsed().as_secs_f64();
            let style = image.poster.as_ref().map(|lettering| lettering.style.as_str());
            let title = style.map(|style| format!(", with the title in the style {style}")).unwrap_or_default();
            let price = price(job.model);
            let words = format!("painted by {} in {seconds:.1} s; on AWS {price}{title}", job.model.as_str());
            Ok((image, words))
        }
        (status, _) => {
            let code = job.error.as_ref().map(|error| error.code);
            let message = job.error.map_or_else(String::new, |error| format!(": {}", error.message));
            Err(Trouble::new(UNPAINTED, format!("the job is {status}{message}"), advice_of_job(code)))
        }
    }
}

fn advice_of_job(code: Option<ErrorCode>) -> &'static str {
    match code {
        None => "See docs/operations.md, Find why a job waits.",
        Some(ErrorCode::ModelAccessDenied) => {
            "The account has no access to the model: docs/deploy.md, Access to the model. ./preflight checks it."
        }
        Some(ErrorCode::ModelNotFound) => "Deploy with a BedrockRegion that has the model, such as us-west-2.",
        Some(ErrorCode::Throttled) => {
            "The model's quota is used up. Wait, ask for a higher one, or lower MaximumConcurrency. ./preflight shows it."
        }
        Some(ErrorCode::StorageUnavailable) => "Check the bucket's policy, and the health of S3 in the region.",
        Some(ErrorCode::ModelUnavailable | ErrorCode::ModelError) => {
            "Bedrock is failing. Check its health in the region, and run `poster doctor` again later."
        }
        Some(_) => "See docs/first-day.md, While calling. The worker's log has the job's id.",
    }
}

/// The price of a picture on Bedrock in us-west-2, as of November 2026: <https://aws.amazon.com/bedrock/pricing/>. Sources
/// disagree about Stable Image Ultra.
fn price(model: Model) -> &'static str {
    match model {
        Model::Core => "$0.04",
        Model::Ultra => "$0.07 to $0.14",
        Model::Sd35Large => "$0.08",
    }
}

async fn download(api: &Api, image: &ImageView) -> Found<Bytes> {
    let host = image.url.parse::<Uri>().ok().and_then(|url| url.authority().map(ToString::to_string));
    let host = host.unwrap_or_default();
    let unreachable = |error: Unreachable| {
        let advice = format!(
            "The service can be reached, but the bucket cannot. If your network has a list of allowed hosts, add {host}; if \
             the proxy blocks it, add it to NO_PROXY."
        );
        Trouble::new(UNPAINTED, format!("cannot download from {host}: {error}"), advice)
    };
    let answer = api.file(&image.url).await.map_err(unreachable)?;
    let status = answer.status();
    let file = read_whole(answer).await.map_err(unreachable)?.into_body();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&file);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map(|(code, _)| format!(" ({code})")).unwrap_or_default();
        return Err(Trouble::new(
            UNPAINTED,
            format_args!("{host} answered {}{code} to the presigned URL", status.as_u16()),
            "Does a policy of the bucket, the account or the network deny s3:GetObject? The clock of a local service must \
             be right. See docs/first-day.md, While calling.",
        ));
    }
    let bytes = file.len() as u64;
    if bytes != image.bytes {
        return Err(Trouble::new(
            UNPAINTED,
            format_args!("{host} sent {} bytes instead of {}", thousands(bytes), thousands(image.bytes)),
            "Does a proxy change the pictures?",
        ));
    }
    Ok((file, format!("{} bytes from {host}", thousands(bytes))))
}

fn decode(file: &[u8], image: &ImageView) -> Found<()> {
    let advice = "The file is not the one that the worker stored. Please open an issue with the job's id.";
    let raster = Raster::decode(file)
        .map_err(|error| Trouble::new(UNPAINTED, format!("the picture cannot be read: {error}"), advice))?;
    let (width, height) = (image.width, image.height);
    if (raster.width, raster.height) != (width as usize, height as usize) {
        let why = format!("the picture has {} × {} pixels instead of {width} × {height}", raster.width, raster.height);
        return Err(Trouble::new(UNPAINTED, why, advice));
    }
    Ok(((), format!("{}, {width} × {height} pixels", image.content_type)))
}
