//! The metrics of jobs that end, and the reasons in the worker's log that alarms count.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bench::events::messages;
use local::template::TEMPLATE;
use serde_json::Value;
use shared::JobId;
use shared::aws::{Aws, Output};
use shared::job::{ErrorCode, Status};
use shared::ticket::{Message as _, Ticket};
use tests::pipeline::{Pipeline, delivery, ticket};
use tests::runtime_api::invoke;

use crate::batch_function::ticket as batch_ticket;
use crate::binaries::variables;

/// The output, for a test to read.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no one panicked").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// The lines, each parsed as JSON.
    pub(crate) fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.0.lock().expect("no one panicked"));
        let lines = String::from_utf8(bytes).expect("it is text");
        lines.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }
}

/// Clients whose metrics are kept, and the settings of a function.
pub(crate) fn overheard(pipeline: &Pipeline, function: &str) -> (Kept, Aws, BTreeMap<String, String>) {
    let kept = Kept::default();
    let aws = pipeline.stack.aws().clone().with_output(Output::to(kept.clone()));
    (kept, aws, pipeline.stack.deployment().functions[function].environment.clone())
}

#[tokio::test]
async fn each_job_that_ends_writes_its_metrics_once() {
    let pipeline = Pipeline::without_event_sources().await;
    let (kept, aws, settings) = overheard(&pipeline, "worker");
    let worker =
        worker::App::new(&aws, pipeline.clock.clone(), &|name| settings.get(name).cloned()).expect("good settings");

    let painted = pipeline.submit("A heist on the moon").await.id;
    let event = delivery(&[&ticket_of(painted), &ticket_of(painted)], 1);
    worker::handle(&worker, event).await.expect("it works");
    worker::handle(&worker, ticket(painted, 2)).await.expect("it works");
    let told = kept.take();
    assert_eq!(told.len(), 1, "one picture, three tickets: {told:?}");
    assert_eq!(told[0]["Outcome"], "succeeded");
    assert_eq!(told[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"], "MoviePosters/local");
    assert_eq!(told[0]["Cost"], 0.04);
    assert!(told[0]["Bytes"].as_u64().is_some_and(|bytes| bytes > 0));

    pipeline.model("filter=1");
    let filtered = pipeline.submit("A heist on Mars").await.id;
    worker::handle(&worker, ticket(filtered, 1)).await.expect("it works");
    let told = kept.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["Outcome"], &told[0]["Code"]), (&"refused".into(), &"content_filtered".into()));

    pipeline.model("throttle=1");
    let busy = pipeline.submit("A heist on Venus").await.id;
    worker::handle(&worker, ticket(busy, 1)).await.expect("it works");
    assert_eq!(kept.take(), Vec::<Value>::new(), "the job has not ended");

    // The stack's own functions write no metrics, because they would disturb the terminal.
    pipeline.post(&format!("/jobs/{busy}/cancel"), &Value::Null).await;
    assert_eq!(pipeline.job(busy).await.status, Status::Canceled);
    assert_eq!(kept.take(), Vec::<Value>::new());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_is_canceled_with_its_batch_writes_metrics_too() {
    let pipeline = Pipeline::without_event_sources().await;
    let (kept, aws, settings) = overheard(&pipeline, "batch");
    let app =
        batch::App::new(&aws, pipeline.clock.clone(), &|name| settings.get(name).cloned()).expect("good settings");

    let order = serde_json::json!({ "jobs": [{ "prompt": "A heist on the moon" }] });
    let batch = pipeline.submit_batch(&order).await.id;
    pipeline.post(&format!("/batches/{batch}/cancel"), &Value::Null).await;
    batch::handle(&app, batch_ticket(batch)).await.expect("the function answers");
    let told = kept.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["Outcome"], &told[0]["Cost"]), (&"canceled".into(), &0.0.into()));
    pipeline.stop().await;
}

fn ticket_of(job: JobId) -> String {
    Ticket { job, queued_at: None, trace: None }.to_body()
}

/// The reasons that a metric filter of the template counts, from a pattern such as `{ $.fields.reason = "throttled" }`.
fn reasons(filter: &str) -> Vec<String> {
    let template = local::template::document(TEMPLATE).expect("the template is YAML");
    let pattern = template["Resources"][filter]["Properties"]["FilterPattern"].as_str().expect("a pattern").to_owned();
    let parts = pattern.split("$.fields.reason = \"").skip(1);
    parts.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// A job that waits because its request was refused as invalid may wait for the operator.
#[test]
fn the_alarms_count_reasons_that_exist() {
    for (filter, heard) in [
        (
            "ModelRefusals",
            [ErrorCode::ModelAccessDenied, ErrorCode::ModelNotFound, ErrorCode::InvalidRequest].as_slice(),
        ),
        ("ModelThrottles", &[ErrorCode::Throttled, ErrorCode::ModelUnavailable]),
    ] {
        assert_eq!(reasons(filter), heard.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_deployed_worker_writes_metrics_and_the_reasons_that_alarms_count() {
    let pipeline = Pipeline::without_event_sources().await;
    let variables = variables(&pipeline, "worker");
    for (faults, filter) in [
        ("deny=1", Some("ModelRefusals")),
        ("throttle=1", Some("ModelThrottles")),
        ("unavailable=1", Some("ModelThrottles")),
        ("", None),
    ] {
        pipeline.model(faults);
        let job = pipeline.submit("A heist on the moon").await.id;
        let log = invoke("worker", &variables, &messages(&[ticket_of(job)])).await.log;
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
        let metrics: Vec<_> = lines.iter().filter(|line| line["_aws"].is_object()).collect();
        match filter {
            Some(filter) => {
                let listened_for = reasons(filter);
                let heard = lines.iter().filter_map(|line| line["fields"]["reason"].as_str());
                assert_eq!(heard.filter(|reason| listened_for.iter().any(|one| one == reason)).count(), 1, "{log}");
                assert!(metrics.is_empty(), "{log}");
                pipeline.post(&format!("/jobs/{job}/cancel"), &Value::Null).await;
            }
            None => {
                assert_eq!(metrics.len(), 1, "{log}");
                assert_eq!(metrics[0]["Job"], job.to_string());
            }
        }
    }
    pipeline.stop().await;
}
