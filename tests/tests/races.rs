//! Requests and writes that arrive late, reads that lag behind, and services that answer some calls and not others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use local::{EVERYONE, Options};
use serde_json::{Value, json};
use shared::api::{BatchView, JobView, JobsView};
use shared::batch::BatchStatus;
use shared::job::Status;
use shared::{BatchId, Clock, JobId, Owner, Timestamp};
use tests::events::{answer, get, post};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};

use crate::batch_function::step;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Longer than the lease of a worker.
const LEASE: Duration = Duration::from_secs(96);

/// Longer than the lease of a batch's writer.
const WRITING: Duration = Duration::from_secs(46);

const DENIED: &str = "<Error><Code>AccessDenied</Code></Error>";

/// Delivers a job's ticket to the worker. Returns whether the ticket is deleted.
async fn work(pipeline: &Pipeline, job: JobId, receives: u32) -> bool {
    let answer = worker::handle(&pipeline.stack.apps().worker, ticket(job, receives)).await;
    answer.expect("the worker answers").batch_item_failures.is_empty()
}

/// A worker claims the job and dies before its call with this number.
async fn dying_worker(pipeline: &Pipeline, job: JobId, call: usize) {
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, call, Disturbance::CrashBefore);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("good settings");
    assert!(wire.run(worker::handle(&apps.worker, ticket(job, 1))).await.is_none(), "the worker dies");
}

