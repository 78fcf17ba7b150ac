use std::time::{Duration, Instant};

use shared::batch::Counts;

use crate::words::{human_duration, thousands};

/// The weight of the latest rate in the moving average.
const WEIGHT: f64 = 0.3;

/// Waits for `work`, and calls `show` every second.
pub(crate) async fn ticking<T>(work: impl Future<Output = T>, show: impl Fn()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        show();
        match tokio::time::timeout(Duration::from_secs(1), &mut work).await {
            Ok(done) => return done,
            Err(_) => continue,
        }
    }
}

/// Counts as text, such as "7 done, 1 failed of 8".
pub(crate) fn counts_text(counts: &Counts) -> String {
    let Counts { total, queued, running, succeeded, failed, canceled } = *counts;
    let parts =
        [(succeeded, "done"), (failed, "failed"), (canceled, "canceled"), (running, "painting"), (queued, "queued")];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, word)| format!("{} {word}", thousands(number as u64))).collect();
    format!("{} of {}", parts.join(", "), thousands(total as u64))
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    last: Option<(Instant, usize)>,
    rate: Option<f64>,
}

impl Progress {
    pub(crate) fn learn(&mut self, counts: &Counts) {
        let ended = counts_of_ended(counts);
        let Some((at, before)) = self.last else {
            self.last = Some((Instant::now(), ended));
            return;
        };
        let seconds = at.elapsed().as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        let now = ended.saturating_sub(before) as f64 / seconds;
        self.rate = Some(self.rate.map_or(now, |rate| rate * (1.0 - WEIGHT) + now * WEIGHT));
        self.last = Some((Instant::now(), ended));
    }

    /// A line of fewer than `columns` characters. `admitted` is how many jobs are stored, `saved` how many pictures.
    pub(crate) fn line(&self, counts: &Counts, admitted: Option<u64>, saved: Option<u64>, columns: usize) -> String {
        let total = counts.total as u64;
        let done = counts_of_ended(counts) as u64;
        let percent = done * 100 / total.max(1);
        let mut line = format!("{percent:3}% {}/{}", thousands(done), thousands(total));
        let mut add = |text: String| {
            if line.chars().count() + text.chars().count() + 2 < columns {
                line.push_str("  ");
                line.push_str(&text);
            }
        };
        let some = |number: usize| (number > 0).then_some(number as u64);
        let admitted = admitted.filter(|admitted| *admitted < total);
        for (number, word) in [
            (some(counts.failed), "failed"),
            (some(counts.canceled), "canceled"),
            (admitted, "admitted"),
            (saved, "saved"),
            (some(counts.running), "painting"),
            (some(counts.queued), "queued"),
        ] {
            if let Some(number) = number {
                add(format!("{} {word}", thousands(number)));
            }
        }
        if let Some(rate) = self.rate.filter(|rate| *rate > 0.0 && done < total) {
            add(if rate >= 1.0 { format!("{rate:.0}/s") } else { format!("{:.0}/min", rate * 60.0) });
            let left = Duration::try_from_secs_f64((total - done.min(total)) as f64 / rate).unwrap_or(Duration::MAX);
            // The counts are as old as the last poll.
            let since = self.last.map_or(Duration::ZERO, |(at, _)| at.elapsed());
            add(format!("{} left", human_duration(left.saturating_sub(since))));
        }
        line
    }
}

pub(crate) fn counts_of_ended(counts: &Counts) -> usize {
    counts.succeeded + counts.failed + counts.canceled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_begins_with_what_matters_most() {
        let counts = Counts { total: 20_000, queued: 12_345, running: 10, succeeded: 7_600, failed: 44, canceled: 1 };
        let progress = Progress { last: None, rate: Some(41.3) };
        let line = progress.line(&counts, Some(17_000), None, 80);
        assert!(line.starts_with(" 38% 7,645/20,000  44 failed  1 canceled  17,000 admitted"), "{line}");
        assert!(line.chars().count() < 80, "{line}");
        let line = progress.line(&counts, None, None, 90);
        assert!(line.ends_with("10 painting  12,345 queued  41/s  4m59s left"), "{line}");
        assert!(progress.line(&counts, None, Some(7), 30).chars().count() < 30);
    }
}
