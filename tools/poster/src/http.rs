//! HTTP and TLS, with the same client as the AWS SDK, through the proxies that the environment names.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::PROXY_AUTHORIZATION;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tower_service::Service;

const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take. API Gateway gives up after 29 seconds.
pub(crate) const ANSWER: Duration = Duration::from_secs(40);

const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// There was no answer, or it was incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Unreachable {
    pub(crate) why: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another try may succeed.
    MayPass,
    /// Nothing listens at the address: another try may succeed once the service is started.
    NothingListens,
    /// The host name cannot be resolved: another try may succeed if the network was down.
    NoSuchName,
    /// Every try would fail, as with a certificate that is not trusted.
    Lasting,
}

impl Unreachable {
    pub(crate) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: Kind::MayPass }
    }

    pub(crate) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: Kind::Lasting }
    }
}

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn whole(content: Bytes) -> Body {
    Full::new(content).map_err(|never| match never {}).boxed_unsync()
}

type Clients = Client<HttpsConnector<Connector>, Body>;

/// An HTTP client. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    proxies: Arc<Matcher>,
    plain: Clients,
    /// The client for https, made when it is first needed: reading the machine's root certificates takes time.
    secure: Arc<OnceLock<Clients>>,
}

impl Http {
    /// A client that trusts this machine's root certificates, and uses the proxies that the environment names.
    pub(crate) fn new() -> Self {
        let proxies = Arc::new(Matcher::from_env());
        let tls = tls().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        Self { plain: client(tls, proxies.clone()), proxies, secure: Arc::default() }
    }

    pub(crate) fn proxy_of(&self, address: &Uri) -> Option<Uri> {
        self.proxies.intercept(address).map(|proxy| proxy.uri().clone())
    }

    fn client_for(&self, address: &Uri) -> Result<&Clients, Unreachable> {
        if address.scheme_str() != Some("https") {
            return Ok(&self.plain);
        }
        if let Some(client) = self.secure.get() {
            return Ok(client);
        }
        let tls = tls().with_native_roots();
        let tls =
            tls.map_err(|error| Unreachable::lasting(format!("this machine has no root certificates: {error}")))?;
        Ok(self.secure.get_or_init(|| client(tls.with_no_client_auth(), self.proxies.clone())))
    }

    /// Returns the answer once its headers have arrived. Redirects are not followed, so the API key goes to no other host.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Unreachable> {
        let sending = tokio::time::timeout(ANSWER, self.send_slowly(request));
        sending.await.map_err(|_| Unreachable::passing("no answer in time"))?
    }

    /// The same for a request that may take any time.
    pub(crate) async fn send_slowly(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Unreachable> {
        // With https, only the request for the tunnel has the proxy's password.
        if request.uri().scheme_str() == Some("http")
            && let Some(password) = self.proxies.intercept(request.uri()).as_ref().and_then(Intercept::basic_auth)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, password.clone());
        }
        self.client_for(request.uri())?.request(request).await.map_err(|error| unreachable(&error))
    }
}

fn tls() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
}

fn client(tls: rustls::ClientConfig, proxies: Arc<Matcher>) -> Clients {
    let mut tcp = HttpConnector::new_with_resolver(Names(GaiResolver::new()));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .build(connector.wrap_connector(Connector { tcp, proxies }))
}

/// Resolves host names as the system does, and tells this error from others of a connection.
#[derive(Clone, Debug)]
struct Names(GaiResolver);

#[derive(Debug, thiserror::Error)]
#[error("the name cannot be resolved")]
struct NoSuchName(#[source] io::Error);

impl Service<Name> for Names {
    type Response = GaiAddrs;
    type Error = NoSuchName;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, NoSuchName>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoSuchName>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking = self.0.call(name);
        Box::pin(async move { looking.await.map_err(NoSuchName) })
    }
}

/// Connects to a host, or to the proxy for it.
#[derive(Clone, Debug)]
struct Connector {
    tcp: HttpConnector<Names>,
    proxies: Arc<Matcher>,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let Some(proxy) = self.proxies.intercept(&address) else {
            return Box::pin(async move { Ok(Stream { tcp: tcp.call(address).await?, to_proxy: false }) });
        };
        if proxy.uri().scheme_str() != Some("http") {
            let why = format!("a proxy must speak http, not {}", proxy.uri().scheme_str().unwrap_or_default());
            return Box::pin(async move { Err(why.into()) });
        }
        if address.scheme_str() == Some("http") {
            return Box::pin(async move { Ok(Stream { tcp: tcp.call(proxy.uri().clone()).await?, to_proxy: true }) });
        }
        let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        let mut tunnel = match proxy.basic_auth() {
            Some(password) => tunnel.with_auth(password.clone()),
            None => tunnel,
        };
        Box::pin(async move { Ok(Stream { tcp: tunnel.call(address).await?, to_proxy: false }) })
    }
}

/// A connection that knows whether a proxy reads its requests, which then name the whole URL.
struct Stream {
    tcp: TokioIo<TcpStream>,
    to_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.tcp.connected().proxy(self.to_proxy)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

pub(crate) async fn read_whole(answer: Response<Incoming>) -> Result<Response<Bytes>, Unreachable> {
    let (head, incoming) = answer.into_parts();
    let reading = tokio::time::timeout(ANSWER, Limited::new(incoming, MAX_ANSWER_BYTES).collect());
    let collected = reading.await.map_err(|_| Unreachable::passing("the answer was incomplete"))?;
    let body = collected.map_err(|error| Unreachable::passing(error.to_string()))?.to_bytes();
    Ok(Response::from_parts(head, body))
}

pub(crate) async fn next_chunk(incoming: &mut Incoming) -> Result<Option<Bytes>, Unreachable> {
    loop {
        let reading = tokio::time::timeout(ANSWER, incoming.frame());
        let frame = reading.await.map_err(|_| Unreachable::passing("the answer was incomplete"))?;
        let Some(frame) = frame else { return Ok(None) };
        // Skip trailers.
        if let Ok(data) = frame.map_err(|error| unreachable(&error))?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// An error with its causes, since the outermost does not say what went wrong.
fn unreachable(error: &(dyn Error + 'static)) -> Unreachable {
    let (mut causes, mut kind) = (Vec::new(), Kind::MayPass);
    for cause in chain(error) {
        causes.push(cause.to_string());
        let io = cause.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            kind = Kind::NothingListens;
        } else if cause.is::<NoSuchName>() {
            kind = Kind::NoSuchName;
        } else if cause.is::<rustls::Error>() {
            kind = Kind::Lasting;
        }
    }
    causes.dedup();
    Unreachable { why: causes.join(": "), kind }
}

/// The error and its causes. The `source` of an I/O error skips the error that it wraps.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|within| within as &(dyn Error + 'static)),
        None => error.source(),
    })
}
