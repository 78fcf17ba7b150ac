//! Resolves the host of a URL, and checks its addresses. An endpoint is a URL that a stranger chose, so it may lead
//! into the function's own network: to Lambda's runtime API on 127.0.0.1, to a metadata service on 169.254.169.254, or
//! to a private service. See "Server-Side Request Forgery Prevention",
//! <https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html>.

use std::net::{IpAddr, SocketAddr};

use shared::address::is_public;
use shared::delivery::{TryError, TryErrorCode};
use shared::webhook::WebhookUrl;
use url::{Host, Url};

use crate::client::{Network, error};

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Resolves the host once. The caller connects to these addresses, so a name whose address changes after the check
/// gains nothing. The URL is checked again, because an older version with fewer rules may have accepted it.
pub(crate) async fn resolve(url: &WebhookUrl, network: &Network, allows_loopback: bool) -> Result<Target, TryError> {
    let forbidden = |message| error(TryErrorCode::AddressForbidden, message);
    let is_loopback = allows_loopback && url.is_loopback();
    let url = Url::parse(url.as_str()).map_err(|_| forbidden("The URL cannot be read."))?;
    if !is_loopback && (url.scheme() != "https" || url.port().is_some()) {
        return Err(forbidden("The URL is not https on port 443."));
    }
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses = match url.host() {
        None => return Err(forbidden("The URL has no host.")),
        Some(Host::Ipv4(address)) => vec![SocketAddr::new(address.into(), port)],
        Some(Host::Ipv6(address)) => vec![SocketAddr::new(address.into(), port)],
        Some(Host::Domain(name)) => (network.resolve)(name.to_owned(), port)
            .await
            .map_err(|_| error(TryErrorCode::DnsFailed, "The host's name cannot be resolved."))?,
    };
    let is_allowed = |address: IpAddr| if is_loopback { address.is_loopback() } else { is_public(address) };
    if addresses.is_empty() {
        return Err(error(TryErrorCode::DnsFailed, "The host's name has no address."));
    }
    // A name with a public and a private address is refused, because the order of the tries is not certain.
    if !addresses.iter().all(|address| is_allowed(address.ip())) {
        return Err(forbidden("The host has an address that is not on the public internet."));
    }
    Ok(Target { url, addresses })
}
