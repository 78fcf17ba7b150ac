//! From a prompt to a picture, as a caller sees it.

use std::time::Duration;

use local::Options;
use local::bedrock::size;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::json;
use shared::job::{ErrorCode, Status};
use shared::order::AspectRatio;
use tests::pipeline::{Pipeline, ticket};

#[tokio::test]
async fn a_prompt_becomes_a_picture_behind_a_url_that_cannot_be_tampered_with() {
    let pipeline = Pipeline::with_artist().await;
    let job = pipeline.submit("A noir detective thriller in 1940s Venice").await;
    assert_eq!(job.status, Status::Queued);
    let ended = pipeline.ended(job.id).await;
    assert_eq!(ended.status, Status::Succeeded);
    let image = ended.image.expect("it has a picture");

    let download = pipeline.http.get(&image.url).send().await.expect("S3 answers");
    assert_eq!(download.status(), StatusCode::OK);
    assert_eq!(download.headers()[CONTENT_TYPE], "image/png");
    let disposition = download.headers()[CONTENT_DISPOSITION].to_str().expect("text").to_owned();
    assert_eq!(disposition, format!("inline; filename=\"poster-{}.png\"", job.id));
    let bytes = download.bytes().await.expect("the picture");
    assert_eq!(bytes.len() as u64, image.bytes);
    let mut decoder = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().expect("it is a PNG");
    let mut pixels = vec![0; decoder.output_buffer_size().expect("it fits in memory")];
    let info = decoder.next_frame(&mut pixels).expect("it decodes");
    assert_eq!((info.width, info.height), size(AspectRatio::OneSheet));
    assert_eq!((image.width, image.height), (info.width, info.height));

    let unsigned = image.url.split('?').next().expect("an address").to_owned();
    let stretched = image.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000");
    let signature = image.url.rfind("Signature=").expect("a signature") + "Signature=".len();
    let flipped = if &image.url[signature..=signature] == "0" { "1" } else { "0" };
    let forged = format!("{}{flipped}{}", &image.url[..signature], &image.url[signature + 1..]);
    for url in [unsigned, stretched, forged] {
        assert_ne!(url, image.url);
        let refused = pipeline.http.get(&url).send().await.expect("S3 answers");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{url}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn every_aspect_ratio_and_format_is_painted_as_requested() {
    let pipeline = Pipeline::with_artist().await;
    let mut jobs = Vec::new();
    for (i, ratio) in AspectRatio::ALL.iter().enumerate() {
        let (format, model) = match i % 3 {
            0 => ("png", "stability.stable-image-core-v1:1"),
            1 => ("jpeg", "stability.stable-image-ultra-v1:1"),
            _ => ("webp", "stability.sd3-5-large-v1:0"),
        };
        let order = json!({ "prompt": "Castaways", "aspect_ratio": ratio, "output_format": format, "model": model });
        let response = pipeline.post("/jobs", &order).await;
        jobs.push(response.json::<shared::api::JobView>().await.expect("a job"));
    }
    for job in jobs {
        let image = pipeline.ended(job.id).await.image.expect("it has a picture");
        assert_eq!((image.width, image.height), size(job.aspect_ratio), "{}", job.aspect_ratio);
        assert_eq!(image.content_type, job.output_format.content_type());
        let bytes = pipeline.http.get(&image.url).send().await.expect("S3 answers").bytes().await.expect("a body");
        assert_eq!(bytes.len() as u64, image.bytes);
    }
    assert_eq!(pipeline.pictures().await.len(), 2 * AspectRatio::ALL.len());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_filtered_prompt_fails_at_once_and_says_why() {
    let pipeline = Pipeline::start().await;
    let job = pipeline.submit("nsfw").await;
    let ended = pipeline.ended(job.id).await;
    let error = ended.error.expect("it says why");
    assert_eq!((ended.status, error.code), (Status::Failed, ErrorCode::ContentFiltered));
    assert!(!error.retryable && !error.billed);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_waiting_job_says_why_it_waits_and_then_succeeds() {
    for (faults, code) in [
        ("throttle=1", ErrorCode::Throttled),
        ("deny=1", ErrorCode::ModelAccessDenied),
        ("error=1", ErrorCode::ModelError),
    ] {
        let pipeline = Pipeline::without_event_sources().await;
        pipeline.model(faults);
        let job = pipeline.submit("A heist on the moon").await;
        let worker = &pipeline.stack.apps().worker;
        let answer = worker::handle(worker, ticket(job.id, 1)).await.expect("the worker answers");
        assert_eq!(answer.batch_item_failures.len(), 1, "the ticket comes back");
        let waiting = pipeline.job(job.id).await;
        assert_eq!(waiting.last_error.expect("it says why it waits").code, code);
        assert_eq!(waiting.attempts, u32::from(code == ErrorCode::ModelError), "only what may be billed counts");
        pipeline.model("");
        worker::handle(worker, ticket(job.id, 2)).await.expect("the worker answers");
        let ended = pipeline.job(job.id).await;
        assert_eq!((ended.status, ended.last_error), (Status::Succeeded, None));
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_model_that_always_fails_is_called_as_often_as_allowed() {
    let pipeline = Pipeline::without_event_sources().await;
    pipeline.model("error=1");
    let job = pipeline.submit("A heist on the moon").await;
    for receives in 1..=5 {
        worker::handle(&pipeline.stack.apps().worker, ticket(job.id, receives)).await.expect("the worker answers");
    }
    let ended = pipeline.job(job.id).await;
    let error = ended.error.expect("it says why");
    assert_eq!((ended.status, error.code, ended.attempts), (Status::Failed, ErrorCode::ModelError, 3));
    assert!(error.retryable && error.billed);
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 3);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_without_a_ticket_fails_when_it_is_read_after_its_deadline() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = pipeline.submit("A heist on the moon").await;
    pipeline.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(pipeline.job(job.id).await.status, Status::Queued);
    pipeline.clock.advance(Duration::from_secs(2 * 3600));
    let ended = pipeline.job(job.id).await;
    assert_eq!(ended.error.expect("it says why").code, ErrorCode::DeadlineExceeded);
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 0, "an ended job is not painted");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_url_is_signed_again_after_half_of_its_life() {
    let pipeline = Pipeline::start().await;
    let job = pipeline.submit("A heist on the moon").await;
    let saved = pipeline.ended(job.id).await.image.expect("a picture");
    assert_eq!(pipeline.job(job.id).await.image.expect("a picture").url, saved.url, "the saved URL is still good");
    pipeline.clock.advance(Duration::from_secs(31 * 60));
    let fresh = pipeline.job(job.id).await.image.expect("a picture");
    assert_ne!(fresh.url, saved.url);
    let left = fresh.url_expires_at.since(pipeline.clock.now());
    assert!((30 * 60..=60 * 60).contains(&left.as_secs()), "{left:?}");
    let again = pipeline.job(job.id).await.image.expect("a picture");
    assert!(again.url == fresh.url || again.url_expires_at > fresh.url_expires_at, "it is not signed at every look");
    pipeline.stop().await;
}

#[tokio::test]
async fn jobs_survive_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(data.path().to_owned()), ..Options::default() };
    let first = Pipeline::with(Options { event_sources: false, ..options() }).await;
    let waiting = first.submit("A heist on the moon").await;
    let painted = first.submit("A heist on Mars").await;
    worker::handle(&first.stack.apps().worker, ticket(painted.id, 1)).await.expect("the worker answers");
    let url = first.job(painted.id).await.image.expect("a picture").url;
    first.stack.stop().await;

    let second = Pipeline::with(options()).await;
    assert_eq!(second.ended(waiting.id).await.status, Status::Succeeded);
    let download = second.http.get(&url).send().await.expect("S3 answers on the same port");
    assert_eq!(download.status(), StatusCode::OK);
    assert_eq!(second.stack.bedrock().stats().images, 1, "what was painted is not painted again");
    second.stop().await;
}

#[tokio::test]
async fn any_aws_client_can_look_inside() {
    let pipeline = Pipeline::start().await;
    let job = pipeline.submit("A heist on the moon").await;
    pipeline.ended(job.id).await;
    let tables = pipeline.dynamodb().list_tables().send().await.expect("DynamoDB answers");
    assert!(tables.table_names().contains(&pipeline.ready().table), "{tables:?}");
    assert_eq!(tables.table_names().len(), 2, "jobs, and deliveries");
    assert_eq!(pipeline.messages(&pipeline.ready().queue_url).await, 0);
    assert_eq!(pipeline.pictures().await.len(), 2);
    let stats = pipeline.http.get(format!("{}/_stats", pipeline.ready().bedrock)).send().await.expect("it answers");
    let stats: serde_json::Value = stats.json().await.expect("counts");
    assert_eq!(stats, json!({ "invocations": 1, "images": 1, "throttled": 0, "errors": 0, "filtered": 0 }));
    pipeline.stop().await;
}
