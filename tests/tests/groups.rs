//! Batches that belong together under one name.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use local::EVERYONE;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::api::{BatchView, JobsView};
use shared::batch::BatchStatus;
use shared::group::Group;
use shared::job::Status;
use shared::{BatchId, Owner};
use tests::events::{answer, post};
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};

fn part(group: &str, number: usize, jobs: usize) -> Value {
    let job = |i| json!({ "prompt": format!("Part {number}, scene {i}"), "custom_id": format!("{number}-{i}") });
    json!({ "group": group, "jobs": (0..jobs).map(job).collect::<Vec<_>>() })
}

async fn view(pipeline: &Pipeline, id: BatchId) -> BatchView {
    pipeline.get(&format!("/batches/{id}")).await.json().await.expect("a batch")
}

async fn steer(pipeline: &Pipeline, path: &str) -> BatchView {
    let response = pipeline.post(path, &json!(null)).await;
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response.json().await.expect("a batch")
}

#[tokio::test]
async fn a_group_counts_and_lists_the_jobs_of_all_its_parts() {
    let pipeline = Pipeline::start().await;
    let mut ids = BTreeSet::new();
    let mut group = None;
    for (number, jobs) in [(0, 7), (1, 5), (2, 9)] {
        let submitted = pipeline.submit_batch(&part("friday", number, jobs)).await;
        let id = submitted.group_id.expect("a group");
        assert_eq!(*group.get_or_insert(id), id);
        assert!(submitted.links.group.is_some_and(|link| link.ends_with(&format!("/batches/{id}"))));
        ids.extend(submitted.jobs.expect("names").into_iter().map(|job| job.id));
        // A part that was taken in is found at once, whatever an index may lag behind.
        let whole = view(&pipeline, id).await;
        assert_eq!((whole.counts.total, whole.parts), (ids.len(), Some(number + 1)));
        assert_eq!((whole.name.as_deref(), whole.group_id), (Some("friday"), None));
    }
    let group = group.expect("a group");
    let ended = pipeline.batch_when(group, |batch| batch.status != BatchStatus::InProgress).await;
    assert_eq!((ended.status, ended.counts.succeeded), (BatchStatus::Completed, 21));

    for limit in [2, 5, 7, 100] {
        let (mut listed, mut pages) = (Vec::new(), 0);
        let mut path = format!("/batches/{group}/jobs?status=succeeded&limit={limit}");
        loop {
            let page: JobsView = pipeline.get(&path).await.json().await.expect("a page");
            assert!(page.jobs.len() <= limit);
            listed.extend(page.jobs.into_iter().map(|job| job.id));
            pages += 1;
            let Some(cursor) = page.next_cursor else { break };
            path = format!("/batches/{group}/jobs?status=succeeded&limit={limit}&cursor={cursor}");
        }
        assert_eq!((listed.len(), listed.into_iter().collect::<BTreeSet<_>>()), (21, ids.clone()), "limit {limit}");
        assert!(pages <= 21 / limit + 4, "{pages} pages of {limit}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_group_is_canceled_and_retried_as_a_whole() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut bad = part("friday", 0, 3);
    bad["jobs"][1]["prompt"] = json!("nsfw");
    let first = pipeline.submit_batch(&bad).await;
    let second = pipeline.submit_batch(&part("friday", 1, 2)).await;
    let group = first.group_id.expect("a group");
    let filtered = first.jobs.expect("names")[1].id;
    worker::handle(&pipeline.stack.apps().worker, ticket(filtered, 1)).await.expect("the worker answers");

    let retried = steer(&pipeline, &format!("/batches/{group}/retry")).await;
    assert_eq!((retried.counts.failed, retried.counts.queued, retried.next_cursor), (0, 5, None));
    assert_eq!(pipeline.job(filtered).await.status, Status::Queued);

    // A request that begins with the second part leaves the first alone, as one does that goes on.
    let canceled = steer(&pipeline, &format!("/batches/{group}/cancel?cursor={}", second.id)).await;
    assert_eq!((canceled.counts.canceled, canceled.counts.queued), (2, 3));
    let canceled = steer(&pipeline, &format!("/batches/{group}/cancel")).await;
    assert_eq!((canceled.counts.canceled, canceled.status), (5, BatchStatus::Canceled));

    for cursor in ["x".to_owned(), BatchId::new().to_string(), group.to_string()] {
        for action in ["cancel", "retry"] {
            let answer = pipeline.post(&format!("/batches/{group}/{action}?cursor={cursor}"), &json!(null)).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{action} {cursor}");
            let problem: Value = answer.json().await.expect("a problem");
            assert_eq!(problem["code"], "invalid_cursor");
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_part_whose_submission_died_is_in_its_group_once() {
    let pipeline = Pipeline::without_event_sources().await;
    let submit = |app: std::sync::Arc<submit::App>, key: &'static str| async move {
        submit::handle(&app, post("/batches", None, Some(key), &part("friday", 0, 30))).await
    };
    let name = "friday".to_owned().try_into().expect("a good name");
    let group = BatchId::of_group(&Owner::new(EVERYONE), &name);
    // The record, the group, two writes of jobs, three sends of tickets, and the record again.
    for (parts, (key, call)) in [("a", 0), ("b", 1), ("c", 3), ("d", 5), ("e", 7)].into_iter().enumerate() {
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::CrashAfter);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(submit(apps.submit, key)).await.is_none(), "the submission dies in call {call}");
        pipeline.clock.advance(std::time::Duration::from_secs(60));
        for _ in 0..2 {
            let answer = submit(pipeline.stack.apps().submit.clone(), key).await.expect("the function answers");
            assert_eq!(answer.status_code, 202, "call {call}");
        }
        let whole = view(&pipeline, group).await;
        assert_eq!((whole.parts, whole.counts.total), (Some(parts + 1), 30 * (parts + 1)), "call {call}");
    }
    steer(&pipeline, &format!("/batches/{group}/cancel")).await;
    pipeline.stop().await;
}

#[tokio::test]
async fn a_group_takes_as_many_parts_as_it_may_have_and_one_that_is_finished_late() {
    let pipeline = Pipeline::without_event_sources().await;
    let submission = |key: &'static str| post("/batches", None, Some(key), &part("friday", 0, 1));
    let submit = async |key: &'static str| {
        let submitted = submit::handle(&pipeline.stack.apps().submit, submission(key)).await;
        answer(submitted.expect("the function answers"))
    };
    // One dies before it is in the group, and one when it is in it.
    for (key, disturbance) in [("before", Disturbance::CrashBefore), ("after", Disturbance::CrashAfter)] {
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, 1, disturbance);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(submit::handle(&apps.submit, submission(key))).await.is_none(), "the submission dies");
    }
    pipeline.clock.advance(std::time::Duration::from_secs(60));
    let (code, last) = submit("last").await;
    assert_eq!(code, 202);
    let group: BatchId = last["group_id"].as_str().expect("a group").parse().expect("a name");
    let end = view(&pipeline, group).await.expires_at;

    // Both are finished when a part has come whose retention ends later.
    assert_eq!(submit("before").await.0, 202);
    let with_late_part = view(&pipeline, group).await;
    assert_eq!((with_late_part.parts, with_late_part.expires_at), (Some(3), end));

    let add = async |count: usize| {
        let names = (0..count).map(|_| BatchId::new().to_string()).collect();
        let update = pipeline.dynamodb().update_item().table_name(&pipeline.ready().table);
        let update =
            update.key("pk", AttributeValue::S(format!("BATCH#{group}"))).update_expression("ADD parts :parts");
        let update = update.expression_attribute_values(":parts", AttributeValue::Ss(names));
        update.send().await.expect("the table answers");
    };
    add(Group::MAX_PARTS - 4).await;
    assert_eq!(submit("most").await.0, 202, "there is room for one more");
    let (code, problem) = submit("one-more").await;
    assert_eq!((code, &problem["errors"][0]["pointer"]), (400, &json!("/group")));
    assert_eq!(submit("after").await.0, 202, "it is one of the parts already");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_part_whose_record_is_gone_does_not_count() {
    let pipeline = Pipeline::without_event_sources().await;
    let gone = pipeline.submit_batch(&part("friday", 0, 3)).await.id;
    let group = pipeline.submit_batch(&part("friday", 1, 2)).await.group_id.expect("a group");
    // DynamoDB deletes each record on its own, and a part's before its jobs'.
    let delete = pipeline.dynamodb().delete_item().table_name(&pipeline.ready().table);
    delete.key("pk", AttributeValue::S(format!("BATCH#{gone}"))).send().await.expect("the table answers");
    let whole = view(&pipeline, group).await;
    assert_eq!((whole.parts, whole.counts.total, whole.counts.queued), (Some(1), 2, 2));
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_name_of_a_group_has_its_rule_and_belongs_to_its_request() {
    let pipeline = Pipeline::without_event_sources().await;
    for name in [json!(""), json!("x".repeat(129)), json!("a\nb"), json!(7)] {
        let mut request = part("x", 0, 1);
        request["group"] = name;
        let answer = pipeline.post("/batches", &request).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["errors"][0]["pointer"], "/group");
    }
    // A part without a key could not be finished by anybody if its submission died.
    let answer = pipeline.post("/batches", &part("friday", 0, 1)).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.json::<Value>().await.expect("a problem")["errors"][0]["pointer"], "/group");
    let post = |group: &str| {
        let post = pipeline.http.post(format!("{}/batches", pipeline.ready().api)).header("Idempotency-Key", "k");
        post.json(&part(group, 0, 1)).send()
    };
    let first: BatchView = post("friday").await.expect("an answer").json().await.expect("a batch");
    let other = post("saturday").await.expect("an answer");
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let again: BatchView = post("friday").await.expect("an answer").json().await.expect("a batch");
    assert_eq!((again.id, again.group_id), (first.id, first.group_id));
    let whole = view(&pipeline, first.group_id.expect("a group")).await;
    assert_eq!((whole.parts, whole.counts.total), (Some(1), 1));

    // Parts go one by one as their retention ends, and the group with the last of them.
    pipeline.clock.advance(std::time::Duration::from_secs(20 * 86_400));
    pipeline.submit_batch(&part("friday", 1, 2)).await;
    pipeline.clock.advance(std::time::Duration::from_secs(20 * 86_400));
    let whole = view(&pipeline, first.group_id.expect("a group")).await;
    assert_eq!((whole.parts, whole.counts.total), (Some(1), 2));
    pipeline.clock.advance(std::time::Duration::from_secs(20 * 86_400));
    let gone = pipeline.get(&format!("/batches/{}", whole.id)).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    pipeline.stack.stop().await;
}
