//! The function `webhook`: what it sends and to whom, and what it records.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use local::{EVERYONE, Options};
use serde_json::json;
use shared::api::JobView;
use shared::aws::{DeliveryLog, SavedDelivery};
use shared::delivery::{Delivery, DeliveryId, DeliveryMessage, DeliveryStatus, SCHEDULE};
use shared::id::Subject;
use shared::ticket::Message as _;
use shared::webhook::{EventType, WebhookUrl};
use shared::webhook_secret::{MasterSecret, SecretNumbers};
use shared::{Job, JobId, Owner, Timestamp};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, delivery};
use tests::receiver::{Authority, Names, Receiver, Reply};
use webhook::{App, Client, Network};

use crate::metrics::overheard;

/// A stack whose webhooks may lead to this machine, and whose messages the test delivers itself.
async fn pipeline() -> Pipeline {
    let options = Options { event_sources: false, webhooks_to_loopback: true, ..Options::default() };
    Pipeline::with(options).await
}

fn app(pipeline: &Pipeline) -> App {
    App::clone(pipeline.stack.apps().webhook.as_ref().expect("it sends webhooks"))
}

fn log(pipeline: &Pipeline) -> DeliveryLog {
    pipeline.stack.aws().delivery_log(pipeline.ready().deliveries_table.clone().expect("it sends webhooks"))
}

/// A URL as an older version may have stored it, which checked less or nothing.
fn unchecked(url: &str) -> WebhookUrl {
    serde_json::from_value(json!(url)).expect("any text is read")
}

/// The message of an event of a new job.
fn message(pipeline: &Pipeline, url: &str) -> DeliveryMessage {
    let now = pipeline.clock.now();
    DeliveryMessage {
        id: DeliveryId { subject: Subject::Job(JobId::new()), since: now },
        owner: Owner::new(EVERYONE),
        url: unchecked(url),
        event: EventType::JobFailed,
        at: now,
        round: 0,
        payload: r#"{"type":"job.failed","data":{"name":"Amélie"}}"#.to_owned(),
    }
}

/// Hands the messages to the function. Returns which of them come back.
async fn hand(app: &App, messages: &[&DeliveryMessage]) -> Vec<String> {
    let bodies: Vec<_> = messages.iter().map(|message| message.to_body()).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let answer = webhook::handle(app, delivery(&bodies, 1)).await.expect("it answers");
    answer.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
}

async fn recorded(pipeline: &Pipeline, message: &DeliveryMessage) -> Delivery {
    log(pipeline).get(message.id).await.expect("the table answers").expect("the delivery is recorded")
}

/// The code of the error of a delivery's last try.
fn code(delivery: &Delivery) -> Option<&'static str> {
    delivery.tries.last().and_then(|tried| Some(tried.error.as_ref()?.code.as_str()))
}

