//! The wire format of the queues.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{BatchId, JobId, Subject};
use crate::job::Job;
use crate::time::{Timestamp, optional_ms};

/// A message to process a job. It may come late, twice or needlessly, so the job's record decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The job.
    pub job: JobId,
    /// When the job was last queued; `None` in tickets from an older version.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_ms")]
    pub queued_at: Option<Timestamp>,
    /// The X-Ray trace header of the request that caused the ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A message to do the next step of a batch from a file. As with a job, the record decides what that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchTicket {
    /// The batch.
    pub batch: BatchId,
}

/// A message of one of the queues.
pub trait Message: Serialize + DeserializeOwned {
    /// What the message is about.
    fn subject(&self) -> Subject;

    /// Serializes the message with its version.
    fn to_body(&self) -> String {
        let body = Versioned { v: VERSION, message: self };
        serde_json::to_string(&body).expect("a message of strings and numbers is always JSON")
    }

    /// Parses a message's body. Unknown fields are ignored.
    fn from_body(body: &str) -> Result<Self, TicketError> {
        match serde_json::from_str(body) {
            Ok(Version { v: VERSION }) => serde_json::from_str(body).map_err(|_| TicketError::Malformed),
            Ok(Version { v }) if v > VERSION => Err(TicketError::Newer(v)),
            _ => Err(TicketError::Malformed),
        }
    }
}

/// Why a message's body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is from a newer version, which can read it once it is deployed.
    #[error("the ticket has version {0}, which is newer than this function")]
    Newer(u32),
    /// It is not a ticket.
    #[error("malformed ticket")]
    Malformed,
}

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    message: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Message for Ticket {
    fn subject(&self) -> Subject {
        Subject::Job(self.job)
    }
}

impl Message for BatchTicket {
    fn subject(&self) -> Subject {
        Subject::Batch(self.batch)
    }
}

impl Ticket {
    /// A ticket for the job as it is now queued.
    pub fn of(job: &Job, trace: Option<String>) -> Self {
        Self { job: job.id, queued_at: Some(job.queued_at), trace }
    }

    /// Whether the job was retried after the ticket was sent.
    pub fn predates_retry(&self, job: &Job) -> bool {
        self.queued_at.is_some_and(|queued_at| queued_at != job.queued_at)
    }

    /// The ticket to send for a job that may have none; `None` if the job has ended. A request may have crashed before
    /// it sent one, even if the job was claimed since, by a ticket from before a retry. An extra one does no harm.
    pub fn for_unfinished(job: &Job, trace: Option<&String>) -> Option<Self> {
        job.finished_at().is_none().then(|| Self::of(job, trace.cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_pinned() {
        let job: JobId = "01930000-0000-7000-8000-000000000001".parse().expect("an id");
        let (queued_at, trace) = (Some(Timestamp::from_ms(1_795_500_000_000)), Some("Root=1-2-3".to_owned()));
        for (ticket, fields) in [
            (Ticket { job, queued_at, trace }, r#","queued_at":1795500000000,"trace":"Root=1-2-3""#),
            (Ticket { job, queued_at: None, trace: None }, ""),
        ] {
            let body = format!(r#"{{"v":1,"job":"01930000-0000-7000-8000-000000000001"{fields}}}"#);
            assert_eq!(ticket.to_body(), body);
            assert_eq!(Ticket::from_body(&body), Ok(ticket));
        }
    }

    #[test]
    fn the_bytes_of_a_batch_ticket_are_pinned() {
        let body = r#"{"v":1,"batch":"01930000-0000-7000-8000-000000000001"}"#;
        let ticket = BatchTicket { batch: "01930000-0000-7000-8000-000000000001".parse().expect("an id") };
        assert_eq!(ticket.to_body(), body);
        assert_eq!(BatchTicket::from_body(body), Ok(ticket));
        assert_eq!(BatchTicket::from_body(r#"{"v":2}"#), Err(TicketError::Newer(2)));
        let job = r#"{"v":1,"job":"01930000-0000-7000-8000-000000000001"}"#;
        assert_eq!(BatchTicket::from_body(job), Err(TicketError::Malformed));
    }

    #[test]
    fn a_malformed_ticket_is_distinguished_from_a_newer_one() {
        for body in ["", "null", "{}", r#"{"v":1}"#, r#"{"v":1,"job":"X"}"#, r#"{"v":0}"#, "not JSON"] {
            assert_eq!(Ticket::from_body(body), Err(TicketError::Malformed), "{body}");
        }
        assert_eq!(Ticket::from_body(r#"{"v":2,"work":[]}"#), Err(TicketError::Newer(2)));
        let added = r#"{"v":1,"job":"01930000-0000-7000-8000-000000000001","priority":5}"#;
        assert!(Ticket::from_body(added).is_ok());
    }
}
