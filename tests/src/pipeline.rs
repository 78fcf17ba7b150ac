//! A pipeline for one test, and what the test does with it.

use std::time::Duration;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use lambda_runtime::{Context, LambdaEvent};
use local::bedrock::{Behavior, Faults};
use local::{Options, Ready, Stack};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use shared::api::{BatchView, JobView};
use shared::aws::{Saved, Table};
use shared::job::{Claimed, Lease};
use shared::ticket::{Message as _, Ticket};
use shared::{BatchId, Clock, Job, JobId};

/// Few tests look at a picture, so most use plain colors, which take no time to paint.
const PLAIN: Behavior = Behavior { latency: Duration::ZERO, faults: Faults::NONE, plain: true };

/// A running pipeline.
pub struct Pipeline {
    /// The stack.
    pub stack: Stack,
    /// The clock of its functions.
    pub clock: Clock,
    /// An HTTP client.
    pub http: Client,
}

impl Pipeline {
    /// A pipeline with event sources.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A pipeline whose messages the test delivers itself.
    pub async fn without_event_sources() -> Self {
        Self::with(Options { event_sources: false, ..Options::default() }).await
    }

    /// A pipeline whose model paints pictures instead of plain colors.
    pub async fn with_artist() -> Self {
        let pipeline = Self::start().await;
        pipeline.stack.bedrock().behave(Behavior::default());
        pipeline
    }

    /// A pipeline with these options.
    pub async fn with(options: Options) -> Self {
        let clock = options.clock.clone();
        let stack = Stack::start(options).await.expect("the stack starts");
        stack.bedrock().behave(PLAIN);
        Self { stack, clock, http: Client::new() }
    }

    /// The addresses of the services.
    pub fn ready(&self) -> &Ready {
        self.stack.ready()
    }

