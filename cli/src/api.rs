//! The HTTP API, asked again for as long as that makes sense.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use shared::api::{BatchView, JobView, JobsView};
use shared::backoff::full_jitter;
use shared::job::Status;
use shared::problem::ProblemDetails;
use uuid::Uuid;

use crate::config::Service;
use crate::failure::Failure;
use crate::http::{Http, Kind, Unreachable, read_body};
use crate::terminal::Terminal;
use crate::words::human_duration;

/// How long a command that somebody waits for goes on asking a service that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait between two tries, unless the service asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much slower polling becomes at most when the service is busy.
const MAX_SLOWNESS: u32 = 8;

/// How many jobs a page has at the most.
pub(crate) const PAGE: usize = 100;

/// The API, for one caller.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    service: Arc<Service>,
    http: Http,
    terminal: Terminal,
    patience: Duration,
    /// How many times slower than usual the service is to be polled.
    slowness: Arc<AtomicU32>,
}

/// An answer of the service, and when it is worth asking again.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// What was asked for.
    pub(crate) value: T,
    /// After what time another look is worthwhile; `None` when there is nothing to wait for.
    pub(crate) retry_after: Option<Duration>,
}

/// What an id names.
#[derive(Debug)]
pub(crate) enum Found {
    /// A job.
    Job(Box<JobView>),
    /// A batch, or a group of batches.
    Batch(Box<Answer<BatchView>>),
}

impl Api {
    /// The API of this service.
    pub(crate) fn new(service: Service, terminal: Terminal) -> Self {
        let (service, http) = (Arc::new(service), Http::new());
        Self { service, http, terminal, patience: PATIENCE, slowness: Arc::new(AtomicU32::new(1)) }
    }

    /// The same, asking a service that does not answer for as long as `patience`.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The address of the API.
    pub(crate) fn address(&self) -> &str {
        &self.service.address
    }

    /// The service, and the key to it.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// The client that asks it.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Asks once, and gives back whatever is answered.
    pub(crate) async fn get_once(&self, path: &str) -> Result<(Head, Bytes), Unreachable> {
        self.send(&Method::GET, path, Bytes::new(), None, None).await
    }

