use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};
use uuid::Uuid;

use super::SERVICE;
use crate::aws::{Result, ServiceError};
use crate::batch::{Action, Batch, Checked, Input, InputFile, OnBadLine, Pass, Progress, Source, Stage};
use crate::batch_file::{Format, Position};
use crate::caller::Owner;
use crate::id::{BatchId, JobId};
use crate::image::Image;
use crate::job::{Job, JobError, JobState, LastError, Lease, Membership, RetryKeys, Status};
use crate::label::{BatchName, CustomId};
use crate::order::{DeadlineHours, Model, Order};
use crate::time::Timestamp;
use crate::webhook::Webhook;

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn job_key(id: JobId) -> String {
    format!("JOB#{id}")
}

pub(super) fn job_id(key: &str) -> Option<JobId> {
    key.strip_prefix("JOB#")?.parse().ok()
}

pub(super) fn batch_key(id: BatchId) -> String {
    format!("BATCH#{id}")
}

/// The key of a part of a batch in the index. The first part has no number, as most batches have no other.
pub(super) fn part_key(batch: BatchId, part: usize) -> String {
    if part == 0 { batch.to_string() } else { format!("{batch}#{part}") }
}

pub(super) fn batches_of(owner: &Owner) -> String {
    format!("batches of {}", owner.as_str())
}

fn part_of_job(job: &Job) -> Option<String> {
    job.membership.as_ref().map(|membership| part_key(membership.batch, membership.part))
}

fn is_new(job: &Job) -> bool {
    job.fence == 0
}

fn part_of(key: &str) -> Option<(BatchId, usize)> {
    match key.split_once('#') {
        None => Some((key.parse().ok()?, 0)),
        Some((batch, part)) => Some((batch.parse().ok()?, part.parse().ok()?)),
    }
}

pub(super) const PART: &str = "part";

/// Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct JobRow {
    pk: String,
    /// The owner of a single job, by which the index of owners lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    /// The owner of a batch's job, which only its batch lists: a large batch would exceed what one key of an index
    /// takes. Older items of such jobs have `owner` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_owner: Option<Owner>,
    /// The key of the job's part of its batch, until the first transition moves it to `batch_id`, by which the index
    /// lists the job. So the creation of a job does not write to the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom_id: Option<CustomId>,
    created_at: i64,
    order: Order,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_for: Option<i64>,
    #[serde(flatten)]
    state: StateRow,
}

