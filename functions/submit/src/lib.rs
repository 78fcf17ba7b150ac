//! Accepts jobs and batches, and retries failed ones: stores a record of each job and sends its ticket.

mod retry_batch;
mod retry_job;
mod start_batch;
mod submit_batch;
mod submit_file_batch;
mod submit_job;

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::http::header;
use lambda_runtime::{Error, LambdaEvent};
use shared::api::{BatchView, JobView, UploadView, wrong_method};
use shared::aws::gateway::{Answer, Entrance, Request, found};
use shared::aws::{Aws, BatchFiles, Metrics, Outbox, Queue, Table};
use shared::batch::{BatchOrder, FileBatchOrder};
use shared::job::Terms;
use shared::order::{Model, Order};
use shared::settings::{Lookup, Settings, SettingsError};
use shared::{Batch, BatchId, Clock, Owner, Problem};

const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    outbox: Outbox,
    queue: Queue,
    batches: Queue,
    files: BatchFiles,
    clock: Clock,
    model: Model,
    terms: Terms,
    entrance: Entrance,
}

impl App {
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let app = Self {
            outbox: Outbox::read(aws, &mut settings, table.clone()),
            table: aws.table(table).with_metrics(Metrics::read(aws, &mut settings)),
            queue: aws.queue(settings.text("QUEUE_URL")),
            batches: aws.queue(settings.text("BATCH_QUEUE_URL")),
            files: aws.batch_files(settings.text("IMAGE_BUCKET")),
            clock,
            model: settings.parse("MODEL_ID").unwrap_or(Model::Core),
            terms: Terms::read(&mut settings),
            entrance: Entrance::read(&mut settings),
        };
        settings.finish(app)
    }
}

/// Serves one request. Every error becomes a response.
pub async fn handle(app: &App, event: LambdaEvent<ApiGatewayProxyRequest>) -> Result<ApiGatewayProxyResponse, Error> {
    let request = Request::new(event.payload, app.entrance.clone());
    let trace = event.context.xray_trace_id;
    Ok(app.entrance.respond(answer(app, &request, trace).await))
}

async fn answer(app: &App, request: &Request, trace: Option<String>) -> Result<Answer, Problem> {
    let owner = request.owner()?;
    match request.route() {
        ("POST", "/jobs") => post_job(app, request, owner, trace).await,
        ("POST", "/jobs/{id}/retry") => retry_job(app, request, &owner, trace).await,
        ("POST", "/batches") => post_batch(app, request, owner, trace).await,
        ("POST", "/batches/{id}/start") => start_batch(app, request, &owner).await,
        ("POST", "/batches/{id}/retry") => retry_batch(app, request, &owner).await,
        (_, path) => Err(wrong_method(path)),
    }
}

async fn post_job(app: &App, request: &Request, owner: Owner, trace: Option<String>) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let order = Order::parse(request.json()?, "", app.model).map_err(Problem::faults)?;
    app.outbox.policy().check(order.webhook.as_ref())?;
    let keyed = key.is_some();
    let submitted = submit_job::submit(app, owner, order, key.as_ref(), trace).await?;
    let view = JobView::new(&submitted.job, &request.base_url());
    Ok(accepted(Answer::json(202, &view), &view.links.this, keyed && submitted.replayed))
}

async fn retry_job(app: &App, request: &Request, owner: &Owner, trace: Option<String>) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let id = request.id()?;
    let submitted = retry_job::retry(app, id, owner, key.as_ref(), trace).await?;
    let view = JobView::new(&submitted.job, &request.base_url());
    Ok(accepted(Answer::json(202, &view), &view.links.this, submitted.replayed))
}

async fn post_batch(app: &App, request: &Request, owner: Owner, trace: Option<String>) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let body = request.json()?;
    if FileBatchOrder::is_meant(&body) {
        let order = FileBatchOrder::parse(body, app.model).map_err(Problem::faults)?;
        app.outbox.policy().check(order.webhook.as_ref())?;
        let submitted = submit_file_batch::submit(app, owner, order, key.as_ref(), request.base_url()).await?;
        let upload = submitted.upload.map(UploadView::new);
        let view = BatchView { upload, ..view_of(app, request, &submitted.batch) };
        let answer = located(Answer::json(202, &view), &view.links.this, submitted.replayed);
        // Unless it is active, nothing changes before the caller acts.
        return Ok(if submitted.batch.is_active() { answer.retry_after(FIRST_LOOK) } else { answer });
    }
    let order = BatchOrder::parse(body, app.model).map_err(Problem::faults)?;
    app.outbox.policy().check(order.webhook.as_ref())?;
    let submitted = submit_batch::submit(app, owner, order, key.as_ref(), request.base_url(), trace).await?;
    let view = BatchView { jobs: Some(submitted.jobs), ..view_of(app, request, &submitted.batch) };
    Ok(accepted(Answer::json(202, &view), &view.links.this, submitted.replayed))
}

async fn start_batch(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    request.idempotency_key()?;
    let batch = start_batch::start(app, request.id()?, owner).await?;
    let view = view_of(app, request, &batch);
    Ok(accepted(Answer::json(202, &view), &view.links.this, false))
}

async fn retry_batch(app: &App, request: &Request, owner: &Owner) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let batch = owned_batch(app, request.id()?, owner).await?;
    let (batch, replayed) = retry_batch::retry(app, batch, key.as_ref()).await?;
    let view = view_of(app, request, &batch);
    Ok(accepted(Answer::json(202, &view), &view.links.this, replayed))
}

async fn owned_batch(app: &App, id: BatchId, owner: &Owner) -> Result<Batch, Problem> {
    found(id, app.table.get_owned_batch(id, owner, app.clock.now()).await)
}

fn view_of(app: &App, request: &Request, batch: &Batch) -> BatchView {
    let now = app.clock.now();
    BatchView::new(batch, batch.last_counts(now), now, &request.base_url())
}

fn accepted(answer: Answer, location: &str, replayed: bool) -> Answer {
    located(answer, location, replayed).retry_after(FIRST_LOOK)
}

fn located(answer: Answer, location: &str, replayed: bool) -> Answer {
    answer.header(header::LOCATION, location).repeated(replayed)
}
