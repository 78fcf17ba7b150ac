//! The full text that callers, terminals and operators read. After a change of words, accept the new text with
//! `INSTA_UPDATE=always cargo test snapshots`, and read the diff.

use std::fmt::Write;

use bench::events::messages;
use local::EVERYONE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::ticket::{Message as _, Ticket};
use shared::{JobId, Timestamp};
use tests::pipeline::{Pipeline, ticket};
use tests::runtime_api::{invoke, program};

use crate::batch_function::step;
use crate::binaries::variables;
use crate::cli::Desk;
use crate::webhooks_api::stored_for;

/// The text with masks in place of what differs between runs: ids, times, ports, signatures, secrets, and temporary paths.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let id = rest.get(..36).filter(|id| id.parse::<JobId>().is_ok());
        let time = ["2026-11-24T10:00:00.000Z", "2026-11-24T10:00:00Z"].map(str::len).into_iter().find(|&length| {
            rest.get(..length)
                .is_some_and(|time| time.ends_with('Z') && serde_json::from_value::<Timestamp>(json!(time)).is_ok())
        });
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (shown, taken) = if digits == "1795826564080".len() {
            ("[ms]", digits)
        } else if id.is_some() {
            ("[id]", 36)
        } else if rest.starts_with("whsec_") {
            ("whsec_[secret]", rest.find('"').unwrap_or(rest.len()))
        } else if let Some(length) = time {
            ("[time]", length)
        } else if let Some(after) = rest.strip_prefix("http://127.0.0.1:") {
            ("http://[host]", rest.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len())
        } else if rest.starts_with("?x-id=") || rest.starts_with("?response-") || rest.starts_with("?X-Amz") {
            ("?[signature]", rest.find(['"', ' ', '\n']).unwrap_or(rest.len()))
        } else {
            (&rest[..first.len_utf8()], first.len_utf8())
        };
        masked.push_str(shown);
        rest = &rest[taken..];
    }
    masked
}

/// The value without measured numbers.
fn without_measures(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name.ends_with("_ms") || ["timestamp", "bytes", "Bytes", "Timestamp"].contains(&name.as_str()) {
                    *member = json!("[measured]");
                }
                without_measures(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_measures),
        _ => {}
    }
}

/// A request and its answer.
async fn exchange(pipeline: &Pipeline, method: Method, path: &str, body: Value) -> String {
    let mut request = pipeline.http.request(method.clone(), format!("{}{path}", pipeline.ready().api));
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.expect("the API answers");
    let mut told = format!("{method} {path}\n{}\n", response.status());
    for (name, value) in response.headers() {
        if !["content-length", "date", "etag"].contains(&name.as_str()) {
            writeln!(told, "{name}: {}", value.to_str().expect("text")).expect("memory");
        }
    }
    let mut answer: Value = response.json().await.unwrap_or_default();
    without_measures(&mut answer);
    told + &serde_json::to_string_pretty(&answer).expect("JSON")
}

/// The answers to these requests.
async fn exchanges(pipeline: &Pipeline, requests: Vec<(Method, String, Value)>) -> String {
    let mut told = Vec::new();
    for (method, path, body) in requests {
        told.push(exchange(pipeline, method, &path, body).await);
    }
    masked(&told.join("\n\n"))
}

