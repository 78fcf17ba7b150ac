//! The web page as an answer of the API. `.ci/page` tests its behavior in a browser.

use local::Options;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::aws::{Aws, Endpoints};
use tests::pipeline::Pipeline;

#[tokio::test]
async fn the_page_may_contact_only_its_api_and_the_bucket() {
    let pipeline = Pipeline::start().await;
    let page = pipeline.get("/?from=elsewhere").await;
    assert_eq!(page.status(), StatusCode::OK);
    let header = |name| page.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(header(CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(header(CACHE_CONTROL), "no-cache");
    assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(header(REFERRER_POLICY), "no-referrer");
    let policy = header(CONTENT_SECURITY_POLICY);
    let s3 = &pipeline.ready().s3;
    for rule in ["default-src 'none';", &format!("img-src data: {s3};"), &format!("connect-src 'self' {s3};")] {
        assert!(policy.contains(rule), "{rule} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text().await.expect("a body");
    assert!(html.starts_with("<!doctype html>"));

    // A job's picture comes from the origin that the policy names.
    let job = pipeline.submit("A heist on the moon").await;
    let image = pipeline.ended(job.id).await.image.expect("a picture");
    assert!(image.url.starts_with(&format!("{s3}/")), "{}", image.url);
    pipeline.stop().await;
}

#[tokio::test]
async fn when_deployed_the_pictures_come_from_the_buckets_own_host() {
    let pipeline = Pipeline::without_event_sources().await;
    // Without another endpoint for S3 the SDK signs for the real one, which does not require a connection.
    let aws = Aws::new(pipeline.stack.config().clone(), Endpoints::default());
    let origin = aws.images("movieposterdesign01".to_owned()).origin().await;
    assert_eq!(origin.expect("an origin"), "https://movieposterdesign01.s3.us-west-2.amazonaws.com");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_unchanged_page_is_not_sent_again() {
    let pipeline = Pipeline::start().await;
    let etag = pipeline.get("/").await.headers()[ETAG].clone();
    let again = pipeline.http.get(&pipeline.ready().api).header(IF_NONE_MATCH, &etag).send().await.expect("it answers");
    assert_eq!((again.status(), &again.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &etag));
    let other = pipeline.http.post(&pipeline.ready().api).send().await.expect("it answers");
    assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_page_that_is_turned_off_is_not_found() {
    let parameters = [("Page".to_owned(), "false".to_owned())].into();
    let pipeline = Pipeline::with(Options { parameters, event_sources: false, ..Options::default() }).await;
    for method in [Method::GET, Method::POST] {
        let answer = pipeline.http.request(method, &pipeline.ready().api).send().await.expect("it answers");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], json!("no_such_route"));
    }
    pipeline.stop().await;
}
