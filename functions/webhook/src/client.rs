//! Sends one request to an endpoint, without proxy, redirects, cookies or kept connections. It does each step itself,
//! so that an error says at which step the request failed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use shared::delivery::{TryError, TryErrorCode};
use shared::webhook::WebhookUrl;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use crate::address::{Target, resolve};

/// How long a request may take, from the look-up of its host to the end of its answer.
pub const TIMEOUT: Duration = Duration::from_secs(15);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_ADDRESSES: usize = 4;

/// The most bytes of an answer's header, and of its body, that are read.
const MAX_BYTES: usize = 16 * 1024;

const KEPT_BYTES: usize = 256;

const AGENT: &str = concat!("movie-poster-creator/", env!("CARGO_PKG_VERSION"));

#[derive(Clone, Copy)]
pub(crate) struct Post<'a> {
    pub(crate) url: &'a WebhookUrl,
    pub(crate) id: &'a str,
    /// Unix time in seconds.
    pub(crate) timestamp: i64,
    pub(crate) signature: &'a str,
    pub(crate) body: &'a str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<TryError>,
    pub(crate) response: Option<String>,
}

/// A client for endpoints.
#[derive(Clone, Debug)]
pub struct Client {
    network: Network,
    allows_loopback: bool,
    timeout: Duration,
    /// `None` for the system's.
    roots: Option<Arc<RootCertStore>>,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Client {
    /// A client that trusts the system's root certificates. With `allows_loopback` it also sends to this machine.
    pub fn new(network: Network, allows_loopback: bool) -> Self {
        Self { network, allows_loopback, timeout: TIMEOUT, roots: None, tls: Arc::default() }
    }

    /// Gives each request this time instead of [`TIMEOUT`], for tests.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Trusts these root certificates and no others.
    pub fn with_roots(self, roots: RootCertStore) -> Self {
        Self { roots: Some(Arc::new(roots)), tls: Arc::default(), ..self }
    }

    pub(crate) async fn post(&self, post: Post<'_>) -> Outcome {
        let end = Instant::now() + self.timeout;
        let late = || error(TryErrorCode::Timeout, "There was no complete answer in time.");
        let (response, _connection) = match timeout_at(end, self.send(post)).await.unwrap_or_else(|_| Err(late())) {
            Ok(answered) => answered,
            Err(error) => return Outcome { error: Some(error), ..Outcome::default() },
        };
        let status = response.status();
        let mut kept = Vec::new();
        let read = timeout_at(end, read(response.into_body(), &mut kept)).await.unwrap_or_else(|_| Err(late()));
        let redirect = || error(TryErrorCode::Redirect, "The answer leads to another URL. Redirects are not followed.");
        Outcome {
            status: Some(status.as_u16()),
            error: read.err().or_else(|| status.is_redirection().then(redirect)),
            response: (!kept.is_empty()).then(|| String::from_utf8_lossy(&kept).into_owned()),
        }
    }

    /// Sends a request and waits for the header of the answer. Dropping the second value closes the connection.
    async fn send(&self, post: Post<'_>) -> Result<(Response<Incoming>, JoinSet<()>), TryError> {
        let Target { url, addresses } = resolve(post.url, &self.network, self.allows_loopback).await?;
        let stream = self.connect(&addresses).await?;
        let request = request(&url, post)?;
        if url.scheme() == "http" {
            return exchange(stream, request).await;
        }
        let name = server_name(&url)?;
        let stream = TlsConnector::from(self.tls()).connect(name, stream).await.map_err(|why| tls_error(&why))?;
        exchange(stream, request).await
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, TryError> {
        let mut failure = error(TryErrorCode::ConnectionFailed, "The connection failed.");
        for address in addresses.iter().take(MAX_ADDRESSES) {
            failure = match timeout(CONNECT_TIMEOUT, (self.network.connect)(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(why)) if why.kind() == io::ErrorKind::ConnectionRefused => {
                    error(TryErrorCode::ConnectionRefused, "The host refused the connection.")
                }
                Ok(Err(_)) => error(TryErrorCode::ConnectionFailed, "The connection failed."),
                Err(_) => error(TryErrorCode::Timeout, "The host did not accept the connection in time."),
            };
        }
        Err(failure)
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let make = || match &self.roots {
            Some(roots) => Arc::new(tls_config(roots.clone())),
            None => read_system_roots().unwrap_or_else(|error| {
                tracing::error!(%error, "no endpoint can be trusted");
                Arc::new(tls_config(Arc::new(RootCertStore::empty())))
            }),
        };
        self.tls.get_or_init(make).clone()
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, JoinSet<()>), TryError> {
    let broken = |_| error(TryErrorCode::AnswerBroken, "The host closed the connection or did not answer in HTTP.");
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BYTES).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // An error here also fails the request or the reading of its answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, driver))
}

async fn read(mut body: Incoming, kept: &mut Vec<u8>) -> Result<(), TryError> {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| error(TryErrorCode::AnswerBroken, "The answer was cut off."))?;
        let Ok(data) = frame.into_data() else { continue };
        kept.extend_from_slice(&data[..data.len().min(KEPT_BYTES - kept.len())]);
        total += data.len();
        if total >= MAX_BYTES {
            break;
        }
    }
    Ok(())
}

