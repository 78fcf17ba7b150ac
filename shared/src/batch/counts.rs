//! The counts of a batch's jobs, and the status that follows.

use std::iter::Sum;

use serde::{Deserialize, Serialize};

use crate::job::Status;
use crate::spelled::spelled;

/// How many jobs of a batch have each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Counts {
    pub total: usize,
    pub queued: usize,
    pub running: usize,
    pub succeeded: usize,
    pub failed: usize,
    pub canceled: usize,
}

spelled! {
    /// The status of a batch.
    BatchStatus, "a status of a batch",
    /// Its file is not uploaded, or it is not started.
    AwaitingInput = "awaiting_input",
    Checking = "checking",
    /// A line of its file is faulty, so nothing is painted.
    Invalid = "invalid",
    /// It was not started in time.
    Expired = "expired",
    Admitting = "admitting",
    InProgress = "in_progress",
    Completed = "completed",
    /// Every job has ended, and some have failed.
    CompletedWithErrors = "completed_with_errors",
    /// Every job has ended; none has failed, but some were canceled.
    Canceled = "canceled",
}

impl BatchStatus {
    /// Whether the batch changes by itself.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Checking | Self::Admitting | Self::InProgress)
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |all, more| Self {
            total: all.total + more.total,
            queued: all.queued + more.queued,
            running: all.running + more.running,
            succeeded: all.succeeded + more.succeeded,
            failed: all.failed + more.failed,
            canceled: all.canceled + more.canceled,
        })
    }
}

impl Counts {
    /// Counts the states of a batch's jobs.
    pub fn of(states: impl IntoIterator<Item = Status>) -> Self {
        let mut counts = Self::default();
        for state in states {
            counts.total += 1;
            *match state {
                Status::Queued => &mut counts.queued,
                Status::Running => &mut counts.running,
                Status::Succeeded => &mut counts.succeeded,
                Status::Failed => &mut counts.failed,
                Status::Canceled => &mut counts.canceled,
            } += 1;
        }
        counts
    }

    /// The status of the batch.
    pub fn status(&self) -> BatchStatus {
        if self.queued + self.running > 0 {
            BatchStatus::InProgress
        } else if self.succeeded == self.total {
            BatchStatus::Completed
        } else if self.failed == 0 {
            BatchStatus::Canceled
        } else {
            BatchStatus::CompletedWithErrors
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_only_when_every_job_has() {
        use Status::{Canceled, Failed, Queued, Running, Succeeded};
        let status = |states: &[Status]| Counts::of(states.iter().copied()).status();
        assert_eq!(status(&[Succeeded, Succeeded, Queued]), BatchStatus::InProgress);
        assert_eq!(status(&[Succeeded, Running, Queued]), BatchStatus::InProgress);
        assert_eq!(status(&[Succeeded, Succeeded, Succeeded]), BatchStatus::Completed);
        assert_eq!(status(&[Succeeded, Canceled, Failed]), BatchStatus::CompletedWithErrors);
        assert_eq!(status(&[Succeeded, Canceled, Succeeded]), BatchStatus::Canceled);
        assert_eq!(Counts::of([Succeeded, Queued]).total, 2);
    }
}
