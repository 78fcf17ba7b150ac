//! The report at the end of a batch.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::chunks::completed;
use super::collect::{Lines, Tally};
use super::input::Input;
use crate::failure::{Failure, blocking};
use crate::groups::command_for;
use crate::journal::Header;
use crate::terminal::{Event, Terminal};
use crate::words::{count_of, short_path, thousands};

/// Reports the results. `written` says whether `failed_file` holds the lines of the jobs that failed.
pub(crate) fn report(
    terminal: &Terminal,
    header: &Header,
    state: &Path,
    tally: &Tally,
    failed_file: &Path,
    written: bool,
) -> Result<(), Failure> {
    let Tally { groups, to_retry, saved, downloaded, unfetched, failed, reasons, small_titles } = tally;
    let new = if downloaded == saved { String::new() } else { format!(", {} of them now", thousands(*downloaded)) };
    let (posters, out) = (count_of(*saved, "poster"), short_path(&header.out).display());
    terminal.println(format!("{posters} saved in {out}{new}"));
    if small_titles.count > 0 {
        let (titles, lines) = (count_of(small_titles.count, "title"), numbers(small_titles));
        terminal.println(format!("warning: {titles} too small to read, of {lines}. A shorter title is set larger."));
    }
    if *unfetched > 0 {
        let pictures = count_of(*unfetched, "picture");
        terminal.println(format!("{pictures} could not be downloaded. The same command tries again."));
    }
    if !failed.is_empty() {
        terminal.println(format!("{} failed:", count_of(failed.len() as u64, "poster")));
        for (code, reason) in reasons {
            terminal.println(format!("  {} {code}: {}", thousands(reason.lines.count), numbers(&reason.lines)));
            terminal.println_wrapped("    ", &reason.message);
        }
        if written {
            let file = short_path(failed_file).display();
            terminal.println(format!("Their lines are in {file}, ready for another poster batch."));
        }
        if !to_retry.is_empty() {
            terminal.println("To retry those that may succeed, run this, and then the same command again:");
            terminal.println(format!("  {}", command_for("retry", to_retry, state)));
        }
    }
    terminal.data(&Event {
        event: "end",
        value: json!({
            "groups": groups, "saved": saved, "downloaded": downloaded, "unfetched": unfetched, "failed": failed.len(),
            "failed_file": written.then_some(failed_file), "out": header.out,
        }),
    })
}

/// The first of some lines, as text.
fn numbers(lines: &Lines) -> String {
    let mut first = lines.first.clone();
    first.sort_unstable();
    let first: Vec<_> = first.iter().map(ToString::to_string).collect();
    let more = lines.count - lines.first.len() as u64;
    let more = if more > 0 { format!(" and {} more", thousands(more)) } else { String::new() };
    format!("line{} {}{more}", if lines.count == 1 { "" } else { "s" }, first.join(", "))
}

/// Writes the failed lines, with the defaults filled in, and returns whether there are any. If there are none, the file of
/// an earlier run is deleted; if they cannot be written, it stays as it is.
pub(crate) async fn write_failed(
    input: &Input,
    header: &Header,
    mut failed: Vec<u64>,
    path: PathBuf,
) -> Result<bool, Failure> {
    if failed.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file(&path, error)),
            _ => Ok(false),
        };
    }
    failed.sort_unstable();
    let (input, header) = (input.clone(), header.clone());
    blocking(move || {
        let broken = |error: io::Error| Failure::file(&path, error);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(directory).map_err(broken)?);
        let mut written = Ok(());
        input.lines(|line| {
            if failed.binary_search(&line.number).is_ok()
                && let Some(job) = completed(&line.job, &header)
            {
                written = writeln!(file, "{job}");
            }
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written.map_err(broken)?;
        let file = file.into_inner().map_err(|error| broken(error.into_error()))?;
        file.persist(&path).map_err(|error| broken(error.error))?;
        Ok(true)
    })
    .await
}

/// Adds to the failure why it matters: the failed lines were not written.
pub(crate) fn unwritten(failure: Failure, path: &Path) -> Failure {
    match failure {
        Failure::Usage(why) => {
            Failure::Usage(format!("{why}, so the failed lines were not written to {}", path.display()))
        }
        failure => failure,
    }
}
