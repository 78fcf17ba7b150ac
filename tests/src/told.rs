//! Events over kills: the local stack's binary, killed while the receiver of all its events is down.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use shared::api::{BatchView, DeliveriesView, JobsView};
use shared::batch::BatchStatus;
use shared::delivery::DeliveryStatus;
use tokio::time::{Instant, sleep};

use crate::receiver::{Receiver, Reply};
use crate::restart::{Local, Model, batch};

/// How often a condition is polled.
const POLL: Duration = Duration::from_millis(100);

/// What happens to a stack and to the receiver of its events.
#[derive(Clone, Copy, Debug)]
pub struct ToldPlan {
    /// How many jobs the batch has.
    pub jobs: usize,
    /// How long the model takes for a picture.
    pub latency: Duration,
    /// How long the receiver is down after the batch has ended.
    pub down: Duration,
    /// Whether the owner then has the pending deliveries sent again, and does not wait for their next try.
    pub replays: bool,
    /// How long the deliveries may take after that. The waits between tries grow.
    pub patience: Duration,
}

/// How the events fared.
#[derive(Debug)]
pub struct ToldReport {
    /// What they were put through.
    pub plan: ToldPlan,
    /// How many requests the receiver refused while it was down.
    pub refused: usize,
    /// How many it accepted.
    pub accepted: usize,
    /// How many different ids the accepted requests had.
    pub ids: usize,
    /// How many deliveries the API says were accepted.
    pub delivered: usize,
    /// How long all of it took.
    pub took: Duration,
    /// What was not as it should be.
    pub violations: Vec<String>,
}

impl ToldReport {
    /// Whether every event arrived.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Has a batch send every event to a receiver that is down, kills the stack while it paints and again while all deliveries
/// wait, and checks that every event arrives once the receiver is back.
///
/// # Panics
/// When the stack does not start, or makes no progress.
pub async fn tell(plan: ToldPlan) -> ToldReport {
    let start = Instant::now();
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::start(plan.latency).await;
    let receiver = Receiver::start(Reply::status(503)).await;
    let mut stack = Local::new(directory.path(), &model).with_webhooks_to_loopback();
    let mut body = batch(plan.jobs);
    let events = ["job.succeeded", "job.failed", "job.canceled", "batch.ended"];
    body["webhook"] = json!({ "url": receiver.url(), "events": events });

    let mut life = stack.spawn();
    let ready = stack.ready(&mut life).await;
    stack.submit(&ready, &body).await;
    model.begins(plan.jobs / 2).await;
    // This is SIGKILL.
    life.kill().await.expect("the process can be killed");

    let mut life = stack.spawn();
    let ready = stack.ready(&mut life).await;
    let batch = stack.submit(&ready, &body).await;
    stack.finish(&ready, &batch).await;
    sleep(plan.down / 2).await;
    life.kill().await.expect("the process can be killed");

    let mut life = stack.spawn();
    let ready = stack.ready(&mut life).await;
    sleep(plan.down / 2).await;
    let refused = receiver.requests().len();
    receiver.replies(Reply::status(204));

    let view: BatchView = stack.get(&format!("{}/batches/{}", ready.api, batch.batch)).await;
    let mut replay = json!({ "since": view.created_at, "status": "pending" });
    let mut is_replayed = !plan.replays;
    while !is_replayed {
        let answer: Value = stack.post(&format!("{}/deliveries/replay", ready.api), &replay).await;
        replay["cursor"] = answer["next_cursor"].clone();
        is_replayed = replay["cursor"].is_null();
    }
    let mut violations = Vec::new();
    let end = Instant::now() + plan.patience;
    let delivered = loop {
        let (mut delivered, mut url) = (0, format!("{}/deliveries?limit=100", ready.api));
        loop {
            let page: DeliveriesView = stack.get(&url).await;
            delivered += page.deliveries.iter().filter(|one| one.status == DeliveryStatus::Delivered).count();
            let Some(cursor) = page.next_cursor else { break };
            url = format!("{}/deliveries?limit=100&cursor={cursor}", ready.api);
        }
        if delivered > plan.jobs || Instant::now() >= end {
            break delivered;
        }
        sleep(POLL * 10).await;
    };
    let mut wanted = BTreeSet::new();
    let mut url = format!("{}/batches/{}/jobs?limit=100", ready.api, batch.batch);
    loop {
        let page: JobsView = stack.get(&url).await;
        wanted.extend(page.jobs.iter().map(|job| format!("job_{}_", job.id)));
        let Some(cursor) = page.next_cursor else { break };
        url = format!("{}/batches/{}/jobs?limit=100&cursor={cursor}", ready.api, batch.batch);
    }
    life.kill().await.expect("the process can be killed");

    let requests = receiver.requests().split_off(refused);
    let ids: BTreeSet<_> = requests.iter().map(|request| request.headers["webhook-id"].clone()).collect();
    wanted.insert(format!("batch_{}_", batch.batch));
    if view.status != BatchStatus::Completed || wanted.len() != plan.jobs + 1 {
        violations.push(format!("batch {} is {} with {} jobs", view.id, view.status, wanted.len() - 1));
    }
    for wanted in &wanted {
        if ids.iter().filter(|id| id.starts_with(wanted)).count() != 1 {
            violations.push(format!("the event {wanted} did not arrive, or with two ids"));
        }
    }
    for (what, number) in [("ids arrived", ids.len()), ("deliveries are said to have been accepted", delivered)] {
        if number != plan.jobs + 1 {
            violations.push(format!("{number} {what}, of {} events", plan.jobs + 1));
        }
    }
    ToldReport { plan, refused, accepted: requests.len(), ids: ids.len(), delivered, took: start.elapsed(), violations }
}

impl fmt::Display for ToldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, refused, accepted, ids, delivered, took, violations } = self;
        writeln!(f, "jobs           {} in one batch, model {:?}", plan.jobs, plan.latency)?;
        writeln!(f, "receiver       down for {:?} after the batch had ended", plan.down)?;
        writeln!(f, "requests       {refused} refused, {accepted} accepted with {ids} ids")?;
        writeln!(f, "delivered      {delivered}, according to the API")?;
        writeln!(f, "time           {:.1} s", took.as_secs_f64())?;
        write!(f, "violations     {}", violations.len())?;
        violations.iter().take(20).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}
