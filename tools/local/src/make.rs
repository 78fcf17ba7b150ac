//! Making one poster, as a caller of the API would: submit, poll, download.

use std::error::Error;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use local::Stack;
use reqwest::{Client, Response, StatusCode};
use serde_json::json;
use shared::api::JobView;
use shared::job::Status;
use shared::problem::ProblemDetails;

use crate::arguments::Arguments;
use crate::serve::{interrupted, stopped, write_ready_file};

/// How often the job is polled. Nobody else uses this API.
const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn make(arguments: &Arguments, prompt: &str) -> Result<(), Box<dyn Error>> {
    // Nothing is painted if the picture cannot be written.
    let unwritable = |error: std::io::Error| format!("cannot write to {}: {error}", arguments.out.display());
    std::fs::create_dir_all(&arguments.out).map_err(unwritable)?;
    drop(tempfile::tempfile_in(&arguments.out).map_err(unwritable)?);
    let begun = Instant::now();
    let mut progress = Progress::new();
    progress.show("starting the pipeline");
    let stack = Stack::start(arguments.options()).await?;
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, stack.ready())?;
    }
    let started = begun.elapsed();
    let result = tokio::select! {
        result = poster(arguments, prompt, &stack.ready().api, started, &mut progress) => result,
        caught = interrupted() => {
            progress.show("stopping: waiting for the picture; press Ctrl-C again to stop at once");
            Err(caught.map_or_else(Into::into, |()| "interrupted".into()))
        }
    };
    stopped(stack).await?;
    progress.clear();
    writeln!(stdout(), "{}", result?)?;
    Ok(())
}

/// Makes the poster. Returns what to say of it: its file, its size, and how long each step took, the start among them.
async fn poster(
    arguments: &Arguments,
    prompt: &str,
    api: &str,
    started: Duration,
    progress: &mut Progress,
) -> Result<String, Box<dyn Error>> {
    let client = Client::new();
    let begun = Instant::now();
    progress.show("submitting the prompt");
    let order = json!({
        "prompt": prompt,
        "negative_prompt": arguments.negative_prompt,
        "aspect_ratio": arguments.aspect_ratio,
        "seed": arguments.seed,
        "output_format": arguments.output_format,
        "model": arguments.model,
        "poster": arguments.title.as_ref().map(|title| json!({ "title": title, "tagline": arguments.tagline })),
    });
    let mut job = job_of(client.post(format!("{api}/jobs")).json(&order).send().await?).await?;
    let submitted = begun.elapsed();
    while job.finished_at.is_none() {
        let why = job.last_error.as_ref().map(|last| format!(" ({})", last.message)).unwrap_or_default();
        progress.show(&format!("{}{why}", job.status));
        tokio::time::sleep(POLL).await;
        job = job_of(client.get(&job.links.this).send().await?).await?;
    }
    let image = match (job.status, &job.image, &job.error) {
        (Status::Succeeded, Some(image), _) => image,
        (_, _, Some(error)) => return Err(format!("the job failed with {}: {}", error.code, error.message).into()),
        (status, ..) => return Err(format!("the job is {status} and has no picture").into()),
    };
    let begun = Instant::now();
    progress.show("downloading the picture");
    let bytes = client.get(&image.url).send().await?.error_for_status()?.bytes().await?;
    let extension = image.content_type.trim_start_matches("image/");
    let path = arguments.out.join(format!("{}.{extension}", job.id));
    std::fs::write(&path, &bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let downloaded = begun.elapsed();
    let queued = job.started_at.map_or(Duration::ZERO, |at| at.since(job.created_at));
    let painted = job.finished_at.zip(job.started_at).map_or(Duration::ZERO, |(end, start)| end.since(start));
    Ok(format!(
        "{}\n  {} × {} pixels, {} bytes, seed {}\n  \
         started in {started:.2?}, submitted in {submitted:.2?}, queued {queued:.2?}, painted and stored in \
         {painted:.2?}, downloaded in {downloaded:.2?}",
        path.display(),
        image.width,
        image.height,
        image.bytes,
        image.seed.map_or_else(|| "unknown".to_owned(), |seed| seed.to_string()),
    ))
}

async fn job_of(response: Response) -> Result<JobView, Box<dyn Error>> {
    if matches!(response.status(), StatusCode::OK | StatusCode::ACCEPTED) {
        return Ok(response.json().await?);
    }
    let status = response.status();
    let problem: ProblemDetails = response.json().await.map_err(|_| format!("the API answered {status}"))?;
    Err(problem.detail.into())
}

/// The current step. A terminal shows it on one line that is overwritten; elsewhere each step gets a line.
struct Progress {
    since: Instant,
    terminal: bool,
    last: String,
}

impl Progress {
    fn new() -> Self {
        Self { since: Instant::now(), terminal: stderr().is_terminal(), last: String::new() }
    }

    fn show(&mut self, what: &str) {
        let secs = self.since.elapsed().as_secs_f32();
        // Failing to show progress is not an error.
        let _ = if self.terminal {
            write!(stderr(), "\r\x1b[K{secs:5.1} s  {what}").and_then(|()| stderr().flush())
        } else if what == self.last {
            Ok(())
        } else {
            writeln!(stderr(), "{secs:5.1} s  {what}")
        };
        what.clone_into(&mut self.last);
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
