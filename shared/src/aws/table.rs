//! The table of jobs in Amazon DynamoDB.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure as OnFailure};
use serde::{Deserialize, Serialize};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};
use uuid::Uuid;

use super::{Kind, ServiceError};
use crate::job::{Image, ImageFacts, Job, JobError, JobId, JobState, LastError, Lease, Owner, SignedUrl, Status};
use crate::order::Order;
use crate::time::Timestamp;

const SERVICE: &str = "DynamoDB";

type Item = HashMap<String, AttributeValue>;

/// The table of jobs.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
}

/// What came of recording a new job.
#[derive(Debug)]
pub enum Created {
    /// It was recorded.
    New,
    /// There is a job of this name already.
    Existing(Box<Job>),
}

/// What came of storing a job's next state.
#[derive(Debug)]
pub enum Saved {
    /// It was stored, now or by a call before whose answer was lost.
    Stored,
    /// Somebody else moved the job on; this is where it stands.
    MovedOn(Box<Job>),
    /// The record was deleted.
    Gone,
}

impl Table {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Records a new job, unless there is one of this name whose retention has not ended.
    ///
    /// # Errors
    /// When the table does not answer as it should. The job may then have been recorded all the same.
    pub async fn create(&self, job: &Job) -> Result<Created, ServiceError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item_of(job)))
            // DynamoDB may take days to delete what has expired.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", AttributeValue::N(job.created_at.secs().to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(_) => Ok(Created::New),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    // The record may vanish between the check and a read, so without it there is nothing to say.
                    let existing = failed.item().ok_or_else(|| ServiceError::corrupt(SERVICE))?;
                    Ok(Created::Existing(Box::new(job_of(existing.clone())?)))
                }
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }

    /// The job of this name.
    ///
    /// A read that may be a moment behind costs half as much, so a consistent one follows only when it finds nothing.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, ServiceError> {
        match self.read(id, false).await? {
            Some(job) => Ok(Some(job)),
            None => self.read(id, true).await,
        }
    }

    /// The job of this name as it stands at this moment, for whoever means to move it on.
    ///
    /// # Errors
    /// When the table does not answer as it should.
    pub async fn get_latest(&self, id: JobId) -> Result<Option<Job>, ServiceError> {
        self.read(id, true).await
    }

    async fn read(&self, id: JobId, consistent: bool) -> Result<Option<Job>, ServiceError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.name)
            .key("pk", key(id))
            .consistent_read(consistent)
            .send()
            .await
            .map_err(|error| ServiceError::new(SERVICE, &error))?;
        output.item.map(job_of).transpose()
    }

    /// Stores a job's next state, where the stored fence is the one before it.
    ///
    /// Attributes that a later version may have added to the record are left as they are, and a record that was
    /// deleted does not come back.
    ///
    /// # Errors
    /// When the table does not answer as it should. The state may then have been stored all the same.
    pub async fn save(&self, job: &Job) -> Result<Saved, ServiceError> {
        let state = to_item(StateRow::from(job)).expect("a state's row is always an item");
        self.update(job, state).await
    }

    async fn update(&self, job: &Job, state: Item) -> Result<Saved, ServiceError> {
        let mut update = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", key(job.id))
            .condition_expression("fence = :before")
            .expression_attribute_values(":before", AttributeValue::N((job.fence - 1).to_string()))
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let mut assignments = Vec::with_capacity(state.len());
        for (name, value) in state {
            assignments.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), &name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        match update.update_expression(format!("SET {}", assignments.join(", "))).send().await {
            Ok(_) => Ok(Saved::Stored),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => match failed.item() {
                    None => Ok(Saved::Gone),
                    Some(item) => {
                        let stored = job_of(item.clone())?;
                        Ok(if stored == *job { Saved::Stored } else { Saved::MovedOn(Box::new(stored)) })
                    }
                },
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }
}

fn key(id: JobId) -> AttributeValue {
    AttributeValue::S(format!("JOB#{id}"))
}

/// A job's record, attribute by attribute. Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct JobRow {
    pk: String,
    owner: Owner,
    created_at: i64,
    /// In seconds, as DynamoDB's TTL wants it.
    expires_at: i64,
    order: Order,
    #[serde(flatten)]
    state: StateRow,
}

/// What a transition may change. Every attribute is always written, so that none is left over from the state before.
#[derive(Serialize, Deserialize)]
struct StateRow {
    fence: u64,
    status: Status,
    attempts: u32,
    throttles: u32,
    deadline_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    lease: Option<LeaseRow>,
    image: Option<ImageRow>,
    error: Option<JobError>,
    last_error: Option<LastError>,
}

#[derive(Serialize, Deserialize)]
struct LeaseRow {
    id: String,
    until: i64,
}

#[derive(Serialize, Deserialize)]
struct ImageRow {
    facts: ImageFacts,
    url: SignedUrl,
}

