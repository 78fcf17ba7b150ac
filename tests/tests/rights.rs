//! The rights of each function's role against the calls that the function makes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use local::{Apps, EVERYONE, Ready};
use serde_json::{Value, json};
use shared::batch::Progress;
use shared::job::Terms;
use shared::order::Model;
use shared::ticket::{Message as _, Ticket};
use shared::{BatchId, JobId};
use tests::events::{answer, get, post};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, delivery, ticket};
use tests::receiver::Names;

use crate::batch_function::{paint, record, save, started, step, ticket as batch_ticket};
use crate::template::{document, functions};
use crate::webhooks::untold;
use crate::webhooks_api::stored_for;

/// Actions with the resources on which a function may use them or does use them.
type Rights = BTreeSet<(String, String)>;

fn right(action: &str, resource: &str) -> (String, String) {
    (action.to_owned(), resource.to_owned())
}

/// The text of a resource in a policy: `JobsTable/index/by_owner` for an ARN made from a resource of the template, else
/// the part of the ARN after the account.
fn resource(value: &Value) -> String {
    match value {
        Value::Object(map) if map.contains_key("Fn::GetAtt") => {
            let path = &value["Fn::GetAtt"];
            assert_eq!(path[1], "Arn", "{value}");
            path[0].as_str().expect("a resource").to_owned()
        }
        Value::Object(_) => {
            let text = value["Fn::Sub"].as_str().expect("an ARN");
            let arn = text.strip_prefix("arn:${AWS::Partition}:bedrock:${BedrockRegion}::").map(str::to_owned);
            arn.unwrap_or_else(|| text.replacen("${", "", 1).replacen(".Arn}", "", 1))
        }
        other => other.as_str().expect("a resource").to_owned(),
    }
}

/// The actions that the function's role allows.
fn allowed(template: &Value, function: &Value) -> Rights {
    let properties = &function["Properties"];
    assert!(properties["Policies"].is_null(), "SAM leaves these out where there is a role");
    let role = &template["Resources"][resource(&properties["Role"])]["Properties"];
    assert!(role["ManagedPolicyArns"].is_null(), "a managed policy allows things on every resource");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let policies = role["Policies"].as_array().expect("policies");
    let statements = policies.iter().flat_map(|policy| list(&policy["PolicyDocument"]["Statement"]));
    let mut rights = Rights::new();
    for statement in statements {
        // Statements for what the stack may leave out.
        let statement = if statement["Fn::If"].is_array() { statement["Fn::If"][1].clone() } else { statement };
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        for action in list(&statement["Action"]) {
            for target in list(&statement["Resource"]) {
                assert!(rights.insert(right(action.as_str().expect("an action"), &resource(&target))), "{statement}");
            }
        }
    }
    rights
}

/// The rights that Lambda uses on behalf of the function: for its event source, its logs and its traces.
fn used_by_lambda(template: &Value, function: &Value) -> Rights {
    let mut rights = Rights::new();
    for event in function["Properties"]["Events"].as_object().expect("events").values() {
        if event["Type"] == "SQS" {
            let queue = resource(&event["Properties"]["Queue"]);
            for action in ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"] {
                rights.insert(right(action, &queue));
            }
        }
    }
    let logs = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"].as_str().expect("a log group");
    assert_eq!(template["Resources"][logs]["Type"], "AWS::Logs::LogGroup");
    for action in ["logs:CreateLogStream", "logs:PutLogEvents"] {
        rights.insert(right(action, logs));
    }
    for action in ["xray:PutTelemetryRecords", "xray:PutTraceSegments"] {
        rights.insert(right(action, "*"));
    }
    rights
}

