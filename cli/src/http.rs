//! HTTP over TLS, with the client that the AWS SDK brings along.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may be on its way: API Gateway gives up after 29 seconds.
const ANSWER: Duration = Duration::from_secs(40);

/// The greatest answer that is read into memory.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// There was no answer, or it broke off. The text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(pub(crate) String);

/// An HTTP client. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Http {
    /// A client that trusts the roots of this machine.
    ///
    /// # Errors
    /// When the machine has no roots, and `secure` says that they are needed.
    pub(crate) fn new(secure: bool) -> std::io::Result<Self> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = if secure {
            builder.with_provider_and_native_roots(provider)?
        } else {
            // Reading the roots takes time, and pictures of a plain service come from a plain bucket.
            let tls = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(std::io::Error::other)?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(tls)
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request, and gives back the answer as soon as its head is there. Redirects are not followed, so that the
    /// API key never goes where the caller did not send it.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unreachable> {
        let sending = tokio::time::timeout(ANSWER, self.client.request(request));
        sending.await.map_err(|_| Unreachable("no answer in time".to_owned()))?.map_err(|error| told(&error))
    }
}

/// The whole body of an answer.
pub(crate) async fn body(incoming: Incoming) -> Result<Bytes, Unreachable> {
    let reading = tokio::time::timeout(ANSWER, Limited::new(incoming, MAX_ANSWER_BYTES).collect());
    let collected = reading.await.map_err(|_| Unreachable("the answer broke off".to_owned()))?;
    Ok(collected.map_err(|error| Unreachable(error.to_string()))?.to_bytes())
}

/// The next piece of an answer's body; `None` at its end.
pub(crate) async fn piece(incoming: &mut Incoming) -> Result<Option<Bytes>, Unreachable> {
    loop {
        let reading = tokio::time::timeout(ANSWER, incoming.frame());
        let frame = reading.await.map_err(|_| Unreachable("the answer broke off".to_owned()))?;
        let Some(frame) = frame else { return Ok(None) };
        // What is no data is a trailer, which nobody here asks for.
        if let Ok(data) = frame.map_err(|error| told(&error))?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// An error with its causes, since the outermost only says that something went wrong.
fn told(error: &dyn std::error::Error) -> Unreachable {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.dedup();
    Unreachable(causes.join(": "))
}
