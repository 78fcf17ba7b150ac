//! Making a poster of each line of a file.
//!
//! The file is read twice. The first pass checks every line and computes the file's digest, by which a continued run
//! recognizes it. The second pass cuts it into requests of up to a thousand jobs, always at the same lines. The state file
//! beside the input records what was submitted, the manifest beside the pictures what was downloaded, and the service
//! knows the rest. So a continued run needs nothing else from the run before it.

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
use crate::failure::{Failure, Outcome, blocking};
use crate::groups::{Groups, command_for};
use crate::journal::{Header, Journal, Part};
use crate::manifest::{self, Manifest};
use crate::sheet;
use crate::terminal::{Event, Terminal};
use crate::words::{count_of, short_path, thousands};

/// How many bad lines are printed.
const BAD_SHOWN: usize = 20;

/// The longest name of a batch, in characters. A group's name of up to 128 characters holds it and a digest.
const MAX_NAME: usize = 100;

/// The version of the state file, and of how the input is cut into requests.
const VERSION: u32 = 2;

/// Submits the lines of the file, waits, downloads, and reports; or continues where an earlier run stopped. A group on the
/// service gets at most `parts_per_group` parts.
pub(crate) async fn run(
    api: Api,
    terminal: &Terminal,
    batch: &Batch,
    parts_per_group: usize,
) -> Result<Outcome, Failure> {
    let api = api.patient(batch.patience);
    let input = Input::open(&batch.file, batch.format, batch.picture.fields(), batch.state.as_deref()).await?;
    let checked = check(&input, terminal, batch).await?;
    let outcome_with = |left_out| if checked.bad + left_out > 0 { Outcome::SomeFailed } else { Outcome::AllDone };
    if batch.check {
        terminal.println(format!("{} good", count_of(checked.good, "line")));
        return Ok(outcome_with(0));
    }

    let state = batch.state.clone().unwrap_or_else(|| input.beside("poster-state"));
    let header = header(&api, batch, &input, &checked, parts_per_group)?;
    let (mut journal, parts) = Journal::open(&state, &header)?;
    let mut manifest = Manifest::open(&header.out)?;
    let (parts, saved) = find_pictures(&header.out, parts, terminal).await?;
    let (submitted, groups) = (parts.iter().map(|part| part.jobs() as u64).sum(), Groups::of(&header, &parts)?);
    if !parts.is_empty() && (submitted < checked.good || saved < submitted) {
        groups.check(&api).await?;
    }
    report_start(terminal, &header, submitted, checked.good, saved)?;

    let (sender, new_parts) = mpsc::unbounded_channel();
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
    let submitting = submission.run(&input, &mut journal, sender);
    if batch.no_wait {
        let (groups, left_out) = submitting.await?;
        terminal.println("submitted; the same command without --no-wait downloads the posters, and this one waits:");
        terminal.println(format!("  {}", command_for("watch", &groups.ids(), &state)));
        return Ok(outcome_with(left_out));
    }
    let (out, at_once) = (&*header.out, usize::from(batch.at_once));
    let collector = Collector::new(&api, terminal, (out, &mut manifest), at_once, checked.good, parts);
    let ((_, left_out), tally) = futures_util::future::try_join(submitting, collector.run(new_parts)).await?;
    terminal.clear();

    let failed_file = input.beside("failed.ndjson");
    let written = report::write_failed(&input, &header, tally.failed.clone(), failed_file.clone()).await;
    let in_file = *written.as_ref().unwrap_or(&false);
    report::report(terminal, &header, &state, &tally, &failed_file, in_file)?;
    let mut drawn = Ok(());
    if !batch.no_sheet && tally.saved > 0 && (tally.downloaded > 0 || !sheet::is_in(out)) {
        let (out, name, terminal) = (out.to_owned(), header.name.clone(), terminal.clone());
        drawn = blocking(move || sheet::draw(&terminal, &out, &name, false)).await.map(drop);
    }
    // If the failed lines cannot be written, everything else is done first.
    written.map_err(|failure| report::unwritten(failure, &failed_file))?;
    drawn?;
    Ok(if tally.failed.is_empty() && tally.unfetched == 0 { outcome_with(left_out) } else { Outcome::SomeFailed })
}

