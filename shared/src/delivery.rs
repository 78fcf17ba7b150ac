//! Deliveries: the sending of events to the endpoints of callers, in the way of Standard Webhooks 1.0, see
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::caller::{IdempotencyKey, KeyDigests, Owner};
use crate::id::{NotAnId, Subject, by_text};
use crate::spelled::spelled;
use crate::ticket::Message;
use crate::time::{Timestamp, ms};
use crate::webhook::{EventType, WebhookUrl};

/// How long a delivery waits after each try that failed. After the last of them there is one more try.
pub const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(12 * 3600),
];

/// How long after it is due a delivery is tried at the latest: the visibility timeout, unless its message is lost.
const TIME_TO_TRY: Duration = Duration::from_secs(180);

/// How long a delivery's record is kept after its event.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How many tries a record keeps, the newest ones.
pub const MAX_TRIES: usize = 24;

/// The id of a delivery, the event's `webhook-id`. It is derived from what has ended, so an event that is queued twice
/// has one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId {
    /// The job or batch.
    pub subject: Subject,
    /// When the subject was queued or started, by its submission or a retry. A subject ends once after each of these.
    pub since: Timestamp,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subject, self.since.ms())
    }
}

impl FromStr for DeliveryId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (subject, since) = text.rsplit_once('_').ok_or(NotAnId)?;
        let id = Self { subject: subject.parse()?, since: Timestamp::from_ms(since.parse().map_err(|_| NotAnId)?) };
        // Reject other spellings of the number, so that each delivery has one URL.
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

by_text!(DeliveryId);

/// A message to send an event. It has everything that is sent, so that the function `webhook` reads no record of a job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct DeliveryMessage {
    pub id: DeliveryId,
    pub owner: Owner,
    pub url: WebhookUrl,
    #[serde(rename = "type")]
    pub event: EventType,
    #[serde(with = "ms")]
    pub at: Timestamp,
    /// How often the delivery was replayed before.
    pub round: u32,
    /// The body of the request, which is JSON.
    pub payload: String,
}

impl Message for DeliveryMessage {
    fn subject(&self) -> Subject {
        self.id.subject
    }
}

spelled! {
    /// The status of a delivery.
    DeliveryStatus, "a status of a delivery",
    Pending = "pending",
    Delivered = "delivered",
    Failed = "failed",
}

spelled! {
    /// Why a try failed without a usable answer.
    TryErrorCode, "an error code of a delivery",
    DnsFailed = "dns_failed",
    /// The host has an address that is not public.
    AddressForbidden = "address_forbidden",
    ConnectionRefused = "connection_refused",
    /// The connection failed in another way.
    ConnectionFailed = "connection_failed",
    TlsFailed = "tls_failed",
    CertificateInvalid = "certificate_invalid",
    /// There was no complete answer in time.
    Timeout = "timeout",
    AnswerBroken = "answer_broken",
    /// The answer leads to another URL, which is not followed.
    Redirect = "redirect",
    /// The endpoint answered 410 to an earlier event, so nothing is sent to it.
    EndpointGone = "endpoint_gone",
}

/// Why a try failed without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct TryError {
    pub code: TryErrorCode,
    pub message: String,
}

/// One request to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Try {
    pub round: u32,
    #[serde(with = "ms")]
    pub at: Timestamp,
    pub duration_ms: u64,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why there was none, or why it does not count.
    pub error: Option<TryError>,
    /// The first bytes of the answer's body, as text.
    pub response: Option<String>,
}

impl Try {
    /// When the answer was complete, or the request had failed.
    pub fn end(&self) -> Timestamp {
        self.at + Duration::from_millis(self.duration_ms)
    }

    /// Whether the endpoint accepted the event.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status)) && self.error.is_none()
    }

    /// Whether the endpoint said that it wants no more events, see RFC 9110, section 15.5.11.
    pub fn is_gone(&self) -> bool {
        self.status == Some(410)
    }
}

/// A delivery, as recorded in the table of deliveries.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Delivery {
    pub id: DeliveryId,
    pub owner: Owner,
    pub url: WebhookUrl,
    pub event: EventType,
    /// When it happened.
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The version number of the record, which each change raises by one. It is 0 before the record is stored.
    pub fence: u64,
    pub status: DeliveryStatus,
    /// When it will be tried again, if it will.
    pub next_try_at: Option<Timestamp>,
    /// How often it was replayed.
    pub round: u32,
    /// The keys of the last requests that replayed it.
    pub replay_keys: KeyDigests<8>,
    /// The tries, oldest first, at most [`MAX_TRIES`].
    pub tries: Vec<Try>,
    pub payload: String,
}

