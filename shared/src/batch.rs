//! Many jobs that were submitted together.

use std::collections::HashMap;
use std::iter::Sum;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::id::{BatchId, JobId};
use crate::job::{Lease, Owner, Status};
use crate::json::{Fields, kind, string};
use crate::order::{Model, Order, check_visible, hex, is_plain, spelled};
use crate::problem::{FieldError, MAX_FAULTS, Problem};
use crate::time::Timestamp;

/// How many jobs one batch may have.
pub const MAX_JOBS: usize = 1000;

/// What a caller asks for with a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchOrder {
    /// The caller's name for it.
    pub name: Option<BatchName>,
    /// The group that it is to be a part of.
    pub group: Option<GroupName>,
    /// The jobs, in the caller's order.
    pub entries: Vec<Entry>,
}

/// One job of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What to paint.
    pub order: Order,
    /// The caller's name for the job.
    pub custom_id: Option<CustomId>,
}

/// Defines a short text of the caller's.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $max:literal) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        // What was taken in once is read back as it is: a rule that becomes stricter makes no record unreadable.
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let fits = check_visible(&text).is_ok() && text.chars().count() <= $max && is_plain(&text);
                let rule = concat!("must have 1 to ", $max, " characters, at least one visible and none a control character");
                if fits { Ok(Self(text)) } else { Err(rule.to_owned()) }
            }
        }

        impl From<$name> for String {
            fn from(label: $name) -> Self {
                label.0
            }
        }
    };
}

label! {
    /// The caller's name for a batch.
    BatchName, 128
}

label! {
    /// The caller's name for a group of batches, of which an owner has no two alike.
    GroupName, 128
}

label! {
    /// The caller's name for a job, of which a batch has no two alike.
    CustomId, 64
}

impl BatchOrder {
    /// Reads a batch from a JSON value, with the faults found, until they are a hundred or somewhat more.
    ///
    /// # Errors
    /// The rules that it breaks.
    pub fn parse(value: Value, default_model: Model) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::new(value, "").map_err(|error| vec![error])?;
        let name = fields.optional("name", |value| string(value)?.try_into());
        let group = fields.optional("group", |value| string(value)?.try_into());
        let defaults = fields.optional("defaults", |value| match value {
            Value::Object(map) => Ok(map),
            other => Err(format!("must be an object, not {}", kind(&other))),
        });
        let jobs = fields.required("jobs", |value| match value {
            Value::Array(jobs) if (1..=MAX_JOBS).contains(&jobs.len()) => Ok(jobs),
            Value::Array(jobs) => Err(format!("must have 1 to {MAX_JOBS} jobs, but has {}", jobs.len())),
            other => Err(format!("must be an array, not {}", kind(&other))),
        });
        let mut errors = fields.finish();
        let mut defaults = defaults.unwrap_or_default();
        // A fault of the defaults is theirs alone, and not one of each job that takes them over.
        let faults = faults_of_defaults(&defaults, default_model);
        if !faults.is_empty() {
            errors.extend(faults);
            defaults.clear();
        }
        let mut entries = Vec::new();
        let mut seen = HashMap::new();
        for (index, job) in jobs.into_iter().flatten().enumerate() {
            match Entry::parse(job, &format!("/jobs/{index}"), &defaults, default_model) {
                Ok(entry) => {
                    if let Some(first) = entry.custom_id.clone().and_then(|id| seen.insert(id, index)) {
                        let detail = format!("must be unique in the batch, but is that of job {first} too");
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
        if errors.is_empty() { Ok(Self { name, group, entries }) } else { Err(errors) }
    }

    /// A digest that two batches share exactly when they ask for the same thing.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&self.name).expect("a name is always JSON"));
        // Left out where there is none, so that what was digested before there were groups still matches.
        if let Some(group) = &self.group {
            digest.update(serde_json::to_vec(group).expect("a name is always JSON"));
        }
        for Entry { order, custom_id } in &self.entries {
            digest.update(serde_json::to_vec(&(order, custom_id)).expect("an order is always JSON"));
        }
        hex(&digest.finalize())
    }
}

impl Entry {
    /// Reads one job, which stands at the JSON pointer `pointer` of the request. `defaults` stand in for what it leaves out.
    ///
    /// # Errors
    /// Every rule that it breaks.
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
            (Ok(order), Ok(custom_id)) => Ok(Self { order, custom_id }),
            (order, custom_id) => {
                let mut errors = order.err().unwrap_or_default();
                let bad_id = custom_id.err();
                errors.extend(bad_id.map(|detail| FieldError::new(&format!("{pointer}/custom_id"), detail)));
                Err(errors)
            }
        }
    }
}

/// The faults of the defaults, found by reading them as a job that has nothing else but a prompt.
pub fn faults_of_defaults(defaults: &Map<String, Value>, model: Model) -> Vec<FieldError> {
    let mut job = defaults.clone();
    let has_prompt = job.insert("prompt".to_owned(), "x".into()).is_some();
    let mut errors = Order::parse(Value::Object(job), "/defaults", model).err().unwrap_or_default();
    if has_prompt {
        errors.push(FieldError::new("/defaults/prompt", "belongs to each job, not to the defaults".to_owned()));
    }
    errors
}

