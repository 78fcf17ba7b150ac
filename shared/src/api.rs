//! The wire format of the HTTP API: what a job looks like to its owner.

use serde::{Deserialize, Serialize};

use crate::batch::{BatchStatus, Counts};
use crate::group::BatchOrGroup;
use crate::id::{BatchId, JobId};
use crate::image::{Artwork, Image};
use crate::job::{Job, JobError, JobState, LastError, Status};
use crate::label::CustomId;
use crate::order::{AspectRatio, Metadata, Model, OutputFormat, Prompt, Seed};
use crate::poster::{Lettering, Poster};
use crate::problem::Problem;
use crate::time::Timestamp;

/// The greatest body of a request, in bytes as [`crate::json::escaped_len`] counts them: API Gateway hands it on in a
/// JSON string, and the event around it may have 6 MB, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub const MAX_BODY_BYTES: usize = 5_500_000;

/// A job as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    /// The job's name.
    pub id: JobId,
    /// Where it stands.
    pub status: Status,
    /// What to paint.
    pub prompt: Prompt,
    /// What to keep out of the picture.
    pub negative_prompt: Option<Prompt>,
    /// The shape of the picture.
    pub aspect_ratio: AspectRatio,
    /// The seed that was asked for.
    pub seed: Option<Seed>,
    /// The file format that was asked for.
    pub output_format: OutputFormat,
    /// The model that paints.
    pub model: Model,
    /// The caller's own notes.
    pub metadata: Metadata,
    /// The lettering that was asked for.
    pub poster: Option<Poster>,
    /// The batch that the job belongs to.
    pub batch_id: Option<BatchId>,
    /// The caller's name for the job in its batch.
    pub custom_id: Option<CustomId>,
    /// How many paintings were begun.
    pub attempts: u32,
    /// When the job was submitted.
    pub created_at: Timestamp,
    /// When a worker last took it up.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it fails if it has not ended before.
    pub deadline_at: Timestamp,
    /// When its record and its picture are deleted.
    pub expires_at: Timestamp,
    /// How far a queued job has to go.
    pub queue: Option<QueueView>,
    /// The picture of a job that succeeded, or its poster.
    pub image: Option<ImageView>,
    /// Why a job failed.
    pub error: Option<JobError>,
    /// Why a job that has not ended still waits.
    pub last_error: Option<LastError>,
    /// Where to go from here.
    pub links: Links,
}

/// What a job has to show, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageView {
    /// A presigned URL of the file, which works for everybody who has it.
    pub url: String,
    /// When the URL stops working. Reading the job again gives one that works.
    pub url_expires_at: Timestamp,
    /// The media type of the file.
    pub content_type: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
    /// The seed that the model says it used.
    pub seed: Option<u32>,
    /// How the lettering of a poster was set.
    pub poster: Option<Lettering>,
    /// The picture beneath the lettering of a poster.
    pub artwork: Option<ArtworkView>,
    /// A presigned URL of a small copy of the file, which ends with the other one; `None` where there is no such copy.
    #[serde(default)]
    pub thumbnail: Option<String>,
}

/// The picture beneath the lettering of a poster, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArtworkView {
    /// A presigned URL of the file, like that of the poster.
    pub url: String,
    /// When the URL stops working.
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

/// A job's place in the queue, as well as it can be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueView {
    /// About how many jobs wait, most of them before this one.
    pub ahead: u64,
    /// About when a worker takes the job up.
    pub estimated_start_at: Timestamp,
    /// Always true: neither number is promised.
    pub estimate: bool,
}

/// Addresses that belong to a job; those of what cannot be done with it as it stands are missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Links {
    /// The job itself.
    #[serde(rename = "self")]
    pub this: String,
    /// Its picture or its poster, under a URL that does not expire.
    pub image: Option<String>,
    /// The same for the picture beneath the lettering of a poster.
    pub artwork: Option<String>,
    /// To cancel it.
    pub cancel: Option<String>,
    /// To retry it.
    pub retry: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
}