impl Delivery {
    /// The delivery that a message asks for, before its first try.
    pub fn new(message: &DeliveryMessage) -> Self {
        Self {
            id: message.id,
            owner: message.owner.clone(),
            url: message.url.clone(),
            event: message.event,
            created_at: message.at,
            expires_at: (message.at + KEPT).whole_secs(),
            fence: 0,
            status: DeliveryStatus::Pending,
            next_try_at: None,
            round: message.round,
            replay_keys: KeyDigests::default(),
            tries: Vec::new(),
            payload: message.payload.clone(),
        }
    }

    /// The delivery after a try, and the wait for the next one; `None` if there is none. A try of an earlier round, or
    /// one that failed after the delivery has ended, is only noted.
    pub fn tried(mut self, tried: Try) -> (Self, Option<Duration>) {
        let decides = tried.round == self.round && (self.status == DeliveryStatus::Pending || tried.succeeded());
        let end = tried.end();
        let before = self.tries.iter().filter(|earlier| earlier.round == self.round).count();
        let wait = SCHEDULE.get(before).copied();
        let stops =
            tried.is_gone() || tried.error.as_ref().is_some_and(|error| error.code == TryErrorCode::EndpointGone);
        let (status, wait) = match wait {
            _ if tried.succeeded() => (DeliveryStatus::Delivered, None),
            Some(wait) if !stops => (DeliveryStatus::Pending, Some(wait)),
            _ => (DeliveryStatus::Failed, None),
        };
        self.tries.push(tried);
        self.tries.drain(..self.tries.len().saturating_sub(MAX_TRIES));
        self.fence += 1;
        if !decides {
            return (self, None);
        }
        self.status = status;
        self.next_try_at = wait.map(|wait| end + wait);
        (self, wait)
    }

