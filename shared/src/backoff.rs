//! Delays before retries.

use std::time::Duration;

/// The delay before attempt `attempt` + 1: exponential with full jitter, at most `cap`. See "Exponential Backoff And
/// Jitter", <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
pub fn full_jitter(base: Duration, cap: Duration, attempt: u32) -> Duration {
    let ceiling = base.saturating_mul(1 << attempt.min(20)).min(cap);
    ceiling.mul_f64(fastrand::f64())
}

/// A random delay between `least` and `most`, for jobs that must not be retried too soon.
pub fn between(least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_stays_under_its_ceiling_and_reaches_far() {
        let (base, cap) = (Duration::from_secs(2), Duration::from_secs(900));
        let longest = |attempt| (0..500).map(|_| full_jitter(base, cap, attempt)).max().unwrap_or_default();
        assert!(longest(0) <= base);
        assert!(longest(u32::MAX) <= cap);
        assert!(longest(u32::MAX) > cap / 2);
    }
}