/// The rights that a call needs.
fn needed(call: &Call<'_>, ready: &Ready) -> Vec<(String, String)> {
    let target = call.request.headers().get("x-amz-target").unwrap_or_default();
    let (body, operation) = (call.json(), call.operation);
    match target.split_once('.') {
        Some(("DynamoDB_20120810", _)) => {
            let index = body["IndexName"].as_str().map(|index| format!("/index/{index}")).unwrap_or_default();
            let is_log = body["TableName"].as_str() == ready.deliveries_table.as_deref();
            let table = if is_log { "DeliveriesTable" } else { "JobsTable" };
            vec![right(&format!("dynamodb:{operation}"), &format!("{table}{index}"))]
        }
        Some(("AmazonSQS", _)) => {
            let queues = [
                (&ready.queue_url, "Queue"),
                (&ready.dead_letter_queue_url, "DeadLetterQueue"),
                (&ready.parked_queue_url, "ParkedQueue"),
                (&ready.batch_queue_url, "BatchQueue"),
                (ready.webhook_queue_url.as_ref().expect("it sends webhooks"), "WebhookQueue"),
            ];
            let queue = queues.iter().find(|(url, _)| body["QueueUrl"] == **url).expect("a queue of the template").1;
            // IAM has no actions for batches of messages.
            vec![right(&format!("sqs:{}", operation.trim_end_matches("Batch")), queue)]
        }
        Some(_) => panic!("{target} is not known"),
        None => {
            let uri: axum::http::Uri = call.request.uri().parse().expect("an address");
            if let Some(model) = uri.path().strip_prefix("/model/").and_then(|path| path.strip_suffix("/invoke")) {
                let model = model.replace("%3A", ":");
                return vec![right("bedrock:InvokeModel", &format!("foundation-model/{model}"))];
            }
            of_object(call.request.method(), &uri, ready)
        }
    }
}

/// The rights that a call of S3 needs, or one that somebody makes with a presigned URL.
fn of_object(method: &str, uri: &axum::http::Uri, ready: &Ready) -> Vec<(String, String)> {
    let key = uri.path().trim_start_matches('/').trim_start_matches(&ready.bucket).trim_start_matches('/');
    let file = |action: &str| match key.split('/').collect::<Vec<_>>()[..] {
        ["images", ..] => right(action, "ImageBucket/images/*"),
        ["batches", _, "input"] => right(action, "ImageBucket/batches/*/input"),
        ["batches", _, name] if name.ends_with(".ndjson") => right(action, "ImageBucket/batches/*.ndjson"),
        _ => panic!("{key} is not known"),
    };
    match (method, key) {
        ("GET", "") => vec![right("s3:ListBucket", "ImageBucket")],
        // To IAM a HEAD is a GET, and S3 answers 404 only to those who may list.
        ("HEAD" | "GET", _) => vec![file("s3:GetObject"), right("s3:ListBucket", "ImageBucket")],
        ("PUT" | "POST", _) => vec![file("s3:PutObject")],
        ("DELETE", _) if uri.query().is_some_and(|query| query.contains("uploadId")) => {
            vec![file("s3:AbortMultipartUpload")]
        }
        ("DELETE", _) => vec![file("s3:DeleteObject")],
        other => panic!("{other:?} is not known"),
    }
}

/// The functions, and the rights that their calls have needed so far.
fn recorded(pipeline: &Pipeline) -> (Apps, Arc<Mutex<Rights>>) {
    let rights = Arc::new(Mutex::new(Rights::new()));
    let (into, ready) = (rights.clone(), pipeline.ready().clone());
    let (_, apps) = pipeline.intercept(move |call| {
        into.lock().expect("no panic").extend(needed(call, &ready));
        Action::Pass
    });
    (apps, rights)
}

/// A webhook that wants every event.
fn webhook() -> Value {
    let events = ["job.succeeded", "job.failed", "job.canceled", "batch.ended"];
    json!({ "url": "https://example.com/posters", "events": events })
}

/// Longer than a lease.
const DAY: Duration = Duration::from_secs(86_400);

const LEASE: Duration = Duration::from_secs(600);

/// A job whose worker died after it had been paid for, and whose lease has ended.
async fn abandoned(pipeline: &Pipeline) -> JobId {
    let order = json!({ "prompt": "A heist on the moon", "webhook": { "url": "https://example.com/posters" } });
    let job: shared::api::JobView = pipeline.post("/jobs", &order).await.json().await.expect("a job");
    drop(pipeline.claim(job.id, LEASE).await);
    pipeline.clock.advance(LEASE);
    job.id
}

