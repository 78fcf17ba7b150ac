//! The wire format of the HTTP API: what a job looks like to its owner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::batch::{Batch, BatchStatus, Counts, Input, Stage};
use crate::batch_file::LineFault;
use crate::caller::Owner;
use crate::delivery::{Delivery, DeliveryId, DeliveryStatus, Subject, Try, TryError};
use crate::id::{BatchId, JobId};
use crate::image::{Artwork, Image, SignedUrl};
use crate::job::{Job, JobError, JobState, LastError, Status};
use crate::label::CustomId;
use crate::order::{AspectRatio, Metadata, Model, OutputFormat, Prompt, Seed};
use crate::poster::{Lettering, Poster};
use crate::problem::Problem;
use crate::time::Timestamp;
use crate::webhook::{EventType, Webhook, WebhookUrl};
use crate::webhook_secret::{MasterSecret, SecretNumbers};

/// The largest request body, in bytes as counted by [`crate::json::escaped_len`]. API Gateway passes the body to a
/// function inside a JSON string, and the whole event may have 6 MB, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub const MAX_BODY_BYTES: usize = 5_500_000;

/// A job as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    /// The job's id.
    pub id: JobId,
    /// The job's status.
    pub status: Status,
    /// What to paint.
    pub prompt: Prompt,
    /// What to keep out of the picture.
    pub negative_prompt: Option<Prompt>,
    /// The shape of the picture.
    pub aspect_ratio: AspectRatio,
    /// The requested seed.
    pub seed: Option<Seed>,
    /// The requested file format.
    pub output_format: OutputFormat,
    /// The model to paint with.
    pub model: Model,
    /// The caller's notes.
    pub metadata: Metadata,
    /// The requested lettering.
    pub poster: Option<Poster>,
    /// The endpoint of its events.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// The batch that the job belongs to.
    pub batch_id: Option<BatchId>,
    /// The caller's id for the job within its batch.
    pub custom_id: Option<CustomId>,
    /// How many paintings were started.
    pub attempts: u32,
    /// When the job was submitted.
    pub created_at: Timestamp,
    /// When a worker last claimed the job.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// When the job fails if it has not ended by then.
    pub deadline_at: Timestamp,
    /// When its record and its picture are deleted.
    pub expires_at: Timestamp,
    /// The position of a queued job.
    pub queue: Option<QueueView>,
    /// The picture or poster of a succeeded job.
    pub image: Option<ImageView>,
    /// Why a job failed.
    pub error: Option<JobError>,
    /// The last error of an unfinished job.
    pub last_error: Option<LastError>,
    /// Related URLs.
    pub links: Links,
}

/// A picture or poster as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageView {
    /// A presigned URL of the file. It works for anyone who has it.
    pub url: String,
    /// When the URL expires. Read the job again for a new one.
    pub url_expires_at: Timestamp,
    /// The media type of the file.
    pub content_type: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
    /// The seed that the model reports.
    pub seed: Option<u32>,
    /// How the lettering of a poster was set.
    pub poster: Option<Lettering>,
    /// The picture beneath the lettering of a poster.
    pub artwork: Option<ArtworkView>,
    /// A presigned URL of a small copy, which expires with `url`; `None` if there is no thumbnail.
    #[serde(default)]
    pub thumbnail: Option<String>,
}

/// The picture beneath the lettering of a poster, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArtworkView {
    /// A presigned URL of the file.
    pub url: String,
    /// When the URL expires.
    pub url_expires_at: Timestamp,
    /// The media type of the file.
    pub content_type: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
}

/// A job's position in the queue, an estimate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueView {
    /// About how many jobs are waiting, most of them ahead of this one.
    pub ahead: u64,
    /// About when a worker will claim the job.
    pub estimated_start_at: Timestamp,
    /// Always true: both numbers are estimates.
    pub estimate: bool,
}

/// URLs related to a job. Actions that its status does not allow are `None`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Links {
    /// The job itself.
    #[serde(rename = "self")]
    pub this: String,
    /// Its picture or poster, under a URL that does not expire.
    pub image: Option<String>,
    /// The picture beneath the lettering of a poster, likewise.
    pub artwork: Option<String>,
    /// Cancels it.
    pub cancel: Option<String>,
    /// Retries it.
    pub retry: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
}

