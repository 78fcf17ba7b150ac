//! Batches whose jobs come from a file, as the API shows and steers them. The function `batch` does not run here.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use local::Options;
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};
use shared::api::{BatchView, DocumentView, JobsView};
use shared::aws::Saved;
use shared::batch::{Action as PassAction, BatchStatus, Checked, Counts, MAX_BYTES, Pass, Progress};
use shared::batch_file::{LineFault, Position};
use shared::job::{Lease, Membership, Status, Terms};
use shared::order::{Model, Order};
use shared::{Batch, BatchId, Job, JobId, Owner};
use tests::events::{answer, post};
use tests::interceptor::Action;
use tests::pipeline::Pipeline;
use tests::wire::{Disturbance, Wire};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);

fn order() -> Value {
    json!({ "name": "Friday", "defaults": { "seed": 7 }, "input": { "format": "csv" } })
}

async fn call(pipeline: &Pipeline, path: &str, key: Option<&str>, body: &Value) -> Response {
    let mut post = pipeline.http.post(format!("{}{path}", pipeline.ready().api));
    if let Some(key) = key {
        post = post.header("Idempotency-Key", key);
    }
    if !body.is_null() {
        post = post.json(body);
    }
    post.send().await.expect("the API answers")
}

/// The status and the code of a problem.
async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.expect("a problem");
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

async fn submit(pipeline: &Pipeline) -> BatchView {
    let response = call(pipeline, "/batches", None, &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json().await.expect("a batch")
}

async fn upload(pipeline: &Pipeline, batch: &BatchView, file: &str) {
    let upload = batch.upload.as_ref().expect("it awaits its file");
    assert_eq!((upload.method.as_str(), upload.headers.len()), ("PUT", 0));
    assert!(upload.url.contains("X-Amz-SignedHeaders=host&"), "the request needs no headers: {}", upload.url);
    let put = pipeline.http.put(&upload.url).body(file.to_owned()).send().await.expect("the bucket answers");
    assert_eq!(put.status(), StatusCode::OK);
}

async fn steer(pipeline: &Pipeline, id: BatchId, action: &str) -> Response {
    call(pipeline, &format!("/batches/{id}/{action}"), None, &Value::Null).await
}

async fn steered(pipeline: &Pipeline, id: BatchId, action: &str) -> BatchView {
    let response = steer(pipeline, id, action).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "{action}");
    response.json().await.expect("a batch")
}

async fn view(pipeline: &Pipeline, id: BatchId) -> BatchView {
    pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch")
}

/// A batch that is started.
async fn started(pipeline: &Pipeline) -> BatchView {
    let batch = submit(pipeline).await;
    upload(pipeline, &batch, "prompt\nA heist\n").await;
    steered(pipeline, batch.id, "start").await
}

async fn record(pipeline: &Pipeline, id: BatchId) -> Batch {
    pipeline.table().get_batch(id).await.expect("the table answers").expect("the batch has a record")
}

/// Saves the next version of a batch, as the function `batch` does.
async fn save(pipeline: &Pipeline, next: Batch) -> Batch {
    let saved = pipeline.table().save_batch(&next).await.expect("the table answers");
    assert!(matches!(saved, Saved::Stored), "{saved:?}");
    next
}

fn checked(jobs: usize) -> Checked {
    Checked { lines: jobs as u64 + 1, jobs, ..Checked::default() }
}

/// A batch of so many jobs, all of which are admitted. They are not in the table.
async fn admitted(pipeline: &Pipeline, jobs: usize) -> Batch {
    let id = started(pipeline).await.id;
    let batch = save(pipeline, record(pipeline, id).await.checked(checked(jobs))).await;
    save(pipeline, batch.admitted(jobs, Position::default(), true)).await
}

/// How many tickets of batches wait.
async fn tickets(pipeline: &Pipeline) -> usize {
    let environment = &pipeline.stack.deployment().functions["submit"].environment;
    pipeline.messages(&environment["BATCH_QUEUE_URL"]).await
}

