//! The HTTP API, with retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use shared::BatchId;
use shared::api::{BatchView, JobView, SecretView, UploadView};
use shared::backoff::full_jitter;
use shared::problem::ProblemDetails;
use shared::webhook_secret::WebhookSecret;
use uuid::Uuid;

use crate::config::Service;
use crate::failure::Failure;
use crate::http::{Body, Http, Kind, Unreachable, read_body, whole};
use crate::terminal::Terminal;
use crate::words::human_duration;

/// How long a command retries, unless it is `poster batch`.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait between two tries, unless the service asks for a longer one.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much slower polling becomes at most while the service is busy.
const MAX_SLOWNESS: u32 = 8;

/// The most jobs or batches of a page.
pub(crate) const PAGE: usize = 100;

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) service: Arc<Service>,
    pub(crate) http: Http,
    terminal: Terminal,
    /// How long to retry.
    pub(crate) patience: Duration,
    /// How many times slower than usual to poll the service.
    slowness: Arc<AtomicU32>,
}

#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    /// The header `Retry-After`; `None` if there is nothing to wait for.
    pub(crate) retry_after: Option<Duration>,
}

/// The job or batch that an id names.
#[derive(Debug)]
pub(crate) enum Found {
    Job(Box<JobView>),
    Batch(Box<Answer<BatchView>>),
}

impl Api {
    pub(crate) fn new(service: Service, terminal: Terminal) -> Self {
        let (service, http) = (Arc::new(service), Http::new());
        Self { service, http, terminal, patience: PATIENCE, slowness: Arc::new(AtomicU32::new(1)) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.service.url
    }

    /// Sends a GET request once, and returns any answer.
    pub(crate) async fn get_once(&self, path: &str) -> Result<Response<Bytes>, Unreachable> {
        self.send(&Method::GET, path, Bytes::new(), None, None).await
    }

    /// How long to wait before the next poll: longer than the service says by a random part, so that many callers do not
    /// poll at once, and longer still while it is busy.
    pub(crate) fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let wait = retry_after.unwrap_or(Duration::from_secs(1)) * self.slowness.load(Ordering::Relaxed);
        wait.mul_f64(1.0 + fastrand::f64() / 4.0)
    }

    pub(crate) async fn submit(&self, order: Bytes) -> Result<JobView, Failure> {
        self.post("/jobs", order, &new_key()).await
    }

    /// Submits a batch. However often it is sent with the same idempotency key, the service accepts it once.
    pub(crate) async fn submit_batch(&self, batch: Bytes, key: &str) -> Result<BatchView, Failure> {
        self.post("/batches", batch, key).await
    }

    /// Starts a batch whose file is uploaded. One that was started before stays as it is.
    pub(crate) async fn start_batch(&self, id: BatchId) -> Result<BatchView, Failure> {
        self.post(&format!("/batches/{id}/start"), Bytes::new(), &new_key()).await
    }

    /// Uploads a file of `bytes` bytes once, without the API key.
    pub(crate) async fn upload(
        &self,
        upload: &UploadView,
        bytes: u64,
        content: Body,
    ) -> Result<Response<Bytes>, Unreachable> {
        let mut request = Request::put(&upload.url).header(USER_AGENT, agent()).header(CONTENT_LENGTH, bytes);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        let request = request.body(content);
        let request = request.map_err(|_| Unreachable::lasting("the service returned an invalid URL for the file"))?;
        let (head, incoming) = self.http.send_slowly(request).await?.into_parts();
        Ok(Response::from_parts(head, read_body(incoming).await?))
    }

    /// The job. The service holds its answer for up to `wait`, until the job has ended.
    pub(crate) async fn job(&self, id: &str, wait: Option<Duration>) -> Result<Answer<JobView>, Failure> {
        let prefer = wait.map(|wait| format!("wait={}", wait.as_secs()));
        self.get(&format!("/jobs/{id}"), prefer.as_deref()).await
    }

    pub(crate) async fn batch(&self, id: &str) -> Result<Answer<BatchView>, Failure> {
        self.get(&format!("/batches/{id}"), None).await
    }

