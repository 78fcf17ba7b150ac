//! Identifies the caller, and repeated requests.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::text::hex;

/// The caller who submitted a job and may see it, see [`crate::aws::callers::OwnerFrom`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(String);

impl Owner {
    /// The owner with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key that makes it safe to repeat a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A digest that identifies the key in a record.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.as_bytes())[..8])
    }

    /// The key as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for IdempotencyKey {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err("must have 1 to 255 visible ASCII characters") }
    }
}

/// Digests of the keys of the last requests that changed a record, at most `N`, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyDigests<const N: usize>(Vec<String>);

impl<const N: usize> KeyDigests<N> {
    /// How many are kept.
    pub const MOST: usize = N;

    /// Adds a digest, which may have more digits than are kept.
    pub fn with_digest(mut self, digest: &str) -> Self {
        let digest = digest.chars().take(16).collect();
        if !self.0.contains(&digest) {
            self.0.push(digest);
        }
        self
    }

    /// Whether no request with a key has changed the record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with this key has changed the record.
    pub fn contain(&self, key: &IdempotencyKey) -> bool {
        self.0.contains(&key.digest())
    }

    /// Adds a key and drops the oldest if there are too many.
    pub fn with(&self, key: Option<&IdempotencyKey>) -> Self {
        let mut digests = self.0.clone();
        digests.extend(key.map(IdempotencyKey::digest));
        digests.drain(..digests.len().saturating_sub(N));
        Self(digests)
    }
}
