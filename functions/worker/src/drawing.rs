//! Work on pixels, one picture after the other.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Works on one picture at a time, while the function's calls go on.
///
/// A small function has a part of one core: two pictures at once would not be done sooner, but take twice the memory.
#[derive(Clone, Debug)]
pub(crate) struct Drawing(Arc<Semaphore>);

impl Drawing {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Does this work when its turn has come, on a thread of its own, so that a panic ends this one job alone.
    ///
    /// # Errors
    /// When the work panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.0.clone().acquire_owned().await.expect("nobody closes it");
        spawn_blocking(move || {
            // The turn lasts as long as the work, even where nobody waits for it any longer.
            let _turn = turn;
            work()
        })
        .await
    }
}
