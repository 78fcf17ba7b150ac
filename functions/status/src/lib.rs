//! Shows owners their jobs and batches, and cancels them.

mod cancel_batch;
mod cancel_job;
mod get_batch;
mod get_job;
mod html_page;
mod list_batches;
mod list_deliveries;
mod list_jobs;
mod pace;
mod replay_deliveries;
mod webhook_secret;

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::http::{HeaderName, header};
use lambda_runtime::{Error, LambdaEvent};
use sha2::{Digest, Sha256};
use shared::api::{BatchView, DeliveryView, DocumentView, HealthView, JobView, QueueHealthView, wrong_method};
use shared::aws::gateway::{Answer, Entrance, Request, found, log_failure};
use shared::aws::{Aws, BatchFiles, DeliveryLog, Document, Images, Metrics, Outbox, Queue, Table, url_life};
use shared::batch::Counts;
use shared::cursor::CursorKey;
use shared::delivery::DeliveryId;
use shared::replay::ReplayRequest;
use shared::settings::{Lookup, Settings, SettingsError};
use shared::webhook::WebhookPolicy;
use shared::webhook_secret::MasterSecret;
use shared::{Batch, Clock, Job, JobState, Owner, Problem};

use crate::html_page::PAGE;
use crate::list_jobs::{Filter, Listed, Range};
pub use crate::pace::LONGEST_PAINTING;
use crate::pace::Pace;
use crate::replay_deliveries::Replayed;

/// How often a client should poll a batch until its estimated end.
const LOOKS: u64 = 4;

/// The wait of a client for a step of `batch`, as a part of the batch's age: in the end, `batch` looks no more often.
const PART_OF_AGE: u32 = 50;

/// The function's clients and settings.
#[derive(Debug)]
pub struct App {
    table: Table,
    outbox: Outbox,
    images: Images,
    files: BatchFiles,
    batches: Queue,
    clock: Clock,
    cursors: CursorKey,
    pace: Pace,
    url_life: Duration,
    /// Zero disables waiting.
    max_wait: Duration,
    page: bool,
    entrance: Entrance,
    /// `None` if the service sends no webhooks.
    webhooks: Option<Webhooks>,
}

#[derive(Debug)]
struct Webhooks {
    log: DeliveryLog,
    queue: Queue,
    master: MasterSecret,
}

impl Webhooks {
    fn read(aws: &Aws, settings: &mut Settings<'_>) -> Self {
        Self {
            log: aws.delivery_log(settings.text("DELIVERIES_TABLE_NAME")),
            queue: aws.queue(settings.text("WEBHOOK_QUEUE_URL")),
            master: MasterSecret::new(&settings.text("WEBHOOK_SECRET")),
        }
    }
}

impl App {
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let (table, bucket) = (settings.text("TABLE_NAME"), settings.text("IMAGE_BUCKET"));
        let outbox = Outbox::read(aws, &mut settings, table.clone());
        let at_once = settings.number("MAXIMUM_CONCURRENCY", 2..=1000) * settings.number("POSTERS_IN_FLIGHT", 1..=10);
        let app = Self {
            table: aws.table(table).with_metrics(Metrics::read(aws, &mut settings)),
            images: aws.images(bucket.clone()),
            files: aws.batch_files(bucket),
            batches: aws.queue(settings.text("BATCH_QUEUE_URL")),
            clock,
            cursors: CursorKey::new(&settings.text("CURSOR_KEY")),
            pace: Pace::new(aws.queue(settings.text("QUEUE_URL")), at_once),
            url_life: url_life(&mut settings),
            // API Gateway waits 29 seconds.
            max_wait: settings.time("MAX_WAIT_SECONDS", 0..=20, Duration::from_secs(1)),
            page: settings.parse("PAGE").unwrap_or_default(),
            entrance: Entrance::read(&mut settings),
            webhooks: (outbox.policy() != WebhookPolicy::Off).then(|| Webhooks::read(aws, &mut settings)),
            outbox,
        };
        settings.finish(app)
    }
}

/// Serves one request. Every error becomes a response.
pub async fn handle(app: &App, event: LambdaEvent<ApiGatewayProxyRequest>) -> Result<ApiGatewayProxyResponse, Error> {
    let request = Request::new(event.payload, app.entrance.clone());
    let answer = match request.route() {
        (method, "/") => get_page(app, &request, method).await,
        ("GET", "/health") => health(app, &request).await,
        _ => answer_owner(app, &request).await,
    };
    Ok(app.entrance.respond(answer))
}