/// What a transition may change. All attributes are written each time, so that none is left from an earlier state.
#[derive(Serialize, Deserialize)]
pub(super) struct StateRow {
    /// The key of the job's part of its batch. Older items have it from their creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_id: Option<String>,
    fence: u64,
    status: Status,
    attempts: u32,
    throttles: u32,
    #[serde(default)]
    setbacks: u32,
    queued_at: i64,
    deadline_at: i64,
    /// In seconds, for DynamoDB's TTL.
    expires_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    held_until: Option<i64>,
    lease: Option<LeaseRow>,
    image: Option<Image>,
    error: Option<JobError>,
    last_error: Option<LastError>,
    former_until: Option<i64>,
    #[serde(default)]
    retry_keys: RetryKeys,
    /// The digest of the only key in older items; no longer written.
    retry_key: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct LeaseRow {
    id: String,
    until: i64,
}

impl From<Lease> for LeaseRow {
    fn from(Lease { id, until }: Lease) -> Self {
        Self { id: id.to_string(), until: until.ms() }
    }
}

impl LeaseRow {
    fn lease(&self) -> Option<Lease> {
        Some(Lease { id: Uuid::try_parse(&self.id).ok()?, until: Timestamp::from_ms(self.until) })
    }
}

impl From<&Job> for StateRow {
    fn from(job: &Job) -> Self {
        let (mut lease, mut image, mut error) = (None, None, None);
        match &job.state {
            JobState::Queued | JobState::Canceled { .. } => {}
            JobState::Running(held) => lease = Some(LeaseRow::from(*held)),
            JobState::Succeeded { image: stored, .. } => image = Some(stored.clone()),
            JobState::Failed { error: why, .. } => error = Some(why.clone()),
        }
        Self {
            batch_id: part_of_job(job).filter(|_| !is_new(job)),
            fence: job.fence,
            status: job.status(),
            attempts: job.attempts,
            throttles: job.throttles,
            setbacks: job.setbacks,
            queued_at: job.queued_at.ms(),
            deadline_at: job.deadline_at.ms(),
            expires_at: job.expires_at.secs_ceil(),
            started_at: job.started_at.map(Timestamp::ms),
            finished_at: job.finished_at().map(Timestamp::ms),
            held_until: job.held_until.map(Timestamp::ms),
            lease,
            image,
            error,
            last_error: job.last_error.clone(),
            former_until: job.former_until.map(Timestamp::ms),
            retry_keys: job.retry_keys.clone(),
            retry_key: None,
        }
    }
}

impl StateRow {
    fn state(&self) -> Option<JobState> {
        let finished_at = self.finished_at.map(Timestamp::from_ms);
        Some(match self.status {
            Status::Queued => JobState::Queued,
            Status::Running => JobState::Running(self.lease.as_ref()?.lease()?),
            Status::Succeeded => JobState::Succeeded { finished_at: finished_at?, image: self.image.clone()? },
            Status::Failed => JobState::Failed { finished_at: finished_at?, error: self.error.clone()? },
            Status::Canceled => JobState::Canceled { finished_at: finished_at? },
        })
    }
}

pub(super) fn item_of(job: &Job) -> Item {
    let row = JobRow {
        pk: job_key(job.id),
        owner: job.membership.is_none().then(|| job.owner.clone()),
        batch_owner: job.membership.is_some().then(|| job.owner.clone()),
        part: part_of_job(job).filter(|_| is_new(job)),
        custom_id: job.membership.as_ref().and_then(|membership| membership.custom_id.clone()),
        created_at: job.created_at.ms(),
        order: job.order.clone(),
        told_for: job.told_for.map(Timestamp::ms),
        state: StateRow::from(job),
    };
    to_item(row).expect("a job's row is always an item")
}

pub(super) fn job_of(item: Item) -> Result<Job> {
    let corrupt = || ServiceError::corrupt(SERVICE);
    let row: JobRow = from_item(item).map_err(|_| corrupt())?;
    let part =
        row.state.batch_id.as_ref().or(row.part.as_ref()).map(|key| part_of(key).ok_or_else(corrupt)).transpose()?;
    Ok(Job {
        id: job_id(&row.pk).ok_or_else(corrupt)?,
        owner: row.owner.or(row.batch_owner).ok_or_else(corrupt)?,
        membership: part.map(|(batch, part)| Membership { batch, part, custom_id: row.custom_id }),
        created_at: Timestamp::from_ms(row.created_at),
        expires_at: Timestamp::from_ms(row.state.expires_at * 1000),
        order: row.order,
        fence: row.state.fence,
        attempts: row.state.attempts,
        throttles: row.state.throttles,
        setbacks: row.state.setbacks,
        queued_at: Timestamp::from_ms(row.state.queued_at),
        deadline_at: Timestamp::from_ms(row.state.deadline_at),
        started_at: row.state.started_at.map(Timestamp::from_ms),
        held_until: row.state.held_until.map(Timestamp::from_ms),
        state: row.state.state().ok_or_else(corrupt)?,
        told_for: row.told_for.map(Timestamp::from_ms),
        last_error: row.state.last_error,
        former_until: row.state.former_until.map(Timestamp::from_ms),
        retry_keys: match row.state.retry_key {
            Some(digest) => row.state.retry_keys.with_digest(&digest),
            None => row.state.retry_keys,
        },
    })
}

pub(super) fn state_of(job: &Job) -> Item {
    to_item(StateRow::from(job)).expect("a state's row is always an item")
}

/// Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct BatchRow {
    pk: String,
    /// The key by which the index of owners lists batches, apart from single jobs. Older items have none.
    owner: Option<String>,
    batch_owner: Owner,
    name: Option<BatchName>,
    total: usize,
    created_at: i64,
    deadline_at: Option<i64>,
    expires_at: i64,
    fingerprint: String,
    canceled_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retried_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_for: Option<i64>,
    /// The end of the writer's lease in items without [`LIFE`]; no longer written.
    #[serde(default, skip_serializing)]
    writing_until: Option<i64>,
}

