//! The wire format of the HTTP API: what jobs, batches and deliveries look like to their owner.

#![expect(missing_docs, reason = "api/openapi.yaml describes every schema and field")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::batch::{Batch, BatchStatus, Counts, Input, Stage};
use crate::batch_file::LineFault;
use crate::caller::Owner;
use crate::delivery::{Delivery, DeliveryId, DeliveryStatus, Try, TryError};
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

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    pub id: JobId,
    pub status: Status,
    pub prompt: Prompt,
    pub negative_prompt: Option<Prompt>,
    pub aspect_ratio: AspectRatio,
    pub seed: Option<Seed>,
    pub output_format: OutputFormat,
    pub model: Model,
    pub metadata: Metadata,
    pub poster: Option<Poster>,
    pub webhook: Option<Webhook>,
    pub batch_id: Option<BatchId>,
    pub custom_id: Option<CustomId>,
    pub attempts: u32,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub deadline_at: Timestamp,
    pub expires_at: Timestamp,
    pub queue: Option<QueueView>,
    pub image: Option<ImageView>,
    pub error: Option<JobError>,
    pub last_error: Option<LastError>,
    pub links: Links,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageView {
    pub url: String,
    pub url_expires_at: Timestamp,
    pub content_type: String,
    pub bytes: u64,
    pub width: u32,
    pub height: u32,
    pub seed: Option<u32>,
    pub poster: Option<Lettering>,
    pub artwork: Option<ArtworkView>,
    pub thumbnail: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArtworkView {
    pub url: String,
    pub url_expires_at: Timestamp,
    pub content_type: String,
    pub bytes: u64,
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueView {
    pub ahead: u64,
    pub estimated_start_at: Timestamp,
    pub estimate: bool,
}

/// URLs related to a job. Actions that its status does not allow are `None`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Links {
    #[serde(rename = "self")]
    pub this: String,
    pub image: Option<String>,
    pub artwork: Option<String>,
    pub cancel: Option<String>,
    pub retry: Option<String>,
    pub batch: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobsView {
    pub jobs: Vec<JobView>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchesView {
    pub batches: Vec<BatchView>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchView {
    pub id: BatchId,
    pub name: Option<String>,
    pub status: BatchStatus,
    pub counts: Counts,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub webhook: Option<Webhook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsView>,
    pub links: BatchLinks,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<BatchJobView>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UploadView {
    pub url: String,
    pub method: String,
    pub headers: BTreeMap<String, String>,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgressView {
    pub checked_lines: u64,
    pub admitted_jobs: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DocumentView {
    pub url: String,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultsView {
    pub total: u64,
    pub first: Vec<LineFault>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchJobView {
    pub index: usize,
    pub id: JobId,
    pub custom_id: Option<CustomId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchLinks {
    #[serde(rename = "self")]
    pub this: String,
    pub jobs: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    pub cancel: Option<String>,
    pub retry: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryView {
    pub id: DeliveryId,
    #[serde(rename = "type")]
    pub event_type: EventType,
    pub status: DeliveryStatus,
    pub job_id: Option<JobId>,
    pub batch_id: Option<BatchId>,
    pub url: WebhookUrl,
    pub created_at: Timestamp,
    pub next_try_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub tries: Vec<TryView>,
    pub event: Box<RawValue>,
    pub links: DeliveryLinks,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TryView {
    pub at: Timestamp,
    pub duration_ms: u64,
    pub status: Option<u16>,
    pub error: Option<TryError>,
    pub response: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryLinks {
    #[serde(rename = "self")]
    pub this: String,
    pub replay: String,
    pub job: Option<String>,
    pub batch: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveriesView {
    pub deliveries: Vec<DeliveryView>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayedView {
    pub replayed: usize,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct SecretView {
    pub secret: String,
    pub previous: Vec<PreviousSecretView>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct PreviousSecretView {
    pub secret: String,
    pub valid_until: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthView {
    pub status: String,
    pub version: String,
    pub queue: QueueHealthView,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueHealthView {
    pub waiting: u64,
    pub in_flight: u64,
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
    pub fn new(delivery: &Delivery, base: &str) -> Self {
        let (job_id, batch_id) = delivery.id.subject.ids();
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
            duration_ms: tried.duration_ms,
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