async fn answer_owner(app: &App, request: &Request) -> Result<Answer, Problem> {
    let owner = &request.owner()?;
    match request.route() {
        ("GET", "/jobs") => list_jobs(app, request, owner).await,
        ("GET", "/jobs/{id}") => get_job(app, request, owner).await,
        ("GET", "/jobs/{id}/image") => get_image(app, request, owner).await,
        ("POST", "/jobs/{id}/cancel") => cancel_job(app, request, owner).await,
        ("GET", "/batches") => list_batches(app, request, owner).await,
        ("GET", "/batches/{id}") => get_batch(app, request, owner).await,
        ("GET", "/batches/{id}/jobs") => list_batch(app, request, owner).await,
        ("GET", "/batches/{id}/faults") => get_document(app, request, owner, faults_of).await,
        ("GET", "/batches/{id}/results") => get_document(app, request, owner, results_of).await,
        ("POST", "/batches/{id}/cancel") => cancel_batch(app, request, owner).await,
        (_, "/webhook-secret" | "/webhook-secret/rotate")
        | (_, "/deliveries" | "/deliveries/replay" | "/deliveries/{id}" | "/deliveries/{id}/replay") => {
            let webhooks = app.webhooks.as_ref().ok_or(Problem::NoSuchRoute)?;
            answer_webhooks(app, webhooks, request, owner).await
        }
        (_, path) => Err(wrong_method(path)),
    }
}

async fn answer_webhooks(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    match request.route() {
        ("GET", "/webhook-secret") => get_secret(app, webhooks, request, owner).await,
        ("POST", "/webhook-secret/rotate") => rotate_secret(app, webhooks, request, owner).await,
        ("GET", "/deliveries") => list_deliveries(app, webhooks, request, owner).await,
        ("GET", "/deliveries/{id}") => get_delivery(app, webhooks, request, owner).await,
        ("POST", "/deliveries/{id}/replay") => replay_delivery(app, webhooks, request, owner).await,
        ("POST", "/deliveries/replay") => replay_deliveries(app, webhooks, request, owner).await,
        (_, path) => Err(wrong_method(path)),
    }
}

/// The query is ignored, because links often have one.
async fn get_page(app: &App, request: &Request, method: &str) -> Result<Answer, Problem> {
    if !app.page {
        return Err(Problem::NoSuchRoute);
    }
    if method != "GET" {
        return Err(wrong_method("/"));
    }
    let pictures = app.images.origin().await.map_err(log_failure("page"))?;
    Ok(PAGE.answer(request, &pictures))
}

async fn get_job(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let id = request.id()?;
    let wait = request.wait().map(|wait| wait.min(app.max_wait)).filter(|wait| !wait.is_zero());
    let job = get_job::get(app, id, owner, wait.unwrap_or_default()).await?;
    let etag = etag(&job);
    let answer = if request.has(&etag) {
        Answer::empty(304)
    } else {
        let view =
            JobView { queue: get_job::place_in_queue(app, &job).await?, ..JobView::new(&job, &request.base_url()) };
        Answer::json(200, &view)
    };
    let answer = answer.header(header::ETAG, etag);
    let answer = match wait {
        Some(wait) => answer.header(HeaderName::from_static("preference-applied"), format!("wait={}", wait.as_secs())),
        None => answer,
    };
    match get_job::next_look(app, &job).await? {
        Some(next_look) => Ok(answer.retry_after(next_look)),
        None => Ok(answer),
    }
}

async fn get_image(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    let mut query = request.query(&["variant"])?;
    let variant = query.take("variant", str::parse).unwrap_or_default();
    query.finish(())?;
    let url = get_job::image_url(app, request.id()?, owner, variant).await?;
    Ok(Answer::empty(302).header(header::LOCATION, url))
}

async fn cancel_job(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    request.idempotency_key()?;
    let job = cancel_job::cancel(app, request.id()?, owner).await?;
    Ok(Answer::json(200, &JobView::new(&job, &request.base_url())))
}

async fn list_jobs(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    let filter = Filter::of(request)?;
    let base = request.base_url();
    let listed = list_jobs::of_owner(app, owner, &filter, &base).await?;
    Ok(page(request, &format!("{base}/jobs"), &filter, &listed))
}

async fn list_batches(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    let mut query = request.query(&["limit", "cursor"])?;
    let range = Range::of(&mut query);
    query.finish(())?;
    let base = request.base_url();
    let batches = list_batches::list(app, owner, &range, &base).await?;
    let next = batches.next_cursor.as_ref().map(|cursor| format!("{base}/batches?{}", range.query(cursor)));
    Ok(with_next(Answer::json(200, &batches), next))
}

async fn list_batch(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    let filter = Filter::of(request)?;
    let batch = get_batch::get(app, request.id()?, owner).await?;
    let base = request.base_url();
    let listed = list_jobs::of_batch(app, &batch, &filter, &base).await?;
    Ok(page(request, &format!("{base}/batches/{}/jobs", batch.id), &filter, &listed))
}

async fn get_batch(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let batch = get_batch::get(app, request.id()?, owner).await?;
    let counts = get_batch::count(app, &batch).await?;
    Ok(batch_answer(app, request, 200, &batch, counts))
}

fn faults_of(batch: &Batch) -> Result<Document, Problem> {
    batch.input().ok_or(Problem::NotFromFile)?;
    if batch.has_faults() { Ok(Document::Faults) } else { Err(Problem::NoFaults) }
}

fn results_of(batch: &Batch) -> Result<Document, Problem> {
    batch.complete_results().map(Document::Results).ok_or(Problem::NoResults)
}

