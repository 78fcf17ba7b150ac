//! Batches: many jobs that are submitted together.

use std::collections::HashMap;
use std::iter::Sum;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::caller::Owner;
use crate::fault::{FieldError, MAX_FAULTS};
use crate::id::{BatchId, JobId};
use crate::job::{Lease, Status};
use crate::json::{Fields, kind, string};
use crate::label::{BatchName, CustomId};
use crate::order::{DeadlineHours, Model, Order};
use crate::spelled::spelled;
use crate::text::hex;
use crate::time::Timestamp;
use crate::webhook::{EventType, Webhook};

/// The maximum number of jobs in a request for a batch. A batch from a file may have more.
pub const MAX_JOBS: usize = 1000;

/// The request to submit a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchOrder {
    /// The caller's name for the batch.
    pub name: Option<BatchName>,
    /// How long each job may take; `None` leaves that to the service.
    pub deadline_hours: Option<DeadlineHours>,
    /// Where its end, and those of its jobs, are told.
    pub webhook: Option<Webhook>,
    /// The jobs, in the caller's order.
    pub entries: Vec<Entry>,
}

/// One job of a batch request.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What to paint.
    pub order: Order,
    /// The caller's id for the job.
    pub custom_id: Option<CustomId>,
}

impl BatchOrder {
    /// Parses a batch. Returns the faults it found, stopping soon after a hundred.
    pub fn parse(value: Value, default_model: Model) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::new(value, "")?;
        let name = fields.optional("name", |value| string(value)?.try_into());
        let defaults = fields.optional("defaults", |value| match value {
            Value::Object(map) => Ok(map),
            other => Err(format!("must be an object, not {}", kind(&other))),
        });
        let jobs = fields.required("jobs", |value| match value {
            Value::Array(jobs) if (1..=MAX_JOBS).contains(&jobs.len()) => Ok(jobs),
            Value::Array(jobs) => Err(format!("must have 1 to {MAX_JOBS} jobs, but has {}", jobs.len())),
            other => Err(format!("must be an array, not {}", kind(&other))),
        });
        let deadline_hours = fields.optional("deadline_hours", |value| DeadlineHours::parse(&value));
        let webhook = fields.nested("webhook", Webhook::of_batch);
        let webhook_of_jobs = webhook.as_ref().and_then(Webhook::for_jobs);
        for name in ["input", "on_bad_line"] {
            fields.optional::<(), _>(name, |_| Err("is not for a batch with its jobs in the request".to_owned()));
        }
        let mut errors = fields.finish();
        let mut defaults = defaults.unwrap_or_default();
        // Report a fault of the defaults once, not for every job that uses them.
        let faults = faults_of_defaults(&defaults, default_model);
        if !faults.is_empty() {
            errors.extend(faults);
            defaults.clear();
        }
        let mut entries = Vec::new();
        let mut seen = HashMap::new();
        for (index, job) in jobs.into_iter().flatten().enumerate() {
            match Entry::parse(job, &format!("/jobs/{index}"), &defaults, default_model) {
                Ok(mut entry) => {
                    entry.order.deadline_hours = deadline_hours;
                    entry.order.webhook = webhook_of_jobs.clone();
                    if let Some(first) = entry.custom_id.clone().and_then(|id| seen.insert(id, index)) {
                        let detail = format!("must be unique in the batch, but job {first} has the same");
                        errors.push(FieldError::new(&format!("/jobs/{index}/custom_id"), detail));
                    }
                    entries.push(entry);
                }
                Err(found) => errors.extend(found),
            }
            if errors.len() >= MAX_FAULTS {
                break;
            }
        }
        if errors.is_empty() { Ok(Self { name, deadline_hours, webhook, entries }) } else { Err(errors) }
    }

    /// A digest that is equal for two batches exactly if they ask for the same thing.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&self.name).expect("a name is always JSON"));
        if let Some(webhook) = &self.webhook {
            digest.update(serde_json::to_vec(webhook).expect("a webhook is always JSON"));
        }
        for Entry { order, custom_id } in &self.entries {
            digest.update(serde_json::to_vec(&(order, custom_id)).expect("an order is always JSON"));
        }
        hex(&digest.finalize())
    }
}

