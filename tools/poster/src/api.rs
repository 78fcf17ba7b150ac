//! The HTTP API, with retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::api::{BatchView, JobView, SecretView, UploadView};
use shared::backoff::full_jitter;
use shared::problem::ProblemDetails;
use shared::webhook_secret::WebhookSecret;
use uuid::Uuid;

use crate::config::Service;
use crate::failure::Failure;
use crate::http::{Body, Http, Kind, Unreachable, read_whole, whole};
use crate::terminal::Terminal;

/// How long a command retries, unless it is `poster batch`.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait between two tries, unless the service asks for a longer one.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much slower polling becomes at most while the service is busy.
const MAX_SLOWNESS: u32 = 8;

/// The most jobs or batches of a page.
pub(crate) const PAGE: usize = 100;

const AGENT: &str = concat!("poster/", env!("CARGO_PKG_VERSION"));

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) service: Arc<Service>,
    pub(crate) http: Http,
    pub(crate) terminal: Terminal,
    pub(crate) patience: Duration,
    slowness: Arc<AtomicU32>,
}

#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    /// The header `Retry-After`; `None` if there is nothing to wait for.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum Found {
    Job(Box<JobView>),
    Batch(Box<Answer<BatchView>>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    #[serde(alias = "jobs", alias = "batches")]
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

impl Api {
    pub(crate) fn new(service: Service, terminal: Terminal) -> Self {
        let (service, http) = (Arc::new(service), Http::new());
        Self { service, http, terminal, patience: PATIENCE, slowness: Arc::new(AtomicU32::new(1)) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.service.url
    }

    /// How long to wait before the next poll: longer than the service says by a random part, so that many callers do not
    /// poll at once, and longer still while it is busy.
    pub(crate) fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let wait = retry_after.unwrap_or(Duration::from_secs(1)) * self.slowness.load(Ordering::Relaxed);
        wait.mul_f64(1.0 + fastrand::f64() / 4.0)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        read(self.ask(self.request(Method::GET, path), Bytes::new()).await?)
    }

    /// Sends a GET request once, and returns any answer.
    pub(crate) async fn get_once(&self, path: &str) -> Result<Response<Bytes>, Unreachable> {
        let request = self.request(Method::GET, path).body(Bytes::new());
        self.send(request.map_err(|error| Unreachable::lasting(error.to_string()))?).await
    }

    /// Sends a POST request, whose body may be empty. However often it is sent with the same idempotency key, the service
    /// does what it asks once. Without a `key`, this call has one of its own.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        key: Option<&str>,
    ) -> Result<T, Failure> {
        let key = key.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let request = self.request(Method::POST, path).header("idempotency-key", key);
        Ok(read(self.ask(request, content.into()).await?)?.value)
    }

    /// The job. The service holds its answer for up to `wait`, until the job has ended.
    pub(crate) async fn job(&self, id: &str, wait: Duration) -> Result<Answer<JobView>, Failure> {
        let request = self.request(Method::GET, &format!("/jobs/{id}"));
        read(self.ask(request.header("prefer", format!("wait={}", wait.as_secs())), Bytes::new()).await?)
    }

    pub(crate) async fn batch(&self, id: &str) -> Result<Answer<BatchView>, Failure> {
        self.get(&format!("/batches/{id}")).await
    }

    /// Finds the batch or the job with this id, which must be a UUID.
    pub(crate) async fn find(&self, id: &str) -> Result<Found, Failure> {
        match self.batch(id).await {
            Ok(answer) => Ok(Found::Batch(Box::new(answer))),
            Err(Failure::Refused(problem)) if problem.status == 404 => {
                Ok(Found::Job(self.get(&format!("/jobs/{id}")).await?.value))
            }
            Err(failure) => Err(failure),
        }
    }

    /// A page of a list, such as `/jobs?status=failed`.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        list: &str,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<T>, Failure> {
        let joint = if list.contains('?') { '&' } else { '?' };
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        Ok(self.get(&format!("{list}{joint}limit={}{cursor}", limit.clamp(1, PAGE))).await?.value)
    }

    /// The presigned URL to which a path of the API redirects: that of a job's picture, or of a document of a batch.
    pub(crate) async fn file_url(&self, path: &str) -> Result<String, Failure> {
        let answer = self.ask(self.request(Method::GET, path), Bytes::new()).await?;
        let url = answer.headers().get(LOCATION).and_then(|url| url.to_str().ok());
        url.map(str::to_owned).ok_or_else(|| Failure::Service("the service returned no URL of the file".to_owned()))
    }

    /// Gets a file from its presigned URL, without the API key.
    pub(crate) async fn file(&self, url: &str) -> Result<Response<Incoming>, Unreachable> {
        let request = Request::get(url).header(USER_AGENT, AGENT).body(whole(Bytes::new()));
        let request = request.map_err(|_| Unreachable::lasting("the service returned an invalid URL of a file"))?;
        self.http.send(request).await
    }

    /// Uploads a file of `bytes` bytes once, without the API key.
    pub(crate) async fn upload(
        &self,
        upload: &UploadView,
        bytes: u64,
        content: Body,
    ) -> Result<Response<Bytes>, Unreachable> {
        let mut request = Request::put(&upload.url).header(USER_AGENT, AGENT).header(CONTENT_LENGTH, bytes);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        let request = request.body(content);
        let request = request.map_err(|_| Unreachable::lasting("the service returned an invalid URL for the file"))?;
        read_whole(self.http.send_slowly(request).await?).await
    }

    /// The secrets that sign the caller's webhooks, the current one first.
    pub(crate) async fn webhook_secrets(&self) -> Result<Vec<WebhookSecret>, Failure> {
        let SecretView { secret, previous } = self.get("/webhook-secret").await?.value;
        let secrets = std::iter::once(secret).chain(previous.into_iter().map(|former| former.secret));
        let secrets: Result<_, _> = secrets.map(|text| text.parse()).collect();
        secrets.map_err(|error| Failure::Service(format!("the service returned something else than a secret: {error}")))
    }

    /// A request with the API key.
    fn request(&self, method: Method, path: &str) -> Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url())).header(USER_AGENT, AGENT);
        match &self.service.key {
            Some(key) => request.header("x-api-key", key.expose()),
            None => request,
        }
    }

    /// Sends a request until it succeeds, is refused for good, or `patience` is over. Every request may be repeated, since a
    /// POST carries an idempotency key.
    async fn ask(&self, request: Builder, content: Bytes) -> Result<Response<Bytes>, Failure> {
        let request = if content.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") };
        let request = request.body(content).map_err(|error| Failure::Service(error.to_string()))?;
        let started = Instant::now();
        for attempt in 0.. {
            let (wait, why) = match self.send(request.clone()).await {
                Ok(answer) if answer.status().as_u16() < 400 => {
                    self.poll_slower(|slowness| (slowness / 2).max(1));
                    return Ok(answer);
                }
                Ok(answer) => {
                    let problem = problem(&answer);
                    let is_temporary = matches!(answer.status().as_u16(), 429 | 500 | 502 | 503 | 504)
                        && problem.code != "quota_exceeded";
                    if !is_temporary {
                        return Err(Failure::Refused(Box::new(problem)));
                    }
                    self.poll_slower(|slowness| (slowness * 2).min(MAX_SLOWNESS));
                    let asked = retry_after(answer.headers()).unwrap_or_default();
                    let why = format!("{} answered {} ({})", self.url(), problem.status, problem.code);
                    (asked + full_jitter(Duration::from_secs(1), LONGEST_WAIT, attempt), why)
                }
                Err(error) => {
                    let url = self.url();
                    let why = format!("{url} does not answer: {error}");
                    // A batch waits for a service that is being restarted.
                    let is_impatient = self.patience == PATIENCE;
                    let (is_in_vain, why) = match error.kind {
                        Kind::NothingListens if self.service.is_local() => {
                            (is_impatient, format!("nothing listens at {url}; is `cargo run` serving there?"))
                        }
                        Kind::NoSuchName => (is_impatient, format!("{why}; is the URL right?")),
                        kind => (kind == Kind::Lasting, why),
                    };
                    if is_in_vain {
                        return Err(Failure::Service(why));
                    }
                    (full_jitter(Duration::from_millis(500), LONGEST_WAIT, attempt), why)
                }
            };
            if started.elapsed() + wait > self.patience {
                return Err(Failure::Service(why));
            }
            if attempt > 0 || self.patience > PATIENCE {
                self.terminal.retrying(why, wait);
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop has no end of its own")
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        read_whole(self.http.send(request.map(whole)).await?).await
    }

    fn poll_slower(&self, change: impl Fn(u32) -> u32) {
        let changed = |slowness| Some(change(slowness));
        let _ = self.slowness.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn read<T: DeserializeOwned>(answer: Response<Bytes>) -> Result<Answer<T>, Failure> {
    let value = serde_json::from_slice(answer.body())
        .map_err(|error| Failure::Service(format!("the answer is not from this API: {error}")))?;
    Ok(Answer { value, retry_after: retry_after(answer.headers()) })
}

/// The problem details of an answer, or only its status if something else than the service answered.
pub(crate) fn problem(answer: &Response<Bytes>) -> ProblemDetails {
    serde_json::from_slice(answer.body()).unwrap_or_else(|_| ProblemDetails {
        kind: "about:blank".to_owned(),
        title: String::new(),
        status: answer.status().as_u16(),
        detail: "The answer is not from this API. Is the URL right?".to_owned(),
        code: "unknown".to_owned(),
        errors: Vec::new(),
    })
}
