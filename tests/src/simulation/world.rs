//! One world: what happens in it in disorder, how it settles, and the rules it is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use aws_lambda_events::http::Method;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use shared::aws::Files;
use shared::job::{Status, Variant};
use shared::{BatchId, Job, JobId, JobState, Owner};
use tokio::sync::mpsc;

use super::actors::{Actor, News, Outcome, Role, http};
use super::scene::{Ledger, Message, Scene};
use super::{Bug, INVOCATION, MAX_ATTEMPTS, Tally, Universe, VISIBILITY};

/// How many steps a world takes in disorder before everything is let to settle.
const STEPS: usize = 70;

/// How many times tickets come due before a world counts as one that never ends.
const MOST_DELIVERIES: usize = 100_000;

pub(super) struct World<'a> {
    pub(super) universe: &'a Universe,
    pub(super) seed: u64,
    pub(super) owner: Owner,
    pub(super) scene: Arc<Mutex<Scene>>,
    pub(super) news: mpsc::UnboundedReceiver<News>,
    pub(super) sender: mpsc::UnboundedSender<News>,
    pub(super) actors: BTreeMap<usize, Actor>,
    pub(super) next_actor: usize,
    /// What was ordered, in its order.
    pub(super) orders: Vec<Ordered>,
    /// Jobs of which a retry was not answered, which may have queued them and sent no ticket.
    pub(super) unanswered: BTreeSet<JobId>,
}

