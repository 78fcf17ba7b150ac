//! What a person sees on standard error, and what a program reads on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::Failure;
use crate::words::{fitting, plain, wrapped};

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
    resume_hint: Option<String>,
}

/// A value that only programs read.
#[derive(Serialize)]
pub(crate) struct Event<'a, T> {
    /// What it tells of.
    pub(crate) event: &'a str,
    /// What it tells.
    #[serde(flatten)]
    pub(crate) value: T,
}

impl Terminal {
    /// With `json` data goes to standard output, with `quiet` only errors go to standard error.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let redraws = stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self(Arc::new(Mutex::new(Inner { json, quiet, redraws, shown: None, told_at: None, resume_hint: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that stays.
    pub(crate) fn println(&self, text: impl Display) {
        let mut inner = self.inner();
        if !inner.quiet {
            inner.above_status(&text.to_string());
        }
    }

    /// Says a longer text that stays, in lines that fit, each of which begins with `indent`.
    pub(crate) fn println_wrapped(&self, indent: &str, text: &str) {
        for line in wrapped(text, columns() - 1 - indent.len()) {
            self.println(format!("{indent}{line}"));
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
        if let (Some(resume_hint), false) = (inner.resume_hint.take(), matches!(failure, Failure::Usage(_))) {
            inner.above_status(&resume_hint);
        }
    }

    /// What to say of how to go on, should the command end early.
    pub(crate) fn set_resume_hint(&self, text: impl Display) {
        self.inner().resume_hint = Some(text.to_string());
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
    pub(crate) fn force_status(&self) {
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

fn erase() {
    let _ = write!(stderr(), "\r\x1b[2K");
}

fn columns() -> usize {
    terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| usize::from(width.0)).max(20)
}
