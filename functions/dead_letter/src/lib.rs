//! Ends the jobs whose tickets moved to the dead-letter queue.

mod end_job;

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::Clock;
use shared::aws::messages::process_batch;
use shared::aws::{Aws, Images, Outbox, Queue, Table};
use shared::settings::{Settings, SettingsError};

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
    /// Builds the app from the environment of a Lambda function.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?)
    }

    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let bucket = settings.text("IMAGE_BUCKET");
        let queue = settings.text("DEAD_LETTER_QUEUE_URL");
        let parked = settings.text("PARKED_QUEUE_URL");
        let url_life = settings.number("URL_LIFE_SECONDS", 60..=21_600);
        let outbox = Outbox::read(aws, &mut settings, table.clone());
        let metrics = aws.metrics(&mut settings);
        settings.finish(|| Self {
            table: aws.table(table).with_metrics(metrics),
            outbox,
            images: aws.images(bucket),
            queue: aws.queue(queue),
            parked: aws.queue(parked),
            clock,
            url_life: Duration::from_secs(u64::from(url_life)),
        })
    }
}

/// Processes one invocation. The response names the tickets to be redelivered.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(process_batch(event.payload, &app.queue, &app.parked, IN_FLIGHT, |received| end_job::end(app, received)).await)
}
