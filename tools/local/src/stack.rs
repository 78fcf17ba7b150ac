//! Starts everything, connects it, and stops it again.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, HttpClient, ProvideCredentials, SharedCredentialsProvider};
use axum::middleware::from_fn;
use futures_util::future::FutureExt;
use serde::{Deserialize, Serialize};
use shared::Clock;
use shared::aws::{Aws, Endpoints, http_client};
use shared::settings::SettingsError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bedrock::{Bedrock, Behavior, Painter};
use crate::data::Data;
use crate::gateway::{self, ApiKeys};
use crate::handlers::Apps;
use crate::host::loopback_only;
use crate::ports::{Ports, url};
use crate::resume::{ResumeError, resume};
use crate::services::{self, DynamoDb, S3, Shutdown, Sqs};
use crate::template::{Deployment, REGION, Surroundings, TEMPLATE, TemplateError};

const ACCESS_KEY_ID: &str = "local";
const SECRET_ACCESS_KEY: &str = "local-secret";

/// How a stack runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port of the API; 0 takes any free port.
    pub port: u16,
    /// The directory for all data. Without it, the data is in a temporary directory that is deleted with the stack.
    pub data: Option<PathBuf>,
    /// What paints the pictures.
    pub painter: Painter,
    /// How the local model behaves.
    pub model: Behavior,
    /// Parameters of the template that replace its defaults.
    pub parameters: BTreeMap<String, String>,
    /// Who may call the API.
    pub api_keys: ApiKeys,
    /// Whether the queues invoke their functions. Tests that deliver messages themselves turn it off.
    pub event_sources: bool,
    /// Whether callers may name endpoints on this machine.
    pub webhooks_to_loopback: bool,
    /// The functions' clock.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            data: None,
            painter: Painter::default(),
            model: Behavior::default(),
            parameters: BTreeMap::new(),
            api_keys: ApiKeys::new(),
            event_sources: true,
            webhooks_to_loopback: false,
            clock: Clock::system(),
        }
    }
}

/// The URLs, names and credentials of a running stack; `table` has the jobs, and `queue_url` is that of their tickets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ready {
    pub api: String,
    pub dynamodb: String,
    pub sqs: String,
    pub s3: String,
    pub bedrock: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub table: String,
    pub queue_url: String,
    pub dead_letter_queue_url: String,
    pub batch_queue_url: String,
    /// `None` if the stack sends no webhooks, and so is the table of their deliveries.
    pub webhook_queue_url: Option<String>,
    pub deliveries_table: Option<String>,
    pub parked_queue_url: String,
    pub bucket: String,
}