/// A job that was canceled while its worker was painting, and whose worker has died.
async fn canceled(pipeline: &Pipeline) -> JobId {
    let job = pipeline.submit("A heist on the moon").await.id;
    drop(pipeline.claim(job, LEASE).await);
    pipeline.post(&format!("/jobs/{job}/cancel"), &Value::Null).await;
    pipeline.clock.advance(LEASE);
    job
}

/// A job that was canceled while its worker was painting, and then retried.
async fn retried(pipeline: &Pipeline) -> JobId {
    let job = canceled(pipeline).await;
    assert_eq!(pipeline.post(&format!("/jobs/{job}/retry"), &Value::Null).await.status().as_u16(), 202);
    job
}

/// A batch of a job that has failed.
async fn failed_batch(pipeline: &Pipeline) -> String {
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "nsfw" }], "webhook": webhook() })).await;
    assert!(pipeline.work(batch.jobs.expect("its jobs")[0].id, 1).await);
    batch.id.to_string()
}

/// All requests to `submit`.
async fn submit_all(pipeline: &Pipeline, app: &submit::App) -> Vec<(&'static str, String)> {
    let request = async |event| {
        let (status, body) = answer(submit::handle(app, event).await.expect("an answer"));
        assert!(status < 300, "{body}");
    };
    let from_file = post("/batches", None, None, &json!({ "input": { "format": "txt" } }));
    let (_, from_file) = answer(submit::handle(app, from_file).await.expect("an answer"));
    let url = from_file["upload"]["url"].as_str().expect("where to upload the file").to_owned();
    let upload = pipeline.http.put(&url).body("A heist").send().await.expect("the bucket answers");
    assert!(upload.status().is_success());
    let id = from_file["id"].as_str().map(str::to_owned);
    request(post("/batches/{id}/start", id, None, &Value::Null)).await;
    for _ in 0..2 {
        request(post("/jobs", None, Some("one"), &json!({ "prompt": "A heist" }))).await;
        request(post("/batches", None, Some("two"), &json!({ "jobs": [{ "prompt": "A heist" }] }))).await;
    }
    let interrupted = post("/batches", None, Some("three"), &json!({ "jobs": [{ "prompt": "A heist" }] }));
    let (_, without_queue) = pipeline.intercept(|call| match call.operation {
        "SendMessageBatch" => Action::Refuse,
        _ => Action::Pass,
    });
    let refused = submit::handle(&without_queue.submit, interrupted.clone()).await.expect("an answer");
    assert_eq!(refused.status_code, 503);
    pipeline.clock.advance(LEASE);
    request(interrupted).await;
    let job = canceled(pipeline).await;
    request(post("/jobs/{id}/retry", Some(job.to_string()), None, &Value::Null)).await;
    let batch = failed_batch(pipeline).await;
    request(post("/batches/{id}/retry", Some(batch), None, &Value::Null)).await;
    let untold = untold(pipeline).await;
    request(post("/jobs/{id}/retry", Some(untold.to_string()), None, &Value::Null)).await;
    vec![("PUT", url)]
}

/// A batch from a file that has ended, with a skipped line and a failed job.
async fn ended_file_batch(pipeline: &Pipeline) -> String {
    let order = json!({ "input": { "format": "ndjson" }, "on_bad_line": "skip", "webhook": webhook() });
    let id = started(pipeline, order, "{\"prompt\":\"nsfw\"}\n{}\n").await;
    step(pipeline, id).await;
    paint(pipeline, id).await;
    assert!(step(pipeline, id).await);
    id.to_string()
}

