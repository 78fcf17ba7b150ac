//! Each adapter against the embedded service that it calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use serde_json::{Value, json};
use shared::aws::{Aws, Document, Endpoints, File, Files, Kind, Meaning, PaintError, Refusal, Saved, Stored};
use shared::image::{ImageFacts, Variant};
use shared::job::{ErrorCode, Lease, Terms};
use shared::order::{Model, Order, OutputFormat};
use shared::poster::{Lettering, Placement, Style};
use shared::ticket::{Message as _, Ticket};
use shared::{BatchId, Job, JobId, Owner, Timestamp};
use tests::interceptor::{Action, Call, Interceptor};
use tests::pipeline::Pipeline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

fn job(now: Timestamp) -> Job {
    let order = Order::parse(json!({ "prompt": "A heist on the moon" }), "", Model::Core).expect("a good order");
    let day = Duration::from_secs(86_400);
    let job = Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: day, retention: 30 * day });
    Job { expires_at: Timestamp::from_ms(job.expires_at.secs_ceil() * 1000), ..job }
}

fn picture(seed: u32) -> File {
    let (format, seed, lettering) = (OutputFormat::Png, Some(seed), None);
    let facts = ImageFacts { format, bytes: 1000, width: 832, height: 1216, seed, lettering };
    File { facts, bytes: vec![7; 1000].into() }
}

