//! The function `batch`: from an uploaded file to results.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use serde_json::{Value, json};
use shared::aws::Saved;
use shared::batch::{Batch, BatchStatus, Checked, FileBatchOrder, Input, InputFile, Stage};
use shared::job::{Membership, Status, Terms};
use shared::order::{Model, Order};
use shared::ticket::{BatchTicket, Message as _};
use shared::{BatchId, Job, JobId, Owner};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, delivery};
use tests::wire::{Disturbance, Wire};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A batch with this file, which is started.
pub(crate) async fn started(pipeline: &Pipeline, order: Value, file: &str) -> BatchId {
    started_with(pipeline, order, file, HOUR).await
}

/// The same, if new jobs have this deadline.
async fn started_with(pipeline: &Pipeline, order: Value, file: &str, deadline: Duration) -> BatchId {
    let batch = awaiting(pipeline, order).await;
    upload(pipeline, batch.id, file).await;
    let head = pipeline.s3().head_object().bucket(&pipeline.ready().bucket).key(input_key(batch.id));
    let head = head.send().await.expect("the file is there");
    let file = InputFile { etag: head.e_tag.expect("an entity tag"), bytes: file.len() as u64 };
    let now = pipeline.clock.now();
    let batch = batch
        .start(file, now, Terms { deadline, retention: 30 * DAY })
        .expect("it is in time")
        .expect("it was not started before");
    save(pipeline, &batch).await;
    batch.id
}

async fn awaiting(pipeline: &Pipeline, order: Value) -> Batch {
    let order = FileBatchOrder::parse(order, Model::Core).expect("a good order");
    let now = pipeline.clock.now();
    let (owner, url) = (Owner::new(local::EVERYONE), pipeline.ready().api.clone());
    let batch = Batch::from_file(BatchId::new(), owner, order, url, now)
        .lasting(now, Terms { deadline: HOUR, retention: 30 * DAY });
    assert!(pipeline.table().create_batch(&batch).await.expect("the table answers").is_none());
    batch
}

pub(crate) async fn save(pipeline: &Pipeline, batch: &Batch) {
    let saved = pipeline.table().save_batch(batch).await.expect("the table answers");
    assert!(matches!(saved, Saved::Stored), "somebody else moved the batch on");
}

fn input_key(id: BatchId) -> String {
    format!("batches/{id}/input")
}

async fn upload(pipeline: &Pipeline, id: BatchId, file: &str) {
    let body = ByteStream::from(file.as_bytes().to_vec());
    let put = pipeline.s3().put_object().bucket(&pipeline.ready().bucket).key(input_key(id)).body(body);
    put.send().await.expect("S3 takes it");
}

pub(crate) fn ticket(id: BatchId) -> lambda_runtime::LambdaEvent<aws_lambda_events::sqs::SqsEvent> {
    delivery(&[&BatchTicket { batch: id }.to_body()], 1)
}

/// Delivers the batch's ticket. Returns whether it is deleted.
pub(crate) async fn step(pipeline: &Pipeline, id: BatchId) -> bool {
    let answer = batch::handle(&pipeline.stack.apps().batch, ticket(id)).await.expect("it answers");
    answer.batch_item_failures.is_empty()
}

pub(crate) async fn record(pipeline: &Pipeline, id: BatchId) -> Batch {
    pipeline.table().get_batch(id).await.expect("the table answers").expect("the batch has a record")
}

fn input(batch: &Batch) -> &Input {
    batch.input().expect("it is from a file")
}

/// Has all jobs of the batch painted whose tickets were sent.
pub(crate) async fn paint(pipeline: &Pipeline, id: BatchId) {
    for index in 0..record(pipeline, id).await.admitted {
        assert!(pipeline.work(JobId::in_batch(id, index), 1).await);
    }
}