    /// How long to wait before the next poll: a little longer than the service says, so that many callers do not come
    /// at once, and longer still when it is busy.
    pub(crate) fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let wait = retry_after.unwrap_or(Duration::from_secs(1)) * self.slowness.load(Ordering::Relaxed);
        wait.mul_f64(1.0 + fastrand::f64() / 4.0)
    }

    /// Submits a job.
    pub(crate) async fn submit(&self, order: Bytes) -> Result<JobView, Failure> {
        Ok(self.post("/jobs", order, &new_key()).await?.value)
    }

    /// Submits a batch. The key makes sure that it is taken in once, however often it is sent.
    pub(crate) async fn submit_batch(&self, batch: Bytes, key: &str) -> Result<BatchView, Failure> {
        Ok(self.post("/batches", batch, key).await?.value)
    }

    /// The job, after `wait` at the most if it has not ended before.
    pub(crate) async fn job(&self, id: &str, wait: Option<Duration>) -> Result<Answer<JobView>, Failure> {
        let prefer = wait.map(|wait| format!("wait={}", wait.as_secs()));
        self.get(&format!("/jobs/{id}"), prefer.as_deref()).await
    }

    /// The batch.
    pub(crate) async fn batch(&self, id: &str) -> Result<Answer<BatchView>, Failure> {
        self.get(&format!("/batches/{id}"), None).await
    }

    /// What this id, which must be a UUID, names: a batch or a job.
    pub(crate) async fn find(&self, id: &str) -> Result<Found, Failure> {
        match self.batch(id).await {
            Ok(answer) => Ok(Found::Batch(Box::new(answer))),
            Err(Failure::Refused(problem)) if problem.status == 404 => {
                Ok(Found::Job(Box::new(self.job(id, None).await?.value)))
            }
            Err(failure) => Err(failure),
        }
    }

    /// A page of a list of jobs: `list` is `/jobs`, or `/batches/{id}/jobs`.
    pub(crate) async fn jobs(
        &self,
        list: &str,
        status: Option<Status>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<JobsView, Failure> {
        let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        Ok(self.get(&format!("{list}?limit={}{status}{cursor}", limit.clamp(1, PAGE)), None).await?.value)
    }

    /// Cancels or retries a job, as `action` says.
    pub(crate) async fn act_on_job(&self, id: &str, action: &str, key: &str) -> Result<JobView, Failure> {
        Ok(self.post(&format!("/jobs/{id}/{action}"), Bytes::new(), key).await?.value)
    }

    /// Cancels what waits of a batch, or retries what failed of it, as `action` says.
    ///
    /// A large group is worked off in several requests: each answer says where the next one goes on.
    pub(crate) async fn act_on_batch(&self, id: &str, action: &str, key: &str) -> Result<BatchView, Failure> {
        let path = format!("/batches/{id}/{action}");
        let mut view: BatchView = self.post(&path, Bytes::new(), key).await?.value;
        while let Some(cursor) = view.next_cursor.take() {
            self.terminal.status(format!("{action}: more to do …"));
            view = self.post(&format!("{path}?cursor={cursor}"), Bytes::new(), key).await?.value;
        }
        Ok(view)
    }

    /// A new address of a job's picture.
    pub(crate) async fn picture_url(&self, id: &str) -> Result<String, Failure> {
        let (head, _) = self.ask(Method::GET, &format!("/jobs/{id}/image"), Bytes::new(), None, None).await?;
        let address = head.get(LOCATION).and_then(|address| address.to_str().ok());
        address.map(str::to_owned).ok_or_else(|| Failure::Service("the service tells no address".to_owned()))
    }

    /// Gets a picture from its presigned address, which the API key does not belong to.
    pub(crate) async fn picture(&self, address: &str) -> Result<Response<Incoming>, Unreachable> {
        let request = Request::get(address).header(USER_AGENT, agent()).body(Full::default());
        let request = request.map_err(|_| Unreachable::lasting("the picture's address is none"))?;
        self.http.send(request).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, prefer: Option<&str>) -> Result<Answer<T>, Failure> {
        read(self.ask(Method::GET, path, Bytes::new(), None, prefer).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, content: Bytes, key: &str) -> Result<Answer<T>, Failure> {
        read(self.ask(Method::POST, path, content, Some(key), None).await?)
    }

    /// Sends a request until it is served, refused for good, or patience has run out. Every request here may be sent
    /// again: a POST carries its idempotency key.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        content: Bytes,
        key: Option<&str>,
        prefer: Option<&str>,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let begun = Instant::now();
        for attempt in 0.. {
            let (wait, why) = match self.send(&method, path, content.clone(), key, prefer).await {
                Ok((head, bytes)) if head.status < 400 => {
                    let slowness = self.slowness.load(Ordering::Relaxed);
                    self.slowness.store((slowness / 2).max(1), Ordering::Relaxed);
                    return Ok((head.headers, bytes));
                }
                Ok((head, bytes)) => {
                    let problem = problem(head.status, &bytes);
                    let passing =
                        matches!(head.status, 429 | 500 | 502 | 503 | 504) && problem.code != "quota_exceeded";
                    if !passing {
                        return Err(Failure::Refused(Box::new(problem)));
                    }
                    let slowness = self.slowness.load(Ordering::Relaxed);
                    self.slowness.store((slowness * 2).min(MAX_SLOWNESS), Ordering::Relaxed);
                    let asked = retry_after(&head.headers).unwrap_or_default();
                    let why = format!("{} answers {} ({})", self.address(), problem.status, problem.code);
                    (asked + full_jitter(Duration::from_secs(1), LONGEST_WAIT, attempt), why)
                }
                Err(error) => {
                    let wait = full_jitter(Duration::from_millis(500), LONGEST_WAIT, attempt);
                    let why = match error.kind {
                        // Whoever restarts a local service has it back in a moment, so a batch goes on asking.
                        Kind::NothingListens if self.service.is_local() => {
                            format!("nothing listens at {}; is `cargo run` serving there?", self.address())
                        }
                        Kind::NoSuchName => {
                            format!("{} does not answer: {error}; is the address right?", self.address())
                        }
                        _ => format!("{} does not answer: {error}", self.address()),
                    };
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
            if begun.elapsed() + wait > self.patience {
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
    ) -> Result<(Head, Bytes), Unreachable> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.address())).header(USER_AGENT, agent());
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
        let request = request.body(Full::new(content)).map_err(|error| Unreachable::lasting(error.to_string()))?;
        let (head, incoming) = self.http.send(request).await?.into_parts();
        Ok((Head { status: head.status.as_u16(), headers: head.headers }, read_body(incoming).await?))
    }
}

/// What comes before the body of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
}

/// A key for a request that is made once.
pub(crate) fn new_key() -> String {
    Uuid::new_v4().to_string()
}

fn agent() -> &'static str {
    concat!("poster/", env!("CARGO_PKG_VERSION"))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn read<T: DeserializeOwned>((headers, bytes): (HeaderMap, Bytes)) -> Result<Answer<T>, Failure> {
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Service(format!("the answer is not one of this API: {error}")))?;
    Ok(Answer { value, retry_after: retry_after(&headers) })
}

/// What the service says is wrong, or the status alone where something else has answered.
pub(crate) fn problem(status: u16, bytes: &[u8]) -> ProblemDetails {
    serde_json::from_slice(bytes).unwrap_or_else(|_| ProblemDetails {
        kind: "about:blank".to_owned(),
        title: String::new(),
        status,
        detail: "The answer is not one of this API. Is the address right?".to_owned(),
        code: "unknown".to_owned(),
        errors: Vec::new(),
    })
}