/// A request that may be sent again, because it has a key.
pub(super) struct Ordered {
    pub(super) jobs: Vec<JobId>,
    pub(super) request: ApiGatewayProxyRequest,
    pub(super) accepted: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(universe: &'a Universe, seed: u64, bug: Option<Bug>) -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        let scene = Scene {
            random: fastrand::Rng::with_seed(seed),
            clock: universe.clock.clone(),
            bug,
            calm: false,
            most_receives: 0,
            outage: None,
            queue: Vec::new(),
            jobs: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            prompts: BTreeMap::new(),
            violations: Vec::new(),
            history: Vec::new(),
            tally: Tally::default(),
        };
        // The functions' own jitter follows the seed as well: everything of a world happens on this thread.
        fastrand::seed(seed);
        // A seed may be run in one universe with a bug and without.
        let owner = Owner::new(format!("world {seed} of {bug:?}"));
        let scene = Arc::new(Mutex::new(scene));
        Self {
            universe,
            seed,
            owner,
            scene,
            news,
            sender,
            actors: BTreeMap::new(),
            next_actor: 0,
            orders: Vec::new(),
            unanswered: BTreeSet::new(),
        }
    }

    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pick(&self, below: usize) -> usize {
        self.scene().random.usize(..below)
    }

    /// One step after another, of whatever kind the seed says.
    pub(super) async fn disorder(&mut self) {
        for _ in 0..STEPS {
            let dice = self.pick(100);
            match dice {
                0..8 if self.orders.len() < 4 => self.submit_new().await,
                0..8 => self.submit_again().await,
                8..12 => self.steer("cancel").await,
                12..15 => self.steer("retry").await,
                15..35 => self.deliver().await,
                35..45 => self.pass_time(),
                _ => {
                    let fate = self.scene().fate();
                    self.release(fate).await;
                }
            }
        }
    }

    /// Nothing goes wrong any more, and everything comes to its end.
    pub(super) async fn settle(&mut self) {
        self.scene().calm = true;
        self.release_all().await;
        // Whoever got no answer asks again, once a writer that died can no longer be at it.
        self.universe.clock.advance(Duration::from_secs(60));
        for order in 0..self.orders.len() {
            if !self.orders[order].accepted {
                self.submit(order).await;
                self.release_all().await;
            }
        }
        // So does one who retried a job, or else leaves it to its deadline.
        for job in self.unanswered.clone() {
            if self.pick(2) == 0 {
                self.unanswered.remove(&job);
                self.steer_this(job, "retry").await;
                self.release_all().await;
            }
        }
        self.work_off(1).await;
    }

    /// Lets time pass until no ticket is left, which are delivered so many at once.
    pub(super) async fn work_off(&mut self, at_once: usize) {
        for _ in 0..MOST_DELIVERIES {
            let mut due: Vec<_> = self.scene().queue.iter().flatten().map(|message| message.visible_at).collect();
            due.sort_unstable();
            let Some(&next) = due.get(at_once - 1).or(due.last()) else { return };
            self.universe.clock.advance(next.since(self.universe.clock.now()));
            self.deliver_all(at_once).await;
        }
        self.scene().violation("tickets are left that nobody is done with".to_owned());
    }

    /// Holds the world against the rules.
    pub(super) async fn check(&mut self) {
        let images = self.universe.stack.aws().images(self.universe.stack.ready().bucket.clone());
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        for id in self.jobs() {
            let mut job = table.get(id).await.expect("the table answers");
            if let Some(left) = job.as_ref().filter(|job| self.unanswered.contains(&id) && job.finished_at().is_none())
            {
                self.universe.clock.advance(left.deadline_at.since(self.universe.clock.now()));
                self.look(id).await;
                job = table.get(id).await.expect("the table answers");
            }
            let Some(job) = self.check_ledger(id, job) else { continue };
            let stored = images.find(&job).await.expect("the bucket answers");
            let recorded = match &job.state {
                JobState::Succeeded { image, .. } => {
                    Some(Files { image: image.facts, artwork: image.artwork.as_ref().map(|artwork| artwork.facts) })
                }
                _ => None,
            };
            if job.finished_at().is_some() && stored != recorded {
                let what = format!("job {id} is {}; its record says {recorded:?}, the bucket {stored:?}", job.status());
                self.scene().violation(what);
            }
            let artwork = images.read(&job, Variant::Artwork).await.expect("the bucket answers");
            let wanted = job.order.poster.is_some() && job.status() == Status::Succeeded;
            if job.finished_at().is_some() && artwork.is_some() != wanted {
                self.scene().violation(format!("job {id} is {}; artwork: {}", job.status(), artwork.is_some()));
            }
        }
    }

    /// Asks for a job as its owner does.
    async fn look(&mut self, id: JobId) {
        let mut request = self.request("/jobs/{id}", Some(id), None, &Value::Null);
        request.http_method = Method::GET;
        let (actor, apps) = self.apps(false);
        let event = LambdaEvent::new(request, Context::default());
        let work = async move { http(status::handle(&apps.status, event).await) };
        self.act(actor, Role::Steersman { job: id, action: "look" }, work).await;
        self.release_all().await;
    }

    /// Holds what was seen of a job against the rules, and its record against what was seen.
    fn check_ledger(&self, id: JobId, job: Option<Job>) -> Option<Job> {
        let mut scene = self.scene();
        let &mut Ledger { pictures, excused, accepted, retried, .. } = scene.ledger(&id.to_string());
        let Some(job) = job else {
            if accepted {
                scene.violation(format!("job {id} was accepted and has no record"));
            }
            return None;
        };
        scene.tally.jobs += usize::from(accepted);
        if accepted && job.finished_at().is_none() {
            scene.violation(format!("job {id} was accepted and is still {}", job.status()));
        }
        if pictures > 1 + excused && !retried {
            scene.violation(format!("job {id} was painted {pictures} times, {excused} of them for a reason"));
        }
        if pictures > MAX_ATTEMPTS && !retried {
            scene.violation(format!("job {id} was painted {pictures} times, more than is allowed"));
        }
        Some(job)
    }

    fn jobs(&self) -> Vec<JobId> {
        self.orders.iter().flat_map(|order| order.jobs.clone()).collect()
    }

    /// Submits one job, or a batch of three.
    async fn submit_new(&mut self) {
        let count = if self.pick(3) == 0 { 3 } else { 1 };
        self.submit_jobs(count).await;
    }

    pub(super) async fn submit_jobs(&mut self, count: usize) {
        let key = format!("{}-{}", self.seed, self.orders.len());
        let idempotency = key.parse().expect("a good key");
        let batch = count > 1;
        let mut jobs = Vec::new();
        if batch {
            let id = BatchId::from_key(&self.owner, &idempotency);
            jobs.extend((0..count).map(|index| JobId::in_batch(id, index)));
        } else {
            jobs.push(JobId::from_key(&self.owner, &idempotency));
        }
        let mut prompts = Vec::new();
        for job in &jobs {
            let unfit = if self.pick(10) == 0 && !self.scene().calm { " nsfw" } else { "" };
            let prompt = format!("{job}{unfit}");
            self.scene().prompts.insert(prompt.clone(), job.to_string());
            // More than a third of the jobs are posters; which ones follows from their names, and takes nothing from chance.
            let poster = job.to_string().ends_with(['0', '3', '6', '9', 'c', 'f']).then(|| json!({ "title": "Heist" }));
            prompts.push(json!({ "prompt": prompt, "poster": poster }));
        }
        let (path, body) = if batch { ("/batches", json!({ "jobs": prompts })) } else { ("/jobs", prompts.remove(0)) };
        let request = self.request(path, None, Some(&key), &body);
        self.orders.push(Ordered { jobs, request, accepted: false });
        self.submit(self.orders.len() - 1).await;
    }

    /// Sends a request again that was sent before, whether or not it was answered.
    async fn submit_again(&mut self) {
        let order = self.pick(self.orders.len());
        // A second request for a batch would wait for the first one, and with it this world.
        if self.orders[order].jobs.len() == 1 {
            self.scene().fault("request sent again");
            self.submit(order).await;
        }
    }

    async fn submit(&mut self, order: usize) {
        let Ordered { jobs, request, .. } = &self.orders[order];
        let (hurried, event) = (jobs.len() > 1, LambdaEvent::new(request.clone(), Context::default()));
        let (actor, apps) = self.apps(hurried);
        self.act(actor, Role::Submitter { order }, async move { http(submit::handle(&apps.submit, event).await) })
            .await;
    }

    async fn steer(&mut self, action: &'static str) {
        let jobs = self.jobs();
        if !jobs.is_empty() {
            let job = jobs[self.pick(jobs.len())];
            self.steer_this(job, action).await;
        }
    }

    async fn steer_this(&mut self, job: JobId, action: &'static str) {
        let request = self.request(&format!("/jobs/{{id}}/{action}"), Some(job), None, &Value::Null);
        let (actor, apps) = self.apps(false);
        let event = LambdaEvent::new(request, Context::default());
        let retry = action == "retry";
        let work = async move {
            if retry {
                http(submit::handle(&apps.submit, event).await)
            } else {
                http(status::handle(&apps.status, event).await)
            }
        };
        self.act(actor, Role::Steersman { job, action }, work).await;
    }

    /// Delivers one or two tickets, whose time may not have come, to a worker, or one to the function of dead letters.
    async fn deliver(&mut self) {
        // A message may be delivered more than once, and before its time.
        let twice = self.scene().chance(0.15);
        let now = self.universe.clock.now();
        let choice = self.tickets(|message| twice || message.visible_at <= now);
        if choice.is_empty() {
            return;
        }
        if twice {
            self.scene().fault("ticket delivered out of turn");
        }
        let first = choice[self.pick(choice.len())];
        let second = choice[self.pick(choice.len())];
        let tickets = if first != second && self.pick(2) == 0 { vec![first, second] } else { vec![first] };
        self.deliver_these(tickets).await;
    }

    /// Delivers the tickets whose time has come, so many at once.
    async fn deliver_all(&mut self, at_once: usize) {
        let now = self.universe.clock.now();
        let due = self.tickets(|message| message.visible_at <= now);
        for tickets in due.chunks(at_once) {
            self.deliver_these(tickets.to_vec()).await;
            self.release_all().await;
        }
    }

    /// The tickets of the queue that are as `wanted`.
    fn tickets(&self, wanted: impl Fn(&Message) -> bool) -> Vec<usize> {
        let scene = self.scene();
        let there = scene.queue.iter().enumerate().filter(|(_, message)| message.as_ref().is_some_and(&wanted));
        there.map(|(ticket, _)| ticket).collect()
    }

    async fn deliver_these(&mut self, mut tickets: Vec<usize>) {
        let (dead, event) = {
            let mut scene = self.scene();
            let now = scene.clock.now();
            let was_dead = scene.queue[tickets[0]].as_ref().is_some_and(|message| message.dead);
            let mut dead = was_dead;
            if !dead && scene.chance(0.03) {
                scene.fault("ticket given up to the dead-letter queue");
                dead = true;
            }
            // A delivery comes from one of the two queues.
            tickets.retain(|&ticket| scene.queue[ticket].as_ref().is_some_and(|message| message.dead) == was_dead);
            if dead {
                // The function of dead letters looks at its tickets side by side; an actor makes one call at a time.
                tickets.truncate(1);
            }
            let mut event = SqsEvent::default();
            for &ticket in &tickets {
                let newer = scene.chance(0.02);
                let Some(message) = scene.queue[ticket].as_mut() else { continue };
                message.receives += 1;
                let receives = message.receives;
                message.visible_at = now + VISIBILITY;
                message.dead |= dead;
                let mut record = SqsMessage::default();
                record.message_id = Some(format!("message-{ticket}"));
                record.receipt_handle = Some(format!("receipt-{ticket}"));
                record.attributes.insert("ApproximateReceiveCount".to_owned(), message.receives.to_string());
                // Half of a deployment writes tickets that the other half cannot read yet.
                record.body =
                    Some(if newer { message.body.replace("\"v\":1", "\"v\":2") } else { message.body.clone() });
                if newer {
                    scene.fault("ticket of a newer version");
                }
                scene.most_receives = scene.most_receives.max(receives);
                event.records.push(record);
            }
            (dead, event)
        };
        let (actor, apps) = self.apps(false);
        let kind = if dead { "dead letters" } else { "tickets" };
        self.scene().history.push(format!("{actor}: is delivered the {kind} {tickets:?}"));
        let mut context = Context::default();
        let end = std::time::SystemTime::now() + INVOCATION;
        context.deadline = end.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        let role = Role::Worker { tickets, began: self.universe.clock.now() };
        let event = LambdaEvent::new(event, context);
        let work = async move {
            let answer = if dead {
                dead_letter::handle(&apps.dead_letter, event).await
            } else {
                worker::handle(&apps.worker, event).await
            };
            let failures = answer.expect("a worker always answers").batch_item_failures;
            let back =
                failures.iter().filter_map(|failure| failure.item_identifier.strip_prefix("message-")?.parse().ok());
            Outcome::ComeBack(back.collect())
        };
        self.act(actor, role, work).await;
    }

    /// Time passes: a little, or more than a lease lasts. Lambda stops an invocation whose time is over, most times.
    fn pass_time(&mut self) {
        let secs = match self.pick(10) {
            0..6 => self.pick(10),
            6..9 => 97 + self.pick(600),
            _ => 7_200,
        };
        self.universe.clock.advance(Duration::from_secs(secs as u64));
        self.scene().history.push(format!("{secs} seconds pass"));
        let now = self.universe.clock.now();
        let mut over = Vec::new();
        for (&id, actor) in &self.actors {
            if let Role::Worker { began, .. } = actor.role
                && now.since(began) >= INVOCATION
            {
                over.push(id);
            }
        }
        for id in over {
            if self.scene().chance(0.1) {
                self.scene().fault("worker outlives its lease");
            } else {
                self.scene().fault("invocation stopped at its end");
                self.bury(id);
            }
        }
    }
}
