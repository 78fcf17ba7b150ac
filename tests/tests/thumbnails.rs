//! Thumbnails: a small copy of each picture, for which no job waits or fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use img_parts::png::{Png, PngChunk};
use local::Options;
use serde_json::{Value, json};
use shared::JobId;
use shared::api::{ImageView, JobsView};
use shared::job::Status;
use shared::origin::Origin;
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};
use typography::{Format, Raster};

/// The call with which a worker stores the thumbnail of a picture: read, claim, paint and store come first.
const STORE_THUMBNAIL: usize = 4;

/// The lease of a worker that died lasts until its invocation would have ended, and a little longer.
const LEASE: Duration = Duration::from_secs(96);

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code></Error>";

const DENIED: &str = "<Error><Code>AccessDenied</Code></Error>";

fn stores_thumbnail(call: &Call<'_>) -> bool {
    call.request.method() == "PUT" && call.request.uri().contains("-thumbnail")
}

/// An answer of the model that contains this picture.
fn answer_with(picture: &[u8]) -> String {
    let image = base64_simd::STANDARD.encode_to_string(picture);
    json!({ "seeds": [1], "finish_reasons": [null], "images": [image] }).to_string()
}

async fn submit(pipeline: &Pipeline, body: &Value) -> JobId {
    let job: Value = pipeline.post("/jobs", body).await.json().await.expect("a job");
    job["id"].as_str().expect("an id").parse().expect("an id")
}

async fn image(pipeline: &Pipeline, job: JobId) -> ImageView {
    let job = pipeline.ended(job).await;
    assert_eq!(job.status, Status::Succeeded, "{:?}", job.error);
    job.image.expect("a picture")
}

/// Runs a worker on a job, with this rule for its calls.
async fn paint(
    pipeline: &Pipeline,
    body: Value,
    rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static,
) -> ImageView {
    let (_, apps) = pipeline.intercept(rule);
    let job = submit(pipeline, &body).await;
    let answer = worker::handle(&apps.worker, ticket(job, 1)).await.expect("an answer");
    assert!(answer.batch_item_failures.is_empty(), "the ticket is done with");
    image(pipeline, job).await
}

/// Downloads the thumbnail of a picture and checks it.
async fn check(pipeline: &Pipeline, image: &ImageView, origin: Origin) -> Raster {
    let response = pipeline.http.get(image.thumbnail.as_ref().expect("a thumbnail")).send().await.expect("S3 answers");
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "image/jpeg");
    let file = response.bytes().await.expect("a file");
    assert!(file.len() <= 40_000, "{} bytes for {} x {}", file.len(), image.width, image.height);
    assert_eq!(Origin::of(&file), Some(origin));
    let small = Raster::decode(&file).expect("a picture");
    let kept = small.width as f64 / f64::from(image.width);
    assert!(small.width <= 400 && (small.height as f64 - kept * f64::from(image.height)).abs() <= 1.0);
    small
}

