//! The URL of the service and the API key: from flags, else the environment, else the configuration file.

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::Uri;
use serde::Deserialize;
use toml::Value;

use crate::failure::{Failure, OfFile};

/// The URL of a service that was started with `cargo run`.
const LOCAL: &str = "http://127.0.0.1:3000";

/// A secret whose `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// The key. Only the request header may use it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl TryFrom<Value> for ApiKey {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) => Ok(Self(text)),
            // The parser's own message would quote a number, which may be the key.
            _ => Err("api_key must be a string in quotation marks"),
        }
    }
}

impl From<&str> for ApiKey {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    api: Option<String>,
    api_key: Option<ApiKey>,
}

#[derive(Debug)]
pub(crate) struct Service {
    /// Without a trailing slash.
    pub(crate) url: String,
    pub(crate) source: &'static str,
    pub(crate) key: Option<ApiKey>,
}

impl Service {
    /// Whether the host is this machine, by its name.
    pub(crate) fn is_local(&self) -> bool {
        let url = self.url.parse::<Uri>().unwrap_or_default();
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback())
    }
}

impl Config {
    /// Reads the file at `path`, which must exist, or the one at the usual place, which need not.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.map(Path::to_owned).or_else(|| usual_place().filter(|path| path.exists())) else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(&path).of_file(&path)?;
        // The parser's own message quotes the line, which may hold the key.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::Usage(format!("{}, line {line}: {}", path.display(), error.message()))
        })
    }

    pub(crate) fn settle(self, url: Option<&str>, key: Option<ApiKey>) -> Result<Service, Failure> {
        let (url, source) = match (url, &self.api) {
            (Some(url), _) => (url, "from --api or POSTER_API"),
            (None, Some(url)) => (&**url, "from the configuration file"),
            (None, None) => (LOCAL, "the default"),
        };
        let url = url.trim_end_matches('/').to_owned();
        if !is_url(&url) {
            let option = "the URL of the API (--api, POSTER_API, or api in the configuration file)";
            let rule = "must be a URL such as https://abc123.execute-api.us-west-2.amazonaws.com/v1";
            return Err(Failure::Usage(format!("{option} {rule}, not {url:?}")));
        }
        let key = key.or(self.api_key).filter(|key| !key.0.is_empty());
        if key.as_ref().is_some_and(|key| !key.0.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Failure::Usage("the API key must consist of visible ASCII characters".to_owned()));
        }
        Ok(Service { url, source, key })
    }
}

/// Whether a path can be appended to this text to make a URL.
fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    // Only a port may follow the host: no user name, and no colon without a number.
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host);
    let port = rest.is_some_and(|rest| rest.is_empty() || authority.port_u16().is_some_and(|port| port > 0));
    matches!(uri.scheme_str(), Some("http" | "https")) && !host.is_empty() && port && !text.contains(['?', '#'])
}

fn usual_place() -> Option<PathBuf> {
    let configs = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let configs = configs.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    configs.map(|configs| configs.join("poster").join("config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_the_default() {
        let config =
            || toml::from_str::<Config>("api = \"https://a.example/v1/\"\napi_key = \"k\"").expect("it is TOML");
        let settled = config().settle(None, None).expect("a good URL");
        assert_eq!((settled.url.as_str(), settled.key), ("https://a.example/v1", Some("k".into())));
        assert_eq!(settled.source, "from the configuration file");
        let settled = config().settle(Some("http://b.example"), Some("other".into())).expect("a good URL");
        assert_eq!((settled.url.as_str(), settled.key), ("http://b.example", Some("other".into())));
        let settled = Config::default().settle(None, None).expect("the default");
        assert_eq!((settled.url.as_str(), settled.key), (LOCAL, None));
        for bad in [
            "example.org",
            "ftp://example.org",
            "https://",
            "http:///jobs",
            "http://a b.example",
            "http://a.example:port",
            "http://a.example:",
            "http://a.example:99999",
            "http://:3000",
            "http://alice:secret@a.example",
            "http://a.example/v1?stage=1",
            "http://a.example/v1#top",
            "http://[::1",
            "",
        ] {
            let failure = Config::default().settle(Some(bad), None).expect_err(bad).to_string();
            assert!(failure.contains("--api") && failure.contains("must be"), "{failure}");
        }
        for good in ["http://[::1]:3000", "HTTPS://A.example/v1", "http://127.0.0.1", "http://localhost:3000/v1/"] {
            assert!(Config::default().settle(Some(good), None).is_ok(), "{good}");
        }
    }

    #[test]
    fn no_output_shows_the_key() {
        let service = Config::default().settle(None, Some("secret".into())).expect("a good URL");
        assert!(!format!("{service:?}").contains("secret"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.toml");
        for (key, secret) in [
            ("\"secret\" x", "secret"),
            ("secret", "secret"),
            ("\"secret", "secret"),
            ("12345", "12345"),
            ("12345.6", "12345"),
            ("[\"secret\"]", "secret"),
            ("2026-01-01", "2026"),
        ] {
            std::fs::write(&path, format!("\napi_key = {key}")).expect("it can be written");
            let failure = Config::load(Some(&path)).expect_err(key).to_string();
            assert!(failure.contains("line 2") && !failure.contains(secret), "{failure}");
        }
    }
}