    /// Finds the batch or the job with this id, which must be a UUID.
    pub(crate) async fn find(&self, id: &str) -> Result<Found, Failure> {
        match self.batch(id).await {
            Ok(answer) => Ok(Found::Batch(Box::new(answer))),
            Err(Failure::Refused(problem)) if problem.status == 404 => {
                Ok(Found::Job(Box::new(self.job(id, None).await?.value)))
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
    ) -> Result<T, Failure> {
        let joint = if list.contains('?') { '&' } else { '?' };
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        Ok(self.get(&format!("{list}{joint}limit={}{cursor}", limit.clamp(1, PAGE)), None).await?.value)
    }

    /// Cancels or retries a job: `action` is `cancel` or `retry`.
    pub(crate) async fn act_on_job(&self, id: &str, action: &str) -> Result<JobView, Failure> {
        self.post(&format!("/jobs/{id}/{action}"), Bytes::new(), &new_key()).await
    }

    /// Cancels the queued jobs of a batch, or retries its failed jobs.
    pub(crate) async fn act_on_batch(&self, id: &str, action: &str) -> Result<BatchView, Failure> {
        self.post(&format!("/batches/{id}/{action}"), Bytes::new(), &new_key()).await
    }

    /// The presigned URL to which a path of the API redirects: that of a job's picture, or of a document of a batch.
    pub(crate) async fn file_url(&self, path: &str) -> Result<String, Failure> {
        let answer = self.ask(Method::GET, path, Bytes::new(), None, None).await?;
        let url = answer.headers().get(LOCATION).and_then(|url| url.to_str().ok());
        url.map(str::to_owned).ok_or_else(|| Failure::Service("the service returned no URL of the file".to_owned()))
    }

    /// Gets a file from its presigned URL, without the API key.
    pub(crate) async fn file(&self, url: &str) -> Result<Response<Incoming>, Unreachable> {
        let request = Request::get(url).header(USER_AGENT, agent()).body(whole(Bytes::new()));
        let request = request.map_err(|_| Unreachable::lasting("the service returned an invalid URL of a file"))?;
        self.http.send(request).await
    }

    /// The secrets that sign the caller's webhooks, the current one first.
    pub(crate) async fn webhook_secrets(&self) -> Result<Vec<WebhookSecret>, Failure> {
        let SecretView { secret, previous } = self.get("/webhook-secret", None).await?.value;
        let secrets = std::iter::once(secret).chain(previous.into_iter().map(|former| former.secret));
        let secrets: Result<_, _> = secrets.map(|text| text.parse()).collect();
        secrets.map_err(|error| Failure::Service(format!("the service returned something else than a secret: {error}")))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, prefer: Option<&str>) -> Result<Answer<T>, Failure> {
        read(self.ask(Method::GET, path, Bytes::new(), None, prefer).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, content: Bytes, key: &str) -> Result<T, Failure> {
        Ok(read(self.ask(Method::POST, path, content, Some(key), None).await?)?.value)
    }

    /// Sends a request until it succeeds, is refused for good, or `patience` is over. Every request may be repeated, since a
    /// POST carries an idempotency key.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        content: Bytes,
        key: Option<&str>,
        prefer: Option<&str>,
    ) -> Result<Response<Bytes>, Failure> {
        let started = Instant::now();
        for attempt in 0.. {
            let (wait, why) = match self.send(&method, path, content.clone(), key, prefer).await {
                Ok(answer) if answer.status().as_u16() < 400 => {
                    let slowness = self.slowness.load(Ordering::Relaxed);
                    self.slowness.store((slowness / 2).max(1), Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(answer) => {
                    let problem = problem(&answer);
                    let is_temporary = matches!(answer.status().as_u16(), 429 | 500 | 502 | 503 | 504)
                        && problem.code != "quota_exceeded";
                    if !is_temporary {
                        return Err(Failure::Refused(Box::new(problem)));
                    }
                    let slowness = self.slowness.load(Ordering::Relaxed);
                    self.slowness.store((slowness * 2).min(MAX_SLOWNESS), Ordering::Relaxed);
                    let asked = retry_after(answer.headers()).unwrap_or_default();
                    let why = format!("{} answered {} ({})", self.url(), problem.status, problem.code);
                    (asked + full_jitter(Duration::from_secs(1), LONGEST_WAIT, attempt), why)
                }
                Err(error) => {
                    let wait = full_jitter(Duration::from_millis(500), LONGEST_WAIT, attempt);
                    let why = match error.kind {
                        Kind::NothingListens if self.service.is_local() => {
                            format!("nothing listens at {}; is `cargo run` serving there?", self.url())
                        }
                        Kind::NoSuchName => {
                            format!("{} does not answer: {error}; is the URL right?", self.url())
                        }
                        _ => format!("{} does not answer: {error}", self.url()),
                    };
                    // A batch waits for a service that is being restarted.
                    let is_in_vain = match error.kind {
                        Kind::Lasting => true,
                        Kind::NothingListens => self.service.is_local() && self.patience == PATIENCE,
                        Kind::NoSuchName => self.patience == PATIENCE,
                        Kind::MayPass => false,
                    };
                    if is_in_vain {
                        return Err(Failure::Service(why));
                    }
                    (wait, why)
                }
            };
            if started.elapsed() + wait > self.patience {
                return Err(Failure::Service(why));
            }
            if attempt > 0 || self.patience > PATIENCE {
                self.terminal.force_status();
                self.terminal
                    .status(format!("{why}; next try in {}", human_duration(wait.max(Duration::from_secs(1)))));
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop has no end of its own")
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        content: Bytes,
        key: Option<&str>,
        prefer: Option<&str>,
    ) -> Result<Response<Bytes>, Unreachable> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.url())).header(USER_AGENT, agent());
        if let Some(secret) = &self.service.key {
            request = request.header("x-api-key", secret.expose());
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        if !content.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(whole(content)).map_err(|error| Unreachable::lasting(error.to_string()))?;
        let (head, incoming) = self.http.send(request).await?.into_parts();
        Ok(Response::from_parts(head, read_body(incoming).await?))
    }
}

fn new_key() -> String {
    Uuid::new_v4().to_string()
}

fn agent() -> &'static str {
    concat!("poster/", env!("CARGO_PKG_VERSION"))
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
