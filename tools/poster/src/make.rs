use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use shared::api::JobView;
use shared::job::Status;
use shared::order::{Model, Order};

use crate::api::Api;
use crate::arguments::Make;
use crate::config::Config;
use crate::failure::{Failure, Outcome};
use crate::manifest::{Manifest, Picture};
use crate::pictures::save;
use crate::terminal::Terminal;
use crate::watch::wait_for_job;
use crate::words::{errors_text, human_duration, quoted, title_warning};

pub(crate) async fn make(api: &Api, make: &Make) -> Result<Outcome, Failure> {
    let terminal = &api.terminal;
    let mut order = make.order.fields(&make.prompt);
    if let Some(hours) = make.deadline_hours {
        order.insert("deadline_hours".to_owned(), hours.into());
    }
    if let Some(webhook) = make.webhook.field() {
        order.insert("webhook".to_owned(), webhook);
    }
    if make.no_wait {
        let job = submit(api, checked(order)?).await?;
        terminal.println(format!("job {} is {}; `poster watch {0}` waits for it", job.id, job.status));
        terminal.data(&job)?;
        return Ok(Outcome::AllDone);
    }
    let began = Instant::now();
    let (job, painted) = paint(api, order, &make.out).await?;
    let picture = match painted {
        Ok(picture) => picture,
        Err(why) => {
            terminal.println(why);
            terminal.data(&job)?;
            return Ok(Outcome::SomeFailed);
        }
    };
    let path = make.out.join(&picture.file);
    let size = format!("{} × {}, {} KB", picture.width, picture.height, picture.bytes.div_ceil(1000));
    let took = human_duration(began.elapsed().max(Duration::from_secs(1)));
    terminal.println(format!("{}  ({size}, {took})", path.display()));
    if let Some(warning) = title_warning(&job) {
        terminal.println(format!("warning: {warning}"));
    }
    terminal.data(&json!({ "file": path, "job": job }))?;
    if !make.no_open && terminal.is_interactive() {
        open(&path);
    }
    Ok(Outcome::AllDone)
}

/// Has the local service at `url` paint an order, and saves the picture in `out`. Returns the finished job and the file.
pub async fn make_locally(url: &str, order: Map<String, Value>, out: &Path) -> Result<(JobView, PathBuf), String> {
    let service = Config::default().settle(Some(url), None).map_err(|failure| failure.to_string())?;
    let terminal = Terminal::new(false, false);
    let painted = paint(&Api::new(service, terminal.clone()), order, out).await;
    terminal.clear();
    let (job, picture) = painted.map_err(|failure| failure.to_string())?;
    picture.map(|picture| (job, out.join(picture.file)))
}

/// The model that accepts the most. Orders are checked by its rules, since the service's default model is not known here.
pub(crate) const MODEL: Model = Model::Sd35Large;

/// The body of a request for an order that keeps the rules.
pub(crate) fn checked(order: impl Into<Value>) -> Result<String, Failure> {
    let order = order.into();
    let body = order.to_string();
    let parsed = Order::parse(order, "", MODEL);
    parsed.map(|_| body).map_err(|errors| Failure::Usage(errors_text(&errors)))
}

async fn submit(api: &Api, order: String) -> Result<JobView, Failure> {
    api.terminal.status("submitting …");
    api.post("/jobs", order, None).await
}

/// Submits an order, waits, and saves the picture in `out`. The inner error is why there is none.
async fn paint(
    api: &Api,
    order: Map<String, Value>,
    out: &Path,
) -> Result<(JobView, Result<Picture, String>), Failure> {
    let order = checked(order)?;
    // Do not pay for a picture that cannot be saved.
    let manifest = Manifest::open(out)?;
    let id = submit(api, order).await?.id.to_string();
    let out = quoted(&out.display().to_string());
    api.terminal.set_resume_hint(format!(
        "`poster download {id} --out {out}` saves the picture of job {id} once it is painted."
    ));
    let job = wait_for_job(api, &id, |_| false).await?;
    if job.status != Status::Succeeded {
        let why = job.error.as_ref().map_or("it was canceled", |error| error.message.as_str());
        let why = format!("job {id} has no picture: {why}");
        return Ok((job, Err(why)));
    }
    let picture = save(api, &manifest, &job, None).await?;
    let picture = picture.map_err(|why| Failure::Service(format!("the picture of job {id}: {why}")))?;
    Ok((job, Ok(picture)))
}

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
