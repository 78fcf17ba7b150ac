//! The secrets that sign what is sent to endpoints, as the specification of [deliveries](crate::delivery) says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::caller::{IdempotencyKey, KeyDigests, Owner};
use crate::time::Timestamp;

/// How long an earlier secret stays valid after a rotation.
pub const OVERLAP: Duration = Duration::from_secs(86_400);

/// How far the timestamp of a request may be from the receiver's clock.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// How many secrets of an owner may be valid at once.
pub const MOST_VALID: usize = 8;

const PREFIX: &str = "whsec_";

const SYMMETRIC: &str = "v1,";

/// The stack's secret, from which those of the owners are derived.
#[derive(Clone)]
pub struct MasterSecret(Hmac<Sha256>);

impl MasterSecret {
    /// The master secret with this text.
    pub fn new(text: &str) -> Self {
        Self(hmac(text.as_bytes()))
    }

    /// An owner's secret with this number.
    pub fn secret(&self, owner: &Owner, number: u32) -> WebhookSecret {
        let mut mac = self.0.clone();
        mac.update(b"webhook secret");
        mac.update(&number.to_be_bytes());
        mac.update(owner.as_str().as_bytes());
        WebhookSecret(mac.finalize().into_bytes().to_vec())
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterSecret")
    }
}

/// A secret that an owner shares with the service.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// The text is not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and 24 to 64 bytes in base64")]
pub struct NotASecret;

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum Unverified {
    #[error("the header webhook-timestamp is not a number of seconds")]
    NoTimestamp,
    #[error("the header webhook-timestamp is more than five minutes away from this machine's clock")]
    WrongTime,
    #[error("no signature in the header webhook-signature is by the secret")]
    WrongSignature,
}

impl WebhookSecret {
    /// The text that callers see.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", base64_simd::STANDARD.encode_to_string(&self.0))
    }

    /// The signature of a request with this id, Unix time in seconds, and body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let code = self.mac(id, timestamp, body).finalize().into_bytes();
        format!("{SYMMETRIC}{}", base64_simd::STANDARD.encode_to_string(code))
    }

    /// Checks `webhook-id`, `webhook-timestamp` and `webhook-signature` of a request that is received at `now`.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Unverified> {
        let secs: i64 = timestamp.parse().map_err(|_| Unverified::NoTimestamp)?;
        let sent = Timestamp::from_ms(secs.saturating_mul(1000));
        if now.since(sent).max(sent.since(now)) > TOLERANCE {
            return Err(Unverified::WrongTime);
        }
        let mut codes = signatures.split(' ').filter_map(|signature| signature.strip_prefix(SYMMETRIC));
        let is_ours = |code: &str| {
            let code = base64_simd::STANDARD.decode_to_vec(code);
            code.is_ok_and(|code| self.mac(id, secs, body).verify_slice(&code).is_ok())
        };
        if codes.any(is_ours) { Ok(()) } else { Err(Unverified::WrongSignature) }
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = hmac(&self.0);
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }
}

impl FromStr for WebhookSecret {
    type Err = NotASecret;
    fn from_str(text: &str) -> Result<Self, NotASecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| base64_simd::STANDARD.decode_to_vec(text).ok());
        bytes.filter(|bytes| (24..=64).contains(&bytes.len())).map(Self).ok_or(NotASecret)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Which secrets of an owner are valid. An owner who has never rotated has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretNumbers {
    /// The number of the current secret.
    pub current: u32,
    /// The numbers of earlier secrets, oldest first, and until when each is valid.
    pub former: Vec<(u32, Timestamp)>,
    /// The keys of the last requests that rotated.
    pub keys: KeyDigests<MOST_VALID>,
}

impl SecretNumbers {
    /// The numbers of the secrets that are valid at `now`, the current one first, and until when each is valid.
    pub fn valid(&self, now: Timestamp) -> impl Iterator<Item = (u32, Option<Timestamp>)> {
        let former = self.former.iter().rev().filter(move |(_, until)| *until > now);
        std::iter::once((self.current, None)).chain(former.map(|&(number, until)| (number, Some(until))))
    }

