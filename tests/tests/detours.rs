//! The command `poster` when the service fails or answers in unusual ways.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use local::Options;
use reqwest::Client;
use serde_json::{Value, json};
use tests::pipeline::Pipeline;
use tokio::net::TcpListener;

use crate::cli::{Desk, Told, files, told};

/// An answer of the service.
struct Answer {
    status: StatusCode,
    /// In seconds.
    retry_after: u64,
    body: Value,
}

/// A proxy of the service that changes answers.
#[derive(Clone)]
struct Way {
    address: String,
    to: String,
    http: Client,
    /// The requests so far, each as its method and its path.
    asked: Arc<Mutex<Vec<String>>>,
    change: Arc<Change>,
}

/// Changes the answer to a request, given the requests before it.
type Change = dyn Fn(&str, &[String], &mut Answer) + Send + Sync;

impl Way {
    async fn to(pipeline: &Pipeline, change: impl Fn(&str, &[String], &mut Answer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let way = Self {
            address: format!("http://{}", listener.local_addr().expect("a bound address")),
            to: pipeline.ready().api.clone(),
            http: Client::new(),
            asked: Arc::default(),
            change: Arc::new(change),
        };
        tokio::spawn(axum::serve(listener, Router::new().fallback(forward).with_state(way.clone())).into_future());
        way
    }

    async fn poster(&self, desk: &Desk, arguments: &[&str]) -> Told {
        told(desk.command(arguments).env("POSTER_API", &self.address).output().await.expect("it runs"))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no one panicked").clone()
    }
}

async fn forward(State(way): State<Way>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the request comes whole");
    let address = format!("{}{}", way.to, parts.uri);
    let answer = way.http.request(parts.method.clone(), address).headers(parts.headers).body(body).send().await;
    let answer = answer.expect("the service answers");
    let status = answer.status();
    let mut answer = Answer { status, retry_after: 0, body: answer.json().await.expect("it is JSON") };
    let request = format!("{} {}", parts.method, parts.uri.path());
    let mut asked = way.asked.lock().expect("no one panicked");
    (way.change)(&request, &asked, &mut answer);
    asked.push(request);
    (answer.status, [(header::RETRY_AFTER, answer.retry_after.to_string())], Json(answer.body)).into_response()
}

fn not_found(answer: &mut Answer) {
    answer.status = StatusCode::NOT_FOUND;
    answer.body = json!({
        "type": "urn:uuid:5fc6eb8f-32fb-4a1a-adb4-10acaec19e66#not_found", "title": "Not found", "status": 404, "code": "not_found",
        "detail": "There is no such job or batch.",
    });
}

#[tokio::test]
async fn each_batch_is_polled_as_often_as_the_service_says() {
    let desk = Desk::new(Pipeline::without_event_sources().await).await;
    let batch = json!({ "jobs": [{ "prompt": "A heist" }] });
    let [quick, slow] = [desk.pipeline.submit_batch(&batch).await.id, desk.pipeline.submit_batch(&batch).await.id];
    let [of_quick, of_slow] = [quick, slow].map(|id| format!("GET /batches/{id}"));
    let (looks, other_looks) = (of_quick.clone(), of_slow.clone());
    let way = Way::to(&desk.pipeline, move |request, asked, answer| {
        let before = asked.iter().filter(|asked| *asked == request).count();
        answer.retry_after = if request == other_looks { 2 } else { 0 };
        if before >= if request == looks { 3 } else { 1 } {
            answer.body["status"] = "completed".into();
        }
    })
    .await;
    let watched = way.poster(&desk, &["watch", &quick.to_string(), &slow.to_string()]).await;
    assert_eq!(watched.code, Some(0), "{}", watched.words);
    assert_eq!(desk.poster(&["cancel", &quick.to_string(), &slow.to_string()]).await.code, Some(0));
    assert_eq!(way.asked(), [&of_quick, &of_slow, &of_quick, &of_quick, &of_quick, &of_slow].map(String::as_str));
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_job_is_polled_in_time_where_no_answer_is_held() {
    let parameters = BTreeMap::from([("MaxWaitSeconds".to_owned(), "0".to_owned())]);
    let options = Options { parameters, event_sources: false, ..Options::default() };
    let desk = Desk::new(Pipeline::with(options).await).await;
    let id = desk.pipeline.submit("A heist on the moon").await.id.to_string();
    let look = format!("GET /jobs/{id}");
    let way = Way::to(&desk.pipeline, move |request, asked, answer| {
        answer.retry_after = 1;
        if request == look && asked.iter().filter(|asked| *asked == request).count() >= 3 {
            answer.body["status"] = "canceled".into();
            answer.body["finished_at"] = answer.body["created_at"].clone();
        }
    })
    .await;
    let begun = Instant::now();
    way.poster(&desk, &["watch", &id]).await;
    let looks = way.asked().iter().filter(|asked| asked.contains("/jobs/")).count();
    assert_eq!(looks, 4);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{looks} looks in {:?}", begun.elapsed());
    desk.pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_missing_group_does_not_stop_the_others() {
    let desk = Desk::with("small_groups", Pipeline::start().await).await;
    let gone = Arc::new(Mutex::new(None::<String>));
    let is_gone = gone.clone();
    let way = Way::to(&desk.pipeline, move |request, _, answer| {
        if is_gone.lock().expect("no one panicked").as_ref().is_some_and(|gone| request.contains(gone)) {
            not_found(answer);
        }
    })
    .await;
    desk.write("a.txt", "One\nTwo\nThree\nFour\nFive\n");
    let batch = ["batch", "a.txt", "--chunk", "1", "--no-sheet", "--json"];
    let submitted = way.poster(&desk, &[&batch[..], &["--no-wait"]].concat()).await;
    assert_eq!(submitted.code, Some(0), "{}", submitted.words);
    let got = way.poster(&desk, &["get", "a.txt.poster-state", "--json"]).await;
    assert_eq!((got.code, got.data.len()), (Some(0), 3), "{}", got.words);
    *gone.lock().expect("no one panicked") = got.data[0]["id"].as_str().map(str::to_owned);

    let rest = way.poster(&desk, &batch).await;
    assert_eq!(rest.code, Some(1), "{}", rest.words);
    let tells = |what: &str| rest.words.contains(what);
    assert!(tells("2 not_found: lines 1, 2") && !tells("poster retry"), "{}", rest.words);
    let end = rest.data.last().expect("an end");
    assert_eq!((&end["saved"], &end["failed"]), (&3.into(), &2.into()), "{end}");
    assert_eq!(files(&desk.path("a.txt-posters"), ".png").len(), 3);
    // The two groups that exist are processed nevertheless.
    for (arguments, data) in [
        (&["get", "a.txt.poster-state"][..], 2),
        (&["watch", "a.txt.poster-state"], 2),
        (&["cancel", "a.txt.poster-state"], 2),
        (&["download", "a.txt.poster-state", "--out", "again"], 3),
    ] {
        let some = way.poster(&desk, &[arguments, &["--json"]].concat()).await;
        let told = some.words.matches("no such job or batch").count();
        assert_eq!((some.code, told, some.data.len()), (Some(1), 1, data), "{arguments:?}: {}", some.words);
    }
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn jobs_that_no_list_shows_are_requested_one_by_one() {
    let desk = Desk::new(Pipeline::start().await).await;
    let is_list = |request: &str| request.starts_with("GET /batches/") && request.ends_with("/jobs");
    let is_job = |request: &str| request.starts_with("GET /jobs/");
    let way = Way::to(&desk.pipeline, move |request, asked, answer| {
        if is_list(request) {
            answer.body = json!({ "jobs": [], "next_cursor": null });
        } else if is_job(request) && asked.iter().filter(|asked| is_job(asked)).count() == 1 {
            not_found(answer);
        }
    })
    .await;
    desk.write("a.txt", "One\nTwo\nThree\n");
    let done = way.poster(&desk, &["batch", "a.txt", "--no-sheet"]).await;
    assert_eq!(done.code, Some(1), "{}", done.words);
    assert!(done.words.contains("2 posters saved") && done.words.contains("1 not_found: line 2"), "{}", done.words);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png"), ["000001-one.png", "000003-three.png"]);
    let asked = way.asked();
    let first = asked.iter().position(|request| is_job(request)).expect("they are asked for");
    assert!(asked[..first].iter().filter(|request| is_list(request)).count() >= 5, "{asked:?}");
    assert_eq!(asked[first..].len(), 3, "{asked:?}");
    desk.pipeline.stop().await;
}
