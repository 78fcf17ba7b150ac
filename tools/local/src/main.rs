//! Runs the movie poster pipeline on this machine.

mod arguments;
mod make;
mod serve;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::arguments::Arguments;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    // A single poster shows its progress instead; RUST_LOG shows the functions' log as well. The embedded DynamoDB warns
    // about every request that it refuses, which includes every condition that fails.
    let server = "warn,dynoxide=error,submit=info,worker=info,dead_letter=info,batch=info,webhook=info";
    let serves = arguments.prompt.is_empty();
    let quiet = if serves { server } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();

    let outcome = if serves { serve::serve(&arguments).await } else { make::make(&arguments).await };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
