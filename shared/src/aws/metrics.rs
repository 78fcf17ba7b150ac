//! Metrics of ended jobs and deliveries: one line on standard output for each, in CloudWatch's embedded metric format,
//! which needs no API call. See
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::Aws;
use crate::delivery::{Delivery, DeliveryStatus, Try, TryErrorCode};
use crate::job::{Job, JobState};
use crate::settings::Settings;

/// Where the lines are written.
#[derive(Clone, Default)]
pub struct Output(Option<Arc<Mutex<dyn Write + Send>>>);

impl Output {
    /// Writes to this writer.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Some(Arc::new(Mutex::new(writer))))
    }

    /// Writes to standard output, which Lambda sends to CloudWatch Logs.
    pub fn stdout() -> Self {
        Self::to(io::stdout())
    }

    /// Discards the lines.
    pub fn none() -> Self {
        Self::default()
    }

    /// One call per line, so that lines do not interleave. Errors are ignored, because a lost line must not fail a job.
    fn line(&self, mut line: String) {
        let Some(writer) = &self.0 else { return };
        line.push('\n');
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write_all(line.as_bytes()).and_then(|()| writer.flush()) {
            tracing::warn!(%error, "lost the metrics of a job");
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Output(to a writer)" } else { "Output(nowhere)" })
    }
}

/// In US dollars per picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Price(f64);

impl FromStr for Price {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let price = text.parse().map_err(|_| "it must be a number of US dollars")?;
        if (0.0..=1000.0).contains(&price) { Ok(Self(price)) } else { Err("it must be from 0 to 1000 US dollars") }
    }
}

/// Reports ended jobs.
#[derive(Clone, Debug)]
pub struct Metrics {
    output: Output,
    namespace: String,
    price: Price,
}

impl Metrics {
    /// Reads the settings.
    pub fn read(aws: &Aws, settings: &mut Settings<'_>) -> Self {
        let namespace = settings.text("METRICS_NAMESPACE");
        let price = settings.parse("PRICE_PER_IMAGE").unwrap_or(Price(0.0));
        Self { output: aws.output.clone(), namespace, price }
    }

    pub(super) fn ended(&self, job: &Job) {
        if let Some(document) = self.document(job) {
            self.output.line(document.to_string());
        }
    }

    /// Counts have a dimension for the outcome; measures have none, so that each is a single metric.
    fn document(&self, job: &Job) -> Option<Value> {
        let end = job.finished_at()?;
        let mut measures = Vec::new();
        let mut document = json!({
            "Posters": 1, "Outcome": outcome(job), "Job": job.id.to_string(), "Model": job.order.model.as_str(),
        });
        let mut measure = |name: &str, unit: &str, value: Value| {
            measures.push(json!({ "Name": name, "Unit": unit }));
            document[name] = value;
        };
        if let Some(start) = job.started_at {
            measure("TimeQueued", "Milliseconds", millis(start.since(job.queued_at)));
        }
        if let JobState::Succeeded { image, .. } = &job.state {
            if let Some(start) = job.started_at {
                measure("TimePainting", "Milliseconds", millis(end.since(start)));
            }
            measure("Bytes", "Bytes", image.facts.bytes.into());
        }
        measure("Attempts", "Count", job.attempts.into());
        measure("Throttles", "Count", job.throttles.into());
        // Every counted attempt may have been billed, so this is the job's maximum cost.
        measure("Cost", "None", (f64::from(job.attempts) * self.price.0).into());
        if let JobState::Failed { error, .. } = &job.state {
            document["Code"] = error.code.as_str().into();
        }
        let counts = json!([{ "Name": "Posters", "Unit": "Count" }]);
        document["_aws"] = json!({
            "Timestamp": end.ms(),
            "CloudWatchMetrics": [
                { "Namespace": self.namespace, "Dimensions": [["Outcome"]], "Metrics": counts },
                { "Namespace": self.namespace, "Dimensions": [[]], "Metrics": measures },
            ],
        });
        Some(document)
    }
}

/// Reports ended deliveries.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    output: Output,
    namespace: String,
}

impl DeliveryMetrics {
    /// Reads the settings.
    pub fn read(aws: &Aws, settings: &mut Settings<'_>) -> Self {
        Self { output: aws.output.clone(), namespace: settings.text("METRICS_NAMESPACE") }
    }

    /// Reports a delivery if its last try has ended it.
    pub fn ended(&self, delivery: &Delivery, last: &Try) {
        if let Some(document) = self.document(delivery, last) {
            self.output.line(document.to_string());
        }
    }

