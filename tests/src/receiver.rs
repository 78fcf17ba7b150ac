//! Servers for webhooks, whose answers a test decides byte by byte, and a network that leads every name to them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use webhook::Network;

/// What a receiver does once it has read a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It sends these bytes and closes the connection.
    Bytes(String),
    /// It sends these bytes and then nothing, and keeps the connection open.
    Stall(String),
    /// It sends the first text once and the second again and again.
    Endless(String, String),
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status} \r\ncontent-length: 0\r\n\r\n"))
    }
}

/// A request, as it was received.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// The method and the path.
    pub line: String,
    /// The headers, by names in small letters.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

/// A server that records each request and answers with a reply of the test.
#[derive(Clone)]
pub struct Receiver {
    /// Its address.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Delivered>>>,
    reply: Arc<Mutex<Reply>>,
}

impl Receiver {
    /// A receiver over plain HTTP on a free port, for as long as the test lasts.
    pub async fn start(reply: Reply) -> Self {
        Self::serve(reply, None).await
    }

    /// A receiver over TLS with this certificate.
    pub async fn secure(reply: Reply, certificate: &Certificate) -> Self {
        Self::serve(reply, Some(certificate.acceptor.clone())).await
    }

    async fn serve(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let receiver = Self { address, requests: Arc::default(), reply: Arc::new(Mutex::new(reply)) };
        let server = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (server.clone(), tls.clone());
                // Clients break connections off on purpose.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => server.answer(tls.accept(stream).await?).await,
                        None => server.answer(stream).await,
                    }
                });
            }
        });
        receiver
    }

    /// Answers the next requests with this.
    pub fn replies(&self, reply: Reply) {
        *self.reply.lock().expect("no one panicked") = reply;
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Delivered> {
        self.requests.lock().expect("no one panicked").clone()
    }

    /// The URL of an endpoint on it.
    pub fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let request = read(&mut stream).await?;
        self.requests.lock().expect("no one panicked").push(request);
        let reply = self.reply.lock().expect("no one panicked").clone();
        match reply {
            Reply::Bytes(bytes) => {
                stream.write_all(bytes.as_bytes()).await?;
                stream.shutdown().await
            }
            Reply::Stall(bytes) => {
                stream.write_all(bytes.as_bytes()).await?;
                stream.flush().await?;
                // It ends when the client closes the connection.
                stream.read(&mut [0]).await.map(drop)
            }
            Reply::Endless(bytes, more) => {
                stream.write_all(bytes.as_bytes()).await?;
                loop {
                    stream.write_all(more.as_bytes()).await?;
                }
            }
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Delivered> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes[..end]).into_owned();
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = bytes.split_off(head.len() + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Delivered { line, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// An authority, whose certificates a client may trust.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate of a server and its key.
pub struct Certificate {
    acceptor: TlsAcceptor,
}

impl Authority {
    /// A new authority.
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // Clients would consider a certificate that has its issuer's name to be self-signed, and find issuers by name.
        params.distinguished_name.push(DnType::CommonName, format!("The authority {}", uuid::Uuid::new_v4()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// The roots of a client that trusts it.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        roots
    }

    /// A certificate for this name or address.
    pub fn certificate(&self, name: &str) -> Certificate {
        self.sign(CertificateParams::new([name.to_owned()]).expect("a name"))
    }

    /// The same, but it has expired.
    pub fn expired_certificate(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key));
        Certificate { acceptor: TlsAcceptor::from(Arc::new(config.expect("a certificate and its key"))) }
    }
}

/// A network in which a test decides what each name resolves to. Every connection leads to one receiver.
#[derive(Clone, Default)]
pub struct Names {
    answers: Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>,
    /// The names that were resolved.
    pub resolved: Arc<Mutex<Vec<String>>>,
    /// The addresses that were connected to.
    pub connected: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Names {
    /// Lets a name resolve to these addresses: to the first ones at first, then to the next ones, and to the last ones
    /// from then on.
    pub fn set(&self, name: &str, answers: &[&[&str]]) {
        let parse = |address: &&str| address.parse().expect("an address");
        let answers = answers.iter().rev().map(|addresses| addresses.iter().map(parse).collect()).collect();
        self.answers.lock().expect("no one panicked").insert(name.to_owned(), answers);
    }

    /// The network, in which every address leads to `receiver`.
    pub fn network(&self, receiver: SocketAddr) -> Network {
        let (names, connected) = (self.clone(), self.connected.clone());
        let resolve = move |name: String, port| {
            names.resolved.lock().expect("no one panicked").push(name.clone());
            let mut answers = names.answers.lock().expect("no one panicked");
            let answer = answers.get_mut(&name).and_then(|answers| match answers.len() {
                0 | 1 => answers.last().cloned(),
                _ => answers.pop(),
            });
            let addresses =
                answer.map(|answer| answer.into_iter().map(|address| SocketAddr::new(address, port)).collect());
            std::future::ready(addresses.ok_or_else(|| io::Error::other("no such name"))).boxed()
        };
        let connect = move |address| {
            connected.lock().expect("no one panicked").push(address);
            TcpStream::connect(receiver).boxed()
        };
        Network::new(resolve, connect)
    }
}
