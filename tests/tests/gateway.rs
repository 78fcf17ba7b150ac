//! What holds for every request, whatever it asks for: paths, links, HEAD, and who may ask.

use std::time::Duration;

use local::Options;
use local::bedrock::Behaviour;
use reqwest::header::{ALLOW, CONTENT_LENGTH, DATE, HOST, IF_NONE_MATCH, LINK, LOCATION, ORIGIN};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use shared::api::{JobView, ROUTES};
use shared::job::Status;
use tests::pipeline::{Pipeline, ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_slash_at_the_end_or_an_escape_changes_neither_the_answer_nor_its_links() {
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
async fn links_name_the_address_that_the_operator_has_set() {
    let parameters = [("PublicUrl".to_owned(), "https://posters.example.com/make".to_owned())].into();
    let pipeline = Pipeline::with(Options { parameters, ..Options::default() }).await;
    let job = pipeline.submit("A heist on the moon").await;
    let address = format!("https://posters.example.com/make/jobs/{}", job.id);
    assert_eq!((&job.links.this, &pipeline.ended(job.id).await.links.this), (&address, &address));
    pipeline.stop().await;
}

/// What of an answer must be the same for GET and HEAD.
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
    let ask = |method: Method, path: &str| client.request(method, format!("{}{path}", pipeline.ready().api)).send();
    for (path, methods) in ROUTES {
        let id = if path.starts_with("/jobs") { job.to_string() } else { batch.id.to_string() };
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
async fn only_get_waits_for_news() {
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
async fn no_port_answers_under_a_name_that_is_not_this_machines() {
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
    // A signature that anybody can make up does not help.
    let list = pipeline.http.post(&ready.dynamodb).header(HOST, "evil.example").body("{}");
    let list = list.header("x-amz-target", "DynamoDB_20120810.ListTables");
    let list = list.header("authorization", "AWS4-HMAC-SHA256 Credential=x/20261127/us-west-2/dynamodb/aws4_request");
    assert_eq!(list.send().await.expect("it answers").status(), StatusCode::FORBIDDEN);
    let url = job.image.expect("a picture").url;
    assert_eq!(pipeline.http.get(url).send().await.expect("S3 answers").status(), StatusCode::OK);
    pipeline.stop().await;
}

/// What a server answers to these bytes: its first line.
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

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_released_job_and_no_picture() {
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
async fn one_odd_job_spoils_no_estimate() {
    let pipeline = Pipeline::without_event_sources().await;
    let worker = &pipeline.stack.apps().worker;
    let seconds = |job: &JobView| job.finished_at.expect("an end").since(job.started_at.expect("a start")).as_secs();
    // A painting during which the clock moves on, as when a laptop sleeps, and many looks at what came of it.
    for jump in [3_600, 80] {
        let job = pipeline.submit("A heist on the moon").await;
        pipeline.stack.bedrock().behave(Behaviour {
            latency: Duration::from_millis(300),
            plain: true,
            ..Behaviour::default()
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
async fn a_painting_that_is_under_way_is_awaited_by_the_stop() {
    let data = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(data.path().to_owned()), ..Options::default() };
    let pipeline = Pipeline::with(options()).await;
    let latency = Duration::from_secs(11);
    pipeline.stack.bedrock().behave(Behaviour { latency, plain: true, ..Behaviour::default() });
    let job = pipeline.submit("A heist on the moon").await;
    pipeline.job_when(job.id, |job| job.status == Status::Running).await;
    assert!(pipeline.stack.longest_painting() > latency);
    pipeline.stack.stop().await;

    let again = Pipeline::with(Options { event_sources: false, ..options() }).await;
    assert_eq!(again.job(job.id).await.status, Status::Succeeded);
    again.stop().await;
}
