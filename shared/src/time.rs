//! Timestamps and clocks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;
use ::time::format_description::BorrowedFormatItem;
use ::time::format_description::well_known::Rfc3339;
use ::time::macros::format_description;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// RFC 3339, always with milliseconds, so that texts sort by time.
const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A time in milliseconds, written as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, rounded up.
    pub const fn secs_ceil(self) -> i64 {
        self.0.div_euclid(1000) + (self.0.rem_euclid(1000) != 0) as i64
    }

    /// This time, rounded up to a second.
    pub const fn whole_secs(self) -> Self {
        Self(self.secs_ceil() * 1000)
    }

    /// This time, rounded down to a multiple of `span` since the Unix epoch.
    pub fn round_down(self, span: Duration) -> Self {
        Self(self.0 - self.0.rem_euclid(saturating_ms(span).max(1)))
    }

    /// The time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time as the standard library's type.
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH + self.since(Self(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(saturating_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_ms(span)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_ms(span)))
    }
}

fn saturating_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|time| time.format(MILLISECONDS).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
        Ok(Self((time.unix_timestamp_nanos() / 1_000_000) as i64))
    }
}

/// Writes a time as milliseconds since the Unix epoch, by `#[serde(with)]`.
pub(crate) mod ms {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        time.0.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp)
    }
}

pub(crate) mod optional_ms {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(Timestamp::ms).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Timestamp::from_ms))
    }
}

/// A clock. Clones share it, so advancing one advances all of them.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    still: Option<Timestamp>,
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The system clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that is stopped at `time`, for deterministic tests.
    pub fn still(time: Timestamp) -> Self {
        Self { still: Some(time), ..Self::default() }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        let time = self.still.unwrap_or_else(|| Timestamp::from(SystemTime::now()));
        Timestamp(time.0 + self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Moves this clock and its clones forward, for tests.
    pub fn advance(&self, span: Duration) {
        self.ahead_ms.fetch_add(saturating_ms(span), Ordering::Relaxed);
    }

    /// Moves this clock and its clones back, as if it was set anew, for tests.
    pub fn set_back(&self, span: Duration) {
        self.ahead_ms.fetch_sub(saturating_ms(span), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_back_what_it_writes() {
        let time = Timestamp::from_ms(1_795_000_000_123);
        let json = serde_json::to_string(&time).expect("a timestamp is JSON");
        assert_eq!(json, "\"2026-11-18T11:06:40.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("it reads back"), time);
        assert_eq!(time.secs_ceil(), 1_795_000_001);
    }
}