/// Why a stack does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error("port {0} is in use; choose another with --port, or any free port with --port 0")]
    PortTaken(u16),
    #[error("cannot listen on this machine: {0}")]
    Listen(io::Error),
    #[error("cannot use {} for data: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("another stack is using {}; stop it first, or use another directory", .0.display())]
    DataInUse(PathBuf),
    #[error("template.yaml does not declare {0}, which the local stack needs")]
    Undeclared(&'static str),
    #[error(
        "template.yaml declares the function {0}, which the local stack does not know; add it to tools/local/src/handlers.rs"
    )]
    UnknownFunction(String),
    #[error("template.yaml gives the function {function} {event}, which the local stack cannot pass on to it")]
    UnexpectedEvent { function: String, event: &'static str },
    #[error("template.yaml does not declare the queue {0} of an event source")]
    UnknownQueue(String),
    #[error("found no AWS credentials for --bedrock aws: {0}")]
    NoCredentials(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Service(#[from] services::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

/// A running stack.
pub struct Stack {
    ready: Ready,
    deployment: Deployment,
    aws: Aws,
    apps: Apps,
    clock: Clock,
    bedrock: Bedrock,
    config: SdkConfig,
    data: Data,
    stop: watch::Sender<bool>,
    /// The API and the event sources. They stop before the services that they need.
    front: JoinSet<()>,
    back: JoinSet<()>,
    stop_back: watch::Sender<bool>,
}

impl Stack {
    /// Starts everything, and returns when everything answers. On an error, it stops what had started.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let data = Data::open(options.data.as_deref())?;
        let ports = Ports::open(options.port, &data).await?;
        let surroundings =
            Surroundings { sqs: url(&ports.sqs)?, parameters: options.parameters, secret: data.secret()? };
        let mut deployment = Deployment::read(TEMPLATE, &surroundings)?;
        if options.webhooks_to_loopback {
            deployment.allow_webhooks_to_loopback();
        }
        let ready = ready(&deployment, &ports)?;

        let (stop, _) = watch::channel(false);
        let (stop_back, _) = watch::channel(false);
        let mut back = JoinSet::new();
        let database = match &data {
            Data::Kept(path, _) => DynamoDb::open(&path.join("dynamodb.sqlite"))?,
            // Temporary data need not wait for the disk.
            Data::Temporary(_) => DynamoDb::in_memory()?,
        };
        for table in deployment.tables.values() {
            database.create_table(table)?;
        }
        back.spawn(database.serve(ports.dynamodb, stopped(&stop_back)).map(log_failure));
        let buckets = S3::open(&data.path().join("s3"), ACCESS_KEY_ID, SECRET_ACCESS_KEY)?;
        for name in deployment.buckets.values() {
            buckets.create_bucket(name)?;
        }
        back.spawn(buckets.serve(ports.s3, stopped(&stop_back)).map(log_failure));
        let queues = Sqs::new(ports.sqs.local_addr().map_err(StartError::Listen)?);
        // A dead-letter queue must exist before the queues that name it.
        let (sources, sinks): (Vec<_>, Vec<_>) =
            deployment.queues.values().partition(|queue| queue.attributes.contains_key("RedrivePolicy"));
        for queue in sinks.into_iter().chain(sources) {
            queues.create_queue(queue).await?;
        }
        back.spawn(queues.serve(ports.sqs, stopped(&stop_back)).map(log_failure));
        let bedrock = Bedrock::new(options.model);
        // Its connections are dropped, not drained, so that a model that hangs does not delay the stop.
        let model = axum::serve(ports.bedrock, bedrock.router().layer(from_fn(loopback_only))).into_future();
        let stopped_model = stopped(&stop_back);
        back.spawn(async move {
            tokio::select! {
                _ = model => {}
                () = stopped_model => {}
            }
        });

        let config = config();
        let aws = connect(&config, &ready, options.painter).await?;
        let apps = Apps::new(&deployment, &aws, &options.clock)?;
        if data.is_kept() {
            let client = aws_sdk_dynamodb::config::Builder::from(&config).endpoint_url(&ready.dynamodb).build();
            let client = aws_sdk_dynamodb::Client::from_conf(client);
            let (tickets, events) = resume(&client, &ready, &aws, options.clock.now()).await?;
            tracing::info!(tickets, events, "unfinished jobs and undelivered events were queued again");
        }

        let sqs = aws_sdk_sqs::config::Builder::from(&config).endpoint_url(&ready.sqs).build();
        let sources = apps.event_sources(&deployment, &aws_sdk_sqs::Client::from_conf(sqs))?;
        let router = gateway::router(apps.routes(&deployment)?, options.api_keys, &deployment);
        let mut front = JoinSet::new();
        front.spawn(services::serve_router(ports.api, router, stopped(&stop)).map(log_failure));
        for source in sources.into_iter().filter(|_| options.event_sources) {
            front.spawn(source.run(stop.subscribe()));
        }
        let clock = options.clock;
        Ok(Self { ready, deployment, aws, apps, clock, bedrock, config, data, stop, front, back, stop_back })
    }

    /// The addresses, names and credentials.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The functions, connected to the embedded services.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// Another set of functions that calls the same services through `http`, so that a test can disturb its calls.
    pub fn apps_over(&self, http: impl HttpClient + 'static) -> Result<Apps, StartError> {
        self.apps_with(self.config.to_builder().http_client(http).build(), &self.clock)
    }

    /// The same by a configuration of the caller, with another clock. Failed calls are retried without a delay.
    pub fn apps_with(&self, config: SdkConfig, clock: &Clock) -> Result<Apps, StartError> {
        let retries = RetryConfig::standard().with_initial_backoff(Duration::ZERO);
        let config = config.into_builder().retry_config(retries).build();
        Apps::new(&self.deployment, &Aws::new(config, endpoints(&self.ready)), clock)
    }

    /// The functions' clients of the services.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// What the template says about services and functions.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The local model.
    pub fn bedrock(&self) -> &Bedrock {
        &self.bedrock
    }

    /// The settings for a client of the embedded services, without an endpoint.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The worker's timeout.
    pub fn longest_painting(&self) -> Duration {
        Duration::from_secs(self.deployment.functions.get("worker").map_or(0, |worker| worker.timeout))
    }

    /// Stops the API and the event sources, waits for running invocations, since their pictures may be paid for, and then
    /// stops the services. It takes at most [`Stack::longest_painting`] and some seconds.
    pub async fn stop(self) {
        let Self { stop, front, stop_back, back, .. } = self;
        stop.send_replace(true);
        front.join_all().await;
        stop_back.send_replace(true);
        back.join_all().await;
    }
}

/// Resolves when `stop` turns true or is dropped.
fn stopped(stop: &watch::Sender<bool>) -> Shutdown {
    let mut stop = stop.subscribe();
    async move { drop(stop.wait_for(|&stop| stop).await) }.boxed().shared()
}

fn log_failure(result: Result<(), services::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "an embedded service stopped");
    }
}

