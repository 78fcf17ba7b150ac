//! Takes jobs in, one by one and in batches, and takes failed ones in again: records each in the table and sends a ticket
//! for it.

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

/// How soon a new job is worth a first look.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What the function works with, made once at its start.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    queue: Queue,
    clock: Clock,
    /// The model that paints when a request names none.
    model: Model,
    /// How long after its submission a job may wait.
    deadline: Duration,
    /// How long a job and its picture are kept.
    retention: Duration,
    entrance: Entrance,
}

impl App {
    /// The function as Lambda starts it.
    ///
    /// # Errors
    /// When settings are missing or bad.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?)
    }

    /// The function with these connections, this clock, and the settings that `lookup` finds.
    ///
    /// # Errors
    /// When settings are missing or bad.
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

/// Serves one request of API Gateway.
///
/// # Errors
/// None: whatever goes wrong is an answer to the caller.
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
    let id = request.path_parameter("id").parse().map_err(|_| Problem::NotFound)?;
    let submitted = retry_job::retry(app, id, owner, key.as_ref(), trace).await?;
    let view = JobView::new(&submitted.job, &request.base_url());
    Ok(accepted(Answer::json(202, &view), &view.links.this, submitted.replayed))
}

async fn post_batch(app: &App, request: &Request, owner: Owner, trace: Option<String>) -> Result<Answer, Problem> {
    request.query(&[])?;
    let key = request.idempotency_key()?;
    let order = BatchOrder::parse(request.json()?, app.model).map_err(Problem::faults)?;
    if order.group.is_some() && key.is_none() {
        // Without a key nobody could finish a part whose submission died, and its group would wait for it for ever.
        return Err(Problem::field("/group", "needs the header Idempotency-Key".to_owned()));
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
    let id = request.path_parameter("id").parse().map_err(|_| Problem::NotFound)?;
    let cursor = GroupCursor::parse(query.get("cursor"))?;
    let (batch, counts, next_cursor) = retry_batch::retry(app, id, owner, key.as_ref(), cursor, trace).await?;
    let view = BatchView { next_cursor, ..BatchView::new(&batch, counts, &request.base_url()) };
    Ok(accepted(Answer::json(202, &view), &view.links.this, false))
}

/// The answer with what every accepted request is told: where to look, when, and whether it was accepted before.
fn accepted(answer: Answer, location: &str, replayed: bool) -> Answer {
    let answer = answer.header(header::LOCATION, location).retry_after(FIRST_LOOK);
    if replayed { answer.header(HeaderName::from_static("idempotency-replayed"), "true") } else { answer }
}