/// The lines of one of the batch's files.
async fn document(pipeline: &Pipeline, id: BatchId, name: &str) -> Vec<Value> {
    let name = match record(pipeline, id).await.complete_results() {
        Some(results) if name == "results" => format!("results-{results}"),
        _ => name.to_owned(),
    };
    let get = pipeline.s3().get_object().bucket(&pipeline.ready().bucket).key(format!("batches/{id}/{name}.ndjson"));
    let body = get.send().await.expect("it was written").body.collect().await.expect("S3 answers").into_bytes();
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// So many lines of NDJSON.
fn lines(count: usize) -> String {
    let line = |i| format!("{}\n", json!({ "prompt": format!("The heist, part {i}"), "custom_id": format!("no {i}") }));
    (0..count).map(line).collect()
}

#[tokio::test]
async fn a_file_becomes_jobs_and_results() {
    let pipeline = Pipeline::without_event_sources().await;
    let file = "custom_id,prompt,seed\r\none,A heist,7\r\n\r\n,\"A heist\non the moon\",\r\n";
    let order = json!({ "input": { "format": "csv" }, "defaults": { "aspect_ratio": "1:1" }, "deadline_hours": 90 });
    let id = started(&pipeline, order, file).await;
    assert!(!step(&pipeline, id).await, "the ticket stays until the end");
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.stage, batch.total, input(&batch).checked.lines), (Stage::InProgress, 2, 5));
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 2);
    paint(&pipeline, id).await;
    assert!(step(&pipeline, id).await, "all has ended");
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.status(pipeline.clock.now()), BatchStatus::Completed);
    let results = document(&pipeline, id, "results").await;
    assert_eq!(results.iter().map(|line| &line["line"]).collect::<Vec<_>>(), [2, 4]);
    let (first, second) = (&results[0], &results[1]);
    assert_eq!((&first["custom_id"], &first["status"]), (&json!("one"), &json!("succeeded")));
    assert_eq!((&second["custom_id"], &second["image"]["content_type"]), (&Value::Null, &json!("image/png")));
    let job = pipeline.job(JobId::in_batch(id, 1)).await;
    assert_eq!((job.prompt.as_str(), job.aspect_ratio.as_str()), ("A heist\non the moon", "1:1"));
    let deadline = job.deadline_at.since(job.created_at);
    assert_eq!((deadline, batch.deadline_at), (Duration::from_secs(90 * 3600), job.deadline_at));
    assert_eq!((job.batch_id, second["job_id"].as_str()), (Some(id), Some(job.id.to_string().as_str())));
    let image = second["links"]["image"].as_str().expect("a link");
    let image = pipeline.http.get(image).send().await.expect("it redirects to S3");
    assert_eq!(image.headers()["content-type"], "image/png");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_faulty_line_is_named_and_nothing_is_painted() {
    let pipeline = Pipeline::without_event_sources().await;
    let file = "{\"prompt\":\"a\",\"custom_id\":\"x\"}\n{\"prompt\":\"\"}\n\nnot JSON\n{\"prompt\":\"b\",\"custom_id\":\"x\"}\n";
    let order = json!({ "input": { "format": "ndjson" } });
    let id = started(&pipeline, order.clone(), file).await;
    assert!(step(&pipeline, id).await, "nothing more is to be done");
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.stage, input(&batch).checked.faults, batch.total), (Stage::Invalid, 3, 0));
    let faults = document(&pipeline, id, "faults").await;
    let places: Vec<_> = faults.iter().map(|fault| (&fault["line"], fault["pointer"].as_str())).collect();
    assert_eq!(places, [(&json!(2), Some("/prompt")), (&json!(4), Some("")), (&json!(5), Some("/custom_id"))]);
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0);
    for (file, rule) in [("", "no jobs"), ("\n\n", "no jobs"), ("prompt,seed\na,1\n", "header of a CSV file")] {
        let id = started(&pipeline, order.clone(), file).await;
        assert!(step(&pipeline, id).await);
        let batch = record(&pipeline, id).await;
        assert_eq!(batch.stage, Stage::Invalid, "{file:?}");
        assert!(
            input(&batch).checked.first_faults[0].detail.contains(rule),
            "{:?}",
            input(&batch).checked.first_faults
        );
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn faulty_lines_may_be_skipped() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "input": { "format": "ndjson" }, "on_bad_line": "skip" });
    let id = started(&pipeline, order, "{\"prompt\":\"a\"}\n{\"prompt\":\"\"}\n{\"prompt\":\"b\"}\n").await;
    assert!(!step(&pipeline, id).await);
    paint(&pipeline, id).await;
    assert!(step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.status(pipeline.clock.now()), BatchStatus::CompletedWithErrors);
    let results = document(&pipeline, id, "results").await;
    let statuses: Vec<_> = results.iter().map(|line| line["status"].as_str().expect("a status")).collect();
    assert_eq!(statuses, ["succeeded", "invalid", "succeeded"]);
    assert_eq!((&results[1]["job_id"], &results[1]["faults"][0]["pointer"]), (&Value::Null, &json!("/prompt")));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_fault_of_the_whole_file_is_not_skipped() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "input": { "format": "csv" }, "on_bad_line": "skip" });
    for (file, faults) in
        [("custom_id,prompt\n1,a\n1,b\n2,\n", 2), ("prompt\na\n\"b\nc\n", 1), ("prompt;seed\na;1\n", 1)]
    {
        let id = started(&pipeline, order.clone(), file).await;
        assert!(step(&pipeline, id).await);
        let batch = record(&pipeline, id).await;
        assert_eq!((batch.stage, input(&batch).checked.faults), (Stage::Invalid, faults), "{file:?}");
    }
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0);
    pipeline.stop().await;
}