impl Entry {
    /// Parses one job at the JSON pointer `pointer` of the request. `defaults` supply the fields that it leaves out.
    pub fn parse(
        job: Value,
        pointer: &str,
        defaults: &Map<String, Value>,
        model: Model,
    ) -> Result<Self, Vec<FieldError>> {
        let mut job = match job {
            Value::Object(job) => job,
            other => {
                return Err(vec![FieldError::new(pointer, format!("must be an object, not {}", kind(&other)))]);
            }
        };
        let own: Vec<_> = take_fields_of_batch(&mut job).collect();
        let custom_id = match job.remove("custom_id").filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => string(value).and_then(CustomId::try_from).map(Some),
        };
        for (name, value) in defaults {
            if job.get(name).is_none_or(Value::is_null) {
                job.insert(name.clone(), value.clone());
            }
        }
        let order = Order::parse(Value::Object(job), pointer, model);
        match (order, custom_id) {
            (Ok(order), Ok(custom_id)) if own.is_empty() => Ok(Self { order, custom_id }),
            (order, custom_id) => {
                let mut errors = order.err().unwrap_or_default();
                let bad_id = custom_id.err();
                errors.extend(bad_id.map(|detail| FieldError::new(&format!("{pointer}/custom_id"), detail)));
                errors
                    .extend(own.iter().map(|name| FieldError::new(&format!("{pointer}/{name}"), OF_BATCH.to_owned())));
                Err(errors)
            }
        }
    }
}

const OF_BATCH: &str = "must be set for the whole batch, not for its jobs";

/// Takes the fields out of a job that only a whole batch may have, and names those that it had.
fn take_fields_of_batch(job: &mut Map<String, Value>) -> impl Iterator<Item = &'static str> {
    let names = ["deadline_hours", "webhook"].into_iter();
    names.filter(|name| job.remove(*name).is_some_and(|value| !value.is_null()))
}

/// The faults of the defaults, found by parsing them as a job with a prompt.
pub fn faults_of_defaults(defaults: &Map<String, Value>, model: Model) -> Vec<FieldError> {
    let mut job = defaults.clone();
    let of_batch: Vec<_> = take_fields_of_batch(&mut job).collect();
    let has_prompt = job.insert("prompt".to_owned(), "x".into()).is_some();
    let mut errors = Order::parse(Value::Object(job), "/defaults", model).err().unwrap_or_default();
    if has_prompt {
        errors.push(FieldError::new("/defaults/prompt", "must be set for each job, not in the defaults".to_owned()));
    }
    errors.extend(of_batch.iter().map(|name| FieldError::new(&format!("/defaults/{name}"), OF_BATCH.to_owned())));
    errors
}

/// A batch, as recorded in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Who may see it.
    pub owner: Owner,
    /// The caller's name for it.
    pub name: Option<BatchName>,
    /// How many jobs it has.
    pub total: usize,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its unfinished jobs fail.
    pub deadline_at: Timestamp,
    /// When its record is deleted.
    pub expires_at: Timestamp,
    /// The digest of the request.
    pub fingerprint: String,
    /// The exclusive right to write its jobs; `None` once all are written and queued.
    pub writing: Option<Lease>,
    /// When it was canceled, if that was before all of its jobs were written.
    pub canceled_at: Option<Timestamp>,
    /// When it was last retried.
    pub retried_at: Option<Timestamp>,
    /// Where its end, and those of its jobs, are told.
    pub webhook: Option<Webhook>,
    /// The [`Batch::since`] of the last end whose event is in the queue.
    pub told_for: Option<Timestamp>,
}

