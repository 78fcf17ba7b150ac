//! Lists batches in pages.

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::api::{BatchView, BatchesView};
use shared::aws::AnyBatch;
use shared::aws::gateway::log_failure;
use shared::{Owner, Problem};

use crate::list_jobs::Range;
use crate::{App, get_batch};

/// How many batches are counted at once.
const AT_ONCE: usize = 16;

/// One page of the owner's batches, newest first. The counts of a batch from a file are those of the last look at its
/// jobs, as one of them may have a million.
pub(crate) async fn list(app: &App, owner: &Owner, range: &Range, base: &str) -> Result<BatchesView, Problem> {
    let scope = ["batches of owner", owner.as_str()];
    let after = range.place(app, &scope)?;
    let now = app.clock.now();
    let listed = app.table.list_batches(owner, range.limit, after, now).await;
    let (batches, next) = listed.map_err(log_failure("list"))?;
    let batches = stream::iter(batches)
        .map(|batch| async move {
            Ok::<_, Problem>(match &batch {
                AnyBatch::InRequest(batch) => BatchView::new(batch, get_batch::count(app, batch).await?, base),
                AnyBatch::FromFile(file) => BatchView::of_file(file, file.last_counts(now), now, base),
            })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(BatchesView { batches, next_cursor: next.map(|place| app.cursors.seal(&scope, &place)) })
}
