//! Has the model paint queued jobs, sets lettering, makes thumbnails, and stores the files.

mod drawing;
mod failure;
mod paint_job;
mod thumbnail;
mod typesetter;

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::Clock;
use shared::aws::messages::{end_of, process_batch};
use shared::aws::{Aws, Images, Metrics, Outbox, Painter, Queue, Table, url_life};
use shared::settings::{Lookup, Settings, SettingsError};

use crate::drawing::Drawing;

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    outbox: Outbox,
    images: Images,
    painter: Painter,
    drawing: Drawing,
    queue: Queue,
    parked: Queue,
    clock: Clock,
    max_attempts: u32,
    in_flight: usize,
    url_life: Duration,
    thumbnails: bool,
}

impl App {
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let timeout = settings.time("MODEL_TIMEOUT_SECONDS", 1..=840, Duration::from_secs(1));
        let app = Self {
            outbox: Outbox::read(aws, &mut settings, table.clone()),
            table: aws.table(table).with_metrics(Metrics::read(aws, &mut settings)),
            images: aws.images(settings.text("IMAGE_BUCKET")),
            painter: aws.painter(settings.text("BEDROCK_REGION"), timeout),
            drawing: Drawing::new(),
            queue: aws.queue(settings.text("QUEUE_URL")),
            parked: aws.queue(settings.text("PARKED_QUEUE_URL")),
            clock,
            max_attempts: settings.number("MAX_ATTEMPTS", 1..=10),
            in_flight: settings.number("POSTERS_IN_FLIGHT", 1..=10) as usize,
            url_life: url_life(&mut settings),
            thumbnails: settings.parse("THUMBNAILS").unwrap_or_default(),
        };
        settings.finish(app)
    }
}

/// Processes one invocation. The response names the tickets to be redelivered.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    let end = end_of(&event.context);
    Ok(process_batch(event.payload, &app.queue, &app.parked, app.in_flight, |received| {
        paint_job::paint(app, received, end)
    })
    .await)
}
