//! How fast jobs have lately been done, and so how long one should wait before the next look.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::aws::{Depth, Queue, ServiceError};
use shared::{Job, JobState, Timestamp};
use tokio::time::Instant;

/// What a painting takes before any was seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// How much each job that is seen weighs against all before it.
const WEIGHT: f64 = 0.2;

/// How long the queue's depth is taken as known. It is approximate in any case.
const DEPTH_LIFE: Duration = Duration::from_secs(1);

/// How fast jobs are done.
#[derive(Debug)]
pub(crate) struct Pace {
    queue: Queue,
    /// How many pictures are painted at once.
    at_once: u32,
    painting: Mutex<Duration>,
    depth: Mutex<Option<(Instant, Depth)>>,
}

impl Pace {
    pub(crate) fn new(queue: Queue, at_once: u32) -> Self {
        Self { queue, at_once, painting: Mutex::new(FIRST_GUESS), depth: Mutex::new(None) }
    }

    /// Learns from a job how long a painting takes.
    pub(crate) fn learn(&self, job: &Job) {
        let (JobState::Succeeded { finished_at, .. }, Some(started_at)) = (&job.state, job.started_at) else { return };
        let took = finished_at.since(started_at);
        let mut painting = self.painting.lock().unwrap_or_else(PoisonError::into_inner);
        *painting = painting.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT);
    }

    fn painting(&self) -> Duration {
        *self.painting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// About how long `jobs` jobs take, side by side as far as may be.
    pub(crate) fn time_for(&self, jobs: u64) -> Duration {
        let rounds = jobs as f64 / f64::from(self.at_once);
        self.painting().mul_f64(rounds.max(if jobs > 0 { 1.0 } else { 0.0 }))
    }

    /// About how long a job that a worker has still takes. One that waits for another attempt is looked at less often the
    /// longer it has waited.
    pub(crate) fn time_left(&self, job: &Job, now: Timestamp) -> Duration {
        let since = job.started_at.map_or(Duration::ZERO, |at| now.since(at));
        let painting = self.painting();
        if since < painting { painting - since } else { since / 2 }
    }

    /// The queue's depth, which is asked for at most once a second.
    pub(crate) async fn depth(&self) -> Result<Depth, ServiceError> {
        let known = *self.depth.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, depth)) = known
            && at.elapsed() < DEPTH_LIFE
        {
            return Ok(depth);
        }
        let depth = self.queue.depth().await?;
        *self.depth.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), depth));
        Ok(depth)
    }
}
