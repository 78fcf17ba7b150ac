use shared::api::{BatchView, BatchesView};
use shared::aws::gateway::log_failure;
use shared::{Owner, Problem};

use crate::App;
use crate::list_jobs::Range;

/// One page of the owner's batches, newest first, with the counts of the last look, as a batch may have a million jobs.
pub(crate) async fn list(app: &App, owner: &Owner, range: &Range, base: &str) -> Result<BatchesView, Problem> {
    let scope = ["batches of owner", owner.as_str()];
    let after = range.place(app, &scope)?;
    let now = app.clock.now();
    let listed = app.table.list_batches(owner, range.limit, after, now).await;
    let (batches, next) = listed.map_err(log_failure("list"))?;
    let batches = batches.iter().map(|batch| BatchView::new(batch, batch.last_counts(now), now, base)).collect();
    Ok(BatchesView { batches, next_cursor: next.map(|place| app.cursors.seal(&scope, &place)) })
}
