//! Reads of the table that are stale or incomplete.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use shared::JobId;
use shared::job::Status;
use tests::events::{answer, get, post};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, ticket};

use crate::batch_function::ticket as batch_ticket;

/// Whether the call is an eventually consistent read of items, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html>.
fn may_lag(call: &Call<'_>) -> bool {
    matches!(call.operation, "GetItem" | "BatchGetItem") && !call.text().contains(r#""ConsistentRead":true"#)
}

#[tokio::test]
async fn a_job_that_was_submitted_just_now_is_found() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, behind) =
        pipeline.intercept(|call| if may_lag(call) { Action::Answer(200, "{}".to_owned()) } else { Action::Pass });
    let job = pipeline.submit("A heist on the moon").await.id;
    let look = get("/jobs/{id}", Some(job.to_string()));
    let (code, view) = answer(status::handle(&behind.status, look).await.expect("the function answers"));
    assert_eq!((code, &view["id"]), (200, &json!(job)));
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "A heist on Mars" }] })).await.id;
    let look = get("/batches/{id}", Some(batch.to_string()));
    let (code, view) = answer(status::handle(&behind.status, look).await.expect("the function answers"));
    assert_eq!((code, &view["id"]), (200, &json!(batch)));
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_ticket_of_a_retry_outlives_a_worker_that_saw_the_job_end_before() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, behind) = pipeline.intercept(|call| if may_lag(call) { Action::Stale } else { Action::Pass });
    let job = pipeline.submit("A heist on the moon").await.id;
    for action in ["cancel", "retry"] {
        let response = pipeline.post(&format!("/jobs/{job}/{action}"), &Value::Null).await;
        assert!(response.status().is_success(), "{action}");
        worker::handle(&behind.worker, ticket(job, 1)).await.expect("the worker answers");
    }
    assert_eq!(pipeline.job(job).await.status, Status::Succeeded, "the ticket of the retry did nothing");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_that_was_taken_in_is_shown_and_listed_whole() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, behind) = pipeline.intercept(|call| if may_lag(call) { Action::Stale } else { Action::Pass });
    for batches in 1..=3 {
        let order = json!({ "jobs": vec![json!({ "prompt": "A heist on the moon" }); batches] });
        let id = pipeline.submit_batch(&order).await.id;
        let look = get("/batches/{id}", Some(id.to_string()));
        let (code, view) = answer(status::handle(&behind.status, look).await.expect("the function answers"));
        assert_eq!((code, &view["counts"]["queued"]), (200, &json!(batches)));
        let list = get("/batches", None);
        let (code, page) = answer(status::handle(&pipeline.stack.apps().status, list).await.expect("it answers"));
        assert_eq!((code, page["batches"].as_array().map(Vec::len)), (200, Some(batches)));
        assert_eq!(page["batches"][0], view);
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_batch_whose_record_was_not_there_a_moment_ago_is_listed() {
    let pipeline = Pipeline::without_event_sources().await;
    let nothing = json!({ "Responses": {}, "UnprocessedKeys": {} }).to_string();
    let (_, behind) = pipeline.intercept(move |call| match call.operation {
        "BatchGetItem" if may_lag(call) => Action::Answer(200, nothing.clone()),
        _ => Action::Pass,
    });
    let order = json!({ "jobs": [{ "prompt": "A heist on the moon" }] });
    let id = pipeline.submit_batch(&order).await.id;
    let list = get("/batches", None);
    let (code, page) = answer(status::handle(&behind.status, list).await.expect("the function answers"));
    assert_eq!((code, &page["batches"][0]["id"]), (200, &json!(id)));
    pipeline.stack.stop().await;
}

/// Lets every read of a batch's index return its jobs in this state, or no jobs for `None`.
fn index_shows(jobs: &[JobId], status: Option<Status>) -> impl Fn(&Call<'_>) -> Action + Send + Sync + use<> {
    let item = |job: &JobId| Some(json!({ "pk": { "S": format!("JOB#{job}") }, "status": { "S": status?.as_str() } }));
    let items: Vec<_> = jobs.iter().filter_map(item).collect();
    let shown = json!({ "Count": items.len(), "Items": items }).to_string();
    move |call| if call.operation == "Query" { Action::Answer(200, shown.clone()) } else { Action::Pass }
}

#[tokio::test]
async fn a_batch_is_retried_and_canceled_whatever_its_index_shows() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "One" }, { "prompt": "Two" }] });
    let batch = pipeline.submit_batch(&order).await;
    let jobs: Vec<_> = batch.jobs.expect("names").into_iter().map(|job| job.id).collect();
    let steer = |action| post(action, Some(batch.id.to_string()), None, &Value::Null);
    for status in [None, Some(Status::Queued), Some(Status::Running), Some(Status::Failed)] {
        let (_, behind) = pipeline.intercept(index_shows(&jobs, status));
        let pass = async || batch::handle(&behind.batch, batch_ticket(batch.id)).await.expect("it answers");
        for &job in &jobs {
            let dead_letter = &pipeline.stack.apps().dead_letter;
            dead_letter::handle(dead_letter, ticket(job, 1000)).await.expect("it answers");
            assert_eq!(pipeline.job(job).await.status, Status::Failed);
        }
        let (code, _) = answer(submit::handle(&behind.submit, steer("/batches/{id}/retry")).await.expect("it answers"));
        assert_eq!(code, 202);
        assert_eq!(pass().await.batch_item_failures.len(), 1, "the index shows {status:?}");
        for &job in &jobs {
            assert_eq!(pipeline.job(job).await.status, Status::Queued, "the index shows {status:?}");
        }
    }
    for status in [None, Some(Status::Queued), Some(Status::Failed), Some(Status::Canceled)] {
        let (_, behind) = pipeline.intercept(index_shows(&jobs, status));
        let batch = pipeline.submit_batch(&order).await;
        let (id, jobs) = (batch.id, batch.jobs.expect("names"));
        let cancel = post("/batches/{id}/cancel", Some(id.to_string()), None, &Value::Null);
        assert_eq!(answer(status::handle(&behind.status, cancel).await.expect("it answers")).0, 202);
        batch::handle(&behind.batch, batch_ticket(id)).await.expect("it answers");
        for job in jobs {
            assert_eq!(pipeline.job(job.id).await.status, Status::Canceled, "the index shows {status:?}");
        }
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn what_a_read_leaves_out_is_read_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    let once = AtomicBool::new(false);
    let (_, apps) = pipeline.intercept(move |call| match call.operation {
        "BatchGetItem" if !once.swap(true, Ordering::SeqCst) => {
            let left_out = json!({ "Responses": {}, "UnprocessedKeys": call.json()["RequestItems"] });
            Action::Answer(200, left_out.to_string())
        }
        _ => Action::Pass,
    });
    let listed = status::handle(&apps.status, get("/jobs", None)).await.expect("the function answers");
    let (code, page) = answer(listed);
    assert_eq!((code, &page["jobs"][0]["id"]), (200, &json!(job)));
    pipeline.stack.stop().await;
}
