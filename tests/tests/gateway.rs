//! Rules for every request: paths, links, HEAD, compression, and who may call.

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use local::bedrock::Behavior;
use local::{EVERYONE, Options};
use reqwest::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HOST, HeaderName,
    IF_NONE_MATCH, LINK, LOCATION, ORIGIN, VARY,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use shared::api::{JobView, ROUTES};
use shared::job::Status;
use tests::pipeline::{Pipeline, ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::batch_function::step;
use crate::webhooks_api::stored_for;

#[tokio::test]
async fn a_trailing_slash_or_an_escape_changes_neither_the_answer_nor_its_links() {
    let pipeline = Pipeline::start().await;
    let api = &pipeline.ready().api;
    let submitted = pipeline.post("/jobs/", &json!({ "prompt": "A heist on the moon" })).await;
    assert_eq!(submitted.status(), StatusCode::ACCEPTED);
    let location = submitted.headers()[LOCATION].to_str().expect("text").to_owned();
    let job: JobView = submitted.json().await.expect("a job");
    assert_eq!(location, format!("{api}/jobs/{}", job.id));
    let job = pipeline.ended(job.id).await;
    assert_eq!(job.links.this, location);
    let escaped = job.id.to_string().replace('-', "%2D");
    for path in [format!("/jobs/{}/", job.id), format!("/jobs/{escaped}"), format!("/jobs/{escaped}/")] {
        let same: JobView = pipeline.get(&path).await.json().await.expect("a job");
        assert_eq!((same.id, same.links.this), (job.id, location.clone()), "{path}");
    }
    pipeline.ended(pipeline.submit("A heist in Venice").await.id).await;
    let page = pipeline.get("/jobs/?limit=1").await;
    let link = page.headers()[LINK].to_str().expect("text");
    assert!(link.starts_with(&format!("<{api}/jobs?limit=1&cursor=")), "{link}");
    pipeline.stop().await;
}

#[tokio::test]
async fn links_use_the_address_that_the_operator_has_set() {
    let parameters = [("PublicUrl".to_owned(), "https://posters.example.com/make".to_owned())].into();
    let pipeline = Pipeline::with(Options { parameters, ..Options::default() }).await;
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("https://posters.example.com/make/jobs/{}", job.id);
    assert_eq!((&job.links.this, &pipeline.ended(job.id).await.links.this), (&address, &address));
    pipeline.stop().await;
}

/// The parts of an answer that must be the same for GET and HEAD.
fn head(response: &Response) -> (StatusCode, Vec<(String, String)>) {
    let headers = response.headers().iter().filter(|(name, _)| **name != DATE && **name != LOCATION);
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    let mut headers: Vec<_> = headers.collect();
    headers.sort();
    (response.status(), headers)
}

#[tokio::test]
async fn head_is_answered_like_get_without_the_body() {
    let pipeline = Pipeline::start().await;
    let client = Client::builder().redirect(Policy::none()).build().expect("a client");
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "A heist on the moon" }] })).await;
    let job = batch.jobs.as_ref().expect("its jobs")[0].id;
    pipeline.ended(job).await;
    let delivery = stored_for(EVERYONE, &pipeline, 200, Duration::from_secs(60)).await.id;
    let ask = |method: Method, path: &str| client.request(method, format!("{}{path}", pipeline.ready().api)).send();
    for (path, methods) in ROUTES {
        let id = match path.split('/').nth(1) {
            Some("jobs") => job.to_string(),
            Some("deliveries") => delivery.to_string(),
            _ => batch.id.to_string(),
        };
        let address = path.replace("{id}", &id);
        let without = ask(Method::HEAD, &address).await.expect("the API answers");
        if !methods.contains(&"GET") {
            assert_eq!(without.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert!(!without.headers()[ALLOW].to_str().expect("text").contains("HEAD"), "{path}");
            continue;
        }
        let with = ask(Method::GET, &address).await.expect("the API answers");
        assert_eq!(head(&without), head(&with), "{path}");
        let length = with.headers().get(CONTENT_LENGTH).map(|length| length.to_str().expect("text").to_owned());
        let body = with.bytes().await.expect("a body");
        assert_eq!(length, Some(body.len().to_string()), "{path}");
        assert!(without.bytes().await.expect("no body").is_empty(), "{path}");
        let other = ask(Method::DELETE, &address).await.expect("the API answers");
        assert!(other.headers()[ALLOW].to_str().expect("text").starts_with("GET, HEAD"), "{path}");
    }
    let unknown = ask(Method::HEAD, &format!("/jobs/{}", shared::JobId::new())).await.expect("the API answers");
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let page = client.head(&pipeline.ready().api).header(IF_NONE_MATCH, "*").send().await.expect("the API answers");
    assert_eq!(page.status(), StatusCode::NOT_MODIFIED);
    pipeline.stop().await;
}