/// A page of jobs as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobsView {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to ask the next page with; null when there is none.
    pub next_cursor: Option<String>,
}

/// A batch as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchView {
    /// The batch's name.
    pub id: BatchId,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The group that it is a part of.
    pub group_id: Option<BatchId>,
    /// How many parts a group has; null for a single batch.
    pub parts: Option<usize>,
    /// Where it stands.
    pub status: BatchStatus,
    /// How many of its jobs stand where.
    pub counts: Counts,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its record is deleted.
    pub expires_at: Timestamp,
    /// Where to go from here.
    pub links: BatchLinks,
    /// The names of its jobs, in the answer to its submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<BatchJobView>>,
    /// What to send the same request with again, when a group was too large to be canceled or retried in one go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One job of a batch that was submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchJobView {
    /// Its place in the request, from zero.
    pub index: usize,
    /// The job's name.
    pub id: JobId,
    /// The caller's name for it.
    pub custom_id: Option<CustomId>,
}

/// Addresses that belong to a batch; those of what cannot be done with it as it stands are missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchLinks {
    /// The batch itself.
    #[serde(rename = "self")]
    pub this: String,
    /// Its jobs.
    pub jobs: String,
    /// To cancel what has not started.
    pub cancel: Option<String>,
    /// To retry what failed.
    pub retry: Option<String>,
    /// The group that it is a part of.
    pub group: Option<String>,
}

/// How the service is, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthView {
    /// `ok` whenever there is an answer at all.
    pub status: String,
    /// The version of the service.
    pub version: String,
    /// How full the queue is.
    pub queue: QueueHealthView,
}

/// How full the queue is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueHealthView {
    /// About how many jobs wait for a worker.
    pub waiting: u64,
    /// About how many jobs a worker has, or wait for another attempt.
    pub in_flight: u64,
    /// About how long a job submitted now would wait, in seconds.
    pub estimated_wait_seconds: u64,
}

/// The routes of the API: each path, and the methods that it answers to. Where GET is one of them, so is HEAD.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/", &["GET"]),
    ("/jobs", &["GET", "POST"]),
    ("/jobs/{id}", &["GET"]),
    ("/jobs/{id}/image", &["GET"]),
    ("/jobs/{id}/cancel", &["POST"]),
    ("/jobs/{id}/retry", &["POST"]),
    ("/batches", &["POST"]),
    ("/batches/{id}", &["GET"]),
    ("/batches/{id}/jobs", &["GET"]),
    ("/batches/{id}/cancel", &["POST"]),
    ("/batches/{id}/retry", &["POST"]),
    ("/health", &["GET"]),
];

/// The problem of a method that a path does not answer to.
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
    /// Shows `job` to a caller who reached the API at `base`, an address without a slash at its end.
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
    /// Shows `batch` to a caller who reached the API at `base`, an address without a slash at its end.
    pub fn new(batch: &BatchOrGroup, counts: Counts, base: &str) -> Self {
        let address = |id: BatchId| format!("{base}/batches/{id}");
        let this = address(batch.id());
        let (name, group_id, parts, created_at) = match batch {
            BatchOrGroup::Batch(batch) => (batch.name.clone().map(String::from), batch.group, None, batch.created_at),
            BatchOrGroup::Group(group) => {
                (Some(group.name.clone().into()), None, Some(group.parts.len()), group.created_at)
            }
        };
        Self {
            id: batch.id(),
            name,
            group_id,
            parts,
            status: counts.status(),
            counts,
            created_at,
            expires_at: batch.expires_at(),
            links: BatchLinks {
                jobs: format!("{this}/jobs"),
                cancel: (counts.queued > 0).then(|| format!("{this}/cancel")),
                retry: (counts.failed > 0).then(|| format!("{this}/retry")),
                group: group_id.map(address),
                this,
            },
            jobs: None,
            next_cursor: None,
        }
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
