//! Making a poster of each line of a file.
//!
//! The file is checked by the service's own rules, uploaded as one batch, and followed while its jobs are painted. The
//! state file beside the input records the batch, the manifest beside the pictures what was downloaded, and the service
//! knows the rest. So a continued run needs nothing else from the run before it.

mod follow;
mod input;
mod report;
mod submit;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shared::api::BatchView;
use shared::batch::{BatchStatus, OnBadLine};
use shared::label::BatchName;
use shared::webhook::Webhook;

use crate::api::Api;
use crate::arguments::Batch;
use crate::batch::follow::Follower;
use crate::batch::input::{Checked, Input, with_suffix};
use crate::failure::{Failure, OfFile, Outcome, blocking, if_found};
use crate::manifest::Manifest;
use crate::sheet;
use crate::state::{Settings, State};
use crate::terminal::Terminal;
use crate::words::{count_of, errors_text, faults_text, short_path, status_text, thousands};

const BAD_SHOWN: usize = 20;

const MAX_NAME: usize = 128;

const HOW_TO_CONTINUE: &str = "Run the same command again to continue.";

/// Submits the lines of the file, waits, downloads, and reports; or continues where an earlier run stopped.
pub(crate) async fn run(mut api: Api, batch: &Batch) -> Result<Outcome, Failure> {
    api.patience = batch.patience;
    let terminal = &api.terminal;
    let input = Input::open(&batch.file, batch.format, batch.picture.fields(), batch.state.as_deref()).await?;
    // The flags override the document.
    let webhook = batch.webhook.field().or_else(|| input.webhook.clone());
    if let Some(Err(errors)) = webhook.clone().map(|webhook| Webhook::of_batch(webhook, "/webhook")) {
        return Err(Failure::Usage(errors_text(&errors)));
    }
    let checked = check(&input, terminal, batch).await?;
    let bad = checked.bad;
    let outcome = if bad > 0 { Outcome::SomeFailed } else { Outcome::AllDone };
    if batch.check {
        terminal.println(format!("{} good", count_of(checked.good, "line")));
        return Ok(outcome);
    }
    let settings = settings(&api, batch, &input, &checked, webhook)?;
    let path = batch.state.clone().unwrap_or_else(|| input.beside("poster-state"));
    let (mut state, known) = State::open(&path, &settings)?;
    let manifest = Manifest::open(&settings.out)?;
    manifest.lock()?;

    terminal.set_resume_hint(HOW_TO_CONTINUE);
    terminal.status("submitting …");
    let mut request = submit::Request::new(&settings);
    let mut view = match known {
        Some(id) => if_found(api.batch(&id.to_string()).await)?.ok_or_else(unknown)?.value,
        None => request.send(&api).await?,
    };
    if known.is_some() && matches!(view.status, BatchStatus::AwaitingInput | BatchStatus::Expired) {
        // For a new URL of the file.
        view = request.send(&api).await?;
    }
    let id = view.id;
    if known != Some(id) {
        state.write(id, &settings)?;
    }
    if view.links.results.is_none() {
        terminal.set_resume_hint(format!(
            "{HOW_TO_CONTINUE} The service goes on with what it has; to cancel that:\n  poster cancel {id}"
        ));
    }
    let (out, at_once) = (&*settings.out, usize::from(batch.at_once));
    let mut follower = Follower::new(&api, &manifest, at_once, id, checked.lines);
    follower.learn(&view).await?;
    report_start(terminal, &settings, &view, checked.good, known.is_some(), follower.tally.saved)?;
    submit::start(&api, &input, &settings.sha256, &mut request, view).await?;
    if batch.no_wait {
        terminal.println("submitted; the same command without --no-wait downloads the posters, and this one waits:");
        terminal.println(format!("  poster watch {id}"));
        return Ok(outcome);
    }
    let view = follower.run().await?;
    terminal.set_resume_hint(HOW_TO_CONTINUE);
    if view.links.results.is_none() {
        return Err(without_results(terminal, &view, &mut state)?);
    }
    let tally = follower.results().await?;
    terminal.clear();

    let failed_file = input.beside("failed.ndjson");
    let written = report::write_failed(&input, tally.failed(), failed_file.clone()).await;
    let in_file = matches!(written, Ok(true)).then_some(&*failed_file);
    if tally.skipped > bad {
        terminal.println(format!("{} left out by the service:", count_of(tally.skipped - bad, "line")));
        print_faults(terminal, &view)?;
    }
    report::report(terminal, id, out, &tally, in_file)?;
    let mut drawn = Ok(());
    if !batch.no_sheet && tally.saved > 0 && (tally.downloaded > 0 || !sheet::is_in(out)) {
        let (out, name, terminal) = (out.to_owned(), settings.name.clone(), terminal.clone());
        drawn = blocking(move || sheet::draw(&terminal, &out, &name, false)).await.map(drop);
    }
    // If the failed lines cannot be written, everything else is done first.
    written.map_err(|failure| report::unwritten(failure, &failed_file))?;
    drawn?;
    let are_all_saved = tally.reasons.is_empty() && tally.unfetched == 0 && tally.skipped == 0;
    Ok(if are_all_saved { outcome } else { Outcome::SomeFailed })
}

