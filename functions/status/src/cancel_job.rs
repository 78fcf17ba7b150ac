use shared::aws::gateway::found;
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::App;

pub(crate) async fn cancel(app: &App, id: JobId, owner: &Owner) -> Result<Job, Problem> {
    let job = found(id, app.table.get_owned(id, owner, app.clock.now()).await)?;
    let changed = app.table.change(job, |job| job.cancel(app.clock.now()).ok()).await;
    let (job, is_new) = found(id, changed)?;
    if job.status() != Status::Canceled {
        return Err(Problem::NotCancelable(job.status()));
    }
    if is_new {
        tracing::info!(job.id = %id, "job canceled");
    }
    app.outbox.try_to_tell(&job).await;
    Ok(job)
}
