use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::api::{BatchView, UploadView};
use shared::backoff::full_jitter;
use shared::batch::BatchStatus;
use shared::text::hex;

use super::input::{BUFFER, Input};
use crate::api::{Api, LONGEST_WAIT};
use crate::failure::{Failure, OfFile};
use crate::http::{ANSWER, Body, Kind, Unreachable};
use crate::state::Settings;

const TICK: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Request {
    body: Bytes,
    key: String,
}

impl Request {
    /// The request that submits a batch of these settings: the same in every run.
    pub(super) fn new(settings: &Settings) -> Self {
        let digest = Sha256::digest(json!([settings.name, settings.sha256, settings.request]).to_string());
        let mut body: Value = serde_json::from_str(&settings.request).unwrap_or_default();
        body["name"] = settings.name.clone().into();
        Self { body: Bytes::from(body.to_string()), key: format!("poster-batch-{}", hex(&digest)) }
    }

    /// Submits the batch, or finds the one that an earlier run submitted, unless that has expired.
    pub(super) async fn send(&mut self, api: &Api) -> Result<BatchView, Failure> {
        loop {
            let batch: BatchView = api.post("/batches", self.body.clone(), Some(&self.key)).await?;
            if batch.status != BatchStatus::Expired {
                return Ok(batch);
            }
            self.key = format!("poster-batch-{}", hex(&Sha256::digest(format!("{}{}", self.key, batch.id))));
        }
    }
}

/// Uploads the file of a batch if the batch awaits it, and starts the batch.
pub(super) async fn start(
    api: &Api,
    input: &Input,
    sha256: &str,
    request: &mut Request,
    mut batch: BatchView,
) -> Result<(), Failure> {
    let mut waited = Duration::ZERO;
    for attempt in 0.. {
        // It was started before.
        let Some(upload) = &batch.upload else { return Ok(()) };
        let why = match send(api, input, upload).await {
            Ok(sent) if sent == sha256 => break,
            Ok(_) => return Err(input.changed()),
            Err(Unsent::Final(failure)) => return Err(failure),
            Err(Unsent::ForNow(why)) => why,
        };
        let wait = full_jitter(Duration::from_millis(500), LONGEST_WAIT, attempt);
        waited += wait;
        if waited > api.patience {
            return Err(Failure::Service(format!("the file cannot be uploaded: {why}")));
        }
        api.terminal.retrying(format!("the file was not uploaded: {why}"), wait);
        tokio::time::sleep(wait).await;
        // The URL may have expired, so the next try has another.
        batch = request.send(api).await?;
    }
    // A batch that was started before stays as it is.
    api.post::<BatchView>(&format!("/batches/{}/start", batch.id), "", None).await.map(drop)
}

enum Unsent {
    ForNow(String),
    Final(Failure),
}

#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    digest: Sha256,
}

/// Uploads the file once, and returns the SHA-256 of what was sent.
async fn send(api: &Api, input: &Input, upload: &UploadView) -> Result<String, Unsent> {
    let sent = Arc::<Mutex<Sent>>::default();
    let so_far = || sent.lock().unwrap_or_else(PoisonError::into_inner);
    let body = body(input.file.clone(), sent.clone()).of_file(&input.path).map_err(Unsent::Final)?;
    let mut sending = std::pin::pin!(api.upload(upload, input.bytes(), body));
    let (mut before, mut moved_at) = (0, Instant::now());
    let answer = loop {
        let bytes = so_far().bytes;
        if bytes != before {
            (before, moved_at) = (bytes, Instant::now());
        }
        if moved_at.elapsed() > ANSWER {
            break Err(Unreachable::passing("no answer in time"));
        }
        api.terminal.status(format!("uploading: {} of {}", megabytes(bytes), megabytes(input.bytes())));
        if let Ok(answer) = tokio::time::timeout(TICK, &mut sending).await {
            break answer;
        }
    };
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(hex(&std::mem::take(&mut *so_far()).digest.finalize())),
        Ok(answer) => {
            let status = answer.status();
            let why = format!("the bucket answered {status}");
            // 403 also means that the URL has expired.
            let is_temporary = status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 429);
            Err(if is_temporary { Unsent::ForNow(why) } else { Unsent::Final(Failure::Service(why)) })
        }
        Err(error) if error.kind == Kind::Lasting => Err(Unsent::Final(Failure::Service(error.why))),
        Err(error) => {
            // A file that has become shorter breaks the request.
            input.unchanged().map_err(Unsent::Final)?;
            Err(Unsent::ForNow(error.why))
        }
    }
}

/// The file as the body of a request, which keeps account of itself in `sent`.
fn body(file: Arc<File>, sent: Arc<Mutex<Sent>>) -> io::Result<Body> {
    (&*file).rewind()?;
    let pieces = stream::try_unfold((file, sent), |(file, sent)| async {
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; BUFFER];
            let read = (&*file).read(&mut piece)?;
            piece.truncate(read);
            let mut so_far = sent.lock().unwrap_or_else(PoisonError::into_inner);
            so_far.bytes += read as u64;
            so_far.digest.update(&piece);
            drop(so_far);
            Ok::<_, io::Error>((read > 0).then(|| (Frame::data(Bytes::from(piece)), (file, sent))))
        });
        reading.await.map_err(io::Error::other)?
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
