//! Does everything about a batch that takes longer than a request: checks its file and admits the jobs, watches,
//! cancels or retries them, and writes the results.

mod admit_jobs;
mod change_jobs;
mod check_file;
mod lines;
mod step;
mod watch_jobs;
mod write_results;

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::Clock;
use shared::aws::messages::{change_visibility, end_of, process_batch};
use shared::aws::{Aws, BatchFiles, Images, Outbox, Queue, Table};
use shared::settings::{Settings, SettingsError};
use tokio::time::Instant;

/// How long after the end of an invocation its message becomes visible again.
const AFTER_THE_END: Duration = Duration::from_secs(60);

/// How long an invocation works on the jobs of one batch: only a few run at once, so other batches wait for them.
const TURN: Duration = Duration::from_secs(60);

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    outbox: Outbox,
    images: Images,
    files: BatchFiles,
    jobs: Queue,
    batches: Queue,
    parked: Queue,
    clock: Clock,
    deadline: Duration,
    retention: Duration,
    url_life: Duration,
    turn: Duration,
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
        let bucket = settings.text("IMAGE_BUCKET");
        let jobs = settings.text("QUEUE_URL");
        let batches = settings.text("BATCH_QUEUE_URL");
        let parked = settings.text("PARKED_QUEUE_URL");
        let deadline_hours = settings.number("DEADLINE_HOURS", 1..=96);
        let retention_days = settings.number("RETENTION_DAYS", 5..=3650);
        let url_life = settings.number("URL_LIFE_SECONDS", 60..=21_600);
        let outbox = Outbox::read(aws, &mut settings, table.clone());
        let metrics = aws.metrics(&mut settings);
        settings.finish(|| Self {
            table: aws.table(table).with_metrics(metrics),
            outbox,
            images: aws.images(bucket.clone()),
            files: aws.batch_files(bucket),
            jobs: aws.queue(jobs),
            batches: aws.queue(batches),
            parked: aws.queue(parked),
            clock,
            deadline: Duration::from_secs(u64::from(deadline_hours) * 3600),
            retention: Duration::from_secs(u64::from(retention_days) * 86_400),
            url_life: Duration::from_secs(u64::from(url_life)),
            turn: TURN,
        })
    }

    /// Limits the work on one batch to `turn`, for tests.
    pub fn with_turn(self, turn: Duration) -> Self {
        Self { turn, ..self }
    }
}

/// Processes one invocation. The response names the tickets to be redelivered.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    let end = end_of(&event.context);
    hide_until_end(app, &event.payload, end).await;
    Ok(process_batch(event.payload, &app.batches, &app.parked, 1, |received| step::advance(app, received, end)).await)
}

/// Hides the messages no longer than this invocation can last, so that another one takes over soon after a crash. The
/// queue's own visibility timeout is six times that long.
async fn hide_until_end(app: &App, event: &SqsEvent, end: Instant) {
    let timeout = end.saturating_duration_since(Instant::now()) + AFTER_THE_END;
    for message in &event.records {
        change_visibility(&app.batches, message, timeout).await;
    }
}
