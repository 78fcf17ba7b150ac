//! A file of many prompts, in its short form. The long form is `cargo run -p tests --bin soak -- --file`.

use std::time::Duration;

use tests::volume::{Plan, volume};

const PLAN: Plan =
    Plan { jobs: 600, kills: 3, latency: Duration::from_millis(20), busy: 0.03, patience: Duration::from_secs(120) };

#[tokio::test(flavor = "multi_thread")]
async fn a_command_and_a_stack_that_are_killed_three_times_submit_and_download_nothing_twice() {
    let report = volume(PLAN).await;
    assert!(report.audit.is_good(), "{report}");
    assert_eq!((report.saved, report.failed), (599, 1), "{report}");
}