fn writes_job(call: &Call<'_>) -> bool {
    let item = call.json()["Item"]["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with("JOB#"));
    call.operation == "PutItem" && item
}

async fn submit(app: &submit::App, key: &str, batch: &Value) -> (i64, Value) {
    answer(submit::handle(app, post("/batches", None, Some(key), batch)).await.expect("an answer"))
}

async fn retry(pipeline: &Pipeline, path: &str, id: String, key: Option<&str>) -> (i64, Value) {
    let event = post(path, Some(id), key, &Value::Null);
    answer(submit::handle(&pipeline.stack.apps().submit, event).await.expect("an answer"))
}

#[tokio::test]
async fn twin_requests_in_one_millisecond_paint_a_job_once() {
    let clock = Clock::still(Timestamp::from_ms(1_795_500_000_000));
    let pipeline = Pipeline::with(Options { event_sources: false, clock, ..Options::default() }).await;
    let order = json!({ "jobs": [{ "prompt": "one" }] });
    let (late, slow) = pipeline.intercept(|call| if writes_job(call) { Action::Hold } else { Action::Pass });
    let first = submit(&slow.submit, "k", &order);
    let quick = pipeline.stack.apps().submit.clone();
    let second = async {
        late.held().await;
        let twin = submit(&quick, "k", &order);
        tokio::pin!(twin);
        let early = tokio::time::timeout(Duration::from_secs(1), &mut twin).await;
        assert!(early.is_err(), "the second request waits while the first may be alive: {early:?}");
        pipeline.clock.advance(WRITING);
        assert_eq!(twin.await.0, 202);
        let id = JobId::in_batch(BatchId::from_key(&Owner::new(EVERYONE), &"k".parse().expect("a key")), 0);
        assert!(work(&pipeline, id, 1).await);
        assert_eq!(pipeline.job(id).await.status, Status::Succeeded);
        late.resume();
        id
    };
    let ((code, _), id) = tokio::join!(first, second);
    assert_eq!(code, 202);
    assert_eq!(pipeline.job(id).await.status, Status::Succeeded, "the late write changed nothing");
    work(&pipeline, id, 1).await;
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_reused_key_overwrites_no_job_that_is_kept() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "one" }, { "prompt": "two" }] });
    let app = pipeline.stack.apps().submit.clone();
    let ids = |batch: &Value| [0, 1].map(|index| batch["jobs"][index]["id"].as_str().expect("an id").to_owned());
    let mut batches = Vec::new();
    for key in ["k", "l"] {
        let (code, batch) = submit(&app, key, &order).await;
        assert_eq!(code, 202);
        batches.push(batch);
    }
    let [kept, expired] = ids(&batches[0]);
    let other_kept = &ids(&batches[1])[0];
    for id in [&kept, other_kept] {
        pipeline.post(&format!("/jobs/{id}/cancel"), &Value::Null).await;
    }
    pipeline.clock.advance(20 * DAY);
    for id in [&kept, other_kept] {
        assert_eq!(retry(&pipeline, "/jobs/{id}/retry", id.clone(), None).await.0, 202);
        assert!(work(&pipeline, id.parse().expect("an id"), 1).await);
    }
    // The records of the batches have expired; those of the jobs that were retried have not.
    pipeline.clock.advance(11 * DAY);
    let stands = async |id: &str| {
        let job: Value = pipeline.get(&format!("/jobs/{id}")).await.json().await.expect("a job");
        ["status", "prompt", "created_at", "finished_at", "expires_at"].map(|name| job[name].clone())
    };
    let before = [stands(&kept).await, stands(other_kept).await];
    assert_eq!([&before[0][0], &before[1][0]], ["succeeded", "succeeded"]);

    // The same request gets the job that is kept, and a new job in place of the other.
    let (code, again) = submit(&app, "k", &order).await;
    assert_eq!((code, &again["id"], &again["jobs"]), (202, &batches[0]["id"], &batches[0]["jobs"]));
    let shown: BatchView = pipeline
        .get(&format!("/batches/{}", again["id"].as_str().expect("an id")))
        .await
        .json()
        .await
        .expect("a batch");
    assert_eq!((shown.counts.succeeded, shown.counts.queued), (1, 1));
    assert!(work(&pipeline, expired.parse().expect("an id"), 1).await);
    assert_eq!(pipeline.stack.bedrock().stats().images, 3);

    // A different request is refused, and nothing is painted for it.
    let other = json!({ "jobs": [{ "prompt": "three" }, { "prompt": "four" }] });
    for _ in 0..2 {
        let (code, problem) = submit(&app, "l", &other).await;
        assert_eq!((code, problem["code"].as_str()), (422, Some("idempotency_key_reused")));
        pipeline.clock.advance(WRITING);
    }
    let id = BatchId::from_key(&Owner::new(EVERYONE), &"l".parse().expect("a key"));
    assert_eq!(pipeline.get(&format!("/batches/{id}")).await.status(), 404, "it leaves no batch");
    assert_eq!(stands(&ids(&batches[1])[1]).await[0], "canceled");
    assert_eq!([stands(&kept).await, stands(other_kept).await], before);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_list_of_one_status_holds_only_jobs_of_that_status() {
    let pipeline = Pipeline::without_event_sources().await;
    let first = pipeline.submit("one").await.id;
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "two" }] })).await;
    let second = batch.jobs.expect("names")[0].id;
    // Both are past their deadline, and only a read of them ends them.
    pipeline.clock.advance(2 * DAY);
    let lists = ["/jobs".to_owned(), format!("/batches/{}/jobs", batch.id)];
    for (list, ids) in lists.iter().zip([[first], [second]]) {
        for (status, shown) in [(Status::Queued, &[][..]), (Status::Failed, &ids)] {
            let page: JobsView = pipeline.get(&format!("{list}?status={status}")).await.json().await.expect("a page");
            assert!(page.jobs.iter().all(|job| job.status == status), "{list} of {status}: {:?}", page.jobs);
            let found: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
            assert_eq!(found, shown, "{list} of {status}");
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_list_of_failed_jobs_holds_those_that_it_has_just_ended() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("one").await.id;
    pipeline.clock.advance(2 * DAY);
    let page: JobsView = pipeline.get("/jobs?status=failed").await.json().await.expect("a page");
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [job]);
    pipeline.stop().await;
}

