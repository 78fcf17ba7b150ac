//! Changes to a job or batch by others between two calls of a function that changes it as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use local::Apps;
use serde_json::{Value, json};
use shared::JobId;
use shared::api::BatchView;
use shared::image::{ImageFacts, Variant};
use shared::job::Status;
use shared::order::OutputFormat;
use tests::events::{answer, get, post};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};

use crate::batch_function::ticket as batch_ticket;

/// Longer than an invocation of the worker and so than the lease of a job.
const LEASE: Duration = Duration::from_secs(96);

/// How long to wait at most until a call is held.
const PATIENCE: Duration = Duration::from_secs(30);

async fn act(pipeline: &Pipeline, job: JobId, action: &str) -> u16 {
    pipeline.post(&format!("/jobs/{job}/{action}"), &Value::Null).await.status().as_u16()
}

fn is_write_of_job(call: &Call<'_>) -> bool {
    call.operation == "UpdateItem" && call.text().contains("JOB#")
}

fn some_picture() -> shared::aws::File {
    let (format, seed, lettering) = (OutputFormat::Png, None, None);
    let facts = ImageFacts { format, bytes: 1, width: 1, height: 1, seed, lettering };
    shared::aws::File { facts, bytes: vec![7].into() }
}

/// Runs `work`, and runs `then` just before the first of its calls for which `held` is true.
pub(crate) async fn meanwhile<T>(
    pipeline: &Pipeline,
    held: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static,
    work: impl AsyncFnOnce(&Apps) -> T,
    then: impl AsyncFnOnce(),
) -> T {
    let once = AtomicBool::new(false);
    let (slow, apps) =
        pipeline.intercept(
            move |call| {
                if held(call) && !once.swap(true, Ordering::SeqCst) { Action::Hold } else { Action::Pass }
            },
        );
    let others = async {
        tokio::time::timeout(PATIENCE, slow.held()).await.expect("the call is made");
        then().await;
        slow.resume();
    };
    tokio::join!(work(&apps), others).0
}

#[tokio::test]
async fn the_loser_of_a_race_to_end_a_job_reports_how_it_ended() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    pipeline.clock.advance(Duration::from_secs(2 * 86_400));
    let look = async |apps: &Apps| status::handle(&apps.status, get("/jobs/{id}", Some(job.to_string()))).await;
    let looked = meanwhile(&pipeline, is_write_of_job, look, async || {
        assert_eq!(act(&pipeline, job, "cancel").await, 200);
    });
    let (code, view) = answer(looked.await.expect("the function answers"));
    assert_eq!((code, &view["status"], &view["error"]), (200, &json!("canceled"), &Value::Null));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_cancellation_that_meets_a_claim_still_takes_effect() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    let event = post("/jobs/{id}/cancel", Some(job.to_string()), None, &Value::Null);
    let cancel = async |apps: &Apps| status::handle(&apps.status, event).await;
    let canceled = meanwhile(&pipeline, is_write_of_job, cancel, async || drop(pipeline.claim(job, LEASE).await));
    let (code, view) = answer(canceled.await.expect("the function answers"));
    assert_eq!((code, &view["status"]), (200, &json!("canceled")));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_starts_while_its_batch_is_canceled_goes_on() {
    for held in ["BatchGetItem", "UpdateItem"] {
        let pipeline = Pipeline::without_event_sources().await;
        let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "A heist on the moon" }] })).await;
        let job = batch.jobs.expect("names")[0].id;
        let canceled = pipeline.post(&format!("/batches/{}/cancel", batch.id), &Value::Null).await;
        assert_eq!(canceled.status(), 202);
        let pass = async |apps: &Apps| batch::handle(&apps.batch, batch_ticket(batch.id)).await;
        let is_held = move |call: &Call<'_>| call.operation == held && call.text().contains("JOB#");
        let passed = meanwhile(&pipeline, is_held, pass, async || drop(pipeline.claim(job, LEASE).await));
        assert_eq!(passed.await.expect("it answers").batch_item_failures.len(), 1, "{held}: the job goes on");
        let view: BatchView = pipeline.get(&format!("/batches/{}", batch.id)).await.json().await.expect("a batch");
        assert_eq!((view.counts.running, view.counts.canceled), (1, 0), "{held}");
        assert_eq!(pipeline.job(job).await.status, Status::Running, "{held}");
        pipeline.stack.stop().await;
    }
}

