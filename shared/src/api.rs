//! The wire format of the HTTP API: what a job looks like to its owner.

use serde::{Deserialize, Serialize};

use crate::job::{Image, Job, JobError, JobId, JobState, LastError, Status};
use crate::order::{AspectRatio, Metadata, Model, OutputFormat, Prompt, Seed};
use crate::time::Timestamp;

/// The greatest body of a request, in bytes: what a synchronous call of a Lambda function may carry is 6 MB, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>, and its envelope needs some of them.
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
    /// The picture of a job that succeeded.
    pub image: Option<ImageView>,
    /// Why a job failed.
    pub error: Option<JobError>,
    /// Why a job that has not ended still waits.
    pub last_error: Option<LastError>,
    /// Where to go from here.
    pub links: Links,
}

/// A picture as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageView {
    /// A presigned URL of the picture, which works for everybody who has it.
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
}

/// Addresses that belong to a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Links {
    /// The job itself.
    #[serde(rename = "self")]
    pub this: String,
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
            attempts: job.attempts,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at,
            deadline_at: job.deadline_at,
            expires_at: job.expires_at,
            image,
            error,
            last_error: job.last_error.clone().filter(|_| finished_at.is_none()),
            links: Links { this: format!("{base}/jobs/{}", job.id) },
        }
    }
}

impl ImageView {
    fn new(image: &Image) -> Self {
        Self {
            url: image.url.url.clone(),
            url_expires_at: image.url.expires_at,
            content_type: image.facts.format.content_type().to_owned(),
            bytes: image.facts.bytes,
            width: image.facts.width,
            height: image.facts.height,
            seed: image.facts.seed,
        }
    }
}
