//! Outages of the model.

use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::Universe;
use super::scene::{Scene, answer};
use super::world::World;
use crate::interceptor::refuse;

/// How the model fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ailment {
    /// The model is too busy: 429.
    Throttled,
    /// Bedrock has no capacity for it: 503.
    Unavailable,
    /// The connection is refused.
    Refused,
    /// The model fails: 500.
    Failed,
    /// The model does not answer in time.
    Slow,
}

impl Ailment {
    /// The answer to a call.
    pub(super) async fn answer(
        self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let (status, code) = match self {
            Self::Throttled => (429, "ThrottlingException"),
            Self::Unavailable => (503, "ServiceUnavailableException"),
            Self::Failed => (500, "InternalServerException"),
            Self::Refused => return refuse(inner, request).await,
            Self::Slow => return Err(ConnectorError::timeout("the model does not answer in time".into())),
        };
        Ok(answer(status, &json!({ "__type": code, "message": "" })))
    }
}

impl Scene {
    /// How the model fails now, if it does. Counts the failed call.
    pub(super) fn ailment(&mut self, body: &Value) -> Option<Ailment> {
        let (ailment, until) = self.outage?;
        let ails = self.clock.now() < until;
        if ails {
            self.fault("model away");
            if matches!(ailment, Ailment::Failed | Ailment::Slow) {
                self.may_be_paid(body);
            }
        }
        ails.then_some(ailment)
    }
}

/// The result of a batch of jobs during an outage of the model.
#[derive(Debug)]
pub struct Outage {
    /// How the model failed.
    pub ailment: Ailment,
    /// How many jobs there were.
    pub jobs: usize,
    /// How long the outage lasted.
    pub lasted: Duration,
    /// How long after the model's return the last job ended.
    pub tail: Duration,
    /// The highest receive count of a ticket.
    pub most_receives: u32,
    /// How many calls to the model failed.
    pub refusals: usize,
    /// How many pictures were painted.
    pub pictures: usize,
    /// The violations.
    pub violations: Vec<String>,
}

impl Outage {
    /// Whether each job was painted once and no rule was broken.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.pictures == self.jobs
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |time: Duration| time.as_secs_f64() / 60.0;
        writeln!(f, "jobs           {}", self.jobs)?;
        writeln!(f, "outage         {:?} for {:.0} min, simulated", self.ailment, minutes(self.lasted))?;
        writeln!(f, "tail           {:.1} min from the model's return to the last picture", minutes(self.tail))?;
        writeln!(f, "refusals       {}", self.refusals)?;
        writeln!(f, "receives       {} at the most", self.most_receives)?;
        writeln!(f, "pictures       {} ({:.3} per job)", self.pictures, self.pictures as f64 / self.jobs as f64)?;
        write!(f, "violations     {}", self.violations.len())?;
        self.violations.iter().take(20).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl Universe {
    /// Submits a batch of `jobs`, at most 1000, at the moment when the outage begins, and runs until all have ended.
    pub async fn outage(&self, jobs: usize, ailment: Ailment, lasts: Duration) -> Outage {
        // Each ailment has a world of its own, so that one universe can have them all.
        let mut world = World::new(self, u64::MAX - ailment as u64, None);
        let back_at = self.clock.now() + lasts;
        {
            let mut scene = world.scene();
            scene.calm = true;
            scene.outage = Some((ailment, back_at));
        }
        world.submit_jobs(jobs).await;
        world.release_all().await;
        world.work_off(10).await;
        world.check().await;
        let scene = world.scene();
        Outage {
            ailment,
            jobs: scene.tally.jobs,
            lasted: lasts,
            tail: self.clock.now().since(back_at),
            most_receives: scene.most_receives,
            refusals: scene.tally.faults.get("model away").copied().unwrap_or_default(),
            pictures: scene.tally.pictures,
            violations: scene.violations.clone(),
        }
    }
}