#[tokio::test]
async fn the_ticket_of_a_canceled_job_stays_while_its_worker_may_be_alive() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    let claimed = pipeline.claim(job, LEASE).await;
    assert_eq!(act(&pipeline, job, "cancel").await, 200);
    assert!(!pipeline.work(job, 2).await, "its worker may store the picture yet");
    // It claims the job, and dies.
    let images = pipeline.stack.aws().images(pipeline.ready().bucket.clone());
    images.put(&claimed, Variant::Image, &some_picture()).await.expect("the bucket answers");
    assert!(!pipeline.work(job, 3).await);
    assert_eq!(pipeline.pictures().await.len(), 1);
    pipeline.clock.advance(LEASE);
    assert!(pipeline.work(job, 4).await);
    assert_eq!(pipeline.pictures().await, Vec::<String>::new(), "nothing is left behind");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_was_deleted_meanwhile_is_stored_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    let once = AtomicBool::new(false);
    let (_, apps) = pipeline.intercept(move |call| {
        let exists = call.request.method() == "PUT" && !once.swap(true, Ordering::SeqCst);
        if exists {
            Action::Answer(412, "<Error><Code>PreconditionFailed</Code></Error>".to_owned())
        } else {
            Action::Pass
        }
    });
    worker::handle(&apps.worker, ticket(job, 1)).await.expect("the worker answers");
    let done = pipeline.job(job).await;
    assert_eq!(done.status, Status::Succeeded);
    let picture = pipeline.http.get(done.image.expect("a picture").url).send().await.expect("S3 answers");
    assert_eq!(picture.status().as_u16(), 200, "the record speaks of a picture that is not there");
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_put_that_arrives_after_the_cancellation_leaves_nothing_behind() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    let running = async |apps: &Apps| worker::handle(&apps.worker, ticket(job, 1)).await.expect("the worker answers");
    let claimed = std::cell::RefCell::new(None);
    let answer = meanwhile(
        &pipeline,
        |call| is_write_of_job(call) && call.text().contains("succeeded"),
        running,
        async || {
            claimed.replace(Some(pipeline.record(job).await));
            assert_eq!(act(&pipeline, job, "cancel").await, 200);
        },
    )
    .await;
    assert_eq!(answer.batch_item_failures.len(), 1, "the ticket comes back when the lease has ended");
    assert_eq!(pipeline.pictures().await, Vec::<String>::new());
    // The SDK had sent the request twice, because the first was not answered.
    let images = pipeline.stack.aws().images(pipeline.ready().bucket.clone());
    let picture = claimed.take().expect("it was read");
    images.put(&picture, Variant::Image, &some_picture()).await.expect("the bucket answers");
    pipeline.clock.advance(LEASE);
    assert!(pipeline.work(job, 2).await);
    assert_eq!(pipeline.pictures().await, Vec::<String>::new(), "nothing is left behind");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_late_deletion_spares_the_picture_of_a_retry() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await.id;
    // The worker is held when it records its picture, and again when it deletes that of a canceled job.
    let (slow, apps) = pipeline.intercept(|call| {
        let records = is_write_of_job(call) && call.text().contains("succeeded");
        if records || call.request.method() == "DELETE" { Action::Hold } else { Action::Pass }
    });
    let late = tokio::spawn(async move { worker::handle(&apps.worker, ticket(job, 1)).await.map(drop) });
    slow.held().await;
    assert_eq!(act(&pipeline, job, "cancel").await, 200);
    slow.resume();
    slow.held().await;
    assert_eq!(act(&pipeline, job, "retry").await, 202);
    pipeline.work(job, 1).await;
    slow.resume();
    late.await.expect("it ends").expect("it answers");
    let done = pipeline.job(job).await;
    assert_eq!(done.status, Status::Succeeded);
    let picture = pipeline.http.get(done.image.expect("a picture").url).send().await.expect("S3 answers");
    assert_eq!(picture.status().as_u16(), 200, "the picture of the retry is there");
    pipeline.stop().await;
}

#[tokio::test]
async fn of_two_requests_that_would_complete_a_batch_one_does() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "A heist on the moon" }] });
    let submission = || post("/batches", None, Some("friday"), &order);
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, 0, Disturbance::CrashAfter);
    let doomed = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    assert!(wire.run(submit::handle(&doomed.submit, submission())).await.is_none(), "the submission dies");
    pipeline.clock.advance(Duration::from_secs(60));

    // Both have read that nobody has the batch's lease. The first takes the batch over and is held at its tickets.
    let (first, first_apps) = pipeline.intercept(|call| match call.operation {
        "SendMessageBatch" => Action::Hold,
        _ => Action::Pass,
    });
    let (taken, sent) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let sends = sent.clone();
    let (second, second_apps) = pipeline.intercept(move |call| {
        sends.fetch_add(usize::from(call.operation == "SendMessageBatch"), Ordering::SeqCst);
        let takes_over = call.operation == "UpdateItem" && !taken.swap(true, Ordering::SeqCst);
        if takes_over { Action::Hold } else { Action::Pass }
    });
    let in_turn = async {
        second.held().await;
        let finish = submit::handle(&first_apps.submit, submission());
        let let_go = async {
            first.held().await;
            second.resume();
            // This gives the second one enough time to break the rule.
            tokio::time::sleep(Duration::from_millis(500)).await;
            first.resume();
        };
        tokio::join!(finish, let_go).0
    };
    let both = async { tokio::join!(submit::handle(&second_apps.submit, submission()), in_turn) };
    let (second, first) = tokio::time::timeout(PATIENCE, both).await.expect("neither waits for ever");
    for submitted in [first, second] {
        assert_eq!(answer(submitted.expect("the function answers")).0, 202);
    }
    assert_eq!(sent.load(Ordering::SeqCst), 0, "the second one took the batch from the first");
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 1);
    pipeline.stack.stop().await;
}
