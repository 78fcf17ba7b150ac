use shared::aws::Saved;
use shared::aws::gateway::log_failure;
use shared::job::Status;
use shared::{Job, JobId, Owner, Problem};

use crate::App;

pub(crate) async fn cancel(app: &App, id: JobId, owner: &Owner) -> Result<Job, Problem> {
    let mut job = app.table.get_owned(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    while let Some(current) = job {
        let canceled = match current.cancel(app.clock.now()) {
            Ok(canceled) => canceled,
            Err(Status::Canceled) => {
                app.outbox.try_to_tell(&current).await;
                return Ok(current);
            }
            Err(status) => return Err(Problem::NotCancelable(status)),
        };
        job = match app.table.save(&canceled).await.map_err(log_failure(id))? {
            Saved::Stored => {
                tracing::info!(job.id = %id, "job canceled");
                app.outbox.try_to_tell(&canceled).await;
                return Ok(canceled);
            }
            Saved::MovedOn(current) => Some(*current),
            Saved::Gone => None,
        };
    }
    Err(Problem::NotFound)
}