/// A page of jobs as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobsView {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// The cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// A page of batches as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchesView {
    /// The batches.
    pub batches: Vec<BatchView>,
    /// The cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// A batch as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchView {
    /// The batch's id.
    pub id: BatchId,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The batch's status.
    pub status: BatchStatus,
    /// How many of its jobs have each status.
    pub counts: Counts,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its record is deleted.
    pub expires_at: Timestamp,
    /// The endpoint of its event and those of its jobs.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// Where to upload the file of a batch that awaits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadView>,
    /// The progress of the check and the admission of a batch from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// What is wrong with the lines of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsView>,
    /// Related URLs.
    pub links: BatchLinks,
    /// Its jobs, in the answer to its submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<BatchJobView>>,
}

/// Where to upload a batch's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UploadView {
    /// A presigned URL. It works for anyone who has it.
    pub url: String,
    /// The method of the request: always `PUT`.
    pub method: String,
    /// The headers that the request must have.
    pub headers: BTreeMap<String, String>,
    /// When the URL expires.
    pub expires_at: Timestamp,
}

/// The progress of the check and the admission of a batch from a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgressView {
    /// How many lines of the file were checked.
    pub checked_lines: u64,
    /// How many of its jobs are stored and queued.
    pub admitted_jobs: usize,
}

/// Where to get a file that the service wrote about a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DocumentView {
    /// A presigned URL. It works for anyone who has it.
    pub url: String,
    /// When the URL expires.
    pub expires_at: Timestamp,
}

/// What is wrong with the lines of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultsView {
    /// The total number of faults, so far.
    pub total: u64,
    /// The first of them.
    pub first: Vec<LineFault>,
}

/// One job of a submitted batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchJobView {
    /// Its index in the request, from zero.
    pub index: usize,
    /// The job's id.
    pub id: JobId,
    /// The caller's id for it.
    pub custom_id: Option<CustomId>,
}

/// URLs related to a batch. Actions that its status does not allow are `None`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchLinks {
    /// The batch itself.
    #[serde(rename = "self")]
    pub this: String,
    /// Its jobs.
    pub jobs: String,
    /// Starts a batch whose file is uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Cancels the jobs that have not started.
    pub cancel: Option<String>,
    /// Retries the failed jobs.
    pub retry: Option<String>,
    /// All faults of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    /// What became of each of its jobs, and of each line of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
}

/// A delivery as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The delivery's id, the `webhook-id` of its requests.
    pub id: DeliveryId,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The delivery's status.
    pub status: DeliveryStatus,
    /// The job whose event this is.
    pub job_id: Option<JobId>,
    /// The batch whose event this is.
    pub batch_id: Option<BatchId>,
    /// The endpoint.
    pub url: WebhookUrl,
    /// When the event happened.
    pub created_at: Timestamp,
    /// About when a pending delivery is tried next.
    pub next_try_at: Option<Timestamp>,
    /// When its record is deleted.
    pub expires_at: Timestamp,
    /// The last tries, oldest first.
    pub tries: Vec<TryView>,
    /// The body of the requests.
    pub event: Box<RawValue>,
    /// Related URLs.
    pub links: DeliveryLinks,
}

/// A request to an endpoint as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TryView {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Why there was no answer that counts.
    pub error: Option<TryError>,
    /// The first bytes of the answer's body, as text.
    pub response: Option<String>,
}

/// URLs related to a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryLinks {
    /// The delivery itself.
    #[serde(rename = "self")]
    pub this: String,
    /// Sends it again.
    pub replay: String,
    /// The job whose event this is.
    pub job: Option<String>,
    /// The batch whose event this is.
    pub batch: Option<String>,
}

/// A page of deliveries as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveriesView {
    /// The deliveries.
    pub deliveries: Vec<DeliveryView>,
    /// The cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// What a replay of many deliveries has done, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayedView {
    /// How many deliveries are sent again.
    pub replayed: usize,
    /// The cursor to continue with; null if there are no more.
    pub next_cursor: Option<String>,
}

/// The secrets of an owner's webhooks as the API shows them.
#[derive(Clone, Serialize, Deserialize)]
pub struct SecretView {
    /// The text of the current secret.
    pub secret: String,
    /// The earlier secrets that are still valid, newest first.
    pub previous: Vec<PreviousSecretView>,
}

/// An earlier secret as the API shows it.
#[derive(Clone, Serialize, Deserialize)]
pub struct PreviousSecretView {
    /// The text of the secret.
    pub secret: String,
    /// Until when it is valid.
    pub valid_until: Timestamp,
}

