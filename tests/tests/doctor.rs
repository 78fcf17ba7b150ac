//! `poster doctor`, on services that work and on others.

use axum::Router;
use axum::routing::get;
use local::Options;
use serde_json::{Value, json};
use tests::front;
use tests::pipeline::Pipeline;

use crate::cli::{Desk, Told, told};

/// The reported steps, each with `true` if it passed.
fn steps(told: &Told) -> Vec<(&str, Option<bool>)> {
    told.data.iter().map(|step| (step["step"].as_str().expect("a name"), step["ok"].as_bool())).collect()
}

/// The address, environment variables, the step that must fail, what its message must contain, and the exit code.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, i32);

/// The URL of a port without a listener.
fn nowhere() -> String {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    format!("http://{closed}")
}

#[tokio::test]
async fn a_working_service_passes_and_nothing_is_saved() {
    let api_keys = [("a-key".to_owned(), "me".to_owned())].into();
    let desk = Desk::new(Pipeline::with(Options { api_keys, ..Options::default() }).await).await;
    let doctor = async |arguments: &[&str]| {
        let mut command = desk.command(&[&["doctor"], arguments].concat());
        told(command.env("POSTER_API_KEY", "a-key").output().await.expect("it runs"))
    };
    let looked = doctor(&[]).await;
    assert_eq!(looked.code, Some(0), "{}", looked.shown);
    let signs: Vec<_> = looked.shown.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(signs, ["ok", "ok", "ok", "ok", "ok", "ok", "skip"], "{}", looked.shown);
    assert!(looked.shown.contains("$0.04 to $0.14"), "it says what --paint costs: {}", looked.shown);
    assert!(desk.pipeline.pictures().await.is_empty(), "nothing is painted unasked");

    let painted = doctor(&["--paint", "--title", "Moonfall", "--json"]).await;
    assert_eq!(painted.code, Some(0), "{:?}", painted.data);
    let all = ["address", "name", "connection", "health", "clock", "key", "job", "picture", "download", "file"];
    assert_eq!(steps(&painted), all.map(|step| (step, Some(true))));
    assert!(painted.data.iter().all(|step| step["milliseconds"].is_u64() && step["advice"].is_null()));
    assert_eq!(std::fs::read_dir(desk.path("")).expect("a directory").count(), 0);
    assert_eq!(doctor(&["--title", "Moonfall"]).await.code, Some(2), "no picture is asked for");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn an_unreachable_service_is_reported_with_the_step_that_fails() {
    let api_keys = [("a-key".to_owned(), "me".to_owned())].into();
    let desk = Desk::new(Pipeline::with(Options { api_keys, ..Options::default() }).await).await;
    let api = desk.pipeline.ready().api.clone();
    let authority = desk.path("authority.pem");
    let secure = front::secure(&api, &authority).await;
    let days_ago = |headers: &mut axum::http::HeaderMap, _: &mut Value| {
        headers.insert("date", "Fri, 02 Jan 2026 03:04:05 GMT".parse().expect("a value"));
    };
    let off = front::changing(&api, days_ago).await;
    let website = front::serve(Router::new().fallback(|| async { "<html>Welcome</html>" })).await;

    let key = ("POSTER_API_KEY", "a-key");
    let nowhere = nowhere();
    let (http, https) = (api.replace("http:", "https:"), authority.display().to_string());
    let cases: [Case<'_>; 11] = [
        (&api, &[], "key", "POSTER_API_KEY", 2),
        (&api, &[("POSTER_API_KEY", "another")], "key", "ApiKeyId", 2),
        (&nowhere, &[key], "connection", "Is `cargo run` serving there?", 3),
        ("http://nowhere.invalid", &[key], "name", "spelled right", 3),
        (&http, &[key], "TLS", "http, not https", 3),
        (&secure, &[key], "TLS", "SSL_CERT_FILE", 3),
        (&desk.pipeline.ready().s3, &[key], "health", "the output ApiUrl", 3),
        (&website, &[key], "health", "the output ApiUrl", 3),
        (&api, &[key, ("HTTP_PROXY", &nowhere)], "connection", "Is the proxy running?", 3),
        (&api, &[key, ("HTTP_PROXY", "socks5://127.0.0.1:1")], "address", "http proxy", 2),
        (&off, &[key], "clock", "ahead of the service's", 1),
    ];
    for (address, variables, step, words, code) in cases {
        let doctor = async |arguments: &[&str]| {
            let mut command = desk.command(&[&["doctor", "--api", address], arguments].concat());
            told(command.envs(variables.iter().copied()).output().await.expect("it runs"))
        };
        let ill = doctor(&["--json"]).await;
        let failed: Vec<_> = steps(&ill).into_iter().filter(|(_, ok)| *ok == Some(false)).collect();
        assert_eq!((ill.code, failed), (Some(code), vec![(step, Some(false))]), "{address}: {:?}", ill.data);
        let shown = doctor(&[]).await.shown;
        let line = shown.lines().find(|line| line.starts_with("FAIL")).expect("a line");
        assert!(line.split_whitespace().nth(1) == Some(step) && shown.contains(words), "{address}: {shown}");
        // A wrong clock is reported, and the other steps still run.
        assert_eq!(shown.contains("ok    key"), step == "clock", "{shown}");
    }
    let mut trusting = desk.command(&["doctor", "--api", &secure]);
    let trusted = told(trusting.envs([key, ("SSL_CERT_FILE", &https)]).output().await.expect("it runs"));
    assert!(trusted.code == Some(0) && trusted.shown.contains("ok    TLS"), "{}", trusted.shown);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_missing_picture_is_reported_with_what_to_do() {
    let desk = Desk::new(Pipeline::start().await).await;
    let api = desk.pipeline.ready().api.clone();
    let image = |change: fn(&mut Value, &str)| {
        let nowhere = nowhere();
        move |_: &mut axum::http::HeaderMap, job: &mut Value| {
            if job["image"].is_object() {
                change(&mut job["image"], &nowhere);
            }
        }
    };
    let elsewhere = front::changing(&api, image(|image, nowhere| image["url"] = json!(nowhere))).await;
    let unsigned = |image: &mut Value, _: &str| {
        let url = image["url"].as_str().and_then(|url| url.split('?').next()).expect("a URL");
        image["url"] = json!(url);
    };
    let unsigned = front::changing(&api, image(unsigned)).await;
    let longer = front::changing(&api, image(|image, _| image["bytes"] = json!(1_000_000))).await;
    let wider = front::changing(&api, image(|image, _| image["width"] = json!(831))).await;
    let cases: [(&str, &str, &str, &str); 6] = [
        (&elsewhere, "", "download", "the bucket cannot"),
        (&unsigned, "", "download", "403 (AccessDenied)"),
        (&longer, "", "download", "instead of 1,000,000"),
        (&wider, "", "file", "instead of 831 × 1216"),
        (&api, "deny=1", "picture", "Access to the model"),
        (&api, "filter=1", "picture", "the job is failed"),
    ];
    for (address, faults, step, words) in cases {
        desk.pipeline.model(faults);
        let ill = desk.poster(&["doctor", "--api", address, "--paint"]).await;
        let line = ill.shown.lines().find(|line| line.starts_with("FAIL")).expect("a line");
        assert_eq!((ill.code, line.split_whitespace().nth(1)), (Some(1), Some(step)), "{}", ill.shown);
        assert!(ill.shown.contains(words), "{words}: {}", ill.shown);
    }
    // The job was canceled when the command stopped waiting for it, so nothing is painted.
    desk.pipeline.model("");
    let canceled = desk.poster(&["list", "--status", "canceled", "--json"]).await;
    assert_eq!(canceled.data.len(), 1);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn pictures_are_fetched_over_https_even_if_the_api_is_not() {
    let desk = Desk::new(Pipeline::start().await).await;
    let job = desk.pipeline.submit("A heist").await;
    let image = desk.pipeline.ended(job.id).await.image.expect("a picture");
    let file = desk.pipeline.http.get(&image.url).send().await.expect("the bucket answers").bytes().await;
    let file = file.expect("the whole picture");
    let bucket = front::serve(Router::new().route("/picture", get(|| async { file }))).await;
    let authority = desk.path("authority.pem");
    let bucket = front::secure(&bucket, &authority).await;
    let api = front::changing(&desk.pipeline.ready().api, move |_, job| {
        if job["image"].is_object() {
            job["image"]["url"] = json!(format!("{bucket}/picture"));
        }
    })
    .await;
    let id = job.id.to_string();
    let mut command = desk.command(&["download", &id, "--api", &api]);
    let saved = told(command.env("SSL_CERT_FILE", &authority).output().await.expect("it runs"));
    assert!(saved.code == Some(0) && saved.words.contains("1 picture saved"), "{}", saved.words);
    // Without a trusted root every try would fail in the same way.
    let refused = desk.poster(&["download", &id, "--api", &api, "--out", "again"]).await;
    assert!(refused.code == Some(3) && refused.words.contains("UnknownIssuer"), "{}", refused.words);
    desk.pipeline.stop().await;
}
