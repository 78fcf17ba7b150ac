//! Who may see what.

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use lambda_runtime::LambdaEvent;
use local::Options;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::api::{BatchView, BatchesView, DeliveriesView, JobView, JobsView, ReplayedView, SecretView};
use shared::id::Subject;
use shared::job::Status;
use shared::{Clock, JobId};
use tests::events::{answer, get, post};
use tests::pipeline::{Pipeline, ticket};

use crate::webhooks_api::stored_for;

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
async fn without_a_key_only_the_page_and_the_health_are_answered() {
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
async fn what_belongs_to_another_owner_seems_not_to_exist() {
    let pipeline = with_keys().await;
    let order = json!({ "prompt": "A heist on the moon" });
    let job: JobView = call(&pipeline, "alice-key", Method::POST, "/jobs", &order).await.json().await.expect("a job");
    let batch = json!({ "jobs": [order] });
    let batch = call(&pipeline, "alice-key", Method::POST, "/batches", &batch).await;
    let batch: BatchView = batch.json().await.expect("a batch");
    let minute = std::time::Duration::from_secs(60);
    let delivery = stored_for("alice", &pipeline, 410, minute).await.id;
    stored_for("alice", &pipeline, 200, minute).await;
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
        (Method::GET, format!("/deliveries/{delivery}")),
        (Method::POST, format!("/deliveries/{delivery}/replay")),
    ] {
        let response = call(&pipeline, "bob-key", method.clone(), &path, &Value::Null).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(response.text().await.expect("a problem"), nothing, "{method} {path}");
    }
    let bobs: JobsView =
        call(&pipeline, "bob-key", Method::GET, "/jobs", &Value::Null).await.json().await.expect("a page");
    assert!(bobs.jobs.is_empty());
    let bobs: BatchesView =
        call(&pipeline, "bob-key", Method::GET, "/batches", &Value::Null).await.json().await.expect("a page");
    assert!(bobs.batches.is_empty());
    let Subject::Job(alices) = delivery.subject else { unreachable!("it is a job's") };
    for path in ["/deliveries".to_owned(), format!("/deliveries?job={alices}")] {
        let bobs: DeliveriesView =
            call(&pipeline, "bob-key", Method::GET, &path, &Value::Null).await.json().await.expect("a page");
        assert!(bobs.deliveries.is_empty(), "{path}");
    }
    let everything = json!({ "since": "2026-01-01T00:00:00Z" });
    for (key, count) in [("bob-key", 0), ("alice-key", 1)] {
        let replayed = call(&pipeline, key, Method::POST, "/deliveries/replay", &everything).await;
        assert_eq!(replayed.json::<ReplayedView>().await.expect("an answer").replayed, count, "{key}");
    }
    let mut secrets = std::collections::BTreeSet::new();
    for key in ["alice-key", "bob-key"] {
        let view = call(&pipeline, key, Method::GET, "/webhook-secret", &Value::Null).await;
        assert!(secrets.insert(view.json::<SecretView>().await.expect("a secret").secret), "each has its own");
    }
    for path in ["/jobs", "/batches", "/deliveries"] {
        let order = if path == "/jobs" { json!({ "prompt": "x" }) } else { json!({ "jobs": [{ "prompt": "x" }] }) };
        if path != "/deliveries" {
            assert!(call(&pipeline, "alice-key", Method::POST, path, &order).await.status().is_success());
        }
        let path = format!("{path}?limit=1");
        let page = call(&pipeline, "alice-key", Method::GET, &path, &Value::Null).await;
        let page: Value = page.json().await.expect("a page");
        let cursor = page["next_cursor"].as_str().expect("there are two");
        let stolen = call(&pipeline, "bob-key", Method::GET, &format!("{path}&cursor={cursor}"), &Value::Null).await;
        assert_eq!(stolen.status(), StatusCode::BAD_REQUEST, "a cursor belongs to its owner: {path}");
    }

    for id in [job.id, batch.jobs.expect("names")[0].id] {
        worker::handle(&pipeline.stack.apps().worker, ticket(id, 1)).await.expect("the worker answers");
    }
    pipeline.stack.stop().await;
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

type Event = LambdaEvent<ApiGatewayProxyRequest>;

/// The event of a caller for whom API Gateway reports these members of `identity` and this result of the authorizer.
fn called_by(mut event: Event, (identity, authorizer): &(Value, Value)) -> Event {
    let context = &mut event.payload.request_context;
    context.identity = serde_json::from_value(identity.clone()).expect("an identity");
    context.authorizer.fields = serde_json::from_value(authorizer.clone()).expect("what an authorizer passes on");
    event
}

#[tokio::test]
async fn each_caller_that_an_authorizer_names_has_its_own_jobs_and_others_have_none() {
    let pipeline = Pipeline::without_event_sources().await;
    let key = json!({ "apiKeyId": "k3y1d" });
    let iam = |arn: &str| json!({ "apiKeyId": "k3y1d", "userArn": arn, "caller": "AROAIDPPEZS35WEXAMPLE:ada" });
    let claims = |sub: &str| json!({ "claims": { "sub": sub, "cognito:username": "same" } });
    let role = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Designers_0123456789abcdef";
    let other_role = "arn:aws:sts::123456789012:assumed-role/Painters/ada";
    // The same owner twice, another owner, and a caller without the selected member. All have the same key.
    for (source, own, again, other, nobody) in [
        (
            "ApiKey",
            (key.clone(), claims("ada")),
            (key.clone(), claims("bob")),
            (json!({ "apiKeyId": "0ther" }), claims("ada")),
            (json!({}), claims("ada")),
        ),
        (
            "Claim:sub",
            (key.clone(), claims("ada")),
            (json!({ "apiKeyId": "0ther" }), claims("ada")),
            (key.clone(), claims("bob")),
            (key.clone(), json!({})),
        ),
        (
            "Principal",
            (key.clone(), json!({ "principalId": "ada" })),
            (key.clone(), json!({ "principalId": "ada", "tenant": "north" })),
            (key.clone(), json!({ "principalId": "bob" })),
            (key.clone(), claims("ada")),
        ),
        (
            "IamRole",
            (iam(&format!("{role}/ada@example.com")), json!({})),
            (iam(&format!("{role}/bob@example.com")), json!({})),
            (iam(other_role), json!({})),
            (iam("arn:aws:sts::123456789012:federated-user/ada"), json!({})),
        ),
    ] {
        let (aws, deployment) = (pipeline.stack.aws(), pipeline.stack.deployment());
        let setting = |function: &'static str| {
            move |name: &str| match name {
                "OWNER_FROM" => Some(source.to_owned()),
                name => deployment.functions[function].environment.get(name).cloned(),
            }
        };
        let submit = submit::App::new(aws, Clock::system(), &setting("submit")).expect("the settings are good");
        let status = status::App::new(aws, Clock::system(), &setting("status")).expect("the settings are good");
        let taken = |event| async { answer(submit::handle(&submit, event).await.expect("an answer")) };
        let told = |event| async { answer(status::handle(&status, event).await.expect("an answer")) };

        let order = json!({ "prompt": "A heist on the moon" });
        let (code, job) = taken(called_by(post("/jobs", None, None, &order), &own)).await;
        assert_eq!(code, 202, "{source}: {job}");
        let id = || job["id"].as_str().map(str::to_owned);
        assert_eq!(told(called_by(get("/jobs/{id}", id()), &own)).await.0, 200, "{source}");
        assert_eq!(told(called_by(get("/jobs/{id}", id()), &again)).await.0, 200, "{source}");
        assert_eq!(told(called_by(get("/jobs/{id}", id()), &other)).await.0, 404, "{source}");
        let (_, list) = told(called_by(get("/jobs", None), &other)).await;
        assert_eq!(list["jobs"], json!([]), "{source}");

        let (batches, none) = (json!({ "jobs": [order] }), Value::Null);
        for event in [
            post("/jobs", None, None, &order),
            post("/jobs/{id}/retry", id(), None, &none),
            post("/batches", None, None, &batches),
            post("/batches/{id}/retry", id(), None, &none),
        ] {
            let (code, problem) = taken(called_by(event, &nobody)).await;
            assert_eq!((code, &problem["code"]), (401, &"unauthorized".into()), "{source}");
        }
        for event in [
            get("/jobs", None),
            get("/jobs/{id}", id()),
            get("/jobs/{id}/image", id()),
            post("/jobs/{id}/cancel", id(), None, &none),
            get("/batches/{id}", id()),
            get("/batches/{id}/jobs", id()),
            post("/batches/{id}/cancel", id(), None, &none),
            get("/webhook-secret", None),
            post("/webhook-secret/rotate", None, None, &none),
            get("/deliveries", None),
            get("/deliveries/{id}", id()),
            post("/deliveries/{id}/replay", id(), None, &none),
            post("/deliveries/replay", None, None, &json!({ "since": "2026-01-01T00:00:00Z" })),
        ] {
            let (code, problem) = told(called_by(event, &nobody)).await;
            assert_eq!((code, &problem["code"]), (401, &"unauthorized".into()), "{source}");
        }
        for open in ["/", "/health"] {
            assert_eq!(told(called_by(get(open, None), &nobody)).await.0, 200, "{source}: {open}");
        }
        assert_eq!(told(called_by(post("/jobs/{id}/cancel", id(), None, &none), &again)).await.0, 200, "{source}");
    }
    pipeline.stop().await;
}