#[tokio::test]
async fn every_picture_and_every_poster_has_a_thumbnail() {
    let pipeline = Pipeline::with_artist().await;
    let mut jobs = Vec::new();
    for (format, ratio) in [("png", "2:3"), ("jpeg", "21:9"), ("webp", "9:21")] {
        for poster in [Value::Null, json!({ "title": "The Heist" })] {
            let model = "stability.sd3-5-large-v1:0";
            let order = json!({
                "prompt": "A heist", "output_format": format, "aspect_ratio": ratio, "model": model, "poster": poster
            });
            jobs.push(submit(&pipeline, &order).await);
        }
    }
    for job in jobs {
        let image = image(&pipeline, job).await;
        let small = check(&pipeline, &image, Origin::Algorithm).await;
        assert_eq!(small.width, 400, "it is easy to compress");
        // It shows the job's image: the poster if there is one.
        let whole = pipeline.http.get(&image.url).send().await.expect("S3 answers").bytes().await.expect("a file");
        let whole = Raster::decode(&whole).expect("a picture").scaled(small.width, small.height);
        let off: u64 = whole.pixels.iter().zip(&small.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(
            off / (small.pixels.len() as u64) < 6,
            "{} x {} of {}: they differ by {off}",
            small.width,
            small.height,
            image.url
        );
    }
    let page: JobsView = pipeline.get("/jobs").await.json().await.expect("a page");
    assert!(page.jobs.iter().all(|job| job.image.as_ref().is_some_and(|image| image.thumbnail.is_some())));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_hardly_compresses_has_a_thumbnail() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut state = 7_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let (width, height) = (640, 1536);
    let pixels = (0..width * height * 3).map(|_| noise()).collect();
    let picture = Raster { width, height, pixels, notes: Vec::new() };
    for (format, poster) in [(Format::Jpeg, false), (Format::Webp, false), (Format::Png, true)] {
        let answer = answer_with(&picture.encode(format).expect("it fits"));
        let poster = poster.then(|| json!({ "title": "The Heist" }));
        let origin = if poster.is_some() { Origin::LetteredModel } else { Origin::Model };
        let image = paint(&pipeline, json!({ "prompt": "Noise", "poster": poster }), move |call| {
            if call.is_to_model() { Action::Answer(200, answer.clone()) } else { Action::Pass }
        });
        check(&pipeline, &image.await, origin).await;
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_service_can_do_without_thumbnails() {
    let parameters = [("Thumbnails".to_owned(), "false".to_owned())].into();
    let pipeline = Pipeline::with(Options { parameters, ..Options::default() }).await;
    let job = submit(&pipeline, &json!({ "prompt": "A heist" })).await;
    let image = image(&pipeline, job).await;
    assert_eq!(image.thumbnail, None);
    assert_eq!(pipeline.pictures().await.len(), 1);
    let instead = pipeline.get(&format!("/jobs/{job}/image?variant=thumbnail")).await;
    assert_eq!(instead.bytes().await.expect("a file").len() as u64, image.bytes, "it is the picture");
    pipeline.stop().await;
}

#[tokio::test]
async fn the_permanent_address_of_a_thumbnail_redirects_to_it() {
    let pipeline = Pipeline::start().await;
    let job = submit(&pipeline, &json!({ "prompt": "A heist" })).await;
    let image = image(&pipeline, job).await;
    let kept = pipeline.get(&format!("/jobs/{job}/image?variant=thumbnail")).await.bytes().await.expect("a file");
    let thumbnail = pipeline.http.get(image.thumbnail.expect("a thumbnail")).send().await.expect("S3 answers");
    assert_eq!(thumbnail.bytes().await.expect("a file"), kept);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_succeeds_without_a_thumbnail_that_cannot_be_stored() {
    let pipeline = Pipeline::without_event_sources().await;
    let heist = json!({ "prompt": "A heist" });
    let denied = paint(&pipeline, heist.clone(), |call| {
        if stores_thumbnail(call) { Action::Answer(403, DENIED.to_owned()) } else { Action::Pass }
    });
    assert_eq!(denied.await.thumbnail, None);
    assert_eq!(pipeline.pictures().await.len(), 1);
    // A call to a busy bucket is retried.
    let calls = AtomicUsize::new(0);
    let busy = paint(&pipeline, heist.clone(), move |call| {
        let first = stores_thumbnail(call) && calls.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Action::Answer(503, SLOW_DOWN.to_owned()) } else { Action::Pass }
    });
    check(&pipeline, &busy.await, Origin::Algorithm).await;
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_does_not_wait_long_for_its_thumbnail() {
    let pipeline = Pipeline::without_event_sources().await;
    let start = std::time::Instant::now();
    let image = paint(&pipeline, json!({ "prompt": "A heist" }), |call| {
        if stores_thumbnail(call) { Action::Answer(503, SLOW_DOWN.to_owned()) } else { Action::Pass }
    });
    assert_eq!(image.await.thumbnail, None);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_succeeds_without_a_thumbnail_of_what_cannot_be_decoded() {
    let pipeline = Pipeline::without_event_sources().await;
    let plain = Raster { width: 64, height: 96, pixels: vec![90; 64 * 96 * 3], notes: Vec::new() };
    let mut png = Png::from_bytes(plain.encode(Format::Png).expect("it fits").into()).expect("a picture");
    png.chunks_mut().retain(|chunk| chunk.kind() != *b"IDAT");
    png.chunks_mut().insert(1, PngChunk::new(*b"IDAT", img_parts::Bytes::from_static(b"no pixels")));
    let answer = answer_with(&png.encoder().bytes());
    let image = paint(&pipeline, json!({ "prompt": "A heist" }), move |call| {
        if call.is_to_model() { Action::Answer(200, answer.clone()) } else { Action::Pass }
    });
    let image = image.await;
    assert_eq!((image.width, image.thumbnail), (64, None));
    pipeline.stop().await;
}

#[tokio::test]
async fn the_next_worker_makes_the_thumbnail_that_a_dead_one_did_not_make() {
    let pipeline = Pipeline::without_event_sources().await;
    for poster in [Value::Null, json!({ "title": "The Heist" })] {
        let job = submit(&pipeline, &json!({ "prompt": "A heist", "poster": poster })).await;
        // A poster is stored in two calls.
        let call = STORE_THUMBNAIL + usize::from(!poster.is_null());
        let before = pipeline.pictures().await.len();
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::CrashBefore);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(worker::handle(&apps.worker, ticket(job, 1))).await.is_none(), "the worker dies");
        assert_eq!(pipeline.pictures().await.len(), before + call - 3);
        pipeline.clock.advance(LEASE);
        assert!(pipeline.work(job, 2).await);
        check(&pipeline, &image(&pipeline, job).await, Origin::Algorithm).await;
    }
    assert_eq!(pipeline.stack.bedrock().stats().images, 2, "nothing is painted again");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_job_that_is_given_up_keeps_the_files_that_are_there() {
    let parameters = [("MaxAttempts".to_owned(), "1".to_owned())].into();
    let pipeline = Pipeline::with(Options { event_sources: false, parameters, ..Options::default() }).await;
    for (call, is_there) in [(STORE_THUMBNAIL, false), (STORE_THUMBNAIL + 1, true)] {
        let job = submit(&pipeline, &json!({ "prompt": "A heist" })).await;
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::CrashBefore);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        assert!(wire.run(worker::handle(&apps.worker, ticket(job, 1))).await.is_none(), "the worker dies");
        pipeline.clock.advance(LEASE);
        assert!(pipeline.work(job, 2).await);
        assert_eq!(image(&pipeline, job).await.thumbnail.is_some(), is_there);
    }
    pipeline.stop().await;
}
