//! Messages on standard error, and data on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;
use crate::words::{fitting, human_duration, plain, wrapped};

/// The shortest time between two redraws of the status line.
const REDRAW: Duration = Duration::from_millis(100);

/// The shortest time between two status lines if standard error is not a terminal.
const REPORT: Duration = Duration::from_secs(10);

/// Standard error and standard output. Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    json: bool,
    quiet: bool,
    redraws: bool,
    shown: Option<String>,
    shown_at: Option<Instant>,
    /// How to continue if the command ends early.
    resume_hint: Option<String>,
}

impl Terminal {
    /// With `json`, data goes to standard output; with `quiet`, only errors go to standard error.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let redraws = stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self(Arc::new(Mutex::new(Inner { json, quiet, redraws, shown: None, shown_at: None, resume_hint: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn println(&self, text: impl Display) {
        let mut inner = self.inner();
        if !inner.quiet {
            inner.above_status(&text.to_string());
        }
    }

    pub(crate) fn println_wrapped(&self, indent: &str, text: &str) {
        for line in wrapped(text, |line| indent.len() + line.width() < columns()) {
            self.println(format!("{indent}{line}"));
        }
    }

    /// Prints why the command ended, and how to continue. If nobody reads the output any more, prints no reason.
    pub(crate) fn error(&self, failure: &Failure) {
        let mut inner = self.inner();
        let text = match failure {
            Failure::Unread => String::new(),
            Failure::Interrupted(_) => failure.to_string(),
            _ => format!("error: {failure}"),
        };
        for line in wrapped(&text, |line| line.width() < columns()) {
            inner.above_status(&line);
        }
        // The same command would be refused again.
        let is_in_vain = match failure {
            Failure::Usage(_) => true,
            Failure::Refused(problem) => matches!(problem.status, 400 | 422),
            _ => false,
        };
        if let (Some(resume_hint), false) = (inner.resume_hint.take(), is_in_vain) {
            inner.above_status(&resume_hint);
        }
    }

    pub(crate) fn set_resume_hint(&self, text: impl Display) {
        self.inner().resume_hint = Some(text.to_string());
    }

    /// Shows the status: on a terminal in one line that is redrawn, otherwise as a line every ten seconds.
    pub(crate) fn status(&self, text: impl Display) {
        let mut inner = self.inner();
        if inner.quiet {
            return;
        }
        let every = if inner.redraws { REDRAW } else { REPORT };
        if inner.shown_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        inner.shown_at = Some(Instant::now());
        let text = text.to_string();
        if inner.redraws {
            inner.redraw(Some(text));
        } else if inner.shown.as_ref() != Some(&text) {
            write_line(&text);
            inner.shown = Some(text);
        }
    }

    /// Shows at once why something is tried again, and when.
    pub(crate) fn retrying(&self, why: impl Display, wait: Duration) {
        self.inner().shown_at = None;
        self.status(format!("{why}; next try in {}", human_duration(wait.max(Duration::from_secs(1)))));
    }

    pub(crate) fn clear(&self) {
        self.inner().redraw(None);
    }

    /// Prints a line on standard output, unless that is for JSON.
    pub(crate) fn show(&self, text: impl Display) -> Result<(), Failure> {
        if self.inner().json {
            return Ok(());
        }
        self.clear();
        print(format!("{}\n", plain(&text.to_string())).as_bytes())
    }

    /// Prints a value as a JSON line on standard output, if JSON was asked for.
    pub(crate) fn data(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.inner().json {
            return Ok(());
        }
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::Local(error.to_string()))?;
        line.push(b'\n');
        print(&line)
    }

    pub(crate) fn is_interactive(&self) -> bool {
        self.inner().redraws
    }

    /// The width of standard output, in columns: unlimited if it is not a terminal.
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
            // Standard error may be closed.
            let _ = write!(stderr(), "{shown}");
            let _ = stderr().flush();
        }
        self.shown = text;
    }
}

pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    stdout().write_all(bytes).and_then(|()| stdout().flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Local(format!("standard output: {error}")),
    })
}

fn write_line(text: &str) {
    let _ = writeln!(stderr(), "{}", plain(text));
}

fn erase() {
    let _ = write!(stderr(), "\r\x1b[2K");
}

pub(crate) fn columns() -> usize {
    terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| usize::from(width.0)).max(20)
}
