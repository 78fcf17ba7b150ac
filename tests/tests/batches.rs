//! Many jobs submitted together.

use aws_sdk_dynamodb::types::AttributeValue;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::BatchId;
use shared::api::{BatchView, BatchesView, JobsView};
use shared::batch::BatchStatus;
use shared::job::Status;
use tests::events::post;
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};

use crate::batch_function::step;

fn batch(count: usize) -> Value {
    let job = |i| json!({ "prompt": format!("The heist, part {i}"), "custom_id": format!("line-{i}") });
    json!({ "name": "Friday", "defaults": { "aspect_ratio": "1:1" }, "jobs": (0..count).map(job).collect::<Vec<_>>() })
}

async fn view(pipeline: &Pipeline, id: BatchId) -> BatchView {
    pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch")
}

/// Cancels or retries a batch, has the function `batch` do so, and looks at the batch.
async fn steered(pipeline: &Pipeline, id: BatchId, action: &str) -> BatchView {
    let response = pipeline.post(&format!("/batches/{id}/{action}"), &json!(null)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    step(pipeline, id).await;
    view(pipeline, id).await
}

#[tokio::test]
async fn a_batch_is_painted_and_counted() {
    let pipeline = Pipeline::start().await;
    let submitted = pipeline.submit_batch(&batch(12)).await;
    assert_eq!((submitted.status, submitted.counts.total), (BatchStatus::InProgress, 12));
    let jobs = submitted.jobs.expect("the names of its jobs");
    assert_eq!(jobs.iter().map(|job| job.index).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    let ended = pipeline.batch_when(submitted.id, |batch| batch.status != BatchStatus::InProgress).await;
    assert_eq!((ended.status, ended.counts.succeeded), (BatchStatus::Completed, 12));
    for job in jobs {
        let ended = pipeline.job(job.id).await;
        assert_eq!(
            (ended.status, ended.batch_id, &ended.custom_id),
            (Status::Succeeded, Some(submitted.id), &job.custom_id)
        );
        assert_eq!(ended.aspect_ratio.as_str(), "1:1");
    }
    let mut listed = 0;
    let mut path = format!("/batches/{}/jobs?limit=5", submitted.id);
    loop {
        let page: JobsView = pipeline.get(&path).await.json().await.expect("a page");
        listed += page.jobs.len();
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/batches/{}/jobs?limit=5&cursor={cursor}", submitted.id);
    }
    assert_eq!(listed, 12);
    assert_eq!(pipeline.stack.bedrock().stats().images, 12);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_with_one_fault_is_refused_as_a_whole() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut faulty = batch(30);
    faulty["jobs"][7]["prompt"] = json!("");
    faulty["jobs"][9]["custom_id"] = json!("line-1");
    let response = pipeline.post("/batches", &faulty).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["errors"][0]["pointer"], "/jobs/7/prompt");
    assert_eq!(problem["errors"][1]["pointer"], "/jobs/9/custom_id");
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0);
    pipeline.stop().await;
}

#[tokio::test]
async fn one_request_submits_a_batch_of_a_thousand() {
    let pipeline = Pipeline::without_event_sources().await;
    let submitted = pipeline.submit_batch(&batch(1000)).await;
    assert_eq!(submitted.jobs.map(|jobs| jobs.len()), Some(1000));
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 1000);
    let canceled = steered(&pipeline, submitted.id, "cancel").await;
    assert_eq!((canceled.status, canceled.counts.canceled), (BatchStatus::Canceled, 1000));
    pipeline.stop().await;
}