/// Redirects to one of the service's own files about a batch. With `?redirect=false` the answer has the URL instead,
/// because a browser that follows a redirect sends the caller's API key along.
async fn get_document(
    app: &App,
    request: &Request,
    owner: &Owner,
    document_of: fn(&Batch) -> Result<Document, Problem>,
) -> Result<Answer, Problem> {
    let mut query = request.query(&["redirect"])?;
    let redirect = query.take("redirect", |text| text.parse().map_err(|_| "must be true or false".to_owned()));
    let redirect = query.finish(redirect.unwrap_or(true))?;
    let batch = get_batch::get(app, request.id()?, owner).await?;
    let (id, document) = (batch.id, document_of(&batch)?);
    let signed = app.files.sign(id, document, app.clock.now(), app.url_life).await.map_err(log_failure(id))?;
    Ok(match redirect {
        true => Answer::empty(302).header(header::LOCATION, signed.url),
        false => Answer::json(200, &DocumentView { url: signed.url, expires_at: signed.expires_at }),
    })
}

async fn cancel_batch(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    request.idempotency_key()?;
    let batch = get_batch::get(app, request.id()?, owner).await?;
    let batch = cancel_batch::cancel(app, batch).await?;
    let counts = batch.last_counts(app.clock.now());
    Ok(batch_answer(app, request, 202, &batch, counts))
}

async fn get_secret(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    Ok(Answer::json(200, &webhook_secret::get(app, webhooks, owner).await?))
}

async fn rotate_secret(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let (view, repeated) = webhook_secret::rotate(app, webhooks, owner, key.as_ref()).await?;
    Ok(Answer::json(200, &view).repeated(repeated))
}

async fn list_deliveries(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    let filter = list_deliveries::Filter::of(request)?;
    let base = request.base_url();
    let deliveries = list_deliveries::list(app, &webhooks.log, owner, &filter, &base).await?;
    let next = deliveries.next_cursor.as_ref().map(|cursor| format!("{base}/deliveries?{}", filter.query(cursor)));
    Ok(with_next(Answer::json(200, &deliveries), next))
}

async fn get_delivery(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let id: DeliveryId = request.id()?;
    let delivery = found(id, webhooks.log.get_owned(id, owner, app.clock.now()).await)?;
    Ok(Answer::json(200, &DeliveryView::new(&delivery, &request.base_url())))
}

async fn replay_delivery(app: &App, webhooks: &Webhooks, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let Replayed { delivery, repeated, .. } =
        replay_deliveries::replay(app, webhooks, owner, request.id()?, key.as_ref()).await?;
    let view = DeliveryView::new(&delivery, &request.base_url());
    Ok(Answer::json(202, &view).header(header::LOCATION, &view.links.this).repeated(repeated))
}

async fn replay_deliveries(
    app: &App,
    webhooks: &Webhooks,
    request: &Request,
    owner: &Owner,
) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let wanted = ReplayRequest::parse(request.json()?)?;
    Ok(Answer::json(202, &replay_deliveries::replay_all(app, webhooks, owner, &wanted, key.as_ref()).await?))
}

fn batch_answer(app: &App, request: &Request, status: u16, batch: &Batch, counts: Counts) -> Answer {
    let now = app.clock.now();
    let answer = Answer::json(status, &BatchView::new(batch, counts, now, &request.base_url()));
    if !batch.is_active() {
        return answer;
    }
    let left = (counts.queued + counts.running) as u64;
    // Without a job left, its file is checked or its results are written, and an old batch is looked at rarely.
    let wait = if left == 0 { batch.age(now) / PART_OF_AGE } else { app.pace.time_for(left.div_ceil(LOOKS)) };
    answer.retry_after(wait)
}

async fn health(app: &App, request: &Request) -> Result<Answer, Problem> {
    request.query(&[])?;
    let depth = app.pace.depth().await.map_err(log_failure("health"))?;
    let health = HealthView {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        queue: QueueHealthView {
            waiting: depth.waiting,
            in_flight: depth.in_flight,
            estimated_wait_seconds: app.pace.time_for(depth.waiting).as_secs(),
        },
    };
    Ok(Answer::json(200, &health))
}

fn page(request: &Request, list: &str, filter: &Filter, Listed { jobs, etag }: &Listed) -> Answer {
    if request.has(etag) {
        return Answer::empty(304).header(header::ETAG, etag);
    }
    let next = jobs.next_cursor.as_ref().map(|cursor| format!("{list}?{}", filter.query(cursor)));
    with_next(Answer::json(200, jobs).header(header::ETAG, etag), next)
}

fn with_next(answer: Answer, next: Option<String>) -> Answer {
    match next {
        Some(next) => answer.header(header::LINK, format!("<{next}>; rel=\"next\"")),
        None => answer,
    }
}

/// Changes with the job's record and its URL. The ETag is weak, because the estimates also change.
fn etag(job: &Job) -> String {
    let url = match &job.state {
        JobState::Succeeded { image, .. } => image.url.expires_at.ms(),
        _ => 0,
    };
    format!("W/\"{}-{url}\"", job.fence)
}

fn digest(text: &str) -> String {
    base64_simd::STANDARD.encode_to_string(Sha256::digest(text))
}