#[tokio::test]
async fn only_get_waits_for_a_change() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("{}/jobs/{}", pipeline.ready().api, job.id);
    let head = pipeline.http.head(address).header("prefer", "wait=20").send();
    let head = tokio::time::timeout(Duration::from_secs(15), head).await.expect("nobody waits").expect("it answers");
    assert_eq!(head.status(), StatusCode::OK);
    assert!(!head.headers().contains_key("preference-applied"));
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    pipeline.stop().await;
}

#[tokio::test]
async fn no_port_answers_under_the_name_of_another_host() {
    let pipeline = Pipeline::start().await;
    let ready = pipeline.ready();
    let job = pipeline.ended(pipeline.submit("A heist on the moon").await.id).await;
    for address in [&ready.api, &ready.s3, &ready.sqs, &ready.dynamodb, &ready.bedrock] {
        let port = address.rsplit_once(':').expect("a port").1;
        for host in ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1.evil:{port}")] {
            let post = pipeline.http.post(address).header(HOST, &host).body("{}").send().await.expect("it answers");
            assert_eq!(post.status(), StatusCode::FORBIDDEN, "{address} as {host}");
            let get = pipeline.http.get(address).header(HOST, &host).send().await.expect("it answers");
            let problem: Value = get.json().await.expect("a problem");
            assert_eq!(problem["code"], "foreign_host", "{address} as {host}");
        }
        for host in [format!("localhost:{port}"), format!("[::1]:{port}"), "127.0.0.1:8080".to_owned()] {
            let get = pipeline.http.get(address).header(HOST, &host).send().await.expect("it answers");
            let body = get.text().await.expect("a body");
            assert!(!body.contains("foreign_host"), "{address} as {host}: {body}");
        }
    }
    // A made-up signature does not help.
    let list = pipeline.http.post(&ready.dynamodb).header(HOST, "evil.example").body("{}");
    let list = list.header("x-amz-target", "DynamoDB_20120810.ListTables");
    let list = list.header("authorization", "AWS4-HMAC-SHA256 Credential=x/20261127/us-west-2/dynamodb/aws4_request");
    assert_eq!(list.send().await.expect("it answers").status(), StatusCode::FORBIDDEN);
    let url = job.image.expect("a picture").url;
    assert_eq!(pipeline.http.get(url).send().await.expect("S3 answers").status(), StatusCode::OK);
    pipeline.stop().await;
}

