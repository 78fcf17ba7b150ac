//! Adapters to AWS services, using the SDK's clients.

mod batch_files;
mod buffered_http;
pub mod callers;
mod delivery_log;
mod error;
pub mod gateway;
mod images;
pub mod job_end;
pub mod job_retry;
pub mod lambda;
pub mod messages;
pub mod metrics;
mod outbox;
mod painter;
mod queue;
mod refusals;
mod signing;
mod table;
mod tickets;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, tls::rustls_provider::CryptoMode};
use aws_smithy_runtime_api::shared::IntoShared;
use aws_smithy_types::retry::RetryConfig;

pub use batch_files::{BatchFiles, Document, Writer};
pub use delivery_log::{DeliveryFilter, DeliveryLog, DeliveryRange, SavedDelivery};
pub use error::{Kind, Result, ServiceError};
pub use images::{File, Files, Images, Stored};
pub use metrics::{DeliveryMetrics, Metrics, Output};
pub use outbox::Outbox;
pub use painter::{PaintError, Painter};
pub use queue::{Depth, Queue};
pub use refusals::{Meaning, Refusal};
pub use signing::url_life;
pub use table::{List, Page, Saved, Table};
pub use tickets::send_tickets;

use self::signing::Signing;
use crate::settings::{Lookup, Settings, SettingsError};
use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// The root certificates of all AWS endpoints, see <https://www.amazontrust.com/repository/>. Parsing these five
/// instead of the system's saves most of a cold start.
const AMAZON_ROOTS: &str = include_str!("roots.pem");

/// What all clients share: credentials, region, and one HTTP client. Each client is built when it is first needed.
#[derive(Clone, Debug)]
pub struct Aws {
    config: SdkConfig,
    bedrock: SdkConfig,
    endpoints: Endpoints,
    output: Output,
    credentials_end: Option<Timestamp>,
    dynamodb: OnceLock<aws_sdk_dynamodb::Client>,
    sqs: OnceLock<aws_sdk_sqs::Client>,
    s3: OnceLock<aws_sdk_s3::Client>,
}

/// How long a function's credentials are assumed to last from its start. Lambda passes them without an expiry, and AWS
/// documents none. URLs that were presigned in Lambda are known to expire after twelve hours (boto/boto3#2392).
const LAMBDA_CREDENTIALS: Duration = Duration::from_secs(12 * 3600);

/// Endpoint URLs that replace the real services; `None` means the real one.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Endpoints {
    pub dynamodb: Option<String>,
    pub sqs: Option<String>,
    pub s3: Option<String>,
    pub bedrock: Option<String>,
}

impl Aws {
    /// For a Lambda function: region and credentials from Lambda's variables, endpoints from the SDKs' shared
    /// variables, see <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>.
    pub fn from_env() -> Result<Self, SettingsError> {
        let started = Timestamp::from(SystemTime::now());
        Self::of_lambda(&|name| std::env::var(name).ok(), EnvironmentVariableCredentialsProvider::new(), started)
    }

    fn of_lambda(
        lookup: Lookup<'_>,
        credentials: impl ProvideCredentials + 'static,
        started: Timestamp,
    ) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let region = settings.text("AWS_REGION");
        settings.finish(())?;
        // `aws_config::defaults` would pull in every other credentials provider.
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client())
            .build();
        let endpoint = |service: &str| {
            let urls = [lookup(&format!("AWS_ENDPOINT_URL_{service}")), lookup("AWS_ENDPOINT_URL")];
            urls.into_iter().flatten().find(|url| !url.is_empty())
        };
        let endpoints = Endpoints {
            dynamodb: endpoint("DYNAMODB"),
            sqs: endpoint("SQS"),
            s3: endpoint("S3"),
            bedrock: endpoint("BEDROCK_RUNTIME"),
        };
        let credentials_end = Some(started + LAMBDA_CREDENTIALS);
        Ok(Self { credentials_end, ..Self::new(config, endpoints).with_output(Output::stdout()) })
    }

    /// Uses this configuration, without metrics.
    pub fn new(config: SdkConfig, endpoints: Endpoints) -> Self {
        Self {
            bedrock: config.clone(),
            config,
            endpoints,
            output: Output::none(),
            credentials_end: None,
            dynamodb: OnceLock::new(),
            sqs: OnceLock::new(),
            s3: OnceLock::new(),
        }
    }

    /// Writes the metrics to `output`.
    pub fn with_output(self, output: Output) -> Self {
        Self { output, ..self }
    }

    /// Uses another configuration for Bedrock.
    pub fn with_bedrock(self, bedrock: SdkConfig) -> Self {
        Self { bedrock, ..self }
    }

    /// The table of jobs.
    pub fn table(&self, name: String) -> Table {
        Table::new(self.dynamodb(), name)
    }

    /// The table of deliveries.
    pub fn delivery_log(&self, name: String) -> DeliveryLog {
        DeliveryLog::new(self.dynamodb(), name)
    }

    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = || client_config(&self.config, &self.endpoints.dynamodb, 3 * SECOND, 8 * SECOND);
        self.dynamodb.get_or_init(|| aws_sdk_dynamodb::Client::new(&config())).clone()
    }

    /// A queue.
    pub fn queue(&self, url: String) -> Queue {
        let config = || client_config(&self.config, &self.endpoints.sqs, 3 * SECOND, 8 * SECOND);
        Queue::new(self.sqs.get_or_init(|| aws_sdk_sqs::Client::new(&config())).clone(), url)
    }

    /// The bucket of pictures.
    pub fn images(&self, bucket: String) -> Images {
        Images::new(self.s3(), bucket, self.signing())
    }

    /// The files of batches, in the bucket of pictures.
    pub fn batch_files(&self, bucket: String) -> BatchFiles {
        BatchFiles::new(self.s3(), bucket, self.signing())
    }

    fn signing(&self) -> Signing {
        Signing { credentials: self.config.credentials_provider(), credentials_end: self.credentials_end }
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        let config = || client_config(&self.config, &self.endpoints.s3, 10 * SECOND, 20 * SECOND);
        self.s3.get_or_init(|| aws_sdk_s3::Client::new(&config())).clone()
    }

    /// The model in `region`, with `timeout` for each painting. The SDK does not retry, as each call may be billed.
    pub fn painter(&self, region: String, timeout: Duration) -> Painter {
        let config =
            self.bedrock.to_builder().region(Region::new(region)).retry_config(RetryConfig::disabled()).build();
        let config = client_config(&config, &self.endpoints.bedrock, timeout, timeout);
        Painter::new(aws_sdk_bedrockruntime::Client::new(&config), timeout)
    }
}