/// The attribute with the [`LifeRow`], named for the batches from files, which had it first.
pub(super) const LIFE: &str = "file";

/// How far a batch has got, in one attribute. A newer version may add to it.
#[derive(Serialize, Deserialize)]
struct LifeRow {
    fence: u64,
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<LeaseRow>,
    deadline_hours: Option<DeadlineHours>,
    #[serde(default = "jobs_per_part")]
    jobs_per_part: usize,
    base_url: String,
    started_at: Option<i64>,
    admitted_jobs: usize,
    #[serde(flatten)]
    progress: Progress,
    cancel_from: Option<usize>,
    /// The index of the next job to retry, and the number of the request.
    retry_from: Option<(usize, u64)>,
    retry_keys: RetryKeys,
    results: Option<String>,
}

/// For records that have no deadline: the longest that a job can have.
const LONGEST_DEADLINE: Duration = Duration::from_hours(DeadlineHours::MAX as u64);

/// The size of a part when the records did not say it.
fn jobs_per_part() -> usize {
    1000
}

/// What [`LIFE`] also has if the jobs come from a file.
#[derive(Serialize, Deserialize)]
struct InputRow {
    format: Format,
    on_bad_line: OnBadLine,
    /// JSON, so that every number stays as it is.
    defaults: String,
    model: Model,
    etag: Option<String>,
    bytes: Option<u64>,
    #[serde(flatten)]
    checked: Checked,
    position: Position,
}

impl From<&Input> for InputRow {
    fn from(input: &Input) -> Self {
        Self {
            format: input.format,
            on_bad_line: input.on_bad_line,
            defaults: serde_json::to_string(&input.defaults).expect("a JSON object is always JSON"),
            model: input.model,
            etag: input.file.as_ref().map(|file| file.etag.clone()),
            bytes: input.file.as_ref().map(|file| file.bytes),
            checked: input.checked.clone(),
            position: input.position.clone(),
        }
    }
}

impl InputRow {
    fn input(self) -> Option<Input> {
        Some(Input {
            format: self.format,
            on_bad_line: self.on_bad_line,
            defaults: serde_json::from_str(&self.defaults).ok()?,
            model: self.model,
            file: self.etag.zip(self.bytes).map(|(etag, bytes)| InputFile { etag, bytes }),
            checked: self.checked,
            position: self.position,
        })
    }
}

pub(super) fn life_of(batch: &Batch) -> AttributeValue {
    let row = LifeRow {
        fence: batch.fence,
        stage: batch.stage,
        writer: batch.writing().map(LeaseRow::from),
        deadline_hours: batch.deadline_hours,
        jobs_per_part: batch.jobs_per_part,
        base_url: batch.base_url.clone(),
        started_at: batch.started_at.map(Timestamp::ms),
        admitted_jobs: batch.admitted,
        progress: batch.progress.clone(),
        cancel_from: batch.pass.as_ref().filter(|pass| pass.action == Action::Cancel).map(|pass| pass.next),
        retry_from: batch.pass.as_ref().and_then(|pass| match pass.action {
            Action::Cancel => None,
            Action::Retry(number) => Some((pass.next, number)),
        }),
        retry_keys: batch.retry_keys.clone(),
        results: batch.results.map(|id| id.to_string()),
    };
    let mut life: Item = to_item(row).expect("a batch's row is always an item");
    if let Some(input) = batch.input() {
        let input: Item = to_item(InputRow::from(input)).expect("a file's row is always an item");
        life.extend(input);
    }
    AttributeValue::M(life)
}

