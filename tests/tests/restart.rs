//! The local stack's binary, killed again and again.

use std::time::Duration;

use local::{Options, Stack, StartError};
use serde_json::{Value, json};
use shared::api::BatchView;
use shared::batch::BatchStatus;
use tests::pipeline::Pipeline;
use tests::restart::{FilePlan, Plan, restart, restart_with_file};
use tests::told::{ToldPlan, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_killed_twenty_times_loses_no_job_and_paints_none_twice_without_need() {
    // Other moments: `cargo run -p tests --bin soak -- --kills 20 --jobs 500 --latency 50`.
    let plan = Plan { jobs: 500, kills: 20, latency: Duration::from_millis(50), seed: 4 };
    let report = restart(plan).await;
    assert!(report.audit.is_good(), "{report}");
    assert!(report.interrupted > 0, "no kill met a painting: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_killed_over_a_file_paints_each_line_and_writes_its_results() {
    // More lines, with the command: `cargo run -p tests --bin soak -- --file --latency 20`.
    let plan = FilePlan { lines: 150, latency: Duration::from_millis(20), patience: Duration::from_secs(120) };
    let report = restart_with_file(plan).await;
    assert!(report.audit.is_good() && report.results == 150, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_killed_while_its_receiver_is_down_delivers_every_event() {
    // Ten minutes: `cargo run -p tests --bin soak -- --webhooks --down 10m --jobs 1000 --latency 50`.
    let (latency, down) = (Duration::from_millis(20), Duration::from_secs(2));
    let report = tell(ToldPlan { jobs: 100, latency, down, replays: true, patience: Duration::from_secs(60) }).await;
    assert!(report.is_good(), "{report}");
    assert!(report.refused > 0, "the receiver was never down: {report}");
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

#[tokio::test]
async fn a_batch_from_a_file_goes_on_after_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let options = |event_sources| Options { data: Some(data.path().to_owned()), event_sources, ..Options::default() };
    let before = Pipeline::with(options(false)).await;
    let mut ids = Vec::new();
    for start in [true, false] {
        let batch = before.post("/batches", &json!({ "input": { "format": "txt" } })).await;
        let batch: BatchView = batch.json().await.expect("a batch");
        let url = &batch.upload.as_ref().expect("where to upload the file").url;
        let put = before.http.put(url).body("A heist\nA wedding\n").send().await.expect("the bucket answers");
        assert!(put.status().is_success());
        if start {
            let started = before.post(&format!("/batches/{}/start", batch.id), &Value::Null).await;
            assert_eq!(started.status(), 202);
        }
        ids.push(batch.id);
    }
    before.stack.stop().await;

    let after = Pipeline::with(options(true)).await;
    let ended = after.batch_when(ids[0], |batch| !batch.status.is_active()).await;
    assert_eq!((ended.status, ended.counts.succeeded), (BatchStatus::Completed, 2));
    let results = after.get(&format!("/batches/{}/results", ids[0])).await;
    let results = results.text().await.expect("the results");
    assert_eq!(results.matches(r#""status":"succeeded""#).count(), 2, "{results}");
    let waiting = after.batch_when(ids[1], |_| true).await;
    assert_eq!(waiting.status, BatchStatus::AwaitingInput, "nobody has started it");
    after.stack.stop().await;
}