#[tokio::test]
async fn results_that_come_late_replace_no_newer_ones() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(1)).await;
    assert!(!step(&pipeline, id).await);
    pipeline.model("filter=1");
    paint(&pipeline, id).await;
    pipeline.model("");
    let (late, slow) =
        pipeline.intercept(|call| if call.request.method() == "PUT" { Action::Hold } else { Action::Pass });
    let meanwhile = async {
        late.held().await;
        assert!(step(&pipeline, id).await, "another invocation ends the batch");
        let retried = record(&pipeline, id).await.retry(
            None,
            pipeline.clock.now(),
            Terms { deadline: HOUR, retention: 30 * DAY },
        );
        save(&pipeline, &retried.expect("allowed").expect("new")).await;
        assert!(!step(&pipeline, id).await);
        paint(&pipeline, id).await;
        assert!(step(&pipeline, id).await);
        late.resume();
    };
    let (answer, ()) = tokio::join!(batch::handle(&slow.batch, ticket(id)), meanwhile);
    assert!(answer.expect("it answers").batch_item_failures.is_empty());
    assert_eq!(document(&pipeline, id, "results").await[0]["status"], "succeeded");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_file_that_was_replaced_is_not_admitted() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "input": { "format": "txt" } });
    let id = started(&pipeline, order.clone(), "A heist\n").await;
    upload(&pipeline, id, "Another heist\n").await;
    assert!(step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.stage, Stage::Invalid);
    assert!(
        input(&batch).checked.first_faults[0].detail.contains("replaced"),
        "{:?}",
        input(&batch).checked.first_faults
    );
    pipeline.stop().await;
}

#[tokio::test]
async fn a_canceled_batch_paints_no_more_and_says_so_for_each_line() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(12)).await;
    assert!(!step(&pipeline, id).await);
    assert!(pipeline.work(JobId::in_batch(id, 3), 1).await);
    let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
    save(&pipeline, &canceled).await;
    assert!(step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.status(pipeline.clock.now()), BatchStatus::Canceled);
    assert_eq!((batch.progress.counts.succeeded, batch.progress.counts.canceled), (1, 11));
    let results = document(&pipeline, id, "results").await;
    assert_eq!(results.iter().filter(|line| line["status"] == "canceled").count(), 11);
    assert_eq!(results[3]["status"], "succeeded");
    pipeline.stop().await;
}

/// A batch from a file that has ended, with all of its jobs failed.
async fn failed(pipeline: &Pipeline, jobs: usize) -> BatchId {
    let id = started(pipeline, json!({ "input": { "format": "ndjson" } }), &lines(jobs)).await;
    assert!(!step(pipeline, id).await);
    pipeline.model("filter=1");
    paint(pipeline, id).await;
    assert!(step(pipeline, id).await);
    id
}