/// The health of the service as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthView {
    /// Always `ok`.
    pub status: String,
    /// The version of the service.
    pub version: String,
    /// The state of the queue.
    pub queue: QueueHealthView,
}

/// The state of the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueHealthView {
    /// About how many jobs are waiting for a worker.
    pub waiting: u64,
    /// About how many jobs are being worked on or are waiting for another attempt.
    pub in_flight: u64,
    /// The estimated wait of a job submitted now, in seconds.
    pub estimated_wait_seconds: u64,
}

/// The API's paths and the methods of each. A path with GET also answers HEAD.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/", &["GET"]),
    ("/jobs", &["GET", "POST"]),
    ("/jobs/{id}", &["GET"]),
    ("/jobs/{id}/image", &["GET"]),
    ("/jobs/{id}/cancel", &["POST"]),
    ("/jobs/{id}/retry", &["POST"]),
    ("/batches", &["GET", "POST"]),
    ("/batches/{id}", &["GET"]),
    ("/batches/{id}/jobs", &["GET"]),
    ("/batches/{id}/faults", &["GET"]),
    ("/batches/{id}/results", &["GET"]),
    ("/batches/{id}/start", &["POST"]),
    ("/batches/{id}/cancel", &["POST"]),
    ("/batches/{id}/retry", &["POST"]),
    ("/webhook-secret", &["GET"]),
    ("/webhook-secret/rotate", &["POST"]),
    ("/deliveries", &["GET"]),
    ("/deliveries/{id}", &["GET"]),
    ("/deliveries/{id}/replay", &["POST"]),
    ("/deliveries/replay", &["POST"]),
    ("/health", &["GET"]),
];

/// The problem for a method that a path does not have.
pub fn wrong_method(path: &str) -> Problem {
    let methods = ROUTES.iter().find(|(known, _)| *known == path).map(|(_, methods)| *methods);
    methods.map_or(Problem::NoSuchRoute, |methods| {
        let with_head = methods.iter().flat_map(|method| match *method {
            "GET" => vec!["GET", "HEAD"],
            method => vec![method],
        });
        Problem::MethodNotAllowed(with_head.map(str::to_owned).collect())
    })
}

impl JobView {
    /// Shows `job`. `base` is the API's base URL as the caller reached it, without a trailing slash.
    pub fn new(job: &Job, base: &str) -> Self {
        let order = &job.order;
        let (image, error) = match &job.state {
            JobState::Succeeded { image, .. } => (Some(ImageView::new(image)), None),
            JobState::Failed { error, .. } => (None, Some(error.clone())),
            JobState::Queued | JobState::Running(_) | JobState::Canceled { .. } => (None, None),
        };
        let finished_at = job.finished_at();
        Self {
            id: job.id,
            status: job.status(),
            prompt: order.prompt.clone(),
            negative_prompt: order.negative_prompt.clone(),
            aspect_ratio: order.aspect_ratio,
            seed: order.seed,
            output_format: order.output_format,
            model: order.model,
            metadata: order.metadata.clone(),
            poster: order.poster.clone(),
            webhook: order.webhook.clone(),
            batch_id: job.membership.as_ref().map(|membership| membership.batch),
            custom_id: job.membership.as_ref().and_then(|membership| membership.custom_id.clone()),
            attempts: job.attempts,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at,
            deadline_at: job.deadline_at,
            expires_at: job.expires_at,
            queue: None,
            image,
            error,
            last_error: job.last_error.clone().filter(|_| finished_at.is_none()),
            links: Links::new(job, base),
        }
    }
}

impl Links {
    fn new(job: &Job, base: &str) -> Self {
        let this = format!("{base}/jobs/{}", job.id);
        let when = |possible: bool, action: &str| possible.then(|| format!("{this}/{action}"));
        let status = job.status();
        Self {
            image: when(status == Status::Succeeded, "image"),
            artwork: when(status == Status::Succeeded && job.order.poster.is_some(), "image?variant=artwork"),
            cancel: when(matches!(status, Status::Queued | Status::Running), "cancel"),
            retry: when(matches!(status, Status::Failed | Status::Canceled), "retry"),
            batch: job.membership.as_ref().map(|membership| format!("{base}/batches/{}", membership.batch)),
            this,
        }
    }
}

