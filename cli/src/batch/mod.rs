//! Making a poster of each line of a file.
//!
//! The file is read twice. The first reading checks every line, and digests the file, so that a run that continues knows
//! it again. The second cuts it into requests of up to a thousand jobs, always at the same places. What of it was taken
//! in is in the journal beside the file, what was downloaded in the manifest beside the pictures, and everything else is
//! the service's to tell: so a run that continues needs nothing from the one before it.

mod chunks;
mod collect;
mod input;
mod lines;
mod report;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use shared::BatchId;
use shared::label::BatchName;
use shared::text::hex;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::arguments::Batch;
use crate::batch::chunks::Submission;
use crate::batch::collect::Collector;
use crate::batch::input::{Checked, Input, merged, with_suffix};
use crate::failure::{Failure, Outcome};
use crate::groups::{Groups, command_for};
use crate::journal::{Header, Journal, Part};
use crate::manifest::{self, Manifest};
use crate::sheet;
use crate::terminal::{Event, Terminal};
use crate::words::{count_of, short_path, thousands};

/// How many bad lines are told one by one.
const BAD_SHOWN: usize = 20;

/// The longest name of a batch, in characters. A digest comes behind it, in what the service may call a group.
const MAX_NAME: usize = 100;

/// The version of the state file, and of how the input is cut into requests.
const VERSION: u32 = 2;

/// Submits the file's lines, waits, downloads, and reports; or goes on where an earlier run was stopped. A group on the
/// service gets at most `parts_per_group` parts.
pub(crate) async fn run(
    api: Api,
    terminal: &Terminal,
    batch: &Batch,
    parts_per_group: usize,
) -> Result<Outcome, Failure> {
    let api = api.patient(batch.patience);
    let input = Input::open(&batch.file, batch.format, batch.picture.fields(), batch.state.as_deref()).await?;
    terminal.status(format!("checking {} …", input.path.display()));
    let (checked, faults) = check(&input, terminal).await?;
    report_bad_lines(terminal, &input, &checked, &faults);
    if batch.check {
        input.forget_copy();
    }
    if checked.bad > 0 && !batch.skip_bad {
        let lines = count_of(checked.bad, "bad line");
        return Err(Failure::Usage(format!("{lines}; nothing was submitted (--skip-bad leaves bad lines out)")));
    }
    if checked.good == 0 {
        return Err(Failure::Usage(format!("{} holds no job", input.path.display())));
    }
    if batch.check {
        terminal.println(format!("{} good", count_of(checked.good, "line")));
        return Ok(if checked.bad > 0 { Outcome::SomeFailed } else { Outcome::AllDone });
    }

    let state = batch.state.clone().unwrap_or_else(|| input.beside("poster-state"));
    let out = batch.out.clone().unwrap_or_else(|| with_suffix(&input.path, "-posters"));
    let out = same_everywhere(&out)?;
    let header = header(&api, batch, &input, &checked, &out, parts_per_group)?;
    let (mut journal, mut parts) = Journal::open(&state, &header)?;
    let mut manifest = Manifest::open(&out)?;
    let found = find_pictures(&out, &mut parts, terminal).await?;
    let (submitted, groups) = (jobs_of(&parts), Groups::of(&header, &parts)?);
    if !parts.is_empty() && (submitted < checked.good || found < submitted) {
        groups.check(&api).await?;
    }
    greet(terminal, &header, submitted, checked.good, found);
    terminal.data(&Event {
        event: "begin",
        value: json!({ "group": header.group, "lines": checked.good, "submitted": submitted, "saved": found }),
    })?;

    let (taken_in, new_parts) = mpsc::unbounded_channel();
    let submission = Submission {
        api: &api,
        terminal,
        header: &header,
        state: &state,
        skip_bad: batch.skip_bad,
        lines: checked.good,
        known: parts.iter().map(|part| part.chunk).collect(),
        submitted,
        groups,
    };
    let submitting = submission.run(&input, &mut journal, taken_in);
    if batch.no_wait {
        let (groups, left_out) = submitting.await?;
        terminal.println("submitted; the same command without --no-wait goes on, and this one waits:");
        terminal.println(format!("  {}", command_for("watch", &groups.ids(), &state)));
        return Ok(if checked.bad + left_out > 0 { Outcome::SomeFailed } else { Outcome::AllDone });
    }
    let collector = Collector::new(&api, terminal, &out, usize::from(batch.at_once), checked.good, parts);
    let ((_, left_out), collected) =
        futures_util::future::try_join(submitting, collector.run(new_parts, &mut manifest)).await?;
    terminal.clear();
    let failed_file = input.beside("failed.ndjson");
    let written = report::write_failed(&input, &header, collected.failed.clone(), failed_file.clone()).await;
    let in_file = *written.as_ref().unwrap_or(&false);
    let outcome = report::report(terminal, &header, &state, &collected, &failed_file, in_file)?;
    let drawn = if !batch.no_sheet && collected.saved > 0 && (collected.downloaded > 0 || !sheet::is_in(&out)) {
        let (out, name, drawn_by) = (out.clone(), header.name.clone(), terminal.clone());
        let drawing = tokio::task::spawn_blocking(move || sheet::draw(&drawn_by, &out, &name, false));
        drawing.await.map_err(|error| Failure::Local(error.to_string()))?.map(drop)
    } else {
        Ok(())
    };
    // What keeps the failed lines from being written keeps nothing else from being done, and is the end's to tell.
    written.map_err(|failure| report::unwritten(failure, &failed_file))?;
    drawn?;
    Ok(if checked.bad + left_out > 0 { Outcome::SomeFailed } else { outcome })
}

