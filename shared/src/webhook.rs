//! The endpoint of a caller, and the events that it receives.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Host, Url};

use crate::address::is_public;
use crate::fault::Faults;
use crate::job::Status;
use crate::json::{Fields, kind, string};
use crate::problem::Problem;
use crate::spelled::spelled;

spelled! {
    /// The type of an event.
    EventType, "an event",
    JobSucceeded = "job.succeeded",
    JobFailed = "job.failed",
    JobCanceled = "job.canceled",
    /// Every job of a batch has ended, or its file was refused.
    BatchEnded = "batch.ended",
}

impl EventType {
    const OF_JOB: [Self; 3] = [Self::JobSucceeded, Self::JobFailed, Self::JobCanceled];

    /// The event of a job that has ended with this status; `None` if the job has not ended.
    pub fn of_end(status: Status) -> Option<Self> {
        match status {
            Status::Queued | Status::Running => None,
            Status::Succeeded => Some(Self::JobSucceeded),
            Status::Failed => Some(Self::JobFailed),
            Status::Canceled => Some(Self::JobCanceled),
        }
    }
}

/// Which events are sent to which URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The caller's endpoint.
    pub url: WebhookUrl,
    /// The events, each once, in the order of [`EventType::ALL`].
    pub events: Vec<EventType>,
}

impl Webhook {
    /// Parses the webhook of a job at the JSON pointer `pointer`. By default it is sent every event of the job.
    pub fn of_job(value: Value, pointer: &str) -> Result<Self, Faults> {
        Self::parse(value, pointer, &EventType::OF_JOB, &EventType::OF_JOB)
    }

    /// Parses the webhook of a batch at the JSON pointer `pointer`. By default it is sent only the end of the batch.
    pub fn of_batch(value: Value, pointer: &str) -> Result<Self, Faults> {
        Self::parse(value, pointer, EventType::ALL, &[EventType::BatchEnded])
    }

    fn parse(value: Value, pointer: &str, possible: &[EventType], default: &[EventType]) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, pointer)?;
        let url = fields.required("url", |value| WebhookUrl::parse(&string(value)?));
        let events = fields.optional("events", |value| events(&value, possible));
        fields.finish(url.map(|url| Self { url, events: events.unwrap_or_else(|| default.to_vec()) }))
    }

    /// Whether the event is sent.
    pub fn wants(&self, event: EventType) -> bool {
        self.events.contains(&event)
    }

    /// The part of a batch's webhook that its jobs use; `None` if they send nothing.
    pub fn for_jobs(&self) -> Option<Self> {
        let mut events = self.events.clone();
        events.retain(|event| *event != EventType::BatchEnded);
        (!events.is_empty()).then(|| Self { url: self.url.clone(), events })
    }
}

fn events(value: &Value, possible: &[EventType]) -> Result<Vec<EventType>, String> {
    let rule = || {
        let possible: Vec<_> = possible.iter().map(|event| event.as_str()).collect();
        format!("must be an array of one or more of {}", possible.join(", "))
    };
    let Value::Array(values) = value else { return Err(format!("{}, not {}", rule(), kind(value))) };
    let named = values.iter().map(|value| value.as_str()?.parse().ok().filter(|event| possible.contains(event)));
    let named: Vec<EventType> = named.collect::<Option<_>>().ok_or_else(rule)?;
    if named.is_empty() {
        return Err(rule());
    }
    Ok(EventType::ALL.iter().copied().filter(|event| named.contains(event)).collect())
}

