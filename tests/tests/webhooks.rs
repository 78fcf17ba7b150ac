//! Events of ended jobs and batches, until they are in the queue of the function `webhook`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use local::{Apps, Options};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::JobId;
use shared::api::{BatchView, JobView};
use shared::delivery::DeliveryMessage;
use shared::ticket::{BatchTicket, Message};
use tests::events::{answer, get, post};
use tests::interceptor::Action;
use tests::pipeline::{Pipeline, delivery, ticket};

use crate::batch_function::{self, paint, started, step};

const URL: &str = "https://example.com/posters";

const DAY: Duration = Duration::from_secs(86_400);

fn every_event() -> Value {
    json!({ "url": URL, "events": ["job.succeeded", "job.failed", "job.canceled", "batch.ended"] })
}

/// A job with a webhook for all of its events.
pub(crate) async fn submit(pipeline: &Pipeline, prompt: &str) -> JobId {
    let response = pipeline.post("/jobs", &json!({ "prompt": prompt, "webhook": { "url": URL } })).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json::<JobView>().await.expect("a job").id
}

/// The events that are in the queue since the last call, each as its `webhook-id` and its payload.
async fn events(pipeline: &Pipeline) -> Vec<(String, Value)> {
    let queue = pipeline.ready().webhook_queue_url.as_ref().expect("it sends webhooks");
    let mut events = Vec::new();
    loop {
        let received = pipeline.sqs().receive_message().queue_url(queue).max_number_of_messages(10).send().await;
        let messages = received.expect("the queue answers").messages.unwrap_or_default();
        if messages.is_empty() {
            return events;
        }
        for message in messages {
            let handle = message.receipt_handle.expect("a handle");
            let delete = pipeline.sqs().delete_message().queue_url(queue).receipt_handle(handle);
            delete.send().await.expect("the queue answers");
            let message = DeliveryMessage::from_body(&message.body.expect("a body")).expect("an event");
            assert_eq!(message.url.as_str(), URL);
            let payload: Value = serde_json::from_str(&message.payload).expect("the payload is JSON");
            assert_eq!(payload["type"], message.event.as_str());
            events.push((message.id.to_string(), payload));
        }
    }
}

/// The types of the new events.
async fn types(pipeline: &Pipeline) -> Vec<String> {
    let events = events(pipeline).await;
    events.iter().map(|(_, payload)| payload["type"].as_str().expect("a type").to_owned()).collect()
}

/// Functions that cannot reach the queue of events while `away` is true.
fn without_queue(pipeline: &Pipeline) -> (Arc<AtomicBool>, Apps) {
    let away = Arc::new(AtomicBool::new(true));
    let (is_away, queue) = (away.clone(), pipeline.ready().webhook_queue_url.clone().expect("it sends webhooks"));
    let (_, apps) = pipeline.intercept(move |call| match call.operation {
        "SendMessage" if call.json()["QueueUrl"] == queue.as_str() && is_away.load(Ordering::Relaxed) => Action::Refuse,
        _ => Action::Pass,
    });
    (away, apps)
}

/// A job that has failed, and whose worker died before it could queue the event.
pub(crate) async fn untold(pipeline: &Pipeline) -> JobId {
    let job = submit(pipeline, "nsfw").await;
    let (_, apps) = without_queue(pipeline);
    let back = worker::handle(&apps.worker, ticket(job, 1)).await.expect("it answers").batch_item_failures;
    assert_eq!(back.len(), 1, "the ticket stays");
    job
}

