//! Making one poster.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use shared::job::Status;
use shared::order::{Model, Order};

use crate::api::Api;
use crate::arguments::Make;
use crate::failure::{Failure, Outcome};
use crate::manifest::Manifest;
use crate::pictures::{Unfetched, fetch, name_of};
use crate::terminal::Terminal;
use crate::watch::wait_for_job;
use crate::words::{errors_text, human_duration, quoted, title_warning};

/// Submits the prompt, waits, saves the picture, and opens it.
pub(crate) async fn make(api: &Api, terminal: &Terminal, make: &Make) -> Result<Outcome, Failure> {
    let mut order = make.picture.fields();
    order.insert("prompt".to_owned(), make.prompt.join(" ").into());
    if let Some(title) = &make.title {
        let poster = json!({
            "title": title, "tagline": make.tagline, "credits": make.credits, "style": make.style.unwrap_or_default(),
            "placement": make.placement.unwrap_or_default(),
        });
        order.insert("poster".to_owned(), poster);
    }
    if let Some(hours) = make.deadline_hours {
        order.insert("deadline_hours".to_owned(), hours.into());
    }
    if let Some(webhook) = make.webhook.field() {
        order.insert("webhook".to_owned(), webhook);
    }
    // The service's default model is not known here, so the rules of the model that accepts the most are checked.
    if let Err(errors) = Order::parse(order.clone().into(), "", Model::Sd35Large) {
        return Err(Failure::Usage(errors_text(&errors)));
    }
    // Do not pay for a picture that cannot be saved.
    let mut manifest = if make.no_wait { None } else { Some(Manifest::open(&make.out)?) };
    let began = Instant::now();
    terminal.status("submitting …");
    let job = api.submit(Bytes::from(json!(order).to_string())).await?;
    let id = job.id.to_string();
    let Some(manifest) = &mut manifest else {
        terminal.println(format!("job {id} is {}; `poster watch {id}` waits for it", job.status));
        terminal.data(&job)?;
        return Ok(Outcome::AllDone);
    };
    let out = quoted(&make.out.display().to_string());
    terminal
        .set_resume_hint(format!("Job {id} is still running; `poster download {id} --out {out}` saves its picture."));
    let job = wait_for_job(api, terminal, &id).await?;
    if job.status != Status::Succeeded {
        let why = job.error.as_ref().map_or("it was canceled", |error| error.message.as_str());
        terminal.println(format!("job {id} has no picture: {why}"));
        terminal.data(&job)?;
        return Ok(Outcome::SomeFailed);
    }
    let fetched = fetch(api, &job, &make.out, &name_of(&job), None).await.map_err(|error| match error {
        Unfetched::All(failure) => failure,
        Unfetched::Picture(why) => Failure::Service(format!("the picture of job {id}: {why}")),
    })?;
    let picture = fetched.keep(&make.out, manifest)?;
    let path = make.out.join(&picture.file);
    let size = format!("{} × {}, {} KB", picture.width, picture.height, picture.bytes.div_ceil(1000));
    terminal.println(format!(
        "{}  ({size}, {})",
        path.display(),
        human_duration(began.elapsed().max(Duration::from_secs(1)))
    ));
    if let Some(warning) = title_warning(&job) {
        terminal.println(format!("warning: {warning}"));
    }
    terminal.data(&json!({ "file": path, "job": job }))?;
    if !make.no_open && terminal.is_interactive() {
        open(&path);
    }
    Ok(Outcome::AllDone)
}

/// Opens a picture with the program that this machine has for it.
fn open(path: &Path) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if cfg!(windows) {
        "explorer"
    } else if ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some()) {
        "xdg-open"
    } else {
        return;
    };
    // The picture is saved, so it does not matter if it cannot be shown.
    let _ = Command::new(program).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
