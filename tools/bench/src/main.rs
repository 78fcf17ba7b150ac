//! Measures what the functions cost, compared with the least that a function can cost and with a plain Python Lambda.
//!
//! `cargo run -p bench --release` builds all of them, drives them through a local Lambda runtime API against stand-ins
//! for the AWS services, and writes `docs/performance.md` and its plot. `--help` says what can be left out.

mod calls;
mod decode;
mod deliveries;
mod files;
mod lines;
mod local;
mod money;
mod plot;
mod products;
mod report;
mod requests;
mod services;
mod start;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use bench::{Failure, events, process, runtime_api};
use clap::{Parser, ValueEnum};

use crate::products::Products;
use crate::report::Report;

/// Measures the functions, and writes docs/performance.md.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Arguments {
    /// Run a fifth as often, to see whether something works; the figures are then rough
    #[arg(long)]
    quick: bool,

    /// Measure these parts alone, and leave docs/performance.md as it is
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,

    /// Also build the local stack from nothing, to see what the build takes; some minutes
    #[arg(long)]
    build: bool,

    /// Also admit a file of a million lines in one run; some minutes, and a gigabyte of memory
    #[arg(long)]
    million: bool,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Decoding the model's answer
    Decode,
    /// Checking a file of jobs
    Lines,
    /// Sizes and starts
    Start,
    /// First invocations over TLS
    Tls,
    /// Submitting a job and asking after one
    Requests,
    /// Ten tickets in one invocation
    Worker,
    /// Calls of the services, also when they fail
    Calls,
    /// Batches from files
    Files,
    /// Deliveries of events
    Webhooks,
    /// The local stack
    Local,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        return Err("figures of an unoptimized build say nothing; run with --release".into());
    }
    let runs = Runs(if arguments.quick { 1 } else { 5 });
    let mut report = Report::default();
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    if wanted(Part::Decode) {
        // First, while this process is small and has nothing else to do.
        decode::measure(runs, &mut report)?;
    }
    if wanted(Part::Lines) {
        lines::measure(runs, &mut report)?;
    }
    if !arguments.only.is_empty()
        && !arguments.million
        && arguments.only.iter().all(|part| matches!(part, Part::Decode | Part::Lines))
    {
        // These need no products.
        return report.print();
    }
    let products = Products::build().await?;
    report.section("machine", report::machine(&products.python_version)?);
    if wanted(Part::Start) {
        progress("sizes and starts");
        start::sizes(&products, &mut report).await?;
        start::starts(&products, runs, &mut report).await?;
    }
    if wanted(Part::Tls) {
        progress("first invocations over TLS");
        start::first_over_tls(&products, runs, &mut report).await?;
    }
    let (mut submit, mut worker, mut calls, mut files) = (None, None, None, None);
    if wanted(Part::Requests) {
        progress("requests");
        submit = Some(requests::submit(&products, runs, &mut report).await?);
        requests::status(&products, runs, &mut report).await?;
    }
    if wanted(Part::Worker) {
        progress("ten tickets at once");
        worker = Some(worker::measure(&products, runs, &mut report).await?);
    }
    if wanted(Part::Calls) {
        progress("calls and duplicates");
        calls = Some(calls::measure(&products, runs, &mut report).await?);
    }
    if wanted(Part::Files) {
        progress("batches from files");
        files = Some(files::measure(&products, runs, &mut report).await?);
    }
    if wanted(Part::Webhooks) {
        progress("deliveries of events");
        deliveries::measure(&products, runs, &mut report).await?;
    }
    if let (Some(submit), Some(worker), Some(calls), Some(files)) = (submit, worker, calls, files) {
        money::compute(&submit, &worker, &calls, &files, &mut report);
    }
    if wanted(Part::Local) {
        progress("the local stack");
        local::measure(&products, runs, &mut report).await?;
    }
    if arguments.million {
        progress("a million lines in one run");
        files::million(&products, &mut report).await?;
    }
    if arguments.build {
        progress("the build, from nothing");
        local::build(&products, &mut report).await?;
    }
    report.print()?;
    if arguments.only.is_empty() {
        report.write(&products.root)?;
    }
    Ok(())
}

/// How often things are measured.
#[derive(Clone, Copy, Debug)]
struct Runs(usize);

impl Runs {
    /// This often, and a fifth of it in a quick run.
    fn times(self, full: usize) -> usize {
        (full * self.0).div_ceil(5)
    }
}

fn progress(what: &str) {
    // Failing to show progress is not an error.
    let _ = writeln!(std::io::stderr(), "measuring {what}");
}

/// The value in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
