//! Large data: jobs whose full page exceeds Lambda's largest answer, and requests that exceed its largest event.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;
use lambda_runtime::{Context, LambdaEvent};
use local::Apps;
use serde_json::{Value, json};
use shared::job::Terms;
use shared::order::{Model, Order};
use shared::{Job, JobId};

use super::actors::{Outcome, Role, http};
use super::world::World;
use super::{Bug, DAY, RETENTION};

/// The largest event and the largest answer that Lambda accepts, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub(super) const MOST_BYTES: usize = 6_291_556;

/// How many large jobs some owners have. Together they exceed one answer.
const LARGE_JOBS: usize = 64;

/// The size of an answer as a function returns it to Lambda.
pub(super) fn size_of(answer: &ApiGatewayProxyResponse) -> usize {
    serde_json::to_vec(answer).map_or(0, |answer| answer.len())
}

/// The pages that a list would have if only its limit ended them.
#[derive(Default)]
pub(super) struct WholePage {
    jobs: usize,
    bytes: usize,
}

impl WholePage {
    /// Adds a page with this many jobs. Returns whether a page with `limit` of them is too large.
    pub(super) fn is_too_large_with(&mut self, jobs: usize, bytes: usize, limit: usize) -> bool {
        if self.jobs >= limit {
            *self = Self::default();
        }
        self.jobs += jobs;
        self.bytes += bytes;
        self.bytes > MOST_BYTES
    }
}

impl World<'_> {
    /// Gives the owner large jobs that have ended.
    pub(super) async fn fill_lists(&mut self) {
        let text = |characters| "\u{1f3ac}".repeat(characters);
        let notes: serde_json::Map<_, _> = (0..16).map(|i| (format!("{i:064}"), text(512).into())).collect();
        let order = json!({ "prompt": text(10_000), "negative_prompt": text(10_000), "metadata": notes });
        let order = Order::parse(order, "", Model::Core).expect("it is within the limits");
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        let now = self.universe.clock.now();
        for _ in 0..LARGE_JOBS {
            let job = Job::new(
                JobId::new(),
                self.owner.clone(),
                order.clone(),
                now,
                Terms { deadline: DAY, retention: RETENTION },
            );
            let job = Job { fence: 0, ..job.cancel(now).expect("it waits") };
            assert!(matches!(table.create(&job).await, Ok(None)), "the table takes it");
            self.advance(Duration::from_millis(1)).await;
        }
        self.large = true;
        self.scene().fault("lists larger than an answer");
    }

    /// A caller sends a large and invalid request.
    pub(super) async fn send_too_much(&mut self) {
        // A quote counts twice in the body, and four times in the event.
        let (text, most) = [("x", 7_000_000), ("\u{5f71}", 2_400_000), ("\"", 2_000_000)][self.pick(3)];
        let name = text.repeat(self.pick(most));
        let request = self.request("/jobs", None, None, &json!({ "prompt": "x", name: 1 }));
        let event = serde_json::to_vec(&request).map_or(0, |event| event.len());
        let body = request.body.as_deref().map_or(0, |body| shared::json::escaped_len(body.as_bytes()));
        if event > MOST_BYTES {
            // API Gateway answers this itself.
            self.scene().fault("request larger than an event");
            if body <= shared::api::MAX_BODY_BYTES {
                self.scene().violation(format!("a body of {body} bytes makes an event of {event}"));
            }
            return;
        }
        self.scene().fault("large request");
        let bug = self.scene().bug;
        let told = request.body.clone().unwrap_or_default();
        let event = LambdaEvent::new(request, Context::default());
        let work = move |apps: Apps| async move {
            let mut answer = submit::handle(&apps.submit, event).await;
            if let (Ok(ApiGatewayProxyResponse { body: Some(Body::Text(text)), .. }), Some(Bug::FaultsToldWhole)) =
                (&mut answer, bug)
            {
                *text = json!({ "errors": [{ "detail": &told, "pointer": &told }] }).to_string();
            }
            http(answer)
        };
        self.act(Role::Nobody, work).await;
    }

    /// Checks the answer to an invalid request.
    pub(super) fn told_nobody(&self, status: u16, body: &Value) {
        if !matches!(status, 400 | 413) {
            self.scene().violation(format!("a large request was answered with {status}: {body:.200}"));
        }
    }
}

impl Outcome {
    /// What a caller gets instead of an answer that Lambda does not accept.
    pub(super) fn too_large() -> Self {
        Self::Answer(502, json!({ "message": "Internal server error" }))
    }
}
