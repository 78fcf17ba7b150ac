//! Puts TLS before services that speak plain HTTP, with a certificate authority made for the occasion.
//!
//! `tls_front CA_FILE UPSTREAM...` writes the authority's certificate to `CA_FILE`, opens one loopback port for each
//! upstream address, and then writes these ports to standard output, on one line and in the same order.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ca_file = arguments.next().ok_or("usage: tls_front CA_FILE UPSTREAM...")?;

    let mut params = CertificateParams::new(Vec::new())?;
    // Clients take a certificate with its issuer's name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "The bench's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(ca_file, authority.pem())?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key)?));

    let mut ports = Vec::new();
    let mut fronts = Vec::new();
    for upstream in arguments {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ports.push(listener.local_addr()?.port().to_string());
        fronts.push(tokio::spawn(front(listener, acceptor.clone(), upstream)));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", ports.join(" "))?;
    out.flush()?;
    for front in fronts {
        front.await?;
    }
    Ok(())
}

/// Passes each connection on to `upstream`.
async fn front(listener: TcpListener, acceptor: TlsAcceptor, upstream: String) {
    while let Ok((client, _)) = listener.accept().await {
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        tokio::spawn(async move {
            // A connection that breaks is its client's to notice.
            let _ = pass_on(client, acceptor, &upstream).await;
        });
    }
}

/// Without waiting for more to send in one packet, which would add tens of milliseconds to each small answer.
async fn pass_on(client: TcpStream, acceptor: TlsAcceptor, upstream: &str) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