/// Checks every line, and reports the bad ones: the first on the terminal, all of them as data.
async fn check(input: &Input, terminal: &Terminal, batch: &Batch) -> Result<Checked, Failure> {
    terminal.status(format!("checking {} …", input.path.display()));
    let (file, printer) = (input.clone(), terminal.clone());
    let (checked, first) = blocking(move || {
        let mut first = Vec::new();
        let bad = |line, faults| {
            printer.data(&json!({ "event": "bad_line", "line": line, "faults": faults }))?;
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
        let lines = count_of(checked.bad, "bad line");
        if checked.is_of_file {
            let why = "a fault of the file as a whole cannot be left out";
            return Err(Failure::Usage(format!("{lines}; nothing was submitted ({why})")));
        }
        if !batch.skip_bad {
            return Err(Failure::Usage(format!("{lines}; nothing was submitted (--skip-bad leaves bad lines out)")));
        }
    }
    if checked.good == 0 {
        return Err(Failure::Usage(format!("{path} contains no jobs")));
    }
    Ok(checked)
}

fn settings(
    api: &Api,
    batch: &Batch,
    input: &Input,
    checked: &Checked,
    webhook: Option<Value>,
) -> Result<Settings, Failure> {
    let name = match batch.name.clone().or_else(|| input.name.clone()) {
        Some(name) => BatchName::try_from(name).map_err(|rule| Failure::Usage(format!("the name {rule}")))?.into(),
        None => {
            let stem = input.path.file_stem().map(|stem| stem.to_string_lossy().chars().take(MAX_NAME).collect());
            let name = stem.and_then(|stem: String| BatchName::try_from(stem).ok());
            name.map_or("batch".to_owned(), String::from)
        }
    };
    let on_bad_line = if batch.skip_bad { OnBadLine::Skip } else { OnBadLine::Refuse };
    let mut request = json!({
        "input": { "format": input.format }, "on_bad_line": on_bad_line, "defaults": input.defaults
    });
    // The flags override the document.
    if let Some(hours) = batch.deadline_hours.map(Value::from).or(input.deadline_hours.map(|hours| json!(hours))) {
        request["deadline_hours"] = hours;
    }
    if let Some(webhook) = webhook {
        request["webhook"] = webhook;
    }
    let out = canonical(&batch.out.clone().unwrap_or_else(|| with_suffix(&input.path, "-posters")))?;
    // The state file, which is JSON, records it.
    if out.to_str().is_none() {
        let out = out.display();
        return Err(Failure::Usage(format!("the path of the pictures must be UTF-8: {out}; --out takes another one")));
    }
    Ok(Settings { api: api.url().to_owned(), name, sha256: checked.sha256.clone(), request: request.to_string(), out })
}

fn unknown() -> Failure {
    Failure::Usage(
        "the service does not know this batch. Is the API key the one it was started with? If its retention has ended, \
         start over with --state and another file"
            .to_owned(),
    )
}

fn report_start(
    terminal: &Terminal,
    settings: &Settings,
    batch: &BatchView,
    jobs: u64,
    is_resumed: bool,
    saved: u64,
) -> Result<(), Failure> {
    let (name, out, of) = (&settings.name, short_path(&settings.out).display(), count_of(jobs, "job"));
    if is_resumed || batch.status != BatchStatus::AwaitingInput {
        let (status, saved) = (status_text(batch.status), thousands(saved));
        terminal.println(format!("{name}: resuming batch {}: {status}, {of}, {saved} saved in {out}", batch.id));
    } else {
        terminal.println(format!("{name}: {of} to {out}"));
    }
    terminal.data(&json!({ "event": "begin", "batch": batch.id, "name": name, "jobs": jobs, "saved": saved }))
}

/// Why a batch has ended without results. The file can become another batch then.
fn without_results(terminal: &Terminal, batch: &BatchView, state: &mut State) -> Result<Failure, Failure> {
    state.clear()?;
    let Some(faults) = batch.faults.as_ref().filter(|faults| faults.total > 0) else {
        let status = status_text(batch.status);
        let advice = "another --name starts a new one";
        return Ok(Failure::Usage(format!("batch {} is {status} and has no posters; {advice}", batch.id)));
    };
    terminal.println("the service found faults that this command did not:");
    print_faults(terminal, batch)?;
    Ok(Failure::Usage(format!("the service refused the file for {}", count_of(faults.total, "fault"))))
}

fn print_faults(terminal: &Terminal, batch: &BatchView) -> Result<(), Failure> {
    for fault in batch.faults.iter().flat_map(|faults| &faults.first) {
        let text = faults_text([(&*fault.pointer, &*fault.detail)]);
        terminal.println(format!("  line {}: {text}", fault.line));
        terminal.data(&json!({ "event": "bad_line", "line": fault.line, "faults": text }))?;
    }
    Ok(())
}

/// The path of a directory, the same however it was written. The directory need not exist yet.
fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).of_file(path)?;
    // If the directory does not exist yet, its parent is resolved instead.
    let (existing, rest) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.exists() => (parent, Some(name)),
        _ => (&*path, None),
    };
    let existing = existing.canonicalize().unwrap_or_else(|_| existing.to_owned());
    Ok(rest.map_or(existing.clone(), |name| existing.join(name)))
}
