//! Requests to replay many deliveries.

use serde_json::Value;

use crate::delivery::DeliveryStatus;
use crate::json::{Fields, string};
use crate::problem::Problem;
use crate::time::Timestamp;

/// Which deliveries of an owner to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Those that were created at this time or later,
    pub since: Timestamp,
    /// and not after this time; `None` is now.
    pub until: Option<Timestamp>,
    /// Those with this status.
    pub status: DeliveryStatus,
    /// The cursor from the answer to an earlier request with the same span and status.
    pub cursor: Option<String>,
}

impl ReplayRequest {
    /// Parses the body of a request. By default, failed deliveries are replayed.
    pub fn parse(body: Value) -> Result<Self, Problem> {
        let mut fields = Fields::new(body, "").map_err(Problem::faults)?;
        let since = fields.required("since", time);
        let until = fields.optional("until", time);
        let status = fields.optional("status", |value| string(value)?.parse());
        let cursor = fields.optional("cursor", string);
        let status = status.unwrap_or(DeliveryStatus::Failed);
        fields.finish(since.map(|since| Self { since, until, status, cursor })).map_err(Problem::faults)
    }
}

fn time(value: Value) -> Result<Timestamp, String> {
    serde_json::from_value(value).map_err(|_| "must be a time, such as 2026-11-28T13:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_failed_is_replayed_unless_the_request_says_otherwise() {
        let since = json!("2026-11-18T11:06:40.123Z");
        let request = ReplayRequest::parse(json!({ "since": since, "until": null })).expect("a good request");
        let since_ms = Timestamp::from_ms(1_795_000_000_123);
        let default = ReplayRequest { since: since_ms, until: None, status: DeliveryStatus::Failed, cursor: None };
        assert_eq!(request, default);
        let body = json!({ "since": since, "until": "2026-11-18T12:06:40.123+01:00", "status": "pending" });
        let pending = ReplayRequest { until: Some(since_ms), status: DeliveryStatus::Pending, ..default };
        assert_eq!(ReplayRequest::parse(body), Ok(pending));
    }

    #[test]
    fn every_fault_of_a_request_is_named() {
        let body = json!({ "until": "tomorrow", "status": "lost", "cursor": 7, "sinse": 1 });
        let Err(Problem::InvalidRequest(faults)) = ReplayRequest::parse(body) else { panic!("it is faulty") };
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/since", "/until", "/status", "/cursor", "/sinse"]);
    }
}
