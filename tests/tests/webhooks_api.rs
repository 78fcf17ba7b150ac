//! The log of deliveries and the secrets, as owners see them.

use std::time::Duration;

use futures_util::future::join_all;
use local::{EVERYONE, Options};
use reqwest::header::{LINK, LOCATION};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use shared::api::{DeliveriesView, DeliveryView, ReplayedView, SecretView};
use shared::aws::{DeliveryFilter, DeliveryLog, DeliveryRange, SavedDelivery};
use shared::delivery::{Delivery, DeliveryId, DeliveryMessage, DeliveryStatus, KEPT, Try};
use shared::id::Subject;
use shared::ticket::Message;
use shared::webhook::{EventType, WebhookUrl};
use shared::webhook_secret::{OVERLAP, WebhookSecret};
use shared::{BatchId, JobId, Owner, Timestamp};
use tests::events::{answer, post};
use tests::interceptor::Action;
use tests::pipeline::Pipeline;

use crate::meanwhile::meanwhile;

const MINUTE: Duration = Duration::from_secs(60);

fn log(pipeline: &Pipeline) -> DeliveryLog {
    let table = pipeline.ready().deliveries_table.clone().expect("it sends webhooks");
    pipeline.stack.aws().delivery_log(table)
}

/// The record of a delivery that was tried once, with this answer.
fn delivery(owner: &str, subject: Subject, created_at: Timestamp, status: u16) -> Delivery {
    let payload = json!({ "type": "job.failed", "timestamp": created_at, "data": { "id": subject.to_string() } });
    let message = DeliveryMessage {
        id: DeliveryId { subject, since: created_at - Duration::from_secs(1) },
        owner: Owner::new(owner),
        url: WebhookUrl::parse("https://example.com/posters").expect("a URL"),
        event: EventType::JobFailed,
        at: created_at,
        round: 0,
        payload: payload.to_string(),
    };
    let (at, duration_ms) = (created_at, 52);
    let tried = Try { round: 0, at, duration_ms, status: Some(status), error: None, response: Some("busy".to_owned()) };
    Delivery::new(&message).tried(tried).0
}

/// Stores a new delivery of a job, which was answered with this status `ago`.
async fn stored(pipeline: &Pipeline, status: u16, ago: Duration) -> Delivery {
    stored_for(EVERYONE, pipeline, status, ago).await
}

/// The same, for an owner.
pub(crate) async fn stored_for(owner: &str, pipeline: &Pipeline, status: u16, ago: Duration) -> Delivery {
    let delivery = delivery(owner, Subject::Job(JobId::new()), pipeline.clock.now() - ago, status);
    assert_eq!(log(pipeline).save(&delivery).await.expect("the table answers"), SavedDelivery::Stored);
    delivery
}

/// The messages that are in the queue since the last call.
async fn messages(pipeline: &Pipeline) -> Vec<DeliveryMessage> {
    let queue = pipeline.ready().webhook_queue_url.as_ref().expect("it sends webhooks");
    let mut messages = Vec::new();
    loop {
        let received = pipeline.sqs().receive_message().queue_url(queue).max_number_of_messages(10).send().await;
        let received = received.expect("the queue answers").messages.unwrap_or_default();
        if received.is_empty() {
            return messages;
        }
        messages.extend(received.iter().map(|message| {
            DeliveryMessage::from_body(message.body.as_deref().expect("a body")).expect("a message of a delivery")
        }));
    }
}

async fn call(pipeline: &Pipeline, method: Method, path: &str, key: Option<&str>, body: &Value) -> Response {
    let mut request = pipeline.http.request(method, format!("{}{path}", pipeline.ready().api));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    request.send().await.expect("the API answers")
}

async fn replay(pipeline: &Pipeline, id: DeliveryId, key: Option<&str>) -> Response {
    call(pipeline, Method::POST, &format!("/deliveries/{id}/replay"), key, &Value::Null).await
}

