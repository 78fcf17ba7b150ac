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
use shared::aws::{Aws, BatchFiles, Images, Metrics, Outbox, Queue, Table, url_life};
use shared::job::Terms;
use shared::settings::{Lookup, Settings, SettingsError};
use tokio::time::Instant;

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
    terms: Terms,
    url_life: Duration,
    turn: Duration,
}

impl App {
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let (table, bucket) = (settings.text("TABLE_NAME"), settings.text("IMAGE_BUCKET"));
        let app = Self {
            outbox: Outbox::read(aws, &mut settings, table.clone()),
            table: aws.table(table).with_metrics(Metrics::read(aws, &mut settings)),
            images: aws.images(bucket.clone()),
            files: aws.batch_files(bucket),
            jobs: aws.queue(settings.text("QUEUE_URL")),
            batches: aws.queue(settings.text("BATCH_QUEUE_URL")),
            parked: aws.queue(settings.text("PARKED_QUEUE_URL")),
            clock,
            terms: Terms::read(&mut settings),
            url_life: url_life(&mut settings),
            turn: TURN,
        };
        settings.finish(app)
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

/// Hides the messages no longer than this invocation can last, so that another one takes over soon after a crash.
async fn hide_until_end(app: &App, event: &SqsEvent, end: Instant) {
    let timeout = end.saturating_duration_since(Instant::now()) + AFTER_THE_END;
    for message in &event.records {
        change_visibility(&app.batches, message, timeout).await;
    }
}
