use std::io::BufWriter;
use std::path::{Path, PathBuf};

use serde_json::json;
use shared::BatchId;

use super::follow::{Reason, Tally};
use super::input::{Input, directory_of, temporary_file};
use crate::failure::{Failure, OfFile, blocking};
use crate::terminal::Terminal;
use crate::words::{count_of, short_path, thousands};

const SHOWN: usize = 10;

/// Reports the results. `failed_file` holds the lines of the jobs that failed, if they could be written.
pub(crate) fn report(
    terminal: &Terminal,
    batch: BatchId,
    out: &Path,
    tally: &Tally,
    failed_file: Option<&Path>,
) -> Result<(), Failure> {
    let Tally { saved, downloaded, unfetched, why_unfetched, reasons, can_retry, small_titles, .. } = tally;
    let failed = reasons.values().map(|reason| reason.lines.len()).sum::<usize>() as u64;
    let new = if downloaded == saved { String::new() } else { format!(", {} of them now", thousands(*downloaded)) };
    let (posters, directory) = (count_of(*saved, "poster"), short_path(out).display());
    terminal.println(format!("{posters} saved in {directory}{new}"));
    if !small_titles.is_empty() {
        let (titles, lines) = (count_of(small_titles.len() as u64, "title"), numbers(small_titles));
        terminal.println(format!("warning: {titles} too small to read, of {lines}. A shorter title is set larger."));
    }
    if *unfetched > 0 {
        let pictures = count_of(*unfetched, "picture");
        let why = why_unfetched.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        terminal.println(format!("{pictures} could not be downloaded{why}. The same command tries again."));
    }
    if failed > 0 {
        terminal.println(format!("{} failed:", count_of(failed, "poster")));
        for (code, Reason { message, lines }) in reasons {
            terminal.println(format!("  {} {code}: {}", thousands(lines.len() as u64), numbers(lines)));
            terminal.println_wrapped("    ", message);
        }
        if let Some(file) = failed_file {
            let file = short_path(file).display();
            terminal.println(format!("Their lines are in {file}, ready for another poster batch."));
        }
        if *can_retry {
            terminal.println("To retry those that may succeed, run this, and then the same command again:");
            terminal.println(format!("  poster retry {batch}"));
        }
    }
    terminal.data(&json!({
        "event": "end", "batch": batch, "saved": saved, "downloaded": downloaded, "unfetched": unfetched,
        "failed": failed, "failed_file": failed_file, "out": out,
    }))
}

/// The numbers of some lines as text, of which only the first are shown.
fn numbers(lines: &[u64]) -> String {
    let (first, rest) = lines.split_at(lines.len().min(SHOWN));
    let first: Vec<_> = first.iter().map(ToString::to_string).collect();
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", thousands(rest.len() as u64)) };
    format!("line{} {}{more}", if lines.len() == 1 { "" } else { "s" }, first.join(", "))
}

/// Writes the failed lines, with the defaults filled in, and returns whether there are any. If there are none, the file of
/// an earlier run is deleted; if they cannot be written, it stays as it is.
pub(crate) async fn write_failed(input: &Input, failed: Vec<u64>, path: PathBuf) -> Result<bool, Failure> {
    if failed.is_empty() {
        return match std::fs::remove_file(&path) {
            // A file system that is read-only refuses to delete even a file that is not there.
            Err(error) if path.exists() => Err(Failure::file(&path, error)),
            _ => Ok(false),
        };
    }
    let input = input.clone();
    blocking(move || {
        let mut file = BufWriter::new(temporary_file(directory_of(&path), &path)?);
        input.copy_jobs(&failed, &mut file, &path)?;
        input.unchanged()?;
        file.into_inner().of_file(&path)?.persist(&path).map_err(|error| error.error).of_file(&path)?;
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