pub(super) fn batch_item_of(batch: &Batch) -> Item {
    let row = BatchRow {
        pk: batch_key(batch.id),
        owner: Some(batches_of(&batch.owner)),
        batch_owner: batch.owner.clone(),
        name: batch.name.clone(),
        total: batch.total,
        created_at: batch.created_at.ms(),
        deadline_at: Some(batch.deadline_at.ms()),
        expires_at: batch.expires_at.secs_ceil(),
        fingerprint: batch.fingerprint.clone(),
        canceled_at: batch.canceled_at.map(Timestamp::ms),
        retried_at: batch.retried_at.map(Timestamp::ms),
        webhook: batch.webhook.clone(),
        told_for: batch.told_for.map(Timestamp::ms),
        writing_until: None,
    };
    let mut item: Item = to_item(row).expect("a batch's row is always an item");
    item.insert(LIFE.to_owned(), life_of(batch));
    item
}

pub(super) fn batch_of(mut item: Item) -> Result<Batch> {
    let corrupt = || ServiceError::corrupt(SERVICE);
    let life = item.remove(LIFE);
    let row: BatchRow = from_item(item).map_err(|_| corrupt())?;
    let id = row.pk.strip_prefix("BATCH#").and_then(|id| id.parse().ok()).ok_or_else(corrupt)?;
    let created_at = Timestamp::from_ms(row.created_at);
    let writer = Lease { id: Uuid::nil(), until: row.writing_until.map_or(created_at, Timestamp::from_ms) };
    let batch = Batch {
        name: row.name,
        total: row.total,
        started_at: Some(created_at),
        deadline_at: row.deadline_at.map_or(created_at + LONGEST_DEADLINE, Timestamp::from_ms),
        expires_at: Timestamp::from_ms(row.expires_at * 1000),
        fingerprint: row.fingerprint,
        canceled_at: row.canceled_at.map(Timestamp::from_ms),
        retried_at: row.retried_at.map(Timestamp::from_ms),
        webhook: row.webhook,
        told_for: row.told_for.map(Timestamp::from_ms),
        ..Batch::new(id, row.batch_owner, Source::Request { writer }, String::new(), created_at)
    };
    match life {
        Some(AttributeValue::M(life)) => with_life(batch, life).ok_or_else(corrupt),
        Some(_) => Err(corrupt()),
        // Older items of batches in requests have no attribute [`LIFE`].
        None if row.writing_until.is_some() => Ok(batch),
        None => Ok(Batch { fence: 0, ..batch.submitted() }),
    }
}

