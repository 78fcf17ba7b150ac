//! Posters: lettering over the picture, from the request to the files.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use local::Options;
use reqwest::StatusCode;
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use shared::api::JobView;
use shared::job::{ErrorCode, Status};
use shared::poster::{NO_LETTERING, Placement, Style, is_covered};
use tests::interceptor::Action;
use tests::pipeline::{Pipeline, ticket};
use tests::wire::{Disturbance, Wire};
use typography::{Format, Raster, contrast, covers, luminance};

/// The calls that a worker makes for a poster, in their order: read, claim, paint, and these.
const STORE_ARTWORK: usize = 3;
const STORE_POSTER: usize = 4;
const STORE_THUMBNAIL: usize = 5;
const RECORD: usize = 6;

/// The lease of a worker that died lasts until its invocation would have ended, and a little longer.
const LEASE: Duration = Duration::from_secs(96);

async fn submit(pipeline: &Pipeline, body: &Value) -> JobView {
    let response = pipeline.post("/jobs", body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json().await.expect("the answer is a job")
}

fn heist() -> Value {
    json!({ "prompt": "A heist on the moon", "seed": 7, "poster": { "title": "The Heist", "tagline": "One small step." } })
}

async fn download(pipeline: &Pipeline, url: &str) -> Vec<u8> {
    let response = pipeline.http.get(url).send().await.expect("S3 answers");
    assert_eq!(response.status(), StatusCode::OK);
    response.bytes().await.expect("a file").to_vec()
}

/// Runs a worker with one disturbed call.
async fn work_disturbed(pipeline: &Pipeline, job: &JobView, call: usize, disturbance: Disturbance) -> bool {
    let http = pipeline.stack.config().http_client().expect("the stack has a client");
    let wire = Wire::new(http, call, disturbance);
    let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
    let answer = wire.run(worker::handle(&apps.worker, ticket(job.id, 1))).await;
    answer.is_some_and(|answer| answer.expect("the worker answers").batch_item_failures.is_empty())
}

/// Has an undisturbed worker process a job after the lease of the worker before. Returns whether the ticket is deleted.
async fn work_again(pipeline: &Pipeline, job: &JobView) -> bool {
    pipeline.clock.advance(LEASE);
    let answer = worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 2)).await;
    answer.expect("the worker answers").batch_item_failures.is_empty()
}

