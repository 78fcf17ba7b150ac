use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::ServiceError;
use shared::aws::gateway::{found, log_failure};
use shared::batch::{Counts, Stage};
use shared::{Batch, BatchId, Owner, Problem, Timestamp};

use crate::App;

/// If a batch is still open this long after its deadline, its ticket was lost.
const LONGEST_CLEANUP: Duration = Duration::from_secs(3600);

/// For a larger batch, a request shows the counts of the last look, which may be minutes old.
const MAX_PARTS: usize = 100;

const PARTS_AT_ONCE: usize = 16;

pub(crate) async fn send_ticket(app: &App, batch: &Batch) -> Result<(), Problem> {
    app.batches.send_batch_ticket(batch.id, &batch.owner, Duration::ZERO).await.map_err(log_failure(batch.id))
}

pub(crate) async fn get(app: &App, id: BatchId, owner: &Owner) -> Result<Batch, Problem> {
    found(id, app.table.get_owned_batch(id, owner, app.clock.now()).await)
}

/// Counts the batch's jobs by status. A batch that seems to have lost its ticket gets another one.
pub(crate) async fn count(app: &App, batch: &Batch) -> Result<Counts, Problem> {
    let now = app.clock.now();
    if is_ticket_lost(batch, now) {
        send_ticket(app, batch).await?;
    }
    let (parts, ended) = match batch.stage {
        Stage::Submitting | Stage::Admitting => {
            ((0..batch.most_stored().div_ceil(batch.jobs_per_part)).collect(), Counts::default())
        }
        Stage::InProgress => (batch.progress.open_parts.clone(), batch.progress.ended),
        Stage::AwaitingInput | Stage::Checking | Stage::Invalid | Stage::Ended => (Vec::new(), batch.progress.ended),
    };
    if parts.len() > MAX_PARTS {
        return Ok(batch.last_counts(now));
    }
    let counts: Vec<_> = stream::iter(parts)
        .map(|part| async move {
            let known = app.table.states_of_part(batch.id, part).await?;
            Ok::<_, ServiceError>(Counts::of(known.into_values()))
        })
        .buffer_unordered(PARTS_AT_ONCE)
        .try_collect()
        .await
        .map_err(log_failure(batch.id))?;
    let known = counts.into_iter().chain([ended]).sum();
    Ok(batch.with_missing(known, now))
}

fn is_ticket_lost(batch: &Batch, now: Timestamp) -> bool {
    // An older version of `submit` sent no ticket for a batch in a request, and left its record in the first version.
    let never_had_one = batch.fence == 0 && batch.stage == Stage::InProgress;
    let has_work = batch.is_active() || (batch.has_ended() && batch.webhook_for_end().is_some());
    never_had_one || has_work && batch.deadline_at + LONGEST_CLEANUP <= now
}