fn request(url: &Url, post: Post<'_>) -> Result<Request<Full<Bytes>>, TryError> {
    Request::builder()
        .method(Method::POST)
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT)
        // The next request may come a minute later, after the function was frozen.
        .header(CONNECTION, "close")
        .header("webhook-id", post.id)
        .header("webhook-timestamp", post.timestamp)
        .header("webhook-signature", post.signature)
        .body(Full::new(Bytes::copy_from_slice(post.body.as_bytes())))
        .map_err(|_| error(TryErrorCode::AddressForbidden, "The URL cannot be used in a request."))
}

fn server_name(url: &Url) -> Result<ServerName<'static>, TryError> {
    // An IPv6 address is in brackets.
    let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(name.to_owned());
    name.map_err(|_| error(TryErrorCode::TlsFailed, "A certificate cannot be issued for the host's name."))
}

fn tls_error(why: &io::Error) -> TryError {
    let inner = why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else {
        return error(TryErrorCode::TlsFailed, "The TLS handshake failed.");
    };
    let message = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "The host's certificate has expired.",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "The host's certificate is for another name."
        }
        CertificateError::UnknownIssuer => {
            "The host's certificate is from an authority that is not trusted, or its chain is incomplete."
        }
        _ => "The host's certificate is not valid.",
    };
    error(TryErrorCode::CertificateInvalid, message)
}

pub(crate) fn error(code: TryErrorCode, message: &str) -> TryError {
    TryError { code, message: message.to_owned() }
}

fn tls_config(roots: Arc<RootCertStore>) -> ClientConfig {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Reads the system's root certificates once per process. On Lambda, AWS updates them without a deployment.
pub(crate) fn read_system_roots() -> Result<Arc<ClientConfig>, io::Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    // Use the others if some certificates cannot be read.
    let (read, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if read == 0 {
        return Err(io::Error::other("the system has no root certificates"));
    }
    Ok(CONFIG.get_or_init(|| Arc::new(tls_config(Arc::new(roots)))).clone())
}

type Resolve = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;
type Connect = dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync;

/// How hosts are found and connected to.
#[derive(Clone)]
pub struct Network {
    pub(crate) resolve: Arc<Resolve>,
    connect: Arc<Connect>,
}

impl Network {
    /// The system's network.
    pub fn system() -> Self {
        Self::new(
            |name, port| Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) }),
            |address| Box::pin(TcpStream::connect(address)),
        )
    }

    /// A network that resolves names and connects to addresses by these functions, for tests.
    pub fn new(
        resolve: impl Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
        connect: impl Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync + 'static,
    ) -> Self {
        Self { resolve: Arc::new(resolve), connect: Arc::new(connect) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}
