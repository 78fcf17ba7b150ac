//! Starts Lambda functions.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing_subscriber::filter::LevelFilter;

use super::Aws;
use crate::settings::Lookup;
use crate::time::Clock;

/// Runs a function until Lambda stops it: makes its app from the environment, which lives as long as the process, and
/// handles the events.
pub fn run<App: 'static, E: Into<Error>, Event: DeserializeOwned, Answer: Serialize, F>(
    app: impl FnOnce(&Aws, Clock, Lookup<'_>) -> Result<App, E>,
    handle: impl Fn(&'static App, LambdaEvent<Event>) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<Answer, Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        log_to_stdout();
        let app = app(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok()).map_err(Into::into)?;
        let app = Box::leak(Box::new(app));
        lambda_runtime::run(service_fn(|event| handle(app, event))).await
    })
}

/// Lambda sends standard output to CloudWatch Logs. The level is that of `AWS_LAMBDA_LOG_LEVEL`, and the lines are JSON
/// if `AWS_LAMBDA_LOG_FORMAT` says so. `lambda_runtime` can do this too, but its per-module filters add a regular
/// expression engine to each cold start.
fn log_to_stdout() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // An empty string would parse as the level `error`.
    let level = Some(variable("AWS_LAMBDA_LOG_LEVEL")).filter(|level| !level.is_empty());
    let level = level.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    // CloudWatch adds the time to each line.
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).without_time();
    if variable("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") { log.json().init() } else { log.init() }
}
