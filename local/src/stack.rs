//! Starts everything, wires it together, and stops it again.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::future::IntoFuture;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, HttpClient, ProvideCredentials, SharedCredentialsProvider};
use axum::http::Method;
use axum::middleware::from_fn;
use futures_util::future::{self, FutureExt};
use serde::{Deserialize, Serialize};
use shared::Clock;
use shared::aws::{Aws, Endpoints, http_client};
use shared::settings::SettingsError;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bedrock::{Bedrock, Behavior};
use crate::event_source::{self, EventSource};
use crate::gateway::{self, ApiKeys, Route};
use crate::host::loopback_only;
use crate::provision::{ProvisionError, provision};
use crate::requeue::{RequeueError, requeue};
use crate::services::{self, DynamoDb, S3, Sqs};
use crate::template::{ACCOUNT, Deployment, Function, Surroundings, TEMPLATE, TemplateError};

const REGION: &str = "us-west-2";
/// Deployed, this is a secret; here, cursors should outlive a restart.
const STACK_ID: &str = "arn:aws:cloudformation:us-west-2:000000000000:stack/local/local";
const ACCESS_KEY_ID: &str = "local";
const SECRET_ACCESS_KEY: &str = "local-secret";

/// The file in the data directory that remembers the port of S3, which is part of every URL that was handed out.
const S3_PORT_FILE: &str = "s3.port";

/// Ports that no system gives to outgoing connections by default. One that is to be free again at the next start must
/// not be lent to those in between.
const LASTING_PORTS: Range<u16> = 15_000..30_000;

/// The file in the data directory that a stack holds locked while it runs. The system lets go of it when the process
/// ends, however it ends.
const LOCK_FILE: &str = "lock";

/// How a stack is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port of the API; with 0 any free one.
    pub port: u16,
    /// Where everything is kept. Without it, it is kept in a temporary directory that goes with the stack.
    pub data: Option<PathBuf>,
    /// Who paints.
    pub bedrock: BedrockMode,
    /// Parameters of the template, in place of their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Who may call the API.
    pub api_keys: ApiKeys,
    /// Whether the queues' messages are worked off. Tests that deliver messages themselves leave it out.
    pub event_sources: bool,
    /// The functions' clock.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            data: None,
            bedrock: BedrockMode::Local(Behavior::default()),
            parameters: BTreeMap::new(),
            api_keys: ApiKeys::new(),
            event_sources: true,
            clock: Clock::system(),
        }
    }
}

/// Who paints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BedrockMode {
    /// The offline artist, at no cost.
    Local(Behavior),
    /// A model on Amazon Bedrock, with the caller's own credentials and at the caller's own cost.
    Aws,
}

/// Where everything answers, and what it is called.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    /// The address of the API.
    pub api: String,
    /// The address of DynamoDB.
    pub dynamodb: String,
    /// The address of SQS.
    pub sqs: String,
    /// The address of S3.
    pub s3: String,
    /// The address of the local Bedrock endpoint.
    pub bedrock: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The access key's id.
    pub access_key_id: String,
    /// The access key's secret.
    pub secret_access_key: String,
    /// The name of the table of jobs.
    pub table: String,
    /// The address of the queue of tickets.
    pub queue_url: String,
    /// The address of the queue of tickets that gave up.
    pub dead_letter_queue_url: String,
    /// The address of the queue of messages that are no tickets.
    pub parked_queue_url: String,
    /// The name of the bucket of pictures.
    pub bucket: String,
}

