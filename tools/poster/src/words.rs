//! Numbers, times, faults and paths as text.

use std::path::Path;
use std::time::Duration;

use shared::api::JobView;
use shared::batch::BatchStatus;
use shared::fault::FieldError;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A number with separators, as in 20,000.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A count, as in "1 poster" and "20,000 posters".
pub(crate) fn count_of(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A duration in its two largest units: 42s, 3m05s, 2h10m.
pub(crate) fn human_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Breaks a text into lines that fit. A longer word has a line of its own.
pub(crate) fn wrapped(text: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let longer = lines.last().map(|line| format!("{line} {word}")).filter(|line| fits(line));
        match (lines.last_mut(), longer) {
            (Some(line), Some(longer)) => *line = longer,
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Cuts a text to one line of at most `columns` columns. A character may take two columns, or none.
pub(crate) fn ellipsize(text: &str, columns: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.width() <= columns {
        return flat;
    }
    format!("{}…", fitting(&flat, columns.saturating_sub(1)).trim_end())
}

/// The beginning of a text that takes at most `columns` columns.
pub(crate) fn fitting(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        taken > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// A path relative to the current directory if it lies in it.
pub(crate) fn short_path(path: &Path) -> &Path {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    here.ok().and_then(|here| path.strip_prefix(here).ok()).filter(|path| !path.as_os_str().is_empty()).unwrap_or(path)
}

/// A word quoted for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Faults, each as its pointer and its detail, as text for somebody who sees the line and not the request.
pub(crate) fn faults_text<'a>(faults: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let text = |(pointer, detail): (&str, &str)| match pointer.trim_start_matches('/') {
        "" => format!("the line {detail}"),
        field => format!("{} {detail}", field.replace('/', ".")),
    };
    faults.into_iter().map(text).collect::<Vec<_>>().join("; ")
}

pub(crate) fn errors_text(errors: &[FieldError]) -> String {
    faults_text(errors.iter().map(|error| (&*error.pointer, &*error.detail)))
}

/// A warning if the title of the job's poster is too small to read.
pub(crate) fn title_warning(job: &JobView) -> Option<&'static str> {
    let lettering = job.image.as_ref()?.poster?;
    (lettering.legible == Some(false)).then_some("the title is too small to read; a shorter title is set larger")
}

pub(crate) fn status_text(status: BatchStatus) -> String {
    status.as_str().replace('_', " ")
}

/// A text without control characters. It may come from a file or from the service.
pub(crate) fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_well() {
        assert_eq!([0, 999, 1000, 20_000, 1_234_567].map(thousands), ["0", "999", "1,000", "20,000", "1,234,567"]);
        assert_eq!((count_of(1, "poster"), count_of(2, "poster")), ("1 poster".to_owned(), "2 posters".to_owned()));
        assert_eq!(
            [5, 65, 3725, 90_000].map(|secs| human_duration(Duration::from_secs(secs))),
            ["5s", "1m05s", "1h02m", "1d01h"]
        );
        assert_eq!(ellipsize("A  heist\non the moon", 10), "A heist o…");
        assert_eq!(ellipsize("short", 10), "short");
        assert_eq!(ellipsize("月面の強盗団", 7), "月面の…", "these letters take two columns each");
        assert_eq!(fitting("e\u{301}e\u{301}e", 2), "e\u{301}e\u{301}", "and an accent none");
        assert_eq!(plain("é\u{1b}]0;owned\u{7}\u{9b}\r\n"), "é\u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}\n");
        assert_eq!(wrapped("A heist on the moon", |line| line.width() <= 8), ["A heist", "on the", "moon"]);
    }
}