#[tokio::test]
async fn a_retry_paints_what_failed_and_writes_the_results_anew() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = failed(&pipeline, 5).await;
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.progress.counts.failed, 5);
    assert_eq!(document(&pipeline, id, "results").await[0]["error"]["code"], "content_filtered");
    pipeline.model("");
    let key = "again".parse().expect("a key");
    let retried = batch
        .retry(Some(&key), pipeline.clock.now(), Terms { deadline: HOUR, retention: 30 * DAY })
        .expect("allowed")
        .expect("new");
    save(&pipeline, &retried).await;
    assert!(!step(&pipeline, id).await);
    paint(&pipeline, id).await;
    assert!(step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!(batch.status(pipeline.clock.now()), BatchStatus::Completed);
    assert!(document(&pipeline, id, "results").await.iter().all(|line| line["status"] == "succeeded"));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_that_replaces_an_interrupted_one_sends_the_tickets_of_both() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = failed(&pipeline, 5).await;
    let retry = async || {
        let retried = record(&pipeline, id).await.retry(
            None,
            pipeline.clock.now(),
            Terms { deadline: HOUR, retention: 30 * DAY },
        );
        save(&pipeline, &retried.expect("allowed").expect("new")).await;
    };
    retry().await;
    let (_, apps) = pipeline.intercept(|call| match call.operation {
        "SendMessageBatch" => Action::Answer(403, r#"{"__type":"com.amazonaws.sqs#AccessDenied"}"#.to_owned()),
        _ => Action::Pass,
    });
    let answer = batch::handle(&apps.batch, ticket(id)).await.expect("it answers");
    assert_eq!(answer.batch_item_failures.len(), 1, "no ticket was sent");
    assert_eq!(pipeline.job(JobId::in_batch(id, 4)).await.status, Status::Queued);
    retry().await;
    let before = pipeline.messages(&pipeline.ready().queue_url).await;
    assert!(!step(&pipeline, id).await);
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, before + 5);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_job_whose_ticket_was_lost_fails_at_the_deadline() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
    assert!(!step(&pipeline, id).await);
    assert!(pipeline.work(JobId::in_batch(id, 0), 1).await);
    pipeline.clock.advance(2 * HOUR);
    assert!(step(&pipeline, id).await);
    let results = document(&pipeline, id, "results").await;
    assert_eq!(results[1]["error"]["code"], "deadline_exceeded");
    assert_eq!(record(&pipeline, id).await.progress.counts.failed, 2);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_ended_does_not_keep_the_others_from_ending() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
    assert!(!step(&pipeline, id).await);
    // Its worker is lost, and perhaps it left a picture behind, so its end waits for the bucket.
    pipeline.claim(JobId::in_batch(id, 0), Duration::from_secs(60)).await;
    pipeline.clock.advance(2 * HOUR);
    let denied = |call: &Call<'_>| call.request.method() == "HEAD" && call.request.uri().contains("/images/");
    let (_, apps) = pipeline.intercept(move |call| match denied(call) {
        true => Action::Answer(403, String::new()),
        false => Action::Pass,
    });
    let answer = batch::handle(&apps.batch, ticket(id)).await.expect("it answers");
    assert_eq!(answer.batch_item_failures.len(), 1, "the ticket stays");
    let counts = record(&pipeline, id).await.progress.counts;
    assert_eq!((counts.running, counts.failed), (1, 2));
    assert!(step(&pipeline, id).await, "the bucket answers again");
    assert_eq!(record(&pipeline, id).await.progress.counts.failed, 3);
    pipeline.stop().await;
}