/// Checks every line, and reports the bad ones: the first on the terminal, all of them as data.
async fn check(input: &Input, terminal: &Terminal, batch: &Batch) -> Result<Checked, Failure> {
    terminal.status(format!("checking {} …", input.path.display()));
    let (file, printer) = (input.clone(), terminal.clone());
    let (checked, first) = blocking(move || {
        let mut first = Vec::new();
        let bad = |line, faults| {
            printer.data(&Event { event: "bad_line", value: json!({ "line": line, "faults": faults }) })?;
            if first.len() < BAD_SHOWN {
                first.push((line, faults));
            }
            Ok(())
        };
        let progress = |lines| printer.status(format!("checking: {} lines", thousands(lines)));
        let checked = file.check(bad, progress)?;
        Ok((checked, first))
    })
    .await?;
    if batch.check {
        input.delete_copy();
    }
    let path = input.path.display();
    if checked.bad > 0 {
        let lines = count_of(checked.bad + checked.good, "line");
        let are = if checked.bad == 1 { "is" } else { "are" };
        terminal.println(format!("{} of {lines} of {path} {are} bad:", thousands(checked.bad)));
        for (line, faults) in &first {
            terminal.println(format!("  line {line}: {faults}"));
        }
        let more = checked.bad - first.len() as u64;
        if more > 0 {
            terminal.println(format!("  and {} more; --json shows all", thousands(more)));
        }
        if !batch.skip_bad {
            let lines = count_of(checked.bad, "bad line");
            return Err(Failure::Usage(format!("{lines}; nothing was submitted (--skip-bad leaves bad lines out)")));
        }
    }
    if checked.good == 0 {
        return Err(Failure::Usage(format!("{path} contains no jobs")));
    }
    Ok(checked)
}

/// What this run and those that continue it must agree on.
fn header(
    api: &Api,
    batch: &Batch,
    input: &Input,
    checked: &Checked,
    parts_per_group: usize,
) -> Result<Header, Failure> {
    let settings = json!([input.defaults, checked.defaults, format!("{:?}", input.format), batch.chunk]);
    let digest = hex(&Sha256::digest(format!("{}{settings}", checked.sha256)));
    let stem = input.path.file_stem().map(|stem| stem.to_string_lossy().chars().take(MAX_NAME).collect());
    let name = match batch.name.clone().or(checked.name.clone()) {
        Some(name) if name.chars().count() > MAX_NAME => {
            return Err(Failure::Usage(format!("the name must have at most {MAX_NAME} characters")));
        }
        Some(name) => BatchName::try_from(name).map_err(|rule| Failure::Usage(format!("the name {rule}")))?.into(),
        None => stem.and_then(|stem: String| BatchName::try_from(stem).ok()).map_or("batch".to_owned(), String::from),
    };
    let out = batch.out.clone().unwrap_or_else(|| with_suffix(&input.path, "-posters"));
    Ok(Header {
        version: VERSION,
        api: api.url().to_owned(),
        group: format!("{name}-{}", &digest[..12]),
        parts_per_group,
        name,
        sha256: checked.sha256.clone(),
        settings: digest,
        defaults: merged(&checked.defaults, &input.defaults),
        chunk: usize::from(batch.chunk),
        out: canonical(&out)?,
    })
}

/// Marks the jobs whose pictures earlier runs have saved, and counts these pictures.
async fn find_pictures(out: &Path, mut parts: Vec<Part>, terminal: &Terminal) -> Result<(Vec<Part>, u64), Failure> {
    let (directory, terminal) = (out.to_owned(), terminal.clone());
    blocking(move || {
        let places: HashMap<BatchId, usize> = parts.iter().enumerate().map(|(place, part)| (part.id, place)).collect();
        let mut found = 0;
        manifest::read(&directory, |picture| {
            let Some(&place) = picture.batch.as_ref().and_then(|batch| places.get(batch)) else { return };
            let part = &mut parts[place];
            let Some(index) = picture.line.and_then(|line| part.index_of(line)) else { return };
            if !part.ended[index] && picture.is_in(&directory) {
                part.ended[index] = true;
                found += 1;
                terminal.status(format!("checking saved pictures: {}", thousands(found)));
            }
        })?;
        Ok((parts, found))
    })
    .await
}

fn report_start(terminal: &Terminal, header: &Header, submitted: u64, lines: u64, saved: u64) -> Result<(), Failure> {
    let (name, out, jobs) = (&header.name, short_path(&header.out).display(), count_of(lines, "job"));
    if submitted == 0 {
        terminal.println(format!("{name}: {jobs} to {out}"));
    } else {
        let (submitted, saved) = (thousands(submitted), thousands(saved));
        terminal.println(format!("{name}: resuming: {submitted} of {jobs} submitted, {saved} saved in {out}"));
    }
    let value = json!({ "group": header.group, "lines": lines, "submitted": submitted, "saved": saved });
    terminal.data(&Event { event: "begin", value })
}

/// The path of a directory, the same however it was written. The directory need not exist yet.
fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::file(path, error);
    let path = std::path::absolute(path).map_err(failed)?;
    // If the directory does not exist yet, its parent is resolved instead.
    let (existing, rest) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.exists() => (parent, Some(name)),
        _ => (&*path, None),
    };
    let existing = existing.canonicalize().unwrap_or_else(|_| existing.to_owned());
    Ok(rest.map_or(existing.clone(), |name| existing.join(name)))
}