/// All requests to `status`.
async fn status_all(pipeline: &Pipeline, app: &status::App) -> Vec<(&'static str, String)> {
    let request = async |event| assert!(status::handle(app, event).await.expect("an answer").status_code < 400);
    let overdue = abandoned(pipeline).await;
    pipeline.clock.advance(Duration::from_secs(2 * 86_400));
    request(get("/jobs/{id}", Some(overdue.to_string()))).await;
    let (batch, waiting) = (failed_batch(pipeline).await, pipeline.submit("A heist").await.id.to_string());
    request(get("/jobs/{id}", Some(waiting.clone()))).await;
    request(get("/jobs", None)).await;
    for resource in ["/batches/{id}", "/batches/{id}/jobs"] {
        request(get(resource, Some(batch.clone()))).await;
    }
    request(post("/jobs/{id}/cancel", Some(waiting), None, &Value::Null)).await;
    request(post("/batches/{id}/cancel", Some(batch), None, &Value::Null)).await;
    let open = started(pipeline, json!({ "input": { "format": "txt" } }), "A heist\n").await;
    step(pipeline, open).await;
    for resource in ["/batches/{id}", "/batches/{id}/jobs"] {
        request(get(resource, Some(open.to_string()))).await;
    }
    request(post("/batches/{id}/cancel", Some(open.to_string()), None, &Value::Null)).await;
    let ended = ended_file_batch(pipeline).await;
    let mut signed = Vec::new();
    for resource in ["/batches/{id}/faults", "/batches/{id}/results"] {
        let answer = status::handle(app, get(resource, Some(ended.clone()))).await.expect("an answer");
        assert_eq!(answer.status_code, 302);
        signed.push(("GET", answer.headers["location"].to_str().expect("a URL").to_owned()));
    }
    let delivery = stored_for(EVERYONE, pipeline, 410, LEASE).await.id;
    request(get("/webhook-secret", None)).await;
    request(post("/webhook-secret/rotate", None, None, &Value::Null)).await;
    request(get("/deliveries", None)).await;
    let mut of_subject = get("/deliveries", None);
    let job = delivery.subject.to_string().trim_start_matches("job_").to_owned();
    of_subject.payload.multi_value_query_string_parameters = HashMap::from([("job".to_owned(), vec![job])]).into();
    request(of_subject).await;
    request(get("/deliveries/{id}", Some(delivery.to_string()))).await;
    request(post("/deliveries/{id}/replay", Some(delivery.to_string()), None, &Value::Null)).await;
    request(post("/deliveries/replay", None, None, &json!({ "since": "2026-01-01T00:00:00Z" }))).await;
    signed
}

/// All kinds of tickets for `worker`.
async fn worker_all(pipeline: &Pipeline, app: &worker::App) {
    let work = async |event| drop(worker::handle(app, event).await.expect("an answer"));
    for model in Model::ALL {
        let body = json!({ "prompt": "A heist", "model": model.to_string(), "poster": { "title": "The Heist" } });
        let response = pipeline.post("/jobs", &body).await;
        let job: shared::api::JobView = response.json().await.expect("a job");
        work(ticket(job.id, 1)).await;
    }
    let held = pipeline.submit("A heist").await.id;
    drop(pipeline.claim(held, LEASE).await);
    work(ticket(held, 1)).await;
    for job in [abandoned(pipeline).await, canceled(pipeline).await, retried(pipeline).await] {
        work(ticket(job, 2)).await;
    }
    work(delivery(&["not a ticket"], 1)).await;
}

