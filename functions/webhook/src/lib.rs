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
use shared::settings::{Lookup, Settings, SettingsError};
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
    /// Builds the app; `lookup` finds the settings.
    pub fn new(aws: &Aws, clock: Clock, lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let app = Self {
            log: aws.delivery_log(settings.text("DELIVERIES_TABLE_NAME")),
            queue: aws.queue(settings.text("WEBHOOK_QUEUE_URL")),
            parked: aws.queue(settings.text("PARKED_QUEUE_URL")),
            secret: MasterSecret::new(&settings.text("WEBHOOK_SECRET")),
            client: Client::new(Network::system(), settings.parse("WEBHOOKS") == Some(WebhookPolicy::AlsoLoopback)),
            pauses: Pauses::default(),
            metrics: DeliveryMetrics::read(aws, &mut settings),
            clock,
        };
        settings.finish(app)
    }

    /// Fails if the system has no root certificates, without which nothing can be sent.
    pub fn checked(self) -> Result<Self, Error> {
        client::read_system_roots()?;
        Ok(self)
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
