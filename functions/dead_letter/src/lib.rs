//! Ends the jobs whose tickets moved to the dead-letter queue.

mod end_job;

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::Clock;
use shared::aws::messages::process_batch;
use shared::aws::{Aws, Images, Metrics, Outbox, Queue, Table, url_life};
use shared::settings::{Lookup, Settings, SettingsError};

const IN_FLIGHT: usize = 10;

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    outbox: Outbox,
    images: Images,
    queue: Queue,
    parked: Queue,
    clock: Clock,
    url_life: Duration,
}

impl App {
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let app = Self {
            outbox: Outbox::read(aws, &mut settings, table.clone()),
            table: aws.table(table).with_metrics(Metrics::read(aws, &mut settings)),
            images: aws.images(settings.text("IMAGE_BUCKET")),
            queue: aws.queue(settings.text("DEAD_LETTER_QUEUE_URL")),
            parked: aws.queue(settings.text("PARKED_QUEUE_URL")),
            clock,
            url_life: url_life(&mut settings),
        };
        settings.finish(app)
    }
}

/// Processes one invocation. The response names the tickets to be redelivered.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(process_batch(event.payload, &app.queue, &app.parked, IN_FLIGHT, |received| end_job::end(app, received)).await)
}
