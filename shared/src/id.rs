//! The ids of jobs and batches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::caller::{IdempotencyKey, Owner};

/// The text is not a valid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct NotAnId;

/// Lets `serde` read and write an id by its text.
macro_rules! by_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = $crate::id::NotAnId;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}
pub(crate) use by_text;

/// Defines an id: a UUID, only in lower case with hyphens.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $domain:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id that sorts by time (a UUIDv7).
            #[expect(clippy::new_without_default, reason = "a name out of nowhere should be asked for by name")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that is derived from an owner's key (a UUIDv8).
            pub fn from_key(owner: &Owner, key: &IdempotencyKey) -> Self {
                Self(derived($domain, &[owner.as_str().as_bytes(), key.as_bytes()]))
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let id = Uuid::try_parse(text).map_err(|_| NotAnId)?;
                // Reject other spellings, so that each record has one URL.
                let spelled = *id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
                if spelled { Ok(Self(id)) } else { Err(NotAnId) }
            }
        }

        by_text!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// The id of a job.
    JobId, "job"
}

id! {
    /// The id of a batch.
    BatchId, "batch"
}

/// The job or batch that a message or an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A job.
    Job(JobId),
    /// A batch.
    Batch(BatchId),
}

impl Subject {
    /// The id of the job or that of the batch.
    pub fn ids(self) -> (Option<JobId>, Option<BatchId>) {
        match self {
            Self::Job(id) => (Some(id), None),
            Self::Batch(id) => (None, Some(id)),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job_{id}"),
            Self::Batch(id) => write!(f, "batch_{id}"),
        }
    }
}

impl FromStr for Subject {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        match text.split_once('_').ok_or(NotAnId)? {
            ("job", id) => id.parse().map(Self::Job),
            ("batch", id) => id.parse().map(Self::Batch),
            _ => Err(NotAnId),
        }
    }
}

impl JobId {
    /// The id of the job at `index` of a batch.
    pub fn in_batch(batch: BatchId, index: usize) -> Self {
        Self(derived("batch job", &[batch.0.as_bytes(), &(index as u64).to_be_bytes()]))
    }
}

/// A UUIDv8 from a digest of `parts` with their lengths, so that different parts never have the same encoding.
fn derived(domain: &str, parts: &[&[u8]]) -> Uuid {
    let mut digest = Sha256::new();
    for part in [domain.as_bytes()].iter().chain(parts) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    Uuid::new_v8(std::array::from_fn(|i| digest[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = JobId::new().to_string();
        assert_eq!(id.parse::<JobId>().expect("it is an id").to_string(), id);
        let others =
            [id.to_uppercase(), id.replace('-', ""), format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new()];
        for other in others {
            assert_eq!(other.parse::<JobId>(), Err(NotAnId), "{other}");
        }
    }

    #[test]
    fn a_key_names_one_job_of_one_owner() {
        let key = |text: &str| text.parse::<IdempotencyKey>().expect("a good key");
        let (alice, bob) = (Owner::new("alice"), Owner::new("bob"));
        assert_eq!(JobId::from_key(&alice, &key("k")), JobId::from_key(&alice, &key("k")));
        assert_ne!(JobId::from_key(&alice, &key("k")), JobId::from_key(&bob, &key("k")));
        assert_ne!(JobId::from_key(&Owner::new("ab"), &key("c")), JobId::from_key(&Owner::new("a"), &key("bc")));
        assert_ne!(JobId::from_key(&alice, &key("k")).0, BatchId::from_key(&alice, &key("k")).0);
        let batch = BatchId::from_key(&alice, &key("k"));
        assert_ne!(JobId::in_batch(batch, 0), JobId::in_batch(batch, 1));
        assert!(JobId::in_batch(batch, 0).to_string().parse::<JobId>().is_ok());
    }
}
