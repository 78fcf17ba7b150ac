//! How fast jobs have lately been done, and so how long one should wait before the next look.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::aws::{Depth, Queue, ServiceError};
use shared::{Job, JobId, JobState, Timestamp};
use tokio::time::Instant;

/// What a painting takes before any was seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// How many jobs are remembered. One odd job among them changes nothing.
const SEEN: usize = 15;

/// The longest painting, which is the longest invocation of the worker. What seems to have taken longer was ended by
/// somebody else, or the clock was set meanwhile.
pub const LONGEST_PAINTING: Duration = Duration::from_secs(90);

/// How long the queue's depth is taken as known. It is approximate in any case.
const DEPTH_LIFE: Duration = Duration::from_secs(1);

/// How fast jobs are done.
#[derive(Debug)]
pub(crate) struct Pace {
    queue: Queue,
    /// How many pictures are painted at once.
    at_once: u32,
    /// The jobs last seen, and how long the painting of each took.
    seen: Mutex<VecDeque<(JobId, Duration)>>,
    depth: Mutex<Option<(Instant, Depth)>>,
}

impl Pace {
    pub(crate) fn new(queue: Queue, at_once: u32) -> Self {
        Self { queue, at_once, seen: Mutex::default(), depth: Mutex::new(None) }
    }

    /// Learns from a job how long a painting takes.
    pub(crate) fn learn(&self, job: &Job) {
        let (JobState::Succeeded { finished_at, .. }, Some(started_at)) = (&job.state, job.started_at) else { return };
        let took = finished_at.since(started_at);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if took > LONGEST_PAINTING || seen.iter().any(|(id, _)| *id == job.id) {
            return;
        }
        seen.truncate(SEEN - 1);
        seen.push_front((job.id, took));
    }

    /// How long a painting takes: the median of those seen.
    fn painting(&self) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<_> = seen.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or(FIRST_GUESS)
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