impl BatchView {
    /// Shows a batch as it is at `now`. For `base`, see [`JobView::new`].
    pub fn new(batch: &Batch, counts: Counts, now: Timestamp, base: &str) -> Self {
        let this = format!("{base}/batches/{}", batch.id);
        let when = |possible: bool, action: &str| possible.then(|| format!("{this}/{action}"));
        let (status, input) = (batch.status(now), batch.input());
        let awaits_input = status == BatchStatus::AwaitingInput;
        let can_retry = counts.failed > 0 && matches!(batch.stage, Stage::InProgress | Stage::Ended);
        let progress =
            |input: &Input| ProgressView { checked_lines: input.checked.lines, admitted_jobs: batch.admitted };
        let faults =
            |input: &Input| FaultsView { total: input.checked.faults, first: input.checked.first_faults.clone() };
        Self {
            id: batch.id,
            name: batch.name.clone().map(String::from),
            status,
            counts,
            created_at: batch.created_at,
            expires_at: batch.expires_at,
            webhook: batch.webhook.clone(),
            upload: None,
            progress: input.map(progress),
            faults: input.map(faults),
            links: BatchLinks {
                jobs: format!("{this}/jobs"),
                start: when(awaits_input, "start"),
                cancel: when(awaits_input || batch.is_active(), "cancel"),
                retry: when(can_retry, "retry"),
                faults: when(batch.has_faults(), "faults"),
                results: when(batch.complete_results().is_some(), "results"),
                this,
            },
            jobs: None,
        }
    }
}

impl DeliveryView {
    /// Shows a delivery. For `base`, see [`JobView::new`].
    pub fn new(delivery: &Delivery, base: &str) -> Self {
        let (job_id, batch_id) = match delivery.id.subject {
            Subject::Job(id) => (Some(id), None),
            Subject::Batch(id) => (None, Some(id)),
        };
        let this = format!("{base}/deliveries/{}", delivery.id);
        Self {
            id: delivery.id,
            event_type: delivery.event,
            status: delivery.status,
            job_id,
            batch_id,
            url: delivery.url.clone(),
            created_at: delivery.created_at,
            next_try_at: delivery.next_try_at,
            expires_at: delivery.expires_at,
            tries: delivery.tries.iter().map(TryView::new).collect(),
            event: RawValue::from_string(delivery.payload.clone()).unwrap_or_default(),
            links: DeliveryLinks {
                replay: format!("{this}/replay"),
                job: job_id.map(|id| format!("{base}/jobs/{id}")),
                batch: batch_id.map(|id| format!("{base}/batches/{id}")),
                this,
            },
        }
    }
}

impl TryView {
    fn new(tried: &Try) -> Self {
        Self {
            at: tried.at,
            duration_ms: tried.duration.as_millis().try_into().unwrap_or(u64::MAX),
            status: tried.status,
            error: tried.error.clone(),
            response: tried.response.clone(),
        }
    }
}

impl SecretView {
    /// Shows the secrets of `owner` that are valid at `now`.
    pub fn new(master: &MasterSecret, owner: &Owner, numbers: &SecretNumbers, now: Timestamp) -> Self {
        let text = |number| master.secret(owner, number).to_text();
        let previous = numbers.valid(now).filter_map(|(number, until)| {
            until.map(|valid_until| PreviousSecretView { secret: text(number), valid_until })
        });
        Self { secret: text(numbers.current), previous: previous.collect() }
    }
}

impl UploadView {
    /// Shows a presigned upload.
    pub fn new(SignedUrl { url, expires_at }: SignedUrl) -> Self {
        Self { url, method: "PUT".to_owned(), headers: BTreeMap::new(), expires_at }
    }
}

impl ImageView {
    fn new(Image { facts, url, artwork, thumbnail }: &Image) -> Self {
        Self {
            url: url.url.clone(),
            url_expires_at: url.expires_at,
            content_type: facts.format.content_type().to_owned(),
            bytes: facts.bytes,
            width: facts.width,
            height: facts.height,
            seed: facts.seed,
            poster: facts.lettering,
            artwork: artwork.as_ref().map(ArtworkView::new),
            thumbnail: thumbnail.as_ref().map(|signed| signed.url.clone()),
        }
    }
}

impl ArtworkView {
    fn new(Artwork { facts, url }: &Artwork) -> Self {
        Self {
            url: url.url.clone(),
            url_expires_at: url.expires_at,
            content_type: facts.format.content_type().to_owned(),
            bytes: facts.bytes,
            width: facts.width,
            height: facts.height,
        }
    }
}
