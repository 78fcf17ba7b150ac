//! What the functions log, as Lambda's logging controls want it.

use tracing_subscriber::filter::LevelFilter;

/// Sends the log to standard output, which Lambda hands on to CloudWatch Logs: what is at least as severe as
/// `AWS_LAMBDA_LOG_LEVEL` says, as JSON where `AWS_LAMBDA_LOG_FORMAT` says so.
///
/// `lambda_runtime` can do the same with a filter for each module, for which every function would carry a compiler of
/// regular expressions and run it at each start.
pub fn start() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // An empty text would be read as the level of errors alone.
    let level = Some(variable("AWS_LAMBDA_LOG_LEVEL")).filter(|level| !level.is_empty());
    let level = level.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    // CloudWatch knows the time of each line.
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).without_time();
    if variable("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") { log.json().init() } else { log.init() }
}
