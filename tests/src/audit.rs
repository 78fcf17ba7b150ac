//! A check of every accepted job after all jobs have ended.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use shared::aws::List;
use shared::image::Variant;
use shared::job::{ErrorCode, Status};
use shared::{BatchId, Job, JobId, JobState};

use crate::pipeline::Pipeline;

/// How many jobs one page of a list holds, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
const JOBS_PER_PAGE: usize = 100;

/// How many violations a report lists.
const SHOWN: usize = 20;

/// A batch that was answered with 202.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The batch.
    pub batch: BatchId,
    /// Its jobs, in the order of the request.
    pub jobs: Vec<JobId>,
}

/// The outcome of the jobs, and violations of the promise.
#[derive(Debug, Default)]
pub struct Audit {
    /// Every job that has a record.
    pub jobs: Vec<Job>,
    /// How many jobs have their picture.
    pub succeeded: usize,
    /// How many failed, by error code.
    pub failed: BTreeMap<&'static str, usize>,
    /// How many paintings have begun, according to the records.
    pub attempts: u64,
    /// How many times the model was too busy to begin, according to the records.
    pub throttles: u64,
    /// How many jobs have no record, have not ended, or have succeeded without a picture.
    pub lost: usize,
    /// Everything that breaks the promise.
    pub violations: Vec<String>,
}

/// Checks every accepted job's record and every picture in the bucket.
///
/// # Panics
/// When the table or the bucket does not answer.
pub async fn audit(pipeline: &Pipeline, accepted: &[Accepted]) -> Audit {
    let mut audit = Audit::default();
    let mut pictures = pictures(pipeline).await;
    for batch in accepted {
        let mut records = records(pipeline, batch.batch).await;
        for id in &batch.jobs {
            let Some(job) = records.remove(id) else {
                audit.lost += 1;
                audit.violations.push(format!("job {id} was accepted and has no record"));
                continue;
            };
            let [image, thumbnail] =
                [Variant::Image, Variant::Thumbnail].map(|variant| pictures.remove(&job.image_key(variant)));
            audit.look_at(&job, image, thumbnail);
            audit.jobs.push(job);
        }
        for id in records.keys() {
            audit.violations.push(format!("job {id} has a record and was never accepted"));
        }
    }
    for key in pictures.keys() {
        audit.violations.push(format!("{key} is in the bucket and belongs to no job that succeeded"));
    }
    let ready = pipeline.ready();
    for url in [&ready.queue_url, &ready.dead_letter_queue_url, &ready.parked_queue_url, &ready.batch_queue_url] {
        let left = pipeline.messages(url).await;
        if left > 0 {
            audit.violations.push(format!("{left} messages are left in {url}"));
        }
    }
    audit
}

impl Audit {
    fn look_at(&mut self, job: &Job, picture: Option<i64>, thumbnail: Option<i64>) {
        self.attempts += u64::from(job.attempts);
        self.throttles += u64::from(job.throttles);
        let mut broken = |what: String| self.violations.push(format!("job {}: {what}", job.id));
        match (&job.state, picture) {
            (JobState::Succeeded { image, .. }, Some(bytes)) if u64::try_from(bytes) == Ok(image.facts.bytes) => {
                self.succeeded += 1;
            }
            (JobState::Succeeded { .. }, Some(bytes)) => broken(format!("its picture has {bytes} bytes")),
            (JobState::Succeeded { .. }, None) => {
                self.lost += 1;
                broken("it succeeded and has no picture".to_owned());
            }
            (JobState::Failed { error, .. }, picture) => {
                *self.failed.entry(error.code.as_str()).or_default() += 1;
                if picture.is_some() {
                    broken("it failed and has a picture".to_owned());
                }
            }
            (JobState::Canceled { .. }, _) => broken("nobody canceled it".to_owned()),
            (JobState::Queued | JobState::Running(_), _) => {
                self.lost += 1;
                broken(format!("it has not ended: {:?}", job.state));
            }
        }
        let recorded = matches!(&job.state, JobState::Succeeded { image, .. } if image.thumbnail.is_some());
        if thumbnail.is_some() != recorded {
            broken(format!("its record tells of a thumbnail: {recorded}; there is one: {}", thumbnail.is_some()));
        }
        // Each claim raises the fence by one, and so does the transition that ends the claim, if there is one. A second
        // end would raise it further.
        let claims = u64::from(job.attempts) + u64::from(job.setbacks);
        if job.finished_at().is_some() && job.fence > 2 * claims {
            broken(format!("its record was moved on {} times in {claims} claims", job.fence));
        }
    }

    /// Whether the promise was kept.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.violations.is_empty()
    }

    /// Adds a violation unless the two numbers are the same.
    pub(crate) fn same(&mut self, what: &str, one: usize, other: usize) {
        if one != other {
            self.violations.push(format!("{what}: {one} is not {other}"));
        }
    }

    /// How many jobs failed for this reason.
    pub fn failed_as(&self, code: ErrorCode) -> usize {
        self.failed.get(code.as_str()).copied().unwrap_or_default()
    }

    /// How many records have this status.
    pub fn standing(&self, status: Status) -> usize {
        self.jobs.iter().filter(|job| job.status() == status).count()
    }
}

/// The last lines of a report: what was lost, and the first violations.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost           {}\nviolations     {}", self.lost, self.violations.len())?;
        self.violations.iter().take(SHOWN).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// The records of a batch's jobs.
async fn records(pipeline: &Pipeline, batch: BatchId) -> HashMap<JobId, Job> {
    let table = pipeline.stack.aws().table(pipeline.ready().table.clone());
    let mut records = HashMap::new();
    let batch = table.get_batch(batch).await.expect("the table answers").expect("the batch");
    let mut place = None;
    loop {
        let page = table.list(List::OfBatch(&batch), |_| true, JOBS_PER_PAGE, place).await.expect("the table answers");
        records.extend(page.jobs.into_iter().map(|job| (job.id, job)));
        place = page.next;
        if place.is_none() {
            return records;
        }
    }
}

/// The sizes of all pictures in the bucket, by their keys.
async fn pictures(pipeline: &Pipeline) -> HashMap<String, i64> {
    let pages = pipeline.s3().list_objects_v2().bucket(&pipeline.ready().bucket).prefix("images/");
    let mut pages = pages.into_paginator().send();
    let mut pictures = HashMap::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("the bucket answers");
        let sizes = page.contents().iter().filter_map(|object| Some((object.key()?.to_owned(), object.size()?)));
        pictures.extend(sizes);
    }
    pictures
}