    /// Makes a new secret the current one; `None` if a request with this key did so before. The error is the time until
    /// which too many secrets are valid.
    pub fn rotate(&self, key: Option<&IdempotencyKey>, now: Timestamp) -> Result<Option<Self>, Timestamp> {
        if key.is_some_and(|key| self.keys.contain(key)) {
            return Ok(None);
        }
        if self.valid(now).count() >= MOST_VALID {
            return Err(self.valid(now).filter_map(|(_, until)| until).min().unwrap_or(now));
        }
        let mut former = self.former.clone();
        former.retain(|(_, until)| *until > now);
        former.push((self.current, now + OVERLAP));
        Ok(Some(Self { current: self.current + 1, former, keys: self.keys.with(key) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        let secret: WebhookSecret = SECRET.parse().expect("a secret");
        assert_eq!(secret.to_text(), SECRET);
        assert_eq!(secret.sign(ID, 1_614_265_330, BODY), SIGNATURE);
    }

    #[test]
    fn a_request_is_accepted_only_as_it_was_signed() {
        let secret: WebhookSecret = SECRET.parse().expect("a secret");
        let now = Timestamp::from_ms(1_614_265_330_000);
        let verify = |id, timestamp, signatures: &str, body, now| secret.verify(id, timestamp, signatures, body, now);
        let signatures = format!("v1a,x {SIGNATURE}");
        assert_eq!(verify(ID, "1614265330", &signatures, BODY, now), Ok(()));
        assert_eq!(verify("msg_x", "1614265330", &signatures, BODY, now), Err(Unverified::WrongSignature));
        assert_eq!(verify(ID, "1614265331", &signatures, BODY, now), Err(Unverified::WrongSignature));
        assert_eq!(verify(ID, "1614265330", &signatures, b"{}", now), Err(Unverified::WrongSignature));
        assert_eq!(verify(ID, "1614265330", "v1,", BODY, now), Err(Unverified::WrongSignature));
        assert_eq!(verify(ID, "soon", &signatures, BODY, now), Err(Unverified::NoTimestamp));
        for extreme in ["-9223372036854775808", "9223372036854775807"] {
            assert_eq!(verify(ID, extreme, &signatures, BODY, now), Err(Unverified::WrongTime));
        }
        let late = now + TOLERANCE + Duration::from_secs(1);
        assert_eq!(verify(ID, "1614265330", &signatures, BODY, late), Err(Unverified::WrongTime));
    }

    #[test]
    fn each_owner_and_number_has_a_secret_of_its_own() {
        let master = MasterSecret::new("master");
        let (alice, bob) = (Owner::new("alice"), Owner::new("bob"));
        assert_eq!(master.secret(&alice, 0), master.secret(&alice, 0));
        assert_ne!(master.secret(&alice, 0), master.secret(&bob, 0));
        assert_ne!(master.secret(&alice, 0), master.secret(&alice, 1));
        assert_ne!(master.secret(&alice, 0), MasterSecret::new("other").secret(&alice, 0));
        assert_eq!(master.secret(&alice, 0).to_text().parse(), Ok(master.secret(&alice, 0)));
    }

    #[test]
    fn a_rotation_keeps_the_secret_before_it_for_a_day() {
        let now = Timestamp::from_ms(0);
        let key: IdempotencyKey = "first".parse().expect("a key");
        let rotated = SecretNumbers::default().rotate(Some(&key), now).expect("few").expect("new");
        assert_eq!(rotated.valid(now).collect::<Vec<_>>(), [(1, None), (0, Some(now + OVERLAP))]);
        assert_eq!(rotated.valid(now + OVERLAP).collect::<Vec<_>>(), [(1, None)]);
        assert_eq!(rotated.rotate(Some(&key), now), Ok(None), "it was repeated");
        let mut numbers = rotated;
        for _ in 2..MOST_VALID {
            numbers = numbers.rotate(None, now).expect("few").expect("new");
        }
        assert_eq!(numbers.rotate(None, now), Err(now + OVERLAP));
        assert!(numbers.rotate(None, now + OVERLAP).is_ok());
    }
}
