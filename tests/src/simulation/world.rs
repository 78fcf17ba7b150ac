//! One world: its random steps, how it comes to an end, and the rules that it must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use lambda_runtime::{Context, LambdaEvent};
use local::Apps;
use serde_json::{Value, json};
use shared::aws::Files;
use shared::image::Variant;
use shared::job::{ErrorCode, Status};
use shared::{Batch, BatchId, Job, JobId, JobState, Owner, Timestamp, event};
use tokio::sync::mpsc;

use super::actors::{Actor, News, Outcome, Process, Role, http};
use super::events::{SeenEvents, webhook};
use super::files::{BATCH_INVOCATION, BatchLedger, FileOrder, SeenFiles};
use super::scene::{CLOCKS_DIFFER, Fate, Ledger, Message, Scene};
use super::{Bug, DAY, INVOCATION, RETENTION, Tally, Universe, VISIBILITY};

/// After this many deliveries a world counts as one that never ends.
const MOST_DELIVERIES: usize = 100_000;

/// After this time, a reader tells the end of a job that nobody else has told.
const TIME_TO_TELL: Duration = Duration::from_secs(60);

pub(super) struct World<'a> {
    pub(super) universe: &'a Universe,
    pub(super) seed: u64,
    pub(super) owner: Owner,
    pub(super) scene: Arc<Mutex<Scene>>,
    pub(super) news: mpsc::UnboundedReceiver<News>,
    pub(super) sender: mpsc::UnboundedSender<News>,
    pub(super) actors: BTreeMap<usize, Actor>,
    /// Functions that serve no actor at the moment.
    pub(super) frozen: Vec<Process>,
    pub(super) next_actor: usize,
    /// Whether the owner's jobs exceed one answer.
    pub(super) large: bool,
    /// The orders, in the order of their submission.
    pub(super) orders: Vec<Ordered>,
    /// Whether the retention has passed, so that records may be deleted.
    pub(super) aged: bool,
    /// Jobs with a retry that was not answered, and that may have queued them without sending a ticket.
    pub(super) unanswered: BTreeSet<JobId>,
    /// All jobs that have ever been among them.
    pub(super) ever_unanswered: BTreeSet<JobId>,
    /// The batches from files, in the order of their submission.
    pub(super) files: Vec<FileOrder>,
}