#[tokio::test]
async fn jobs_that_were_stored_after_the_admission_had_stopped_are_canceled_by_the_next_look() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
    // An invocation stores the jobs, and dies before it reads that the batch was canceled.
    let (late, slow) = pipeline
        .intercept(|call| if call.operation == "GetItem" && call.number > 4 { Action::Hold } else { Action::Pass });
    tokio::select! {
        _ = batch::handle(&slow.batch, ticket(id)) => panic!("it dies"),
        () = late.held() => {}
    }
    let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
    // The pass over all jobs was too early to find them.
    let stopped = canceled.stop_admission(pipeline.clock.now());
    for next in [canceled, stopped.clone(), stopped.passed(None)] {
        save(&pipeline, &next).await;
    }
    assert!(step(&pipeline, id).await, "nothing is left to wait for");
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.status(pipeline.clock.now()), batch.progress.counts.canceled), (BatchStatus::Canceled, 3));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_stopped_admission_leaves_the_jobs_alone_that_were_admitted_before() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(1001)).await;
    // The file is replaced after the first part.
    let (late, slow) = pipeline.intercept(|call| match call.operation {
        "PutItem" if call.text().contains("part 1000") => Action::Hold,
        _ => Action::Pass,
    });
    tokio::select! {
        _ = batch::handle(&slow.batch, ticket(id)) => panic!("it dies"),
        () = late.held() => {}
    }
    upload(&pipeline, id, "Another heist\n").await;
    assert!(!step(&pipeline, id).await, "a thousand jobs wait");
    let counts = record(&pipeline, id).await.progress.counts;
    assert_eq!((counts.queued, counts.canceled), (1000, 1));
    let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
    save(&pipeline, &canceled).await;
    assert!(step(&pipeline, id).await);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_cancellation_during_a_look_is_done_at_once() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(2)).await;
    assert!(!step(&pipeline, id).await);
    // The look finds something new, which it records.
    assert!(pipeline.work(JobId::in_batch(id, 0), 1).await);
    let (late, slow) =
        pipeline.intercept(|call| if call.operation == "UpdateItem" { Action::Hold } else { Action::Pass });
    let cancel = async {
        late.held().await;
        // Its ticket is lost.
        let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
        save(&pipeline, &canceled).await;
        for _ in 0..100 {
            late.resume();
            tokio::task::yield_now().await;
        }
    };
    let apps = &slow.batch;
    let (answer, ()) = tokio::join!(batch::handle(apps, ticket(id)), cancel);
    assert!(answer.expect("it answers").batch_item_failures.is_empty(), "the other job is canceled");
    pipeline.stop().await;
}

/// Delivers the batch's ticket to an invocation whose time is over when it has read from the file.
async fn slow_step(pipeline: &Pipeline, id: BatchId) -> bool {
    let (slow, apps) =
        pipeline.intercept(|call| if call.request.uri().contains("GetObject") { Action::Hold } else { Action::Pass });
    let mut event = ticket(id);
    // The function begins nothing in the last half minute of an invocation.
    event.context.deadline -= 58_000;
    let wait = async {
        slow.held().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        slow.resume();
    };
    let (answer, ()) = tokio::join!(batch::handle(&apps.batch, event), wait);
    answer.expect("it answers").batch_item_failures.is_empty()
}

