//! What the tests of the three services share: a service on its own port, and the SDK's settings to reach it.

use std::future::Future;
use std::net::SocketAddr;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Error, Shutdown};

/// A service that runs for one test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Binds a port and starts the service on it.
    pub(crate) async fn start<F>(serve: impl FnOnce(TcpListener, Shutdown) -> F) -> Self
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, stopped.map(drop).boxed().shared()));
        Self { address, stop, task }
    }

    /// The SDK's settings for this service.
    pub(crate) fn sdk_config(&self) -> SdkConfig {
        self.sdk_config_as(Credentials::new("key", "secret", None, None, "test"))
    }

    /// The SDK's settings for this service, with other credentials.
    pub(crate) fn sdk_config_as(&self, credentials: Credentials) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .region(Region::new("us-west-2"))
            .endpoint_url(format!("http://{}", self.address))
            .build()
    }

    /// Stops the service.
    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("the service still runs");
        self.task.await.expect("the service does not panic").expect("the service ends well");
    }
}
