//! Tells owners about their jobs.

mod look;

use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use lambda_runtime::{Error, LambdaEvent};
use shared::api::JobView;
use shared::aws::gateway::{Answer, Request};
use shared::aws::{Aws, Images, Table};
use shared::settings::{Settings, SettingsError};
use shared::{Clock, JobId, Problem};

/// How soon an unfinished job is worth another look.
const NEXT_LOOK: Duration = Duration::from_secs(2);

/// What the function works with, made once at its start.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    images: Images,
    clock: Clock,
    /// How long a presigned URL works.
    url_life: Duration,
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
        let bucket = settings.text("IMAGE_BUCKET");
        let url_life = settings.number("URL_LIFE_SECONDS", 60..=604_800);
        settings.finish(|| Self {
            table: aws.table(table),
            images: aws.images(bucket),
            clock,
            url_life: Duration::from_secs(u64::from(url_life)),
        })
    }
}

/// Serves one request of API Gateway.
///
/// # Errors
/// None: whatever goes wrong is an answer to the caller.
pub async fn handle(app: &App, event: LambdaEvent<ApiGatewayProxyRequest>) -> Result<ApiGatewayProxyResponse, Error> {
    Ok(Answer::from(get_job(app, &Request::new(event.payload)).await).into())
}

async fn get_job(app: &App, request: &Request) -> Result<Answer, Problem> {
    // A name that no job can have is answered like one that no job has, without asking the table.
    let id = request.path_parameter("id").parse::<JobId>().map_err(|_| Problem::NotFound)?;
    let job = app.look(id, &request.owner()).await?;
    let answer = Answer::json(200, &JobView::new(&job, &request.base_url()));
    Ok(if job.finished_at().is_none() { answer.retry_after(NEXT_LOOK) } else { answer })
}
