//! Tickets that are duplicate, late or malformed, or that are delivered for the last time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::LambdaEvent;
use serde_json::json;
use shared::JobId;
use shared::job::{ErrorCode, Status};
use shared::ticket::{Message as _, Ticket};
use tests::events::{answer as answer_of, post};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, delivery, ticket};
use tests::wire::{Disturbance, Wire};

use crate::batch_function::ticket as batch_ticket;

fn body(job: JobId) -> String {
    Ticket { job, queued_at: None, trace: None }.to_body()
}

#[tokio::test]
async fn a_ticket_delivered_many_times_at_once_is_painted_once() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let worker = &pipeline.stack.apps().worker;
    let answers = futures_util::future::join_all((0..8).map(|_| worker::handle(worker, ticket(job.id, 1)))).await;
    let back = answers.into_iter().filter(|answer| {
        let answer = answer.as_ref().expect("the worker answers");
        !answer.batch_item_failures.is_empty()
    });
    assert!(back.count() <= 7, "a ticket whose job somebody else holds comes back");
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1);
    let late = worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
    assert!(late.batch_item_failures.is_empty(), "the ticket of an ended job is done with");
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_a_ticket_is_parked_and_its_neighbors_are_processed() {
    let pipeline = Pipeline::without_event_sources().await;
    let (one, two) = (pipeline.submit("One").await, pipeline.submit("Two").await);
    let bodies = [body(one.id), "not a ticket".to_owned(), String::new(), r#"{"v":9}"#.to_owned(), body(two.id)];
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let answer = worker::handle(&pipeline.stack.apps().worker, delivery(&bodies, 1)).await.expect("it answers");
    let back: Vec<_> = answer.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(back, ["message-3"], "only what a newer version wrote comes back");
    assert_eq!(pipeline.messages(&pipeline.ready().parked_queue_url).await, 2);
    for job in [one, two] {
        assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    }
    pipeline.stop().await;
}

/// The messages that return to the queue.
fn back(answer: &SqsBatchResponse) -> Vec<&str> {
    answer.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect()
}

#[tokio::test]
async fn a_message_that_cannot_be_parked_comes_back() {
    let pipeline = Pipeline::without_event_sources().await;
    let rule = |call: &Call<'_>| match call.operation {
        "SendMessage" => Action::Answer(400, r#"{"__type":"AccessDeniedException"}"#.to_owned()),
        _ => Action::Pass,
    };
    let (_, apps) = pipeline.intercept(rule);
    let job = pipeline.submit("A heist on the moon").await;
    let messages = || delivery(&["not a ticket"], 1);
    let answer = worker::handle(&apps.worker, messages()).await.expect("it answers");
    assert_eq!(back(&answer), ["message-0"], "it would be lost");
    let answer = dead_letter::handle(&apps.dead_letter, messages()).await.expect("it answers");
    assert_eq!(back(&answer), ["message-0"], "it would be lost");
    let answer = worker::handle(&apps.worker, delivery(&["not a ticket", &body(job.id)], 1)).await.expect("it answers");
    assert_eq!(back(&answer), ["message-0"]);
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded, "its neighbor is unharmed");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_ticket_whose_work_panics_comes_back_and_its_neighbor_does_not() {
    let pipeline = Pipeline::without_event_sources().await;
    let (poison, neighbor) = (pipeline.submit("One").await, pipeline.submit("Two").await);
    let id = poison.id.to_string();
    let (_, apps) = pipeline.intercept(move |call| {
        assert!(call.operation != "GetItem" || !call.text().contains(&id), "a fault in the code");
        Action::Pass
    });
    let tickets = || delivery(&[&body(poison.id), &body(neighbor.id)], 1);
    let answer = worker::handle(&apps.worker, tickets()).await.expect("it answers");
    assert_eq!(back(&answer), ["message-0"]);
    assert_eq!(pipeline.job(neighbor.id).await.status, Status::Succeeded);
    let answer = dead_letter::handle(&apps.dead_letter, tickets()).await.expect("it answers");
    assert_eq!(back(&answer), ["message-0"]);
    assert!(pipeline.work(poison.id, 2).await, "without the fault the ticket is worked off");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_ticket_whose_job_cannot_be_read_comes_back() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    for status in [400, 500] {
        let (_, apps) = pipeline.intercept(move |call| match call.operation {
            "GetItem" => Action::Answer(status, "{}".to_owned()),
            _ => Action::Pass,
        });
        let answer = worker::handle(&apps.worker, ticket(job.id, 1)).await.expect("it answers");
        assert_eq!(back(&answer), ["message-0"], "{status}");
        let answer = dead_letter::handle(&apps.dead_letter, ticket(job.id, 1)).await.expect("it answers");
        assert_eq!(back(&answer), ["message-0"], "{status}");
    }
    assert!(pipeline.work(job.id, 2).await);
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    pipeline.stop().await;
}

/// For how many seconds the tickets of these jobs are hidden after their first delivery.
async fn hidden(
    pipeline: &Pipeline,
    jobs: &[JobId],
    rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static,
) -> Vec<u64> {
    let (apps, hidden) = pipeline.intercept_hiding(rule);
    let bodies: Vec<_> = jobs.iter().map(|&job| body(job)).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let answer = worker::handle(&apps.worker, delivery(&bodies, 1)).await.expect("the worker answers");
    assert_eq!(back(&answer).len(), jobs.len(), "every ticket comes back");
    let hidden = hidden.lock().expect("no one panicked").clone();
    assert_eq!(hidden.len(), jobs.len(), "each is hidden for its own wait, not for as long as the queue says");
    hidden
}

#[tokio::test]
async fn a_ticket_that_comes_back_for_the_first_time_is_hidden_for_seconds() {
    let pipeline = Pipeline::without_event_sources().await;
    // The waits are random up to a limit, so it takes many of them to see the limit.
    let jobs: Vec<_> = (0..40).map(|i| json!({ "prompt": format!("The heist, part {i}") })).collect();
    let batch = pipeline.submit_batch(&json!({ "jobs": jobs })).await;
    let jobs: Vec<_> = batch.jobs.expect("names").into_iter().map(|job| job.id).collect();
    let unread = hidden(&pipeline, &jobs, |call| match call.operation {
        "GetItem" => Action::Answer(400, r#"{"__type":"ValidationException"}"#.to_owned()),
        _ => Action::Pass,
    })
    .await;
    assert!(unread.iter().all(|secs| (1..=4).contains(secs)), "while the table does not answer: {unread:?}");
    pipeline.model("throttle=1");
    let throttled = hidden(&pipeline, &jobs, |_| Action::Pass).await;
    assert!(throttled.iter().all(|secs| (1..=2).contains(secs)), "while the model is busy: {throttled:?}");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_ticket_that_comes_before_its_record_waits_for_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut event = ticket(JobId::new(), 1);
    let sent_at = pipeline.clock.now().ms().to_string();
    event.payload.records[0].attributes.insert("SentTimestamp".to_owned(), sent_at);
    let worker = &pipeline.stack.apps().worker;
    let early = worker::handle(worker, event.clone()).await.expect("the worker answers");
    assert_eq!(back(&early), ["message-0"]);
    pipeline.clock.advance(Duration::from_secs(120));
    let late = worker::handle(worker, event).await.expect("the worker answers");
    assert!(late.batch_item_failures.is_empty(), "there never was a record");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_reply_has_the_form_that_lambda_reads() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let worker = &pipeline.stack.apps().worker;
    let reply = |answer| serde_json::to_string(&answer).expect("the answer is JSON");
    pipeline.model("throttle=1");
    let back = worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert_eq!(reply(back), r#"{"batchItemFailures":[{"itemIdentifier":"message-0"}]}"#);
    pipeline.model("");
    let done = worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
    assert_eq!(reply(done), r#"{"batchItemFailures":[]}"#);
    pipeline.stop().await;
}

#[tokio::test]
async fn the_ticket_of_a_job_that_has_no_record_is_dropped() {
    let pipeline = Pipeline::without_event_sources().await;
    let answer = worker::handle(&pipeline.stack.apps().worker, ticket(JobId::new(), 3)).await.expect("it answers");
    assert!(answer.batch_item_failures.is_empty());
    let answer = dead_letter::handle(&pipeline.stack.apps().dead_letter, ticket(JobId::new(), 1)).await;
    assert!(answer.expect("it answers").batch_item_failures.is_empty());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_painting_with_too_little_time_left_is_not_started() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let LambdaEvent { payload, mut context, .. } = ticket(job.id, 1);
    context.deadline -= 30_000;
    let worker = &pipeline.stack.apps().worker;
    let answer = worker::handle(worker, LambdaEvent::new(payload, context)).await.expect("the worker answers");
    assert_eq!(answer.batch_item_failures.len(), 1);
    assert_eq!(pipeline.job(job.id).await.status, Status::Queued);
    worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
    pipeline.stop().await;
}

#[tokio::test]
async fn nothing_is_painted_when_a_slow_table_has_used_up_the_time_for_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let LambdaEvent { payload, mut context, .. } = ticket(job.id, 1);
    // Of the worker's 90 seconds, 80 must be left when a painting begins. Here 81.5 are left at first.
    context.deadline -= 8_500;
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, 1, Disturbance::Pause);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    let slow = async {
        wire.paused().await;
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        wire.resume();
    };
    let (answer, ()) = tokio::join!(worker::handle(&apps.worker, LambdaEvent::new(payload, context)), slow);
    assert_eq!(answer.expect("the worker answers").batch_item_failures.len(), 1);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 0, "a picture that comes too late is paid for");
    let waits = pipeline.job(job.id).await;
    assert_eq!(waits.last_error.expect("it says why").code, ErrorCode::Internal);
    assert_eq!(waits.attempts, 0);

    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 2)).await.expect("the worker answers");
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_dead_letter_fails_its_job_unless_a_worker_still_has_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let apps = pipeline.stack.apps();
    let job = pipeline.submit("A heist on the moon").await;
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, 2, Disturbance::CrashBefore);
    let doomed = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    assert!(wire.run(worker::handle(&doomed.worker, ticket(job.id, 1))).await.is_none(), "the worker dies");

    let answer = dead_letter::handle(&apps.dead_letter, ticket(job.id, 1)).await.expect("it answers");
    assert_eq!(answer.batch_item_failures.len(), 1, "the dead worker's lease may still be a living one's");
    assert_eq!(pipeline.job(job.id).await.status, Status::Running);
    pipeline.clock.advance(Duration::from_secs(96));
    let answer = dead_letter::handle(&apps.dead_letter, ticket(job.id, 2)).await.expect("it answers");
    assert!(answer.batch_item_failures.is_empty());
    let ended = pipeline.job(job.id).await;
    assert_eq!(ended.error.expect("it says why").code, ErrorCode::AttemptsExhausted);

    let painted = pipeline.submit("A heist on Mars").await;
    worker::handle(&apps.worker, ticket(painted.id, 1)).await.expect("the worker answers");
    dead_letter::handle(&apps.dead_letter, ticket(painted.id, 1)).await.expect("it answers");
    assert_eq!(pipeline.job(painted.id).await.status, Status::Succeeded, "what has succeeded stays so");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_dead_letter_from_before_a_retry_ends_nothing() {
    let pipeline = Pipeline::without_event_sources().await;
    let dead_letter = &pipeline.stack.apps().dead_letter;
    let job = pipeline.submit("A heist on the moon").await.id;
    let former = Ticket::of(&pipeline.record(job).await, None).to_body();
    pipeline.post(&format!("/jobs/{job}/cancel"), &serde_json::Value::Null).await;
    pipeline.post(&format!("/jobs/{job}/retry"), &serde_json::Value::Null).await;
    let answer = dead_letter::handle(dead_letter, delivery(&[&former], 1000)).await.expect("it answers");
    assert!(answer.batch_item_failures.is_empty(), "the retry has sent a ticket of its own");
    assert_eq!(pipeline.job(job).await.status, Status::Queued);

    pipeline.claim(job, Duration::from_secs(60)).await;
    let answer = dead_letter::handle(dead_letter, delivery(&[&former], 1000)).await.expect("it answers");
    assert!(answer.batch_item_failures.is_empty());
    pipeline.clock.advance(Duration::from_secs(60));
    dead_letter::handle(dead_letter, delivery(&[&former], 1000)).await.expect("it answers");
    assert_eq!(pipeline.job(job).await.status, Status::Running, "it says nothing about the retried job");

    let present = Ticket::of(&pipeline.record(job).await, None).to_body();
    dead_letter::handle(dead_letter, delivery(&[&present], 1000)).await.expect("it answers");
    let ended = pipeline.job(job).await;
    assert_eq!(ended.error.expect("it says why").code, ErrorCode::AttemptsExhausted);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_ticket_says_when_its_job_was_queued() {
    let pipeline = Pipeline::without_event_sources().await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = sent.clone();
    let (_, apps) = pipeline.intercept(move |call| {
        let body = call.json();
        let messages = match call.operation {
            "SendMessage" => vec![body],
            "SendMessageBatch" => body["Entries"].as_array().cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let tickets = messages.iter().map(|message| message["MessageBody"].as_str().expect("a body"));
        // The others are tickets of batches.
        let of_jobs = tickets.filter_map(|body| Ticket::from_body(body).ok());
        seen.lock().expect("no one panicked").extend(of_jobs);
        Action::Pass
    });
    let post = async |path: &str, id: Option<String>, body: serde_json::Value| {
        let answer = submit::handle(&apps.submit, post(path, id, None, &body)).await.expect("it answers");
        answer_of(answer)
    };
    let sent = async || {
        let tickets = std::mem::take(&mut *sent.lock().expect("no one panicked"));
        assert!(!tickets.is_empty());
        for ticket in tickets {
            assert_eq!(ticket.queued_at, Some(pipeline.record(ticket.job).await.queued_at));
        }
    };
    let (_, job) = post("/jobs", None, json!({ "prompt": "A heist on the moon" })).await;
    sent().await;
    let (_, batch) = post("/batches", None, json!({ "jobs": [{ "prompt": "One" }, { "prompt": "Two" }] })).await;
    sent().await;
    let (job, batch) = (job["id"].as_str().expect("an id"), batch["id"].as_str().expect("an id"));
    pipeline.post(&format!("/jobs/{job}/cancel"), &serde_json::Value::Null).await;
    post("/jobs/{id}/retry", Some(job.to_owned()), serde_json::Value::Null).await;
    sent().await;
    pipeline.clock.advance(Duration::from_secs(25 * 3600));
    pipeline.get(&format!("/batches/{batch}/jobs")).await;
    pipeline.post(&format!("/batches/{batch}/retry"), &serde_json::Value::Null).await;
    batch::handle(&apps.batch, batch_ticket(batch.parse().expect("an id"))).await.expect("it answers");
    sent().await;
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_redriven_ticket_of_a_failed_job_paints_nothing_until_its_owner_retries_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let apps = pipeline.stack.apps();
    let job = pipeline.submit("A heist on the moon").await;
    dead_letter::handle(&apps.dead_letter, ticket(job.id, 1)).await.expect("it answers");
    assert_eq!(pipeline.job(job.id).await.status, Status::Failed);

    // A redrive sends the same message from the dead-letter queue back to the queue it came from.
    let answer = worker::handle(&apps.worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert!(answer.batch_item_failures.is_empty(), "the ticket is done with");
    assert_eq!(pipeline.job(job.id).await.status, Status::Failed);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 0);

    let response = pipeline.post(&format!("/jobs/{}/retry", job.id), &serde_json::Value::Null).await;
    assert_eq!(response.status(), reqwest::StatusCode::ACCEPTED);
    worker::handle(&apps.worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    pipeline.stop().await;
}
