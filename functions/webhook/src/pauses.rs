//! Which hosts are left alone for a while, for each owner.
//!
//! An endpoint that does not answer takes the whole timeout of every delivery to it. With a thousand deliveries due, it
//! would take the time of all invocations. So after a few timeouts in a row an instance sends nothing to that host for a
//! minute: tries fail at once, and the deliveries wait as after any other try that failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a host is left alone after its last timeout.
const PAUSE: Duration = Duration::from_secs(60);

/// How many timeouts in a row it takes. A few slow answers among many are no reason to leave a host alone.
const TIMEOUTS: u32 = 3;

/// The hosts that did not answer this instance the last time, each with its owner and its port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Mutex<HashMap<String, Timeouts>>>);

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    in_a_row: u32,
    last: Instant,
}

impl Pauses {
    /// Notes whether a request to the host timed out.
    pub(crate) fn learn(&self, host: &str, timed_out: bool) {
        let now = Instant::now();
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if timed_out {
            hosts.retain(|_, timeouts| now.duration_since(timeouts.last) < PAUSE);
            let timeouts = hosts.entry(host.to_owned()).or_insert(Timeouts { in_a_row: 0, last: now });
            *timeouts = Timeouts { in_a_row: timeouts.in_a_row + 1, last: now };
        } else {
            hosts.remove(host);
        }
    }

    /// Whether the host is left alone.
    pub(crate) fn include(&self, host: &str) -> bool {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host).is_some_and(|timeouts| timeouts.in_a_row >= TIMEOUTS && timeouts.last.elapsed() < PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_left_alone_for_a_minute_after_timeouts_in_a_row() {
        let pauses = Pauses::default();
        for timed_out in [true, true, false, true, true] {
            pauses.learn("slow.example:443", timed_out);
            assert!(!pauses.include("slow.example:443"));
        }
        pauses.learn("slow.example:443", true);
        assert!(pauses.include("slow.example:443") && !pauses.include("example.com:443"));
        tokio::time::advance(PAUSE).await;
        assert!(!pauses.include("slow.example:443"));
        pauses.learn("example.com:443", true);
        assert_eq!(pauses.0.lock().expect("no one panicked").len(), 1, "what has ended is forgotten");
    }
}