#[tokio::test]
async fn answers_about_jobs_and_batches() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = json!({
        "prompt": "A heist on the moon", "seed": 7, "metadata": { "film": "Moonfall" },
        "poster": { "title": "Moonfall", "tagline": "Nobody is listening", "style": "scifi" },
    });
    let get = |path: String| (Method::GET, path, Value::Null);
    let submitted = exchanges(&pipeline, vec![(Method::POST, "/jobs".to_owned(), order)]).await;
    insta::assert_snapshot!("job_queued", submitted);
    let listed: Value = pipeline.get("/jobs").await.json().await.expect("a list");
    let job: JobId = listed["jobs"][0]["id"].as_str().expect("an id").parse().expect("an id");
    pipeline.claim(job, std::time::Duration::from_secs(60)).await;
    insta::assert_snapshot!("job_running", exchanges(&pipeline, vec![get(format!("/jobs/{job}"))]).await);
    pipeline.clock.advance(std::time::Duration::from_secs(600));
    assert!(pipeline.work(job, 2).await);
    insta::assert_snapshot!("job_succeeded", exchanges(&pipeline, vec![get(format!("/jobs/{job}"))]).await);

    let filtered = pipeline.submit("nsfw").await.id;
    assert!(pipeline.work(filtered, 1).await);
    let waiting = pipeline.submit("A heist in Venice").await.id;
    let requests = vec![
        get(format!("/jobs/{filtered}")),
        (Method::POST, format!("/jobs/{waiting}/cancel"), Value::Null),
        (Method::POST, format!("/jobs/{job}/cancel"), Value::Null),
        (Method::POST, format!("/jobs/{job}/retry"), Value::Null),
    ];
    insta::assert_snapshot!("jobs_ended", exchanges(&pipeline, requests).await);

    let jobs = json!({ "name": "Friday", "jobs": [{ "prompt": "nsfw", "custom_id": "one" }] });
    let submitted = exchanges(&pipeline, vec![(Method::POST, "/batches".to_owned(), jobs.clone())]).await;
    insta::assert_snapshot!("batch_queued", submitted);
    let batch = pipeline.submit_batch(&jobs).await;
    assert!(pipeline.work(batch.jobs.expect("its jobs")[0].id, 1).await);
    assert!(step(&pipeline, batch.id).await);
    let requests = vec![get(format!("/batches/{}", batch.id)), get(format!("/batches/{}/jobs", batch.id))];
    insta::assert_snapshot!("batch_ended", exchanges(&pipeline, requests).await);
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn answers_about_a_batch_from_a_file() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = |path: &str| (Method::POST, path.to_owned(), Value::Null);
    let get = |path: &str| (Method::GET, path.to_owned(), Value::Null);
    let order = json!({ "name": "Friday", "input": { "format": "csv" } });
    let submitted = exchanges(&pipeline, vec![(Method::POST, "/batches".to_owned(), order.clone())]).await;
    insta::assert_snapshot!("batch_awaiting_input", submitted);

    let batch = pipeline.submit_batch(&order).await;
    let path = format!("/batches/{}", batch.id);
    let start = post(&format!("{path}/start"));
    let early = exchanges(&pipeline, vec![start.clone()]).await;
    let upload = pipeline.http.put(&batch.upload.expect("it awaits its file").url);
    assert!(upload.body("prompt\nA heist\n").send().await.is_ok_and(|answer| answer.status().is_success()));
    let requests = vec![
        start,
        get(&path),
        get(&format!("{path}/faults")),
        get(&format!("{path}/results")),
        post(&format!("{path}/retry")),
        post(&format!("{path}/cancel")),
    ];
    let told = format!("{early}\n\n{}", exchanges(&pipeline, requests).await);
    insta::assert_snapshot!("batch_from_a_file", told);
    pipeline.stop().await;
}

#[tokio::test]
async fn answers_about_webhooks() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = |path: &str, body: Value| (Method::POST, path.to_owned(), body);
    let get = |path: &str| (Method::GET, path.to_owned(), Value::Null);
    let webhook = json!({ "url": "https://example.com/posters", "events": ["job.failed"] });
    let delivery = stored_for(EVERYONE, &pipeline, 410, std::time::Duration::from_secs(60)).await.id;
    let requests = vec![
        post("/jobs", json!({ "prompt": "A heist on the moon", "webhook": webhook })),
        get("/webhook-secret"),
        post("/webhook-secret/rotate", Value::Null),
        get(&format!("/deliveries/{delivery}")),
        get("/deliveries?status=pending"),
        post("/deliveries/replay", json!({ "since": "2026-01-01T00:00:00Z", "status": "failed" })),
        post(&format!("/deliveries/{delivery}/replay"), Value::Null),
    ];
    insta::assert_snapshot!("webhooks", exchanges(&pipeline, requests).await);
    let listed: Value = pipeline.get("/jobs").await.json().await.expect("a list");
    let job: JobId = listed["jobs"][0]["id"].as_str().expect("an id").parse().expect("an id");
    assert!(pipeline.work(job, 1).await);
    pipeline.stop().await;
}