impl From<&Job> for StateRow {
    fn from(job: &Job) -> Self {
        let (mut lease, mut image, mut error) = (None, None, None);
        match &job.state {
            JobState::Queued | JobState::Canceled { .. } => {}
            JobState::Running(Lease { id, until }) => lease = Some(LeaseRow { id: id.to_string(), until: until.ms() }),
            JobState::Succeeded { image: Image { facts, url }, .. } => {
                image = Some(ImageRow { facts: *facts, url: url.clone() });
            }
            JobState::Failed { error: why, .. } => error = Some(why.clone()),
        }
        Self {
            fence: job.fence,
            status: job.status(),
            attempts: job.attempts,
            throttles: job.throttles,
            deadline_at: job.deadline_at.ms(),
            started_at: job.started_at.map(Timestamp::ms),
            finished_at: job.finished_at().map(Timestamp::ms),
            lease,
            image,
            error,
            last_error: job.last_error.clone(),
        }
    }
}

impl StateRow {
    fn state(&self) -> Option<JobState> {
        let finished_at = self.finished_at.map(Timestamp::from_ms);
        Some(match self.status {
            Status::Queued => JobState::Queued,
            Status::Running => {
                let lease = self.lease.as_ref()?;
                JobState::Running(Lease {
                    id: Uuid::try_parse(&lease.id).ok()?,
                    until: Timestamp::from_ms(lease.until),
                })
            }
            Status::Succeeded => {
                let ImageRow { facts, url } = self.image.as_ref()?;
                JobState::Succeeded { finished_at: finished_at?, image: Image { facts: *facts, url: url.clone() } }
            }
            Status::Failed => JobState::Failed { finished_at: finished_at?, error: self.error.clone()? },
            Status::Canceled => JobState::Canceled { finished_at: finished_at? },
        })
    }
}

fn item_of(job: &Job) -> Item {
    let row = JobRow {
        pk: format!("JOB#{}", job.id),
        owner: job.owner.clone(),
        created_at: job.created_at.ms(),
        expires_at: job.expires_at.secs(),
        order: job.order.clone(),
        state: StateRow::from(job),
    };
    to_item(row).expect("a job's row is always an item")
}

fn job_of(item: Item) -> Result<Job, ServiceError> {
    let corrupt = || ServiceError::corrupt(SERVICE);
    let row: JobRow = from_item(item).map_err(|_| corrupt())?;
    Ok(Job {
        id: row.pk.strip_prefix("JOB#").and_then(|id| id.parse().ok()).ok_or_else(corrupt)?,
        owner: row.owner,
        created_at: Timestamp::from_ms(row.created_at),
        expires_at: Timestamp::from_ms(row.expires_at * 1000),
        order: row.order,
        fence: row.state.fence,
        attempts: row.state.attempts,
        throttles: row.state.throttles,
        deadline_at: Timestamp::from_ms(row.state.deadline_at),
        started_at: row.state.started_at.map(Timestamp::from_ms),
        state: row.state.state().ok_or_else(corrupt)?,
        last_error: row.state.last_error,
    })
}

/// A failing table means that nothing is known, except where the request itself was wrong, which is our fault.
impl From<ServiceError> for crate::Problem {
    fn from(error: ServiceError) -> Self {
        match error.kind {
            Kind::Throttled | Kind::Unavailable | Kind::Denied | Kind::Missing => Self::unavailable(),
            Kind::Rejected => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Attempt, ErrorCode};
    use crate::order::Model;
    use serde_json::json;
    use std::time::Duration;

    fn states() -> Vec<Job> {
        let order = json!({ "prompt": "x", "seed": 7, "metadata": { "a": "b" }, "negative_prompt": "y" });
        let order = Order::parse(order, "", Model::Core).expect("a good order");
        let now = Timestamp::from_ms(1_795_000_000_123);
        let day = Duration::from_secs(86_400);
        let mut queued = Job::new(JobId::new(), Owner::new("alice"), order, now, day, 30 * day);
        // The record holds whole seconds, which is what DynamoDB's TTL reads.
        queued.expires_at = Timestamp::from_ms(queued.expires_at.secs() * 1000);
        let claimed = queued.claim(Lease::new(now + day), 3, now).expect("a fresh job");
        let image = Image {
            facts: ImageFacts { format: crate::order::OutputFormat::Png, bytes: 5, width: 1, height: 2, seed: None },
            url: SignedUrl { url: "https://example.com/?a=b".to_owned(), expires_at: now },
        };
        let last = LastError { code: ErrorCode::Throttled, message: "Busy.".to_owned(), at: now };
        vec![
            claimed.clone().release(last, Attempt::NeverBegan),
            claimed.clone().fail(ErrorCode::ContentFiltered, "No.".to_owned(), Attempt::NeverBegan, now),
            Job { state: JobState::Canceled { finished_at: now }, ..queued.clone() },
            claimed.clone().succeed(image, now),
            Job::clone(&claimed),
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
    fn attributes_that_are_not_ours_are_passed_over_and_missing_ones_are_noticed() {
        for job in states() {
            let mut item = item_of(&job);
            item.insert("priority".to_owned(), AttributeValue::N("5".to_owned()));
            assert!(job_of(item.clone()).is_ok());
            item.remove("fence");
            assert!(job_of(item).is_err());
        }
    }
}
