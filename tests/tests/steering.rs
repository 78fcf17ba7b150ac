//! What an owner does with a job: polling it, canceling it, retrying it, and following the link to its picture.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use local::Options;
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use shared::api::{HealthView, JobView, JobsView};
use shared::aws::Saved;
use shared::image::{Image, ImageFacts, SignedUrl};
use shared::job::Status;
use shared::order::OutputFormat;
use shared::{Clock, JobId, Timestamp};
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};

use crate::batch_function::step;

async fn code(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.expect("a problem");
    (status, problem["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn a_callers_deadline_holds_for_its_job_its_batch_and_their_retries() {
    const HOUR: Duration = Duration::from_secs(3600);
    let pipeline = Pipeline::without_event_sources().await;
    let usual = pipeline.submit("A heist on the moon").await;
    assert_eq!(usual.deadline_at.since(usual.created_at), 24 * HOUR);
    let order = json!({ "prompt": "A heist in Venice", "deadline_hours": 96 });
    let single: JobView = pipeline.post("/jobs", &order).await.json().await.expect("a job");
    let jobs = json!({ "jobs": [{ "prompt": "One" }, { "prompt": "Two" }], "deadline_hours": 2 });
    let batch = pipeline.submit_batch(&jobs).await;
    let first = batch.jobs.expect("names")[0].id;
    let first: JobView = pipeline.get(&format!("/jobs/{first}")).await.json().await.expect("a job");
    for (job, hours) in [(&single, 96), (&first, 2)] {
        assert_eq!(job.deadline_at.since(job.created_at), hours * HOUR);
    }
    // The deadline of the batch has passed, so its jobs fail. A retry gives them as long again.
    pipeline.clock.advance(3 * HOUR);
    assert!(step(&pipeline, batch.id).await);
    assert_eq!(pipeline.batch_when(batch.id, |_| true).await.counts.failed, 2);
    let retry = async |path: &str| assert!(pipeline.post(path, &json!(null)).await.status().is_success(), "{path}");
    retry(&format!("/batches/{}/retry", batch.id)).await;
    assert!(!step(&pipeline, batch.id).await);
    retry(&format!("/jobs/{}/cancel", single.id)).await;
    retry(&format!("/jobs/{}/retry", single.id)).await;
    for (id, hours) in [(first.id, 2), (single.id, 96)] {
        let job: JobView = pipeline.get(&format!("/jobs/{id}")).await.json().await.expect("a job");
        assert_eq!(job.status, Status::Queued);
        assert_eq!(job.deadline_at.since(pipeline.clock.now()).div_duration_f64(HOUR).ceil(), f64::from(hours));
    }
    for (path, pointer, order) in [
        ("/jobs", "/deadline_hours", json!({ "prompt": "x", "deadline_hours": 0 })),
        ("/jobs", "/deadline_hours", json!({ "prompt": "x", "deadline_hours": 97 })),
        ("/batches", "/jobs/0/deadline_hours", json!({ "jobs": [{ "prompt": "x", "deadline_hours": 5 }] })),
        (
            "/batches",
            "/defaults/deadline_hours",
            json!({ "defaults": { "deadline_hours": 5 }, "input": { "format": "csv" } }),
        ),
        ("/batches", "/deadline_hours", json!({ "deadline_hours": "5", "input": { "format": "csv" } })),
    ] {
        let response = pipeline.post(path, &order).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{order}");
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{order}");
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_canceled_job_is_not_painted_and_stays_canceled() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    for _ in 0..2 {
        let response = pipeline.post(&format!("/jobs/{}/cancel", job.id), &json!(null)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let canceled: JobView = response.json().await.expect("a job");
        assert_eq!(canceled.status, Status::Canceled);
    }
    let answer = worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert!(answer.batch_item_failures.is_empty());
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 0);

    let done = pipeline.submit("A heist on Mars").await;
    worker::handle(&pipeline.stack.apps().worker, ticket(done.id, 1)).await.expect("the worker answers");
    let refused = pipeline.post(&format!("/jobs/{}/cancel", done.id), &json!(null)).await;
    assert_eq!(code(refused).await, (409, "not_cancelable".to_owned()));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_is_canceled_between_any_two_steps_leaves_no_picture_or_has_succeeded() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut canceled = 0;
    for number in 1..9 {
        let job = pipeline.submit(&format!("The heist, part {number}")).await;
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, number, Disturbance::Pause);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        let work = worker::handle(&apps.worker, ticket(job.id, 1));
        let cancel = async {
            wire.paused().await;
            let response = pipeline.post(&format!("/jobs/{}/cancel", job.id), &json!(null)).await;
            wire.resume();
            response.status()
        };
        let answer = tokio::select! {
            (answer, status) = async { tokio::join!(work, cancel) } => {
                assert_eq!(status, StatusCode::OK, "call {number}");
                canceled += 1;
                answer
            }
            // The worker made fewer calls than this, so there was no call to pause.
            () = tokio::time::sleep(Duration::from_secs(5)) => break,
        };
        answer.expect("the worker answers");
        assert_eq!(pipeline.job(job.id).await.status, Status::Canceled, "call {number}");
        assert_eq!(pipeline.pictures().await.len(), 0, "call {number} left a picture behind");
    }
    assert_eq!(canceled, 5, "claim, painting, storing both files and recording were each met by a cancellation");
    let left = worker::handle(&pipeline.stack.apps().worker, ticket(pipeline.submit("x").await.id, 1)).await;
    assert!(left.is_ok());
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_failed_job_is_painted_again_only_after_a_retry() {
    let pipeline = Pipeline::without_event_sources().await;
    let worker = &pipeline.stack.apps().worker;
    let job = pipeline.submit("nsfw").await;
    worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert_eq!(pipeline.job(job.id).await.status, Status::Failed);
    worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1, "a late ticket of a failed job does nothing");

    let retry = |key: &'static str| {
        let post = pipeline.http.post(format!("{}/jobs/{}/retry", pipeline.ready().api, job.id));
        post.header("Idempotency-Key", key).send()
    };
    let before = pipeline.messages(&pipeline.ready().queue_url).await;
    let response = retry("again-1").await.expect("the API answers");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert!(response.headers().contains_key(LOCATION) && response.headers().contains_key(RETRY_AFTER));
    let queued: JobView = response.json().await.expect("a job");
    assert_eq!((queued.id, queued.status, queued.attempts), (job.id, Status::Queued, 0));
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, before + 1);
    worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 2);

    let replay = retry("again-1").await.expect("the API answers");
    assert_eq!(replay.headers()["idempotency-replayed"], "true");
    let failed: JobView = replay.json().await.expect("a job");
    assert_eq!(failed.status, Status::Failed, "the same request does not retry the job a second time");
    assert_eq!(
        retry("again-2").await.expect("the API answers").json::<JobView>().await.expect("a job").status,
        Status::Queued
    );
    worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");

    let done = pipeline.submit("A heist on Mars").await;
    worker::handle(worker, ticket(done.id, 1)).await.expect("the worker answers");
    let refused = pipeline.post(&format!("/jobs/{}/retry", done.id), &json!(null)).await;
    assert_eq!(code(refused).await, (409, "not_retryable".to_owned()));
    pipeline.stop().await;
}

