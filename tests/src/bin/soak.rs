//! Puts the pipeline under load, kills it again and again, or makes its model unavailable for hours, and checks every job
//! afterwards.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use local::bedrock::{Behavior, Faults};
use tests::restart::{Plan, restart};
use tests::simulation::{Ailment, Universe};
use tests::soak::{Load, soak};
use tests::told::{ToldPlan, tell};
use tests::volume::{Plan as Volume, volume};

/// Puts the pipeline under load on this machine and checks every job afterwards. Ends with an error if a job was lost or
/// painted without need, or if anything else breaks the promise.
#[derive(Debug, Parser)]
#[command(name = "soak", max_term_width = 100)]
struct Arguments {
    /// How many jobs
    #[arg(long, default_value_t = 20_000, value_parser = whole)]
    jobs: usize,

    /// How many jobs one request contains
    #[arg(long, default_value_t = 1000, value_parser = whole)]
    per_batch: usize,

    /// How long the model takes for a picture, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    latency: u64,

    /// How often the model fails; greater rates make longer tails, because tickets back off for up to 15 minutes
    #[arg(
        long,
        value_name = "NAME=RATE,...",
        default_value = "throttle=0.05,unavailable=0.02,error=0.001,filter=0.01"
    )]
    faults: Faults,

    /// How many worker invocations run at once
    #[arg(long, default_value_t = 10, value_parser = whole)]
    invocations: usize,

    /// How many pictures one invocation paints at once, at most 10
    #[arg(long, default_value_t = 10, value_parser = whole)]
    in_flight: usize,

    /// Instead of load with faults, kill the local stack's binary this many times during one batch of at most 1000 jobs
    #[arg(long, value_name = "TIMES", value_parser = whole)]
    kills: Option<usize>,

    /// Instead of load with faults, make the model unavailable to a batch of at most 1000 jobs for this long by a simulated
    /// clock, such as 10m or 6h
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "kills")]
    outage: Option<Duration>,

    /// How the model fails in the outage
    #[arg(long, value_enum, default_value_t = Ailment::Throttled, requires = "outage")]
    ailment: Ailment,

    /// Instead of load with faults, have the command `poster` make a poster of each line of a file, and kill it and the local
    /// stack's binary three times
    #[arg(long, conflicts_with_all = ["kills", "outage"])]
    file: bool,

    /// Instead of load with faults, have a batch send every event to a receiver that is down, and kill the local stack meanwhile
    #[arg(long, conflicts_with_all = ["kills", "outage", "file"])]
    webhooks: bool,

    /// How long the receiver is down
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10m", requires = "webhooks")]
    down: Duration,

    /// The seed of the moments of the kills [default: a random one]
    #[arg(long, requires = "kills")]
    seed: Option<u64>,
}

fn whole(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("{text:?} is not a whole number above 0"))
}

/// A time of up to 20 hours, which is shorter than the jobs' deadline.
fn time(text: &str) -> Result<Duration, String> {
    let minutes = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "m")) => number.parse().ok(),
        Some((number, "h")) => number.parse::<u64>().ok().and_then(|hours| hours.checked_mul(60)),
        _ => None,
    };
    let minutes = minutes.filter(|minutes| (1..=20 * 60).contains(minutes));
    let minutes = minutes.ok_or_else(|| format!("{text:?} is not a time of up to 20 hours, such as 10m or 6h"))?;
    Ok(Duration::from_secs(60 * minutes))
}

/// Builds the programs of this package that are killed, because `cargo run` builds no other program than this one.
fn build_programs() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--package", "tests", "--bins", "--locked"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // Cargo sets these for this program. Build scripts that read them would run again, and so rebuild what needs them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            build.env_remove(name);
        }
    }
    assert!(build.status().expect("cargo runs").success(), "the programs are built");
}

#[tokio::main]
async fn main() -> std::io::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.file || arguments.webhooks || arguments.kills.is_some() {
        build_programs();
    }
    let latency = Duration::from_millis(arguments.latency);
    let (report, good) = match (arguments.kills, arguments.outage) {
        _ if arguments.file => {
            let plan =
                Volume { jobs: arguments.jobs, kills: 3, latency, busy: 0.01, patience: Duration::from_secs(3600) };
            let report = volume(plan).await;
            (report.to_string(), report.audit.is_good())
        }
        _ if arguments.webhooks => {
            // The fourth try comes half an hour after the third.
            let patience = Duration::from_secs(3600);
            let report =
                tell(ToldPlan { jobs: arguments.jobs, latency, down: arguments.down, replays: false, patience }).await;
            (report.to_string(), report.is_good())
        }
        (_, Some(lasts)) => {
            let universe = Universe::with_attempts(3).await;
            let report = universe.outage(arguments.jobs, arguments.ailment, lasts).await;
            universe.stop().await;
            (report.to_string(), report.is_good())
        }
        (Some(kills), None) => {
            let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
            let report = restart(Plan { jobs: arguments.jobs, kills, latency, seed }).await;
            (report.to_string(), report.audit.is_good())
        }
        (None, None) => {
            let load = Load {
                jobs: arguments.jobs,
                per_batch: arguments.per_batch,
                model: Behavior { latency, faults: arguments.faults, plain: true },
                invocations: arguments.invocations,
                in_flight: arguments.in_flight,
                ..Load::default()
            };
            let report = soak(load).await;
            (report.to_string(), report.audit.is_good())
        }
    };
    writeln!(std::io::stdout(), "{report}")?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
