use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Does CPU-intensive work on one picture at a time, while network calls continue. A small function has a fraction of
/// one core: two pictures at once would take as long, but twice the memory.
#[derive(Clone, Debug)]
pub(crate) struct Drawing(Arc<Semaphore>);

impl Drawing {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Runs `work` when its turn comes, on a thread of its own, so that a panic is returned as an error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.0.clone().acquire_owned().await.expect("nobody closes it");
        spawn_blocking(move || {
            // Hold the turn until the work ends, even if the caller no longer waits.
            let _turn = turn;
            work()
        })
        .await
    }
}
