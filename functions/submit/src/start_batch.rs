use std::time::Duration;

use shared::aws::Saved;
use shared::aws::gateway::log_failure;
use shared::batch::{InputFile, MAX_BYTES};
use shared::{Batch, BatchId, Owner, Problem};

use crate::{App, owned_batch};

/// Starts the batch with the file as it is now. A batch that was started before stays as it is.
pub(crate) async fn start(app: &App, id: BatchId, owner: &Owner) -> Result<Batch, Problem> {
    let mut batch = owned_batch(app, id, owner).await?;
    batch.input().ok_or(Problem::NotFromFile)?;
    while batch.awaits_start(app.clock.now())? {
        let file = uploaded(app, id).await?;
        let bytes = file.bytes;
        let Some(next) = batch.start(file, app.clock.now(), app.terms)? else { break };
        match app.table.save_batch(&next).await.map_err(log_failure(id))? {
            Saved::Stored => {
                tracing::info!(batch.id = %id, bytes, "batch started");
                batch = next;
                break;
            }
            Saved::MovedOn(current) => batch = *current,
            Saved::Gone => return Err(Problem::NotFound),
        }
    }
    send_ticket(app, &batch).await?;
    Ok(batch)
}

async fn uploaded(app: &App, id: BatchId) -> Result<InputFile, Problem> {
    let file = app.files.head(id).await.map_err(log_failure(id))?.ok_or(Problem::NoInput)?;
    if (1..=MAX_BYTES).contains(&file.bytes) { Ok(file) } else { Err(Problem::InvalidInput(file.bytes)) }
}

/// Sends a ticket unless the batch has ended. An earlier request may have crashed before; an extra ticket does no harm.
pub(crate) async fn send_ticket(app: &App, batch: &Batch) -> Result<(), Problem> {
    if !batch.is_active() {
        return Ok(());
    }
    app.batches.send_batch_ticket(batch.id, &batch.owner, Duration::ZERO).await.map_err(log_failure(batch.id))
}
