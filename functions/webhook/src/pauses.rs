//! Pauses deliveries to hosts that time out, for each owner: a thousand deliveries that take their whole timeout would
//! take the time of all invocations. Meanwhile tries fail at once, and are repeated as after any failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);

/// In a row. A few slow answers among many are no reason for a pause.
const TIMEOUTS: u32 = 3;

/// The hosts whose last request from this instance timed out, each with its owner and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Mutex<HashMap<String, Timeouts>>>);

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    in_a_row: u32,
    last: Instant,
}

impl Pauses {
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