/// The configuration of a client, whose calls and their attempts may take this long. By default, the SDK only limits
/// connecting.
fn client_config(config: &SdkConfig, endpoint: &Option<String>, attempt: Duration, operation: Duration) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(2 * SECOND)
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation);
    let mut config = config.to_builder().timeout_config(timeouts.build());
    if endpoint.is_some() {
        config.set_endpoint_url(endpoint.clone());
    }
    config.build()
}

/// The HTTP client of all services. It trusts only Amazon's roots, and those in the PEM file that `AWS_CA_BUNDLE` names
/// for a TLS-intercepting proxy, as in the AWS CLI.
pub fn http_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let mut roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS.as_bytes());
    if let Some(bundle) = std::env::var_os("AWS_CA_BUNDLE") {
        match std::fs::read(&bundle) {
            Ok(pem) => roots = roots.with_pem_certificate(pem),
            Err(error) => tracing::error!(%error, "cannot read the file named by AWS_CA_BUNDLE"),
        }
    }
    let context = TlsContext::builder().with_trust_store(roots).build().expect("the bundled roots are valid PEM");
    let client =
        Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https();
    buffered_http::BufferedHttp(client).into_shared()
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::Credentials;
    use serde_json::json;

    use super::*;
    use crate::caller::Owner;
    use crate::image::Variant;
    use crate::job::{Job, Terms};
    use crate::order::{Model, Order};
    use crate::{BatchId, JobId};

    #[tokio::test]
    async fn a_url_that_lambda_signs_ends_with_the_credentials_at_the_latest() {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let started = Timestamp::from_ms(1_795_514_400_000);
        let lookup = |name: &str| (name == "AWS_REGION").then(|| "us-west-2".to_owned());
        let credentials = Credentials::new("id", "secret", Some("token".to_owned()), None, "Lambda");
        let aws = Aws::of_lambda(&lookup, credentials, started).expect("the region is set");
        let (images, files) = (aws.images("pictures".to_owned()), aws.batch_files("pictures".to_owned()));
        let order = Order::parse(json!({ "prompt": "A heist" }), "", Model::Core).expect("a good order");
        let job = Job::new(
            JobId::new(),
            Owner::new("somebody"),
            order,
            started,
            Terms { deadline: HOUR, retention: 24 * HOUR },
        );
        for (hours, life, end) in
            [(0, 6, 6), (6, 6, 12), (7, 6, 12), (11, 6, 12), (11, 1, 12), (12, 6, 12), (20, 6, 20)]
        {
            let signed =
                images.sign(&job, Variant::Image, started + hours * HOUR, life * HOUR).await.expect("it signs");
            assert_eq!(signed.expires_at, started + end * HOUR, "{life} h, signed after {hours} h");
            let signed = files.sign_upload(BatchId::new(), started + hours * HOUR, life * HOUR).await;
            let expires_at = signed.expect("it signs").expires_at;
            assert_eq!(expires_at, started + end * HOUR, "an upload for {life} h, signed after {hours} h");
        }
    }
}
