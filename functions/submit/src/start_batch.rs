//! Starts a batch whose file is uploaded.

use shared::aws::AnyBatch;
use shared::aws::SavedBatch;
use shared::aws::gateway::log_failure;
use shared::file_batch::{InputFile, MAX_BYTES};
use shared::{BatchId, FileBatch, Owner, Problem};

use crate::submit_batch::send_batch_ticket;
use crate::{App, owned_batch};

/// Starts the batch with the file as it is now. A batch that was started before stays as it is.
pub(crate) async fn start(app: &App, id: BatchId, owner: &Owner) -> Result<FileBatch, Problem> {
    let AnyBatch::FromFile(batch) = owned_batch(app, id, owner).await? else { return Err(Problem::NotFromFile) };
    let mut batch = *batch;
    // Each iteration means that somebody else changed the batch, so the loop ends.
    while batch.awaits_start(app.clock.now())? {
        let file = uploaded(app, id).await?;
        let Some(next) = batch.start(file, app.clock.now(), app.deadline, app.retention)? else { break };
        match app.table.save_file_batch(&next).await.map_err(log_failure(id))? {
            SavedBatch::Stored => {
                tracing::info!(batch.id = %id, bytes = next.file.as_ref().map(|file| file.bytes), "batch started");
                batch = next;
                break;
            }
            SavedBatch::MovedOn(current) => batch = *current,
            SavedBatch::Gone => return Err(Problem::NotFound),
        }
    }
    send_ticket(app, &batch).await?;
    Ok(batch)
}

/// The uploaded file, if its size is allowed.
async fn uploaded(app: &App, id: BatchId) -> Result<InputFile, Problem> {
    let file = app.files.head(id).await.map_err(log_failure(id))?.ok_or(Problem::NoInput)?;
    if (1..=MAX_BYTES).contains(&file.bytes) { Ok(file) } else { Err(Problem::InvalidInput(file.bytes)) }
}

/// Sends a ticket of a batch unless it has ended. An earlier request may have crashed before it sent one, and an extra
/// ticket does no harm.
pub(crate) async fn send_ticket(app: &App, file_batch: &FileBatch) -> Result<(), Problem> {
    if file_batch.is_active() { send_batch_ticket(app, &file_batch.batch).await } else { Ok(()) }
}