#[tokio::test]
async fn results_that_take_too_long_are_left_to_another_invocation() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
    let now = pipeline.clock.now();
    let checked = record(&pipeline, id).await.checked(Checked { lines: 3, jobs: 3, ..Checked::default() });
    let canceled = checked.cancel(now).expect("it has not ended");
    let stopped = canceled.stop_admission(now);
    let passed = stopped.passed(None);
    for next in [checked, canceled, stopped, passed] {
        save(&pipeline, &next).await;
    }
    assert!(!slow_step(&pipeline, id).await, "its time is over");
    assert_eq!(record(&pipeline, id).await.stage, Stage::InProgress);
    assert!(step(&pipeline, id).await);
    assert_eq!(document(&pipeline, id, "results").await.len(), 3);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_file_that_is_not_checked_in_time_is_invalid_and_not_checked_for_ever() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(2)).await;
    assert!(!slow_step(&pipeline, id).await, "its time is over");
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.stage, batch.total), (Stage::Invalid, 0));
    assert!(
        input(&batch).checked.first_faults[0].detail.contains("in time"),
        "{:?}",
        input(&batch).checked.first_faults
    );
    assert!(step(&pipeline, id).await, "nothing more is done");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_paints_no_job_of_an_earlier_batch_with_the_same_key() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
    // It was retried, so that it outlives its batch.
    let order = Order::parse(json!({ "prompt": "Another heist" }), "", Model::Core).expect("a good order");
    let (owner, now) = (Owner::new(local::EVERYONE), pipeline.clock.now());
    let membership = Membership { batch: id, part: 0, custom_id: None };
    let earlier = Job::new(JobId::in_batch(id, 1), owner, order, now, Terms { deadline: HOUR, retention: 30 * DAY });
    let earlier = Job { membership: Some(membership), fence: 1, ..earlier };
    assert!(matches!(pipeline.table().create(&earlier).await, Ok(None)));
    pipeline.clock.advance(Duration::from_secs(1));
    assert!(!step(&pipeline, id).await, "the earlier job has not ended");
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0);
    assert!(pipeline.work(JobId::in_batch(id, 1), 1).await);
    assert!(step(&pipeline, id).await);
    let counts = record(&pipeline, id).await.progress.counts;
    assert_eq!((counts.canceled, counts.succeeded), (2, 1));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_large_batch_lets_others_have_their_turn() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(2001)).await;
    let app = batch::App::clone(&pipeline.stack.apps().batch).with_turn(Duration::from_millis(1));
    let mut turns = 0;
    while record(&pipeline, id).await.admitted < 2001 {
        let answer = batch::handle(&app, ticket(id)).await.expect("it answers");
        assert_eq!(answer.batch_item_failures.len(), 1, "the ticket comes back");
        turns += 1;
    }
    assert!(turns >= 4, "the check and each part have a turn of their own: {turns}");
    save(&pipeline, &record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended")).await;
    assert!(step(&pipeline, id).await);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_is_looked_at_no_more_often_when_the_deadline_of_new_jobs_was_shortened() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started_with(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(1), 96 * HOUR).await;
    assert!(!step(&pipeline, id).await);
    pipeline.clock.advance(10 * HOUR);
    let hidden = Arc::new(Mutex::new(Vec::new()));
    let seen = hidden.clone();
    let (_, apps) = pipeline.intercept(move |call| {
        seen.lock().expect("no panic").extend(call.json()["VisibilityTimeout"].as_u64());
        Action::Pass
    });
    batch::handle(&apps.batch, ticket(id)).await.expect("it answers");
    assert_eq!(hidden.lock().expect("no panic").last(), Some(&900), "and not five seconds");
    pipeline.work(JobId::in_batch(id, 0), 1).await;
    pipeline.stop().await;
}

/// Runs the function until it makes a call that is `held`, cancels the batch meanwhile, and lets it go on.
async fn cancel_at(held: fn(&Call<'_>) -> bool) {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(2)).await;
    let (late, slow) = pipeline.intercept(move |call| if held(call) { Action::Hold } else { Action::Pass });
    let cancel = async {
        late.held().await;
        let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
        save(&pipeline, &canceled).await;
        late.resume();
    };
    let (answer, ()) = tokio::join!(batch::handle(&slow.batch, ticket(id)), cancel);
    assert!(answer.expect("it answers").batch_item_failures.is_empty(), "the batch has ended");
    assert_eq!(record(&pipeline, id).await.status(pipeline.clock.now()), BatchStatus::Canceled);
    for index in 0..2 {
        if pipeline.table().get(JobId::in_batch(id, index)).await.expect("the table answers").is_some() {
            pipeline.work(JobId::in_batch(id, index), 1).await;
        }
    }
    assert_eq!(pipeline.stack.bedrock().stats().images, 0);
    let results = document(&pipeline, id, "results").await;
    assert!(results.len() == 2 && results.iter().all(|line| line["status"] == "canceled"), "{results:?}");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_canceled_while_its_jobs_are_stored_paints_nothing() {
    cancel_at(|call| call.operation == "PutItem" && call.text().contains("part 1")).await;
}

#[tokio::test]
async fn a_batch_that_is_canceled_while_its_tickets_are_sent_paints_nothing() {
    cancel_at(|call| call.operation == "SendMessageBatch").await;
}

#[tokio::test]
async fn a_batch_that_is_canceled_while_it_is_checked_has_no_jobs() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(2)).await;
    let canceled = record(&pipeline, id).await.cancel(pipeline.clock.now()).expect("it has not ended");
    save(&pipeline, &canceled).await;
    assert!(step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.status(pipeline.clock.now()), batch.total), (BatchStatus::Canceled, 0));
    pipeline.stop().await;
}

