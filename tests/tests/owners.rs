//! Who may see what.

use local::Options;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::JobId;
use shared::api::{BatchView, JobView, JobsView};
use shared::job::Status;
use tests::pipeline::{Pipeline, ticket};

async fn with_keys() -> Pipeline {
    let keys = [("alice-key", "alice"), ("bob-key", "bob")];
    let api_keys = keys.map(|(key, name)| (key.to_owned(), name.to_owned())).into();
    Pipeline::with(Options { api_keys, event_sources: false, ..Options::default() }).await
}

async fn call(pipeline: &Pipeline, key: &str, method: Method, path: &str, body: &Value) -> reqwest::Response {
    let request = pipeline.http.request(method, format!("{}{path}", pipeline.ready().api)).header("x-api-key", key);
    let request = if body.is_null() { request } else { request.json(body) };
    request.send().await.expect("the API answers")
}

#[tokio::test]
async fn without_a_key_nothing_but_the_page_and_the_health_is_told() {
    let pipeline = with_keys().await;
    for (method, path) in [(Method::POST, "/jobs"), (Method::GET, "/jobs"), (Method::DELETE, "/jobs")] {
        for key in ["", "mallory-key"] {
            let response = call(&pipeline, key, method.clone(), path, &Value::Null).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {path}");
            assert_eq!(response.json::<Value>().await.expect("a problem")["code"], "forbidden");
        }
    }
    for open in ["/", "/health"] {
        assert_eq!(pipeline.get(open).await.status(), StatusCode::OK, "{open}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_as_good_as_not_there() {
    let pipeline = with_keys().await;
    let order = json!({ "prompt": "A heist on the moon" });
    let job: JobView = call(&pipeline, "alice-key", Method::POST, "/jobs", &order).await.json().await.expect("a job");
    let batch = json!({ "jobs": [order] });
    let batch = call(&pipeline, "alice-key", Method::POST, "/batches", &batch).await;
    let batch: BatchView = batch.json().await.expect("a batch");
    let unknown = JobId::new();
    let nothing = call(&pipeline, "bob-key", Method::GET, &format!("/jobs/{unknown}"), &Value::Null).await;
    let nothing = nothing.text().await.expect("a problem");
    for (method, path) in [
        (Method::GET, format!("/jobs/{}", job.id)),
        (Method::GET, format!("/jobs/{}/image", job.id)),
        (Method::POST, format!("/jobs/{}/cancel", job.id)),
        (Method::POST, format!("/jobs/{}/retry", job.id)),
        (Method::GET, format!("/batches/{}", batch.id)),
        (Method::GET, format!("/batches/{}/jobs", batch.id)),
        (Method::POST, format!("/batches/{}/cancel", batch.id)),
        (Method::POST, format!("/batches/{}/retry", batch.id)),
    ] {
        let response = call(&pipeline, "bob-key", method.clone(), &path, &Value::Null).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(response.text().await.expect("a problem"), nothing, "{method} {path}");
    }
    let bobs: JobsView =
        call(&pipeline, "bob-key", Method::GET, "/jobs", &Value::Null).await.json().await.expect("a page");
    assert!(bobs.jobs.is_empty());
    let path = "/jobs?limit=1";
    let page = call(&pipeline, "alice-key", Method::GET, path, &Value::Null).await;
    let cursor = page.json::<JobsView>().await.expect("a page").next_cursor.expect("she has two jobs");
    let stolen = call(&pipeline, "bob-key", Method::GET, &format!("{path}&cursor={cursor}"), &Value::Null).await;
    assert_eq!(stolen.status(), StatusCode::BAD_REQUEST, "a cursor belongs to its owner");

    for id in [job.id, batch.jobs.expect("names")[0].id] {
        worker::handle(&pipeline.stack.apps().worker, ticket(id, 1)).await.expect("the worker answers");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn the_same_key_of_two_owners_is_two_jobs() {
    let pipeline = with_keys().await;
    let mut ids = Vec::new();
    for key in ["alice-key", "bob-key"] {
        let post = pipeline.http.post(format!("{}/jobs", pipeline.ready().api)).header("x-api-key", key);
        let post = post.header("Idempotency-Key", "friday").json(&json!({ "prompt": "A heist on the moon" }));
        let job: JobView = post.send().await.expect("the API answers").json().await.expect("a job");
        assert_eq!(job.status, Status::Queued);
        worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
        ids.push(job.id);
    }
    assert_ne!(ids[0], ids[1]);
    pipeline.stop().await;
}