/// All kinds of tickets for `batch`.
async fn batch_all(pipeline: &Pipeline, app: &batch::App) {
    let step = async |id| drop(batch::handle(app, batch_ticket(id)).await.expect("an answer"));
    let ended: BatchId = ended_file_batch(pipeline).await.parse().expect("an id");
    let order = json!({ "input": { "format": "ndjson" }, "on_bad_line": "skip", "webhook": webhook() });
    let id = started(pipeline, order.clone(), "{\"prompt\":\"A heist\"}\n{}\n").await;
    step(id).await;
    // Its worker was lost, and its time is over.
    drop(pipeline.claim(JobId::in_batch(id, 0), LEASE).await);
    pipeline.clock.advance(Duration::from_secs(2 * 86_400));
    step(id).await;
    let retried =
        record(pipeline, ended).await.retry(None, pipeline.clock.now(), Terms { deadline: LEASE, retention: 30 * DAY });
    save(pipeline, &retried.expect("allowed").expect("new")).await;
    step(ended).await;
    // Faults and results that are too large for one PUT, and results that are abandoned because a job has not ended.
    let faulty: String = (0..100).map(|i| format!(r#""unknown {i}":1,"#)).collect();
    let file = format!("{{{faulty}\"prompt\":\"x\"}}\n").repeat(1200) + "{\"prompt\":\"A heist\"}\n";
    let id = started(pipeline, order, &file).await;
    step(id).await;
    let batch = record(pipeline, id).await;
    save(pipeline, &batch.looked(Progress { open_parts: Vec::new(), ..batch.progress.clone() })).await;
    step(id).await;
    drop(batch::handle(app, delivery(&["not a ticket"], 1)).await.expect("an answer"));
}

/// All kinds of tickets for `dead_letter`.
async fn dead_letter_all(pipeline: &Pipeline, app: &dead_letter::App) {
    let end = async |event| drop(dead_letter::handle(app, event).await.expect("an answer"));
    let held = pipeline.submit("A heist").await.id;
    drop(pipeline.claim(held, LEASE).await);
    end(ticket(held, 1)).await;
    let retried = retried(pipeline).await;
    assert!(pipeline.work(retried, 1).await);
    for job in [abandoned(pipeline).await, canceled(pipeline).await, retried] {
        end(ticket(job, 1)).await;
    }
    end(delivery(&["not a ticket", &Ticket { job: JobId::new(), queued_at: None, trace: None }.to_body()], 1)).await;
}

/// All kinds of messages for `webhook`.
async fn webhook_all(pipeline: &Pipeline, app: &webhook::App) {
    let app =
        app.clone().with_client(webhook::Client::new(Names::default().network(([127, 0, 0, 1], 9).into()), false));
    let event = serde_json::json!({
        "v": 1, "id": format!("job_{}_1", JobId::new()), "owner": "alice", "url": "https://example.com/",
        "type": "job.failed", "at": pipeline.clock.now().ms(), "round": 0, "payload": "{}",
    });
    // Two at once, so that one finds that the record has moved on.
    let event = event.to_string();
    drop(webhook::handle(&app, delivery(&[&event, &event, "no event"], 1)).await.expect("an answer"));
}

#[tokio::test]
async fn each_role_allows_exactly_what_its_function_does() {
    let template = document();
    let functions = functions(&template);
    assert_eq!(functions.len(), 6);
    for (id, binary, function) in functions {
        let pipeline = Pipeline::without_event_sources().await;
        let (apps, used) = recorded(&pipeline);
        let mut signed = Vec::new();
        match binary {
            "submit" => signed = submit_all(&pipeline, &apps.submit).await,
            "status" => signed = status_all(&pipeline, &apps.status).await,
            "worker" => worker_all(&pipeline, &apps.worker).await,
            "dead_letter" => dead_letter_all(&pipeline, &apps.dead_letter).await,
            "batch" => batch_all(&pipeline, &apps.batch).await,
            "webhook" => webhook_all(&pipeline, apps.webhook.as_ref().expect("it sends webhooks")).await,
            other => panic!("{other} is not known"),
        }
        let mut used = std::mem::take(&mut *used.lock().expect("no panic"));
        for (method, url) in signed {
            used.extend(of_object(method, &url.parse().expect("an address"), pipeline.ready()));
        }
        used.extend(used_by_lambda(&template, function));
        assert_eq!(allowed(&template, function), used, "{id}: allowed, and used");
        pipeline.stack.stop().await;
    }
}

#[test]
fn the_alarm_of_the_tables_counts_each_operation_that_a_role_allows() {
    let template = document();
    let mut operations = BTreeSet::new();
    for (_, _, function) in functions(&template) {
        for (action, resource) in allowed(&template, function) {
            let table = resource.split('/').next().expect("a name").to_owned();
            operations.extend(action.strip_prefix("dynamodb:").map(|operation| (table, operation.to_owned())));
        }
    }
    let queries = template["Resources"]["TableErrorsAlarm"]["Properties"]["Metrics"].as_array().expect("metrics");
    let queries = queries.iter().map(|query| if query["Fn::If"].is_array() { &query["Fn::If"][1] } else { query });
    let counted: BTreeSet<_> = queries
        .filter_map(|query| {
            let dimensions = query["MetricStat"]["Metric"]["Dimensions"].as_array()?;
            let table = dimensions[0]["Value"]["Ref"].as_str()?.to_owned();
            Some((table, dimensions[1]["Value"].as_str()?.to_owned()))
        })
        .collect();
    assert_eq!(counted, operations);
}
