//! The local stack's binary, killed again and again.

use std::time::Duration;

use local::{Options, Stack, StartError};
use tests::restart::{Plan, restart};

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_killed_twenty_times_loses_no_job_and_paints_none_twice_without_need() {
    // Other moments: `cargo run -p tests --bin soak -- --kills 20 --jobs 500 --latency 50`.
    let plan = Plan { jobs: 500, kills: 20, latency: Duration::from_millis(50), seed: 4 };
    let report = restart(plan).await;
    assert!(report.audit.is_good(), "{report}");
    assert!(report.interrupted > 0, "no kill met a painting: {report}");
}

#[tokio::test]
async fn two_stacks_never_share_their_data() {
    let data = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(data.path().to_owned()), event_sources: false, ..Options::default() };
    let first = Stack::start(options()).await.expect("the stack starts");
    let second = Stack::start(options()).await;
    assert!(matches!(second, Err(StartError::DataInUse(path)) if path == data.path()));
    first.stop().await;
    Stack::start(options()).await.expect("the data is free again").stop().await;
}