    /// Posts a body as JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let post = self.http.post(format!("{}{path}", self.ready().api)).json(body);
        post.send().await.expect("the API answers")
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.ready().api)).send().await.expect("the API answers")
    }

    /// Submits a prompt.
    pub async fn submit(&self, prompt: &str) -> JobView {
        let response = self.post("/jobs", &json!({ "prompt": prompt })).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json().await.expect("the answer is a job")
    }

    /// Submits a batch with a new key.
    pub async fn submit_batch(&self, body: &Value) -> BatchView {
        let post = self.http.post(format!("{}/batches", self.ready().api)).json(body);
        let response =
            post.header("Idempotency-Key", BatchId::new().to_string()).send().await.expect("the API answers");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json().await.expect("the answer is a batch")
    }

    /// Waits until `wanted` is true for the batch.
    pub async fn batch_when(&self, id: BatchId, wanted: impl Fn(&BatchView) -> bool) -> BatchView {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let batch: BatchView = self.get(&format!("/batches/{id}")).await.json().await.expect("a batch");
            if wanted(&batch) {
                return batch;
            }
            assert!(tokio::time::Instant::now() < patience, "the batch stays as it is: {batch:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The job.
    pub async fn job(&self, id: JobId) -> JobView {
        let response = self.get(&format!("/jobs/{id}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.expect("the answer is a job")
    }

    /// Waits until the job has ended.
    pub async fn ended(&self, id: JobId) -> JobView {
        self.job_when(id, |job| job.finished_at.is_some()).await
    }

    /// Waits until `wanted` is true for the job.
    pub async fn job_when(&self, id: JobId, wanted: impl Fn(&JobView) -> bool) -> JobView {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            assert!(tokio::time::Instant::now() < patience, "the job stays as it is: {job:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The table of jobs.
    pub fn table(&self) -> Table {
        self.stack.aws().table(self.ready().table.clone())
    }

    /// The job's record, even when its retention has ended.
    pub async fn record(&self, id: JobId) -> Job {
        self.table().get(id).await.expect("the table answers").expect("the job has a record")
    }

    /// Delivers the job's ticket to a worker. Returns whether the ticket is deleted.
    pub async fn work(&self, job: JobId, receives: u32) -> bool {
        let answer = worker::handle(&self.stack.apps().worker, ticket(job, receives)).await;
        answer.expect("the worker answers").batch_item_failures.is_empty()
    }

    /// Claims the job for `lease`, like a worker that then does nothing more.
    pub async fn claim(&self, id: JobId, lease: Duration) -> Claimed {
        let now = self.clock.now();
        let claimed = self.record(id).await.claim(Lease::new(now + lease), 3, now).expect("the job can be claimed");
        assert!(matches!(self.table().save(&claimed).await, Ok(Saved::Stored)), "somebody else moved the job on");
        claimed
    }

    /// Changes how the model behaves.
    pub fn model(&self, faults: &str) {
        let faults = faults.parse().expect("good rates");
        self.stack.bedrock().behave(Behavior { faults, ..PLAIN });
    }

    /// The keys of all files in the bucket: pictures, artwork of posters, and thumbnails.
    pub async fn pictures(&self) -> Vec<String> {
        let s3 = self.s3();
        let listed = s3.list_objects_v2().bucket(&self.ready().bucket).send().await.expect("the bucket answers");
        listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }

    /// How many messages a queue holds, seen and unseen.
    pub async fn messages(&self, url: &str) -> usize {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let kinds = [Visible, Delayed, Hidden];
        let asked = self.sqs().get_queue_attributes().queue_url(url).set_attribute_names(Some(kinds.to_vec()));
        let answer = asked.send().await.expect("the queue answers");
        let count = |name| answer.attributes()?.get(&name)?.parse::<usize>().ok();
        kinds.into_iter().filter_map(count).sum()
    }

    /// A client of the embedded S3.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(self.stack.config()).endpoint_url(&self.ready().s3);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// A client of the embedded SQS.
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::config::Builder::from(self.stack.config()).endpoint_url(&self.ready().sqs);
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    /// A client of the embedded DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(self.stack.config()).endpoint_url(&self.ready().dynamodb);
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Stops the pipeline, after a check that every job has ended.
    pub async fn stop(self) {
        let scanned = self
            .dynamodb()
            .scan()
            .table_name(&self.ready().table)
            .filter_expression(
                "begins_with(pk, :job) AND (attribute_not_exists(finished_at) OR attribute_type(finished_at, :null))",
            )
            .expression_attribute_values(":job", aws_sdk_dynamodb::types::AttributeValue::S("JOB#".to_owned()))
            .expression_attribute_values(":null", aws_sdk_dynamodb::types::AttributeValue::S("NULL".to_owned()))
            .send()
            .await
            .expect("the table answers");
        assert_eq!(scanned.count(), 0, "jobs were left unfinished: {:?}", scanned.items());
        self.stack.stop().await;
    }
}

/// The delivery of these bodies, with this receive count, to a function with a minute and a half of time.
pub fn delivery(bodies: &[&str], receives: u32) -> LambdaEvent<SqsEvent> {
    let mut event = SqsEvent::default();
    for (i, body) in bodies.iter().enumerate() {
        let mut message = SqsMessage::default();
        message.message_id = Some(format!("message-{i}"));
        message.receipt_handle = Some(format!("receipt-{i}"));
        message.body = Some((*body).to_owned());
        message.attributes.insert("ApproximateReceiveCount".to_owned(), receives.to_string());
        event.records.push(message);
    }
    let end = std::time::SystemTime::now() + Duration::from_secs(90);
    let mut context = Context::default();
    context.deadline = end.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
    LambdaEvent::new(event, context)
}

/// The delivery of a job's ticket.
pub fn ticket(job: JobId, receives: u32) -> LambdaEvent<SqsEvent> {
    delivery(&[&Ticket { job, queued_at: None, trace: None }.to_body()], receives)
}
