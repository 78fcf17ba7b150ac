use shared::aws::Saved;
use shared::aws::gateway::log_failure;
use shared::{Batch, Problem};

use crate::App;
use crate::get_batch::send_ticket;

/// Has the function `batch` cancel the jobs that have not started. A batch that has ended stays as it is.
pub(crate) async fn cancel(app: &App, mut batch: Batch) -> Result<Batch, Problem> {
    let id = batch.id;
    while let Some(next) = batch.cancel(app.clock.now()) {
        match app.table.save_batch(&next).await.map_err(log_failure(id))? {
            Saved::Stored => {
                if next.is_active() {
                    send_ticket(app, &next).await?;
                }
                app.outbox.try_to_tell_batch(&next, app.clock.now()).await;
                tracing::info!(batch.id = %id, "cancellation of a batch noted");
                return Ok(next);
            }
            Saved::MovedOn(current) => batch = *current,
            Saved::Gone => return Err(Problem::NotFound),
        }
    }
    app.outbox.try_to_tell_batch(&batch, app.clock.now()).await;
    Ok(batch)
}
