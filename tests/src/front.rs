//! Proxies that a test puts in front of a service: one that changes its answers, and one that speaks TLS.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, HOST};
use axum::http::{HeaderMap, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};

/// Serves this on a free port, for as long as the test lasts. Returns the address.
///
/// # Panics
/// When there is no free port.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Forwards requests to `upstream`, and returns its answers after `change` has changed them. Returns the address.
pub async fn changing(
    upstream: &str,
    change: impl Fn(&mut HeaderMap, &mut Value) + Clone + Send + Sync + 'static,
) -> String {
    let (upstream, http) = (upstream.to_owned(), reqwest::Client::new());
    let pass_on = move |request: Request| {
        let (upstream, http, change) = (upstream.clone(), http.clone(), change.clone());
        async move {
            let (mut head, body) = request.into_parts();
            head.headers.remove(HOST);
            let body = to_bytes(body, usize::MAX).await.expect("a body");
            let asked = http.request(head.method, format!("{upstream}{}", head.uri)).headers(head.headers).body(body);
            let answer = asked.send().await.expect("an answer");
            let (status, mut headers) = (answer.status(), answer.headers().clone());
            let mut value = answer.json().await.expect("JSON");
            headers.remove(CONTENT_LENGTH);
            change(&mut headers, &mut value);
            let mut answer = Response::new(Body::from(value.to_string()));
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            answer
        }
    };
    serve(Router::new().fallback(pass_on)).await
}

/// Speaks TLS in front of the service at `upstream`. The certificate of the authority that signed its certificate is
/// written to `authority`. Returns the address.
///
/// # Panics
/// When there is no free port, or the file cannot be written.
pub async fn secure(upstream: &str, authority: &Path) -> String {
    let mut params = CertificateParams::default();
    // Clients would consider a certificate that has its issuer's name to be self-signed.
    params.distinguished_name.push(DnType::CommonName, "The authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let new_key = || KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("an authority");
    std::fs::write(authority, issuer.pem()).expect("it is written");
    let (params, key) = (CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address"), new_key());
    let certificate = params.signed_by(&key, &issuer).expect("a certificate").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key));
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let upstream = upstream.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            tokio::spawn(async move {
                // The client notices a broken connection itself.
                if let (Ok(mut client), Ok(mut server)) =
                    (acceptor.accept(client).await, TcpStream::connect(upstream).await)
                {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    format!("https://{address}")
}