#[tokio::test]
async fn answers_about_faults() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = |body: Value| (Method::POST, "/jobs".to_owned(), body);
    let get = |path: &str| (Method::GET, path.to_owned(), Value::Null);
    let requests = vec![
        post(json!({})),
        post(json!({ "prompt": " ", "seed": -1, "aspect_ratio": "3:1", "output_format": "gif", "sede": 7 })),
        post(json!({ "prompt": "A heist", "poster": { "tagline": "Nobody is listening" } })),
        post(json!({ "prompt": "A heist", "poster": { "title": "月" } })),
        (Method::POST, "/batches".to_owned(), json!({ "jobs": [] })),
        post(json!({ "prompt": "A heist", "webhook": { "url": "http://example.com", "events": ["batch.ended"] } })),
        (Method::POST, "/deliveries/replay".to_owned(), json!({ "until": "tomorrow" })),
        get("/jobs?limit=0&status=done"),
        get("/jobs?cursor=x"),
        get("/jobs/x"),
        get("/nowhere"),
        (Method::PUT, "/jobs".to_owned(), Value::Null),
    ];
    insta::assert_snapshot!("problems", exchanges(&pipeline, requests).await);
    pipeline.stop().await;
}

/// The output of a command with these arguments, on a terminal of a hundred columns.
async fn help(name: &str, arguments: &[&str]) -> String {
    let output = program(name).args(arguments).env("COLUMNS", "100").output().await;
    String::from_utf8(output.expect("it runs").stdout).expect("text")
}

#[tokio::test]
async fn helps_of_the_command_lines() {
    insta::assert_snapshot!("help_poster", help("poster", &["--help"]).await);
    for command in ["make", "batch", "list", "watch", "cancel", "retry", "download", "sheet", "listen", "doctor"] {
        insta::assert_snapshot!(format!("help_poster_{command}"), help("poster", &[command, "--help"]).await);
    }
    insta::assert_snapshot!("help_local", help("local", &["--help"]).await);
}

#[tokio::test]
async fn messages_of_the_command() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("bad.csv", "prompt,seed,sede\nA heist,x,1\n");
    desk.write("good.txt", "A heist\nnsfw\n");
    let mut told = String::new();
    for arguments in [
        ["make", "nsfw"].as_slice(),
        &["batch", "bad.csv"],
        &["batch", "missing.csv"],
        &["batch", "good.txt"],
        &["watch", "00000000-0000-4000-8000-000000000000"],
    ] {
        let said = desk.poster(arguments).await;
        writeln!(told, "poster {}\n{:?}\n{}\n{}", arguments.join(" "), said.code, said.words, said.shown)
            .expect("memory");
    }
    let directory = desk.path("").display().to_string();
    insta::assert_snapshot!("messages_of_poster", masked(&told.replace(&directory, "[directory]/")));
    desk.pipeline.stop().await;
}

/// The log of an invocation: levels and fields, without the metrics.
async fn log(pipeline: &Pipeline, function: &str, event: &Value) -> String {
    let log = invoke(function, &variables(pipeline, function), event).await.log;
    let lines = log.lines().filter_map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        without_measures(&mut line);
        let fields = line["fields"].as_object_mut()?;
        // Its length is random.
        fields.remove("verdict");
        Some(format!("{} {}", line["level"].as_str()?.to_owned(), line["fields"]))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn log_lines_of_the_functions() {
    let pipeline = Pipeline::without_event_sources().await;
    let body = |job| Ticket { job, queued_at: None, trace: None }.to_body();
    let painted = pipeline.submit("A heist on the moon").await.id;
    let filtered = pipeline.submit("nsfw").await.id;
    let mut told = String::new();
    for bodies in [body(painted), body(filtered), "not a ticket".to_owned()] {
        told += &log(&pipeline, "worker", &messages(&[bodies])).await;
        told += "\n";
    }
    for faults in ["throttle=1", "error=1", "deny=1"] {
        pipeline.model(faults);
        let job = pipeline.submit("A heist on the moon").await.id;
        told += &log(&pipeline, "worker", &messages(&[body(job)])).await;
        told += "\n";
        let canceled = pipeline.post(&format!("/jobs/{job}/cancel"), &Value::Null).await;
        assert_eq!(canceled.status(), StatusCode::OK);
    }
    pipeline.model("");
    let lost = pipeline.submit("A heist on the moon").await.id;
    told += &log(&pipeline, "dead_letter", &messages(&[body(lost)])).await;
    worker::handle(&pipeline.stack.apps().worker, ticket(lost, 1)).await.expect("it answers");
    insta::assert_snapshot!("log_lines", masked(&told));
    pipeline.stop().await;
}
