//! Serving the API until somebody interrupts.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;

use local::{Ready, Stack};

use crate::arguments::Arguments;

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// When the stack does not start, or its address cannot be told.
pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let options = arguments.options();
    let kept = options.data.is_some();
    let stack = Stack::start(options).await?;
    // The page is the functions' to serve; only whether it is there is asked for here.
    let page = stack
        .deployment()
        .functions
        .get("status")
        .is_some_and(|status| status.environment.get("PAGE").is_some_and(|page| page == "true"));
    let Ready { api, dynamodb, sqs, s3, bedrock, .. } = stack.ready();
    let key = arguments.first_key().map(|key| format!(" -H 'x-api-key: {key}'")).unwrap_or_default();
    let data = stack.data().display();
    let fate = if kept { "kept" } else { "deleted at the end; keep it with --data DIR" };
    writeln!(
        stdout(),
        "{}The movie poster API answers at {api}
Its data lies in {data} ({fate})
DynamoDB {dynamodb}  S3 {s3}  SQS {sqs}  Bedrock {bedrock}

Submit a prompt:
  curl -s {api}/jobs{key} -H 'Content-Type: application/json' -d '{{\"prompt\": \"A noir detective thriller in 1940s Venice\"}}'
Then look at your newest job, which has the URL of the picture once it has succeeded:
  curl -s '{api}/jobs?limit=1'{key}

Press Ctrl-C to stop.",
        if page { format!("Make posters in your browser:  {api}/\n\n") } else { String::new() },
    )?;
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, stack.ready())?;
    }
    interrupted().await?;
    let patience = stack.longest_painting().as_secs();
    writeln!(
        stdout(),
        "Stopping: waiting for the pictures that are being painted, for at most {patience} seconds. Press Ctrl-C again to stop at once."
    )?;
    if stopped(stack).await? {
        writeln!(stdout(), "Stopped.")?;
    }
    Ok(())
}

/// Stops the stack, and says whether it could end what it had begun before somebody interrupted again.
pub(crate) async fn stopped(stack: Stack) -> std::io::Result<bool> {
    tokio::select! {
        () = stack.stop() => Ok(true),
        again = interrupted() => again.map(|()| false),
    }
}

/// Writes the file in one step, so that a script which sees it can read all of it.
pub(crate) fn write_ready_file(path: &Path, ready: &Ready) -> Result<(), Box<dyn Error>> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    serde_json::to_writer_pretty(&mut file, ready)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Resolves at Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
