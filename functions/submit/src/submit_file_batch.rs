use std::time::Duration;

use shared::aws::gateway::log_failure;
use shared::batch::{BatchStatus, FileBatchOrder};
use shared::caller::IdempotencyKey;
use shared::image::SignedUrl;
use shared::{Batch, BatchId, Owner, Problem};

use crate::App;

/// S3 checks the expiry when the upload begins, so a slow upload may take longer.
const UPLOAD_LIFE: Duration = Duration::from_secs(3600);

pub(crate) struct SubmittedFileBatch {
    pub(crate) batch: Batch,
    pub(crate) upload: Option<SignedUrl>,
    pub(crate) replayed: bool,
}

/// Submits a batch that awaits its file. A repeated request presigns another URL for the upload.
pub(crate) async fn submit(
    app: &App,
    owner: Owner,
    order: FileBatchOrder,
    key: Option<&IdempotencyKey>,
    base_url: String,
) -> Result<SubmittedFileBatch, Problem> {
    let id = key.map_or_else(BatchId::new, |key| BatchId::from_key(&owner, key));
    let now = app.clock.now();
    let batch = Batch::from_file(id, owner, order, base_url, now).lasting(now, app.terms);
    let (batch, replayed) = match app.table.create_batch(&batch).await.map_err(log_failure(id))? {
        None => (batch, false),
        Some(existing) if existing.fingerprint == batch.fingerprint => (existing, true),
        Some(_) => return Err(Problem::IdempotencyKeyReused),
    };
    let upload = match batch.status(now) {
        BatchStatus::AwaitingInput => Some(app.files.sign_upload(id, now, UPLOAD_LIFE).await.map_err(log_failure(id))?),
        _ => None,
    };
    tracing::info!(batch.id = %id, replayed, "batch from a file submitted");
    Ok(SubmittedFileBatch { batch, upload, replayed })
}
