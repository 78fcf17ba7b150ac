//! What Lambda gives a function: its limits, and the context of an invocation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::Context;
use serde::Serialize;
use uuid::Uuid;

/// The largest event of a synchronous call, in bytes. Lambda's error message is "Request must be smaller than 6291456 bytes
/// for the InvokeFunction operation".
pub(crate) const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;

/// The largest answer of a function, in bytes. Lambda's error message is "Response payload size exceeded maximum allowed
/// payload size (6291556 bytes)".
pub(crate) const MAX_ANSWER_BYTES: usize = MAX_EVENT_BYTES + 100;

/// Whether the JSON of an event or an answer has at most `limit` bytes. One that has no JSON, because of a header that is not
/// text, passes: its size is not what is wrong with it.
pub(crate) fn fits(payload: &impl Serialize, limit: usize) -> bool {
    serde_json::to_vec(payload).map_or(true, |json| json.len() <= limit)
}

/// The context of an invocation that ends `timeout` from now.
pub(crate) fn context(timeout: Duration) -> Context {
    let end = SystemTime::now() + timeout;
    let mut context = Context::default();
    context.request_id = Uuid::new_v4().to_string();
    context.deadline = end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    context
}