/// The first line of a server's answer to these bytes.
async fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers and closes");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_names_one_host() {
    let pipeline = Pipeline::start().await;
    let ready = pipeline.ready();
    for address in [&ready.api, &ready.s3, &ready.sqs, &ready.dynamodb, &ready.bedrock] {
        for hosts in ["", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", "Host: 127.0.0.1\r\nHost: evil.example\r\n"] {
            let answer = raw(address, &format!("GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
            assert_eq!(answer, "HTTP/1.1 400 Bad Request", "{address}: {hosts:?}");
        }
    }
    let answer = raw(&ready.api, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 200 OK");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let pipeline = Pipeline::without_event_sources().await;
    let api = &pipeline.ready().api;
    let job = pipeline.submit("A heist on the moon").await;
    let cancel =
        |origin: &str| pipeline.http.post(format!("{api}/jobs/{}/cancel", job.id)).header(ORIGIN, origin).send();
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"] {
        let refused = cancel(origin).await.expect("the API answers");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{origin}");
        assert_eq!(refused.json::<Value>().await.expect("a problem")["code"], "foreign_origin");
    }
    assert_eq!(pipeline.job(job.id).await.status, Status::Queued);
    let own = cancel(api).await.expect("the API answers");
    assert_eq!(own.json::<JobView>().await.expect("a job").status, Status::Canceled);
    pipeline.stop().await;
}

/// The names in a header whose value is a list, in lower case.
fn listed(response: &Response, name: HeaderName) -> Vec<String> {
    let list = response.headers().get(&name).map(|value| value.to_str().expect("text").to_lowercase());
    list.unwrap_or_default().split(',').map(|part| part.trim().to_owned()).collect()
}

/// The preflight request of a page of `origin` before a POST with an API key.
async fn preflight(pipeline: &Pipeline, path: &str, origin: &str) -> Response {
    let ask = pipeline.http.request(Method::OPTIONS, format!("{}{path}", pipeline.ready().api)).header(ORIGIN, origin);
    let ask = ask.header(ACCESS_CONTROL_REQUEST_METHOD, "POST");
    ask.header(ACCESS_CONTROL_REQUEST_HEADERS, "content-type,x-api-key").send().await.expect("the API answers")
}

fn allowing(origin: &str) -> Options {
    Options {
        parameters: [("AllowedOrigin".to_owned(), origin.to_owned())].into(),
        api_keys: [("alice-key".to_owned(), "alice".to_owned())].into(),
        ..Options::default()
    }
}

const APP: &str = "https://app.example.com";

#[tokio::test]
async fn a_page_of_the_allowed_origin_may_send_every_request() {
    let pipeline = Pipeline::with(allowing(APP)).await;
    for (path, methods) in ROUTES {
        let answer = preflight(&pipeline, &path.replace("{id}", "x"), APP).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{path}");
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], APP, "{path}");
        assert_eq!(answer.headers()[ACCESS_CONTROL_MAX_AGE], "7200", "{path}");
        let allowed = listed(&answer, ACCESS_CONTROL_ALLOW_METHODS);
        assert!(methods.iter().all(|method| allowed.contains(&method.to_lowercase())), "{path}: {allowed:?}");
        let allowed = listed(&answer, ACCESS_CONTROL_ALLOW_HEADERS);
        let ours = ["content-type", "idempotency-key", "if-none-match", "prefer"];
        let credentials = ["x-api-key", "authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];
        for name in [&ours[..], &credentials].concat() {
            assert!(allowed.contains(&name.to_owned()), "{path}: {name}");
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_page_of_the_allowed_origin_may_read_every_answer_and_its_headers() {
    let pipeline = Pipeline::with(allowing(APP)).await;
    let client = Client::builder().redirect(Policy::none()).build().expect("a client");
    let ask = |method: Method, path: &str| {
        let ask = client.request(method, format!("{}{path}", pipeline.ready().api));
        ask.header(ORIGIN, APP)
            .header("x-api-key", "alice-key")
            .header("idempotency-key", "a")
            .header("prefer", "wait=20")
    };
    let heist = json!({ "prompt": "A heist on the moon" });
    let submit = || ask(Method::POST, "/jobs").json(&heist).send();
    let [first, again] = [submit().await.expect("it answers"), submit().await.expect("it answers")];
    let job = again.headers()[LOCATION].to_str().expect("text").rsplit_once('/').expect("an id").1.to_owned();
    let job = format!("/jobs/{job}");
    ask(Method::POST, "/jobs").header("idempotency-key", "b").json(&heist).send().await.expect("it answers");
    let mut answers = vec![(StatusCode::ACCEPTED, first), (StatusCode::ACCEPTED, again)];
    for (status, request) in [
        (StatusCode::OK, ask(Method::GET, &job)),
        (StatusCode::NOT_MODIFIED, ask(Method::GET, &job).header(IF_NONE_MATCH, "*")),
        (StatusCode::FOUND, ask(Method::GET, &format!("{job}/image"))),
        (StatusCode::OK, ask(Method::GET, "/jobs?limit=1")),
        (StatusCode::OK, ask(Method::GET, "/")),
        (StatusCode::OK, ask(Method::GET, "/health")),
        (StatusCode::BAD_REQUEST, ask(Method::POST, "/jobs").json(&json!({}))),
        (StatusCode::METHOD_NOT_ALLOWED, ask(Method::DELETE, &job)),
        (StatusCode::NOT_FOUND, ask(Method::GET, "/nowhere")),
        (StatusCode::FORBIDDEN, client.get(format!("{}/jobs", pipeline.ready().api)).header(ORIGIN, APP)),
    ] {
        answers.push((status, request.send().await.expect("the API answers")));
    }
    // Headers that a page may always read (Fetch, "CORS-safelisted response-header name"), and headers that no page needs.
    let safe = ["cache-control", "content-length", "content-type", "access-control-allow-origin"];
    let unneeded = ["access-control-expose-headers", "content-security-policy", "date", "referrer-policy", "vary"];
    let unneeded = [&unneeded[..], &["x-content-type-options"]].concat();
    for (status, answer) in answers {
        assert_eq!(answer.status(), status, "{}", answer.url());
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], APP, "{}", answer.url());
        let exposed = listed(&answer, ACCESS_CONTROL_EXPOSE_HEADERS);
        for name in answer.headers().keys().map(HeaderName::as_str) {
            let known = safe.contains(&name) || unneeded.contains(&name) || exposed.contains(&name.to_owned());
            assert!(known, "{} has {name}, which no page can read", answer.url());
        }
        // The answer is the same for every origin.
        assert!(!listed(&answer, VARY).contains(&"origin".to_owned()), "{}", answer.url());
    }
    for foreign in ["https://app.example.com.evil.example", "http://app.example.com", "null"] {
        let refused = preflight(&pipeline, "/jobs", foreign).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{foreign}");
        assert!(!refused.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{foreign}");
    }
    pipeline.stop().await;

    let open = Pipeline::with(allowing("*")).await;
    let answer = preflight(&open, "/jobs", "https://evil.example").await;
    assert_eq!(
        (answer.status(), answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN].as_bytes()),
        (StatusCode::NO_CONTENT, &b"*"[..])
    );
    open.stop().await;
}

#[tokio::test]
async fn without_an_allowed_origin_no_answer_names_one() {
    let pipeline = Pipeline::with(Options { parameters: [].into(), ..allowing("") }).await;
    for (path, _) in ROUTES {
        let address = format!("{}{}", pipeline.ready().api, path.replace("{id}", "x"));
        for (method, key, status) in [
            (Method::OPTIONS, "", Some(StatusCode::FORBIDDEN)),
            (Method::OPTIONS, "alice-key", Some(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "", None),
            (Method::GET, "alice-key", None),
        ] {
            let ask = pipeline.http.request(method.clone(), &address).header("x-api-key", key);
            let answer = ask.send().await.expect("the API answers");
            assert!(status.is_none_or(|status| answer.status() == status), "{method} {path}: {}", answer.status());
            let mut names = answer.headers().keys().map(HeaderName::as_str);
            assert!(!names.any(|name| name.starts_with("access-control-")), "{method} {path}");
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn large_answers_are_compressed_for_clients_that_accept_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let jobs: Vec<_> = (0..100).map(|number| json!({ "prompt": format!("The heist, part {number}") })).collect();
    let batch = pipeline.submit_batch(&json!({ "jobs": jobs })).await.id;
    // A job that has ended does not change.
    let canceled = pipeline.post(&format!("/batches/{batch}/cancel"), &json!({})).await;
    assert_eq!(canceled.status(), StatusCode::ACCEPTED);
    assert!(step(&pipeline, batch).await);
    let ask = |method: Method, path: &str, coding: Option<&str>| {
        let ask = pipeline.http.request(method, format!("{}{path}", pipeline.ready().api));
        coding.map_or(ask.try_clone().expect("a request"), |coding| ask.header(ACCEPT_ENCODING, coding)).send()
    };
    for path in [format!("/batches/{batch}/jobs?limit=100"), "/".to_owned()] {
        let packed = ask(Method::GET, &path, Some("gzip, deflate, br")).await.expect("it answers");
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip", "{path}");
        let without = ask(Method::HEAD, &path, Some("gzip")).await.expect("it answers");
        assert_eq!(head(&without), head(&packed), "{path}");
        let packed = packed.bytes().await.expect("a body");
        for coding in [None, Some("identity"), Some("br"), Some("gzip;q=0")] {
            let plain = ask(Method::GET, &path, coding).await.expect("it answers");
            assert!(!plain.headers().contains_key(CONTENT_ENCODING), "{path}: {coding:?}");
            let plain = plain.bytes().await.expect("a body");
            let mut unpacked = Vec::new();
            GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("it is gzip");
            assert_eq!(unpacked, plain, "{path}");
            assert!(packed.len() * 3 < plain.len(), "{path}: {} of {}", packed.len(), plain.len());
        }
    }
    let small = ask(Method::GET, "/health", Some("gzip")).await.expect("it answers");
    assert!(!small.headers().contains_key(CONTENT_ENCODING));
    // Caches may keep the page, and must not send a compressed copy to clients that cannot read it.
    let page = ask(Method::GET, "/", None).await.expect("it answers");
    assert_eq!(page.headers()[VARY], "Accept-Encoding");
    assert!(page.headers()[ETAG].as_bytes().starts_with(b"W/"), "one tag is for two forms of the page");

    let mut body = GzEncoder::new(Vec::new(), Compression::default());
    body.write_all(br#"{"prompt":"A heist on the moon"}"#).expect("memory");
    let post = pipeline.http.post(format!("{}/jobs", pipeline.ready().api)).body(body.finish().expect("memory"));
    let post = post.header(CONTENT_TYPE, "application/json").header(CONTENT_ENCODING, "gzip");
    assert_eq!(post.send().await.expect("it answers").status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_delays_no_released_job_and_extends_no_url() {
    let pipeline = Pipeline::without_event_sources().await;
    let worker = &pipeline.stack.apps().worker;
    let hour = Duration::from_secs(3_600);
    pipeline.model("throttle=1");
    let job = pipeline.submit("A heist on the moon").await;
    worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
    pipeline.clock.set_back(hour);
    pipeline.model("");
    worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
    let ended = pipeline.job(job.id).await;
    assert_eq!(ended.status, Status::Succeeded);

    // The saved URL was signed at what is now an hour ahead.
    pipeline.clock.set_back(hour);
    let ended = pipeline.job(job.id).await;
    let life = ended.image.expect("a picture").url_expires_at.since(pipeline.clock.now());
    assert!(life <= hour, "the URL was signed in the future: it has {life:?} to live");
    pipeline.stop().await;
}

#[tokio::test]
async fn one_odd_job_does_not_spoil_the_estimate() {
    let pipeline = Pipeline::without_event_sources().await;
    let worker = &pipeline.stack.apps().worker;
    let seconds = |job: &JobView| job.finished_at.expect("an end").since(job.started_at.expect("a start")).as_secs();
    // The clock jumps during a painting, as when a laptop sleeps, and the job is read many times.
    for jump in [3_600, 80] {
        let job = pipeline.submit("A heist on the moon").await;
        pipeline.stack.bedrock().behave(Behavior {
            latency: Duration::from_millis(300),
            plain: true,
            ..Behavior::default()
        });
        let asleep = async {
            while pipeline.job(job.id).await.status == Status::Queued {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            pipeline.clock.advance(Duration::from_secs(jump));
        };
        let (worked, ()) = tokio::join!(worker::handle(worker, ticket(job.id, 1)), asleep);
        worked.expect("the worker answers");
        pipeline.model("");
        assert!(seconds(&pipeline.job(job.id).await) >= jump);
        for _ in 0..20 {
            pipeline.job(job.id).await;
        }
        for _ in 0..2 {
            let quick = pipeline.submit("A heist in Venice").await;
            worker::handle(worker, ticket(quick.id, 1)).await.expect("the worker answers");
            pipeline.job(quick.id).await;
        }
    }
    let mut waiting = Vec::new();
    for number in 0..30 {
        waiting.push(pipeline.submit(&format!("The heist, part {number}")).await);
    }
    let last = pipeline.job(waiting[29].id).await.queue.expect("it waits");
    let wait = last.estimated_start_at.since(pipeline.clock.now()).as_secs();
    assert!(wait <= 5, "quick paintings are estimated at {wait} s");
    for job in waiting {
        worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_a_painting_in_progress() {
    let data = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(data.path().to_owned()), ..Options::default() };
    let pipeline = Pipeline::with(options()).await;
    let latency = Duration::from_secs(11);
    pipeline.stack.bedrock().behave(Behavior { latency, plain: true, ..Behavior::default() });
    let job = pipeline.submit("A heist on the moon").await;
    pipeline.job_when(job.id, |job| job.status == Status::Running).await;
    assert!(pipeline.stack.longest_painting() > latency);
    pipeline.stack.stop().await;

    let again = Pipeline::with(Options { event_sources: false, ..options() }).await;
    assert_eq!(again.job(job.id).await.status, Status::Succeeded);
    again.stop().await;
}