#[tokio::test]
async fn results_wait_for_a_job_that_the_index_takes_for_ended() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(1)).await;
    assert!(!step(&pipeline, id).await);
    pipeline.model("filter=1");
    paint(&pipeline, id).await;
    pipeline.model("");
    let (_, behind) = pipeline.intercept(|call| if call.operation == "Query" { Action::Stale } else { Action::Pass });
    // The first look is the one that later ones repeat.
    let look =
        async || batch::handle(&behind.batch, ticket(id)).await.expect("it answers").batch_item_failures.is_empty();
    assert!(look().await);
    let retried =
        record(&pipeline, id).await.retry(None, pipeline.clock.now(), Terms { deadline: HOUR, retention: 30 * DAY });
    save(&pipeline, &retried.expect("allowed").expect("new")).await;
    assert!(!look().await, "the job waits, though the index still shows that it has failed");
    paint(&pipeline, id).await;
    assert!(step(&pipeline, id).await);
    assert_eq!(record(&pipeline, id).await.status(pipeline.clock.now()), BatchStatus::Completed);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_of_several_parts_is_admitted_counted_and_canceled_whole() {
    let pipeline = Pipeline::without_event_sources().await;
    let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(1005)).await;
    assert!(!step(&pipeline, id).await);
    let batch = record(&pipeline, id).await;
    assert_eq!((batch.admitted, &batch.progress.open_parts), (1005, &vec![0, 1]));
    assert_eq!(batch.progress.counts.queued, 1005);
    let last = pipeline.table().get(JobId::in_batch(id, 1004)).await.expect("the table answers").expect("it is stored");
    assert_eq!(last.membership.map(|membership| membership.part), Some(1));
    assert!(pipeline.table().states_of_part(id, 1).await.expect("the table answers").is_empty(), "none has begun");
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 1005);
    save(&pipeline, &batch.cancel(pipeline.clock.now()).expect("it has not ended")).await;
    assert!(step(&pipeline, id).await);
    assert_eq!(record(&pipeline, id).await.progress.counts.canceled, 1005);
    assert_eq!(pipeline.table().states_of_part(id, 1).await.expect("the table answers").len(), 5);
    assert_eq!(document(&pipeline, id, "results").await.len(), 1005);
    pipeline.stop().await;
}

/// Lets the function die, or lose an answer, at each of its calls once, and checks that the batch ends as it should.
async fn disturb(disturbance: Disturbance) {
    let pipeline = Pipeline::without_event_sources().await;
    let mut disturbed = true;
    let mut number = 0;
    while disturbed {
        disturbed = false;
        let id = started(&pipeline, json!({ "input": { "format": "ndjson" } }), &lines(3)).await;
        let before = pipeline.stack.bedrock().stats().images;
        // First the check and the admission, then the look at the end with the results, each disturbed at the same call.
        for _ in 0..2 {
            let http = pipeline.stack.config().http_client().expect("the stack has a client");
            let wire = Wire::new(http, number, disturbance);
            let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
            let answer = wire.run(batch::handle(&apps.batch, ticket(id))).await;
            disturbed |= wire.calls() > number;
            let _ = answer.map(|answer| answer.expect("it answers"));
            step(&pipeline, id).await;
            paint(&pipeline, id).await;
        }
        assert!(step(&pipeline, id).await, "call {number}: the batch never ends");
        let batch = record(&pipeline, id).await;
        assert_eq!(batch.status(pipeline.clock.now()), BatchStatus::Completed, "call {number}");
        assert_eq!(document(&pipeline, id, "results").await.len(), 3, "call {number}");
        assert_eq!(pipeline.stack.bedrock().stats().images - before, 3, "call {number}: each is painted once");
        number += 1;
    }
    assert!(number > 10, "the function makes more calls than {number}");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_function_that_dies_before_any_call_loses_nothing() {
    disturb(Disturbance::CrashBefore).await;
}

#[tokio::test]
async fn a_function_that_dies_after_any_call_does_nothing_twice() {
    disturb(Disturbance::CrashAfter).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_does_no_harm_to_a_batch() {
    disturb(Disturbance::AnswerLost).await;
}
