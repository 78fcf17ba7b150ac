//! Ends the jobs whose tickets gave up.

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent};
use shared::aws::cleaning_up::clean_up;
use shared::aws::deliveries::{Delivery, Verdict, work_off};
use shared::aws::giving_up::give_up;
use shared::aws::{Aws, Images, Queue, ServiceError, Table};
use shared::job::ErrorCode;
use shared::settings::{Settings, SettingsError};
use shared::{Clock, JobState};

/// How many tickets are looked at side by side.
const IN_FLIGHT: usize = 10;

/// What the function works with, made once at its start.
#[derive(Clone, Debug)]
pub struct App {
    table: Table,
    images: Images,
    queue: Queue,
    parked: Queue,
    clock: Clock,
    /// How long a presigned URL works.
    url_life: Duration,
}

impl App {
    /// The function as Lambda starts it.
    ///
    /// # Errors
    /// When settings are missing or bad.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Aws::from_env()?, Clock::system(), &|name| std::env::var(name).ok())?)
    }

    /// The function with these connections, this clock, and the settings that `lookup` finds.
    ///
    /// # Errors
    /// When settings are missing or bad.
    pub fn new(aws: &Aws, clock: Clock, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut settings = Settings::new(lookup);
        let table = settings.text("TABLE_NAME");
        let bucket = settings.text("IMAGE_BUCKET");
        let queue = settings.text("DEAD_LETTER_QUEUE_URL");
        let parked = settings.text("PARKED_QUEUE_URL");
        let url_life = settings.number("URL_LIFE_SECONDS", 60..=21_600);
        let metrics = aws.metrics(&mut settings);
        settings.finish(|| Self {
            table: aws.table(table).telling(metrics),
            images: aws.images(bucket),
            queue: aws.queue(queue),
            parked: aws.queue(parked),
            clock,
            url_life: Duration::from_secs(u64::from(url_life)),
        })
    }

    /// Ends the ticket's job, unless somebody still works on it.
    async fn end(&self, delivery: Delivery) -> Result<Verdict, ServiceError> {
        let id = delivery.ticket.job;
        let now = self.clock.now();
        let Some(job) = self.table.get(id).await? else {
            tracing::warn!(job.id = %id, "a dead letter's job has no record");
            return Ok(Verdict::Done);
        };
        if job.finished_at().is_none() && delivery.ticket.predates_retry(&job) {
            tracing::warn!(job.id = %id, "a dead letter was dropped because its job has been retried since");
            return Ok(Verdict::Done);
        }
        let code = if job.is_overdue(now) { ErrorCode::DeadlineExceeded } else { ErrorCode::AttemptsExhausted };
        let job = give_up(&self.table, &self.images, job, code, self.url_life, now).await?;
        match job {
            None => Ok(Verdict::Done),
            Some(job) => match job.state {
                // The worker may yet succeed; failing the job now would take its picture away.
                JobState::Running(lease) => Ok(Verdict::Again(lease.until.since(now))),
                JobState::Queued => Ok(Verdict::Again(Duration::ZERO)),
                _ => clean_up(&self.images, &job, now).await,
            },
        }
    }
}

/// Works off one delivery of the dead-letter queue.
///
/// # Errors
/// None: a ticket that cannot be worked off is named in the answer and comes back.
pub async fn handle(app: &App, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    Ok(work_off(event.payload, &app.queue, &app.parked, IN_FLIGHT, |delivery| app.end(delivery)).await)
}