impl Batch {
    /// The longest deadline that a job can have; used for records that have none.
    pub const LONGEST_DEADLINE: Duration = Duration::from_secs(96 * 3600);

    /// When it was submitted or last retried. It has one end after that.
    pub fn since(&self) -> Timestamp {
        self.retried_at.unwrap_or(self.created_at)
    }

    /// The webhook, if it is still to be told the end of the batch.
    pub fn webhook_for_end(&self) -> Option<&Webhook> {
        let webhook = self.webhook.as_ref().filter(|webhook| webhook.wants(EventType::BatchEnded));
        webhook.filter(|_| self.told_for != Some(self.since()))
    }

    /// The status of a job that was not found: not written yet, not in the index yet, or expired, which is `None`.
    ///
    /// It counts as queued, so that a batch never seems to have ended too early, but no longer than a job may wait.
    pub fn state_of_missing(&self, now: Timestamp) -> Option<Status> {
        let overdue = self.deadline_at <= now;
        match self.writing {
            None if overdue => None,
            _ if self.canceled_at.is_some() => Some(Status::Canceled),
            _ if overdue => Some(Status::Failed),
            _ => Some(Status::Queued),
        }
    }

    /// The statuses of the jobs that were not found, if `known` were found.
    pub fn states_of_missing(&self, known: usize, now: Timestamp) -> impl Iterator<Item = Status> {
        std::iter::repeat_n(self.state_of_missing(now), self.total.saturating_sub(known)).flatten()
    }

    /// The statuses of all jobs, given those that were found.
    pub fn states(&self, known: Vec<(JobId, Status)>, now: Timestamp) -> impl Iterator<Item = Status> {
        let missing = self.states_of_missing(known.len(), now);
        known.into_iter().map(|(_, status)| status).chain(missing)
    }

    /// All jobs in the order of their submission, with the statuses that are `known`.
    pub fn jobs(&self, known: Vec<(JobId, Status)>) -> impl Iterator<Item = (JobId, Option<Status>)> {
        let known: HashMap<_, _> = known.into_iter().collect();
        let ids = (0..self.total).map(|index| JobId::in_batch(self.id, index));
        ids.map(move |id| (id, known.get(&id).copied()))
    }
}

/// How many jobs of a batch have each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All jobs.
    pub total: usize,
    /// Jobs that wait for a worker.
    pub queued: usize,
    /// Jobs that a worker has claimed.
    pub running: usize,
    /// Jobs that have a picture.
    pub succeeded: usize,
    /// Jobs that failed.
    pub failed: usize,
    /// Jobs that were canceled.
    pub canceled: usize,
}