/// Why a stack does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error("port {0} is taken; choose another one with --port, or any free one with --port 0")]
    PortTaken(u16),
    #[error("cannot listen on this machine: {0}")]
    Listen(io::Error),
    #[error("cannot use {} for data: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("another stack is using {}; stop it first, or use another directory", .0.display())]
    DataInUse(PathBuf),
    #[error("the template declares no {0}, which this stack needs")]
    Undeclared(&'static str),
    #[error("no AWS credentials were found for --bedrock aws: {0}")]
    NoCredentials(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Service(#[from] services::Error),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Requeue(#[from] RequeueError),
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
    /// What takes work in: the API and the event sources. It stops before what it relies on.
    front: JoinSet<()>,
    back: JoinSet<()>,
    stop_back: watch::Sender<bool>,
}

/// The deployed functions, as this stack runs them.
#[derive(Clone)]
pub struct Apps {
    /// `functions/submit`.
    pub submit: Arc<submit::App>,
    /// `functions/worker`.
    pub worker: Arc<worker::App>,
    /// `functions/status`.
    pub status: Arc<status::App>,
    /// `functions/dead_letter`.
    pub dead_letter: Arc<dead_letter::App>,
}

enum Data {
    /// What outlives the stack, and the lock that keeps every other stack from it meanwhile.
    Kept(PathBuf, #[expect(dead_code, reason = "it is held, not looked at")] File),
    Temporary(TempDir),
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path, _) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

impl Stack {
    /// Starts everything. When this returns, everything answers.
    ///
    /// # Errors
    /// When something cannot start. Whatever had started is then stopped.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let data = data_directory(options.data.as_deref())?;
        let api = match TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(StartError::PortTaken(options.port)),
            bound => bound.map_err(StartError::Listen)?,
        };
        // The services stand beside the API where those ports are free, so that a command typed once works again.
        let beside = |n: u16| options.port.checked_add(n).filter(|_| options.port != 0);
        let dynamodb = bind([beside(1)]).await?;
        let lasting = || matches!(data, Data::Kept(..)).then(|| fastrand::u16(LASTING_PORTS));
        let s3 = bind([remembered_port(data.path()), beside(2), lasting(), lasting()]).await?;
        let sqs = bind([beside(3)]).await?;
        let model = bind([beside(4)]).await?;
        remember_port(data.path(), &s3)?;

        let surroundings = Surroundings {
            region: REGION.to_owned(),
            sqs: address(&sqs)?,
            stack_id: STACK_ID.to_owned(),
            parameters: options.parameters.clone(),
        };
        let deployment = Deployment::read(TEMPLATE, &surroundings)?;
        let ready = ready(&deployment, [&api, &dynamodb, &sqs, &s3, &model])?;

        let (stop, _) = watch::channel(false);
        let (stop_back, _) = watch::channel(false);
        let mut back = JoinSet::new();
        let database = match &data {
            Data::Kept(path, _) => DynamoDb::open(&path.join("dynamodb.sqlite"))?,
            // What nobody keeps need not wait for the disk.
            Data::Temporary(_) => DynamoDb::in_memory()?,
        };
        back.spawn(database.serve(dynamodb, stopped(&stop_back)).map(report));
        let bucket = S3::open(&data.path().join("s3"), ACCESS_KEY_ID, SECRET_ACCESS_KEY)?;
        back.spawn(bucket.serve(s3, stopped(&stop_back)).map(report));
        back.spawn(Sqs::new(REGION, ACCOUNT).serve(sqs, stopped(&stop_back)).map(report));
        let behavior = match options.bedrock {
            BedrockMode::Local(behavior) => behavior,
            BedrockMode::Aws => Behavior::default(),
        };
        let bedrock = Bedrock::new(behavior);
        // A model that hangs must not hold up the stop, so its connections are dropped rather than drained.
        let painter = axum::serve(model, bedrock.router().layer(from_fn(loopback_only))).into_future();
        let stopped_model = stopped(&stop_back);
        back.spawn(async move {
            tokio::select! {
                _ = painter => {}
                () = stopped_model => {}
            }
        });

        let config = config();
        provision(&deployment, &config, &ready).await?;
        let aws = connect(&config, &ready, options.bedrock).await?;
        let apps = apps(&deployment, &aws, &options.clock)?;
        if matches!(data, Data::Kept(..)) {
            let requeued = requeue(&config, &ready, &aws, options.clock.now()).await?;
            tracing::info!(jobs = requeued, "unfinished jobs were queued again");
        }

        let front = JoinSet::new();
        let clock = options.clock;
        let mut stack =
            Self { ready, deployment, aws, apps, clock, bedrock, config, data, stop, front, back, stop_back };
        stack.serve(api, &options.api_keys, options.event_sources);
        Ok(stack)
    }

    fn serve(&mut self, api: TcpListener, keys: &ApiKeys, event_sources: bool) {
        let router = gateway::router(self.routes(), keys.clone(), &self.deployment);
        self.front.spawn(services::serve_router(api, router, stopped(&self.stop).boxed().shared()).map(report));
        if event_sources {
            for source in self.event_sources() {
                self.front.spawn(source.run(self.stop.subscribe()));
            }
        }
    }

    fn routes(&self) -> Vec<Route> {
        let preflights = self.deployment.preflights.iter().map(|(path, response)| {
            let response = response.clone();
            Route {
                path: path.clone(),
                method: Some(Method::OPTIONS),
                key_required: false,
                handler: Arc::new(move |_| future::ready(Ok(response.clone().into())).boxed()),
                timeout: Duration::from_secs(29),
            }
        });
        let mut routes: Vec<_> = preflights.collect();
        for (binary, Function { routes: declared, timeout, .. }) in &self.deployment.functions {
            for route in declared {
                let handler: gateway::Handler = match binary.as_str() {
                    "submit" => {
                        let app = self.apps.submit.clone();
                        Arc::new(move |event| {
                            let app = app.clone();
                            async move { submit::handle(&app, event).await }.boxed()
                        })
                    }
                    _ => {
                        let app = self.apps.status.clone();
                        Arc::new(move |event| {
                            let app = app.clone();
                            async move { status::handle(&app, event).await }.boxed()
                        })
                    }
                };
                let method = route.method.to_uppercase();
                let method = (method != "ANY").then(|| Method::from_bytes(method.as_bytes()).unwrap_or_default());
                let timeout = Duration::from_secs(*timeout);
                let key_required = route.auth.api_key_required;
                routes.push(Route { path: route.path.clone(), method, key_required, handler, timeout });
            }
        }
        routes
    }

    fn event_sources(&self) -> Vec<EventSource> {
        let client = aws_sdk_sqs::config::Builder::from(&self.config).endpoint_url(&self.ready.sqs).build();
        let client = aws_sdk_sqs::Client::from_conf(client);
        let mut sources = Vec::new();
        for (binary, Function { sources: declared, timeout, .. }) in &self.deployment.functions {
            for source in declared {
                let Some(queue) = self.deployment.queue_by_arn(&source.queue) else { continue };
                let handler: event_source::Handler = match binary.as_str() {
                    "worker" => {
                        let app = self.apps.worker.clone();
                        Arc::new(move |event| {
                            let app = app.clone();
                            async move { worker::handle(&app, event).await }.boxed()
                        })
                    }
                    _ => {
                        let app = self.apps.dead_letter.clone();
                        Arc::new(move |event| {
                            let app = app.clone();
                            async move { dead_letter::handle(&app, event).await }.boxed()
                        })
                    }
                };
                sources.push(EventSource {
                    client: client.clone(),
                    queue_url: queue.url.clone(),
                    queue_arn: queue.arn.clone(),
                    batch_size: source.batch_size,
                    maximum_concurrency: source.scaling.maximum_concurrency,
                    timeout: Duration::from_secs(*timeout),
                    handler,
                });
            }
        }
        sources
    }

    /// Where everything answers.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The functions, over the embedded services.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// Functions of their own, over the same services but through `http`, so that a test can disturb their calls.
    ///
    /// # Errors
    /// When the template's settings are bad.
    pub fn apps_over(&self, http: impl HttpClient + 'static) -> Result<Apps, StartError> {
        self.apps_with(self.config.to_builder().http_client(http).build(), &self.clock)
    }

    /// Functions of their own, over the same services, whose clients are made from `config` and which tell the time by
    /// `clock`. A test's calls are tried again at once, because nothing is won by waiting.
    ///
    /// # Errors
    /// When the template's settings are bad.
    pub fn apps_with(&self, config: SdkConfig, clock: &Clock) -> Result<Apps, StartError> {
        let retries = RetryConfig::standard().with_initial_backoff(Duration::ZERO);
        let config = config.into_builder().retry_config(retries).build();
        apps(&self.deployment, &Aws::new(config, endpoints(&self.ready)), clock)
    }

    /// The services as the functions reach them.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// What the template says of the services and functions.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The local model.
    pub fn bedrock(&self) -> &Bedrock {
        &self.bedrock
    }

    /// What a client of the embedded services needs beside an address.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// Where the data lies.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// How long the worker may take over what it has begun.
    pub fn longest_painting(&self) -> Duration {
        Duration::from_secs(self.deployment.functions.get("worker").map_or(0, |worker| worker.timeout))
    }

    /// Stops everything: takes nothing more in, lets invocations that are under way end, since paintings may be paid for,
    /// and then lets the services go. It takes at most [`Stack::longest_painting`] and some seconds.
    pub async fn stop(self) {
        let Self { stop, front, stop_back, back, .. } = self;
        stop.send_replace(true);
        front.join_all().await;
        stop_back.send_replace(true);
        back.join_all().await;
    }
}

/// Resolves when `stop` says so, or is gone, which means the same.
fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stop = stop.subscribe();
    async move {
        let _ = stop.wait_for(|&stop| stop).await;
    }
}