fn is_repeated(response: &Response) -> bool {
    response.headers().get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// All deliveries of a list that is read in pages of this size.
async fn all(log: &DeliveryLog, owner: &str, filter: DeliveryFilter, limit: usize, now: Timestamp) -> Vec<DeliveryId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let listed = log.list(&Owner::new(owner), filter, limit, after, now).await;
        let (deliveries, next) = listed.expect("the table answers");
        assert!(deliveries.len() <= limit);
        ids.extend(deliveries.iter().map(|delivery| delivery.id));
        let Some(next) = next else { return ids };
        after = Some(next);
    }
}

#[tokio::test]
async fn a_list_has_every_delivery_that_matches_once_newest_first() {
    let pipeline = Pipeline::without_event_sources().await;
    let log = log(&pipeline);
    let start = Timestamp::from_ms(1_795_500_000_000);
    let (one, two) = (Subject::Job(JobId::new()), Subject::Batch(BatchId::new()));
    let mut deliveries = Vec::new();
    for minute in 0..7 {
        let answer = if minute % 3 == 0 { 410 } else { 503 };
        deliveries.push(delivery(EVERYONE, if minute == 5 { two } else { one }, start + MINUTE * minute, answer));
    }
    // Two events of the same time.
    deliveries.push(delivery(EVERYONE, two, start + MINUTE, 200));
    for delivery in &deliveries {
        assert_eq!(log.save(delivery).await.expect("the table answers"), SavedDelivery::Stored);
        assert_eq!(log.save(delivery).await.expect("the table answers"), SavedDelivery::MovedOn);
    }
    let now = start + 60 * MINUTE;
    let of_other = DeliveryFilter { range: DeliveryRange::Of(one), status: None };
    let listed = log.list(&Owner::new("somebody else"), of_other, 1, None, now).await.expect("the table answers");
    assert!(listed.0.is_empty() && listed.1.is_none(), "nobody else learns that there are any");
    let between = |from: u32, to: u32| DeliveryRange::Between(start + MINUTE * from, start + MINUTE * to);
    let (failed, pending) = (Some(DeliveryStatus::Failed), Some(DeliveryStatus::Pending));
    for (range, status, count) in [
        (DeliveryRange::All, None, 8),
        (DeliveryRange::Of(one), None, 6),
        (DeliveryRange::Of(two), None, 2),
        (DeliveryRange::All, failed, 3),
        (DeliveryRange::Of(one), pending, 3),
        (between(1, 5), None, 6),
        (between(1, 5), failed, 1),
        (between(8, 9), None, 0),
        (between(5, 1), None, 0),
    ] {
        let filter = DeliveryFilter { range, status };
        for limit in [1, 2, 3, 100] {
            let ids = all(&log, EVERYONE, filter, limit, now).await;
            let times = ids.iter().map(|id| id.since).collect::<Vec<_>>();
            assert!(times.is_sorted_by(|newer, older| newer >= older), "{filter:?}: {ids:?}");
            let unique: std::collections::HashSet<_> = ids.iter().collect();
            assert_eq!((ids.len(), unique.len()), (count, count), "{filter:?}, {limit} on a page");
        }
        assert!(all(&log, "bob", filter, 3, now).await.is_empty(), "{filter:?}");
    }
    let filter = DeliveryFilter { range: DeliveryRange::All, status: None };
    assert!(all(&log, EVERYONE, filter, 3, now + KEPT).await.is_empty(), "they are no longer kept");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_log_shows_each_delivery_with_its_tries() {
    let pipeline = Pipeline::without_event_sources().await;
    let first = stored(&pipeline, 503, 2 * MINUTE).await;
    let second = stored(&pipeline, 200, MINUTE).await;
    let batch = delivery(EVERYONE, Subject::Batch(BatchId::new()), pipeline.clock.now(), 410);
    assert_eq!(log(&pipeline).save(&batch).await.expect("the table answers"), SavedDelivery::Stored);

    let shown: Value = pipeline.get(&format!("/deliveries/{}", first.id)).await.json().await.expect("a delivery");
    let Subject::Job(job) = first.id.subject else { unreachable!("it is a job's") };
    let this = format!("{}/deliveries/{}", pipeline.ready().api, first.id);
    let expected = json!({
        "id": first.id, "type": "job.failed", "status": "pending", "job_id": job, "batch_id": null,
        "url": "https://example.com/posters", "created_at": first.created_at, "next_try_at": first.next_try_at,
        "expires_at": Timestamp::from_ms(first.expires_at.secs_ceil() * 1000),
        "tries": [{ "at": first.created_at, "duration_ms": 52, "status": 503, "error": null, "response": "busy" }],
        "event": serde_json::from_str::<Value>(&first.payload).expect("JSON"),
        "links": {
            "self": this, "replay": format!("{this}/replay"), "job": format!("{}/jobs/{job}", pipeline.ready().api),
            "batch": null,
        },
    });
    assert_eq!(shown, expected);
    let view: DeliveryView = serde_json::from_value(shown).expect("a delivery");
    assert_eq!(serde_json::to_value(view).expect("JSON"), expected);

    let text = pipeline.get(&format!("/deliveries/{}", first.id)).await.text().await.expect("a body");
    assert!(text.contains(&first.payload), "the event is shown as it is sent");

    let page = pipeline.get("/deliveries?limit=2").await;
    let link = page.headers()[LINK].to_str().expect("text").to_owned();
    let page: DeliveriesView = page.json().await.expect("a page");
    assert_eq!(page.deliveries.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [batch.id, second.id]);
    let cursor = page.next_cursor.expect("there are more");
    assert_eq!(link, format!("<{}/deliveries?limit=2&cursor={cursor}>; rel=\"next\"", pipeline.ready().api));
    let rest = pipeline.get(&format!("/deliveries?limit=2&cursor={cursor}")).await;
    assert!(!rest.headers().contains_key(LINK));
    let rest: DeliveriesView = rest.json().await.expect("a page");
    assert_eq!(rest.deliveries.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [first.id]);

    let Subject::Batch(batch_id) = batch.id.subject else { unreachable!("it is a batch's") };
    for (query, ids) in [
        (format!("job={job}"), vec![first.id]),
        (format!("batch={batch_id}"), vec![batch.id]),
        (format!("batch={batch_id}&status=pending"), vec![]),
        (format!("job={}", JobId::new()), vec![]),
        ("status=delivered".to_owned(), vec![second.id]),
        ("status=failed&limit=1".to_owned(), vec![batch.id]),
    ] {
        let page: DeliveriesView = pipeline.get(&format!("/deliveries?{query}")).await.json().await.expect("a page");
        assert_eq!(page.deliveries.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), ids, "{query}");
        assert!(page.next_cursor.is_none(), "{query}");
    }
    for (query, pointers) in [
        (format!("job={job}&batch={batch_id}"), vec!["?batch"]),
        ("job=x&batch=y&status=lost&limit=0".to_owned(), vec!["?job", "?batch", "?status", "?limit"]),
        ("subject=x".to_owned(), vec!["?subject"]),
    ] {
        let refused = pipeline.get(&format!("/deliveries?{query}")).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem: Value = refused.json().await.expect("a problem");
        let named: Vec<_> = problem["errors"].as_array().expect("faults").iter().map(|e| &e["pointer"]).collect();
        assert_eq!(named, pointers, "{problem}");
    }
    for query in [format!("status=failed&limit=2&cursor={cursor}"), format!("job={job}&cursor={cursor}")] {
        let refused: Value = pipeline.get(&format!("/deliveries?{query}")).await.json().await.expect("a problem");
        assert_eq!(refused["code"], "invalid_cursor", "a cursor belongs to its list: {query}");
    }
    for id in [format!("job_{}_1", JobId::new()), "x".to_owned(), first.id.to_string().to_uppercase()] {
        assert_eq!(pipeline.get(&format!("/deliveries/{id}")).await.status(), StatusCode::NOT_FOUND, "{id}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_replay_begins_a_round_and_sends_the_same_event_again() {
    let pipeline = Pipeline::without_event_sources().await;
    for (status, round) in [(410, 1), (200, 1), (503, 1)] {
        let before = stored(&pipeline, status, 5 * MINUTE).await;
        let replayed = replay(&pipeline, before.id, None).await;
        assert_eq!(replayed.status(), StatusCode::ACCEPTED, "{status}");
        let location = replayed.headers()[LOCATION].to_str().expect("text").to_owned();
        let view: DeliveryView = replayed.json().await.expect("a delivery");
        assert_eq!((location, view.status, view.tries.len()), (view.links.this, DeliveryStatus::Pending, 1));
        let sent = messages(&pipeline).await;
        let wanted = DeliveryMessage { round, ..before.message() };
        assert!(sent == [wanted], "{status}: one message of round {round}");
        let record = log(&pipeline).get(before.id).await.expect("the table answers").expect("the record");
        assert_eq!((record.round, record.status), (round, DeliveryStatus::Pending), "{status}");

        // It is about to be tried, unless its message was lost.
        for (time, rounds) in [(Duration::ZERO, &[][..]), (3 * MINUTE, &[round + 1])] {
            pipeline.clock.advance(time);
            assert_eq!(replay(&pipeline, before.id, None).await.status(), StatusCode::ACCEPTED);
            assert_eq!(messages(&pipeline).await.iter().map(|sent| sent.round).collect::<Vec<_>>(), rounds, "{status}");
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_repeated_replay_with_a_key_takes_effect_once() {
    let pipeline = Pipeline::without_event_sources().await;
    let before = stored(&pipeline, 410, MINUTE).await;
    assert!(!is_repeated(&replay(&pipeline, before.id, Some("a")).await));
    assert_eq!(messages(&pipeline).await.len(), 1);
    // The new round ends.
    let record = log(&pipeline).get(before.id).await.expect("the table answers").expect("the record");
    let tried = Try { round: 1, status: Some(200), ..before.tries[0].clone() };
    let (delivered, _) = record.tried(tried);
    assert_eq!(log(&pipeline).save(&delivered).await.expect("the table answers"), SavedDelivery::Stored);
    let repeated = replay(&pipeline, before.id, Some("a")).await;
    assert!(is_repeated(&repeated));
    assert_eq!(repeated.json::<DeliveryView>().await.expect("a delivery").status, DeliveryStatus::Delivered);
    assert!(messages(&pipeline).await.is_empty());
    assert!(!is_repeated(&replay(&pipeline, before.id, Some("b")).await), "another key is another replay");
    assert_eq!(messages(&pipeline).await.len(), 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_replay_whose_message_is_not_sent_is_completed_by_the_repeated_request() {
    let pipeline = Pipeline::without_event_sources().await;
    for key in [None, Some("a")] {
        let before = stored(&pipeline, 410, MINUTE).await;
        let (_, apps) = pipeline.intercept(|call| match call.operation {
            "SendMessage" => Action::Refuse,
            _ => Action::Pass,
        });
        let event = post("/deliveries/{id}/replay", Some(before.id.to_string()), key, &Value::Null);
        let (status, _) = answer(status::handle(&apps.status, event).await.expect("an answer"));
        assert_eq!(status, 503);
        assert!(messages(&pipeline).await.is_empty());
        assert_eq!(replay(&pipeline, before.id, key).await.status(), StatusCode::ACCEPTED);
        assert_eq!(messages(&pipeline).await.iter().map(|sent| sent.round).collect::<Vec<_>>(), [1], "{key:?}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_replay_that_meets_a_try_still_takes_effect() {
    let pipeline = Pipeline::without_event_sources().await;
    let before = stored(&pipeline, 503, 5 * MINUTE).await;
    let event = post("/deliveries/{id}/replay", Some(before.id.to_string()), None, &Value::Null);
    let is_write = |call: &tests::interceptor::Call<'_>| call.operation == "PutItem";
    let work = async |apps: &local::Apps| status::handle(&apps.status, event).await.expect("an answer");
    let replayed = meanwhile(&pipeline, is_write, work, async || {
        let (delivered, _) = before.clone().tried(Try { status: Some(200), ..before.tries[0].clone() });
        assert_eq!(log(&pipeline).save(&delivered).await.expect("the table answers"), SavedDelivery::Stored);
    });
    let (status, view) = answer(replayed.await);
    assert_eq!((status, &view["status"]), (202, &json!("pending")));
    assert_eq!(view["tries"].as_array().expect("tries").len(), 2, "the try is kept");
    assert_eq!(messages(&pipeline).await.iter().map(|sent| sent.round).collect::<Vec<_>>(), [1]);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_replay_of_a_time_span_sends_what_failed_in_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let now = pipeline.clock.now();
    let mut failed = Vec::new();
    for minutes in 1..=7 {
        failed.push(stored(&pipeline, 410, MINUTE * minutes).await.id);
        stored(&pipeline, 200, MINUTE * minutes).await;
        stored(&pipeline, 503, MINUTE * minutes).await;
    }
    let all = async |body: &Value, key| {
        let response = call(&pipeline, Method::POST, "/deliveries/replay", key, body).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{body}");
        let view: ReplayedView = response.json().await.expect("an answer");
        assert!(view.next_cursor.is_none());
        let mut sent: Vec<_> = messages(&pipeline).await.iter().map(|sent| (sent.id, sent.round)).collect();
        sent.sort_by_key(|(id, _)| std::cmp::Reverse(id.since));
        assert_eq!(view.replayed, sent.len(), "{body}");
        sent
    };
    let span = json!({ "since": now - 11 * MINUTE / 2, "until": now - 3 * MINUTE / 2 });
    let in_span: Vec<_> = failed[1..5].iter().map(|id| (*id, 1)).collect();
    assert_eq!(all(&span, Some("a")).await, in_span);
    assert_eq!(all(&span, None).await, [], "they are pending now");
    let since = json!({ "since": now - 60 * MINUTE });
    assert_eq!(all(&since, None).await.len(), 3, "the others");
    let delivered = json!({ "since": now - 60 * MINUTE, "status": "delivered" });
    assert_eq!(all(&delivered, Some("b")).await.len(), 7);
    let pending = json!({ "since": now - 60 * MINUTE, "status": "pending" });
    pipeline.clock.advance(3 * MINUTE);
    let again = all(&pending, None).await;
    assert_eq!((again.len(), again.iter().filter(|(_, round)| *round == 2).count()), (21, 14), "all begin again");
    assert_eq!(all(&pending, None).await, [], "they are about to be tried");
    assert_eq!(all(&json!({ "since": now + MINUTE }), None).await, []);

    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!({ "since": "yesterday" }), "invalid_request"),
        (json!({ "since": now, "cursor": "x" }), "invalid_cursor"),
    ] {
        let refused = call(&pipeline, Method::POST, "/deliveries/replay", None, &body).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.json::<Value>().await.expect("a problem")["code"], code, "{body}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_replay_that_takes_too_long_says_where_to_go_on() {
    let pipeline = Pipeline::without_event_sources().await;
    let failed: Vec<_> = (0..230).map(|i| stored(&pipeline, 410, Duration::from_secs(1000 - i))).collect();
    join_all(failed).await;
    let since = pipeline.clock.now() - 60 * MINUTE;
    // Two queries take longer than a request may, so each request ends with a page that it did not send.
    let clock = pipeline.clock.clone();
    let (_, apps) = pipeline.intercept(move |call| {
        if call.operation == "Query" {
            clock.advance(Duration::from_secs(10));
        }
        Action::Pass
    });
    let (mut cursor, mut counts) = (Value::Null, Vec::new());
    loop {
        let body = json!({ "since": since, "cursor": cursor });
        let event = post("/deliveries/replay", None, None, &body);
        let (status, view) = answer(status::handle(&apps.status, event).await.expect("an answer"));
        assert_eq!(status, 202, "{view}");
        counts.push(view["replayed"].as_u64().expect("a number"));
        cursor = view["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(counts.iter().sum::<u64>(), 230, "{counts:?}");
    assert!(counts.len() > 1, "{counts:?}");
    let sent = messages(&pipeline).await;
    let ids: std::collections::HashSet<_> = sent.iter().map(|message| message.id).collect();
    assert_eq!((sent.len(), ids.len()), (230, 230), "each once");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_rotation_adds_a_secret_once_for_each_key() {
    let pipeline = Pipeline::without_event_sources().await;
    let secrets = async || pipeline.get("/webhook-secret").await.json::<SecretView>().await.expect("secrets");
    let rotate = async |key| call(&pipeline, Method::POST, "/webhook-secret/rotate", key, &Value::Null).await;
    let first = secrets().await;
    assert!(first.secret.parse::<WebhookSecret>().is_ok() && first.previous.is_empty());
    assert_eq!(secrets().await.secret, first.secret);

    let now = pipeline.clock.now();
    let rotated = rotate(Some("a")).await;
    assert!(rotated.status() == StatusCode::OK && !is_repeated(&rotated));
    let second: SecretView = rotated.json().await.expect("secrets");
    assert_ne!(second.secret, first.secret);
    assert_eq!((second.previous.len(), &second.previous[0].secret), (1, &first.secret));
    assert!(second.previous[0].valid_until.since(now + OVERLAP) < MINUTE);
    let repeated = rotate(Some("a")).await;
    assert!(is_repeated(&repeated));
    assert_eq!(repeated.json::<SecretView>().await.expect("secrets").secret, second.secret);
    assert_eq!(secrets().await.secret, second.secret);

    let more = join_all((0..6).map(|_| rotate(None))).await;
    assert!(more.iter().all(|response| response.status() == StatusCode::OK), "each of six at once makes its own");
    let many = secrets().await;
    let texts = many.previous.iter().map(|previous| &previous.secret).chain([&many.secret]);
    assert_eq!(texts.collect::<std::collections::HashSet<_>>().len(), 8);
    let refused = rotate(None).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem: Value = refused.json().await.expect("a problem");
    let until = serde_json::to_value(many.previous.last().expect("the oldest").valid_until).expect("JSON");
    assert_eq!(problem["code"], "too_many_rotations");
    assert!(problem["detail"].as_str().expect("text").contains(until.as_str().expect("text")), "{problem}");
    assert!(is_repeated(&rotate(Some("a")).await), "a repeated request is answered as before");

    pipeline.clock.advance(OVERLAP + MINUTE);
    assert!(secrets().await.previous.is_empty());
    assert_eq!(rotate(None).await.status(), StatusCode::OK);
    assert_eq!(secrets().await.previous[0].secret, many.secret);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_service_without_webhooks_has_none_of_their_routes() {
    let parameters = [("Webhooks".to_owned(), "false".to_owned())].into();
    let pipeline = Pipeline::with(Options { parameters, event_sources: false, ..Options::default() }).await;
    let id = DeliveryId { subject: Subject::Job(JobId::new()), since: Timestamp::from_ms(1) };
    for (method, path) in [
        (Method::GET, "/webhook-secret".to_owned()),
        (Method::POST, "/webhook-secret/rotate".to_owned()),
        (Method::GET, "/deliveries".to_owned()),
        (Method::PUT, "/deliveries".to_owned()),
        (Method::POST, "/deliveries/replay".to_owned()),
        (Method::GET, format!("/deliveries/{id}")),
        (Method::POST, format!("/deliveries/{id}/replay")),
    ] {
        let refused = call(&pipeline, method.clone(), &path, None, &Value::Null).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(refused.json::<Value>().await.expect("a problem")["code"], "no_such_route", "{method} {path}");
    }
    let job = json!({ "prompt": "A heist", "webhook": { "url": "https://example.com/posters" } });
    let refused: Value = pipeline.post("/jobs", &job).await.json().await.expect("a problem");
    assert_eq!(refused["errors"][0]["pointer"], "/webhook", "{refused}");
    pipeline.stop().await;
}