#[tokio::test]
async fn each_way_to_end_queues_one_event() {
    let pipeline = Pipeline::without_event_sources().await;
    let succeeded = submit(&pipeline, "A heist").await;
    assert!(pipeline.work(succeeded, 1).await);
    let told = events(&pipeline).await;
    let record = pipeline.record(succeeded).await;
    assert_eq!(told[0].0, format!("job_{succeeded}_{}", record.queued_at.ms()));
    let expected = json!({
        "type": "job.succeeded",
        "timestamp": record.finished_at(),
        "data": {
            "id": succeeded, "status": "succeeded", "batch_id": null, "custom_id": null, "attempts": 1,
            "created_at": record.created_at, "finished_at": record.finished_at(), "error": null,
        },
    });
    assert_eq!(told.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), [expected]);

    let failed = submit(&pipeline, "nsfw").await;
    assert!(pipeline.work(failed, 1).await);
    let told = events(&pipeline).await;
    assert_eq!(told[0].1["data"]["error"]["code"], "content_filtered");
    assert_eq!(told.len(), 1);

    let canceled = submit(&pipeline, "A heist").await;
    pipeline.post(&format!("/jobs/{canceled}/cancel"), &Value::Null).await;
    assert!(pipeline.work(canceled, 1).await);
    assert_eq!(types(&pipeline).await, ["job.canceled"]);

    let dead = submit(&pipeline, "A heist").await;
    let end = dead_letter::handle(&pipeline.stack.apps().dead_letter, ticket(dead, 1)).await.expect("it answers");
    assert!(end.batch_item_failures.is_empty());
    let (expired, lost) = (submit(&pipeline, "A heist").await, submit(&pipeline, "A heist").await);
    pipeline.clock.advance(2 * DAY);
    assert!(pipeline.work(expired, 1).await);
    assert_eq!(pipeline.job(lost).await.status.as_str(), "failed");
    assert_eq!(types(&pipeline).await, ["job.failed"; 3]);
    for job in [succeeded, failed, canceled, dead, expired, lost] {
        pipeline.job(job).await;
        assert!(pipeline.work(job, 2).await);
    }
    assert_eq!(types(&pipeline).await, [""; 0], "nobody tells it again");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_event_that_was_not_asked_for_is_not_sent() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "prompt": "A heist", "webhook": { "url": URL, "events": ["job.failed"] } });
    let job: JobView = pipeline.post("/jobs", &order).await.json().await.expect("a job");
    assert_eq!(json!(job.webhook), order["webhook"]);
    assert!(pipeline.work(job.id, 1).await);
    assert_eq!(types(&pipeline).await, [""; 0]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_ticket_stays_until_the_event_is_queued() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = submit(&pipeline, "A heist").await;
    let (away, apps) = without_queue(&pipeline);
    let back = async |receives| {
        let answer = worker::handle(&apps.worker, ticket(job, receives)).await.expect("it answers");
        answer.batch_item_failures.len()
    };
    assert_eq!((back(1).await, back(2).await), (1, 1));
    assert_eq!(pipeline.job(job).await.status.as_str(), "succeeded", "its end does not wait for that");
    away.store(false, Ordering::Relaxed);
    assert_eq!((back(3).await, back(4).await), (0, 0));
    assert_eq!(types(&pipeline).await, ["job.succeeded"]);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn an_event_is_queued_again_with_the_same_id_if_its_mark_was_lost() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = submit(&pipeline, "A heist").await;
    let (_, apps) = pipeline.intercept(|call| match call.json()["UpdateExpression"].as_str() {
        Some("SET told_for = :told") => Action::Refuse,
        _ => Action::Pass,
    });
    let answer = worker::handle(&apps.worker, ticket(job, 1)).await.expect("it answers");
    assert_eq!(answer.batch_item_failures.len(), 1);
    assert!(pipeline.work(job, 2).await);
    let told: Vec<_> = events(&pipeline).await;
    assert_eq!((told.len(), &told[0]), (2, &told[1]));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_first_queues_the_event_of_the_end_that_it_undoes() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = untold(&pipeline).await;
    let (away, apps) = without_queue(&pipeline);
    let retry = || post("/jobs/{id}/retry", Some(job.to_string()), None, &Value::Null);
    let (status, _) = answer(submit::handle(&apps.submit, retry()).await.expect("an answer"));
    assert_eq!((status, pipeline.job(job).await.status.as_str()), (503, "failed"), "it would be lost");
    away.store(false, Ordering::Relaxed);
    let (status, _) = answer(submit::handle(&apps.submit, retry()).await.expect("an answer"));
    assert_eq!(status, 202);
    assert!(pipeline.work(job, 2).await);
    let told = events(&pipeline).await;
    let types: Vec<_> = told.iter().map(|(_, payload)| &payload["type"]).collect();
    assert_eq!(types, ["job.failed", "job.failed"]);
    assert_ne!(told[0].0, told[1].0, "these are two ends");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_reader_tells_what_a_crash_left_untold() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = untold(&pipeline).await;
    pipeline.job(job).await;
    assert_eq!(types(&pipeline).await, [""; 0], "the ticket is expected to do it");
    pipeline.clock.advance(Duration::from_secs(60));
    pipeline.job(job).await;
    assert_eq!(types(&pipeline).await, ["job.failed"]);
    pipeline.job(job).await;
    assert_eq!(types(&pipeline).await, [""; 0]);
    pipeline.stop().await;
}