#[tokio::test]
async fn without_the_bucket_jobs_are_shown_and_end() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("one").await;
    dying_worker(&pipeline, job.id, 2).await;
    let (_, denied) = pipeline.intercept(|call| {
        let to_bucket = call.request.uri().contains("/images/");
        if to_bucket { Action::Answer(403, DENIED.to_owned()) } else { Action::Pass }
    });
    let look = async |app: &status::App| {
        let look = get("/jobs/{id}", Some(job.id.to_string()));
        let (code, view) = answer(status::handle(app, look).await.expect("an answer"));
        let (list, page) = answer(status::handle(app, get("/jobs", None)).await.expect("an answer"));
        assert_eq!((code, list), (200, 200));
        assert_eq!(page["jobs"][0]["status"], view["status"]);
        view["status"].as_str().map(str::to_owned)
    };
    // A picture that was paid for may be there, so the job waits some hours for the bucket, and so does its ticket.
    pipeline.clock.advance(25 * HOUR);
    assert_eq!(look(&denied.status).await.as_deref(), Some("running"));
    let dead = dead_letter::handle(&denied.dead_letter, ticket(job.id, 1)).await.expect("an answer");
    assert_eq!(dead.batch_item_failures.len(), 1, "the dead letter comes back");
    pipeline.clock.advance(35 * HOUR);
    assert_eq!(look(&denied.status).await.as_deref(), Some("failed"));
    let dead = dead_letter::handle(&denied.dead_letter, ticket(job.id, 2)).await.expect("an answer");
    assert_eq!(dead.batch_item_failures.len(), 1, "it deletes what a worker may have left, once the bucket answers");
    let dead = dead_letter::handle(&pipeline.stack.apps().dead_letter, ticket(job.id, 3)).await.expect("an answer");
    assert!(dead.batch_item_failures.is_empty());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_is_adopted_once_the_bucket_answers_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("one").await;
    dying_worker(&pipeline, job.id, 4).await;
    let (_, denied) = pipeline.intercept(|call| {
        let to_bucket = call.request.uri().contains("/images/");
        if to_bucket { Action::Answer(503, String::new()) } else { Action::Pass }
    });
    pipeline.clock.advance(25 * HOUR);
    let look = || get("/jobs/{id}", Some(job.id.to_string()));
    let (code, view) = answer(status::handle(&denied.status, look()).await.expect("an answer"));
    assert_eq!((code, view["status"].as_str()), (200, Some("running")));
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_leaves_no_picture_of_an_earlier_life() {
    let pipeline = Pipeline::without_event_sources().await;
    // The second worker dies as the first did, so that two lives have left a picture.
    for lives in [1, 2] {
        let job = pipeline.submit("one").await;
        for _ in 0..lives {
            dying_worker(&pipeline, job.id, 4).await;
            for action in ["cancel", "retry"] {
                let answer = pipeline.post(&format!("/jobs/{}/{action}", job.id), &Value::Null).await;
                assert!(answer.status().is_success());
            }
        }
        pipeline.clock.advance(LEASE);
        for receives in [2, 1, 1] {
            work(&pipeline, job.id, receives).await;
        }
        assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
        let pictures = pipeline.pictures().await;
        let left = pictures.iter().filter(|key| key.contains(&job.id.to_string())).count();
        assert_eq!(left, 2, "after {lives} canceled lives: {pictures:?}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn the_ticket_of_a_retried_job_waits_for_the_worker_of_an_earlier_life() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("one").await;
    // Before the worker stores its picture, the job is canceled, retried and painted by another worker.
    let (late, slow) =
        pipeline.intercept(|call| if call.request.method() == "PUT" { Action::Hold } else { Action::Pass });
    let old_life = worker::handle(&slow.worker, ticket(job.id, 1));
    let new_life = async {
        late.held().await;
        for action in ["cancel", "retry"] {
            let answer = pipeline.post(&format!("/jobs/{}/{action}", job.id), &Value::Null).await;
            assert!(answer.status().is_success());
        }
        assert!(!work(&pipeline, job.id, 1).await, "the ticket comes back to clean up");
        assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    };
    // The picture is stored, and its worker dies before it gets the answer.
    tokio::select! {
        _ = old_life => panic!("the worker is held"),
        () = new_life => {}
    }
    let key = format!("images/{}/1", job.id);
    let body = aws_sdk_s3::primitives::ByteStream::from_static(b"late");
    let put = pipeline.s3().put_object().bucket(&pipeline.ready().bucket).key(key).body(body);
    put.send().await.expect("the bucket answers");
    assert_eq!(pipeline.pictures().await.len(), 3);
    pipeline.clock.advance(LEASE);
    assert!(work(&pipeline, job.id, 2).await);
    assert_eq!(pipeline.pictures().await.len(), 2);
    let download = pipeline.get(&format!("/jobs/{}/image", job.id)).await;
    assert_eq!(download.status().as_u16(), 200, "the picture of the job as it stands is left");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_bucket_that_refuses_pictures_costs_one_painting() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, denied) = pipeline.intercept(|call| {
        if call.request.method() == "PUT" { Action::Answer(403, DENIED.to_owned()) } else { Action::Pass }
    });
    let job = pipeline.submit("one").await;
    for receives in 1..6 {
        worker::handle(&denied.worker, ticket(job.id, receives)).await.expect("an answer");
        pipeline.clock.advance(LEASE);
    }
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    assert_eq!(pipeline.job(job.id).await.status, Status::Running, "it waits for the bucket");
    // The process has seen the failure, and pays for no further picture either.
    let other = pipeline.submit("two").await;
    worker::handle(&denied.worker, ticket(other.id, 1)).await.expect("an answer");
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    assert!(work(&pipeline, other.id, 2).await);
    assert!(work(&pipeline, job.id, 6).await);
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    assert_eq!(pipeline.stack.bedrock().stats().images, 3);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_was_seen_to_end_is_not_seen_unfinished() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, behind) = pipeline.intercept(|call| {
        let body = call.json();
        let table = &body["RequestItems"].as_object().and_then(|tables| tables.values().next().cloned());
        let consistent = match call.operation {
            "GetItem" => &body["ConsistentRead"],
            "BatchGetItem" => &table.as_ref().expect("a table")["ConsistentRead"],
            _ => return Action::Pass,
        };
        if *consistent == json!(true) { Action::Pass } else { Action::Stale }
    });
    let job = pipeline.submit("one").await;
    let look = async |path: &str| {
        let id = path.contains("{id}").then(|| job.id.to_string());
        answer(status::handle(&behind.status, get(path, id)).await.expect("an answer"))
    };
    look("/jobs/{id}").await;
    look("/jobs").await;
    work(&pipeline, job.id, 1).await;
    let seen: JobView = pipeline.get(&format!("/jobs/{}", job.id)).await.json().await.expect("a job");
    assert_eq!(seen.status, Status::Succeeded);
    assert_eq!(look("/jobs/{id}").await.1["status"], "succeeded");
    assert_eq!(look("/jobs/{id}/image").await.0, 302);
    assert_eq!(look("/jobs").await.1["jobs"][0]["status"], "succeeded");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_that_arrives_again_retries_nothing() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "nsfw" }] })).await;
    let job = batch.jobs.expect("names")[0].id;
    work(&pipeline, job, 1).await;
    let retry_job = async |key| retry(&pipeline, "/jobs/{id}/retry", job.to_string(), key).await;
    let retry_batch = async |key| {
        let (code, _) = retry(&pipeline, "/batches/{id}/retry", batch.id.to_string(), key).await;
        assert_eq!(code, 202);
        step(&pipeline, batch.id).await;
    };
    let status = async || pipeline.job(job).await.status;
    // The keys come in any order, with retries without a key and of the whole batch between them.
    for key in ["a", "b"] {
        assert_eq!(retry_job(Some(key)).await.1["status"], "queued");
        work(&pipeline, job, 1).await;
    }
    assert_eq!(retry_job(None).await.1["status"], "queued");
    // A retry that found the job queued was accepted as well.
    assert_eq!(retry_job(Some("c")).await.1["status"], "queued");
    work(&pipeline, job, 1).await;
    retry_batch(Some("d")).await;
    assert_eq!(status().await, Status::Queued);
    work(&pipeline, job, 1).await;
    let calls = pipeline.stack.bedrock().stats().filtered;
    for key in ["a", "b", "c", "a"] {
        let (code, view) = retry_job(Some(key)).await;
        assert_eq!((code, view["status"].as_str()), (202, Some("failed")), "the key {key}");
    }
    retry_batch(Some("d")).await;
    assert_eq!(status().await, Status::Failed);
    assert_eq!(pipeline.stack.bedrock().stats().filtered, calls);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_retry_that_ended_before_its_ticket_was_sent_sends_it_when_it_is_repeated() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, no_queue) = pipeline
        .intercept(|call| if call.operation.starts_with("SendMessage") { Action::Refuse } else { Action::Pass });
    let (_, no_model) = pipeline.intercept(|call| {
        if call.is_to_model() { Action::Answer(503, r#"{"message":"busy"}"#.to_owned()) } else { Action::Pass }
    });
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "nsfw" }] })).await;
    let job = batch.jobs.expect("names")[0].id;
    work(&pipeline, job, 1).await;
    let of_job = ("/jobs/{id}/retry", job.to_string());
    for ((path, id), key, code) in [(&of_job, Some("a"), 202), (&of_job, None, 409)] {
        let event = || post(path, Some(id.clone()), key, &Value::Null);
        let first = answer(submit::handle(&no_queue.submit, event()).await.expect("an answer"));
        assert_eq!(first.0, 503, "{path}");
        // A worker claims the job because of a ticket from before the retry, and releases it.
        worker::handle(&no_model.worker, ticket(job, 1)).await.expect("an answer");
        assert_eq!(pipeline.job(job).await.status, Status::Running, "{path}");
        let before = pipeline.messages(&pipeline.ready().queue_url).await;
        let again = answer(submit::handle(&pipeline.stack.apps().submit, event()).await.expect("an answer"));
        assert_eq!(again.0, code, "{path}");
        assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, before + 1, "{path}");
        work(&pipeline, job, 2).await;
        assert_eq!(pipeline.job(job).await.status, Status::Failed, "{path}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn the_key_of_a_retry_from_before_there_were_several_still_counts() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("nsfw").await.id;
    work(&pipeline, job, 1).await;
    let retry_job =
        async |key| retry(&pipeline, "/jobs/{id}/retry", job.to_string(), Some(key)).await.1["status"].clone();
    assert_eq!(retry_job("a").await, "queued");
    work(&pipeline, job, 1).await;
    // Older versions stored this: the first half of the SHA-256 of "a".
    let digest = "ca978112ca1bbdcafac231b39a23dc4d".to_owned();
    let update = pipeline.dynamodb().update_item().table_name(&pipeline.ready().table);
    let update = update.key("pk", AttributeValue::S(format!("JOB#{job}")));
    let update = update.update_expression("SET retry_key = :key REMOVE retry_keys");
    update.expression_attribute_values(":key", AttributeValue::S(digest)).send().await.expect("the table answers");
    assert_eq!(retry_job("a").await, "failed");
    assert_eq!(retry_job("b").await, "queued");
    work(&pipeline, job, 1).await;
    for key in ["a", "b"] {
        assert_eq!(retry_job(key).await, "failed");
    }
    pipeline.stop().await;
}

