use shared::aws::Saved;
use shared::aws::gateway::log_failure;
use shared::caller::IdempotencyKey;
use shared::{Batch, Problem};

use crate::App;
use crate::start_batch::send_ticket;

/// Has the function `batch` retry the failed jobs. Returns the batch, and whether an earlier request with this key did.
pub(crate) async fn retry(app: &App, mut batch: Batch, key: Option<&IdempotencyKey>) -> Result<(Batch, bool), Problem> {
    let id = batch.id;
    let replayed = loop {
        let Some(next) = batch.retry(key, app.clock.now(), app.terms)? else { break true };
        // After the retry, the event of the batch's end can no longer be queued.
        app.outbox.tell_batch(&batch, app.clock.now()).await.map_err(log_failure(id))?;
        match app.table.save_batch(&next).await.map_err(log_failure(id))? {
            Saved::Stored => {
                batch = next;
                break false;
            }
            Saved::MovedOn(current) => batch = *current,
            Saved::Gone => return Err(Problem::NotFound),
        }
    };
    send_ticket(app, &batch).await?;
    tracing::info!(batch.id = %id, replayed, "retry of a batch noted");
    Ok((batch, replayed))
}
