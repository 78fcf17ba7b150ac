//! What a person sees on standard error, and what a program reads on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::failure::Failure;

/// How often the status line is redrawn at most.
const REDRAW: Duration = Duration::from_millis(100);

/// How often the status is told where there is no terminal to redraw it on.
const TELL: Duration = Duration::from_secs(10);

/// Standard error and standard output. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    json: bool,
    quiet: bool,
    redraws: bool,
    /// What the status line shows, if it shows anything.
    shown: Option<String>,
    told_at: Option<Instant>,
    /// How to go on after the command has ended early.
    way_on: Option<String>,
}

impl Terminal {
    /// With `json` data goes to standard output, with `quiet` only errors go to standard error.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let redraws = stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self(Arc::new(Mutex::new(Inner { json, quiet, redraws, shown: None, told_at: None, way_on: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: impl Display) {
        let mut inner = self.inner();
        if !inner.quiet {
            inner.above_status(&text.to_string());
        }
    }

    /// Says a longer text that stays, in lines that fit, each of which begins with `indent`.
    pub(crate) fn say_wrapped(&self, indent: &str, text: &str) {
        for line in wrapped(text, columns() - 1 - indent.len()) {
            self.say(format_args!("{indent}{line}"));
        }
    }

    /// Says why the command ends, unless the reader of its output has ended it.
    pub(crate) fn error(&self, failure: &Failure) {
        let mut inner = self.inner();
        let text = match failure {
            Failure::Unread => String::new(),
            Failure::Interrupted(_) => failure.to_string(),
            _ => format!("error: {failure}"),
        };
        for line in wrapped(&text, columns() - 1) {
            inner.above_status(&line);
        }
        if let (Some(way_on), false) = (inner.way_on.take(), matches!(failure, Failure::Usage(_))) {
            inner.above_status(&way_on);
        }
    }

    /// What to say of how to go on, should the command end early.
    pub(crate) fn way_on(&self, text: impl Display) {
        self.inner().way_on = Some(text.to_string());
    }

    /// Shows where things stand: in one line that is redrawn on a terminal, and otherwise in a line every ten seconds.
    pub(crate) fn status(&self, text: impl Display) {
        let mut inner = self.inner();
        if inner.quiet {
            return;
        }
        let every = if inner.redraws { REDRAW } else { TELL };
        if inner.told_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        inner.told_at = Some(Instant::now());
        let text = text.to_string();
        if inner.redraws {
            inner.redraw(Some(text));
        } else if inner.shown.as_ref() != Some(&text) {
            write_line(&text);
            inner.shown = Some(text);
        }
    }

    /// Has the next status shown whenever it comes.
    pub(crate) fn hurry(&self) {
        self.inner().told_at = None;
    }

    /// Takes the status line away.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner();
        inner.redraw(None);
    }

    /// Shows a line of what was asked for on standard output, unless that is to have JSON.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn show(&self, text: impl Display) -> Result<(), Failure> {
        if self.inner().json {
            return Ok(());
        }
        self.clear();
        print(format!("{}\n", plain(&text.to_string())).as_bytes())
    }

    /// Writes data as one JSON line to standard output, where that was asked for.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn data(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.inner().json {
            return Ok(());
        }
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::Local(error.to_string()))?;
        line.push(b'\n');
        print(&line)
    }

    /// Whether somebody sits at a terminal.
    pub(crate) fn is_watched(&self) -> bool {
        self.inner().redraws
    }

    /// How many columns a line of the status may have.
    pub(crate) fn columns(&self) -> usize {
        columns()
    }

    /// How many columns a line on standard output may have: any number, where a program reads it.
    pub(crate) fn columns_of_output(&self) -> usize {
        if stdout().is_terminal() { columns() } else { usize::MAX }
    }
}

impl Inner {
    fn above_status(&mut self, text: &str) {
        let status = if self.redraws { self.shown.take() } else { None };
        if status.is_some() {
            erase();
        }
        write_line(text);
        if status.is_some() {
            self.redraw(status);
        }
    }

    fn redraw(&mut self, text: Option<String>) {
        if !self.redraws {
            return;
        }
        if self.shown.is_some() || text.is_some() {
            erase();
        }
        if let Some(text) = &text {
            let plain = plain(text);
            let shown = fitting(&plain, columns() - 1);
            // Standard error may be closed, and then there is nobody left to tell.
            let _ = write!(stderr(), "{shown}");
            let _ = stderr().flush();
        }
        self.shown = text;
    }
}

/// Writes to standard output.
///
/// # Errors
/// When that is closed or cannot be written to.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    stdout().write_all(bytes).and_then(|()| stdout().flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Local(format!("standard output: {error}")),
    })
}

fn write_line(text: &str) {
    let _ = writeln!(stderr(), "{}", plain(text));
}

/// The text without what a terminal would obey: it may come from a file or from the service.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

fn erase() {
    let _ = write!(stderr(), "\r\x1b[2K");
}

fn columns() -> usize {
    terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| usize::from(width.0)).max(20)
}

/// A number with its thousands apart, as in 20,000.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things, as in "1 poster" and "20,000 posters".
pub(crate) fn many(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A span of time as people say it: 42s, 3m05s, 2h10m.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A text in lines of at most so many columns, where its words allow.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The beginning of a text on one line, of at most so many columns: a letter may take two, or none.
pub(crate) fn beginning(text: &str, columns: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.width() <= columns {
        return flat;
    }
    format!("{}…", fitting(&flat, columns.saturating_sub(1)).trim_end())
}

/// As much of a text as takes at most so many columns.
fn fitting(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        taken > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// A path as somebody in the current directory would write it.
pub(crate) fn shown(path: &Path) -> &Path {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    here.ok().and_then(|here| path.strip_prefix(here).ok()).filter(|path| !path.as_os_str().is_empty()).unwrap_or(path)
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!([0, 999, 1000, 20_000, 1_234_567].map(grouped), ["0", "999", "1,000", "20,000", "1,234,567"]);
        assert_eq!((many(1, "poster"), many(2, "poster")), ("1 poster".to_owned(), "2 posters".to_owned()));
        assert_eq!(
            [5, 65, 3725, 90_000].map(|secs| span(Duration::from_secs(secs))),
            ["5s", "1m05s", "1h02m", "1d01h"]
        );
        assert_eq!(beginning("A  heist\non the moon", 10), "A heist o…");
        assert_eq!(beginning("short", 10), "short");
        assert_eq!(beginning("月面の強盗団", 7), "月面の…", "these letters take two columns each");
        assert_eq!(fitting("e\u{301}e\u{301}e", 2), "e\u{301}e\u{301}", "and an accent none");
        assert_eq!(plain("é\u{1b}]0;owned\u{7}\u{9b}\r\n"), "é\u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}\n");
        assert_eq!(wrapped("A heist on the moon", 8), ["A heist", "on the", "moon"]);
    }
}
