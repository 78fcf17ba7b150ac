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
use crate::batch::fault;
use crate::failure::{Failure, Outcome};
use crate::manifest::Manifest;
use crate::pictures::{Unfetched, fetch, name_of};
use crate::terminal::{Terminal, span};
use crate::watch::wait_for_job;

/// Submits the prompt, waits, saves the picture, and opens it.
pub(crate) async fn make(api: &Api, terminal: &Terminal, make: &Make) -> Result<Outcome, Failure> {
    let mut order = make.wishes.fields();
    order.insert("prompt".to_owned(), make.prompt.join(" ").into());
    if let Some(title) = &make.title {
        order.insert("poster".to_owned(), json!({ "title": title, "tagline": make.tagline }));
    }
    // The service may have a default model that takes more than others, so the rules of the most generous are checked.
    if let Err(errors) = Order::parse(order.clone().into(), "", Model::Sd35Large) {
        return Err(Failure::Usage(errors.iter().map(fault).collect::<Vec<_>>().join("; ")));
    }
    let began = Instant::now();
    terminal.status("submitting …");
    let job = api.submit(Bytes::from(json!(order).to_string())).await?;
    let id = job.id.to_string();
    if make.no_wait {
        terminal.say(format_args!("job {id} is {}; `poster watch {id}` waits for it", job.status));
        terminal.data(&job)?;
        return Ok(Outcome::AllDone);
    }
    terminal.way_on(format_args!("Job {id} goes on; `poster watch {id}` waits for it."));
    let job = wait_for_job(api, terminal, &id).await?;
    if job.status != Status::Succeeded {
        let why = job.error.as_ref().map_or("it was canceled", |error| error.message.as_str());
        terminal.say(format_args!("job {id} has no picture: {why}"));
        terminal.data(&job)?;
        return Ok(Outcome::SomeFailed);
    }
    let mut manifest = Manifest::open(&make.out)?;
    let fetched = fetch(api, &job, &make.out, &name_of(&job), None).await.map_err(|error| match error {
        Unfetched::All(failure) => failure,
        Unfetched::Picture(why) => Failure::Service(format!("the picture of job {id}: {why}")),
    })?;
    let picture = fetched.keep(&make.out, &mut manifest)?;
    let path = make.out.join(&picture.file);
    let size = format!("{} × {}, {} KB", picture.width, picture.height, picture.bytes.div_ceil(1000));
    terminal.say(format_args!("{}  ({size}, {})", path.display(), span(began.elapsed().max(Duration::from_secs(1)))));
    terminal.data(&json!({ "file": path, "job": job }))?;
    if !make.no_open && terminal.is_watched() {
        open(&path);
    }
    Ok(Outcome::AllDone)
}

/// Shows a picture with the program that this machine has for it, if it has one.
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
    // The picture is saved, so a machine that cannot show it has not failed.
    let _ = Command::new(program).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