fn report(result: Result<(), services::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "an embedded service stopped");
    }
}

fn data_directory(path: Option<&Path>) -> Result<Data, StartError> {
    match path {
        Some(path) => {
            let failed = |source| StartError::Data { path: path.to_owned(), source };
            std::fs::create_dir_all(path).map_err(failed)?;
            let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => Ok(Data::Kept(path.canonicalize().map_err(failed)?, lock)),
                Err(TryLockError::WouldBlock) => Err(StartError::DataInUse(path.to_owned())),
                Err(TryLockError::Error(source)) => Err(failed(source)),
            }
        }
        None => tempfile::Builder::new()
            .prefix("movie-posters-")
            .tempdir()
            .map(Data::Temporary)
            .map_err(|source| StartError::Data { path: std::env::temp_dir(), source }),
    }
}

/// Listens on the first of these ports that is free, or else on any.
async fn bind<const N: usize>(ports: [Option<u16>; N]) -> Result<TcpListener, StartError> {
    for port in ports.into_iter().flatten() {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StartError::Listen)
}

fn remembered_port(data: &Path) -> Option<u16> {
    std::fs::read_to_string(data.join(S3_PORT_FILE)).ok()?.trim().parse().ok()
}

fn remember_port(data: &Path, listener: &TcpListener) -> Result<(), StartError> {
    let path = data.join(S3_PORT_FILE);
    let port = listener.local_addr().map_err(StartError::Listen)?.port();
    if let Some(before) = remembered_port(data).filter(|&before| before != port) {
        tracing::warn!(before, port, "the port of S3 was taken, so the URLs that were handed out before do not work");
    }
    std::fs::write(&path, port.to_string()).map_err(|source| StartError::Data { path, source })
}

