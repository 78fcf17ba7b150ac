//! What the measurements share with the tests: a stand-in for Lambda's runtime API, and events as AWS sends them.

pub mod events;
pub mod process;
pub mod runtime_api;

/// An error that stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