#[tokio::test]
async fn an_answer_is_held_until_the_job_changes() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("{}/jobs/{}", pipeline.ready().api, job.id);
    let held = pipeline.http.get(&address).header("Prefer", "respond-async, wait=1").send();
    let begun = Instant::now();
    let held = held.await.expect("the API answers");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(held.headers()["preference-applied"], "wait=1");
    assert_eq!(held.json::<JobView>().await.expect("a job").status, Status::Queued);

    let begun = Instant::now();
    let held = pipeline.http.get(&address).header("Prefer", "wait=500").send();
    let (held, worked) = tokio::join!(held, worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)));
    worked.expect("the worker answers");
    let held = held.expect("the API answers");
    assert_eq!(held.headers()["preference-applied"], "wait=20");
    assert_eq!(held.json::<JobView>().await.expect("a job").status, Status::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(15), "the answer came with the news");
    for nonsense in ["wait=0", "wait=-1", "wait=soon", "wait"] {
        let answer = pipeline.http.get(&address).header("Prefer", nonsense).send().await.expect("the API answers");
        assert!(!answer.headers().contains_key("preference-applied"), "{nonsense}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_service_that_holds_no_answers_says_so_by_its_answer() {
    for (most, applied) in [("0", None), ("1", Some("wait=1"))] {
        let parameters = BTreeMap::from([("MaxWaitSeconds".to_owned(), most.to_owned())]);
        let options = Options { parameters, event_sources: false, ..Options::default() };
        let pipeline = Pipeline::with(options).await;
        let job = pipeline.submit("A heist on the moon").await;
        let address = format!("{}/jobs/{}", pipeline.ready().api, job.id);
        let asked = Instant::now();
        let answer = pipeline.http.get(&address).header("Prefer", "wait=20").send().await.expect("the API answers");
        assert!(asked.elapsed() < Duration::from_secs(15), "{most}");
        assert!(answer.headers().contains_key(RETRY_AFTER));
        let told = answer.headers().get("preference-applied").map(|value| value.to_str().expect("text"));
        assert_eq!(told, applied, "{most}");
        pipeline.stack.stop().await;
    }
}

#[tokio::test]
async fn a_version_that_the_caller_has_is_not_sent_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("{}/jobs/{}", pipeline.ready().api, job.id);
    let first = pipeline.http.get(&address).send().await.expect("the API answers");
    let etag = first.headers()[ETAG].clone();
    for tag in [etag.to_str().expect("text"), "*", &format!("\"x\", {}", etag.to_str().expect("text"))] {
        let same = pipeline.http.get(&address).header(IF_NONE_MATCH, tag).send().await.expect("the API answers");
        assert_eq!((same.status(), &same.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &etag), "{tag}");
        assert!(same.headers().contains_key(RETRY_AFTER));
        assert!(same.bytes().await.expect("a body").is_empty());
    }
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    let next = pipeline.http.get(&address).header(IF_NONE_MATCH, etag).send().await.expect("the API answers");
    assert_eq!(next.status(), StatusCode::OK);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_queued_job_shows_how_many_are_ahead_and_when_it_may_start() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut jobs = Vec::new();
    for number in 0..30 {
        jobs.push(pipeline.submit(&format!("The heist, part {number}")).await);
    }
    let response = pipeline.get(&format!("/jobs/{}", jobs[29].id)).await;
    let wait: u64 = response.headers()[RETRY_AFTER].to_str().expect("text").parse().expect("a number");
    let job: JobView = response.json().await.expect("a job");
    let queue = job.queue.expect("it waits");
    assert!(queue.estimate);
    assert_eq!(queue.ahead, 30);
    // Thirty jobs, ten at a time, at five seconds each until a painting has been seen.
    let until = queue.estimated_start_at.since(pipeline.clock.now()).as_secs();
    assert!((13..=15).contains(&until), "{until} s");
    assert!((15..=17).contains(&wait), "{wait} s");
    for job in jobs {
        worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    }
    pipeline.stop().await;
}

