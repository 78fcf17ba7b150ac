//! Accepts jobs and batches, and retries failed ones: stores a record of each job and sends its ticket.

mod retry_batch;
mod retry_job;
mod submit_batch;
mod submit_job;

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::http::{HeaderName, header};
use lambda_runtime::{Error, LambdaEvent};
use shared::api::{BatchView, JobView, wrong_method};
use shared::aws::gateway::{Answer, Entrance, Request};
use shared::aws::{Aws, Queue, Table};
use shared::batch::{BatchOrder, Counts};
use shared::group::{BatchOrGroup, GroupCursor};
use shared::order::{Model, Order};
use shared::settings::{Settings, SettingsError};
use shared::{Clock, Owner, Problem};

/// When to ask for a new job first.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    queue: Queue,
    clock: Clock,
    model: Model,
    /// How long a job may take after its submission.
    deadline: Duration,
    /// How long jobs and pictures are kept.
    retention: Duration,
    entrance: Entrance,
}

impl App {
    /// Builds the app from the environment of a Lambda function.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?)
    }

    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let queue = settings.text("QUEUE_URL");
        let model = settings.parse::<Model>("MODEL_ID");
        let deadline_hours = settings.number("DEADLINE_HOURS", 1..=96);
        let retention_days = settings.number("RETENTION_DAYS", 5..=3650);
        let entrance = Entrance::read(&mut settings);
        let metrics = aws.metrics(&mut settings);
        settings.finish(|| Self {
            table: aws.table(table).with_metrics(metrics),
            queue: aws.queue(queue),
            clock,
            model: model.unwrap_or(Model::Core),
            deadline: Duration::from_secs(u64::from(deadline_hours) * 3600),
            retention: Duration::from_secs(u64::from(retention_days) * 86_400),
            entrance,
        })
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
        ("POST", "/batches/{id}/retry") => retry_batch(app, request, &owner, trace).await,
        (_, path) => Err(wrong_method(path)),
    }
}

async fn post_job(app: &App, request: &Request, owner: Owner, trace: Option<String>) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let order = Order::parse(request.json()?, "", app.model).map_err(Problem::faults)?;
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
    let order = BatchOrder::parse(request.json()?, app.model).map_err(Problem::faults)?;
    if order.group.is_some() && key.is_none() {
        // Without a key, nobody could complete a submission that crashed, and its group would never end.
        return Err(Problem::field("/group", "requires the header Idempotency-Key".to_owned()));
    }
    let submitted = submit_batch::submit(app, owner, order, key.as_ref(), trace).await?;
    let counts = Counts::of(submitted.states);
    let view = BatchView::new(&BatchOrGroup::Batch(submitted.batch), counts, &request.base_url());
    let view = BatchView { jobs: Some(submitted.jobs), ..view };
    Ok(accepted(Answer::json(202, &view), &view.links.this, submitted.replayed))
}

async fn retry_batch(app: &App, request: &Request, owner: &Owner, trace: Option<String>) -> Result<Answer, Problem> {
    let query = request.query(&["cursor"])?;
    let key = request.idempotency_key()?;
    let id = request.id()?;
    let cursor = GroupCursor::parse(query.get("cursor"))?;
    let (batch, counts, next_cursor) = retry_batch::retry(app, id, owner, key.as_ref(), cursor, trace).await?;
    let view = BatchView { next_cursor, ..BatchView::new(&batch, counts, &request.base_url()) };
    Ok(accepted(Answer::json(202, &view), &view.links.this, false))
}

/// Adds where and when to ask for the result, and whether the request was a repeat.
fn accepted(answer: Answer, location: &str, replayed: bool) -> Answer {
    let answer = answer.header(header::LOCATION, location).retry_after(FIRST_LOOK);
    if replayed { answer.header(HeaderName::from_static("idempotency-replayed"), "true") } else { answer }
}
