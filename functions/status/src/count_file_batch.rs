//! Counts the jobs of a batch from a file.

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::ServiceError;
use shared::aws::gateway::log_failure;
use shared::batch::Counts;
use shared::file_batch::Stage;
use shared::{FileBatch, Problem};

use crate::App;
use crate::get_batch::{is_ticket_lost, send_ticket};

/// A request counts the jobs of at most this many parts. Those of a larger batch are counted by the function `batch`, so
/// they may be some minutes old.
const MAX_PARTS: usize = 100;

const PARTS_AT_ONCE: usize = 16;

/// Counts the statuses of the batch's jobs.
pub(crate) async fn count(app: &App, batch: &FileBatch) -> Result<Counts, Problem> {
    let now = app.clock.now();
    let has_work = batch.is_active() || (batch.has_ended() && batch.batch.webhook_for_end().is_some());
    if has_work && is_ticket_lost(&batch.batch, now) {
        send_ticket(app, &batch.batch).await?;
    }
    let (parts, ended) = match batch.stage {
        Stage::Admitting => ((0..batch.most_stored().div_ceil(batch.jobs_per_part)).collect(), Counts::default()),
        Stage::InProgress => (batch.progress.open_parts.clone(), batch.progress.ended),
        Stage::AwaitingInput | Stage::Checking | Stage::Invalid | Stage::Ended => (Vec::new(), batch.progress.ended),
    };
    if parts.len() > MAX_PARTS {
        return Ok(batch.last_counts(now));
    }
    let counts: Vec<_> = stream::iter(parts)
        .map(|part| async move {
            let known = app.table.states_of_part(batch.batch.id, part).await?;
            Ok::<_, ServiceError>(Counts::of(known.into_iter().map(|(_, status)| status)))
        })
        .buffer_unordered(PARTS_AT_ONCE)
        .try_collect()
        .await
        .map_err(log_failure(batch.batch.id))?;
    let known = counts.into_iter().chain([ended]).sum();
    Ok(batch.with_missing(known, now))
}
