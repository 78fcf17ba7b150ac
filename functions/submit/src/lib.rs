//! Takes jobs in: records each in the table and sends a ticket for it.

mod submit_job;

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::http::{HeaderName, header};
use lambda_runtime::{Error, LambdaEvent};
use shared::api::JobView;
use shared::aws::gateway::{Answer, Request};
use shared::aws::{Aws, Queue, Table};
use shared::order::{Model, Order};
use shared::settings::{Settings, SettingsError};
use shared::{Clock, Problem};

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
}

impl App {
    /// The function as Lambda starts it.
    ///
    /// # Errors
    /// When settings are missing or bad.
    pub async fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env().await?, Clock::system(), &|name| std::env::var(name).ok())?)
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
        let deadline_hours = settings.number("DEADLINE_HOURS", 1..=168);
        let retention_days = settings.number("RETENTION_DAYS", 8..=3650);
        settings.finish(|| Self {
            table: aws.table(table),
            queue: aws.queue(queue),
            clock,
            model: model.unwrap_or(Model::Core),
            deadline: Duration::from_secs(u64::from(deadline_hours) * 3600),
            retention: Duration::from_secs(u64::from(retention_days) * 86_400),
        })
    }
}

/// Serves one request of API Gateway.
///
/// # Errors
/// None: whatever goes wrong is an answer to the caller.
pub async fn handle(app: &App, event: LambdaEvent<ApiGatewayProxyRequest>) -> Result<ApiGatewayProxyResponse, Error> {
    let request = Request::new(event.payload);
    Ok(Answer::from(post_job(app, &request, event.context.xray_trace_id).await).into())
}

async fn post_job(app: &App, request: &Request, trace: Option<String>) -> Result<Answer, Problem> {
    let key = request.idempotency_key()?;
    let order = Order::parse(request.json()?, "", app.model).map_err(Problem::InvalidRequest)?;
    let keyed = key.is_some();
    let submitted = app.submit(request.owner(), order, key.as_ref(), trace).await?;
    let view = JobView::new(&submitted.job, &request.base_url());
    let answer = Answer::json(202, &view).header(header::LOCATION, &view.links.this).retry_after(FIRST_LOOK);
    Ok(if keyed && submitted.replayed {
        answer.header(HeaderName::from_static("idempotency-replayed"), "true")
    } else {
        answer
    })
}
