//! Records whose retention has ended, which DynamoDB may delete days later, and jobs and batches that reuse their ids.

use std::time::Duration;

use local::EVERYONE;
use serde_json::{Value, json};
use shared::api::JobsView;
use shared::job::{ErrorCode, Status, Terms};
use shared::order::{Model, Order};
use shared::{Job, JobId, Owner};
use tests::events::{answer, post};
use tests::pipeline::Pipeline;
use tests::wire::{Disturbance, Wire};

const DAY: Duration = Duration::from_secs(86_400);

/// Longer than the template's default retention.
const RETENTION: Duration = Duration::from_secs(31 * 86_400);

#[tokio::test]
async fn a_record_gives_way_to_a_new_job_as_soon_as_it_is_no_longer_shown_and_no_sooner() {
    let pipeline = Pipeline::without_event_sources().await;
    let (table, owner) = (pipeline.table(), Owner::new(EVERYONE));
    let order = Order::parse(json!({ "prompt": "A heist on the moon" }), "", Model::Core).expect("a good order");
    let job = |id, now| Job::new(id, owner.clone(), order.clone(), now, Terms { deadline: DAY, retention: DAY });
    let old = job(JobId::new(), pipeline.clock.now());
    assert!(matches!(table.create(&old).await, Ok(None)));
    let (end, millisecond) = (old.expires_at, Duration::from_millis(1));
    for (now, is_over) in [(end - Duration::from_secs(1), false), (end - millisecond, false), (end, true)] {
        let shown = table.get_owned(old.id, &owner, now).await.expect("the table answers");
        assert_eq!(shown.is_none(), is_over, "{now}");
        let created = table.create(&job(old.id, now)).await.expect("the table answers");
        assert_eq!(created.is_none(), is_over, "{now}");
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn what_has_expired_is_neither_shown_nor_listed_nor_changed() {
    let pipeline = Pipeline::without_event_sources().await;
    let done = pipeline.submit("A heist on the moon").await.id;
    assert!(pipeline.work(done, 1).await);
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "nsfw" }] })).await;
    let failed = batch.jobs.expect("names")[0].id;
    assert!(pipeline.work(failed, 1).await);
    let waiting = pipeline.submit("A heist on Mars").await.id;
    let listed = async || pipeline.get("/jobs").await.json::<JobsView>().await.expect("a page").jobs;
    assert_eq!(listed().await.len(), 2);
    let mut records = Vec::new();
    for id in [done, failed, waiting] {
        records.push(pipeline.record(id).await);
    }

    pipeline.clock.advance(RETENTION);
    assert!(listed().await.is_empty());
    for record in records {
        let id = record.id;
        for path in [format!("/jobs/{id}"), format!("/jobs/{id}/image")] {
            assert_eq!(pipeline.get(&path).await.status().as_u16(), 404, "{path}");
        }
        for action in ["cancel", "retry"] {
            let answer = pipeline.post(&format!("/jobs/{id}/{action}"), &Value::Null).await;
            assert_eq!(answer.status().as_u16(), 404, "{action}");
        }
        assert!(pipeline.work(id, 2).await, "there is nothing left to do for its ticket");
        assert_eq!(pipeline.record(id).await, record);
    }
    let id = batch.id;
    for path in [format!("/batches/{id}"), format!("/batches/{id}/jobs")] {
        assert_eq!(pipeline.get(&path).await.status().as_u16(), 404, "{path}");
    }
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 2, "nothing was painted after its retention");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_retry_has_a_deadline_and_a_retention_of_its_own() {
    let pipeline = Pipeline::without_event_sources().await;
    pipeline.model("throttle=1");
    let job = pipeline.submit("A heist on the moon").await.id;
    assert!(!pipeline.work(job, 1).await);
    pipeline.model("");
    pipeline.clock.advance(20 * DAY);
    assert_eq!(pipeline.job(job).await.error.expect("it failed").code, ErrorCode::DeadlineExceeded);
    assert_eq!(pipeline.post(&format!("/jobs/{job}/retry"), &Value::Null).await.status().as_u16(), 202);
    let queued = pipeline.job(job).await;
    assert_eq!((queued.status, queued.last_error), (Status::Queued, None));
    pipeline.work(job, 1).await;
    assert_eq!(pipeline.job(job).await.status, Status::Succeeded);
    pipeline.clock.advance(20 * DAY);
    assert_eq!(pipeline.job(job).await.status, Status::Succeeded, "it is kept for 30 days from its retry on");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_former_life_of_a_batch_is_not_mistaken_for_the_present_one() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({ "jobs": [{ "prompt": "A heist on the moon" }] });
    let submission = || post("/batches", None, Some("friday"), &order);
    let submitted = async || {
        let submitted = submit::handle(&pipeline.stack.apps().submit, submission()).await;
        answer(submitted.expect("the function answers"))
    };
    let (code, batch) = submitted().await;
    assert_eq!(code, 202);
    let job: JobId = batch["jobs"][0]["id"].as_str().expect("a name").parse().expect("a job's name");
    assert!(pipeline.work(job, 1).await);
    let queued_at = pipeline.record(job).await.queued_at;
    pipeline.clock.advance(RETENTION);

    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, 1, Disturbance::CrashBefore);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    assert!(wire.run(submit::handle(&apps.submit, submission())).await.is_none(), "it dies before a job is written");
    pipeline.clock.advance(Duration::from_secs(60));
    assert_eq!(submitted().await.0, 202);
    let record = pipeline.record(job).await;
    assert_eq!(record.status(), Status::Queued);
    assert!(record.queued_at > queued_at && record.expires_at > pipeline.clock.now());
    pipeline.stack.stop().await;
}
