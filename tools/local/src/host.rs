//! Which requests the servers of this stack answer.
//!
//! They listen on the loopback address, but any web page in a browser can send requests there, and a page whose host name
//! resolves to 127.0.0.1 can also read the answers (DNS rebinding). The browser sends the name in `Host` and the page's
//! origin in `Origin`; a page can forge neither.

use axum::extract::Request;
use axum::http::{HeaderMap, Version, header, uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::aws::gateway::Answer;
use shared::problem::{ProblemDetails, type_of};

use crate::gateway::http_of;

/// The host and port that a request names, such as `127.0.0.1:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority(pub(crate) String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no host, or several (RFC 9112, section 3.2).
    NoHost,
    ForeignHost,
    /// It comes from a web page that is neither the API's own nor of the allowed origin.
    ForeignOrigin,
}

/// Refuses requests whose host is not this machine. Adds the [`Authority`] to the others.
pub(crate) async fn loopback_only(mut request: Request, next: Next) -> Response {
    match authority(&request) {
        Ok(authority) => {
            request.extensions_mut().insert(authority);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn authority(request: &Request) -> Result<Authority, Refusal> {
    // In HTTP/2, and in a request to a proxy in HTTP/1.1, the target has the host.
    let target = request.uri().authority().map(uri::Authority::as_str);
    let hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let hosts: Vec<_> = hosts.collect();
    let least = usize::from(target.is_none() || request.version() < Version::HTTP_2);
    if !(least..=1).contains(&hosts.len()) {
        return Err(Refusal::NoHost);
    }
    if !target.iter().chain(&hosts).all(|name| is_loopback(name)) {
        return Err(Refusal::ForeignHost);
    }
    Ok(Authority(target.unwrap_or_else(|| hosts[0]).to_owned()))
}

/// Whether a host, with or without a port, is this machine.
fn is_loopback(name: &str) -> bool {
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => name,
    };
    matches!(host, "127.0.0.1" | "[::1]") || host.eq_ignore_ascii_case("localhost")
}

impl Authority {
    /// The own origin is always allowed, and `*` allows all. Programs that are not browsers send no origin.
    pub(crate) fn refuse_other_origins(&self, headers: &HeaderMap, allowed: Option<&str>) -> Result<(), Refusal> {
        let mut origins = headers.get_all(header::ORIGIN).iter().map(|origin| origin.to_str().unwrap_or_default());
        let own = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(&self.0));
        let is_allowed = |origin: &str| allowed.is_some_and(|allowed| allowed == "*" || allowed == origin);
        if origins.all(|origin| own(origin) || is_allowed(origin)) { Ok(()) } else { Err(Refusal::ForeignOrigin) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, title, detail) = match self {
            Self::NoHost => (400, "invalid_host", "The host is missing", "Send one header Host, and only one."),
            Self::ForeignHost => (
                403,
                "foreign_host",
                "The request is for another host",
                "This server answers only under 127.0.0.1, localhost or [::1].",
            ),
            Self::ForeignOrigin => (
                403,
                "foreign_origin",
                "The request comes from another site",
                "Of web pages, only this server's own and those of AllowedOrigin may use the API.",
            ),
        };
        let problem = ProblemDetails {
            kind: type_of(code),
            title: title.to_owned(),
            status,
            detail: detail.to_owned(),
            code: code.to_owned(),
            errors: Vec::new(),
        };
        let answer = Answer::json(status, &problem).header(header::CONTENT_TYPE, "application/problem+json");
        http_of(answer.into())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(version: Version, target: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    #[test]
    fn only_names_of_this_machine_are_served() {
        for host in ["127.0.0.1", "127.0.0.1:3000", "localhost", "LocalHost:80", "[::1]", "[::1]:3000", "localhost:"] {
            let served = authority(&asked(Version::HTTP_11, "/jobs", &[("host", host)]));
            assert_eq!(served, Ok(Authority(host.to_owned())));
        }
        for host in [
            "evil.example",
            "evil.example:3000",
            "127.0.0.1.evil.example",
            "localhost.evil.example:3000",
            "evil@127.0.0.1",
            "127.0.0.1:3000@evil.example",
            "evil.example#localhost",
            "0.0.0.0",
            "192.168.0.7",
            "::1",
            "",
            "\u{e9}",
        ] {
            let refused = authority(&asked(Version::HTTP_11, "/jobs", &[("host", host)]));
            assert_eq!(refused, Err(Refusal::ForeignHost), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host_wherever_its_version_has_it() {
        let good = ("host", "localhost:3000");
        let evil = ("host", "evil.example");
        for (version, target, headers, outcome) in [
            (Version::HTTP_10, "/", &[good][..], Ok("localhost:3000")),
            (Version::HTTP_11, "/", &[], Err(Refusal::NoHost)),
            (Version::HTTP_11, "/", &[good, good], Err(Refusal::NoHost)),
            (Version::HTTP_11, "/", &[good, evil], Err(Refusal::NoHost)),
            (Version::HTTP_11, "http://127.0.0.1:3000/", &[], Err(Refusal::NoHost)),
            (Version::HTTP_11, "http://127.0.0.1:3000/", &[good], Ok("127.0.0.1:3000")),
            (Version::HTTP_11, "http://127.0.0.1:3000/", &[evil], Err(Refusal::ForeignHost)),
            (Version::HTTP_11, "http://evil.example/", &[good], Err(Refusal::ForeignHost)),
            (Version::HTTP_2, "http://127.0.0.1:3000/", &[], Ok("127.0.0.1:3000")),
            (Version::HTTP_2, "http://127.0.0.1:3000/", &[good], Ok("127.0.0.1:3000")),
            (Version::HTTP_2, "http://evil.example/", &[good], Err(Refusal::ForeignHost)),
            (Version::HTTP_2, "/", &[good], Ok("localhost:3000")),
            (Version::HTTP_2, "/", &[], Err(Refusal::NoHost)),
        ] {
            let told = authority(&asked(version, target, headers));
            assert_eq!(told, outcome.map(|host| Authority(host.to_owned())), "{version:?} {target} {headers:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let authority = Authority("localhost:3000".to_owned());
        for (origins, served) in [
            (&[][..], true),
            (&[("origin", "http://localhost:3000")], true),
            (&[("origin", "http://LOCALHOST:3000")], true),
            (&[("origin", "http://localhost:3001")], false),
            (&[("origin", "http://localhost")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://localhost:3000"), ("origin", "http://evil.example")], false),
        ] {
            let request = asked(Version::HTTP_11, "/", origins);
            assert_eq!(authority.refuse_other_origins(request.headers(), None).is_ok(), served, "{origins:?}");
        }
        for (origin, allowed, served) in [
            ("https://app.example.com", "https://app.example.com", true),
            ("http://localhost:3000", "https://app.example.com", true),
            ("https://app.example.com:8443", "https://app.example.com", false),
            ("http://app.example.com", "https://app.example.com", false),
            ("https://app.example.com.evil.example", "https://app.example.com", false),
            ("null", "https://app.example.com", false),
            ("https://evil.example", "*", true),
            ("null", "*", true),
        ] {
            let request = asked(Version::HTTP_11, "/", &[("origin", origin)]);
            let told = authority.refuse_other_origins(request.headers(), Some(allowed));
            assert_eq!(told.is_ok(), served, "{origin} where {allowed} is allowed");
        }
    }
}
