//! Retries the failed jobs of a batch from a file.

use shared::aws::SavedBatch;
use shared::aws::gateway::log_failure;
use shared::caller::IdempotencyKey;
use shared::{FileBatch, Problem};

use crate::App;
use crate::start_batch::send_ticket;

/// A batch whose failed jobs are retried, by this request or an earlier one with the same key.
pub(crate) struct RetriedBatch {
    pub(crate) batch: FileBatch,
    pub(crate) replayed: bool,
}

/// Has the function `batch` retry the failed jobs.
pub(crate) async fn retry(
    app: &App,
    mut batch: FileBatch,
    key: Option<&IdempotencyKey>,
) -> Result<RetriedBatch, Problem> {
    let id = batch.batch.id;
    // Each iteration means that somebody else changed the batch, so the loop ends.
    let replayed = loop {
        let Some(next) = batch.retry(key, app.clock.now(), app.deadline, app.retention)? else { break true };
        // Nobody could tell the end of the batch afterwards.
        app.outbox.tell_file_batch(&batch, app.clock.now()).await.map_err(log_failure(id))?;
        match app.table.save_file_batch(&next).await.map_err(log_failure(id))? {
            SavedBatch::Stored => {
                batch = next;
                break false;
            }
            SavedBatch::MovedOn(current) => batch = *current,
            SavedBatch::Gone => return Err(Problem::NotFound),
        }
    };
    send_ticket(app, &batch).await?;
    tracing::info!(batch.id = %id, replayed, "retry of a batch noted");
    Ok(RetriedBatch { batch, replayed })
}
