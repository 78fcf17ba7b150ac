//! A worker that dies between any two steps, and a worker whose calls take effect but whose answers are lost.

use std::time::Duration;

use reqwest::StatusCode;
use shared::job::{ErrorCode, Status};
use shared::ticket::{Message as _, Ticket};
use tests::pipeline::{Pipeline, delivery, ticket};
use tests::wire::{Disturbance, Wire};

/// More calls than a worker makes for one job, so the last numbers disturb nothing.
const CALLS: usize = 9;

/// The lease of a worker that died lasts until its invocation would have ended, and a little longer.
const LEASE: Duration = Duration::from_secs(96);

async fn disturb(disturbance: Disturbance) {
    let pipeline = Pipeline::without_event_sources().await;
    let mut crashes = 0;
    let mut calls = 0;
    for number in 0..CALLS {
        let before = pipeline.stack.bedrock().stats().images;
        let job = pipeline.submit(&format!("The heist, part {number}")).await;
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, number, disturbance);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        let answer = wire.run(worker::handle(&apps.worker, ticket(job.id, 1))).await;
        calls = calls.max(wire.calls());
        crashes += usize::from(answer.is_none());
        let mut done = answer.is_some_and(|answer| answer.expect("the worker answers").batch_item_failures.is_empty());

        for receives in 2..6 {
            if done {
                break;
            }
            pipeline.clock.advance(LEASE);
            let answer = worker::handle(&pipeline.stack.apps().worker, ticket(job.id, receives)).await;
            done = answer.expect("the worker answers").batch_item_failures.is_empty();
        }
        assert!(done, "call {number}: the ticket is never done with");
        let ended = pipeline.job(job.id).await;
        assert_eq!(ended.status, Status::Succeeded, "call {number}: {ended:?}");
        let painted = pipeline.stack.bedrock().stats().images - before;
        assert!((1..=2).contains(&painted), "call {number}: painted {painted} times");
        let image = ended.image.expect("a picture");
        for url in [image.url, image.thumbnail.expect("a thumbnail")] {
            let download = pipeline.http.get(url).send().await.expect("S3 answers");
            assert_eq!(download.status(), StatusCode::OK, "call {number}");
        }
    }
    assert!(calls < CALLS, "every call of a worker was disturbed once: it makes {calls}");
    let may_crash = disturbance != Disturbance::AnswerLost;
    assert!(if may_crash { crashes >= 6 } else { crashes == 0 }, "{crashes} crashes");
    assert_eq!(pipeline.pictures().await.len(), 2 * CALLS, "each job has one picture and its thumbnail");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_before_any_call_loses_no_job() {
    disturb(Disturbance::CrashBefore).await;
}

#[tokio::test]
async fn a_worker_that_dies_after_any_call_loses_no_job() {
    disturb(Disturbance::CrashAfter).await;
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_does_no_harm() {
    disturb(Disturbance::AnswerLost).await;
}

#[tokio::test]
async fn a_picture_that_a_dead_worker_stored_is_not_paid_for_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    // Read, claim, paint and store come first; the fifth call stores the thumbnail.
    let wire = Wire::new(http, 4, Disturbance::CrashBefore);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    assert!(wire.run(worker::handle(&apps.worker, ticket(job.id, 1))).await.is_none(), "the worker dies");
    assert_eq!(pipeline.pictures().await.len(), 1);
    pipeline.clock.advance(LEASE);
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 2)).await.expect("the worker answers");
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_kills_each_worker_fails_and_costs_its_neighbor_one_more_delivery() {
    let pipeline = Pipeline::without_event_sources().await;
    let (poison, neighbor) = (pipeline.submit("A heist on the moon").await, pipeline.submit("A heist on Mars").await);
    let body = |job| Ticket { job, queued_at: None, trace: None }.to_body();
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    // A worker reads and claims the poison's record and dies while the model paints. Its neighbor's work dies with it.
    for receives in 1..=3 {
        let wire = Wire::new(http.clone(), if receives == 1 { 2 } else { 3 }, Disturbance::CrashAfter);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(worker::handle(&apps.worker, ticket(poison.id, receives))).await.is_none(), "the worker dies");
        pipeline.clock.advance(LEASE);
    }
    let both = delivery(&[&body(poison.id), &body(neighbor.id)], 4);
    let answer = worker::handle(&pipeline.stack.apps().worker, both).await.expect("the worker answers");
    assert!(answer.batch_item_failures.is_empty(), "both tickets are done with");
    let ended = pipeline.job(poison.id).await;
    assert_eq!(ended.error.expect("it says why").code, ErrorCode::AttemptsExhausted);
    assert_eq!(pipeline.job(neighbor.id).await.status, Status::Succeeded);
    assert_eq!(pipeline.stack.bedrock().stats().images, 3 + 1, "the poison was painted as often as is allowed");
    pipeline.stop().await;
}