fn address(listener: &TcpListener) -> Result<String, StartError> {
    listener.local_addr().map(|address| format!("http://{address}")).map_err(StartError::Listen)
}

fn ready(deployment: &Deployment, listeners: [&TcpListener; 5]) -> Result<Ready, StartError> {
    let [api, dynamodb, sqs, s3, bedrock] = listeners;
    let queue = |id| deployment.queues.get(id).map(|queue| queue.url.clone()).ok_or(StartError::Undeclared(id));
    let table = deployment.tables.get("JobsTable").ok_or(StartError::Undeclared("JobsTable"))?;
    let bucket = deployment.buckets.get("ImageBucket").ok_or(StartError::Undeclared("ImageBucket"))?;
    Ok(Ready {
        api: address(api)?,
        dynamodb: address(dynamodb)?,
        sqs: address(sqs)?,
        s3: address(s3)?,
        bedrock: address(bedrock)?,
        region: REGION.to_owned(),
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        table: table.name.clone(),
        queue_url: queue("Queue")?,
        dead_letter_queue_url: queue("DeadLetterQueue")?,
        parked_queue_url: queue("ParkedQueue")?,
        bucket: bucket.clone(),
    })
}

/// What every client of the embedded services shares.
fn config() -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client())
        .build()
}

/// The functions' connections.
async fn connect(config: &SdkConfig, ready: &Ready, bedrock: BedrockMode) -> Result<Aws, StartError> {
    let endpoints = endpoints(ready);
    if bedrock != BedrockMode::Aws {
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

/// The functions, each with the environment that the template gives it.
fn apps(deployment: &Deployment, aws: &Aws, clock: &Clock) -> Result<Apps, StartError> {
    let lookup = |binary: &'static str| {
        let function = deployment.functions.get(binary).ok_or(StartError::Undeclared(binary))?;
        Ok::<_, StartError>(|name: &str| function.environment.get(name).cloned())
    };
    Ok(Apps {
        submit: Arc::new(submit::App::new(aws, clock.clone(), &lookup("submit")?)?),
        worker: Arc::new(worker::App::new(aws, clock.clone(), &lookup("worker")?)?),
        status: Arc::new(status::App::new(aws, clock.clone(), &lookup("status")?)?),
        dead_letter: Arc::new(dead_letter::App::new(aws, clock.clone(), &lookup("dead_letter")?)?),
    })
}