#[tokio::test]
async fn an_event_arrives_signed_over_tls_and_is_recorded() {
    let pipeline = Pipeline::without_event_sources().await;
    let (authority, names) = (Authority::new(), Names::default());
    let host = "xn--bcher-kva.example";
    let reply = Reply::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks".to_owned());
    let receiver = Receiver::secure(reply, &authority.certificate(host)).await;
    names.set(host, &[&["1.1.1.1"]]);
    let url = WebhookUrl::parse("https://Bücher.example:443/posters?to=alice").expect("a public URL");
    let message = DeliveryMessage { url, ..message(&pipeline, "") };
    let client = Client::new(names.network(receiver.address), false).with_roots(authority.roots());
    assert_eq!(hand(&app(&pipeline).with_client(client), &[&message]).await, [""; 0]);

    let [request] = &receiver.requests()[..] else { panic!("one request") };
    assert_eq!((request.line.as_str(), &request.body), ("POST /posters?to=alice", &message.payload));
    let sent: BTreeSet<_> = request.headers.keys().map(String::as_str).collect();
    let headers = ["connection", "content-length", "content-type", "host", "user-agent"];
    let signed = ["webhook-id", "webhook-signature", "webhook-timestamp"];
    assert_eq!(sent, headers.into_iter().chain(signed).collect());
    assert_eq!(request.headers["host"], host);
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["user-agent"], concat!("movie-poster-creator/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.headers["webhook-id"], message.id.to_string());
    let [id, time, signature] = signed.map(|name| {
        request.headers[match name {
            "webhook-signature" => "webhook-timestamp",
            "webhook-timestamp" => "webhook-signature",
            id => id,
        }]
        .as_str()
    });
    let settings = &pipeline.stack.deployment().functions["webhook"].environment;
    let secret = MasterSecret::new(&settings["WEBHOOK_SECRET"]).secret(&message.owner, 0);
    assert_eq!(secret.verify(id, time, signature, request.body.as_bytes(), pipeline.clock.now()), Ok(()));

    let delivery = recorded(&pipeline, &message).await;
    assert_eq!((delivery.status, delivery.next_try_at, delivery.tries.len()), (DeliveryStatus::Delivered, None, 1));
    let tried = &delivery.tries[0];
    assert_eq!((tried.status, &tried.error, tried.response.as_deref()), (Some(200), &None, Some("thanks")));
    assert_eq!(names.connected.lock().expect("no panic")[..], ["1.1.1.1:443".parse().expect("an address")]);
    pipeline.stop().await;
}

#[tokio::test]
async fn every_valid_secret_of_the_owner_signs() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(204)).await;
    let message = message(&pipeline, &receiver.url());
    let now = pipeline.clock.now();
    let mut numbers = SecretNumbers::default();
    for _ in 0..2 {
        numbers = numbers.rotate(None, now).expect("few").expect("new");
        let saved = log(&pipeline).save_secret_numbers(&message.owner, &numbers).await;
        assert_eq!(saved, Ok(SavedDelivery::Stored));
    }

    hand(&app(&pipeline), &[&message]).await;
    let request = &receiver.requests()[0];
    let settings = &pipeline.stack.deployment().functions["webhook"].environment;
    let master = MasterSecret::new(&settings["WEBHOOK_SECRET"]);
    let [id, time, signatures] =
        ["id", "timestamp", "signature"].map(|name| &request.headers[&format!("webhook-{name}")]);
    assert_eq!(signatures.split(' ').count(), 3);
    for (number, is_valid) in [(0, true), (1, true), (2, true), (3, false)] {
        let secret = master.secret(&message.owner, number);
        let verified = secret.verify(id, time, signatures, request.body.as_bytes(), now);
        assert_eq!(verified.is_ok(), is_valid, "{number}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn each_failure_is_recorded_as_what_it_is() {
    let pipeline = pipeline().await;
    let app = app(&pipeline).with_client(Client::new(Network::system(), true).with_timeout(Duration::from_millis(500)));
    let head = "HTTP/1.1 200 OK\r\n";
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        format!("http://{}/", listener.local_addr().expect("a bound address"))
    };
    for (what, reply, status, error, response) in [
        (
            "an answer of 503",
            Reply::Bytes("HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy".to_owned()),
            Some(503),
            None,
            Some("busy"),
        ),
        ("an answer of 400", Reply::status(400), Some(400), None, None),
        ("an unknown status", Reply::status(799), Some(799), None, None),
        (
            "a redirect to a metadata service",
            Reply::Bytes("HTTP/1.1 302 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_owned()),
            Some(302),
            Some("redirect"),
            None,
        ),
        ("no answer", Reply::Stall(String::new()), None, Some("timeout"), None),
        (
            "an endless header",
            Reply::Endless(head.to_owned(), "x-more: and more\r\n".to_owned()),
            None,
            Some("answer_broken"),
            None,
        ),
        ("no HTTP", Reply::Bytes("220 mail.example.com ESMTP\r\n".to_owned()), None, Some("answer_broken"), None),
        ("a closed connection", Reply::Bytes(String::new()), None, Some("answer_broken"), None),
        (
            "half an answer",
            Reply::Bytes(format!("{head}content-length: 9\r\n\r\nhalf")),
            Some(200),
            Some("answer_broken"),
            Some("half"),
        ),
        (
            "a slow answer",
            Reply::Stall(format!("{head}content-length: 9\r\n\r\nslow")),
            Some(200),
            Some("timeout"),
            Some("slow"),
        ),
    ] {
        let receiver = Receiver::start(reply).await;
        let message = message(&pipeline, &receiver.url());
        assert_eq!(hand(&app, &[&message]).await, ["message-0"], "{what} is tried again");
        let delivery = recorded(&pipeline, &message).await;
        assert_eq!(delivery.status, DeliveryStatus::Pending, "{what}");
        let tried = &delivery.tries[0];
        assert_eq!((tried.status, code(&delivery), tried.response.as_deref()), (status, error, response), "{what}");
        assert_eq!(receiver.requests().len(), 1, "{what}");
    }
    for (what, url, error) in [
        ("a closed port", closed.as_str(), "connection_refused"),
        ("a name that does not exist", "https://no-such-name.invalid/", "dns_failed"),
    ] {
        let message = message(&pipeline, url);
        assert_eq!(hand(&app, &[&message]).await, ["message-0"], "{what}");
        assert_eq!(code(&recorded(&pipeline, &message).await), Some(error), "{what}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_a_limit_and_counts() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::Endless("HTTP/1.1 200 OK\r\n\r\n".to_owned(), "blah ".to_owned())).await;
    let message = message(&pipeline, &receiver.url());
    assert_eq!(hand(&app(&pipeline), &[&message]).await, [""; 0]);
    let delivery = recorded(&pipeline, &message).await;
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    let response = delivery.tries[0].response.as_deref().expect("a body");
    assert_eq!((response.len(), &response[..10]), (256, "blah blah "));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_host_that_cannot_be_trusted_gets_nothing() {
    let pipeline = Pipeline::without_event_sources().await;
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let host = "hooks.example.com";
    for (what, certificate, error, message_part) in [
        ("an expired certificate", trusted.expired_certificate(host), "certificate_invalid", "expired"),
        ("a certificate of another name", trusted.certificate("example.com"), "certificate_invalid", "another name"),
        ("an unknown authority", stranger.certificate(host), "certificate_invalid", "not trusted"),
    ] {
        let receiver = Receiver::secure(Reply::status(200), &certificate).await;
        let names = Names::default();
        names.set(host, &[&["1.1.1.1"]]);
        let client = Client::new(names.network(receiver.address), false).with_roots(trusted.roots());
        let message = message(&pipeline, "https://hooks.example.com/");
        assert_eq!(hand(&app(&pipeline).with_client(client), &[&message]).await, ["message-0"], "{what}");
        let delivery = recorded(&pipeline, &message).await;
        assert_eq!(code(&delivery), Some(error), "{what}");
        let told = &delivery.tries[0].error.as_ref().expect("an error").message;
        assert!(told.contains(message_part), "{what}: {told}");
        assert_eq!(receiver.requests().len(), 0, "{what}");
    }
    let plain = Receiver::start(Reply::status(200)).await;
    let names = Names::default();
    names.set(host, &[&["1.1.1.1"]]);
    let client = Client::new(names.network(plain.address), false).with_timeout(Duration::from_millis(500));
    let message = message(&pipeline, "https://hooks.example.com/");
    hand(&app(&pipeline).with_client(client.with_roots(trusted.roots())), &[&message]).await;
    let delivery = recorded(&pipeline, &message).await;
    assert!(matches!(code(&delivery), Some("tls_failed" | "timeout")), "no TLS: {:?}", delivery.tries);
    pipeline.stop().await;
}

/// URLs that lead, or try to lead, to something that is not a public host, each with what it is. Their names resolve to what
/// [`forbidden_names`] says.
const FORBIDDEN: [(&str, &str); 66] = [
    ("loopback", "https://127.0.0.1/"),
    ("Lambda's runtime API", "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next"),
    ("Lambda's runtime API over https", "https://127.0.0.1:9001/"),
    ("loopback in decimal", "https://2130706433/"),
    ("loopback in octal", "https://0177.0.0.1/"),
    ("loopback in hexadecimal", "https://0x7f.0x0.0x0.0x1/"),
    ("loopback in one hexadecimal number", "https://0x7f000001/"),
    ("loopback with two parts", "https://127.1/"),
    ("loopback with three parts", "https://127.0.1/"),
    ("another address of loopback", "https://127.255.255.254/"),
    ("loopback with a trailing dot", "https://127.0.0.1./"),
    ("loopback with percent-encoding", "https://%31%32%37.0.0.1/"),
    ("loopback with ideographic dots", "https://127\u{3002}0\u{3002}0\u{3002}1/"),
    ("loopback with fullwidth digits", "https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/"),
    ("loopback with circled digits", "https://\u{2460}\u{2461}\u{2466}.0.0.1/"),
    ("loopback with a soft hyphen", "https://127.0.0\u{ad}.1/"),
    ("the unspecified address", "https://0.0.0.0/"),
    ("zero", "https://0/"),
    ("this network", "https://0.1.2.3/"),
    ("a metadata service", "https://169.254.169.254/latest/meta-data/"),
    ("a metadata service in decimal", "https://2852039166/"),
    ("a metadata service in octal", "https://0251.0376.0251.0376/"),
    ("the metadata service of containers", "https://169.254.170.2/"),
    ("private addresses of class A", "https://10.0.0.1/"),
    ("private addresses of class B", "https://172.16.0.1/"),
    ("the last private address of class B", "https://172.31.255.255/"),
    ("private addresses of class C", "https://192.168.1.1/"),
    ("carrier-grade NAT", "https://100.64.0.1/"),
    ("benchmarking", "https://198.18.0.1/"),
    ("the second half of benchmarking", "https://198.19.255.255/"),
    ("documentation", "https://192.0.2.1/"),
    ("protocol assignments", "https://192.0.0.8/"),
    ("relays of 6to4", "https://192.88.99.1/"),
    ("multicast", "https://224.0.0.1/"),
    ("reserved addresses", "https://240.0.0.1/"),
    ("broadcast", "https://255.255.255.255/"),
    ("IPv6 loopback", "https://[::1]/"),
    ("IPv6 loopback in full", "https://[0000:0000:0000:0000:0000:0000:0000:0001]/"),
    ("the unspecified IPv6 address", "https://[::]/"),
    ("IPv4-mapped loopback", "https://[::ffff:127.0.0.1]/"),
    ("IPv4-mapped loopback in hexadecimal", "https://[::ffff:7f00:1]/"),
    ("an IPv4-mapped public address", "https://[::ffff:1.1.1.1]/"),
    ("IPv4-compatible loopback", "https://[::127.0.0.1]/"),
    ("IPv4-translated loopback", "https://[::ffff:0:127.0.0.1]/"),
    ("NAT64 of a metadata service", "https://[64:ff9b::169.254.169.254]/"),
    ("local NAT64", "https://[64:ff9b:1::1]/"),
    ("6to4 of a private address", "https://[2002:a00:1::]/"),
    ("Teredo", "https://[2001:0:7f00:1::]/"),
    ("IPv6 link-local", "https://[fe80::1]/"),
    ("IPv6 link-local with a zone", "https://[fe80::1%25eth0]/"),
    ("IPv6 site-local", "https://[fec0::1]/"),
    ("IPv6 unique local", "https://[fc00::1]/"),
    ("the IPv6 metadata service", "https://[fd00:ec2::254]/"),
    ("IPv6 documentation", "https://[2001:db8::1]/"),
    ("newer IPv6 documentation", "https://[3fff::1]/"),
    ("IPv6 multicast", "https://[ff02::1]/"),
    ("IPv6 discard", "https://[100::1]/"),
    ("IPv6 segment routing", "https://[5f00::1]/"),
    ("localhost", "https://localhost/"),
    ("localhost with a trailing dot", "https://localhost./"),
    ("a name below localhost", "https://api.localhost/"),
    ("a name of mDNS", "https://printer.local/"),
    ("a name inside of a network", "https://metadata.google.internal/"),
    ("plain http", "http://example.com/"),
    ("another port", "https://example.com:8443/"),
    ("another scheme", "ftp://example.com/"),
];

/// What the names of this network resolve to.
fn forbidden_names() -> Names {
    let names = Names::default();
    for (name, address) in [
        ("localhost", "127.0.0.1"),
        ("localhost.", "127.0.0.1"),
        ("api.localhost", "127.0.0.1"),
        ("printer.local", "192.168.1.9"),
        ("metadata.google.internal", "169.254.169.254"),
        ("example.com", "1.1.1.1"),
    ] {
        names.set(name, &[&[address]]);
    }
    names
}

#[tokio::test]
async fn no_form_of_an_address_leads_into_a_private_network() {
    let pipeline = Pipeline::without_event_sources().await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let names = forbidden_names();
    let app = app(&pipeline).with_client(Client::new(names.network(receiver.address), false));
    for (what, url) in FORBIDDEN {
        let accepted = WebhookUrl::parse(url).is_ok_and(|url| !url.is_loopback());
        assert!(!accepted, "{what} is accepted by the API: {url}");
        let message = message(&pipeline, url);
        assert_eq!(hand(&app, &[&message]).await, ["message-0"], "{what}");
        let delivery = recorded(&pipeline, &message).await;
        assert!(matches!(code(&delivery), Some("address_forbidden" | "dns_failed")), "{what}: {:?}", delivery.tries);
    }
    assert_eq!(names.connected.lock().expect("no panic").len(), 0);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_url_with_more_than_a_public_address_is_refused_at_once() {
    for (what, url) in [
        ("a user name", "https://alice@example.com/"),
        ("a password", "https://alice:secret@example.com/"),
        ("a host that looks like a user name", "https://example.com@127.0.0.1/"),
        ("a fragment", "https://example.com/#posters"),
        ("a space", "https://example.com/a b"),
        ("a line break", "https://example.com/\r\nx-header: 1"),
        ("a name without a dot", "https://intranet/"),
        ("a name that ends with a dot", "https://example.com./"),
        ("an empty label", "https://example..com/"),
        ("no host", "https:///"),
        ("a relative URL", "/posters"),
        ("2,001 characters", &format!("https://example.com/{}", "a".repeat(1981))),
    ] {
        assert!(WebhookUrl::parse(url).is_err(), "{what}: {url}");
    }
    for url in
        ["https://1.1.1.1/", "https://[2606:4700::1111]/", "https://b\u{fc}cher.example/", "https://a.b.c.example/"]
    {
        assert!(WebhookUrl::parse(url).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_name_leads_only_to_the_addresses_that_were_checked() {
    let pipeline = Pipeline::without_event_sources().await;
    let authority = Authority::new();
    let host = "rebound.example";
    let receiver = Receiver::secure(Reply::status(200), &authority.certificate(host)).await;
    for (what, answers, connected) in [
        ("it is private the second time", &[&["1.1.1.1"][..], &["127.0.0.1"]][..], &["1.1.1.1:443"][..]),
        ("one of its addresses is private", &[&["1.1.1.1", "10.0.0.1"]], &[]),
        ("its only IPv6 address is loopback", &[&["1.1.1.1", "::1"]], &[]),
        ("its address is mapped", &[&["::ffff:127.0.0.1"]], &[]),
        ("it has no address", &[&[]], &[]),
        ("all of its addresses are public", &[&["1.1.1.1", "2606:4700::1111"]], &["1.1.1.1:443"]),
    ] {
        let names = Names::default();
        names.set(host, answers);
        let client = Client::new(names.network(receiver.address), false).with_roots(authority.roots());
        let message = message(&pipeline, "https://rebound.example/");
        hand(&app(&pipeline).with_client(client), &[&message]).await;
        assert_eq!(names.resolved.lock().expect("no panic")[..], [host], "{what}: it is resolved once");
        let addresses: Vec<_> = names.connected.lock().expect("no panic").iter().map(ToString::to_string).collect();
        assert_eq!(addresses, connected, "{what}");
        let delivery = recorded(&pipeline, &message).await;
        let (delivered, failed) = (DeliveryStatus::Delivered, DeliveryStatus::Pending);
        assert_eq!(delivery.status, if connected.is_empty() { failed } else { delivered }, "{what}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn loopback_mode_leads_nowhere_but_to_this_machine() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let names = Names::default();
    names.set("localhost", &[&["10.0.0.1"]]);
    names.set("private.example", &[&["127.0.0.1"]]);
    let app = app(&pipeline).with_client(Client::new(names.network(receiver.address), true));
    for url in ["http://localhost/", "https://private.example/", "https://10.0.0.1/", "http://1.1.1.1/"] {
        let message = message(&pipeline, url);
        hand(&app, &[&message]).await;
        assert_eq!(code(&recorded(&pipeline, &message).await), Some("address_forbidden"), "{url}");
    }
    assert_eq!(names.connected.lock().expect("no panic").len(), 0);
    pipeline.stop().await;
}

/// The functions, and for how many seconds messages were hidden.
fn hiding(pipeline: &Pipeline) -> (App, Arc<Mutex<Vec<u64>>>) {
    let (apps, hidden) = pipeline.intercept_hiding(|_| Action::Pass);
    (App::clone(apps.webhook.as_ref().expect("it sends webhooks")), hidden)
}

#[tokio::test]
async fn a_delivery_is_tried_eight_times_over_thirty_hours_and_then_given_up() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(500)).await;
    let message = message(&pipeline, &receiver.url());
    let (app, hidden) = hiding(&pipeline);
    for (number, wait) in SCHEDULE.iter().enumerate() {
        assert_eq!(hand(&app, &[&message]).await, ["message-0"], "try {number}");
        let delivery = recorded(&pipeline, &message).await;
        assert_eq!((delivery.status, delivery.tries.len()), (DeliveryStatus::Pending, number + 1));
        let next = delivery.next_try_at.expect("it waits");
        // SQS hides a message for less than twelve hours.
        let most = Duration::from_secs(11 * 3600 + 45 * 60);
        let last = hidden.lock().expect("no panic").pop().expect("it is hidden");
        assert_eq!(Duration::from_secs(last), (*wait).min(most), "after try {number}");
        // If it comes back before its time, nothing is sent.
        if *wait > Duration::from_secs(5) {
            pipeline.clock.advance(*wait / 2);
            assert_eq!(hand(&app, &[&message]).await, ["message-0"]);
            assert!(hidden.lock().expect("no panic").pop().is_some_and(|left| left <= wait.as_secs() / 2 + 1));
            assert_eq!(receiver.requests().len(), number + 1);
        }
        pipeline.clock.advance(next.since(pipeline.clock.now()));
    }
    assert_eq!(hand(&app, &[&message]).await, [""; 0], "the eighth try was the last");
    let delivery = recorded(&pipeline, &message).await;
    assert_eq!((delivery.status, delivery.next_try_at), (DeliveryStatus::Failed, None));
    let requests = receiver.requests();
    assert_eq!(requests.len(), 8);
    assert!(requests.iter().all(|request| request.body == requests[0].body), "the same bytes each time");
    let ids: BTreeSet<_> = requests.iter().map(|request| &request.headers["webhook-id"]).collect();
    let times: BTreeSet<_> = requests.iter().map(|request| &request.headers["webhook-timestamp"]).collect();
    assert_eq!((ids.len(), times.len()), (1, 8));
    assert_eq!(hand(&app, &[&message]).await, [""; 0], "a duplicate is dropped");
    assert_eq!(receiver.requests().len(), 8);
    pipeline.stop().await;
}

/// Replays a delivery as the API does: first the record, then the message.
async fn replay(pipeline: &Pipeline, message: &DeliveryMessage) -> DeliveryMessage {
    let replayed = recorded(pipeline, message).await.replayed(None, pipeline.clock.now()).expect("no key");
    assert_eq!(log(pipeline).save(&replayed).await, Ok(SavedDelivery::Stored));
    replayed.message()
}

#[tokio::test]
async fn a_replay_sends_a_delivery_again_with_the_same_id() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let first = message(&pipeline, &receiver.url());
    let app = app(&pipeline);
    hand(&app, &[&first]).await;
    let second = replay(&pipeline, &first).await;
    assert_eq!(hand(&app, &[&first, &second, &second]).await, [""; 0]);
    let requests = receiver.requests();
    assert!((2..=3).contains(&requests.len()), "the earlier round is over: {}", requests.len());
    assert!(requests.iter().all(|request| request.headers["webhook-id"] == first.id.to_string()));
    let delivery = recorded(&pipeline, &first).await;
    assert_eq!((delivery.status, delivery.round), (DeliveryStatus::Delivered, 1));

    receiver.replies(Reply::status(500));
    let third = replay(&pipeline, &first).await;
    assert_eq!(hand(&app, &[&third]).await, ["message-0"]);
    let delivery = recorded(&pipeline, &first).await;
    let wait = delivery.next_try_at.expect("it waits").since(pipeline.clock.now());
    assert!(wait <= SCHEDULE[0], "a new round begins with the shortest wait: {wait:?}");
    receiver.replies(Reply::status(200));
    let fourth = replay(&pipeline, &first).await;
    assert_eq!((fourth.round, hand(&app, &[&fourth]).await.len()), (3, 0), "a pending one need not wait");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_no_more_events_of_its_job_until_a_replay() {
    let pipeline = pipeline().await;
    let (gone, other) = (Receiver::start(Reply::status(410)).await, Receiver::start(Reply::status(200)).await);
    let app = app(&pipeline);
    let first = message(&pipeline, &gone.url());
    assert_eq!(hand(&app, &[&first]).await, [""; 0]);
    assert_eq!(recorded(&pipeline, &first).await.status, DeliveryStatus::Failed);
    // The job was retried, and has ended again.
    let later =
        |seconds: i64| DeliveryId { since: Timestamp::from_ms(first.id.since.ms() + 1000 * seconds), ..first.id };
    let second = DeliveryMessage { id: later(1), ..first.clone() };
    assert_eq!(hand(&app, &[&second]).await, [""; 0]);
    let delivery = recorded(&pipeline, &second).await;
    assert_eq!((delivery.status, code(&delivery)), (DeliveryStatus::Failed, Some("endpoint_gone")));
    assert_eq!(gone.requests().len(), 1);
    let elsewhere = DeliveryMessage { id: later(2), url: unchecked(&other.url()), ..first.clone() };
    let of_another_job = message(&pipeline, &gone.url());
    assert_eq!(hand(&app, &[&elsewhere, &of_another_job]).await, [""; 0]);
    assert_eq!((other.requests().len(), gone.requests().len()), (1, 2));

    gone.replies(Reply::status(200));
    let again = replay(&pipeline, &second).await;
    hand(&app, &[&again]).await;
    assert_eq!(recorded(&pipeline, &second).await.status, DeliveryStatus::Delivered);
    let third = DeliveryMessage { id: later(3), ..first.clone() };
    hand(&app, &[&third]).await;
    assert_eq!(recorded(&pipeline, &third).await.status, DeliveryStatus::Delivered, "it is back");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_event_whose_try_could_not_be_recorded_is_sent_again_with_the_same_id() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let message = message(&pipeline, &receiver.url());
    let (_, apps) = pipeline.intercept(|call| match call.operation {
        "PutItem" => Action::Refuse,
        _ => Action::Pass,
    });
    let without_table = apps.webhook.expect("it sends webhooks");
    assert_eq!(hand(&without_table, &[&message]).await, ["message-0"]);
    assert_eq!(hand(&app(&pipeline), &[&message]).await, [""; 0]);
    let ids: Vec<_> = receiver.requests().into_iter().map(|request| request.headers["webhook-id"].clone()).collect();
    assert_eq!(ids, vec![message.id.to_string(); 2]);
    assert_eq!(recorded(&pipeline, &message).await.tries.len(), 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_try_whose_record_was_confirmed_too_late_is_recorded_once() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(500)).await;
    let message = message(&pipeline, &receiver.url());
    // The first write takes effect, but its answer says that it did not, as when it is sent twice.
    let real = log(&pipeline);
    let (_, apps) = pipeline.intercept(move |call: &Call<'_>| match call.operation {
        "PutItem" => Action::LoseAnswer,
        _ => Action::Pass,
    });
    let app = apps.webhook.expect("it sends webhooks");
    assert_eq!(hand(&app, &[&message]).await, ["message-0"]);
    let delivery = real.get(message.id).await.expect("it answers").expect("it is recorded");
    assert_eq!((delivery.tries.len(), delivery.fence), (1, 1));
    assert_eq!(receiver.requests().len(), 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn tries_of_the_same_delivery_at_once_do_not_overwrite_each_other() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(500)).await;
    let message = message(&pipeline, &receiver.url());
    assert_eq!(hand(&app(&pipeline), &[&message; 5]).await.len(), 5);
    let delivery = recorded(&pipeline, &message).await;
    // Two tries of the same millisecond with the same result cannot be told apart.
    assert!((1..=receiver.requests().len()).contains(&delivery.tries.len()), "{:?}", delivery.tries);
    assert_eq!(delivery.fence as usize, delivery.tries.len());
    pipeline.stop().await;
}

#[tokio::test]
async fn an_event_that_is_queued_twice_has_the_whole_schedule() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(500)).await;
    let message = message(&pipeline, &receiver.url());
    let app = app(&pipeline);
    for (number, wait) in SCHEDULE.into_iter().enumerate() {
        assert_eq!(hand(&app, &[&message; 2]).await.len(), 2, "both messages come back");
        let delivery = recorded(&pipeline, &message).await;
        assert_eq!(delivery.tries.len(), number + 1);
        let next = delivery.next_try_at.expect("it waits");
        assert_eq!(next, delivery.tries[number].end() + wait, "after try {number}");
        pipeline.clock.advance(next.since(pipeline.clock.now()));
    }
    hand(&app, &[&message; 2]).await;
    assert_eq!(recorded(&pipeline, &message).await.status, DeliveryStatus::Failed);
    pipeline.stop().await;
}

#[tokio::test]
async fn what_is_no_event_is_parked_and_what_is_newer_comes_back() {
    let pipeline = pipeline().await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let good = message(&pipeline, &receiver.url()).to_body();
    let event = delivery(&["no event", r#"{"v":9}"#, r#"{"v":1,"id":"job_1"}"#, &good], 1);
    let answer = webhook::handle(&app(&pipeline), event).await.expect("it answers");
    let back: Vec<_> = answer.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(back, ["message-1"]);
    assert_eq!(pipeline.messages(&pipeline.ready().parked_queue_url).await, 2);
    assert_eq!(receiver.requests().len(), 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other_and_is_then_left_alone() {
    let pipeline = pipeline().await;
    let hanging = Receiver::start(Reply::Stall(String::new())).await;
    let good = Receiver::start(Reply::status(200)).await;
    let app = app(&pipeline).with_client(Client::new(Network::system(), true).with_timeout(Duration::from_secs(1)));
    let (slow, fast) = (message(&pipeline, &hanging.url()), message(&pipeline, &good.url()));
    let others = [message(&pipeline, &hanging.url()), message(&pipeline, &hanging.url())];
    let messages = [&slow, &others[0], &others[1], &fast];
    assert_eq!(hand(&app, &messages).await.len(), 3);
    let took = recorded(&pipeline, &fast).await.tries[0].duration_ms;
    assert!(took < 1000, "{took} ms");
    assert_eq!(code(&recorded(&pipeline, &slow).await), Some("timeout"));

    let before = hanging.requests().len();
    let waiting = message(&pipeline, &hanging.url());
    assert_eq!(hand(&app, &[&waiting]).await, ["message-0"]);
    assert_eq!(hanging.requests().len(), before, "it is left alone for a minute");
    assert_eq!(code(&recorded(&pipeline, &waiting).await), Some("timeout"), "and that is a try");
    assert_eq!(hand(&app, &[&message(&pipeline, &good.url())]).await, [""; 0], "others are not");
    hanging.replies(Reply::status(200));
    let of_other = DeliveryMessage { owner: Owner::new("bob"), ..message(&pipeline, &hanging.url()) };
    assert_eq!(hand(&app, &[&of_other]).await, [""; 0], "nor is it for another owner");
    pipeline.stop().await;
}

/// A job that fails and tells it to this URL, and the message of its event.
async fn failed(pipeline: &Pipeline, url: &str) -> DeliveryMessage {
    let order = json!({ "prompt": "nsfw", "webhook": { "url": url } });
    let job: JobView = pipeline.post("/jobs", &order).await.json().await.expect("a job");
    assert!(pipeline.work(job.id, 1).await);
    shared::event::of_job(&Job { told_for: None, ..pipeline.record(job.id).await }).expect("its event")
}

#[tokio::test]
async fn after_a_restart_the_stack_delivers_what_was_not_delivered() {
    let data = tempfile::tempdir().expect("a directory");
    let options = |event_sources| {
        let data = Some(data.path().to_owned());
        Options { data, event_sources, webhooks_to_loopback: true, ..Options::default() }
    };
    let stack = Pipeline::with(options(false)).await;
    let receiver = Receiver::start(Reply::status(200)).await;
    let done = failed(&stack, &receiver.url()).await;
    assert_eq!(hand(&app(&stack), &[&done]).await, [""; 0]);
    receiver.replies(Reply::status(500));
    let pending = failed(&stack, &receiver.url()).await;
    hand(&app(&stack), &[&pending]).await;
    let untried = failed(&stack, &receiver.url()).await;
    receiver.replies(Reply::status(200));
    stack.stop().await;

    let stack = Pipeline::with(options(true)).await;
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    for message in [&pending, &untried] {
        let log = log(&stack);
        while log
            .get(message.id)
            .await
            .expect("the table answers")
            .is_none_or(|one| one.status != DeliveryStatus::Delivered)
        {
            assert!(tokio::time::Instant::now() < patience, "{} is not delivered", message.id);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let arrived: BTreeSet<_> =
        receiver.requests().iter().map(|request| request.headers["webhook-id"].clone()).collect();
    assert_eq!(arrived, [&done, &pending, &untried].map(|message| message.id.to_string()).into());
    assert_eq!(recorded(&stack, &done).await.tries.len(), 1, "it is not sent again");
    stack.stop().await;
}

#[tokio::test]
async fn an_ended_delivery_is_counted_once() {
    let pipeline = pipeline().await;
    let (kept, aws, settings) = overheard(&pipeline, "webhook");
    let app = App::new(&aws, pipeline.clock.clone(), &|name| settings.get(name).cloned()).expect("good settings");
    let receiver = Receiver::start(Reply::status(500)).await;
    let message = message(&pipeline, &receiver.url());
    hand(&app, &[&message]).await;
    assert_eq!(kept.take().len(), 0, "it has not ended");
    pipeline.clock.advance(Duration::from_secs(5));
    receiver.replies(Reply::status(204));
    for _ in 0..2 {
        hand(&app, &[&message]).await;
    }
    let [line] = &kept.take()[..] else { panic!("one line") };
    assert_eq!((&line["Deliveries"], &line["Outcome"]), (&json!(1), &json!("delivered")));
    assert!(line["TimeToDeliver"].as_u64() >= Some(5000), "{line}");
    pipeline.stop().await;
}
