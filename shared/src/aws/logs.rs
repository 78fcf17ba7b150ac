//! Logging as configured by Lambda's logging controls.

use tracing_subscriber::filter::LevelFilter;

/// Logs to standard output, which Lambda sends to CloudWatch Logs, at the level of `AWS_LAMBDA_LOG_LEVEL` and as JSON
/// if `AWS_LAMBDA_LOG_FORMAT` says so. `lambda_runtime` can do this too, but its per-module filters add a regular
/// expression engine to each cold start.
pub fn start() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // An empty string would parse as the level `error`.
    let level = Some(variable("AWS_LAMBDA_LOG_LEVEL")).filter(|level| !level.is_empty());
    let level = level.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    // CloudWatch adds the time to each line.
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).without_time();
    if variable("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") { log.json().init() } else { log.init() }
}