    fn document(&self, delivery: &Delivery, last: &Try) -> Option<Value> {
        let is_gone =
            last.is_gone() || last.error.as_ref().is_some_and(|error| error.code == TryErrorCode::EndpointGone);
        let outcome = match delivery.status {
            DeliveryStatus::Pending => return None,
            DeliveryStatus::Delivered => "delivered",
            // The receiver asked for no more events, which is no reason for an alarm.
            DeliveryStatus::Failed if is_gone => "gone",
            DeliveryStatus::Failed => "failed",
        };
        let end = last.end();
        let mut directives = vec![json!({
            "Namespace": self.namespace,
            "Dimensions": [["Outcome"]],
            "Metrics": [{ "Name": "Deliveries", "Unit": "Count" }],
        })];
        let mut document = json!({
            "Deliveries": 1, "Outcome": outcome, "Delivery": delivery.id.to_string(), "Event": delivery.event.as_str(),
        });
        // A replay may follow long after the event.
        if delivery.status == DeliveryStatus::Delivered && delivery.round == 0 {
            let measure = json!({ "Name": "TimeToDeliver", "Unit": "Milliseconds" });
            directives.push(json!({ "Namespace": self.namespace, "Dimensions": [[]], "Metrics": [measure] }));
            document["TimeToDeliver"] = millis(end.since(delivery.created_at));
        }
        document["_aws"] = json!({ "Timestamp": end.ms(), "CloudWatchMetrics": directives });
        Some(document)
    }
}

/// The outcome as alarms see it. A job that failed because of its prompt is `refused`, so that no caller can trigger an
/// alarm or stop a deployment.
fn outcome(job: &Job) -> &'static str {
    match &job.state {
        JobState::Failed { error, .. } if !error.code.may_pass() => "refused",
        _ => job.status().as_str(),
    }
}