fn ready(deployment: &Deployment, ports: &Ports) -> Result<Ready, StartError> {
    let queue = |id| deployment.queues.get(id).map(|queue| queue.url.clone()).ok_or(StartError::Undeclared(id));
    let table = deployment.tables.get("JobsTable").ok_or(StartError::Undeclared("JobsTable"))?;
    let bucket = deployment.buckets.get("ImageBucket").ok_or(StartError::Undeclared("ImageBucket"))?;
    Ok(Ready {
        api: url(&ports.api)?,
        dynamodb: url(&ports.dynamodb)?,
        sqs: url(&ports.sqs)?,
        s3: url(&ports.s3)?,
        bedrock: url(&ports.bedrock)?,
        region: REGION.to_owned(),
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        table: table.name.clone(),
        queue_url: queue("Queue")?,
        dead_letter_queue_url: queue("DeadLetterQueue")?,
        batch_queue_url: queue("BatchQueue")?,
        webhook_queue_url: queue("WebhookQueue").ok(),
        deliveries_table: deployment.tables.get("DeliveriesTable").map(|table| table.name.clone()),
        parked_queue_url: queue("ParkedQueue")?,
        bucket: bucket.clone(),
    })
}

fn config() -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client())
        .build()
}

async fn connect(config: &SdkConfig, ready: &Ready, painter: Painter) -> Result<Aws, StartError> {
    let endpoints = endpoints(ready);
    if painter == Painter::Local {
        return Ok(Aws::new(config.clone(), endpoints));
    }
    let own = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client()).load().await;
    let provider = own.credentials_provider().ok_or_else(|| StartError::NoCredentials("none are set up".to_owned()))?;
    provider.provide_credentials().await.map_err(|error| StartError::NoCredentials(error.to_string()))?;
    Ok(Aws::new(config.clone(), Endpoints { bedrock: None, ..endpoints }).with_bedrock(own))
}

fn endpoints(ready: &Ready) -> Endpoints {
    Endpoints {
        dynamodb: Some(ready.dynamodb.clone()),
        sqs: Some(ready.sqs.clone()),
        s3: Some(ready.s3.clone()),
        bedrock: Some(ready.bedrock.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template;

    /// The template with these lines added to its resources.
    fn read(resources: &str) -> Deployment {
        let template = TEMPLATE.replacen("\nResources:\n", &format!("\nResources:\n{resources}"), 1);
        template::tests::read(&template, &[]).expect("the template is understood")
    }

    fn apps(deployment: &Deployment) -> Result<Apps, StartError> {
        Apps::new(deployment, &Aws::new(config(), endpoints(&Ready::default())), &Clock::system())
    }

    #[test]
    fn an_unknown_function_of_the_template_is_an_error_that_names_it() {
        let another = "  Another:\n    Type: AWS::Serverless::Function\n    Metadata:\n      BuildProperties:\n        Binary: resize\n";
        let events = "    Properties:\n      Timeout: 5\n";
        let error = apps(&read(&format!("{another}{events}"))).err().expect("the function is unknown");
        assert!(error.to_string().contains("the function resize"), "{error}");
    }

    #[test]
    fn an_event_that_a_function_does_not_handle_is_an_error_that_names_the_function() {
        let mut deployment = read("");
        let apps = apps(&deployment).expect("the functions are known");
        let client = aws_sdk_sqs::Client::new(&config());
        assert!(!apps.routes(&deployment).expect("each route has a handler").is_empty());
        assert_eq!(apps.event_sources(&deployment, &client).expect("each queue has a handler").len(), 4);
        // Submit gets the worker's queue, and the worker a route of submit's.
        let mut take = |name: &str| deployment.functions.remove(name).expect("the template has it");
        let (submit, worker) = (take("submit"), take("worker"));
        deployment.functions.insert("submit".to_owned(), worker);
        deployment.functions.insert("worker".to_owned(), submit);
        let errors = [apps.routes(&deployment).err(), apps.event_sources(&deployment, &client).err()];
        let [route, source] = errors.map(|error| error.expect("the function does not handle it").to_string());
        assert!(route.contains("the function worker an API route"), "{route}");
        assert!(source.contains("the function submit a queue"), "{source}");
    }
}