#[tokio::test]
async fn a_poster_comes_with_its_artwork() {
    let pipeline = Pipeline::with_artist().await;
    let bare = json!({ "prompt": "A heist on the moon", "seed": 7, "negative_prompt": NO_LETTERING });
    let bare = submit(&pipeline, &bare).await;
    let poster = submit(&pipeline, &heist()).await;
    assert_eq!(poster.poster.as_ref().map(|poster| poster.title.as_str()), Some("The Heist"));
    assert!(bare.poster.is_none());
    let (bare, poster) = (pipeline.ended(bare.id).await, pipeline.ended(poster.id).await);

    let image = poster.image.clone().expect("a poster");
    let lettering = image.poster.expect("it was set");
    assert_eq!(lettering.style, Style::Noir, "a heist is set as one");
    assert_ne!(lettering.placement, Placement::Auto);
    assert!(f64::from(lettering.contrast) >= 7.0, "{lettering:?}");
    assert_eq!(lettering.legible, Some(true));
    let artwork = image.artwork.clone().expect("the picture beneath it");
    assert_eq!((image.seed, artwork.width, artwork.height), (Some(7), image.width, image.height));

    let (set, clean) = (download(&pipeline, &image.url).await, download(&pipeline, &artwork.url).await);
    assert_eq!((set.len() as u64, clean.len() as u64), (image.bytes, artwork.bytes));
    let bare_image = bare.image.expect("a picture");
    assert!(bare_image.poster.is_none() && bare_image.artwork.is_none());
    let unlettered = download(&pipeline, &bare_image.url).await;
    assert_eq!(clean, unlettered, "the model was told to leave lettering out");
    let (set, clean) = (Raster::decode(&set).expect("a picture"), Raster::decode(&clean).expect("a picture"));
    assert_eq!((set.width, set.height), (clean.width, clean.height));
    assert_ne!(set.pixels, clean.pixels);
    assert_eq!(set.notes, clean.notes, "the poster says how its picture was made");

    let browser = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
    let address = poster.links.artwork.expect("its address");
    for (address, part) in [(address, "-artwork?"), (poster.links.image.expect("its address"), "?")] {
        let redirect = browser.get(&address).send().await.expect("the API answers");
        assert_eq!(redirect.status(), StatusCode::FOUND);
        let url = redirect.headers()[LOCATION].to_str().expect("text");
        assert!(url.contains(part) && url.contains("-artwork") == (part != "?"), "{url}");
    }
    let plain = pipeline.get(&format!("/jobs/{}/image?variant=artwork", bare.id)).await;
    assert_eq!(plain.bytes().await.expect("a file"), unlettered, "without lettering there is one picture for both");
    let problem: Value =
        pipeline.get(&format!("/jobs/{}/image?variant=poster", bare.id)).await.json().await.expect("JSON");
    assert_eq!(problem["errors"][0]["pointer"], "?variant", "{problem}");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_poster_has_the_requested_format() {
    let pipeline = Pipeline::with_artist().await;
    for (format, ratio) in [("jpeg", "16:9"), ("webp", "1:1")] {
        let job = json!({
            "prompt": "A heist", "output_format": format, "aspect_ratio": ratio, "model": "stability.sd3-5-large-v1:0",
            "poster": { "title": "Ngu\u{31b}o\u{31b}\u{300}i & Ünï", "credits": [{ "role": "directed by", "name": "Åsa Žuk" }] }
        });
        let job = pipeline.ended(submit(&pipeline, &job).await.id).await;
        let title = job.poster.expect("its lettering").title;
        assert_eq!(title.as_str(), "Người & Ünï", "letters that came in parts are composed");
        let image = job.image.expect("a poster");
        assert_eq!(image.content_type, format!("image/{format}"));
        let file = download(&pipeline, &image.url).await;
        assert_eq!(shared::order::OutputFormat::sniff(&file).map(shared::order::OutputFormat::as_str), Some(format));
        let picture = Raster::decode(&file).expect("a picture");
        assert_eq!((picture.width as u32, picture.height as u32), (image.width, image.height));
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn the_reported_contrast_is_that_of_the_pixels() {
    let pipeline = Pipeline::start().await;
    // The plain model paints the color that the seed spells: white, sky blue, sand, night.
    for seed in [0x00ff_ffff_u32, 0x00eb_ce87, 0x006e_b0e0, 0x0020_1008] {
        let job = json!({ "prompt": "x", "seed": seed, "poster": { "title": "The Heist", "style": "modern" } });
        let job = pipeline.ended(submit(&pipeline, &job).await.id).await;
        let image = job.image.expect("a poster");
        let picture = Raster::decode(&download(&pipeline, &image.url).await).expect("a picture");
        let rows: Vec<Vec<[u8; 3]>> = picture
            .pixels
            .chunks_exact(picture.width * 3)
            .map(|row| row.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
            .collect();
        // On a plain picture the first pixel of each row shows what lies beneath it all; the title's ink is the color
        // that is most often another one.
        let mut inks = std::collections::HashMap::new();
        for row in &rows {
            row.iter().filter(|pixel| **pixel != row[0]).for_each(|pixel| *inks.entry(*pixel).or_insert(0) += 1);
        }
        let (ink, _) = inks.into_iter().max_by_key(|(_, count)| *count).expect("there is lettering");
        let titled = rows.iter().filter(|row| row[0] != ink && row.contains(&ink));
        let brightest = titled.map(|row| luminance(row[0])).fold(0.0, f32::max);
        let measured = f64::from(contrast(luminance(ink), brightest));
        let told = f64::from(image.poster.expect("it was set").contrast);
        assert!(told >= 7.0 && (told..told + 0.02).contains(&measured), "{seed:x}: told {told}, measured {measured}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_is_paid_for_once_whatever_happens_between_it_and_its_poster() {
    let pipeline = Pipeline::without_event_sources().await;
    let (mut painted, mut jobs) = (0, 0);
    for call in STORE_ARTWORK..=RECORD {
        for disturbance in [Disturbance::CrashBefore, Disturbance::CrashAfter, Disturbance::AnswerLost] {
            if (call, disturbance) == (STORE_ARTWORK, Disturbance::CrashBefore) {
                // The picture is lost with the worker that had it in memory.
                continue;
            }
            let job = submit(&pipeline, &heist()).await;
            let done = work_disturbed(&pipeline, &job, call, disturbance).await;
            assert!(done || work_again(&pipeline, &job).await, "call {call}, {disturbance:?}");
            let ended = pipeline.job(job.id).await;
            assert_eq!(ended.status, Status::Succeeded, "call {call}, {disturbance:?}");
            let image = ended.image.expect("a poster");
            assert!(image.poster.is_some_and(|lettering| f64::from(lettering.contrast) >= 7.0));
            let artwork = image.artwork.expect("the picture beneath it");
            for (url, bytes) in [(image.url, image.bytes), (artwork.url, artwork.bytes)] {
                assert_eq!(download(&pipeline, &url).await.len() as u64, bytes);
            }
            download(&pipeline, &image.thumbnail.expect("a thumbnail")).await;
            painted += 1;
            jobs += 1;
            assert_eq!(pipeline.stack.bedrock().stats().images, painted, "call {call}, {disturbance:?}");
        }
    }
    assert_eq!(pipeline.pictures().await.len(), 3 * jobs);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_canceled_poster_leaves_no_file() {
    let pipeline = Pipeline::without_event_sources().await;
    // The job is canceled while the worker paints.
    for call in STORE_ARTWORK..=RECORD {
        let job = submit(&pipeline, &heist()).await;
        let http = pipeline.stack.config().http_client().expect("the stack has a client");
        let wire = Wire::new(http, call, Disturbance::Pause);
        let apps = pipeline.stack.apps_over(wire.clone()).expect("the settings are good");
        let cancel = async {
            wire.paused().await;
            let response = pipeline.post(&format!("/jobs/{}/cancel", job.id), &json!(null)).await;
            assert_eq!(response.status(), StatusCode::OK);
            wire.resume();
        };
        let (answer, ()) = tokio::join!(worker::handle(&apps.worker, ticket(job.id, 1)), cancel);
        let back = answer.expect("the worker answers").batch_item_failures.len();
        assert_eq!(back, 1, "until the lease has ended a request to store may be on its way");
        assert_eq!(pipeline.pictures().await, Vec::<String>::new(), "call {call}");
    }
    // The worker had died before the job was canceled, so the next delivery of the ticket deletes the files.
    for (call, left) in [(STORE_POSTER, 1), (STORE_THUMBNAIL, 2), (RECORD, 3)] {
        let job = submit(&pipeline, &heist()).await;
        assert!(!work_disturbed(&pipeline, &job, call, Disturbance::CrashBefore).await);
        assert_eq!(pipeline.pictures().await.len(), left);
        pipeline.post(&format!("/jobs/{}/cancel", job.id), &json!(null)).await;
        assert!(work_again(&pipeline, &job).await);
        assert_eq!(pipeline.pictures().await, Vec::<String>::new());
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_cannot_be_decoded_for_lettering_fails_its_job_and_is_not_kept() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = submit(&pipeline, &heist()).await;
    assert!(!work_disturbed(&pipeline, &job, STORE_POSTER, Disturbance::CrashBefore).await);
    let [key] = &pipeline.pictures().await[..] else { panic!("the artwork is stored") };
    assert!(key.ends_with("-artwork"));
    let damaged = pipeline.s3().put_object().bucket(&pipeline.ready().bucket).key(key).content_type("image/png");
    let damaged = damaged.metadata("width", "832").metadata("height", "1216").body(ByteStream::from_static(b"\x89PNG"));
    damaged.send().await.expect("the bucket takes it");

    assert!(work_again(&pipeline, &job).await, "the ticket is done with");
    let failed = pipeline.job(job.id).await;
    let error = failed.error.expect("it failed");
    assert_eq!((failed.status, error.code), (Status::Failed, ErrorCode::TypesettingFailed));
    assert!(error.retryable && error.billed, "another picture may do, and this one was paid for");
    assert_eq!(pipeline.pictures().await, Vec::<String>::new());
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);

    let retried = pipeline.post(&format!("/jobs/{}/retry", job.id), &json!(null)).await;
    assert_eq!(retried.status(), StatusCode::ACCEPTED);
    assert!(work_again(&pipeline, &job).await);
    assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_breaks_off_is_a_failed_attempt_with_lettering_and_without() {
    let parameters = [("MaxAttempts".to_owned(), "1".to_owned())].into();
    let options = Options { event_sources: false, parameters, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    let raster = Raster { width: 96, height: 144, pixels: [30, 40, 60].repeat(96 * 144), notes: Vec::new() };
    let plain = json!({ "prompt": "A heist on the moon" });
    for format in [Format::Png, Format::Jpeg, Format::Webp] {
        let whole = raster.encode(format).expect("it fits");
        let padded = [&whole[..], &[0; 16]].concat();
        for (file, succeeds) in
            [(&whole[..whole.len() / 2], false), (&whole[..33], false), (&whole, true), (&padded, true)]
        {
            let image = base64_simd::STANDARD.encode_to_string(file);
            let answer = json!({ "seeds": [7], "finish_reasons": [null], "images": [image] }).to_string();
            let (_, apps) =
                pipeline.intercept(
                    move |call| {
                        if call.is_to_model() { Action::Answer(200, answer.clone()) } else { Action::Pass }
                    },
                );
            for order in [&plain, &heist()] {
                let job = submit(&pipeline, order).await;
                worker::handle(&apps.worker, ticket(job.id, 1)).await.expect("the worker answers");
                let job = pipeline.job(job.id).await;
                let case = format!("{format:?}, {} of {} bytes, {order}: {job:?}", file.len(), whole.len());
                if succeeds {
                    assert_eq!(job.status, Status::Succeeded, "{case}");
                } else {
                    let error = job.error.expect(&case);
                    assert_eq!((error.code, error.billed, job.attempts), (ErrorCode::ModelError, true, 1), "{case}");
                }
            }
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_poster_that_is_given_up_leaves_no_artwork() {
    let parameters = [("MaxAttempts".to_owned(), "1".to_owned())].into();
    let options = Options { event_sources: false, parameters, ..Options::default() };
    let pipeline = Pipeline::with(options).await;
    let job = submit(&pipeline, &heist()).await;
    assert!(!work_disturbed(&pipeline, &job, STORE_POSTER, Disturbance::CrashBefore).await);
    assert_eq!(pipeline.pictures().await.len(), 1);
    assert!(work_again(&pipeline, &job).await);
    let failed = pipeline.job(job.id).await;
    assert_eq!(failed.error.map(|error| error.code), Some(ErrorCode::AttemptsExhausted));
    assert_eq!(pipeline.pictures().await, Vec::<String>::new());

    // A poster that was stored but not recorded is what the job asked for, so the job adopts it.
    let job = submit(&pipeline, &heist()).await;
    assert!(!work_disturbed(&pipeline, &job, RECORD, Disturbance::CrashBefore).await);
    assert!(work_again(&pipeline, &job).await);
    let adopted = pipeline.job(job.id).await;
    assert_eq!(adopted.status, Status::Succeeded);
    let image = adopted.image.expect("a poster");
    assert!(image.artwork.is_some() && image.poster.is_some());
    pipeline.stop().await;
}

#[tokio::test]
async fn all_urls_are_signed_again_before_they_expire() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = submit(&pipeline, &heist()).await;
    worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
    let before = pipeline.job(job.id).await.image.expect("a poster");
    pipeline.clock.advance(Duration::from_secs(10 * 86_400));
    let after = pipeline.job(job.id).await.image.expect("a poster");
    let (old, new) = (before.artwork.clone().expect("artwork"), after.artwork.clone().expect("artwork"));
    assert!(after.url_expires_at > pipeline.clock.now() && new.url_expires_at == after.url_expires_at);
    assert!(old.url_expires_at < pipeline.clock.now() && old.url != new.url && before.url != after.url);
    assert_eq!((before.poster, old.bytes), (after.poster, new.bytes));
    let (old, new) = (before.thumbnail.expect("a thumbnail"), after.thumbnail.expect("a thumbnail"));
    assert_ne!(old, new);
    pipeline.stop().await;
}

#[tokio::test]
async fn lettering_is_part_of_what_an_idempotency_key_identifies() {
    let pipeline = Pipeline::start().await;
    let post = async |path: &str, body: &Value| {
        let request = pipeline.http.post(format!("{}{path}", pipeline.ready().api)).header("Idempotency-Key", "k");
        let response = request.json(body).send().await.expect("the API answers");
        (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"))
    };
    let mut other = heist();
    other["poster"]["tagline"] = json!("One giant leap.");
    let batch = |body: &Value| json!({ "jobs": [body] });
    assert_eq!(post("/jobs", &heist()).await, (202, false));
    assert_eq!(post("/jobs", &heist()).await, (202, true));
    assert_eq!(post("/jobs", &other).await, (422, false));
    assert_eq!(post("/batches", &batch(&heist())).await, (202, false));
    assert_eq!(post("/batches", &batch(&heist())).await, (202, true));
    assert_eq!(post("/batches", &batch(&other)).await, (422, false));
    // A missing field means its default.
    let mut spelled_out = heist();
    spelled_out["poster"]["style"] = json!("auto");
    spelled_out["poster"]["credits"] = json!([]);
    assert_eq!(post("/jobs", &spelled_out).await, (202, true));
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn problems_with_lettering_name_the_place_and_the_rule() {
    let pipeline = Pipeline::without_event_sources().await;
    let credits = |count: usize| json!(vec![json!({ "name": "A" }); count]);
    for (poster, pointer, rule) in [
        (json!({}), "/poster/title", "is required"),
        (json!("The Heist"), "/poster", "must be an object, not a string"),
        (json!({ "title": " \n" }), "/poster/title", "must not be empty"),
        (json!({ "title": "a".repeat(81) }), "/poster/title", "at most 80 characters, but has 81"),
        (json!({ "title": "The\nHeist" }), "/poster/title", "U+000A"),
        (json!({ "title": 7 }), "/poster/title", "must be a string"),
        (json!({ "title": "A", "tagline": "b".repeat(121) }), "/poster/tagline", "at most 120"),
        (
            json!({ "title": "A", "style": "baroque" }),
            "/poster/style",
            "auto, noir, epic, modern, retro, scifi, romance",
        ),
        (json!({ "title": "A", "placement": "left" }), "/poster/placement", "auto, top, bottom"),
        (json!({ "title": "A", "subtitle": "B" }), "/poster/subtitle", "is not a field"),
        (json!({ "title": "A", "credits": credits(17) }), "/poster/credits", "at most 16"),
        (json!({ "title": "A", "credits": {} }), "/poster/credits", "must be an array"),
        (
            json!({ "title": "A", "credits": [{ "name": "B" }, { "role": "music" }] }),
            "/poster/credits/1/name",
            "required",
        ),
        (json!({ "title": "A", "credits": [{ "name": "b".repeat(49) }] }), "/poster/credits/0/name", "at most 48"),
        (
            json!({ "title": "A", "credits": [{ "role": "b".repeat(33), "name": "B" }] }),
            "/poster/credits/0/role",
            "at most 32",
        ),
        (json!({ "title": "A", "credits": ["B"] }), "/poster/credits/0", "must be an object"),
    ] {
        let (status, problem) = refused(&pipeline, "/jobs", &json!({ "prompt": "x", "poster": poster })).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{problem}");
        assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains(rule)), "{problem}");
    }
    // The caller's negative prompt and ours together must not exceed the model's limit.
    let long =
        |chars: usize| json!({ "prompt": "x", "negative_prompt": "y".repeat(chars), "poster": { "title": "A" } });
    let most = 10_000 - ", ".len() - NO_LETTERING.len();
    let (status, problem) = refused(&pipeline, "/jobs", &long(most + 1)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!("/negative_prompt")), "{problem}");
    let longest = submit(&pipeline, &long(most)).await;
    worker::handle(&pipeline.stack.apps().worker, ticket(longest.id, 1)).await.expect("the worker answers");
    assert_eq!(pipeline.job(longest.id).await.status, Status::Succeeded, "the model takes the longest");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_character_that_the_fonts_lack_is_named() {
    let pipeline = Pipeline::without_event_sources().await;
    let told = |problem: &Value| {
        let errors = problem["errors"].as_array().expect("faults").iter();
        errors.map(|error| (error["pointer"].clone(), error["detail"].clone())).collect::<Vec<_>>()
    };
    let credits = json!([{ "name": "A" }, { "name": "B" }, { "name": "C" }, { "role": "music", "name": "D 💥" }]);
    let job = json!({ "prompt": "x", "poster": { "title": "七人の侍", "credits": credits } });
    let (status, problem) = refused(&pipeline, "/jobs", &job).await;
    assert_eq!((status, &problem["code"]), (422, &json!("unsupported_character")), "{problem}");
    assert_eq!(
        told(&problem),
        [
            (json!("/poster/title"), json!("has the character 七 (U+4E03), which the fonts do not have")),
            (json!("/poster/credits/3/name"), json!("has the character 💥 (U+1F4A5), which the fonts do not have")),
        ]
    );
    let mut jobs = vec![json!({ "prompt": "x" }); 8];
    jobs[7] = json!({ "prompt": "x", "poster": { "title": "שבע" } });
    let (status, problem) = refused(&pipeline, "/batches", &json!({ "jobs": jobs })).await;
    assert_eq!((status, told(&problem)[0].0.as_str()), (422, Some("/jobs/7/poster/title")), "{problem}");
    let batch = json!({ "jobs": [{ "prompt": "x" }], "defaults": { "poster": { "title": "ไทย" } } });
    let (status, problem) = refused(&pipeline, "/batches", &batch).await;
    assert_eq!((status, told(&problem)[0].0.as_str()), (422, Some("/defaults/poster/title")), "{problem}");
    // If the request breaks a rule as well, the problem is about that rule.
    let (status, problem) = refused(&pipeline, "/jobs", &json!({ "prompt": "", "poster": { "title": "七" } })).await;
    assert_eq!((status, told(&problem).len()), (400, 2), "{problem}");
    pipeline.stop().await;
}

async fn refused(pipeline: &Pipeline, path: &str, body: &Value) -> (u16, Value) {
    let response = pipeline.post(path, body).await;
    (response.status().as_u16(), response.json().await.expect("a problem"))
}

#[tokio::test]
async fn the_lines_of_a_batch_and_its_defaults_have_lettering() {
    let pipeline = Pipeline::start().await;
    let batch = json!({
        "defaults": { "poster": { "title": "A Film", "style": "retro", "placement": "top" } },
        "jobs": [
            { "prompt": "One", "custom_id": "1" },
            { "prompt": "Two", "custom_id": "2", "poster": { "title": "Солярис", "style": "scifi", "placement": "bottom" } },
        ],
    });
    let batch = pipeline.submit_batch(&batch).await;
    for (job, expected) in batch
        .jobs
        .expect("its jobs")
        .iter()
        .zip([("A Film", Style::Retro, Placement::Top), ("Солярис", Style::Scifi, Placement::Bottom)])
    {
        let job = pipeline.ended(job.id).await;
        let image = job.image.expect("a poster");
        let lettering = image.poster.expect("it was set");
        let title = job.poster.expect("it is told").title;
        assert_eq!((title.as_str(), lettering.style, lettering.placement), expected);
        assert!(image.artwork.is_some());
    }
    pipeline.stop().await;
}

#[test]
fn the_table_of_covered_characters_is_that_of_the_fonts() {
    for c in ('\0'..=char::MAX).filter(|c| !c.is_control()) {
        assert_eq!(is_covered(c), covers(c), "U+{:04X}", u32::from(c));
    }
}