/// A request that may be sent again, because it has a key.
pub(super) struct Ordered {
    pub(super) batch: Option<BatchId>,
    pub(super) jobs: Vec<JobId>,
    pub(super) request: ApiGatewayProxyRequest,
    pub(super) accepted: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(universe: &'a Universe, seed: u64, bug: Option<Bug>) -> Self {
        // Each world begins at a full second, so that times in whole seconds are the same in each run.
        let now = universe.clock.now();
        universe.clock.advance(now.whole_secs().since(now));
        let (sender, news) = mpsc::unbounded_channel();
        let queue = universe.stack.ready().webhook_queue_url.clone();
        let scene = Scene {
            random: fastrand::Rng::with_seed(seed),
            clock: universe.clock.clone(),
            bug,
            calm: false,
            most_receives: 0,
            outage: None,
            spell: None,
            throttled_writes: 0,
            versions: BTreeMap::new(),
            late: Vec::new(),
            alive: BTreeMap::new(),
            dead_letters: BTreeSet::new(),
            panicked: BTreeSet::new(),
            queue: Vec::new(),
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            retried: BTreeMap::new(),
            files: SeenFiles::default(),
            events: SeenEvents::of(queue.expect("it sends webhooks")),
            in_hand: BTreeMap::new(),
            prompts: BTreeMap::new(),
            violations: Vec::new(),
            history: Vec::new(),
            tally: Tally::default(),
        };
        // The functions' own jitter follows the seed too, because all of a world runs on this thread.
        fastrand::seed(seed);
        // The same seed may run in one universe with a bug and without.
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
            frozen: Vec::new(),
            next_actor: 0,
            large: false,
            orders: Vec::new(),
            aged: false,
            unanswered: BTreeSet::new(),
            ever_unanswered: BTreeSet::new(),
            files: Vec::new(),
        }
    }

    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pick(&self, below: usize) -> usize {
        self.scene().random.usize(..below)
    }

    /// Takes this many random steps.
    pub(super) async fn disorder(&mut self, steps: usize) {
        self.scene().calm = false;
        for _ in 0..steps {
            let dice = self.pick(100);
            match dice {
                0..7 if self.orders.len() < 4 => self.submit_new().await,
                0..7 => self.submit_again().await,
                7..10 => self.steer("/jobs/{id}/cancel").await,
                10..13 => self.steer("/jobs/{id}/retry").await,
                13..15 => self.steer_some_batch().await,
                15..32 => self.deliver().await,
                32..41 => self.pass_time().await,
                41..46 => self.observe().await,
                46 => self.redrive(),
                47 => self.step_a_clock(),
                48 if self.pick(4) == 0 => self.scene().begin_spell(),
                49 if self.pick(12) == 0 => self.send_too_much().await,
                _ => {
                    let fate = self.scene().fate();
                    self.release(fate).await;
                    if fate == Fate::Late {
                        self.steer_meanwhile().await;
                    }
                    self.retry_untold().await;
                }
            }
        }
    }

    /// The retention passes: DynamoDB deletes records up to a day early or days late, and the bucket deletes files before
    /// or after that, each on its own.
    pub(super) async fn age(&mut self) {
        let stack = &self.universe.stack;
        let images = stack.aws().images(stack.ready().bucket.clone());
        let table = stack.aws().table(stack.ready().table.clone());
        let days = [RETENTION - DAY, RETENTION + DAY][self.pick(2)];
        self.advance(days).await;
        for id in self.jobs() {
            let Some(job) = table.get(id).await.expect("the table answers") else { continue };
            if self.pick(2) == 0 {
                images.delete(&job).await.expect("the bucket answers");
                self.scene().fault("file deleted by its lifecycle");
            }
            let mut scene = self.scene();
            scene.ended.remove(&id.to_string());
            *scene.ledger(&id.to_string()) = Ledger {
                status: Some(job.status()),
                expires_at: Some(job.expires_at),
                aged: true,
                ..Ledger::default()
            };
        }
        let keys = self.jobs().into_iter().map(|id| format!("JOB#{id}"));
        let keys: Vec<_> = keys.chain(self.batches().into_iter().map(|id| format!("BATCH#{id}"))).collect();
        for key in keys {
            if self.pick(2) == 0 {
                self.delete(&key).await;
                let mut scene = self.scene();
                scene.fault("record deleted by its time to live");
                if let Some(job) = key.strip_prefix("JOB#") {
                    *scene.ledger(job) = Ledger { aged: true, ..Ledger::default() };
                }
                scene.stored(json!({ "pk": { "S": key }, "deleted": true }));
            }
        }
        self.aged = true;
        self.unanswered.clear();
        self.scene().history.push(format!("{} days pass", days.as_secs() / 86_400));
        for id in self.jobs() {
            self.look(id).await;
        }
    }

    /// Deletes a record as DynamoDB does after its time to live.
    async fn delete(&self, key: &str) {
        let stack = &self.universe.stack;
        let config = aws_sdk_dynamodb::config::Builder::from(stack.config()).endpoint_url(&stack.ready().dynamodb);
        let client = aws_sdk_dynamodb::Client::from_conf(config.build());
        let key = aws_sdk_dynamodb::types::AttributeValue::S(key.to_owned());
        client.delete_item().table_name(&stack.ready().table).key("pk", key).send().await.expect("the table answers");
    }

    /// Stops the faults, and lets everything come to its end.
    pub(super) async fn settle(&mut self) {
        {
            let mut scene = self.scene();
            scene.calm = true;
            scene.throttled_writes = 0;
        }
        self.release_all().await;
        self.arrive(Timestamp::from_ms(i64::MAX)).await;
        // A caller without an answer repeats its request, after the lease of a writer that died.
        self.advance(Duration::from_secs(60)).await;
        for order in 0..self.orders.len() {
            if !self.orders[order].accepted {
                self.submit(order).await;
                self.release_all().await;
            }
        }
        // So does a caller whose retry got no answer, or else the job is left until its deadline.
        for job in self.unanswered.clone() {
            if self.pick(2) == 0 {
                self.unanswered.remove(&job);
                self.steer_this(vec![job], "/jobs/{id}/retry", job.to_string()).await;
                self.release_all().await;
            }
        }
        self.work_off(1).await;
        self.look_at_lost_batches().await;
        self.check_told(&self.unanswered);
        self.read_lists().await;
        self.release_all().await;
    }

    /// Advances the time until no ticket is left, and delivers up to `at_once` tickets together.
    pub(super) async fn work_off(&mut self, at_once: usize) {
        for _ in 0..MOST_DELIVERIES {
            let mut due: Vec<_> = self.scene().queue.iter().flatten().map(|message| message.visible_at).collect();
            due.sort_unstable();
            let Some(&next) = due.get(at_once - 1).or(due.last()) else { return };
            self.advance(next.since(self.universe.clock.now())).await;
            self.deliver_all(at_once).await;
        }
        self.scene().violation("tickets are left that nobody is done with".to_owned());
    }

    /// Checks the world against the rules.
    pub(super) async fn check(&mut self) {
        let images = self.universe.stack.aws().images(self.universe.stack.ready().bucket.clone());
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        for id in self.jobs() {
            let mut job = table.get(id).await.expect("the table answers");
            // A canceled batch may have stored it so late that nobody canceled it: it has no ticket.
            if let Some(Job { membership: Some(membership), fence: 0, state: JobState::Queued, .. }) = &job
                && self.record(membership.batch).await.is_some_and(|batch| batch.canceled_at.is_some())
            {
                self.unanswered.insert(id);
                self.ever_unanswered.insert(id);
                self.scene().fault("job stored after its batch was canceled");
            }
            let is_left = |job: &&Job| job.finished_at().is_none() || event::of_job(job).is_some();
            if let Some(left) = job.as_ref().filter(is_left).filter(|_| self.unanswered.contains(&id)) {
                // The reader's clock may be slow.
                let late = left.finished_at().map_or(left.deadline_at, |end| end + TIME_TO_TELL);
                self.advance(late.since(self.universe.clock.now()) + CLOCKS_DIFFER).await;
                self.look(id).await;
                self.release_all().await;
                job = table.get(id).await.expect("the table answers");
            }
            let Some(job) = self.check_ledger(id, job) else { continue };
            if self.scene().ledger(&id.to_string()).aged {
                continue;
            }
            let stored = match images.find(&job).await {
                Ok(stored) => stored,
                Err(error) => {
                    self.scene().violation(format!("the files of job {id} cannot be read: {error}"));
                    continue;
                }
            };
            let recorded = match &job.state {
                JobState::Succeeded { image, .. } => Some(Files::from(image)),
                _ => None,
            };
            if job.finished_at().is_some() && stored != recorded {
                let what = format!("job {id} is {}; its record says {recorded:?}, the bucket {stored:?}", job.status());
                self.scene().violation(what);
            }
            let artwork = job.order.poster.is_some() && job.status() == Status::Succeeded;
            let thumbnail = recorded.is_some_and(|files| files.thumbnail);
            for (variant, wanted) in [(Variant::Artwork, artwork), (Variant::Thumbnail, thumbnail)] {
                let is_there = images.read(&job, variant).await.is_ok_and(|file| file.is_some());
                if job.finished_at().is_some() && is_there != wanted {
                    self.scene().violation(format!("job {id} is {}; {variant}: {is_there}", job.status()));
                }
            }
        }
        for order in self.orders.iter().filter(|order| order.accepted) {
            let Some(id) = order.batch else { continue };
            match self.record(id).await {
                Some(batch) if batch.has_ended() && self.aged => {}
                Some(batch) if batch.has_ended() => self.check_results(&batch, &order.jobs, 0).await,
                Some(batch) => {
                    self.scene().violation(format!("batch {id} was accepted and is still {:?}", batch.stage));
                }
                None if self.aged => {}
                None => self.scene().violation(format!("batch {id} was accepted and has no record")),
            }
        }
        self.check_events().await;
    }

    /// Checks what was observed of a job against the rules, and its record against what was observed.
    fn check_ledger(&self, id: JobId, job: Option<Job>) -> Option<Job> {
        let most = self.universe.max_attempts;
        let mut scene = self.scene();
        let &mut Ledger {
            pictures,
            excused,
            counted,
            accepted,
            ticketed,
            retries,
            given_up,
            given_up_blindly,
            aged,
            ..
        } = scene.ledger(&id.to_string());
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
        if pictures > 1 + excused && retries == 0 {
            scene.violation(format!("job {id} was painted {pictures} times, {excused} of them for a reason"));
        }
        if pictures > most && retries == 0 {
            scene.violation(format!("job {id} was painted {pictures} times, more than is allowed"));
        }
        if counted > most && retries == 0 {
            scene.violation(format!("job {id} was attempted {counted} times, more than is allowed"));
        }
        if let JobState::Failed { error, finished_at } = &job.state
            && !aged
        {
            let attempted = counted >= most;
            let deserved = match error.code {
                ErrorCode::ContentFiltered => job.order.prompt.as_str().contains("nsfw"),
                ErrorCode::ModelError => attempted,
                ErrorCode::AttemptsExhausted => attempted || given_up || given_up_blindly,
                ErrorCode::DeadlineExceeded => {
                    *finished_at + CLOCKS_DIFFER >= job.deadline_at && (ticketed || !accepted)
                }
                _ => false,
            };
            if !deserved {
                let code = error.code;
                scene.violation(format!("job {id} failed as {code} after {counted} attempts that count"));
            }
            if error.billed != (counted > 0) && retries == 0 {
                scene.violation(format!("job {id} says billed: {}, with {counted} attempts that count", error.billed));
            }
        }
        Some(job)
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        let of_files = self.files.iter().flat_map(|file| file.jobs.clone());
        self.orders.iter().flat_map(|order| order.jobs.clone()).chain(of_files).collect()
    }

    /// All batches.
    pub(super) fn batches(&self) -> Vec<BatchId> {
        self.orders.iter().filter_map(|order| order.batch).chain(self.files.iter().map(|file| file.batch)).collect()
    }

    /// The record of a batch.
    pub(super) async fn record(&self, id: BatchId) -> Option<Batch> {
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        table.get_batch(id).await.expect("the table answers")
    }

    /// Submits one job, or a batch of three.
    async fn submit_new(&mut self) {
        let count = if self.pick(3) == 0 { 3 } else { 1 };
        self.submit_jobs(count).await;
    }

    pub(super) async fn submit_jobs(&mut self, count: usize) {
        let key = format!("{}-{}", self.seed, self.orders.len());
        let idempotency = key.parse().expect("a good key");
        let batch = (count > 1).then(|| BatchId::from_key(&self.owner, &idempotency));
        let mut jobs = Vec::new();
        if let Some(id) = batch {
            jobs.extend((0..count).map(|index| JobId::in_batch(id, index)));
        } else {
            jobs.push(JobId::from_key(&self.owner, &idempotency));
        }
        let mut prompts = Vec::new();
        for job in &jobs {
            let unfit = if self.pick(10) == 0 && !self.scene().calm { " nsfw" } else { "" };
            let prompt = format!("{job}{unfit}");
            self.scene().prompts.insert(prompt.clone(), job.to_string());
            // More than a third of the jobs are posters. Their ids decide which, so that no random number is used up.
            let poster = job.to_string().ends_with(['0', '3', '6', '9', 'c', 'f']).then(|| json!({ "title": "Heist" }));
            prompts.push(json!({ "prompt": prompt, "poster": poster }));
        }
        let (path, id, mut body) = match batch {
            Some(id) => ("/batches", id.to_string(), json!({ "jobs": prompts })),
            None => ("/jobs", jobs[0].to_string(), prompts.remove(0)),
        };
        if !self.scene().calm {
            body["webhook"] = webhook(&id, batch.is_some());
        }
        let request = self.request(path, None, Some(&key), &body);
        if let Some(batch) = batch {
            self.scene().files.batches.insert(batch.to_string(), BatchLedger::of(&jobs));
        }
        self.orders.push(Ordered { batch, jobs, request, accepted: false });
        self.submit(self.orders.len() - 1).await;
    }

    /// Repeats an earlier request, whether or not it was answered.
    async fn submit_again(&mut self) {
        let order = self.pick(self.orders.len());
        // A second request for a batch waits for the first by the machine's clock, so it is made rarely.
        if self.orders[order].jobs.len() == 1 || self.pick(10) == 0 {
            self.scene().fault("request sent again");
            self.submit(order).await;
        }
    }

    async fn submit(&mut self, order: usize) {
        let event = LambdaEvent::new(self.orders[order].request.clone(), Context::default());
        let work = |apps: Apps| async move { http(submit::handle(&apps.submit, event).await) };
        self.act(Role::Submitter { order }, work).await;
    }

    pub(super) async fn steer(&mut self, action: &'static str) {
        let jobs = self.jobs();
        if !jobs.is_empty() {
            let job = jobs[self.pick(jobs.len())];
            self.steer_this(vec![job], action, job.to_string()).await;
        }
    }

    /// While a late call stores or deletes a file of a job, its owner cancels or retries the job, without faults.
    pub(super) async fn steer_meanwhile(&mut self) {
        let file = self.scene().late.last().and_then(super::gate::Late::file);
        if let Some((job, deleted)) = file {
            self.steer_at_once(job, if deleted { "/jobs/{id}/retry" } else { "/jobs/{id}/cancel" }).await;
        }
    }

    /// The owner of a job cancels or retries it, without faults.
    pub(super) async fn steer_at_once(&mut self, job: JobId, action: &'static str) {
        let actor = self.next_actor;
        self.steer_this(vec![job], action, job.to_string()).await;
        while self.actors.get(&actor).is_some_and(|actor| actor.waiting.is_some()) {
            self.release_one(actor, Fate::Made).await;
        }
    }

    /// The owner cancels or retries some batch.
    async fn steer_some_batch(&mut self) {
        let batches = self.batches();
        if !batches.is_empty() {
            let batch = batches[self.pick(batches.len())];
            self.steer_batch(batch, ["/batches/{id}/cancel", "/batches/{id}/retry"][self.pick(2)]).await;
        }
    }

    /// The owner cancels or retries a whole batch, with a key or without.
    pub(super) async fn steer_batch(&mut self, batch: BatchId, action: &'static str) {
        let key = (action.ends_with("retry") && self.pick(2) == 0).then_some("again");
        let request = self.request(action, Some(batch.to_string()), key, &Value::Null);
        self.send(Role::Steersman { jobs: Vec::new(), action, batch: Some(batch) }, action, request).await;
    }

    pub(super) async fn steer_this(&mut self, jobs: Vec<JobId>, action: &'static str, id: String) {
        if action == "/jobs/{id}/retry" {
            self.scene().files.asked.insert(id.clone());
        }
        let request = self.request(action, Some(id), None, &Value::Null);
        self.send(Role::Steersman { jobs, action, batch: None }, action, request).await;
    }

    /// Sends the request of a steersman to the function that serves it.
    async fn send(&mut self, role: Role, action: &'static str, request: ApiGatewayProxyRequest) {
        let event = LambdaEvent::new(request, Context::default());
        let work = move |apps: Apps| async move {
            if action.ends_with("retry") {
                http(submit::handle(&apps.submit, event).await)
            } else {
                http(status::handle(&apps.status, event).await)
            }
        };
        if action.ends_with("retry") {
            let actor = self.next_actor;
            self.scene().events.retrying.insert(actor);
        }
        self.act(role, work).await;
    }

    /// Delivers one or two tickets, possibly before they are visible, to a worker or to the dead-letter function.
    pub(super) async fn deliver(&mut self) {
        // SQS may deliver a message more than once, and before it is visible again.
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

    /// Delivers the visible tickets, up to `at_once` together.
    async fn deliver_all(&mut self, at_once: usize) {
        let now = self.universe.clock.now();
        let due = self.tickets(|message| message.visible_at <= now);
        for tickets in due.chunks(at_once) {
            self.deliver_these(tickets.to_vec()).await;
            self.release_all().await;
        }
    }

    /// The tickets of the queue for which `wanted` is true.
    fn tickets(&self, wanted: impl Fn(&Message) -> bool) -> Vec<usize> {
        let scene = self.scene();
        let there = scene.queue.iter().enumerate().filter(|(_, message)| message.as_ref().is_some_and(&wanted));
        there.map(|(ticket, _)| ticket).collect()
    }

    async fn deliver_these(&mut self, mut tickets: Vec<usize>) {
        // The queue of batches delivers one ticket at a time.
        let of_batch = |scene: &Scene, ticket: usize| {
            scene.queue[ticket].as_ref().is_some_and(|message| message.batch().is_some())
        };
        if of_batch(&self.scene(), tickets[0]) {
            return self.deliver_to_batch(tickets[0]).await;
        }
        tickets.retain(|&ticket| !of_batch(&self.scene(), ticket));
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
            let mut event = SqsEvent::default();
            for &ticket in &tickets {
                let newer = scene.chance(0.02);
                let bug = scene.bug;
                let Some(message) = scene.queue[ticket].as_mut() else { continue };
                message.receives += 1;
                let receives = message.receives;
                message.visible_at = now + VISIBILITY;
                message.dead |= dead;
                let mut record = SqsMessage::default();
                record.message_id = Some(format!("message-{ticket}"));
                record.receipt_handle = Some(format!("receipt-{ticket}"));
                record.attributes.insert("ApproximateReceiveCount".to_owned(), message.receives.to_string());
                record.attributes.insert("SentTimestamp".to_owned(), message.sent_at.ms().to_string());
                let mut ticket: Value = serde_json::from_str(&message.body).unwrap_or_default();
                // During a deployment, newer functions send tickets that older ones cannot read yet.
                record.body =
                    Some(if newer { message.body.replace("\"v\":1", "\"v\":2") } else { message.body.clone() });
                if newer {
                    scene.fault("ticket of a newer version");
                }
                if dead {
                    let ledger = scene.ledger(ticket["job"].as_str().unwrap_or_default());
                    match ticket["queued_at"].as_i64() {
                        Some(queued_at) => ledger.given_up |= queued_at == ledger.queued_at,
                        None => ledger.given_up_blindly = true,
                    }
                }
                if bug == Some(Bug::DeadLetterIgnoresRetry) {
                    ticket["queued_at"].take();
                    record.body = Some(ticket.to_string());
                }
                scene.most_receives = scene.most_receives.max(receives);
                event.records.push(record);
            }
            (dead, event)
        };
        let kind = if dead { "dead letters" } else { "tickets" };
        self.scene().history.push(format!("{}: is delivered the {kind} {tickets:?}", self.next_actor));
        let context = context(INVOCATION);
        if dead {
            let actor = self.next_actor;
            self.scene().dead_letters.insert(actor);
        }
        let role = Role::Worker { tickets, began: self.universe.clock.now() };
        let event = LambdaEvent::new(event, context);
        let work = move |apps: Apps| async move {
            let answer = if dead {
                dead_letter::handle(&apps.dead_letter, event).await
            } else {
                worker::handle(&apps.worker, event).await
            };
            Outcome::of_delivery(&answer.expect("a worker always answers"))
        };
        self.act(role, work).await;
    }

    /// The operator moves the visible messages of the dead-letter queue back. They count as new messages.
    pub(super) fn redrive(&mut self) {
        let mut scene = self.scene();
        let now = scene.clock.now();
        for place in 0..scene.queue.len() {
            let Some(message) = scene.queue[place].take_if(|message| message.dead && message.visible_at <= now) else {
                continue;
            };
            scene.fault("dead letter moved back");
            scene.queue.push(Some(Message { receives: 0, sent_at: now, dead: false, ..message }));
        }
    }

    /// Advances the time: a little, or longer than a lease. Lambda usually stops an invocation at its timeout.
    pub(super) async fn pass_time(&mut self) {
        let kind = self.pick(20);
        let secs = match kind {
            0..11 => self.pick(10),
            // A worker still works while another one's clock says that its lease is over.
            11..14 => INVOCATION.as_secs() as usize - 1 - self.pick(3),
            14..18 => 97 + self.pick(600),
            _ => 7_200,
        };
        self.advance(Duration::from_secs(secs as u64)).await;
        self.scene().history.push(format!("{secs} seconds pass"));
        let now = self.universe.clock.now();
        let mut over = Vec::new();
        for (&id, actor) in &self.actors {
            let lasts = match actor.role {
                Role::Worker { began, .. } => now.since(began) >= INVOCATION,
                Role::Batch { began, .. } => now.since(began) >= BATCH_INVOCATION,
                _ => false,
            };
            if lasts {
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
        if (11..14).contains(&kind) {
            self.deliver_to_another().await;
        }
    }

    /// The ticket of a worker whose time is almost over is delivered to another worker or to the dead-letter function,
    /// which reads the job at once.
    async fn deliver_to_another(&mut self) {
        let now = self.universe.clock.now();
        let held = self.actors.values().find_map(|actor| match &actor.role {
            Role::Worker { tickets, began }
                if (INVOCATION - CLOCKS_DIFFER..INVOCATION).contains(&now.since(*began)) =>
            {
                tickets.first().copied()
            }
            _ => None,
        });
        let Some(ticket) = held.filter(|&ticket| self.scene().queue[ticket].is_some()) else { return };
        self.scene().fault("ticket delivered out of turn");
        let dead = self.pick(3) == 0;
        if let Some(message) = self.scene().queue[ticket].as_mut() {
            message.dead |= dead;
        }
        let actor = self.next_actor;
        self.deliver_these(vec![ticket]).await;
        for _call in ["the look at the job", "the claim"] {
            self.release_one(actor, Fate::Made).await;
        }
    }
}

/// The context of an invocation that lasts so long.
pub(super) fn context(lasts: Duration) -> Context {
    let mut context = Context::default();
    let end = std::time::SystemTime::now() + lasts;
    context.deadline = end.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
    context
}
