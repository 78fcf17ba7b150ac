//! Which hosts are left alone for a while.
//!
//! An endpoint that does not answer takes the whole timeout of every delivery to it. With a thousand deliveries waiting, it
//! would take the time of all invocations. So an instance that has seen a timeout tries nothing on that host for a minute,
//! and returns the deliveries to the queue without counting a try.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a host is left alone after a timeout.
pub(crate) const PAUSE: Duration = Duration::from_secs(60);

/// The hosts of this instance that are left alone, each with its port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Mutex<HashMap<String, Instant>>>);

impl Pauses {
    /// Leaves a host alone from now on.
    pub(crate) fn begin(&self, host: String) {
        let now = Instant::now();
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|_, end| *end > now);
        ends.insert(host, now + PAUSE);
    }

    /// How long the host is still left alone.
    pub(crate) fn left(&self, host: &str) -> Option<Duration> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(host)?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_left_alone_for_a_minute_and_others_are_not() {
        let pauses = Pauses::default();
        pauses.begin("slow.example:443".to_owned());
        assert_eq!(pauses.left("slow.example:443"), Some(PAUSE));
        assert_eq!(pauses.left("example.com:443"), None);
        tokio::time::advance(PAUSE).await;
        assert_eq!(pauses.left("slow.example:443"), None);
        pauses.begin("example.com:443".to_owned());
        assert_eq!(pauses.0.lock().expect("no one panicked").len(), 1, "what has ended is forgotten");
    }
}