#[tokio::test]
async fn a_batch_awaits_its_file_and_is_then_started() {
    let pipeline = Pipeline::without_event_sources().await;
    let response = call(&pipeline, "/batches", None, &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert!(!response.headers().contains_key(header::RETRY_AFTER), "nothing changes before the upload");
    let location = response.headers()[header::LOCATION].to_str().expect("text").to_owned();
    let batch: BatchView = response.json().await.expect("a batch");
    assert_eq!((batch.status, batch.counts), (BatchStatus::AwaitingInput, Counts::default()));
    assert_eq!(batch.links.this, location);
    assert_eq!(batch.links.start, Some(format!("{location}/start")));
    assert_eq!(batch.links.cancel, Some(format!("{location}/cancel")));
    let life = batch.upload.as_ref().map(|upload| upload.expires_at.since(pipeline.clock.now()));
    assert!(life.is_some_and(|life| life > Duration::from_secs(3000) && life <= Duration::from_secs(3600)), "{life:?}");
    let shown = pipeline.get(&format!("/batches/{}", batch.id)).await;
    assert!(!shown.headers().contains_key(header::RETRY_AFTER));
    let listed: JobsView = pipeline.get(&format!("/batches/{}/jobs", batch.id)).await.json().await.expect("a page");
    assert_eq!((listed.jobs.len(), listed.next_cursor), (0, None));

    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    assert_eq!(tickets(&pipeline).await, 0);
    let response = steer(&pipeline, batch.id, "start").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()[header::LOCATION].to_str().ok(), Some(location.as_str()));
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let started: BatchView = response.json().await.expect("a batch");
    assert_eq!((started.status, started.links.start, started.upload.is_none()), (BatchStatus::Checking, None, true));
    assert_eq!(tickets(&pipeline).await, 1);
    assert_eq!(record(&pipeline, batch.id).await.input().and_then(|input| Some(input.file.as_ref()?.bytes)), Some(15));
    let shown = pipeline.get(&format!("/batches/{}", batch.id)).await;
    assert!(shown.headers().contains_key(header::RETRY_AFTER));
    pipeline.stop().await;
}

