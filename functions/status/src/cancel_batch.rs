use shared::aws::gateway::found;
use shared::{Batch, Problem};

use crate::App;
use crate::get_batch::send_ticket;

/// Has the function `batch` cancel the jobs that have not started. A batch that has ended stays as it is.
pub(crate) async fn cancel(app: &App, batch: Batch) -> Result<Batch, Problem> {
    let id = batch.id;
    let changed = app.table.change_batch(batch, |batch| batch.cancel(app.clock.now())).await;
    let (batch, is_new) = found(id, changed)?;
    if is_new && batch.is_active() {
        send_ticket(app, &batch).await?;
    }
    app.outbox.try_to_tell_batch(&batch, app.clock.now()).await;
    if is_new {
        tracing::info!(batch.id = %id, "cancellation of a batch noted");
    }
    Ok(batch)
}
