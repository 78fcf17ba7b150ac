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
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tests::pipeline::Pipeline;
use tokio::net::TcpListener;

use crate::batch_function::step;
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
            http: Client::builder().redirect(Policy::none()).build().expect("a client"),
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
    let (status, location) = (answer.status(), answer.headers().get(header::LOCATION).cloned());
    if let Some(location) = location.filter(|_| status.is_redirection()) {
        return (status, [(header::LOCATION, location)]).into_response();
    }
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
    for batch in [quick, slow] {
        assert!(step(&desk.pipeline, batch).await, "its job is canceled");
    }
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
async fn a_missing_batch_does_not_stop_the_others() {
    let desk = Desk::new(Pipeline::start().await).await;
    let gone = Arc::new(Mutex::new(None::<String>));
    let is_gone = gone.clone();
    let way = Way::to(&desk.pipeline, move |request, _, answer| {
        if is_gone.lock().expect("no one panicked").as_ref().is_some_and(|gone| request.contains(gone)) {
            not_found(answer);
        }
    })
    .await;
    for (file, prompts) in [("a.txt", "One\nTwo\n"), ("b.txt", "Three\nFour\nFive\n")] {
        desk.write(file, prompts);
        let done = way.poster(&desk, &["batch", file, "--no-sheet"]).await;
        assert_eq!(done.code, Some(0), "{}", done.words);
    }
    *gone.lock().expect("no one panicked") = Some(desk.batch("a.txt.poster-state"));
    let states = ["a.txt.poster-state", "b.txt.poster-state"];
    for (arguments, data) in [(&["get"][..], 1), (&["watch"], 1), (&["cancel"], 1), (&["download", "--out", "all"], 3)]
    {
        let some = way.poster(&desk, &[arguments, &states, &["--json"]].concat()).await;
        let told = some.words.matches("no such job or batch").count();
        assert_eq!((some.code, told, some.data.len()), (Some(1), 1, data), "{arguments:?}: {}", some.words);
    }
    let again = way.poster(&desk, &["batch", "a.txt"]).await;
    assert!(again.code == Some(2) && again.words.contains("the service does not know this batch"), "{}", again.words);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_file_is_uploaded_again_to_a_new_url_when_the_first_has_expired() {
    let desk = Desk::new(Pipeline::start().await).await;
    let refusing = Router::new().fallback(async || StatusCode::FORBIDDEN);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let expired = format!("http://{}/file", listener.local_addr().expect("a bound address"));
    tokio::spawn(axum::serve(listener, refusing).into_future());
    let way = Way::to(&desk.pipeline, move |request, asked, answer| {
        if request == "POST /batches" && !asked.iter().any(|asked| asked == request) {
            answer.body["upload"]["url"] = expired.as_str().into();
        }
    })
    .await;
    desk.write("a.txt", "One\n");
    let done = way.poster(&desk, &["batch", "a.txt", "--no-sheet"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    assert!(done.words.contains("the file was not uploaded: the bucket answered 403 Forbidden"), "{}", done.words);
    assert_eq!(way.asked().iter().filter(|asked| *asked == "POST /batches").count(), 2);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png"), ["000001-one.png"]);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_that_has_expired_is_submitted_anew() {
    let desk = Desk::new(Pipeline::start().await).await;
    let expired = Arc::new(Mutex::new(Value::Null));
    let first = expired.clone();
    let way = Way::to(&desk.pipeline, move |request, asked, answer| {
        if request == "POST /batches" && asked.is_empty() {
            answer.body["status"] = "expired".into();
            *first.lock().expect("no one panicked") = answer.body["id"].clone();
        }
    })
    .await;
    desk.write("a.txt", "One\n");
    let done = way.poster(&desk, &["batch", "a.txt", "--no-sheet"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    let expired = expired.lock().expect("no one panicked").as_str().expect("an id").to_owned();
    assert_ne!(desk.batch("a.txt.poster-state"), expired);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png"), ["000001-one.png"]);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_file_that_changes_before_its_upload_is_not_started() {
    let desk = Desk::new(Pipeline::start().await).await;
    let file = desk.path("a.txt");
    let way = Way::to(&desk.pipeline, move |request, _, _| {
        if request == "POST /batches" {
            std::fs::write(&file, "Two\n").expect("it is written");
        }
    })
    .await;
    desk.write("a.txt", "One\n");
    let refused = way.poster(&desk, &["batch", "a.txt"]).await;
    assert!(refused.code == Some(2) && refused.words.contains("a.txt has changed"), "{}", refused.words);
    assert!(!way.asked().iter().any(|asked| asked.ends_with("/start")), "{:?}", way.asked());
    desk.write("a.txt", "One\n");
    let done = desk.poster(&["batch", "a.txt", "--no-sheet", "--state", "other"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png"), ["000001-one.png"], "the first upload was replaced");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn pages_are_read_again_only_while_jobs_end_on_them() {
    let parameters = BTreeMap::from([("Thumbnails".to_owned(), "false".to_owned())]);
    let desk = Desk::new(Pipeline::with(Options { parameters, ..Options::default() }).await).await;
    let way = Way::to(&desk.pipeline, |_, _, _| {}).await;
    let prompts: String = (0..450).map(|number| format!("Film {number}\n")).collect();
    desk.write("a.txt", &prompts);
    let done = way.poster(&desk, &["batch", "a.txt", "--no-sheet"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png").len(), 450);
    let pages = || way.asked().iter().filter(|asked| asked.ends_with("/jobs")).count();
    let read = pages();
    assert!((5..=45).contains(&read), "{read} pages");
    let again = way.poster(&desk, &["batch", "a.txt"]).await;
    assert_eq!(again.code, Some(0), "{}", again.words);
    assert_eq!(pages(), read, "everything is saved");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_cannot_be_downloaded_is_fetched_by_the_next_run() {
    let desk = Desk::new(Pipeline::start().await).await;
    let broken = Arc::new(Mutex::new(true));
    let is_broken = broken.clone();
    let way = Way::to(&desk.pipeline, move |request, _, answer| {
        let is_painted = answer.body["jobs"][1]["image"].is_object();
        if request.ends_with("/jobs") && is_painted && *is_broken.lock().expect("no one panicked") {
            // It never has so many.
            answer.body["jobs"][1]["image"]["bytes"] = 1.into();
        }
    })
    .await;
    desk.write("a.txt", "One\nTwo\nThree\n");
    let some = way.poster(&desk, &["batch", "a.txt", "--no-sheet", "--json"]).await;
    assert!(some.code == Some(1) && some.words.contains("1 picture could not be downloaded"), "{}", some.words);
    let end = some.data.last().expect("an end");
    assert_eq!((&end["saved"], &end["unfetched"], &end["failed"]), (&2.into(), &1.into(), &0.into()), "{end}");
    assert_eq!(some.data.iter().filter(|event| event["error"]["code"] == "picture_unavailable").count(), 1);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png"), ["000001-one.png", "000003-three.png"]);
    *broken.lock().expect("no one panicked") = false;
    let rest = way.poster(&desk, &["batch", "a.txt", "--no-sheet", "--json"]).await;
    let end = rest.data.last().expect("an end");
    assert_eq!((rest.code, &end["saved"], &end["downloaded"]), (Some(0), &3.into(), &1.into()), "{}", rest.words);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_is_watched_although_its_file_is_not_there_yet() {
    let pipeline = Pipeline::start().await;
    let order = json!({ "input": { "format": "csv" } });
    let batch: Value = pipeline.post("/batches", &order).await.json().await.expect("a batch");
    let id = batch["id"].as_str().expect("an id").to_owned();
    let path = format!("GET /batches/{id}");
    let is_path = path.clone();
    let way = Way::to(&pipeline, move |request, before, answer| {
        let looks = before.iter().filter(|earlier| **earlier == is_path).count();
        if request == is_path && looks > 1 {
            answer.body["status"] = "completed".into();
        }
    })
    .await;
    let desk = Desk::new(pipeline).await;
    let watched = way.poster(&desk, &["watch", &id]).await;
    assert_eq!(watched.code, Some(0), "{}", watched.words);
    assert!(watched.words.contains(&format!("batch {id}: completed")), "{}", watched.words);
    assert!(way.asked().iter().filter(|asked| **asked == path).count() > 2);
    desk.pipeline.stop().await;
}