#[tokio::test]
async fn the_same_key_is_one_batch_with_a_new_url_as_long_as_it_awaits_its_file() {
    let pipeline = Pipeline::without_event_sources().await;
    let submit = async || {
        let response = call(&pipeline, "/batches", Some("friday"), &order()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let replayed = response.headers().contains_key("idempotency-replayed");
        (replayed, response.json::<BatchView>().await.expect("a batch"))
    };
    let (replayed, first) = submit().await;
    assert!(!replayed);
    // The embedded bucket has the clock of the machine, and takes no URL that was signed long after it.
    pipeline.clock.advance(Duration::from_secs(600));
    let (replayed, second) = submit().await;
    assert!(replayed && second.id == first.id);
    let ends = [&first, &second].map(|batch| batch.upload.as_ref().expect("a URL").expires_at);
    assert!(ends[1].since(ends[0]) >= Duration::from_secs(600), "{ends:?}");
    upload(&pipeline, &second, "prompt\nA heist\n").await;
    steered(&pipeline, first.id, "start").await;
    let (replayed, third) = submit().await;
    assert!(replayed && third.id == first.id && third.upload.is_none());
    assert_eq!(third.status, BatchStatus::Checking);

    let mut other = order();
    other["input"]["format"] = json!("ndjson");
    let reused = (422, "idempotency_key_reused".to_owned());
    assert_eq!(problem(call(&pipeline, "/batches", Some("friday"), &other).await).await, reused);
    let jobs = json!({ "name": "Friday", "jobs": [{ "prompt": "A heist" }] });
    assert_eq!(problem(call(&pipeline, "/batches", Some("friday"), &jobs).await).await, reused);
    assert_eq!(call(&pipeline, "/batches", Some("monday"), &jobs).await.status(), StatusCode::ACCEPTED);
    assert_eq!(problem(call(&pipeline, "/batches", Some("monday"), &order()).await).await, reused);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_batch_has_its_jobs_in_the_request_or_in_a_file() {
    let pipeline = Pipeline::without_event_sources().await;
    let faults = async |body: Value| {
        let response = call(&pipeline, "/batches", None, &body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        let problem: Value = response.json().await.expect("a problem");
        let errors = problem["errors"].as_array().expect("faults").iter();
        errors.map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect::<Vec<_>>()
    };
    let jobs = json!([{ "prompt": "A heist" }]);
    assert_eq!(faults(json!({ "input": { "format": "csv" }, "jobs": jobs })).await, ["/jobs"]);
    assert_eq!(faults(json!({ "name": "Friday" })).await, ["/jobs"]);
    assert_eq!(faults(json!({ "jobs": jobs, "on_bad_line": "skip" })).await, ["/on_bad_line"]);
    assert_eq!(faults(json!({ "input": {} })).await, ["/input/format"]);
    assert_eq!(faults(json!({ "input": { "format": "xlsx", "sheet": 1 } })).await, ["/input/format", "/input/sheet"]);
    assert_eq!(faults(json!({ "input": { "format": "csv" }, "defaults": { "seed": 0 } })).await, ["/defaults/seed"]);
    let wide = json!({ "negative_prompt": format!("text{}", " ".repeat(400_000)) });
    assert_eq!(faults(json!({ "input": { "format": "csv" }, "defaults": wide })).await, ["/defaults"]);
    let longest = json!({
        "negative_prompt": "\u{1f3ac}".repeat(10_000),
        "metadata": (10..26).map(|i| (format!("{i}{}", "\u{1f3ac}".repeat(62)), json!("\u{1f3ac}".repeat(512)))).collect::<Value>(),
    });
    let longest = json!({ "input": { "format": "csv" }, "defaults": longest });
    assert_eq!(call(&pipeline, "/batches", None, &longest).await.status(), StatusCode::ACCEPTED);
    let absent = json!({ "jobs": jobs, "input": null, "on_bad_line": null });
    assert_eq!(call(&pipeline, "/batches", None, &absent).await.status(), StatusCode::ACCEPTED);
    let absent = json!({ "jobs": null, "input": { "format": "txt" }, "on_bad_line": "skip" });
    assert_eq!(call(&pipeline, "/batches", None, &absent).await.status(), StatusCode::ACCEPTED);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_batch_with_its_jobs_in_the_request_has_no_file_to_start_or_to_read() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "A heist" }] })).await.id;
    let refused = (409, "not_from_file".to_owned());
    assert_eq!(problem(steer(&pipeline, id, "start").await).await, refused);
    assert_eq!(problem(pipeline.get(&format!("/batches/{id}/faults")).await).await, refused);
    assert_eq!(problem(pipeline.get(&format!("/batches/{id}/results")).await).await, (409, "no_results".to_owned()));
    assert_eq!(steer(&pipeline, BatchId::new(), "start").await.status(), StatusCode::NOT_FOUND);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_batch_does_not_start_without_a_file_or_with_an_empty_one() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = submit(&pipeline).await;
    assert_eq!(problem(steer(&pipeline, batch.id, "start").await).await, (409, "no_input".to_owned()));
    upload(&pipeline, &batch, "").await;
    assert_eq!(problem(steer(&pipeline, batch.id, "start").await).await, (422, "invalid_input".to_owned()));
    assert_eq!((view(&pipeline, batch.id).await.status, tickets(&pipeline).await), (BatchStatus::AwaitingInput, 0));
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    assert_eq!(steered(&pipeline, batch.id, "start").await.status, BatchStatus::Checking);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_file_that_is_too_large_does_not_start() {
    let data = tempfile::tempdir().expect("a directory");
    let pipeline =
        Pipeline::with(Options { event_sources: false, data: Some(data.path().to_owned()), ..Options::default() })
            .await;
    let batch = submit(&pipeline).await;
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    // The embedded bucket keeps each object as a file. A sparse one takes no room.
    let of_batch = |path: &Path| path.ends_with(format!("{}/input", batch.id));
    let path = files_below(data.path()).into_iter().find(|path| of_batch(path)).expect("the file is there");
    let grow =
        |bytes| OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(bytes)).expect("it grows");
    grow(MAX_BYTES + 1);
    let (status, code) = problem(steer(&pipeline, batch.id, "start").await).await;
    assert_eq!((status, code.as_str()), (422, "invalid_input"));
    assert_eq!((view(&pipeline, batch.id).await.status, tickets(&pipeline).await), (BatchStatus::AwaitingInput, 0));
    grow(MAX_BYTES);
    assert_eq!(steered(&pipeline, batch.id, "start").await.status, BatchStatus::Checking);
    pipeline.stop().await;
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn jobs_that_are_just_being_stored_are_counted_as_they_will_be() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline).await.id;
    let batch = save(&pipeline, record(&pipeline, id).await.checked(checked(5))).await;
    // Two jobs are stored, and the record does not say so yet.
    let order = Order::parse(json!({ "prompt": "A heist" }), "", Model::Core).expect("an order");
    let jobs = [0, 1].map(|index| {
        let now = pipeline.clock.now();
        let job = Job::new(
            JobId::in_batch(id, index),
            batch.owner.clone(),
            order.clone(),
            now,
            Terms { deadline: DAY, retention: DAY },
        );
        Job { membership: Some(Membership { batch: id, part: 0, custom_id: None }), ..job }
    });
    pipeline.table().create_all(&jobs).await.expect("the table answers");
    let counts = view(&pipeline, id).await.counts;
    assert_eq!((counts.total, counts.queued, counts.canceled), (5, 5, 0));
    steered(&pipeline, id, "cancel").await;
    let counts = view(&pipeline, id).await.counts;
    assert_eq!((counts.total, counts.queued, counts.canceled), (5, 0, 5));
    // A ticket may have been sent already. A job that has begun is in the index.
    let claimed = jobs[0].claim(Lease::new(pipeline.clock.now() + DAY), 3, pipeline.clock.now()).expect("it waits");
    pipeline.table().save(&claimed).await.expect("the table answers");
    let counts = view(&pipeline, id).await.counts;
    assert_eq!((counts.total, counts.running, counts.canceled), (5, 1, 4));
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn who_waits_for_an_old_batch_without_open_jobs_asks_less_often() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline).await.id;
    for (age, expected) in [(0, 1), (500, 10), (DAY.as_secs(), 30)] {
        pipeline.clock.advance(Duration::from_secs(age));
        let shown = pipeline.get(&format!("/batches/{id}")).await;
        let seen: u64 = shown.headers()[header::RETRY_AFTER].to_str().expect("text").parse().expect("a number");
        assert!((expected..=expected + 1).contains(&seen), "after {age} s: {seen}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_started_batch_keeps_its_file_and_another_start_sends_its_ticket_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = submit(&pipeline).await;
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    steered(&pipeline, batch.id, "start").await;
    let before = record(&pipeline, batch.id).await;
    upload(&pipeline, &batch, "prompt\nAnother heist\n").await;
    assert_eq!(steered(&pipeline, batch.id, "start").await.status, BatchStatus::Checking);
    assert_eq!(record(&pipeline, batch.id).await, before);
    assert_eq!(tickets(&pipeline).await, 2);
    save(&pipeline, before.checked(Checked::default())).await;
    assert_eq!(steered(&pipeline, batch.id, "start").await.status, BatchStatus::Invalid);
    assert_eq!(tickets(&pipeline).await, 2);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_start_that_dies_is_completed_by_the_same_request() {
    let pipeline = Pipeline::without_event_sources().await;
    // The record, the file, the record again and the ticket.
    for (call, sent) in [(0, 1), (1, 1), (2, 1), (3, 2)] {
        let batch = submit(&pipeline).await;
        upload(&pipeline, &batch, "prompt\nA heist\n").await;
        let before = tickets(&pipeline).await;
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::CrashAfter);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        let event = post("/batches/{id}/start", Some(batch.id.to_string()), None, &Value::Null);
        assert!(wire.run(submit::handle(&apps.submit, event)).await.is_none(), "the start dies in call {call}");
        assert_eq!(steered(&pipeline, batch.id, "start").await.status, BatchStatus::Checking, "call {call}");
        assert_eq!(tickets(&pipeline).await - before, sent, "call {call}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_not_started_within_a_day_has_expired() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = submit(&pipeline).await;
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    pipeline.clock.advance(DAY);
    let shown = view(&pipeline, batch.id).await;
    assert_eq!((shown.status, shown.links.start, shown.links.cancel), (BatchStatus::Expired, None, None));
    for action in ["start", "retry"] {
        let (status, code) = problem(steer(&pipeline, batch.id, action).await).await;
        assert_eq!((status, code.as_str()), (409, "wrong_batch_state"), "{action}");
    }
    assert_eq!(steered(&pipeline, batch.id, "cancel").await.status, BatchStatus::Expired);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_cancellation_is_noted_in_every_state() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = submit(&pipeline).await;
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    let canceled = steered(&pipeline, batch.id, "cancel").await;
    assert_eq!((canceled.status, canceled.links.cancel), (BatchStatus::Canceled, None));
    assert_eq!(problem(steer(&pipeline, batch.id, "start").await).await, (409, "wrong_batch_state".to_owned()));
    assert_eq!(tickets(&pipeline).await, 0);

    let checking = started(&pipeline).await.id;
    assert_eq!(steered(&pipeline, checking, "cancel").await.status, BatchStatus::Canceled);
    assert_eq!(tickets(&pipeline).await, 1);

    let admitting = started(&pipeline).await.id;
    save(&pipeline, record(&pipeline, admitting).await.checked(checked(3))).await;
    let canceled = steered(&pipeline, admitting, "cancel").await;
    assert_eq!((canceled.status, canceled.counts.canceled), (BatchStatus::Admitting, 3));

    let running = admitted(&pipeline, 3).await.id;
    let before = tickets(&pipeline).await;
    assert_eq!(steered(&pipeline, running, "cancel").await.status, BatchStatus::InProgress);
    assert_eq!(record(&pipeline, running).await.pass, Some(Pass { action: PassAction::Cancel, next: 0 }));
    assert_eq!(tickets(&pipeline).await, before + 1);
    assert_eq!(problem(steer(&pipeline, running, "retry").await).await, (409, "wrong_batch_state".to_owned()));

    let ended =
        save(&pipeline, record(&pipeline, running).await.end(Counts::of([Status::Succeeded; 3]), Uuid::nil())).await;
    assert_eq!(steered(&pipeline, running, "cancel").await.status, BatchStatus::Completed);
    assert_eq!(record(&pipeline, running).await, ended);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_cancellation_and_a_start_at_once_end_in_one_order() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = submit(&pipeline).await;
    upload(&pipeline, &batch, "prompt\nA heist\n").await;
    let (interceptor, apps) = pipeline.intercept(|call| match call.operation {
        "UpdateItem" => Action::Hold,
        _ => Action::Pass,
    });
    let event = post("/batches/{id}/start", Some(batch.id.to_string()), None, &Value::Null);
    let start = async { answer(submit::handle(&apps.submit, event).await.expect("the function answers")) };
    let cancel = async {
        interceptor.held().await;
        let canceled = steered(&pipeline, batch.id, "cancel").await;
        interceptor.resume();
        canceled.status
    };
    let ((status, body), canceled) = tokio::join!(start, cancel);
    assert_eq!((status, &body["code"], canceled), (409, &json!("wrong_batch_state"), BatchStatus::Canceled));
    assert_eq!((view(&pipeline, batch.id).await.status, tickets(&pipeline).await), (BatchStatus::Canceled, 0));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_is_noted_once_for_each_key() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = admitted(&pipeline, 2).await;
    let id = batch.id;
    let ended = save(&pipeline, batch.end(Counts::of([Status::Succeeded, Status::Failed]), Uuid::nil())).await;
    let shown = view(&pipeline, id).await;
    assert_eq!((shown.status, shown.counts.failed), (BatchStatus::CompletedWithErrors, 1));
    assert!(shown.links.retry.is_some() && shown.links.results.is_some() && shown.links.cancel.is_none());
    let before = tickets(&pipeline).await;
    let retry = async || {
        let response = call(&pipeline, &format!("/batches/{id}/retry"), Some("again"), &Value::Null).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let replayed = response.headers().contains_key("idempotency-replayed");
        (replayed, response.json::<BatchView>().await.expect("a batch").status)
    };
    assert_eq!(retry().await, (false, BatchStatus::InProgress));
    let noted = record(&pipeline, id).await;
    assert_eq!(noted.pass, Some(Pass { action: PassAction::Retry(ended.fence + 1), next: 0 }));
    assert_eq!(retry().await, (true, BatchStatus::InProgress));
    assert_eq!((record(&pipeline, id).await, tickets(&pipeline).await), (noted.clone(), before + 2));
    save(&pipeline, noted.end(Counts::of([Status::Succeeded; 2]), Uuid::nil())).await;
    assert_eq!(retry().await, (true, BatchStatus::Completed));
    assert_eq!(tickets(&pipeline).await, before + 2);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_without_admitted_jobs_cannot_be_retried() {
    let pipeline = Pipeline::without_event_sources().await;
    let refused = async |id| assert_eq!(problem(steer(&pipeline, id, "retry").await).await.1, "wrong_batch_state");
    refused(submit(&pipeline).await.id).await;
    let id = started(&pipeline).await.id;
    refused(id).await;
    let admitting = save(&pipeline, record(&pipeline, id).await.checked(checked(3))).await;
    refused(id).await;
    save(&pipeline, admitting.admitted(3, Position::default(), true)).await;
    assert_eq!(steered(&pipeline, id, "retry").await.status, BatchStatus::InProgress);
    pipeline.stop().await;
}

#[tokio::test]
async fn faults_and_results_have_an_address_once_they_are_written() {
    let pipeline = Pipeline::without_event_sources().await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let get = async |id: BatchId, document: &str| {
        let address = format!("{}/batches/{id}/{document}", pipeline.ready().api);
        client.get(address).send().await.expect("the API answers")
    };
    let id = submit(&pipeline).await.id;
    assert_eq!(problem(get(id, "faults").await).await, (409, "no_faults".to_owned()));
    assert_eq!(problem(get(id, "results").await).await, (409, "no_results".to_owned()));

    let id = started(&pipeline).await.id;
    let mut faulty = checked(3);
    for line in 1..=30 {
        faulty.fault(LineFault { line, pointer: "/seed".to_owned(), detail: "must be a whole number".to_owned() });
    }
    let checking = save(&pipeline, record(&pipeline, id).await.checking(faulty.clone())).await;
    let shown = view(&pipeline, id).await;
    assert_eq!(shown.progress.map(|progress| progress.checked_lines), Some(4));
    assert!(shown.faults.is_some_and(|faults| faults.total == 30 && faults.first.len() == 20));
    assert_eq!(problem(get(id, "faults").await).await, (409, "no_faults".to_owned()));
    let key = |document: &str| format!("batches/{id}/{document}.ndjson");
    for document in ["faults", "results"] {
        let put = pipeline.s3().put_object().bucket(&pipeline.ready().bucket).key(key(document));
        put.body(document.as_bytes().to_vec().into()).send().await.expect("the bucket answers");
    }
    save(&pipeline, checking.checked(faulty)).await;
    let shown = view(&pipeline, id).await;
    assert_eq!((shown.status, shown.counts.total, shown.links.results), (BatchStatus::Invalid, 0, None));
    assert_eq!(shown.links.faults, Some(format!("{}/faults", shown.links.this)));
    let redirect = get(id, "faults").await;
    assert_eq!(redirect.status(), StatusCode::FOUND);
    let url = redirect.headers()[header::LOCATION].to_str().expect("text");
    let file = client.get(url).send().await.expect("the bucket answers");
    assert_eq!(file.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    assert_eq!(file.text().await.ok().as_deref(), Some("faults"));
    let unredirected = get(id, "faults?redirect=false").await;
    let document: DocumentView = unredirected.json().await.expect("the URL");
    let file = client.get(document.url).send().await.expect("the bucket answers");
    assert_eq!(file.text().await.ok().as_deref(), Some("faults"));
    assert_eq!(problem(get(id, "faults?redirect=no").await).await, (400, "invalid_request".to_owned()));

    // A batch that was canceled during the check has an unfinished list, which is not shown.
    let canceled = started(&pipeline).await.id;
    let mut one = checked(1);
    one.fault(LineFault { line: 1, pointer: String::new(), detail: "is no UTF-8".to_owned() });
    save(&pipeline, record(&pipeline, canceled).await.checking(one)).await;
    assert_eq!(steered(&pipeline, canceled, "cancel").await.links.faults, None);
    assert_eq!(problem(get(canceled, "faults").await).await, (409, "no_faults".to_owned()));

    let ended = admitted(&pipeline, 1).await;
    let id = ended.id;
    assert_eq!(problem(get(id, "results").await).await, (409, "no_results".to_owned()));
    save(&pipeline, ended.end(Counts::of([Status::Succeeded]), Uuid::nil())).await;
    assert_eq!(get(id, "results").await.status(), StatusCode::FOUND);
    pipeline.stop().await;
}

/// Stores these jobs of a batch, and cancels every other one.
async fn store(pipeline: &Pipeline, batch: &Batch, indexes: std::ops::Range<usize>) {
    let order = Order::parse(json!({ "prompt": "A heist" }), "", Model::Core).expect("a good order");
    let now = pipeline.clock.now();
    let job = |index: usize| {
        let id = JobId::in_batch(batch.id, index);
        let job =
            Job::new(id, Owner::new(local::EVERYONE), order.clone(), now, Terms { deadline: DAY, retention: 30 * DAY });
        let membership = Membership { batch: batch.id, part: index / 1000, custom_id: None };
        let job = Job { membership: Some(membership), ..job };
        if index.is_multiple_of(2) { job } else { job.cancel(now).expect("it is queued") }
    };
    let jobs: Vec<_> = indexes.map(job).collect();
    pipeline.table().create_all(&jobs).await.expect("the table answers");
}

#[tokio::test]
async fn the_jobs_of_all_parts_are_counted_and_listed() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline).await.id;
    let batch = save(&pipeline, record(&pipeline, id).await.checked(checked(2_500))).await;
    store(&pipeline, &batch, 0..1_000).await;
    let batch = save(&pipeline, batch.admitted(1_000, Position::default(), false)).await;
    let shown = view(&pipeline, id).await;
    assert_eq!((shown.status, shown.progress.map(|at| at.admitted_jobs)), (BatchStatus::Admitting, Some(1_000)));
    assert_eq!((shown.counts.total, shown.counts.queued, shown.counts.canceled), (2_500, 2_000, 500));

    store(&pipeline, &batch, 1_000..2_400).await;
    let batch = save(&pipeline, batch.admitted(2_500, Position::default(), true)).await;
    let shown = view(&pipeline, id).await;
    assert_eq!((shown.status, shown.counts.queued, shown.counts.canceled), (BatchStatus::InProgress, 1_300, 1_200));

    // What is in a part that has ended is not counted again.
    let ended = Counts { total: 1_000, succeeded: 1_000, ..Counts::default() };
    let batch = save(&pipeline, batch.looked(Progress { open_parts: vec![1, 2], ended, counts: ended })).await;
    let counts = view(&pipeline, id).await.counts;
    assert_eq!((counts.total, counts.succeeded, counts.queued, counts.canceled), (2_500, 1_000, 800, 700));

    let (mut found, mut path) = (Vec::new(), format!("/batches/{id}/jobs?limit=100"));
    loop {
        let page: JobsView = pipeline.get(&path).await.json().await.expect("a page");
        found.extend(page.jobs.into_iter().map(|job| job.id));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/batches/{id}/jobs?limit=100&cursor={cursor}");
    }
    assert_eq!(found, (0..2_400).map(|index| JobId::in_batch(id, index)).collect::<Vec<_>>());
    save(&pipeline, batch.end(Counts { total: 2_500, canceled: 2_500, ..Counts::default() }, Uuid::nil())).await;
    assert_eq!(view(&pipeline, id).await.status, BatchStatus::Canceled);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_jobs_of_more_than_a_hundred_parts_are_not_counted_by_a_request() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = admitted(&pipeline, 101_000).await;
    let id = batch.id;
    assert_eq!(view(&pipeline, id).await.counts.queued, 101_000);
    let counts = Counts { total: 101_000, queued: 100_999, succeeded: 1, ..Counts::default() };
    let progress = Progress { counts, ..batch.progress.clone() };
    save(&pipeline, batch.looked(progress)).await;
    assert_eq!(view(&pipeline, id).await.counts, counts);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_open_long_after_its_deadline_gets_another_ticket() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = admitted(&pipeline, 1).await;
    let before = tickets(&pipeline).await;
    view(&pipeline, batch.id).await;
    assert_eq!(tickets(&pipeline).await, before);
    pipeline.clock.advance(DAY + Duration::from_secs(3600));
    assert_eq!(view(&pipeline, batch.id).await.counts.failed, 1);
    assert_eq!(tickets(&pipeline).await, before + 1);
    pipeline.stop().await;
}