/// Delivers a batch's ticket. Returns whether it is deleted.
async fn look(pipeline: &Pipeline, batch: &BatchView) -> bool {
    let event = delivery(&[&BatchTicket { batch: batch.id }.to_body()], 1);
    let answer = batch::handle(&pipeline.stack.apps().batch, event).await.expect("it answers");
    answer.batch_item_failures.is_empty()
}

#[tokio::test]
async fn a_batch_tells_its_end_once_for_each_retry() {
    let pipeline = Pipeline::without_event_sources().await;
    let order =
        json!({ "jobs": [{ "prompt": "A heist", "custom_id": "a" }, { "prompt": "nsfw" }], "webhook": every_event() });
    let batch = pipeline.submit_batch(&order).await;
    assert_eq!(json!(batch.webhook), every_event());
    let jobs: Vec<_> = batch.jobs.clone().expect("its jobs").iter().map(|job| job.id).collect();
    assert!(!look(&pipeline, &batch).await, "its jobs have not ended");
    for job in &jobs {
        assert!(pipeline.work(*job, 1).await);
    }
    let told: BTreeMap<_, _> = events(&pipeline).await.into_iter().collect();
    let custom_ids: Vec<_> = told.values().map(|payload| &payload["data"]["custom_id"]).collect();
    assert!(told.len() == 2 && custom_ids.contains(&&json!("a")), "{told:?}");
    assert!(told.values().all(|payload| payload["data"]["batch_id"] == json!(batch.id)));
    assert!(look(&pipeline, &batch).await && look(&pipeline, &batch).await);
    let ended = events(&pipeline).await;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].1["data"]["status"], "completed_with_errors");
    assert_eq!(ended[0].1["data"]["counts"]["failed"], 1);

    let retry = post("/batches/{id}/retry", Some(batch.id.to_string()), Some("again"), &Value::Null);
    let mut last = ended;
    for is_repeated in [false, true] {
        let answer = submit::handle(&pipeline.stack.apps().submit, retry.clone()).await.expect("an answer");
        assert_eq!(answer.status_code, 202);
        assert_eq!(look(&pipeline, &batch).await, is_repeated);
        if !is_repeated {
            assert!(pipeline.work(jobs[1], 1).await && look(&pipeline, &batch).await);
            let again = events(&pipeline).await;
            let types: Vec<_> = again.iter().map(|(_, payload)| &payload["type"]).collect();
            assert_eq!(types, ["job.failed", "batch.ended"]);
            assert_ne!(again[1].0, last[0].0);
            last = again;
        }
    }
    assert_eq!(types(&pipeline).await, [""; 0], "a repeated request begins nothing");
    let without_key = post("/batches/{id}/retry", Some(batch.id.to_string()), None, &Value::Null);
    for _ in 0..2 {
        let answer = submit::handle(&pipeline.stack.apps().submit, without_key.clone()).await.expect("an answer");
        assert_eq!(answer.status_code, 202);
        assert!(!look(&pipeline, &batch).await);
        assert!(pipeline.work(jobs[1], 1).await && look(&pipeline, &batch).await);
        assert_eq!(types(&pipeline).await, ["job.failed", "batch.ended"]);
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_from_a_file_tells_its_end_however_it_comes() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "input": { "format": "ndjson" }, "webhook": every_event() });
    let id = started(&pipeline, order.clone(), "{\"prompt\":\"A heist\"}\n{\"prompt\":\"nsfw\"}\n").await;
    step(&pipeline, id).await;
    paint(&pipeline, id).await;
    let mut jobs = types(&pipeline).await;
    jobs.sort_unstable();
    assert_eq!(jobs, ["job.failed", "job.succeeded"]);
    assert!(step(&pipeline, id).await && step(&pipeline, id).await);
    let ended = events(&pipeline).await;
    assert_eq!((ended.len(), &ended[0].1["data"]["status"]), (1, &json!("completed_with_errors")));

    let refused = started(&pipeline, order.clone(), "{}\n").await;
    assert!(step(&pipeline, refused).await);
    let ended = events(&pipeline).await;
    assert_eq!((ended.len(), &ended[0].1["data"]["status"]), (1, &json!("invalid")));

    let awaiting: BatchView = pipeline.post("/batches", &order).await.json().await.expect("a batch");
    for _ in 0..2 {
        let cancel = pipeline.post(&format!("/batches/{}/cancel", awaiting.id), &Value::Null).await;
        assert_eq!(cancel.status(), StatusCode::ACCEPTED);
    }
    let ended = events(&pipeline).await;
    assert_eq!((ended.len(), &ended[0].1["data"]["status"]), (1, &json!("canceled")));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_sends_the_events_of_its_jobs_only_if_asked() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "A heist" }], "webhook": { "url": URL } });
    let batch = pipeline.submit_batch(&order).await;
    let job = batch.jobs.clone().expect("its jobs")[0].id;
    assert!(pipeline.work(job, 1).await);
    assert_eq!(types(&pipeline).await, [""; 0]);
    assert!(look(&pipeline, &batch).await);
    assert_eq!(types(&pipeline).await, ["batch.ended"]);
    assert_eq!(pipeline.job(job).await.webhook, None);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_is_canceled_before_it_has_a_ticket_is_told_too() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "A heist" }], "webhook": every_event() });
    // The first request dies before it sends the ticket, and the batch is canceled before it is repeated.
    let request = post("/batches", None, Some("once"), &order);
    let (_, apps) = pipeline.intercept(|call| match call.operation {
        "SendMessageBatch" => Action::Refuse,
        _ => Action::Pass,
    });
    let refused = submit::handle(&apps.submit, request.clone()).await.expect("an answer");
    assert_eq!(refused.status_code, 503);
    let (_, batches) = answer(status::handle(&apps.status, get("/batches", None)).await.expect("an answer"));
    let id = batches["batches"][0]["id"].as_str().map(str::to_owned);
    let cancel = post("/batches/{id}/cancel", id.clone(), None, &Value::Null);
    assert_eq!(status::handle(&apps.status, cancel).await.expect("an answer").status_code, 202);
    pipeline.clock.advance(Duration::from_secs(60));
    let id = id.expect("an id").parse().expect("an id");
    assert!(step(&pipeline, id).await);
    assert_eq!(types(&pipeline).await, ["job.canceled", "batch.ended"]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_repeated_request_tells_the_end_of_a_job_that_never_had_a_ticket() {
    let pipeline = Pipeline::without_event_sources().await;
    let submission = || post("/jobs", None, Some("once"), &json!({ "prompt": "A heist", "webhook": { "url": URL } }));
    let (_, apps) = pipeline.intercept(|call| match call.operation {
        "SendMessage" => Action::Refuse,
        _ => Action::Pass,
    });
    let refused = submit::handle(&apps.submit, submission()).await.expect("an answer");
    assert_eq!(refused.status_code, 503);
    let (_, jobs) = answer(status::handle(&apps.status, get("/jobs", None)).await.expect("an answer"));
    let id = jobs["jobs"][0]["id"].as_str().map(str::to_owned);
    let cancel = post("/jobs/{id}/cancel", id, None, &Value::Null);
    assert_eq!(status::handle(&apps.status, cancel).await.expect("an answer").status_code, 200);
    assert_eq!(types(&pipeline).await, [""; 0]);
    let repeated = submit::handle(&pipeline.stack.apps().submit, submission()).await.expect("an answer");
    assert_eq!(repeated.status_code, 202);
    assert_eq!(types(&pipeline).await, ["job.canceled"]);
    pipeline.stop().await;
}

/// Functions that can send neither tickets of jobs nor events.
fn silenced(pipeline: &Pipeline) -> Apps {
    let events = pipeline.ready().webhook_queue_url.clone().expect("it sends webhooks");
    let (_, apps) = pipeline.intercept(move |call| match call.operation {
        "SendMessage" if call.json()["QueueUrl"] == events.as_str() => Action::Refuse,
        "SendMessageBatch" => Action::Refuse,
        _ => Action::Pass,
    });
    apps
}

/// Cancels the only job of the only batch by these functions.
async fn cancel_only_job(apps: &Apps) {
    let (_, batches) = answer(status::handle(&apps.status, get("/batches", None)).await.expect("an answer"));
    let batch = batches["batches"][0]["id"].as_str().map(str::to_owned);
    let jobs = get("/batches/{id}/jobs", batch);
    let (_, jobs) = answer(status::handle(&apps.status, jobs).await.expect("an answer"));
    let cancel = post("/jobs/{id}/cancel", jobs["jobs"][0]["id"].as_str().map(str::to_owned), None, &Value::Null);
    assert_eq!(status::handle(&apps.status, cancel).await.expect("an answer").status_code, 200);
}

#[tokio::test]
async fn a_repeated_request_tells_the_end_of_a_batchs_job_that_never_had_a_ticket() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "A heist" }], "webhook": every_event() });
    let submission = || post("/batches", None, Some("once"), &order);
    let apps = silenced(&pipeline);
    assert_eq!(submit::handle(&apps.submit, submission()).await.expect("an answer").status_code, 503);
    cancel_only_job(&apps).await;
    pipeline.clock.advance(Duration::from_secs(60));
    let repeated = submit::handle(&pipeline.stack.apps().submit, submission()).await.expect("an answer");
    assert_eq!(repeated.status_code, 202);
    assert_eq!(types(&pipeline).await, ["job.canceled"]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_repeated_admission_tells_the_end_of_a_job_that_never_had_a_ticket() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "input": { "format": "ndjson" }, "webhook": every_event() });
    let id = started(&pipeline, order, "{\"prompt\":\"A heist\"}\n").await;
    let apps = silenced(&pipeline);
    let back = batch::handle(&apps.batch, batch_function::ticket(id)).await.expect("it answers").batch_item_failures;
    assert_eq!(back.len(), 1, "the ticket could not be sent");
    cancel_only_job(&apps).await;
    assert!(step(&pipeline, id).await);
    assert_eq!(types(&pipeline).await, ["job.canceled", "batch.ended"]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_webhook_that_the_service_cannot_serve_is_refused() {
    let parameters = BTreeMap::from([("Webhooks".to_owned(), "false".to_owned())]);
    let without = Pipeline::with(Options { parameters, event_sources: false, ..Options::default() }).await;
    let pipeline = Pipeline::without_event_sources().await;
    let (public, own) = (json!({ "url": URL }), json!({ "url": "http://127.0.0.1:9001/2018-06-01/runtime" }));
    for (pipeline, webhook, pointer) in [(&without, &public, "/webhook"), (&pipeline, &own, "/webhook/url")] {
        let from_file = json!({ "input": { "format": "csv" }, "webhook": webhook });
        let in_request = json!({ "jobs": [{ "prompt": "x" }], "webhook": webhook });
        let single = json!({ "prompt": "x", "webhook": webhook });
        for (path, body) in [("/jobs", single), ("/batches", in_request), ("/batches", from_file)] {
            let response = pipeline.post(path, &body).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path} {body}");
            let problem: Value = response.json().await.expect("a problem");
            assert_eq!(problem["errors"][0]["pointer"], pointer);
        }
    }
    without.stop().await;
    pipeline.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_stack_tells_what_was_left_untold() {
    let data = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(data.path().to_owned()), event_sources: false, ..Options::default() };
    let pipeline = Pipeline::with(options()).await;
    let (job, told) = (untold(&pipeline).await, submit(&pipeline, "nsfw").await);
    assert!(pipeline.work(told, 1).await);
    let order = json!({ "jobs": [{ "prompt": "nsfw" }], "webhook": { "url": URL } });
    let batch = pipeline.submit_batch(&order).await;
    assert!(pipeline.work(batch.jobs.clone().expect("its jobs")[0].id, 1).await);
    pipeline.stop().await;
    let pipeline = Pipeline::with(options()).await;
    let ready = pipeline.ready();
    let tickets = [pipeline.messages(&ready.queue_url).await, pipeline.messages(&ready.batch_queue_url).await];
    assert_eq!(tickets, [2, 1], "an event that was only in the queue is lost, so it is told again");
    assert!(pipeline.work(job, 1).await && pipeline.work(told, 1).await && look(&pipeline, &batch).await);
    assert_eq!(types(&pipeline).await, ["job.failed", "job.failed", "batch.ended"]);
    pipeline.stop().await;
}