fn millis(time: std::time::Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::caller::Owner;
    use crate::delivery::DeliveryMessage;
    use crate::id::JobId;
    use crate::image::{Image, ImageFacts, SignedUrl};
    use crate::job::{Attempt, ErrorCode, LastError, Lease, Terms};
    use crate::order::{Model, Order, OutputFormat};
    use crate::time::Timestamp;
    use crate::webhook::{EventType, WebhookUrl};

    const DAY: Duration = Duration::from_secs(86_400);

    fn metrics() -> Metrics {
        let lookup = |name: &str| match name {
            "METRICS_NAMESPACE" => Some("Posters/test".to_owned()),
            "PRICE_PER_IMAGE" => Some("0.04".to_owned()),
            _ => None,
        };
        let mut settings = Settings::new(&lookup);
        let metrics = Metrics::read(
            &Aws::new(aws_config::SdkConfig::builder().build(), crate::aws::Endpoints::default()),
            &mut settings,
        );
        settings.finish(metrics).expect("the settings are good")
    }

    fn job(now: Timestamp) -> Job {
        let order = Order::parse(json!({ "prompt": "A heist" }), "", Model::Core).expect("a good order");
        Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: DAY, retention: 30 * DAY })
    }

    /// As the specification demands, every member that the document refers to is there.
    fn names(document: &Value) -> Vec<&str> {
        let directives = document["_aws"]["CloudWatchMetrics"].as_array().expect("directives");
        let metrics = directives.iter().flat_map(|one| one["Metrics"].as_array().expect("metrics"));
        let names: Vec<_> = metrics.map(|metric| metric["Name"].as_str().expect("a name")).collect();
        assert!(names.iter().all(|name| document[name].is_number()), "{document}");
        assert!(document["Outcome"].is_string(), "{document}");
        names
    }

    #[test]
    fn a_job_that_has_a_picture_tells_all_that_is_measured() {
        let now = Timestamp::from_ms(1_795_000_000_000);
        let busy = LastError { code: ErrorCode::Throttled, message: "Busy.".to_owned(), at: now };
        let lease = |at: Timestamp| Lease::new(at + DAY);
        let job = job(now).claim(lease(now), 3, now).expect("a fresh job").release(busy, Attempt::NeverBegan);
        let start = now + Duration::from_secs(2);
        let (format, lettering) = (OutputFormat::Png, None);
        let facts = ImageFacts { format, bytes: 1500, width: 832, height: 1216, seed: None, lettering };
        let url = SignedUrl { url: "https://example.com/?secret".to_owned(), expires_at: now };
        let end = start + Duration::from_millis(3_500);
        let job = job
            .claim(lease(start), 3, start)
            .expect("it is free")
            .succeed(Image { facts, url, artwork: None, thumbnail: None }, end);
        let document = metrics().document(&job).expect("it has ended");
        let pinned = json!({
            "_aws": {
                "Timestamp": 1_795_000_005_500_i64,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "Posters/test",
                        "Dimensions": [["Outcome"]],
                        "Metrics": [{ "Name": "Posters", "Unit": "Count" }],
                    },
                    {
                        "Namespace": "Posters/test",
                        "Dimensions": [[]],
                        "Metrics": [
                            { "Name": "TimeQueued", "Unit": "Milliseconds" },
                            { "Name": "TimePainting", "Unit": "Milliseconds" },
                            { "Name": "Bytes", "Unit": "Bytes" },
                            { "Name": "Attempts", "Unit": "Count" },
                            { "Name": "Throttles", "Unit": "Count" },
                            { "Name": "Cost", "Unit": "None" },
                        ],
                    },
                ],
            },
            "Posters": 1, "Outcome": "succeeded", "Job": job.id.to_string(),
            "Model": "stability.stable-image-core-v1:1",
            "TimeQueued": 2000, "TimePainting": 3500, "Bytes": 1500, "Attempts": 1, "Throttles": 1, "Cost": 0.04,
        });
        assert_eq!(document, pinned);
        names(&document);
    }

    #[test]
    fn what_does_not_apply_is_left_out_and_what_was_not_painted_costs_nothing() {
        let now = Timestamp::from_ms(1_795_000_000_000);
        let waiting = job(now);
        assert_eq!(metrics().document(&waiting), None);
        let canceled = metrics().document(&waiting.cancel(now).expect("it waits")).expect("it has ended");
        assert_eq!(names(&canceled), ["Posters", "Attempts", "Throttles", "Cost"]);
        assert_eq!((&canceled["Outcome"], &canceled["Cost"]), (&json!("canceled"), &json!(0.0)));

        let claim = || waiting.claim(Lease::new(now + DAY), 3, now).expect("a fresh job");
        for (code, attempt, cost) in
            [(ErrorCode::ContentFiltered, Attempt::NeverBegan, 0.0), (ErrorCode::ModelError, Attempt::Counts, 0.04)]
        {
            let failed = metrics().document(&claim().fail(code, "No.".to_owned(), attempt, now)).expect("it has ended");
            assert_eq!((&failed["Code"], &failed["Cost"]), (&json!(code.as_str()), &json!(cost)));
            let outcome = if code == ErrorCode::ContentFiltered { "refused" } else { "failed" };
            assert_eq!(failed["Outcome"], outcome);
            assert_eq!(names(&failed), ["Posters", "TimeQueued", "Attempts", "Throttles", "Cost"]);
        }
    }

    #[test]
    fn an_ended_delivery_is_reported_with_its_outcome() {
        let metrics = DeliveryMetrics { output: Output::none(), namespace: "Posters/test".to_owned() };
        let at = Timestamp::from_ms(1_795_500_001_000);
        let delivery = |status| {
            let message = DeliveryMessage {
                id: "job_01930000-0000-7000-8000-000000000001_1795500000000".parse().expect("an id"),
                owner: Owner::new("alice"),
                url: WebhookUrl::parse("https://example.com/").expect("a URL"),
                event: EventType::JobFailed,
                at,
                round: 0,
                payload: "{}".to_owned(),
            };
            let at = at + Duration::from_secs(2);
            let tried = Try { round: 0, at, duration_ms: 52, status: Some(status), error: None, response: None };
            let (after, _) = Delivery::new(&message).tried(tried.clone());
            metrics.document(&after, &tried)
        };
        assert_eq!(delivery(503), None, "it will be tried again");
        let delivered = delivery(204).expect("it has ended");
        assert_eq!(names(&delivered), ["Deliveries", "TimeToDeliver"]);
        assert_eq!((&delivered["Outcome"], &delivered["TimeToDeliver"]), (&json!("delivered"), &json!(2052)));
        let gone = delivery(410).expect("it has ended");
        assert_eq!((names(&gone), &gone["Outcome"]), (vec!["Deliveries"], &json!("gone")));
    }

    #[test]
    fn a_price_is_a_sum_of_dollars() {
        for (text, good) in [("0", true), ("0.04", true), ("-1", false), ("NaN", false), ("4 cents", false)] {
            assert_eq!(text.parse::<Price>().is_ok(), good, "{text}");
        }
    }
}