/// Submits thirty jobs, and has their batch canceled while the first of those writes for which `held` holds has not
/// been made. Returns the batch.
async fn canceled_meanwhile(pipeline: &Pipeline, held: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static) -> BatchId {
    let calls = AtomicUsize::new(0);
    let (late, slow) = pipeline.intercept(move |call| {
        let first = held(call) && calls.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Action::Hold } else { Action::Pass }
    });
    let jobs: Vec<_> = (0..30).map(|i| json!({ "prompt": format!("scene {i}") })).collect();
    let order = json!({ "jobs": jobs });
    let id = BatchId::from_key(&Owner::new(EVERYONE), &"k".parse().expect("a key"));
    let cancel = async {
        late.held().await;
        // The writes in parallel with the one that is held must end first.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let answer = pipeline.post(&format!("/batches/{id}/cancel"), &Value::Null).await;
        assert_eq!(answer.status(), 202);
        assert!(!step(pipeline, id).await, "somebody still stores its jobs");
        late.resume();
    };
    let ((code, _), ()) = tokio::join!(submit(&slow.submit, "k", &order), cancel);
    assert_eq!(code, 202);
    id
}

#[tokio::test]
async fn what_is_written_after_its_batch_was_canceled_is_not_painted() {
    for operation in ["PutItem", "SendMessageBatch", "UpdateItem"] {
        let pipeline = Pipeline::without_event_sources().await;
        let seen = Arc::new(AtomicUsize::new(0));
        let written = seen.clone();
        let id = canceled_meanwhile(&pipeline, move |call| {
            let jobs = written.fetch_add(usize::from(writes_job(call)), Ordering::SeqCst);
            // The second write of a job, the first send of tickets, or the end of the submission.
            jobs > 0 && (call.operation == operation || (operation == "PutItem" && writes_job(call)))
        })
        .await;
        assert!(step(&pipeline, id).await, "held at {operation}");
        let queued = format!("/batches/{id}/jobs?status=queued&limit=100");
        let queued: JobsView = pipeline.get(&queued).await.json().await.expect("a page");
        assert_eq!(queued.jobs.len(), 0, "held at {operation}");
        let batch: BatchView = pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch");
        assert_eq!((batch.status, batch.counts.canceled), (BatchStatus::Canceled, 30), "held at {operation}");
        // Jobs that were stored after the cancellation have no ticket.
        let tickets = if operation == "PutItem" { 0 } else { 30 };
        assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, tickets, "held at {operation}");
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_canceled_batch_whose_submission_died_ends_without_the_jobs_that_were_not_stored() {
    let pipeline = Pipeline::without_event_sources().await;
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    // The record and some jobs are written; then the submission dies.
    let wire = Wire::new(http, 2, Disturbance::CrashAfter);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("good settings");
    let order = json!({ "jobs": vec![json!({ "prompt": "A heist" }); 40] });
    assert!(wire.run(submit(&apps.submit, "k", &order)).await.is_none());
    let queue = &pipeline.stack.deployment().functions["submit"].environment["BATCH_QUEUE_URL"];
    assert_eq!(pipeline.messages(queue).await, 1, "even if nobody repeats the request, the batch ends at its deadline");
    let id = BatchId::from_key(&Owner::new(EVERYONE), &"k".parse().expect("a key"));
    assert_eq!(pipeline.post(&format!("/batches/{id}/cancel"), &Value::Null).await.status(), 202);
    assert!(!step(&pipeline, id).await, "its writer may be alive");
    pipeline.clock.advance(WRITING);
    let (code, again) = submit(&pipeline.stack.apps().submit, "k", &order).await;
    assert_eq!((code, &again["status"]), (202, &json!("in_progress")), "the same request stores no more");
    assert!(step(&pipeline, id).await);
    let view: BatchView = pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch");
    assert_eq!((view.status, view.counts.canceled), (BatchStatus::Canceled, 40));
    let stored = format!("/batches/{id}/jobs?limit=100");
    let stored: JobsView = pipeline.get(&stored).await.json().await.expect("a page");
    assert!((1..40).contains(&stored.jobs.len()), "{} jobs", stored.jobs.len());
    assert!(stored.jobs.iter().all(|job| job.status == Status::Canceled));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_of_which_nothing_was_written_is_never_completed() {
    let pipeline = Pipeline::without_event_sources().await;
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    // The record is written; then the submission dies.
    let wire = Wire::new(http, 1, Disturbance::CrashBefore);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("good settings");
    let order = json!({ "jobs": [{ "prompt": "one" }, { "prompt": "two" }] });
    assert!(wire.run(submit(&apps.submit, "k", &order)).await.is_none());
    let id = BatchId::from_key(&Owner::new(EVERYONE), &"k".parse().expect("a key"));
    let view = async || {
        let view: BatchView = pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch");
        (view.status, view.counts.total, view.counts.queued + view.counts.failed)
    };
    // The same request could still finish it, until the deadline of its jobs.
    pipeline.clock.advance(WRITING);
    assert!(!step(&pipeline, id).await);
    assert_eq!(view().await, (BatchStatus::InProgress, 2, 2));
    pipeline.clock.advance(25 * HOUR);
    assert!(step(&pipeline, id).await);
    assert_eq!(view().await, (BatchStatus::CompletedWithErrors, 2, 2));
    pipeline.stop().await;
}