/// The bucket and the queues, whose calls this rule decides about.
fn over(pipeline: &Pipeline, rule: impl Fn(&Call<'_>) -> Action + Send + Sync + 'static) -> Aws {
    let config = pipeline.stack.config().to_builder().http_client(Interceptor::new(pipeline, rule)).build();
    let (s3, sqs) = (Some(pipeline.ready().s3.clone()), Some(pipeline.ready().sqs.clone()));
    Aws::new(config, Endpoints { s3, sqs, ..Endpoints::default() })
}

#[tokio::test]
async fn the_table_accepts_only_the_next_version() {
    let pipeline = Pipeline::without_event_sources().await;
    let table = pipeline.stack.aws().table(pipeline.ready().table.clone());
    let now = pipeline.clock.now();
    let job = job(now);
    assert!(matches!(table.create(&job).await, Ok(None)));
    assert!(matches!(table.create(&job).await, Ok(Some(stored)) if stored == job));
    assert_eq!(table.get(job.id).await.expect("the table answers"), Some(job.clone()));

    let lease = || Lease::new(now + Duration::from_secs(90));
    let claims: Vec<_> = (0..20).map(|_| job.claim(lease(), 3, now).expect("a fresh job")).collect();
    let results = futures_util::future::join_all(claims.iter().map(|claim| table.save(claim))).await;
    let stored = results.iter().filter(|result| matches!(result, Ok(Saved::Stored))).count();
    assert_eq!(stored, 1, "of twenty workers at once one gets the job");
    let held = table.get(job.id).await.expect("the table answers").expect("the job");
    let holder = claims.into_iter().find(|claim| **claim == held).expect("the holder is one of them");
    assert!(matches!(table.save(&holder).await, Ok(Saved::Stored)), "a write whose answer was lost knows itself again");

    let ended = held.give_up(ErrorCode::AttemptsExhausted, now + Duration::from_secs(90)).expect("the lease is over");
    assert!(matches!(table.save(&ended).await, Ok(Saved::Stored)));
    let late = holder.fail(ErrorCode::ModelError, "Late.".to_owned(), shared::job::Attempt::Counts, now);
    assert!(matches!(table.save(&late).await, Ok(Saved::MovedOn(current)) if *current == ended));
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_deleted_record_does_not_come_back_as_a_ghost() {
    let pipeline = Pipeline::without_event_sources().await;
    let table = pipeline.stack.aws().table(pipeline.ready().table.clone());
    let now = pipeline.clock.now();
    let claim = job(now).claim(Lease::new(now + Duration::from_secs(90)), 3, now).expect("a fresh job");
    assert!(matches!(table.save(&claim).await, Ok(Saved::Gone)));
    assert_eq!(table.get(claim.id).await.expect("the table answers"), None);
    pipeline.stop().await;
}

#[tokio::test]
async fn an_expired_record_gives_way_to_a_new_job() {
    let pipeline = Pipeline::without_event_sources().await;
    let table = pipeline.stack.aws().table(pipeline.ready().table.clone());
    let old = job(pipeline.clock.now());
    assert!(matches!(table.create(&old).await, Ok(None)));
    let new = Job { id: old.id, ..job(old.expires_at + Duration::from_secs(1)) };
    assert!(matches!(table.create(&new).await, Ok(None)));
    assert_ne!(new.image_key(Variant::Image), old.image_key(Variant::Image), "the new job cannot find the old picture");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn the_first_picture_stays_and_is_found_again() {
    let pipeline = Pipeline::without_event_sources().await;
    let images = pipeline.stack.aws().images(pipeline.ready().bucket.clone());
    let job = job(pipeline.clock.now());
    assert_eq!(images.find(&job).await, Ok(None));
    assert_eq!(images.put(&job, Variant::Image, &picture(1)).await, Ok(Stored::New));
    assert_eq!(images.put(&job, Variant::Image, &picture(2)).await, Ok(Stored::Existing));
    assert_eq!(images.find(&job).await, Ok(Some(Files { image: picture(1).facts, artwork: None, thumbnail: false })));
    images.delete(&job).await.expect("the bucket answers");
    assert_eq!(images.find(&job).await, Ok(None));

    let lost = pipeline.stack.aws().images("no-such-bucket".to_owned());
    assert!(lost.put(&job, Variant::Image, &picture(1)).await.is_err_and(|error| error.kind == Kind::Missing));
    assert!(lost.check().await.is_err_and(|error| error.kind == Kind::Missing));
    pipeline.stop().await;
}

#[tokio::test]
async fn only_a_picture_in_the_bucket_counts_as_stored() {
    let pipeline = Pipeline::without_event_sources().await;
    let job = job(pipeline.clock.now());
    for (status, code, kind) in [
        (400, "InvalidRequest", Kind::Rejected),
        (403, "AccessDenied", Kind::Denied),
        (404, "NoSuchBucket", Kind::Missing),
        (409, "ConditionalRequestConflict", Kind::Unavailable),
    ] {
        let answer = format!("<Error><Code>{code}</Code></Error>");
        let images = over(&pipeline, move |_| Action::Answer(status, answer.clone())).images("pictures".to_owned());
        let stored = images.put(&job, Variant::Image, &picture(1)).await;
        assert!(stored.as_ref().is_err_and(|error| error.kind == kind), "{code}: {stored:?}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_url_ends_with_the_credentials_that_signed_it() {
    let pipeline = Pipeline::without_event_sources().await;
    let now = pipeline.clock.now();
    let life = Duration::from_secs(3600);
    for (left, works_for) in [(Duration::from_secs(120), Duration::from_secs(120)), (2 * life, life)] {
        let end = Some((now + left).to_system());
        let credentials = Credentials::new("key", "secret", Some("token".to_owned()), end, "test");
        let provider = SharedCredentialsProvider::new(credentials);
        let config = pipeline.stack.config().to_builder().credentials_provider(provider).build();
        let images = Aws::new(config, Endpoints::default()).images("pictures".to_owned());
        let signed = images.sign(&job(now), Variant::Image, now, life).await.expect("it is signed");
        assert_eq!(signed.expires_at, now + works_for);
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn the_files_of_a_poster_are_stored_side_by_side_and_say_how_they_were_made() {
    let pipeline = Pipeline::without_event_sources().await;
    let images = pipeline.stack.aws().images(pipeline.ready().bucket.clone());
    let now = pipeline.clock.now();
    let order = json!({ "prompt": "A heist on the moon", "poster": { "title": "Heist" } });
    let order = Order::parse(order, "", Model::Core).expect("a good order");
    let job = Job { order, ..job(now) };
    let contrast = 7.02.into();
    let lettering = Some(Lettering { style: Style::Noir, placement: Placement::Top, contrast, legible: Some(false) });
    let artwork = picture(1);
    let poster = File { facts: ImageFacts { lettering, ..artwork.facts }, ..artwork.clone() };
    assert_eq!(images.read(&job, Variant::Artwork).await, Ok(None));
    assert_eq!(images.put(&job, Variant::Artwork, &artwork).await, Ok(Stored::New));
    assert_eq!(images.find(&job).await, Ok(None), "the artwork alone is not what the job is about");
    assert_eq!(images.read(&job, Variant::Artwork).await, Ok(Some(artwork.clone())));
    assert_eq!(images.put(&job, Variant::Image, &poster).await, Ok(Stored::New));
    let files = Files { image: poster.facts, artwork: Some(artwork.facts), thumbnail: false };
    assert_eq!(images.find(&job).await, Ok(Some(files)));
    assert_eq!(images.put(&job, Variant::Thumbnail, &picture(2)).await, Ok(Stored::New));
    let files = Files { thumbnail: true, ..files };
    assert_eq!(images.find(&job).await, Ok(Some(files)));
    let image = images.publish(&job, files, now, Duration::from_secs(60)).await.expect("it is signed");
    assert_eq!(Files::from(&image), files);
    let (artwork, thumbnail) = (image.artwork.expect("it has one").url, image.thumbnail.expect("it has one"));
    assert!(image.url.url != artwork.url && artwork.url != thumbnail.url && thumbnail.url != image.url.url);
    assert_eq!([artwork.expires_at, thumbnail.expires_at], [image.url.expires_at; 2]);
    images.delete(&job).await.expect("the bucket answers");
    assert_eq!(pipeline.pictures().await, Vec::<String>::new());
    let lost = pipeline.stack.aws().images("no-such-bucket".to_owned());
    assert!(lost.read(&job, Variant::Artwork).await.is_err_and(|error| error.kind == Kind::Missing));
    pipeline.stop().await;
}

fn refusal(code: &str, meaning: Meaning) -> Option<PaintError> {
    Some(PaintError::Refused(Refusal { code: code.to_owned(), meaning }))
}

#[tokio::test]
async fn the_model_answers_as_its_contract_says() {
    let pipeline = Pipeline::without_event_sources().await;
    let painter = pipeline.stack.aws().painter("us-west-2".to_owned(), Duration::from_secs(5));
    let order = job(pipeline.clock.now()).order;
    let picture = painter.paint(&order).await.expect("a picture");
    assert_eq!((picture.width, picture.height, picture.format), (832, 1216, OutputFormat::Png));
    for (faults, code, meaning) in [
        ("throttle=1", "ThrottlingException", Meaning::Busy),
        ("unavailable=1", "ServiceUnavailableException", Meaning::Unavailable),
        ("error=1", "InternalServerException", Meaning::Failed),
        ("deny=1", "AccessDeniedException", Meaning::Denied),
    ] {
        pipeline.model(faults);
        assert_eq!(painter.paint(&order).await.err(), refusal(code, meaning), "{faults}");
    }
    pipeline.model("hang=1");
    let hasty = pipeline.stack.aws().painter("us-west-2".to_owned(), Duration::from_millis(200));
    assert_eq!(hasty.paint(&order).await.err(), refusal("Timeout", Meaning::Failed));
    assert_eq!(pipeline.stack.bedrock().stats().invocations, 6, "a painting is never tried again by the SDK");
    pipeline.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_a_picture() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = job(pipeline.clock.now()).order;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    // A length that no answer of the model can have allocates no memory before its bytes have arrived.
    for length in [1_000_000, u64::MAX / 2] {
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a call");
            let (mut buffer, mut request) = ([0; 4096], Vec::new());
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).await.expect("the request");
                request.extend_from_slice(&buffer[..read]);
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all((head + r#"{"images":[""#).as_bytes()).await.expect("the client listens");
        };
        let endpoints = Endpoints { bedrock: Some(format!("http://{address}")), ..Endpoints::default() };
        let painter = Aws::new(pipeline.stack.config().clone(), endpoints);
        let painter = painter.painter("us-west-2".to_owned(), Duration::from_secs(5));
        let (painted, ()) = tokio::join!(painter.paint(&order), server);
        let error = painted.err().expect("no picture");
        let meaning = Meaning::Failed;
        assert!(matches!(&error, PaintError::Refused(refusal) if refusal.meaning == meaning), "{error:?}");
        assert_ne!(error.to_string(), "Bedrock answered Timeout");
    }
    pipeline.stop().await;
}

/// How a request without an answer ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The connection is reset after the request has arrived, before it was read.
    BeforeReading,
    /// The connection is reset after the request was read.
    AfterReading,
    /// The connection is reset instead of a TLS handshake.
    InHandshake,
}

#[tokio::test]
async fn a_request_counts_as_unsent_only_if_it_cannot_have_been_sent() {
    let pipeline = Pipeline::without_event_sources().await;
    let order = job(pipeline.clock.now()).order;
    let config = pipeline.stack.config();
    let at = |url: String| {
        let endpoints = Endpoints { bedrock: Some(url), ..Endpoints::default() };
        Aws::new(config.clone(), endpoints).painter("us-west-2".to_owned(), Duration::from_secs(5))
    };

    // A port that is bound but has no listener refuses each connection.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = closed.local_addr().expect("it is bound");
    for url in [format!("http://{address}"), "http://no-such-host.invalid".to_owned()] {
        let painted = at(url.clone()).paint(&order).await;
        assert_eq!(painted.err(), refusal("NoConnection", Meaning::Unavailable), "{url}");
    }
    let mut anonymous = config.to_builder();
    anonymous.set_credentials_provider(None);
    let anonymous = Aws::new(anonymous.build(), Endpoints::default());
    let painted = anonymous.painter("us-west-2".to_owned(), Duration::from_secs(5)).paint(&order).await;
    assert_eq!(painted.err(), refusal("NotSent", Meaning::Unavailable), "without credentials");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    for (end, scheme, expected) in [
        (End::BeforeReading, "http", refusal("BrokenConnection", Meaning::Failed)),
        (End::AfterReading, "http", refusal("BrokenConnection", Meaning::Failed)),
        (End::InHandshake, "https", refusal("NoConnection", Meaning::Unavailable)),
    ] {
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a call");
            let (mut buffer, mut request) = ([0; 4096], Vec::new());
            stream.peek(&mut buffer).await.expect("the client's first bytes");
            while matches!(end, End::AfterReading) && !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).await.expect("the request");
                request.extend_from_slice(&buffer[..read]);
            }
            // With this the connection is reset instead of closed.
            stream.set_zero_linger().expect("a socket");
        };
        let painter = at(format!("{scheme}://{address}"));
        let (painted, ()) = tokio::join!(painter.paint(&order), server);
        assert_eq!(painted.err(), expected, "{end:?}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_ticket_is_sent_with_its_owners_group_and_trace() {
    use aws_sdk_sqs::types::MessageSystemAttributeName::{All, AwsTraceHeader, MessageGroupId};
    let pipeline = Pipeline::without_event_sources().await;
    let url = &pipeline.ready().queue_url;
    let queue = pipeline.stack.aws().queue(url.clone());
    let ticket = Ticket { job: JobId::new(), queued_at: None, trace: Some("Root=1-5bef4de7-ad49b0e8".to_owned()) };
    queue.send(&ticket, &Owner::new("arn:aws:iam::123456789012:user/alice")).await.expect("the queue answers");
    let received = pipeline.sqs().receive_message().queue_url(url).message_system_attribute_names(All).send().await;
    let received = received.expect("the queue answers");
    let message = received.messages().first().expect("a message");
    assert_eq!(message.body(), Some(ticket.to_body().as_str()));
    let attributes = message.attributes().expect("attributes");
    assert_eq!(attributes.get(&AwsTraceHeader), ticket.trace.as_ref());
    assert_eq!(attributes.get(&MessageGroupId).map(String::len), Some(32));
    queue
        .change_visibility(message.receipt_handle().expect("a handle"), Duration::ZERO)
        .await
        .expect("the queue answers");
    let again = pipeline.sqs().receive_message().queue_url(url).send().await.expect("the queue answers");
    assert_eq!(again.messages().len(), 1, "a message that is hidden for no time is there at once");
    pipeline.stop().await;
}

/// The bodies of the calls to a queue that `work` makes. Each is answered as if it had succeeded.
async fn said(pipeline: &Pipeline, work: impl AsyncFnOnce(shared::aws::Queue)) -> Vec<Value> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let aws = over(pipeline, move |call| {
        heard.lock().expect("no one panicked").push(call.json());
        Action::Answer(200, "{}".to_owned())
    });
    work(aws.queue(pipeline.ready().queue_url.clone())).await;
    said.lock().expect("no one panicked").clone()
}

#[tokio::test]
async fn a_message_is_hidden_no_shorter_than_asked_and_no_longer_than_sqs_allows() {
    let pipeline = Pipeline::without_event_sources().await;
    // SQS counts its twelve hours from the receive, a quarter of an hour before the end of the longest invocation.
    let waits = [0, 1, 300, 1_000, 1_001, 42_300_000, 42_300_001, 86_400_000];
    let said = said(&pipeline, async |queue| {
        for wait in waits {
            queue.change_visibility("receipt", Duration::from_millis(wait)).await.expect("the queue answers");
        }
    });
    let hidden: Vec<_> = said.await.iter().map(|body| body["VisibilityTimeout"].as_u64()).collect();
    assert_eq!(hidden, [0, 1, 1, 1, 2, 42_300, 42_300, 42_300].map(Some));
    pipeline.stop().await;
}

#[tokio::test]
async fn each_owner_has_a_message_group_of_its_own() {
    let pipeline = Pipeline::without_event_sources().await;
    let ticket = || Ticket { job: JobId::new(), queued_at: None, trace: None };
    let said = said(&pipeline, async |queue| {
        for owner in ["alice", "bob"].map(Owner::new) {
            queue.send(&ticket(), &owner).await.expect("the queue answers");
            queue.send_batch(&[ticket()], &owner).await.expect("the queue answers");
        }
    });
    let groups: Vec<_> = said
        .await
        .into_iter()
        .map(|body| if body["Entries"].is_array() { body["Entries"][0].clone() } else { body })
        .map(|message| message["MessageGroupId"].as_str().expect("a group").to_owned())
        .collect();
    assert_eq!((&groups[0], &groups[2]), (&groups[1], &groups[3]), "alone or among many");
    assert_ne!(groups[0], groups[2], "the tickets of one owner must not keep those of another waiting");
    pipeline.stop().await;
}

#[tokio::test]
async fn a_file_of_many_parts_is_written_whole_or_not_at_all() {
    let pipeline = Pipeline::without_event_sources().await;
    let bucket = pipeline.ready().bucket.clone();
    let (files, batch) = (pipeline.stack.aws().batch_files(bucket.clone()), BatchId::new());
    let line = |number: usize| format!("{number:>1000}");
    let mut abandoned = files.write(batch, Document::Faults);
    let mut writer = files.write(batch, Document::Faults);
    for number in 0..20_000 {
        abandoned.line(&line(number)).await.expect("the bucket answers");
        writer.line(&line(number)).await.expect("the bucket answers");
    }
    abandoned.abandon().await.expect("the bucket answers");
    assert_eq!(pipeline.pictures().await, [""; 0], "nothing is to be seen before the end");
    writer.finish().await.expect("the bucket answers");
    let get = pipeline.s3().get_object().bucket(bucket).key(format!("batches/{batch}/faults.ndjson"));
    let body = get.send().await.expect("it is there").body.collect().await.expect("S3 answers").into_bytes();
    let expected: String = (0..20_000).map(|number| format!("{:?}\n", line(number))).collect();
    assert!(body == expected, "{} bytes instead of {}", body.len(), expected.len());
    pipeline.stop().await;
}
