//! What callers get, over HTTP.

use reqwest::StatusCode;
use reqwest::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use serde_json::{Value, json};
use shared::JobId;
use shared::job::Status;
use shared::problem::type_of;
use tests::pipeline::Pipeline;

/// Posts a body as it is, with a content type if there is one, and returns the status and the problem.
async fn refused(pipeline: &Pipeline, kind: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut post = pipeline.http.post(format!("{}/jobs", pipeline.ready().api)).body(body);
    if let Some(kind) = kind {
        post = post.header(CONTENT_TYPE, kind);
    }
    let response = post.send().await.expect("the API answers");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Value = response.json().await.expect("a problem is JSON");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], type_of(problem["code"].as_str().expect("a code")));
    (status, problem)
}

#[tokio::test]
async fn problems_name_the_field_and_the_rule() {
    let pipeline = Pipeline::start().await;
    let json = Some("application/json");
    let long = json!({ "prompt": "x".repeat(10_001) }).to_string();
    for (body, pointer, rule) in [
        (r#"{"prompt": ""}"#, "/prompt", "must not be empty"),
        (r#"{"prompt": " \n "}"#, "/prompt", "must not be empty"),
        (r#"{"prompt": 7}"#, "/prompt", "must be a string, not a number"),
        (r#"{}"#, "/prompt", "is required"),
        (r#"{"prompt": null}"#, "/prompt", "is required"),
        (&long, "/prompt", "at most 10000 characters, but has 10001"),
        (r#"{"prompt": "x", "color": "red"}"#, "/color", "is not a field"),
        (r#"{"prompt": "x", "aspect_ratio": "7:5"}"#, "/aspect_ratio", "one of 2:3, 1:1"),
        (r#"{"prompt": "x", "seed": -1}"#, "/seed", "whole number from 1 to"),
        (r#"["prompt"]"#, "", "must be an object, not an array"),
    ] {
        let (status, problem) = refused(&pipeline, json, body.to_owned()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains(rule)), "{problem}");
    }
    for body in ["", "not JSON", "{", "\u{feff}{}", r#"{"prompt":"\ud800"}"#, r#"{"prompt":"a","prompt":"b"}"#] {
        let (status, problem) = refused(&pipeline, json, body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_json")), "{body}");
    }
    let (status, _) = refused(&pipeline, json, "[".repeat(100_000)).await;
    assert_eq!(status, 400);
    let (status, _) = refused(&pipeline, json, b"{\"prompt\":\"\xff\"}".to_vec()).await;
    assert_eq!(status, 400);
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let (status, problem) = refused(&pipeline, kind, r#"{"prompt":"x"}"#).await;
        assert_eq!((status, &problem["code"]), (415, &json!("unsupported_media_type")));
    }
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0, "nothing was taken in");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_size_of_a_body_is_its_size_in_the_functions_event() {
    let pipeline = Pipeline::start().await;
    let json = Some("application/json");
    let body = |text: &str, bytes: usize| format!(r#"{{"prompt":"{}"}}"#, text.repeat(bytes / text.len()));
    // A quote, a line feed and other raw white space each take two bytes in the event.
    for large in
        [body("x", 5_500_000), body(r#"\""#, 2_750_000), body(r"\n", 3_700_000), "\t".repeat(2_750_000) + &body("x", 1)]
    {
        let (status, problem) = refused(&pipeline, json, large).await;
        assert_eq!((status, &problem["code"]), (413, &json!("payload_too_large")));
    }
    // More than Lambda allows, and more than API Gateway allows.
    for large in [body("x", 6_300_000), body(r#"\""#, 3_200_000), body("x", 11_000_000)] {
        let post =
            pipeline.http.post(format!("{}/jobs", pipeline.ready().api)).header(CONTENT_TYPE, "application/json");
        let response = post.body(large).send().await.expect("the API answers");
        assert_eq!(response.status(), 413);
        assert_eq!(response.text().await.expect("a body"), r#"{"message":"Request Too Long"}"#);
    }
    for (large, rule) in [
        (body("x", 5_499_900), "has 5499900"),
        (body(r#"\""#, 2_749_900), "has 1374950"),
        (body("影", 5_499_900), "has 1833300"),
    ] {
        let (status, problem) = refused(&pipeline, json, large).await;
        assert_eq!(status, 400, "{rule}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(rule)), "{problem}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_body_with_many_faults_gets_a_small_answer() {
    let pipeline = Pipeline::without_event_sources().await;
    let fields = |count: usize| (0..count).map(|i| format!(r#","a{i}":1"#)).collect::<String>();
    let (name, twice) = ("n".repeat(5_400_000), "\u{200b}".repeat(400_000));
    let credits = format!("[{}]", vec![format!(r#"{{"name":"A"{}}}"#, fields(90)); 16].join(","));
    let job = format!(r#"{{"prompt":"x","{name}":1}}"#);
    for (path, body, count) in [
        ("jobs", format!(r#"{{"prompt":"x"{}}}"#, fields(60_000)), 100),
        ("jobs", format!(r#"{{"prompt":"x"{}}}"#, fields(300_000)), 1),
        ("jobs", format!(r#"{{"prompt":"x","list":[{}1]}}"#, "1,".repeat(2_700_000)), 1),
        ("jobs", job.clone(), 1),
        ("jobs", format!(r#"{{"prompt":"x","{twice}":1,"{twice}":1}}"#), 0),
        ("jobs", format!(r#"{{"prompt":"x","metadata":{{"{name}":1}}}}"#), 1),
        ("jobs", format!(r#"{{"prompt":"x","metadata":{{"{twice}\u0000":"1"}}}}"#), 1),
        ("jobs", format!(r#"{{"prompt":"x","poster":{{"title":"A","credits":{credits}}}}}"#), 100),
        ("batches", format!(r#"{{"jobs":[{job}]}}"#), 1),
        ("batches", format!(r#"{{"jobs":[{{"prompt":"x"{}}}]}}"#, fields(60_000)), 100),
        ("batches", format!(r#"{{"defaults":{{"a":1{}}},"jobs":[]}}"#, fields(60_000)), 100),
        ("batches", format!(r#"{{"jobs":[{}7]}}"#, "7,".repeat(900)), 100),
        ("batches", format!(r#"{{"jobs":[{{"prompt":"x"}}]{}}}"#, fields(60_000)), 100),
    ] {
        let post = pipeline.http.post(format!("{}/{path}", pipeline.ready().api)).body(body.clone());
        let response = post.header(CONTENT_TYPE, "application/json").send().await.expect("the API answers");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body:.80}");
        let answer = response.bytes().await.expect("a body");
        assert!(answer.len() < 60_000, "{} bytes to {body:.80}", answer.len());
        let problem: Value = serde_json::from_slice(&answer).expect("a problem");
        assert_eq!(problem["errors"].as_array().map_or(0, Vec::len), count, "{body:.80}");
        let more = problem["detail"].as_str().is_some_and(|detail| detail.contains("may be more faults"));
        assert_eq!(more, count == 100, "{body:.80}");
    }
    let query = (0..3000).map(|i| format!("a{i}&")).collect::<String>();
    let response = pipeline.get(&format!("/jobs?{query}")).await;
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(100));
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0, "nothing was taken in");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_is_405() {
    let pipeline = Pipeline::start().await;
    let unknown = JobId::new().to_string();
    let mut bodies = Vec::new();
    for id in [
        unknown.clone(),
        unknown.to_uppercase(),
        "x".to_owned(),
        "%00".to_owned(),
        "..%2f".to_owned(),
        "%FF".to_owned(),
    ] {
        let response = pipeline.get(&format!("/jobs/{id}")).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{id}");
        bodies.push(response.text().await.expect("a body"));
    }
    bodies.push(pipeline.get("/batches/%FF/jobs").await.text().await.expect("a body"));
    assert!(bodies.iter().all(|body| *body == bodies[0]), "an answer tells which ids could exist");
    assert_eq!(pipeline.get("/posters").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(pipeline.get("//jobs").await.status(), StatusCode::NOT_FOUND);
    let response = pipeline.http.delete(format!("{}/jobs", pipeline.ready().api)).send().await.expect("it answers");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[ALLOW], "GET, HEAD, POST");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_accepted_job_says_where_it_is_and_when_to_poll() {
    let pipeline = Pipeline::start().await;
    let response = pipeline.post("/jobs", &json!({ "prompt": "A heist on the moon", "seed": 7 })).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()[LOCATION].to_str().expect("an address").to_owned();
    let wait: u64 = response.headers()[RETRY_AFTER].to_str().expect("a number").parse().expect("a number");
    assert!((1..=30).contains(&wait));
    let job: Value = response.json().await.expect("a job");
    assert_eq!(location, format!("{}/jobs/{}", pipeline.ready().api, job["id"].as_str().expect("an id")));
    assert_eq!((&job["status"], &job["seed"], &job["aspect_ratio"]), (&json!("queued"), &json!(7), &json!("2:3")));
    let id = job["id"].as_str().expect("an id").parse().expect("an id");
    let ended = pipeline.ended(id).await;
    assert_eq!(ended.status, Status::Succeeded);
    assert!(pipeline.get(&format!("/jobs/{id}")).await.headers().get(RETRY_AFTER).is_none());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_repeated_key_always_means_the_same_job() {
    let pipeline = Pipeline::start().await;
    let post = |prompt: &str| {
        let post = pipeline.http.post(format!("{}/jobs", pipeline.ready().api));
        post.header("Idempotency-Key", "friday-1").json(&json!({ "prompt": prompt })).send()
    };
    let answers = futures_util::future::join_all((0..50).map(|_| post("A heist on the moon"))).await;
    let mut ids = Vec::new();
    let mut first = 0;
    for answer in answers {
        let answer = answer.expect("the API answers");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        first += usize::from(answer.headers().get("idempotency-replayed").is_none());
        ids.push(answer.json::<Value>().await.expect("a job")["id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(first, 1, "one answer is the first, the others are replays");
    let id = ids[0].as_str().expect("an id").parse().expect("an id");
    assert_eq!(pipeline.ended(id).await.status, Status::Succeeded);

    let other = post("A heist on Mars").await.expect("the API answers");
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json::<Value>().await.expect("a problem")["code"], "idempotency_key_reused");
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn line_endings_do_not_change_a_request() {
    let pipeline = Pipeline::start().await;
    for (path, id) in [("jobs", "/id"), ("batches", "/jobs/0/id")] {
        let mut ids = Vec::new();
        for end in ["\r\n", "\n", "\r"] {
            let lines = format!("A heist{end}on the moon");
            let job = json!({ "prompt": lines, "negative_prompt": lines, "metadata": { "note": lines } });
            let body = if path == "jobs" { job } else { json!({ "jobs": [job] }) };
            let post = pipeline.http.post(format!("{}/{path}", pipeline.ready().api)).json(&body);
            let answer = post.header("Idempotency-Key", "lines").send().await.expect("the API answers");
            assert_eq!(answer.status(), StatusCode::ACCEPTED, "{path} {end:?}");
            let answer: Value = answer.json().await.expect("JSON");
            ids.push(answer.pointer(id).and_then(Value::as_str).expect("an id").to_owned());
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let job = pipeline.ended(ids[0].parse().expect("an id")).await;
        assert_eq!(job.prompt.as_str(), "A heist\non the moon");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_key_that_breaks_its_rule_is_refused() {
    let pipeline = Pipeline::start().await;
    for key in [String::new(), "a b".to_owned(), "é".to_owned(), "k".repeat(256)] {
        let post = pipeline.http.post(format!("{}/jobs", pipeline.ready().api)).header("Idempotency-Key", &key);
        let response = post.json(&json!({ "prompt": "x" })).send().await.expect("the API answers");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{key}");
        assert_eq!(response.json::<Value>().await.expect("a problem")["code"], "invalid_idempotency_key");
    }
    pipeline.stop().await;
}
