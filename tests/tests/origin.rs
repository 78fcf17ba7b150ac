//! The mark of origin in the files. `.ci/origin` has another program read the files that these tests keep.

use img_parts::png::{Png, PngChunk};
use serde_json::{Value, json};
use shared::job::Status;
use shared::order::OutputFormat;
use shared::origin::{MarkError, Origin, mark};
use tests::interceptor::Action;
use tests::pipeline::{Pipeline, ticket};
use typography::{Format, Raster};

type File = img_parts::Bytes;

/// The files of a job that has succeeded: its image, and the artwork if it is a poster.
async fn files(pipeline: &Pipeline, job: shared::JobId) -> (File, Option<File>) {
    let job = pipeline.job(job).await;
    assert_eq!(job.status, Status::Succeeded, "{:?}", job.error);
    let image = job.image.expect("a picture");
    let download = async |url: &str| pipeline.http.get(url).send().await.expect("S3 answers").bytes().await;
    let file = download(&image.url).await.expect("a file");
    assert_eq!(file.len() as u64, image.bytes);
    match image.artwork {
        Some(artwork) => (file, Some(download(&artwork.url).await.expect("a file"))),
        None => (file, None),
    }
}

/// The files of a job for which the model answers with `picture`.
async fn files_of(pipeline: &Pipeline, picture: &[u8], request: Value) -> (File, Option<File>) {
    let body =
        json!({ "seeds": [1], "finish_reasons": [null], "images": [base64_simd::STANDARD.encode_to_string(picture)] });
    let (_, apps) = pipeline
        .intercept(move |call| if call.is_to_model() { Action::Answer(200, body.to_string()) } else { Action::Pass });
    let submitted: Value = pipeline.post("/jobs", &request).await.json().await.expect("a job");
    let job = submitted["id"].as_str().expect("an id").parse().expect("an id");
    worker::handle(&apps.worker, ticket(job, 1)).await.expect("an answer");
    files(pipeline, job).await
}

/// Checks a file's mark, and keeps the file under a name that contains the mark.
fn check(file: &File, origin: Origin, request: &Value) {
    assert_eq!(Origin::of(file), Some(origin), "{request}");
    let picture = Raster::decode(file).expect("a picture");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("origin").join(format!("{origin:?}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let format = OutputFormat::sniff(file).expect("a known format");
    let lettering = if request["poster"].is_null() { "bare" } else { "lettered" };
    let name = format!("{lettering}-{}x{}.{format}", picture.width, picture.height);
    std::fs::write(directory.join(name), file).expect("the file is written");
}

fn bare(format: Format) -> Value {
    let format = format!("{format:?}").to_lowercase();
    json!({ "prompt": "A heist", "model": "stability.sd3-5-large-v1:0", "output_format": format })
}

fn lettered(format: Format) -> Value {
    let mut request = bare(format);
    request["poster"] = json!({ "title": "The Heist" });
    request
}

const FORMATS: [Format; 3] = [Format::Png, Format::Jpeg, Format::Webp];

fn painted(format: Format) -> (Raster, Vec<u8>) {
    let pixels = (0..64 * 96).flat_map(|at| [at as u8, (at / 64) as u8, 40]).collect();
    let picture = Raster { width: 64, height: 96, pixels, notes: Vec::new() };
    let file = picture.encode(format).expect("it is encoded");
    (picture, file)
}

#[tokio::test]
async fn a_picture_of_the_offline_artist_says_that_no_model_painted_it() {
    let pipeline = Pipeline::with_artist().await;
    for format in FORMATS {
        for request in [bare(format), lettered(format)] {
            let submitted: Value = pipeline.post("/jobs", &request).await.json().await.expect("a job");
            let job = submitted["id"].as_str().expect("an id").parse().expect("an id");
            pipeline.ended(job).await;
            let (image, artwork) = files(&pipeline, job).await;
            for file in [Some(image), artwork].into_iter().flatten() {
                check(&file, Origin::Algorithm, &request);
            }
        }
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_of_a_model_says_so_and_keeps_its_pixels() {
    let pipeline = Pipeline::without_event_sources().await;
    for format in FORMATS {
        let (_, sent) = painted(format);
        let before = Raster::decode(&sent).expect("a picture").pixels;
        let (image, _) = files_of(&pipeline, &sent, bare(format)).await;
        check(&image, Origin::Model, &bare(format));
        assert_eq!(Raster::decode(&image).expect("a picture").pixels, before);
        let (poster, artwork) = files_of(&pipeline, &sent, lettered(format)).await;
        let artwork = artwork.expect("the picture beneath");
        assert_eq!(Raster::decode(&artwork).expect("a picture").pixels, before);
        check(&artwork, Origin::Model, &lettered(format));
        check(&poster, Origin::LetteredModel, &lettered(format));
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_models_own_manifest_is_kept_and_nothing_is_added_to_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, plain) = painted(Format::Png);
    let mut png = Png::from_bytes(plain.into()).expect("a picture");
    png.chunks_mut().insert(1, PngChunk::new(*b"caBX", File::from_static(b"a manifest")));
    let sent = png.encoder().bytes();
    let (image, _) = files_of(&pipeline, &sent, bare(Format::Png)).await;
    assert_eq!(image, sent);
    // The manifest describes the picture and not the poster, which is a new file.
    let (poster, artwork) = files_of(&pipeline, &sent, lettered(Format::Png)).await;
    assert_eq!((artwork, Origin::of(&poster)), (Some(sent), Some(Origin::LetteredModel)));
    pipeline.stop().await;
}

#[tokio::test]
async fn a_paid_picture_that_cannot_be_marked_is_kept() {
    let pipeline = Pipeline::without_event_sources().await;
    let (_, plain) = painted(Format::Png);
    let mut png = Png::from_bytes(plain.into()).expect("a picture");
    let compressed = File::from_static(b"XML:com.adobe.xmp\0\x01\0\0\0compressed");
    png.chunks_mut().insert(1, PngChunk::new(*b"iTXt", compressed));
    let sent = png.encoder().bytes();
    assert!(matches!(mark(sent.clone(), Origin::Model), Err(MarkError::OtherXmp)));
    let (image, _) = files_of(&pipeline, &sent, bare(Format::Png)).await;
    assert_eq!(image, sent);
    pipeline.stop().await;
}
