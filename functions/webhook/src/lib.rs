//! Sends events to the endpoints of callers, in the way of Standard Webhooks 1.0.

mod address;
mod client;
mod deliver;
mod pauses;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::Clock;
use shared::aws::messages::process_batch;
use shared::aws::{Aws, DeliveryLog, DeliveryMetrics, Queue};
use shared::settings::{Settings, SettingsError};
use shared::webhook::WebhookPolicy;
use shared::webhook_secret::MasterSecret;

pub use self::client::{Client, Network, TIMEOUT};
use self::pauses::Pauses;

/// All deliveries of an invocation at once, so that an endpoint that hangs delays no other.
const IN_FLIGHT: usize = 10;

/// The function's clients and settings.
#[derive(Clone, Debug)]
pub struct App {
    log: DeliveryLog,
    queue: Queue,
    parked: Queue,
    secret: MasterSecret,
    client: Client,
    pauses: Pauses,
    metrics: DeliveryMetrics,
    clock: Clock,
}

impl App {
    /// Builds the app from the environment of a Lambda function. Fails if the system has no root certificates.
    pub fn from_env() -> Result<Self, Error> {
        let app = Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?;
        client::read_system_roots()?;
        Ok(app)
    }

    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let log = settings.text("DELIVERIES_TABLE_NAME");
        let queue = settings.text("WEBHOOK_QUEUE_URL");
        let parked = settings.text("PARKED_QUEUE_URL");
        let secret = settings.text("WEBHOOK_SECRET");
        let allows_loopback = settings.parse("WEBHOOKS") == Some(WebhookPolicy::AlsoLoopback);
        let metrics = aws.delivery_metrics(&mut settings);
        settings.finish(|| Self {
            log: aws.delivery_log(log),
            queue: aws.queue(queue),
            parked: aws.queue(parked),
            secret: MasterSecret::new(&secret),
            client: Client::new(Network::system(), allows_loopback),
            pauses: Pauses::default(),
            metrics,
            clock,
        })
    }

    /// Sends by this client, so that a test can replace the network.
    pub fn with_client(self, client: Client) -> Self {
        Self { client, ..self }
    }
}

/// Processes one invocation. The response names the messages to be redelivered.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(process_batch(event.payload, &app.queue, &app.parked, IN_FLIGHT, |received| deliver::deliver(app, received))
        .await)
}