/// Checks every line, and gives back what the first bad ones have against them. As data all are told.
async fn check(input: &Input, terminal: &Terminal) -> Result<(Checked, Vec<(u64, String)>), Failure> {
    let (input, terminal) = (input.clone(), terminal.clone());
    let checking = tokio::task::spawn_blocking(move || {
        let mut first = Vec::new();
        let bad = |line, faults| {
            terminal.data(&Event { event: "bad_line", value: json!({ "line": line, "faults": faults }) })?;
            if first.len() < BAD_SHOWN {
                first.push((line, faults));
            }
            Ok(())
        };
        let sign = |lines| terminal.status(format!("checking: {} lines", thousands(lines)));
        let checked = input.check(bad, sign)?;
        Ok((checked, first))
    });
    checking.await.map_err(|error| Failure::Local(error.to_string()))?
}

fn report_bad_lines(terminal: &Terminal, input: &Input, checked: &Checked, first: &[(u64, String)]) {
    if checked.bad == 0 {
        return;
    }
    let lines = count_of(checked.bad + checked.good, "line");
    let are = if checked.bad == 1 { "is" } else { "are" };
    terminal.println(format!("{} of {lines} of {} {are} bad:", thousands(checked.bad), input.path.display()));
    for (line, faults) in first {
        terminal.println(format!("  line {line}: {faults}"));
    }
    let more = checked.bad - first.len() as u64;
    if more > 0 {
        terminal.println(format!("  and {} more; --json tells all", thousands(more)));
    }
}

/// What a run must agree on with those before it.
fn header(
    api: &Api,
    batch: &Batch,
    input: &Input,
    checked: &Checked,
    out: &Path,
    parts_per_group: usize,
) -> Result<Header, Failure> {
    let settings = json!([input.defaults(), checked.defaults, format!("{:?}", input.format), batch.chunk]);
    let digest = hex(&Sha256::digest(format!("{}{settings}", checked.sha256)));
    let stem = input.path.file_stem().map(|stem| stem.to_string_lossy().chars().take(MAX_NAME).collect());
    let name = match batch.name.clone().or(checked.name.clone()) {
        Some(name) if name.chars().count() > MAX_NAME => {
            return Err(Failure::Usage(format!("the name must have at most {MAX_NAME} characters")));
        }
        Some(name) => BatchName::try_from(name).map_err(|rule| Failure::Usage(format!("the name {rule}")))?.into(),
        None => stem.and_then(|stem: String| BatchName::try_from(stem).ok()).map_or("batch".to_owned(), String::from),
    };
    Ok(Header {
        version: VERSION,
        api: api.address().to_owned(),
        group: format!("{name}-{}", &digest[..12]),
        parts_per_group,
        name,
        sha256: checked.sha256.clone(),
        settings: digest,
        defaults: merged(&checked.defaults, &input.defaults()),
        chunk: usize::from(batch.chunk),
        out: out.to_owned(),
    })
}

/// Looks at the pictures that earlier runs have saved, and marks the jobs of those that are there and whole.
async fn find_pictures(out: &Path, parts: &mut Vec<Part>, terminal: &Terminal) -> Result<u64, Failure> {
    let (directory, terminal, mut known) = (out.to_owned(), terminal.clone(), std::mem::take(parts));
    let looking = tokio::task::spawn_blocking(move || {
        let places: HashMap<BatchId, usize> = known.iter().enumerate().map(|(place, part)| (part.id, place)).collect();
        let mut found = 0;
        manifest::read(&directory, |picture| {
            let part = picture.batch.and_then(|batch| places.get(&batch)).map(|&place| &mut known[place]);
            let place =
                part.and_then(|part| picture.line.and_then(|line| part.index_of(line)).map(|index| (part, index)));
            if let Some((part, index)) = place
                && !part.ended[index]
                && picture.is_in(&directory)
            {
                part.ended[index] = true;
                found += 1;
                terminal.status(format!("looking at what is there: {} pictures", thousands(found)));
            }
        })?;
        Ok((known, found))
    });
    let (known, found) = looking.await.map_err(|error| Failure::Local(error.to_string()))??;
    *parts = known;
    Ok(found)
}

fn jobs_of(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.jobs() as u64).sum()
}

fn greet(terminal: &Terminal, header: &Header, submitted: u64, lines: u64, found: u64) {
    let out = short_path(&header.out).display();
    if submitted == 0 {
        terminal.println(format!("{}: {} to {}", header.name, count_of(lines, "job"), out));
    } else {
        let (submitted, found) = (thousands(submitted), thousands(found));
        let lines = count_of(lines, "job");
        terminal
            .println(format!("{}: goes on; of {lines} {submitted} are submitted, {found} saved in {out}", header.name));
    }
}

/// The path of a directory that there may not be yet, however it was written and wherever the command was run.
fn same_everywhere(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::file(path, error);
    let path = std::path::absolute(path).map_err(failed)?;
    // A directory that is there is followed to where it lies; of another one, its parent is.
    let (there, rest) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.exists() => (parent, Some(name)),
        _ => (&*path, None),
    };
    let there = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    Ok(rest.map_or(there.clone(), |name| there.join(name)))
}