/// A pipeline whose clock stands at a full hour and moves only when the test moves it.
async fn at_a_full_hour() -> Pipeline {
    let clock = Clock::still(Timestamp::from_ms(1_795_500_000_000).round_down(Duration::from_secs(3600)));
    Pipeline::with(Options { event_sources: false, clock, ..Options::default() }).await
}

/// The `Retry-After` of the job, in seconds.
async fn next_look(pipeline: &Pipeline, job: JobId) -> u64 {
    let response = pipeline.get(&format!("/jobs/{job}")).await;
    response.headers()[RETRY_AFTER].to_str().expect("text").parse().expect("a number")
}

/// A job that was painted in this time, and was read afterwards.
async fn painted_in(pipeline: &Pipeline, took: Duration) {
    let job = pipeline.submit("A heist on the moon").await.id;
    let claimed = pipeline.claim(job, Duration::from_secs(90)).await;
    pipeline.clock.advance(took);
    let now = pipeline.clock.now();
    let (format, seed, lettering) = (OutputFormat::Png, None, None);
    let facts = ImageFacts { format, bytes: 1, width: 1, height: 1, seed, lettering };
    let url = SignedUrl { url: "https://example.com".to_owned(), expires_at: now + Duration::from_secs(3600) };
    let done = claimed.succeed(Image { facts, url, artwork: None, thumbnail: None }, now);
    assert!(matches!(pipeline.table().save(&done).await, Ok(Saved::Stored)));
    assert_eq!(pipeline.job(job).await.status, Status::Succeeded);
}

