//! Estimates waiting times from how long recent paintings took.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::aws::{Depth, Queue, Result};
use shared::{Job, JobId, JobState, Timestamp};
use tokio::time::Instant;

const FIRST_GUESS: Duration = Duration::from_secs(5);

const SEEN: usize = 15;

/// The worker's timeout. A job that seems to have taken longer was ended by another function, or a clock was set.
pub const LONGEST_PAINTING: Duration = Duration::from_secs(90);

/// The depth is approximate anyway.
const DEPTH_LIFE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Pace {
    queue: Queue,
    at_once: u32,
    seen: Mutex<VecDeque<(JobId, Duration)>>,
    depth: Mutex<Option<(Instant, Depth)>>,
}

impl Pace {
    pub(crate) fn new(queue: Queue, at_once: u32) -> Self {
        Self { queue, at_once, seen: Mutex::default(), depth: Mutex::new(None) }
    }

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

    fn painting(&self) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<_> = seen.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or(FIRST_GUESS)
    }

    pub(crate) fn time_for(&self, jobs: u64) -> Duration {
        let rounds = jobs as f64 / f64::from(self.at_once);
        self.painting().mul_f64(rounds.max(if jobs > 0 { 1.0 } else { 0.0 }))
    }

    /// The estimated time until a running job ends. It grows with the time that the job has waited for another attempt.
    pub(crate) fn time_left(&self, job: &Job, now: Timestamp) -> Duration {
        let since = job.started_at.map_or(Duration::ZERO, |at| now.since(at));
        let painting = self.painting();
        if since < painting { painting - since } else { since / 2 }
    }

    pub(crate) async fn depth(&self) -> Result<Depth> {
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
