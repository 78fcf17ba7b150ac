use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;

use local::{Ready, Stack};

use crate::arguments::Arguments;

pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let options = arguments.options();
    let kept = options.data.is_some();
    let stack = Stack::start(options).await?;
    // The functions serve the page; its address is printed only if it is enabled.
    let page = stack
        .deployment()
        .functions
        .get("status")
        .is_some_and(|status| status.environment.get("PAGE").is_some_and(|page| page == "true"));
    let Ready { api, dynamodb, sqs, s3, bedrock, .. } = stack.ready();
    let key = arguments.api_key.first().map(|(_, key)| format!(" -H 'x-api-key: {key}'")).unwrap_or_default();
    let data = stack.data().display();
    let fate = if kept { "kept" } else { "temporary; --data DIR keeps it" };
    writeln!(
        stdout(),
        "{}The movie poster API answers at {api}
Its data is in {data} ({fate})
DynamoDB {dynamodb}  S3 {s3}  SQS {sqs}  Bedrock {bedrock}

Submit a prompt:
  curl -s {api}/jobs{key} -H 'Content-Type: application/json' -d '{{\"prompt\": \"A noir detective thriller in 1940s Venice\"}}'
Then look at your newest job; once it has succeeded, it has the URL of the picture:
  curl -s '{api}/jobs?limit=1'{key}

Press Ctrl-C to stop.",
        if page { format!("Make posters in your browser:  {api}/\n\n") } else { String::new() },
    )?;
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, stack.ready())?;
    }
    poster::stopped().await;
    let patience = stack.longest_painting().as_secs();
    writeln!(
        stdout(),
        "Stopping: waiting up to {patience} seconds for the pictures that are being painted. Press Ctrl-C again to stop at once."
    )?;
    if stopped(stack).await {
        writeln!(stdout(), "Stopped.")?;
    }
    Ok(())
}

/// Stops the stack. Returns false if a second Ctrl-C cut it short.
pub(crate) async fn stopped(stack: Stack) -> bool {
    tokio::select! {
        () = stack.stop() => true,
        _ = poster::stopped() => false,
    }
}

/// Writes the file in one step, so that a script never reads half of it.
pub(crate) fn write_ready_file(path: &Path, ready: &Ready) -> Result<(), Box<dyn Error>> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    serde_json::to_writer_pretty(&mut file, ready)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