#[tokio::test]
async fn an_estimate_is_at_least_one_painting_and_ignores_odd_ones() {
    let pipeline = at_a_full_hour().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    assert_eq!(next_look(&pipeline, job).await, 5, "nobody is ahead of it, but it has to be painted itself");
    pipeline.claim(job, Duration::from_secs(90)).await;
    assert_eq!(next_look(&pipeline, job).await, 5, "it has just begun");
    for _ in 0..15 {
        painted_in(&pipeline, Duration::from_secs(10)).await;
    }
    painted_in(&pipeline, Duration::from_secs(80)).await;
    let job = pipeline.submit("A heist on Mars").await.id;
    pipeline.claim(job, Duration::from_secs(90)).await;
    let estimate = next_look(&pipeline, job).await;
    assert!((10..25).contains(&estimate), "{estimate} s, when all but one took 10 s");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_queues_depth_is_at_most_seconds_old() {
    let pipeline = Pipeline::without_event_sources().await;
    let waiting = async || pipeline.get("/health").await.json::<HealthView>().await.expect("health").queue.waiting;
    assert_eq!(waiting().await, 0);
    let submitted = Instant::now();
    pipeline.submit("A heist on the moon").await;
    while waiting().await == 0 {
        assert!(submitted.elapsed() < Duration::from_secs(20), "it is still said to be empty");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_newly_signed_url_stays_the_same_for_a_while() {
    let pipeline = at_a_full_hour().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    assert!(pipeline.work(job, 1).await);
    let look = async || {
        let response = pipeline.get(&format!("/jobs/{job}")).await;
        let version = response.headers()[ETAG].clone();
        let url = response.json::<JobView>().await.expect("a job").image.expect("a picture").url;
        let page: JobsView = pipeline.get("/jobs").await.json().await.expect("a page");
        assert_eq!(page.jobs[0].image.as_ref().map(|image| &image.url), Some(&url), "a list shows the same");
        (version, url)
    };
    let stored = look().await;
    pipeline.clock.advance(Duration::from_secs(3600));
    let signed = look().await;
    assert_ne!(signed, stored, "the stored one has expired");
    pipeline.clock.advance(Duration::from_secs(1799));
    assert_eq!(look().await, signed, "it works for half an hour more");
    pipeline.clock.advance(Duration::from_secs(1));
    assert_ne!(look().await, signed);
    pipeline.stop().await;
}

#[tokio::test]
async fn the_picture_has_an_address_that_does_not_expire() {
    let pipeline = Pipeline::without_event_sources().await;
    let browser = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("{}/jobs/{}/image", pipeline.ready().api, job.id);
    let early = browser.get(&address).send().await.expect("the API answers");
    assert_eq!(code(early).await, (409, "not_finished".to_owned()));
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    let job = pipeline.job(job.id).await;
    assert_eq!(job.links.image.as_ref(), Some(&address));
    pipeline.clock.advance(Duration::from_secs(10 * 86_400));
    let redirect = browser.get(&address).send().await.expect("the API answers");
    assert_eq!(redirect.status(), StatusCode::FOUND);
    assert!(redirect.headers()[LOCATION].to_str().expect("text").contains("X-Amz-Signature="));
    let health: Value = pipeline.get("/health").await.json().await.expect("health");
    assert_eq!((&health["status"], &health["version"]), (&json!("ok"), &json!("0.1.0")));
    pipeline.stop().await;
}