fn with_life(batch: Batch, life: Item) -> Option<Batch> {
    let input: Option<InputRow> = if life.contains_key("format") { Some(from_item(life.clone()).ok()?) } else { None };
    let row: LifeRow = from_item(life).ok()?;
    let writer = row.writer.as_ref().map(LeaseRow::lease);
    let source = match input {
        Some(input) => Source::File(Box::new(input.input()?)),
        None => writer.map_or(Some(batch.source), |writer| Some(Source::Request { writer: writer? }))?,
    };
    let cancel = row.cancel_from.map(|next| Pass { action: Action::Cancel, next });
    let retry = row.retry_from.map(|(next, number)| Pass { action: Action::Retry(number), next });
    Some(Batch {
        source,
        base_url: row.base_url,
        jobs_per_part: row.jobs_per_part,
        started_at: row.started_at.map(Timestamp::from_ms),
        deadline_hours: row.deadline_hours,
        fence: row.fence,
        stage: row.stage,
        admitted: row.admitted_jobs,
        progress: row.progress,
        pass: cancel.or(retry),
        retry_keys: row.retry_keys,
        results: row.results.map(|id| Uuid::try_parse(&id)).transpose().ok()?,
        ..batch
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchOrder, FIRST_FAULTS, FileBatchOrder, JOBS_PER_PART, MAX_DEFAULTS_BYTES};
    use crate::batch_file::{LineFault, MAX_LINES};
    use crate::image::{Artwork, ImageFacts, SignedUrl};
    use crate::job::{Attempt, ErrorCode, Terms};
    use crate::order::{Metadata, Model, OutputFormat};
    use crate::poster::{Contrast, Lettering, Placement, Style};
    use crate::webhook::WebhookUrl;
    use serde_json::json;
    use std::time::Duration;

    fn states() -> Vec<Job> {
        let poster =
            json!({ "title": "Émile", "tagline": "Go.", "credits": [{ "name": "A" }, { "role": "b", "name": "C" }] });
        let order = json!({
            "prompt": "x", "seed": 7, "metadata": { "a": "b" }, "negative_prompt": "y", "poster": poster
        });
        let order = Order::parse(order, "", Model::Core).expect("a good order");
        let now = Timestamp::from_ms(1_795_000_000_123);
        let day = Duration::from_secs(86_400);
        let queued =
            Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: day, retention: 30 * day });
        let claimed = queued.claim(Lease::new(now + day), 3, now).expect("a fresh job");
        let facts =
            ImageFacts { format: OutputFormat::Png, bytes: 5, width: 1, height: 2, seed: None, lettering: None };
        let url = SignedUrl { url: "https://example.com/?a=b".to_owned(), expires_at: now };
        let image = Image { facts, url: url.clone(), artwork: None, thumbnail: Some(url.clone()) };
        let contrast = Contrast::from(7.02);
        let lettering = Lettering { style: Style::Noir, placement: Placement::Bottom, contrast, legible: Some(true) };
        let poster = Image {
            facts: ImageFacts { lettering: Some(lettering), ..facts },
            url: url.clone(),
            artwork: Some(Artwork { facts, url }),
            thumbnail: None,
        };
        let last = LastError { code: ErrorCode::Throttled, message: "Busy.".to_owned(), at: now };
        vec![
            claimed.clone().release(last, Attempt::NeverBegan),
            claimed.clone().fail(ErrorCode::ContentFiltered, "No.".to_owned(), Attempt::NeverBegan, now),
            Job { state: JobState::Canceled { finished_at: now }, ..queued.clone() },
            claimed.clone().succeed(image, now),
            claimed.clone().succeed(poster, now),
            Job::clone(&claimed),
            Job {
                membership: Some(Membership {
                    batch: BatchId::new(),
                    part: 7,
                    custom_id: Some("line 7".to_owned().try_into().expect("a good id")),
                }),
                former_until: Some(now),
                retry_keys: RetryKeys::default().with_digest("0123456789abcdef"),
                ..queued.clone()
            },
            queued,
        ]
    }

    #[test]
    fn every_state_reads_back_as_it_was_written() {
        for job in states() {
            assert_eq!(job_of(item_of(&job)).expect("it reads back"), job);
        }
    }

    #[test]
    fn the_index_lists_a_job_of_a_batch_from_its_first_transition() {
        let now = Timestamp::from_ms(1_795_000_000_123);
        let new = states().into_iter().find(|job| job.membership.is_some()).expect("one is of a batch");
        let canceled = new.cancel(now).expect("it waits");
        let [before, after] = [item_of(&new), item_of(&canceled)];
        let key = AttributeValue::S(part_of_job(&new).expect("it is of a batch"));
        assert_eq!((before.get(PART), before.get("batch_id")), (Some(&key), None));
        assert_eq!((after.get(PART), after.get("batch_id")), (None, Some(&key)));
        assert_eq!(state_of(&canceled).get("batch_id"), Some(&key));
        let mut older = before.clone();
        older.insert("batch_id".to_owned(), older[PART].clone());
        older.remove(PART);
        assert_eq!(
            job_of(older).expect("it is read"),
            new,
            "older records have the key of the index from the beginning"
        );
    }

    #[test]
    fn attributes_that_are_not_ours_are_passed_over_and_missing_ones_are_noticed() {
        for job in states() {
            let mut item = item_of(&job);
            item.insert("priority".to_owned(), AttributeValue::N("5".to_owned()));
            assert!(job_of(item.clone()).is_ok());
            item.remove("fence");
            assert!(job_of(item).is_err());
        }
    }

    #[test]
    fn records_from_before_there_were_posters_are_read() {
        for job in states() {
            let order = Order { poster: None, ..job.order.clone() };
            let mut item = item_of(&Job { order, ..job });
            let inner = |item: &mut Item, name: &str| match item.get_mut(name) {
                Some(AttributeValue::M(map)) => std::mem::take(map),
                _ => Item::new(),
            };
            assert!(!inner(&mut item.clone(), "order").contains_key("poster"), "it is not written either");
            let mut image = inner(&mut item, "image");
            if !image.is_empty() {
                let mut facts = inner(&mut image, "facts");
                facts.remove("lettering");
                image.insert("facts".to_owned(), AttributeValue::M(facts));
                image.remove("artwork");
                image.remove("thumbnail");
                item.insert("image".to_owned(), AttributeValue::M(image));
            }
            assert!(job_of(item).is_ok_and(|job| job.order.poster.is_none()));
        }
    }

    #[test]
    fn records_from_before_setbacks_were_counted_are_read() {
        for job in states() {
            let mut item = item_of(&job);
            item.remove("setbacks");
            assert!(job_of(item).is_ok_and(|job| job.setbacks == 0));
        }
    }

    #[test]
    fn a_batch_in_a_request_reads_back_as_it_was_written() {
        let now = Timestamp::from_ms(1_795_000_000_123);
        let order =
            json!({ "name": "Friday", "jobs": [{ "prompt": "x" }], "webhook": { "url": "https://example.com/a" } });
        let order = BatchOrder::parse(order, Model::Core).expect("a good order");
        let url = "https://example.com/v1".to_owned();
        let new = Batch::from_request(BatchId::new(), Owner::new("alice"), &order, url, now, Lease::new(now));
        let full = Batch { canceled_at: Some(now), told_for: Some(now), expires_at: now.whole_secs(), ..new.clone() };
        let new = Batch { expires_at: now.whole_secs(), ..new };
        for batch in [new, full] {
            assert_eq!(batch_of(batch_item_of(&batch)).expect("it reads back"), batch);
            let stored = batch_of(batch_item_of(&batch.submitted())).expect("it reads back");
            assert_eq!((stored.stage, stored.admitted, stored.writing()), (Stage::InProgress, 1, None));
        }
    }

    #[test]
    fn records_from_before_batches_in_requests_had_a_life_are_read() {
        let now = Timestamp::from_ms(1_795_000_000_123);
        let order = BatchOrder::parse(json!({ "jobs": [{ "prompt": "x" }] }), Model::Core).expect("a good order");
        let batch =
            Batch::from_request(BatchId::new(), Owner::new("alice"), &order, String::new(), now, Lease::new(now));
        let mut item = batch_item_of(&batch);
        item.remove(LIFE);
        item.insert("writing_until".to_owned(), AttributeValue::Null(true));
        item.insert("writer".to_owned(), AttributeValue::Null(true));
        let written = batch_of(item.clone()).expect("it is read");
        assert_eq!((written.stage, written.admitted, written.fence), (Stage::InProgress, 1, 0));
        assert_eq!((written.progress.open_parts, written.started_at), (vec![0], Some(now)));
        item.insert("writing_until".to_owned(), AttributeValue::N("5".to_owned()));
        item.insert("writer".to_owned(), AttributeValue::S(Uuid::new_v4().to_string()));
        let unwritten = batch_of(item).expect("it is read");
        assert_eq!(unwritten.writing().map(|lease| lease.until), Some(Timestamp::from_ms(5)));
    }

    fn webhook() -> Webhook {
        let events = json!(["job.failed", "batch.ended"]);
        Webhook::of_batch(json!({ "url": "https://example.com/a", "events": events }), "").expect("a good webhook")
    }

    fn file_batch(now: Timestamp) -> Batch {
        let order = json!({
            "input": { "format": "csv" },
            "on_bad_line": "skip",
            "defaults": { "seed": 7, "poster": { "title": "x" } },
            "deadline_hours": 5,
        });
        let order = FileBatchOrder::parse(order, Model::Ultra).expect("a good order");
        let url = "https://example.com/v1".to_owned();
        let batch = Batch::from_file(BatchId::new(), Owner::new("alice"), order, url, now);
        Batch { webhook: Some(webhook()), expires_at: now.whole_secs(), ..batch }
    }

    fn input(batch: &Batch) -> Input {
        batch.input().expect("it is from a file").clone()
    }

    #[test]
    fn a_batch_from_a_file_reads_back_as_it_was_written() {
        let now = Timestamp::from_ms(1_795_000_000_123);
        let new = file_batch(now);
        let fault = LineFault { line: 2, pointer: "/prompt".to_owned(), detail: "is required".to_owned() };
        let position = Position { offset: 5, lines: 3, header: Some(vec!["prompt".to_owned()]) };
        let checked = Checked { lines: 4, jobs: 3, faults: 1, first_faults: vec![fault], is_of_file: false };
        let file = Some(InputFile { etag: "\"a\"".to_owned(), bytes: 5 });
        let full = Batch {
            fence: 7,
            stage: Stage::InProgress,
            total: 3,
            retried_at: Some(now),
            told_for: Some(now),
            started_at: Some(now),
            source: Source::File(Box::new(Input { file, checked, position, ..input(&new) })),
            admitted: 2,
            progress: Progress { open_parts: vec![0, 5], ..Progress::default() },
            pass: Some(Pass { action: Action::Retry(6), next: 1000 }),
            retry_keys: RetryKeys::default().with_digest("0123456789abcdef"),
            results: Some(Uuid::new_v4()),
            ..new.clone()
        };
        let canceling = Batch { pass: Some(Pass { action: Action::Cancel, next: 5 }), ..full.clone() };
        for batch in [new, full, canceling] {
            assert_eq!(batch_of(batch_item_of(&batch)).expect("it reads back"), batch);
        }
        let mut item = batch_item_of(&file_batch(now));
        if let Some(AttributeValue::M(life)) = item.get_mut(LIFE) {
            life.remove("defaults");
        }
        assert!(batch_of(item).is_err(), "a file that cannot be read is no request");
    }

    /// The size of a value as DynamoDB counts it, or a little more, see
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
    fn size_of(value: &AttributeValue) -> usize {
        match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(_) => 21,
            AttributeValue::M(map) => {
                3 + map.iter().map(|(name, value)| 1 + name.len() + size_of(value)).sum::<usize>()
            }
            AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + size_of(value)).sum::<usize>(),
            _ => 1,
        }
    }

    #[test]
    fn the_largest_record_of_a_batch_from_a_file_fits_into_an_item() {
        let wide = |chars: usize| "\u{1f3ac}".repeat(chars);
        let fault = LineFault { line: MAX_LINES, pointer: wide(300), detail: wide(600) };
        let column = format!("metadata.{}", wide(Metadata::MAX_KEY_CHARS));
        let mut batch = file_batch(Timestamp::from_ms(0));
        let url = format!("https://example.com/{}", "x".repeat(WebhookUrl::MAX_CHARS - 20));
        batch.webhook = Some(Webhook { url: WebhookUrl::parse(&url).expect("a good URL"), ..webhook() });
        let mut input = input(&batch);
        input.checked.first_faults = vec![fault; FIRST_FAULTS];
        input.position.header = Some(vec![column; 100]);
        input.defaults.insert("x".to_owned(), "x".repeat(MAX_DEFAULTS_BYTES).into());
        batch.source = Source::File(Box::new(input));
        batch.progress.open_parts = (0..MAX_LINES as usize / JOBS_PER_PART).collect();
        batch.base_url = wide(1000);
        let size = size_of(&AttributeValue::M(batch_item_of(&batch)));
        assert!(size < 400_000 * 3 / 4, "{size}");
    }

    #[test]
    fn the_first_part_of_a_batch_has_its_id_as_key() {
        let id: BatchId = "01930000-0000-7000-8000-000000000001".parse().expect("an id");
        for (part, key) in [(0, id.to_string()), (7, format!("{id}#7"))] {
            assert_eq!((part_key(id, part), part_of(&key)), (key.clone(), Some((id, part))));
        }
        for key in ["", "x#1", "#1", "01930000-0000-7000-8000-000000000001#x"] {
            assert_eq!(part_of(key), None, "{key}");
        }
    }
}