/// The URL of an endpoint: `https` on port 443 of a public host, or any URL on this machine, which only the local stack
/// accepts. Stored values are not checked again, so that stricter rules do not make records unreadable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// The maximum length, in characters.
    pub const MAX_CHARS: usize = 2000;

    /// Parses and normalizes a URL as browsers do, see <https://url.spec.whatwg.org>.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The standard removes these silently.
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("must not contain spaces or control characters".to_owned());
        }
        let url = Url::parse(text).map_err(|_| "must be a URL, such as https://example.com/posters".to_owned())?;
        if url.as_str().len().max(text.len()) > Self::MAX_CHARS {
            return Err(format!("must have at most {} characters", Self::MAX_CHARS));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user name or a password".to_owned());
        }
        if url.fragment().is_some() {
            return Err("must not contain a fragment".to_owned());
        }
        let is_local = is_loopback(&url);
        if url.scheme() != "https" && !(is_local && url.scheme() == "http") {
            return Err("must begin with https://".to_owned());
        }
        if url.port().is_some() && !is_local {
            return Err("must not name a port other than 443".to_owned());
        }
        if !is_local && !has_host(&url, is_public, is_public_name) {
            return Err("must name a host on the public internet".to_owned());
        }
        Ok(Self(url.into()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the URL leads to this machine.
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| is_loopback(&url))
    }
}

/// Shows only the length, because a URL may contain a secret of the receiver.
impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({} bytes)", self.0.len())
    }
}

fn is_loopback(url: &Url) -> bool {
    has_host(url, |address| address.is_loopback(), |name| name == "localhost")
}

fn has_host(url: &Url, address: impl Fn(IpAddr) -> bool, name: impl Fn(&str) -> bool) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => address(v4.into()),
        Some(Host::Ipv6(v6)) => address(v6.into()),
        Some(Host::Domain(domain)) => name(domain),
        None => false,
    }
}

/// Whether a name can be in the public DNS. The address is checked before each request.
fn is_public_name(name: &str) -> bool {
    const PRIVATE: [&str; 4] = ["localhost", "local", "internal", "arpa"];
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label) && !PRIVATE.contains(&last)
}

spelled! {
    /// Which webhooks the service accepts.
    WebhookPolicy, "a policy of webhooks",
    Off = "false",
    Public = "true",
    /// Also those on this machine. The template does not allow this value: only the local stack sets it.
    AlsoLoopback = "loopback",
}

impl WebhookPolicy {
    /// Refuses a webhook that the service cannot serve.
    pub fn check(self, webhook: Option<&Webhook>) -> Result<(), Problem> {
        let Some(webhook) = webhook else { return Ok(()) };
        match self {
            Self::Off => Err(Problem::field("/webhook", "must be absent: this service sends no webhooks".to_owned())),
            Self::Public if webhook.url.is_loopback() => {
                Err(Problem::field("/webhook/url", "must name a host on the public internet".to_owned()))
            }
            Self::Public | Self::AlsoLoopback => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_webhook_of_a_job_names_its_own_events() {
        let webhook = Webhook::of_job(json!({ "url": "https://example.com" }), "").expect("a webhook");
        assert_eq!(webhook.events, EventType::OF_JOB);
        assert_eq!(webhook.url.as_str(), "https://example.com/");
        let events = json!(["job.failed", "job.succeeded", "job.failed"]);
        let webhook = Webhook::of_job(json!({ "url": "https://example.com/a?b=c", "events": events }), "");
        assert_eq!(webhook.expect("a webhook").events, [EventType::JobSucceeded, EventType::JobFailed]);
        for events in [json!([]), json!("job.failed"), json!(["batch.ended"]), json!(["job.queued"]), json!([1])] {
            let faults = Webhook::of_job(json!({ "url": "https://example.com", "events": events }), "/webhook");
            assert_eq!(faults.expect_err("a fault")[0].pointer, "/webhook/events", "{events}");
        }
    }

    #[test]
    fn the_jobs_of_a_batch_send_only_the_events_that_were_asked_for() {
        let webhook = |value| Webhook::of_batch(value, "").expect("a webhook");
        assert_eq!(webhook(json!({ "url": "https://example.com" })).for_jobs(), None);
        let both = webhook(json!({ "url": "https://example.com", "events": ["batch.ended", "job.failed"] }));
        assert_eq!(both.for_jobs().expect("one event").events, [EventType::JobFailed]);
        assert!(both.wants(EventType::BatchEnded));
    }

    #[test]
    fn the_debug_output_does_not_show_the_url() {
        let url = WebhookUrl::parse("https://example.com/secret").expect("a URL");
        assert_eq!(format!("{url:?}"), "WebhookUrl(26 bytes)");
    }
}