#[tokio::test]
async fn only_failed_jobs_are_retried_and_only_waiting_ones_are_canceled() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut mixed = batch(4);
    mixed["jobs"][0]["prompt"] = json!("nsfw");
    let submitted = pipeline.submit_batch(&mixed).await;
    let ids: Vec<_> = submitted.jobs.expect("names").into_iter().map(|job| job.id).collect();
    for id in &ids[..2] {
        worker::handle(&pipeline.stack.apps().worker, ticket(*id, 1)).await.expect("the worker answers");
    }
    let view = steered(&pipeline, submitted.id, "cancel").await;
    assert_eq!(view.status, BatchStatus::CompletedWithErrors);
    assert_eq!((view.counts.failed, view.counts.succeeded, view.counts.canceled), (1, 1, 2));

    let view = steered(&pipeline, submitted.id, "retry").await;
    assert_eq!((view.counts.queued, view.counts.failed, view.counts.canceled), (1, 0, 2));
    assert_eq!(pipeline.job(ids[0]).await.status, Status::Queued);
    worker::handle(&pipeline.stack.apps().worker, ticket(ids[0], 1)).await.expect("the worker answers");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_retry_of_a_batch_sends_the_tickets_of_its_failed_jobs() {
    let pipeline = Pipeline::without_event_sources().await;
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "nsfw" }, { "prompt": "A heist" }] })).await;
    for job in batch.jobs.expect("names") {
        assert!(pipeline.work(job.id, 1).await);
    }
    let before = pipeline.messages(&pipeline.ready().queue_url).await;
    steered(&pipeline, batch.id, "retry").await;
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, before + 1);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn jobs_past_their_deadline_do_not_keep_their_batch_open() {
    let pipeline = Pipeline::without_event_sources().await;
    let submitted = pipeline.submit_batch(&batch(2)).await;
    let started = submitted.jobs.expect("names")[0].id;
    pipeline.claim(started, std::time::Duration::from_secs(90)).await;
    pipeline.clock.advance(std::time::Duration::from_secs(2 * 86_400));
    assert!(step(&pipeline, submitted.id).await, "nothing is left to wait for");
    let view = view(&pipeline, submitted.id).await;
    assert_eq!((view.status, view.counts.failed), (BatchStatus::CompletedWithErrors, 2));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_whose_record_is_gone_does_not_keep_its_batch_open() {
    let pipeline = Pipeline::without_event_sources().await;
    let submitted = pipeline.submit_batch(&batch(2)).await;
    let ids: Vec<_> = submitted.jobs.expect("names").into_iter().map(|job| job.id).collect();
    assert!(pipeline.work(ids[0], 1).await);
    let gone = AttributeValue::S(format!("JOB#{}", ids[1]));
    let delete = pipeline.dynamodb().delete_item().table_name(&pipeline.ready().table).key("pk", gone);
    delete.send().await.expect("the table answers");
    assert!(!step(&pipeline, submitted.id).await, "it may still be on its way to the index");
    pipeline.clock.advance(std::time::Duration::from_secs(2 * 86_400));
    assert!(step(&pipeline, submitted.id).await);
    let view = view(&pipeline, submitted.id).await;
    assert_eq!((view.status, view.counts.succeeded, view.counts.failed), (BatchStatus::CompletedWithErrors, 1, 1));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_of_an_older_version_gets_the_ticket_that_it_never_had() {
    let pipeline = Pipeline::without_event_sources().await;
    let submitted = pipeline.submit_batch(&batch(2)).await;
    for job in submitted.jobs.expect("names") {
        assert!(pipeline.work(job.id, 1).await);
    }
    let queue = &pipeline.ready().batch_queue_url;
    pipeline.sqs().purge_queue().queue_url(queue).send().await.expect("the queue answers");
    let key = AttributeValue::S(format!("BATCH#{}", submitted.id));
    let older = pipeline.dynamodb().update_item().table_name(&pipeline.ready().table).key("pk", key);
    older
        .update_expression("REMOVE #file")
        .expression_attribute_names("#file", "file")
        .send()
        .await
        .expect("it answers");

    assert_eq!(view(&pipeline, submitted.id).await.counts.succeeded, 2);
    assert_eq!(pipeline.messages(queue).await, 1);
    assert!(step(&pipeline, submitted.id).await);
    assert_eq!(view(&pipeline, submitted.id).await.status, BatchStatus::Completed);
    assert_eq!(pipeline.messages(queue).await, 1, "one that has ended gets no other");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_results_of_a_batch_in_a_request_have_a_line_for_each_job_in_its_order() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut mixed = batch(3);
    mixed["jobs"][1]["prompt"] = json!("nsfw");
    mixed["jobs"][2].as_object_mut().expect("a job").remove("custom_id");
    let submitted = pipeline.submit_batch(&mixed).await;
    for job in submitted.jobs.as_ref().expect("names") {
        assert!(pipeline.work(job.id, 1).await);
    }
    assert!(step(&pipeline, submitted.id).await);
    let ended = view(&pipeline, submitted.id).await;
    assert!(ended.progress.is_none() && ended.faults.is_none() && ended.links.faults.is_none());
    let results = pipeline.http.get(ended.links.results.expect("a link")).send().await.expect("it redirects");
    let lines = results.text().await.expect("text");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let told = |line: &Value| ["index", "custom_id", "job_id", "status"].map(|name| line[name].clone());
    let ids: Vec<_> = submitted.jobs.expect("names").iter().map(|job| json!(job.id)).collect();
    let expected = [("line-0", "succeeded"), ("line-1", "failed"), ("", "succeeded")].into_iter().enumerate();
    for (index, (custom_id, status)) in expected {
        let custom_id = if custom_id.is_empty() { Value::Null } else { json!(custom_id) };
        assert_eq!(told(&lines[index]), [json!(index), custom_id, ids[index].clone(), json!(status)]);
        assert!(lines[index].get("line").is_none());
    }
    assert_eq!((lines.len(), lines[1]["error"]["code"].as_str()), (3, Some("content_filtered")));
    pipeline.stop().await;
}

#[tokio::test]
async fn identical_simultaneous_requests_make_one_batch() {
    let pipeline = Pipeline::start().await;
    let post = || {
        let post = pipeline.http.post(format!("{}/batches", pipeline.ready().api)).header("Idempotency-Key", "friday");
        post.json(&batch(40)).send()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| post())).await;
    let mut ids = Vec::new();
    for answer in answers {
        let answer = answer.expect("the API answers");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        ids.push(answer.json::<BatchView>().await.expect("a batch").id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    pipeline.batch_when(ids[0], |batch| batch.status == BatchStatus::Completed).await;
    assert_eq!(pipeline.stack.bedrock().stats().images, 40);

    let other = pipeline.http.post(format!("{}/batches", pipeline.ready().api)).header("Idempotency-Key", "friday");
    let other = other.json(&batch(41)).send().await.expect("the API answers");
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_request_that_is_refused_for_an_old_job_leaves_no_batch_and_its_key_to_the_old_request() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = async |body: Value| {
        let post = pipeline.http.post(format!("{}/batches", pipeline.ready().api)).header("Idempotency-Key", "friday");
        post.json(&body).send().await.expect("the API answers")
    };
    let first: BatchView = post(batch(2)).await.json().await.expect("a batch");
    // The jobs were retried, so that they outlive their batch.
    let key = AttributeValue::S(format!("BATCH#{}", first.id));
    let delete = pipeline.dynamodb().delete_item().table_name(&pipeline.ready().table).key("pk", key);
    delete.send().await.expect("the table answers");

    let mut other = batch(3);
    other["jobs"][0]["prompt"] = json!("Another heist");
    assert_eq!(post(other).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let listed: BatchesView = pipeline.get("/batches").await.json().await.expect("a list");
    assert!(listed.batches.is_empty(), "{listed:?}");
    let again = post(batch(2)).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(again.json::<BatchView>().await.expect("a batch").id, first.id);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_same_request_completes_a_batch_whose_submission_died() {
    let pipeline = Pipeline::without_event_sources().await;
    let submit = |app: std::sync::Arc<submit::App>| async move {
        submit::handle(&app, post("/batches", None, Some("friday"), &batch(60))).await
    };
    // The batch's record, three jobs, six sends of tickets and the batch's record again: the submission dies in each.
    for call in [1, 3, 5, 9, 10] {
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::CrashAfter);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(submit(apps.submit)).await.is_none(), "the submission dies in call {call}");
        pipeline.clock.advance(std::time::Duration::from_secs(60));
        let answer = submit(pipeline.stack.apps().submit.clone()).await.expect("the function answers");
        assert_eq!(answer.status_code, 202);
        let batches: BatchesView = pipeline.get("/batches").await.json().await.expect("a page");
        let [batch] = &batches.batches[..] else { panic!("one batch, not {}", batches.batches.len()) };
        let id = batch.id;
        let listed: JobsView =
            pipeline.get(&format!("/batches/{id}/jobs?limit=100")).await.json().await.expect("a page");
        assert_eq!(listed.jobs.len(), 60, "call {call}");
        assert!(listed.jobs.iter().all(|job| job.status == Status::Queued));
        let waiting = pipeline.messages(&pipeline.ready().queue_url).await;
        assert!(waiting >= 60, "every job has its ticket: {waiting}");
        pipeline.sqs().purge_queue().queue_url(&pipeline.ready().queue_url).send().await.ok();
        assert_eq!(steered(&pipeline, id, "cancel").await.counts.canceled, 60, "call {call}");
        // The key belongs to this batch, so the next round needs an empty table.
        pipeline.clock.advance(std::time::Duration::from_secs(31 * 86_400));
    }
    pipeline.stop().await;
}
