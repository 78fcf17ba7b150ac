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
use shared::aws::{Aws, Images, Outbox, Painter, Queue, Table};
use shared::settings::{Settings, SettingsError};

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
    /// Builds the app from the environment of a Lambda function.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?)
    }

    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let bucket = settings.text("IMAGE_BUCKET");
        let queue = settings.text("QUEUE_URL");
        let parked = settings.text("PARKED_QUEUE_URL");
        let region = settings.text("BEDROCK_REGION");
        let timeout = settings.number("MODEL_TIMEOUT_SECONDS", 1..=840);
        let max_attempts = settings.number("MAX_ATTEMPTS", 1..=10);
        let in_flight = settings.number("POSTERS_IN_FLIGHT", 1..=10);
        let url_life = settings.number("URL_LIFE_SECONDS", 60..=21_600);
        let thumbnails = settings.parse::<bool>("THUMBNAILS").unwrap_or_default();
        let outbox = Outbox::read(aws, &mut settings, table.clone());
        let metrics = aws.metrics(&mut settings);
        settings.finish(|| Self {
            table: aws.table(table).with_metrics(metrics),
            outbox,
            images: aws.images(bucket),
            painter: aws.painter(region, Duration::from_secs(u64::from(timeout))),
            drawing: Drawing::new(),
            queue: aws.queue(queue),
            parked: aws.queue(parked),
            clock,
            max_attempts,
            in_flight: in_flight as usize,
            url_life: Duration::from_secs(u64::from(url_life)),
            thumbnails,
        })
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
