//! The command `poster`: a client of the HTTP API, for a local service and a deployed one alike.
//!
//! Messages go to standard error, data as JSON lines to standard output.

mod api;
mod arguments;
mod batch;
mod config;
mod digest;
mod doctor;
mod download;
mod failure;
mod http;
mod ids;
mod jobs;
mod lines_file;
mod listen;
mod make;
mod manifest;
mod pictures;
mod progress;
mod sheet;
mod state;
mod terminal;
mod watch;
mod words;

pub use arguments::OrderOptions;
pub use make::make_locally;

use std::process::ExitCode;

use clap::Parser;

use crate::api::Api;
use crate::arguments::{Arguments, Command};
use crate::config::Config;
use crate::failure::{Failure, Outcome, blocking};
use crate::terminal::Terminal;

/// The exit code of a command that Ctrl-C stopped.
const CTRL_C: u8 = 130;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let terminal = Terminal::new(arguments.json, arguments.quiet);
    let outcome = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let ends_by_ctrl_c = matches!(&arguments.command, Command::Listen(listen) if !listen.once);
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = run(arguments, &terminal) => outcome,
                    code = stopped() => match code {
                        CTRL_C if ends_by_ctrl_c => Ok(Outcome::AllDone),
                        code => Err(Failure::Interrupted(code)),
                    },
                }
            });
            // Do not wait for a thread that reads a large file.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::Local(error.to_string())),
    };
    terminal.clear();
    match outcome {
        Ok(Outcome::AllDone) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Found(code)) => ExitCode::from(code),
        Err(failure) => {
            terminal.error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(arguments: Arguments, terminal: &Terminal) -> Result<Outcome, Failure> {
    let api = || {
        let config = Config::load(arguments.config.as_deref())?;
        let service = config.settle(arguments.api.as_deref(), arguments.api_key.clone())?;
        Ok::<_, Failure>(Api::new(service, terminal.clone()))
    };
    match &arguments.command {
        Command::Make(make) => make::make(&api()?, make).await,
        Command::Batch(batch) => batch::run(api()?, batch).await,
        Command::Watch(watch) => watch::run(&api()?, watch).await,
        Command::List(list) => jobs::list(&api()?, list).await,
        Command::Get(get) => jobs::get(&api()?, get).await,
        Command::Cancel(ids) => jobs::act(&api()?, ids, "cancel").await,
        Command::Retry(ids) => jobs::act(&api()?, ids, "retry").await,
        Command::Download(download) => download::run(&api()?, download).await,
        Command::Listen(listen) => listen::run(&api()?, listen).await,
        Command::Doctor(doctor) => doctor::run(&api()?, doctor).await,
        Command::Sheet(sheet) => {
            let (sheet, terminal) = (sheet.clone(), terminal.clone());
            blocking(move || sheet::run(&terminal, &sheet)).await
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut arguments::for_completions(), "poster", &mut script);
            terminal::print(&script).map(|()| Outcome::AllDone)
        }
    }
}

/// Resolves on Ctrl-C or SIGTERM, with the exit code for it.
pub async fn stopped() -> u8 {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => CTRL_C,
                _ = terminate.recv() => 143,
            };
        }
    }
    match tokio::signal::ctrl_c().await {
        Ok(()) => CTRL_C,
        // Without a handler, the system ends the process.
        Err(_) => std::future::pending().await,
    }
}