    /// Whether it is about to be tried, so that a replay has nothing to do.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let since = self.next_try_at.filter(|&at| at <= now).map(|at| now.since(at));
        self.status == DeliveryStatus::Pending && since.is_some_and(|since| since < TIME_TO_TRY)
    }

    /// The delivery in its next round, which begins at `now`; `None` if a request with this key has replayed it before.
    pub fn replayed(&self, key: Option<&IdempotencyKey>, now: Timestamp) -> Option<Self> {
        let is_repeated = key.is_some_and(|key| self.replay_keys.contain(key));
        (!is_repeated).then(|| self.in_round(self.round + 1, key, now))
    }

    /// The delivery after a request with this key has sent the message of a round, which it may have reached already.
    pub fn in_round(&self, round: u32, key: Option<&IdempotencyKey>, now: Timestamp) -> Self {
        let replay_keys = self.replay_keys.with(key);
        Self { fence: self.fence + 1, replay_keys, ..self.clone() }.moved_to(round, now)
    }

    /// The delivery in a round that begins at `now`, unless it has reached this round already.
    pub fn moved_to(self, round: u32, now: Timestamp) -> Self {
        if round <= self.round {
            return self;
        }
        Self { round, status: DeliveryStatus::Pending, next_try_at: Some(now), ..self }
    }

    /// The message that asks for the delivery.
    pub fn message(&self) -> DeliveryMessage {
        DeliveryMessage {
            id: self.id,
            owner: self.owner.clone(),
            url: self.url.clone(),
            event: self.event,
            at: self.created_at,
            round: self.round,
            payload: self.payload.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::TicketError;

    fn message() -> DeliveryMessage {
        DeliveryMessage {
            id: "job_01930000-0000-7000-8000-000000000001_1795500000000".parse().expect("an id"),
            owner: Owner::new("alice"),
            url: WebhookUrl::parse("https://example.com/posters").expect("a URL"),
            event: EventType::JobFailed,
            at: Timestamp::from_ms(1_795_500_001_000),
            round: 0,
            payload: r#"{"type":"job.failed"}"#.to_owned(),
        }
    }

    fn answered(status: u16) -> Try {
        let at = Timestamp::from_ms(1_795_500_002_000);
        Try { round: 0, at, duration_ms: 0, status: Some(status), error: None, response: None }
    }

    #[test]
    fn the_bytes_of_a_message_are_pinned() {
        let body = r#"{"v":1,"id":"job_01930000-0000-7000-8000-000000000001_1795500000000","owner":"alice","url":"https://example.com/posters","type":"job.failed","at":1795500001000,"round":0,"payload":"{\"type\":\"job.failed\"}"}"#;
        assert_eq!(message().to_body(), body);
        assert!(DeliveryMessage::from_body(body).is_ok_and(|read| read == message()));
        assert_eq!(DeliveryMessage::from_body(r#"{"v":2}"#).err(), Some(TicketError::Newer(2)));
        assert_eq!(DeliveryMessage::from_body(r#"{"v":1,"id":"job_1"}"#).err(), Some(TicketError::Malformed));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = message().id.to_string();
        for other in [id.to_uppercase(), format!("{id} "), id.replace("_179", "_+179"), id.replace("_179", "_0179")] {
            assert_eq!(other.parse::<DeliveryId>(), Err(NotAnId), "{other}");
        }
    }

    #[test]
    fn a_delivery_is_given_up_after_eight_tries_and_a_replay_begins_again() {
        let mut delivery = Delivery::new(&message());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let (next, wait) = delivery.tried(answered(503));
            (delivery, waits) = (next, [waits, wait.into_iter().collect()].concat());
        }
        assert_eq!((waits.as_slice(), delivery.status), (&SCHEDULE[..], DeliveryStatus::Failed));
        let again = delivery.replayed(None, Timestamp::from_ms(1_795_500_003_000)).expect("no key");
        assert_eq!((again.round, again.status, again.message().id), (1, DeliveryStatus::Pending, delivery.id));
        let (again, wait) = again.tried(Try { round: 1, ..answered(503) });
        assert_eq!((again.status, wait), (DeliveryStatus::Pending, Some(SCHEDULE[0])));
        let round = again.replayed(None, Timestamp::from_ms(0)).expect("no key").round;
        assert_eq!(round, 2, "a pending one begins again too");
    }

    #[test]
    fn a_delivery_is_due_until_its_message_must_be_lost() {
        let (now, second) = (Timestamp::from_ms(1_795_500_003_000), Duration::from_secs(1));
        let replayed = Delivery::new(&message()).replayed(None, now).expect("no key");
        assert!(replayed.is_due(now) && replayed.is_due(now + TIME_TO_TRY - second));
        assert!(!replayed.is_due(now - second) && !replayed.is_due(now + TIME_TO_TRY));
        assert!(!replayed.tried(Try { round: 1, ..answered(200) }).0.is_due(now));
    }

    #[test]
    fn a_repeated_request_replays_a_delivery_once() {
        let now = Timestamp::from_ms(1_795_500_003_000);
        let key = |number: usize| format!("key-{number}").parse::<IdempotencyKey>().expect("a key");
        let mut delivery = Delivery::new(&message());
        for number in 0..=8 {
            delivery = delivery.replayed(Some(&key(number)), now).expect("a new key");
            assert!(delivery.replayed(Some(&key(number)), now).is_none());
        }
        assert!(delivery.replayed(Some(&key(0)), now).is_some(), "only the last keys are kept");
    }

    #[test]
    fn a_late_try_is_noted_and_changes_nothing_else() {
        let (delivered, _) = Delivery::new(&message()).tried(answered(200));
        let (late, wait) = delivered.clone().tried(answered(503));
        assert_eq!((late.status, wait, late.tries.len()), (DeliveryStatus::Delivered, None, 2));
        let replayed = delivered.replayed(None, Timestamp::from_ms(0)).expect("no key");
        let (late, wait) = replayed.tried(answered(200));
        assert_eq!((late.status, wait, late.fence), (DeliveryStatus::Pending, None, 3));
        let (gone, _) = Delivery::new(&message()).tried(answered(410));
        let (late, wait) = gone.clone().tried(answered(503));
        assert_eq!((late.status, wait), (DeliveryStatus::Failed, None));
        assert_eq!(gone.tried(answered(200)).0.status, DeliveryStatus::Delivered, "a duplicate came through");
    }

    #[test]
    fn an_endpoint_ends_a_delivery_by_2xx_or_410() {
        for (status, end) in [
            (200, DeliveryStatus::Delivered),
            (204, DeliveryStatus::Delivered),
            (410, DeliveryStatus::Failed),
            (404, DeliveryStatus::Pending),
            (302, DeliveryStatus::Pending),
        ] {
            assert_eq!(Delivery::new(&message()).tried(answered(status)).0.status, end, "{status}");
        }
    }
}