/// A batch's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// Who may see it.
    pub owner: Owner,
    /// The caller's name for it.
    pub name: Option<BatchName>,
    /// The group that it is a part of.
    pub group: Option<BatchId>,
    /// How many jobs it has.
    pub total: usize,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its jobs fail if they still wait.
    pub deadline_at: Timestamp,
    /// When its record is deleted.
    pub expires_at: Timestamp,
    /// The digest of what was asked for.
    pub fingerprint: String,
    /// The right of whoever writes its jobs to be alone with them; `None` once all are written and queued.
    pub writing: Option<Lease>,
    /// When it was canceled, if that was before all of its jobs were known to be written.
    pub canceled_at: Option<Timestamp>,
}

impl Batch {
    /// The longest deadline that a job can have, which stands in where the record of a batch names none.
    pub const LONGEST_DEADLINE: Duration = Duration::from_secs(96 * 3600);

    /// What a job counts as that is not there: it was not written, no index shows it yet, or its retention has ended, in
    /// which case it does not count.
    ///
    /// It counts as one that waits, so that a batch is never said to have ended before every job of it is known to have;
    /// but it does so no longer than a job may wait.
    pub fn state_of_missing(&self, now: Timestamp) -> Option<Status> {
        let overdue = self.deadline_at <= now;
        match self.writing {
            None if overdue => None,
            _ if self.canceled_at.is_some() => Some(Status::Canceled),
            _ if overdue => Some(Status::Failed),
            _ => Some(Status::Queued),
        }
    }

    /// The states of those of its jobs that are not there, where `known` are.
    pub fn states_of_missing(&self, known: usize, now: Timestamp) -> impl Iterator<Item = Status> {
        std::iter::repeat_n(self.state_of_missing(now), self.total.saturating_sub(known)).flatten()
    }

    /// The states of all its jobs, where `known` are those that are there.
    pub fn states(&self, known: Vec<(JobId, Status)>, now: Timestamp) -> impl Iterator<Item = Status> {
        let missing = self.states_of_missing(known.len(), now);
        known.into_iter().map(|(_, status)| status).chain(missing)
    }

    /// All its jobs in the order of their submission, each with its state if it is `known`.
    pub fn jobs(&self, known: Vec<(JobId, Status)>) -> impl Iterator<Item = (JobId, Option<Status>)> {
        let known: HashMap<_, _> = known.into_iter().collect();
        let ids = (0..self.total).map(|index| JobId::in_batch(self.id, index));
        ids.map(move |id| (id, known.get(&id).copied()))
    }
}

/// Several batches under one name. Nothing is kept of it but which batches are its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name among the batches.
    pub id: BatchId,
    /// Who may see it.
    pub owner: Owner,
    /// What the caller calls it.
    pub name: GroupName,
    /// When its first part was submitted.
    pub created_at: Timestamp,
    /// When its record is deleted: no sooner than its last part's.
    pub expires_at: Timestamp,
    /// Those of its parts whose retention has not ended, oldest first.
    pub parts: Vec<Batch>,
}

impl Group {
    /// How many parts a group may have. A look at a group counts the jobs of all of them, 250,000 at the most, within the
    /// 29 seconds that API Gateway waits.
    pub const MAX_PARTS: usize = 250;
}

/// What a caller means by a batch's name: one batch, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// One batch.
    Batch(Batch),
    /// All batches of a group.
    Group(Group),
}

impl Whole {
    /// The name.
    pub fn id(&self) -> BatchId {
        match self {
            Self::Batch(batch) => batch.id,
            Self::Group(group) => group.id,
        }
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Batch(batch) => &batch.owner,
            Self::Group(group) => &group.owner,
        }
    }

    /// When its record is deleted.
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Self::Batch(batch) => batch.expires_at,
            Self::Group(group) => group.expires_at,
        }
    }

    /// Its batches, oldest first.
    pub fn parts(&self) -> &[Batch] {
        match self {
            Self::Batch(batch) => std::slice::from_ref(batch),
            Self::Group(group) => &group.parts,
        }
    }

    /// How many jobs it has in all.
    pub fn total(&self) -> usize {
        self.parts().iter().map(|part| part.total).sum()
    }
}

/// The work on a group's parts, one after the other, as far as the time of a request reaches.
#[derive(Debug)]
pub struct Steps {
    /// The part with which to begin; `None` is the first.
    first: Option<BatchId>,
    begun: Option<Instant>,
    time: Duration,
    next: Option<BatchId>,
}

impl Steps {
    /// How long after its first part one request goes on to further ones. A part takes some seconds, and API Gateway
    /// waits 29.
    pub const TIME: Duration = Duration::from_secs(12);

    /// How long after it began with its first part one request stays with a part, when the table is slow.
    pub const LIMIT: Duration = Duration::from_secs(18);

    /// The steps that begin where `cursor` says, or else with the first part.
    ///
    /// # Errors
    /// When the cursor is none.
    pub fn from(cursor: Option<&String>) -> Result<Self, Problem> {
        let first = cursor.map(|cursor| cursor.parse()).transpose().map_err(|_| Problem::InvalidCursor)?;
        Ok(Self { first, begun: None, time: Self::TIME, next: None })
    }