spelled! {
    /// The status of a batch.
    BatchStatus, "a status of a batch",
    /// Its file is not uploaded, or it is not started.
    AwaitingInput = "awaiting_input",
    /// The lines of its file are checked.
    Checking = "checking",
    /// A line of its file is faulty, so nothing is painted.
    Invalid = "invalid",
    /// It was not started in time.
    Expired = "expired",
    /// Its jobs are stored, one after the other.
    Admitting = "admitting",
    /// Jobs are unfinished.
    InProgress = "in_progress",
    /// Every job has succeeded.
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
    use crate::order::Seed;
    use serde_json::json;

    fn pointers(value: Value) -> Vec<String> {
        let errors = BatchOrder::parse(value, Model::Core).expect_err("it breaks a rule");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn defaults_fill_what_a_job_leaves_out() {
        let batch = json!({
            "name": "Friday",
            "defaults": { "aspect_ratio": "1:1", "seed": 7, "metadata": { "a": "b" } },
            "jobs": [{ "prompt": "One", "custom_id": "1" }, { "prompt": "Two", "seed": 8, "metadata": null }]
        });
        let batch = BatchOrder::parse(batch, Model::Core).expect("a good batch");
        let seeds: Vec<_> = batch.entries.iter().map(|entry| entry.order.seed.map(Seed::get)).collect();
        assert_eq!(seeds, [Some(7), Some(8)]);
        assert!(batch.entries.iter().all(|entry| entry.order.aspect_ratio.as_str() == "1:1"));
        assert_eq!(batch.entries[1].order.metadata.pairs()["a"], "b");
    }

    #[test]
    fn every_fault_is_named_with_its_job() {
        let jobs = json!([{ "prompt": "" }, { "prompt": "x", "custom_id": "" }, 7, { "prompt": "x", "sede": 1 }]);
        assert_eq!(
            pointers(json!({ "jobs": jobs })),
            ["/jobs/0/prompt", "/jobs/1/custom_id", "/jobs/2", "/jobs/3/sede"]
        );
        let twins = json!([{ "prompt": "x", "custom_id": "a" }, { "prompt": "y", "custom_id": "a" }]);
        assert_eq!(pointers(json!({ "jobs": twins })), ["/jobs/1/custom_id"]);
        for jobs in [json!([]), json!(vec![json!({ "prompt": "x" }); 1001]), json!({}), json!(null)] {
            assert_eq!(pointers(json!({ "jobs": jobs })), ["/jobs"]);
        }
        let jobs = json!([{ "prompt": "x" }, { "prompt": "y" }]);
        let defaults = json!({ "seed": -1, "prompt": "z", "nmae": 1 });
        let found = pointers(json!({ "jobs": jobs, "defaults": defaults, "name": "" }));
        assert_eq!(found, ["/name", "/defaults/seed", "/defaults/nmae", "/defaults/prompt"]);
        let of_batch = json!({ "deadline_hours": 5, "webhook": { "url": "https://example.com" } });
        let late = json!({ "prompt": "x", "deadline_hours": 5, "webhook": {} });
        let found = pointers(json!({ "jobs": [late], "defaults": of_batch, "deadline_hours": 97, "webhook": {} }));
        let names = ["/deadline_hours", "/webhook/url"];
        let inside =
            ["/defaults", "/jobs/0"].map(|place| [format!("{place}/deadline_hours"), format!("{place}/webhook")]);
        assert_eq!(found, [&names.map(str::to_owned)[..], &inside.concat()].concat());
        let found = pointers(json!({ "jobs": [{ "prompt": "" }], "defaults": { "seed": 0 }, "name": "" }));
        assert_eq!(found, ["/name", "/defaults/seed", "/jobs/0/prompt"]);
        assert_eq!(pointers(json!({ "jobs": vec![json!({}); 1000] })).len(), MAX_FAULTS);
    }

    #[test]
    fn a_job_that_is_not_there_waits_until_its_deadline_and_then_has_failed_or_expired() {
        use Status::{Canceled, Failed, Queued};
        let batch = |writing: bool, canceled: bool| Batch {
            id: BatchId::new(),
            owner: Owner::new("somebody"),
            name: None,
            total: 3,
            created_at: Timestamp::from_ms(0),
            deadline_at: Timestamp::from_ms(10),
            expires_at: Timestamp::from_ms(1_000),
            fingerprint: String::new(),
            writing: writing.then(|| Lease::new(Timestamp::from_ms(5))),
            canceled_at: canceled.then_some(Timestamp::from_ms(1)),
            retried_at: None,
            webhook: None,
            told_for: None,
        };
        let states = |batch: Batch| [9, 10].map(|now| batch.state_of_missing(Timestamp::from_ms(now)));
        assert_eq!(states(batch(false, false)), [Some(Queued), None]);
        assert_eq!(states(batch(true, false)), [Some(Queued), Some(Failed)]);
        assert_eq!(states(batch(false, true)), [Some(Canceled), None]);
        assert_eq!(states(batch(true, true)), [Some(Canceled), Some(Canceled)]);
        let missing = |known| batch(true, false).states_of_missing(known, Timestamp::from_ms(0)).count();
        assert_eq!([0, 2, 3, 4].map(missing), [3, 1, 0, 0]);
    }

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
