//! `poster listen`, as a sender of webhooks and its user see it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use shared::Timestamp;
use shared::webhook_secret::WebhookSecret;
use tests::front;
use tests::runtime_api::binary;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cli::{Told, told};

/// The example of the specification's reference libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Another secret.
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A third one.
const THIRD: &str = "whsec_HxwdHh8AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRo=";

const ID: &str = "job_01930000-0000-7000-8000-000000000001_1795500000000";

/// The command, which listens.
struct Listener {
    child: Child,
    url: String,
}

impl Listener {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("poster"));
        command.args(["listen", "--port", "0"]).args(arguments);
        command.env_remove("POSTER_WEBHOOK_SECRET").env("XDG_CONFIG_HOME", "/nowhere").stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
        // What is already in the buffer would be lost, but the command says no more until a request comes.
        let mut said = BufReader::new(child.stderr.as_mut().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).await.expect("it says where it listens");
        let url = line.trim_end().strip_prefix("listening at ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, url }
    }

    /// Sends a webhook and returns the status of the answer.
    async fn send(&self, webhook: RequestBuilder) -> u16 {
        webhook.send().await.map(|answer: Response| answer.status().as_u16()).expect("an answer")
    }

    fn post(&self, secret: &str, sent: SystemTime, body: &str) -> RequestBuilder {
        let secs = sent.duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
        let signature = secret.parse::<WebhookSecret>().expect("a secret").sign(ID, secs as i64, body.as_bytes());
        let request = Client::new().post(&self.url).header("webhook-id", ID).header("webhook-timestamp", secs);
        request.header("webhook-signature", signature).body(body.to_owned())
    }

    /// Stops the command as Ctrl-C does.
    async fn stop(self) -> Told {
        let id = self.child.id().expect("it runs").to_string();
        let stopped = Command::new("kill").args(["-INT", &id]).status().await.expect("it is stopped");
        assert!(stopped.success());
        self.end().await
    }

    /// What the command has said when it ends by itself.
    async fn end(self) -> Told {
        let end = tokio::time::timeout(Duration::from_secs(20), self.child.wait_with_output()).await;
        told(end.expect("it ends").expect("it ran"))
    }
}

fn event() -> Value {
    json!({
        "type": "job.failed", "timestamp": "2026-11-28T13:22:01.123Z",
        "data": { "id": "01930000-0000-7000-8000-000000000001", "custom_id": "moon", "error": { "code": "content_filtered" } }
    })
}

#[tokio::test]
async fn an_event_is_accepted_and_printed_only_as_it_was_signed() {
    let (event, now) = (event().to_string(), SystemTime::now());
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let listener = Listener::start(&["--secret", SECRET]).await;
    let post = |sent| listener.post(SECRET, sent, &event);
    assert_eq!(listener.send(post(now)).await, 200);
    assert_eq!(listener.send(post(now)).await, 200, "a delivery may come more than once");
    assert_eq!(listener.send(post(now - minutes(4))).await, 200, "it took a while");
    let changed = event.replace("moon", "noon");
    let no_id = Client::new().post(&listener.url).body(event.clone());
    for (wrong, status, why) in [
        (post(now).body(changed), 400, "a changed byte"),
        (post(now - minutes(6)), 400, "an old timestamp"),
        (post(now + minutes(6)), 400, "an early timestamp"),
        (listener.post(OTHER, now, &event), 400, "another secret"),
        (listener.post(SECRET, now, "not JSON"), 400, "no JSON"),
        (listener.post(SECRET, now, &json!("x".repeat(20_000)).to_string()), 400, "too long"),
        (no_id, 400, "no headers"),
        (Client::new().get(&listener.url), 405, "a browser"),
    ] {
        assert_eq!(listener.send(wrong).await, status, "{why}");
    }
    let told = listener.stop().await;
    let line = "13:22:01  job.failed     01930000-0000-7000-8000-000000000001  moon  content_filtered";
    assert_eq!(told.shown, format!("{line}\n{line}  again\n{line}  again"));
    assert_eq!((told.code, told.words.matches("refused: ").count()), (Some(0), 7), "{}", told.words);
}

#[tokio::test]
async fn once_ends_with_the_verdict_on_the_first_request() {
    let (event, now) = (event().to_string(), SystemTime::now());
    let good = Listener::start(&["--secret", SECRET, "--once", "--json"]).await;
    assert_eq!(good.send(Client::new().get(&good.url)).await, 405, "this is no delivery");
    assert_eq!(good.send(good.post(SECRET, now, &event)).await, 200);
    let good = good.end().await;
    let data = json!({ "event": "delivery", "id": ID, "again": false, "body": self::event() });
    assert_eq!((good.code, &good.data[..]), (Some(0), &[data][..]));

    let bad = Listener::start(&["--secret", SECRET, "--once", "--json"]).await;
    assert_eq!(bad.send(bad.post(OTHER, now, &event)).await, 400);
    let bad = bad.end().await;
    assert_eq!((bad.code, &bad.data[0]["event"]), (Some(1), &json!("refused")), "{}", bad.words);
}

#[tokio::test]
async fn the_current_and_the_earlier_secrets_of_the_service_are_accepted() {
    let until = Timestamp::from(SystemTime::now() + Duration::from_secs(60)).to_string();
    let secrets = json!({ "secret": SECRET, "previous": [{ "secret": OTHER, "valid_until": until }] }).to_string();
    let service = front::serve(Router::new().route("/webhook-secret", get(async || secrets))).await;
    let listener = Listener::start(&["--api", &service]).await;
    let (event, now) = (event().to_string(), SystemTime::now());
    for (secret, status) in [(SECRET, 200), (OTHER, 200), (THIRD, 400)] {
        assert_eq!(listener.send(listener.post(secret, now, &event)).await, status, "{secret}");
    }
    assert_eq!(listener.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_secret_that_the_service_has_only_had_for_a_while_is_accepted() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let answer = async move || {
        let secret = [SECRET, OTHER][counted.fetch_add(1, Ordering::SeqCst).min(1)];
        json!({ "secret": secret, "previous": [] }).to_string()
    };
    let service = front::serve(Router::new().route("/webhook-secret", get(answer))).await;
    let listener = Listener::start(&["--api", &service]).await;
    let (event, now) = (event().to_string(), SystemTime::now());
    for (secret, status, times) in [(SECRET, 200, 1), (OTHER, 200, 2), (OTHER, 200, 2), (SECRET, 400, 3)] {
        assert_eq!(listener.send(listener.post(secret, now, &event)).await, status, "{secret}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "the service is asked only after a signature that is not good");
    }
    listener.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_nothing_keeps_no_other_waiting() {
    let listener = Listener::start(&["--secret", SECRET, "--once"]).await;
    let address = listener.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut silent = TcpStream::connect(&address).await.expect("it listens");
    silent.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n").await.expect("it reads");
    assert_eq!(listener.send(listener.post(SECRET, SystemTime::now(), &event().to_string())).await, 200);
    assert_eq!(listener.end().await.code, Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_secret_that_is_none_are_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (arguments, words) in [
        (["--port", &port, "--secret", SECRET], format!("port {port} cannot be used")),
        (["--port", "0", "--secret", "whsec_short"], "must be whsec_ and 24 to 64 bytes in base64".to_owned()),
    ] {
        let wrong = Command::new(binary("poster")).arg("listen").args(arguments).output().await.expect("it runs");
        let wrong = told(wrong);
        assert!(wrong.code == Some(2) && wrong.words.contains(&words), "{}", wrong.words);
    }
}