    /// Makes sure that the cursor names a part of this batch.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, batch: &Whole) -> Result<(), Problem> {
        let known = |id| batch.parts().iter().any(|part| part.id == id);
        if self.first.is_none_or(known) { Ok(()) } else { Err(Problem::InvalidCursor) }
    }

    /// Whether it is the turn of `part`, for which all are asked in their order: not before the first, and not after the
    /// time has passed. One part is always worked off, so that there is progress.
    pub fn is_turn_of(&mut self, part: &Batch) -> bool {
        let now = Instant::now();
        let Some(begun) = self.begun else {
            self.begun = self.first.is_none_or(|first| first == part.id).then_some(now);
            return self.begun.is_some();
        };
        if self.next.is_none() && now >= begun + self.time {
            self.next = Some(part.id);
        }
        self.next.is_none()
    }

    /// When to leave the rest of a part to the next request.
    pub fn limit(&self) -> Instant {
        self.begun.unwrap_or_else(Instant::now) + Self::LIMIT
    }

    /// Has the next request begin with `part`, whose work the limit has cut short.
    pub fn leave(&mut self, part: &Batch) {
        self.next = Some(part.id);
    }

    /// What the next request begins with; `None` when all is done.
    pub fn next_cursor(&self) -> Option<String> {
        self.next.map(|id| id.to_string())
    }
}

/// How many jobs of a batch stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Those that wait for a worker.
    pub queued: usize,
    /// Those that a worker took up.
    pub running: usize,
    /// Those that have their picture.
    pub succeeded: usize,
    /// Those that have none and will have none.
    pub failed: usize,
    /// Those that nobody wants any more.
    pub canceled: usize,
}

spelled! {
    /// Where a batch stands.
    BatchStatus, "a status of a batch",
    /// Jobs are unfinished.
    InProgress = "in_progress",
    /// Every job has succeeded.
    Completed = "completed",
    /// Every job has ended, and some have failed.
    CompletedWithErrors = "completed_with_errors",
    /// Every job has ended; none has failed, but some were canceled.
    Canceled = "canceled",
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

    /// Where the batch stands.
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
        let found = pointers(json!({ "jobs": [{ "prompt": "" }], "defaults": { "seed": 0 }, "name": "" }));
        assert_eq!(found, ["/name", "/defaults/seed", "/jobs/0/prompt"]);
        assert_eq!(pointers(json!({ "jobs": vec![json!({}); 1000] })).len(), MAX_FAULTS);
    }

    #[test]
    fn a_group_is_worked_off_in_steps() {
        let part = |seconds: i64| Batch {
            id: BatchId::new(),
            owner: Owner::new("somebody"),
            name: None,
            group: None,
            total: 1,
            created_at: Timestamp::from_ms(seconds),
            deadline_at: Timestamp::from_ms(seconds),
            expires_at: Timestamp::from_ms(seconds),
            fingerprint: String::new(),
            writing: None,
            canceled_at: None,
        };
        let parts = [part(1), part(2), part(3)];
        let turns = |mut steps: Steps| {
            let turns = parts.each_ref().map(|part| steps.is_turn_of(part));
            (turns, steps.next_cursor())
        };
        let steps = |cursor: Option<&String>| Steps::from(cursor).expect("a good cursor");
        assert_eq!(turns(steps(None)), ([true, true, true], None));
        let out_of_time = |steps: Steps| Steps { time: Duration::ZERO, ..steps };
        let (first, next) = turns(out_of_time(steps(None)));
        assert_eq!((first, &next), ([true, false, false], &Some(parts[1].id.to_string())));
        let (second, next) = turns(out_of_time(steps(next.as_ref())));
        assert_eq!((second, &next), ([false, true, false], &Some(parts[2].id.to_string())));
        assert_eq!(turns(out_of_time(steps(next.as_ref()))), ([false, false, true], None));
        let mut cut_short = steps(None);
        assert!(cut_short.is_turn_of(&parts[0]));
        cut_short.leave(&parts[0]);
        assert_eq!(turns(cut_short), ([false, false, false], Some(parts[0].id.to_string())));
        assert!(Steps::from(Some(&"x".to_owned())).is_err());
        let stranger = BatchId::new().to_string();
        assert!(steps(Some(&stranger)).check(&Whole::Batch(part(1))).is_err());
    }

    #[test]
    fn a_job_that_is_not_there_waits_until_its_deadline_and_then_has_failed_or_expired() {
        use Status::{Canceled, Failed, Queued};
        let batch = |writing: bool, canceled: bool| Batch {
            id: BatchId::new(),
            owner: Owner::new("somebody"),
            name: None,
            group: None,
            total: 3,
            created_at: Timestamp::from_ms(0),
            deadline_at: Timestamp::from_ms(10),
            expires_at: Timestamp::from_ms(1_000),
            fingerprint: String::new(),
            writing: writing.then(|| Lease::new(Timestamp::from_ms(5))),
            canceled_at: canceled.then_some(Timestamp::from_ms(1)),
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
