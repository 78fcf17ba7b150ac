//! What Lambda tells a function about an invocation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::Context;
use uuid::Uuid;

/// The context of an invocation that may take until `timeout` from now.
pub(crate) fn context(timeout: Duration) -> Context {
    let end = SystemTime::now() + timeout;
    let mut context = Context::default();
    context.request_id = Uuid::new_v4().to_string();
    context.deadline = end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    context
}
