//! Worlds whose jobs come from files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use aws_sdk_s3::primitives::ByteStream;
use lambda_runtime::{Context, LambdaEvent};
use local::Apps;
use serde_json::{Value, json};
use shared::api::BatchView;
use shared::batch::{BatchStatus, Counts, Stage};
use shared::job::{ErrorCode, Status};
use shared::{Batch, BatchId, Job, JobId, JobState, Timestamp};

use super::Universe;
use super::actors::{Outcome, Role, http};
use super::events::webhook;
use super::scene::{Fate, Scene};
use super::world::{World, context};

/// The longest invocation of the function of batches.
pub(super) const BATCH_INVOCATION: Duration = Duration::from_secs(900);

/// The visibility timeout of the queue of batches.
const BATCH_VISIBILITY: Duration = Duration::from_secs(5400);

/// SQS moves a ticket to the dead-letter queue that was received more often.
const MOST_RECEIVES: u32 = 1000;

/// After the deadline and this time, a look at a batch that is still open sends it another ticket.
pub(super) const CLEANUP: Duration = Duration::from_secs(3600);

/// How many steps of disorder a world of files has.
const FILE_STEPS: usize = 150;

const MOST_FILES: usize = 3;

const LINES: usize = 3;

const JOBS_PER_PART: usize = 2;

/// A rule that the function of batches might have left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileBug {
    /// The jobs of a part count as admitted though their records were not written.
    RecordsNotWritten,
    /// The jobs of a part count as admitted though their tickets were not sent.
    TicketsForgotten,
    /// The results are written while jobs are unfinished.
    ResultsTooEarly,
    /// The jobs of a canceled batch are admitted.
    CancellationOverlooked,
}

impl FileBug {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::RecordsNotWritten, Self::TicketsForgotten, Self::ResultsTooEarly, Self::CancellationOverlooked];
}

/// What the world knows of batches by watching the wire.
#[derive(Default)]
pub(super) struct SeenFiles {
    /// The jobs that somebody asked to retry, each by itself. That sends the ticket of a queued job.
    pub(super) asked: BTreeSet<String>,
    pub(super) bug: Option<FileBug>,
    /// When each invocation of the function of batches began.
    pub(super) began: BTreeMap<usize, Timestamp>,
    pub(super) batches: BTreeMap<String, BatchLedger>,
}

/// What was seen of one batch.
#[derive(Default)]
pub(super) struct BatchLedger {
    /// Its jobs, which are those of the good lines of a file.
    jobs: Vec<String>,
    /// The stage that was written last.
    stage: Option<Stage>,
    /// Whether its record says that it was canceled.
    pub(super) canceled: bool,
    /// Whether all its jobs were canceled, and it should have no more.
    closed: bool,
    /// When the invocation began that ended it last.
    ended_by: Option<Timestamp>,
    /// Whether its ticket was lost.
    lost_ticket: bool,
}

/// A batch from a file, as its owner knows it.
pub(super) struct FileOrder {
    pub(super) batch: BatchId,
    /// The jobs of its good lines.
    pub(super) jobs: Vec<JobId>,
    request: ApiGatewayProxyRequest,
    content: String,
    faulty_lines: usize,
    /// Whether a faulty line makes the batch invalid.
    refuses: bool,
    submitted: bool,
    uploaded: bool,
    started: bool,
    /// Whether it cannot be started any more.
    over: bool,
}

/// Gives a new batch from a file so small parts that it has several.
pub(super) fn shrink_parts(item: &mut Value) {
    if item["file"]["M"]["format"].is_object() {
        item["file"]["M"]["jobs_per_part"] = json!({ "N": JOBS_PER_PART.to_string() });
    }
}

/// Makes a record look as if nobody had canceled its batch.
pub(super) fn hide_cancellation(item: &mut Value) {
    if item["file"]["M"].is_object() {
        item["canceled_at"] = json!({ "NULL": true });
        item["file"]["M"]["cancel_from"] = json!({ "NULL": true });
    }
}

/// Makes the record of an unfinished job look as if it were canceled.
pub(super) fn show_canceled(item: &mut Value) {
    if item["status"]["S"] == json!("queued") || item["status"]["S"] == json!("running") {
        item["status"] = json!({ "S": "canceled" });
        // The index has fewer attributes.
        if item.get("created_at").is_some() {
            item["finished_at"] = item["created_at"].clone();
        }
    }
}

impl BatchLedger {
    /// Nothing was seen yet of a batch with these jobs.
    pub(super) fn of(jobs: &[JobId]) -> Self {
        Self { jobs: jobs.iter().map(ToString::to_string).collect(), ..Self::default() }
    }
}

impl Scene {
    /// Whether the actor is the function of batches, and has this bug.
    pub(super) fn has_file_bug(&self, actor: usize, bug: FileBug) -> bool {
        self.files.bug == Some(bug) && self.files.began.contains_key(&actor)
    }

    /// Watches the record of a batch being written.
    pub(super) fn batch_written(&mut self, actor: usize, id: &str, item: &Value) {
        let row = &item["file"]["M"];
        let Some(stage) = row["stage"]["S"].as_str().and_then(|stage| stage.parse::<Stage>().ok()) else { return };
        let Some(mut batch) = self.files.batches.remove(id) else { return };
        if row["fence"]["N"] == json!("0") {
            // It is new, perhaps in place of one that has expired.
            batch = BatchLedger { jobs: batch.jobs, ..BatchLedger::default() };
        }
        let is_there = |value: &Value| !value.is_null() && value["NULL"].is_null();
        let (version, admitted) = (&row["fence"]["N"], &row["admitted_jobs"]["N"]);
        self.history.push(format!("{actor}: batch {id} becomes {stage:?}, version {version}, admitted {admitted}"));
        let canceled = is_there(&item["canceled_at"]);
        if batch.canceled && !canceled {
            self.violation(format!("batch {id} was canceled, and its record says so no longer"));
        }
        batch.canceled = canceled;
        batch.stage = Some(stage);
        let passing = is_there(&row["cancel_from"]) || is_there(&row["retry_from"]);
        batch.closed = canceled && !passing && matches!(stage, Stage::InProgress | Stage::Ended);
        let total: usize = item["total"]["N"].as_str().and_then(|total| total.parse().ok()).unwrap_or_default();
        if stage == Stage::Ended && total > 0 {
            // Somebody may retry a job after the invocation has read it.
            let began = self.files.began.get(&actor).copied();
            let retried = |scene: &Self, job| scene.retried.get(job).copied() >= began;
            for job in &batch.jobs {
                let status = self.jobs.get(job).and_then(|job| job.status);
                if status.is_some_and(|status| status <= Status::Running) && !retried(self, job) && !canceled {
                    self.violation(format!("batch {id} has ended while job {job} was {status:?}"));
                }
            }
            batch.ended_by = began;
        }
        self.files.batches.insert(id.to_owned(), batch);
    }

    /// Watches a job being claimed for the first time.
    pub(super) fn claimed(&mut self, job: &str) {
        let closed = self.files.batches.iter().find(|(_, batch)| batch.closed && batch.jobs.iter().any(|id| id == job));
        if let Some((id, _)) = closed.filter(|_| !self.files.asked.contains(job)) {
            let violation = format!("job {job} was claimed after all jobs of batch {id} were canceled");
            self.violation(violation);
        }
    }
}

impl<'a> World<'a> {
    /// Lets the world of a seed happen whose jobs come from files.
    pub(super) async fn with_files(universe: &'a Universe, seed: u64, bug: Option<FileBug>) -> Self {
        let mut world = World::new(universe, seed, None);
        world.owner = shared::Owner::new(format!("world of files {seed} of {bug:?}"));
        world.scene().files.bug = bug;
        world.disorder_of_files(FILE_STEPS).await;
        world.settle_files().await;
        world.check_files().await;
        world
    }

    async fn disorder_of_files(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.pick(100) {
                0..9 => self.next_request().await,
                9..11 => self.steer("/jobs/{id}/cancel").await,
                11..13 => self.steer("/jobs/{id}/retry").await,
                13..17 => self.steer_file().await,
                17..35 => self.deliver().await,
                35..42 => self.pass_time().await,
                42..46 => self.look_at_files().await,
                46 => self.redrive(),
                47 => self.step_a_clock(),
                48 if self.pick(4) == 0 => self.scene().begin_spell(),
                49..55 => self.go_on().await,
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

    /// An actor makes some calls without trouble.
    async fn go_on(&mut self) {
        let waiting: Vec<_> = self.actors.keys().copied().collect();
        if waiting.is_empty() {
            return;
        }
        let actor = waiting[self.pick(waiting.len())];
        for _ in 0..=self.pick(16) {
            if self.actors.get(&actor).is_some_and(|actor| actor.waiting.is_some()) {
                self.release_one(actor, Fate::Made).await;
            }
        }
    }

    /// The owner of a file does what comes next, or repeats a request.
    async fn next_request(&mut self) {
        if self.files.is_empty() || self.files.len() < MOST_FILES && self.pick(3) == 0 {
            self.new_file();
        }
        let file = self.pick(self.files.len());
        self.request_for(file).await;
    }

    async fn request_for(&mut self, file: usize) {
        let order = &self.files[file];
        if !order.submitted {
            self.submit_file(file).await;
        } else if !order.uploaded {
            self.upload(file).await;
        } else {
            self.start(file).await;
        }
    }

    fn new_file(&mut self) {
        let key = format!("file-{}", self.files.len());
        let batch = BatchId::from_key(&self.owner, &key.parse().expect("a good key"));
        let format = ["ndjson", "csv", "txt"][self.pick(3)];
        let refuses = self.pick(2) == 0;
        let mut content = String::new();
        if format == "csv" {
            content.push_str("prompt,seed\n");
        }
        let (mut jobs, mut faulty_lines) = (Vec::new(), 0);
        for _ in 0..LINES {
            if self.pick(6) == 0 {
                faulty_lines += 1;
                content.push_str(&match format {
                    "ndjson" => "{\"prompt\":\"\"}\n".to_owned(),
                    "csv" => "a prompt,no seed\n".to_owned(),
                    _ => format!("{}\n", "x".repeat(10_001)),
                });
                continue;
            }
            let job = JobId::in_batch(batch, jobs.len());
            let unfit = if self.pick(5) == 0 { " nsfw" } else { "" };
            let prompt = format!("{job}{unfit}");
            self.scene().prompts.insert(prompt.clone(), job.to_string());
            let poster = (self.pick(4) == 0).then(|| json!({ "title": "Heist" }));
            content.push_str(&match format {
                "ndjson" => format!("{}\n", json!({ "prompt": prompt, "poster": poster })),
                "csv" => format!("{prompt},\n"),
                _ => format!("{prompt}\n"),
            });
            jobs.push(job);
        }
        let on_bad_line = if refuses { "refuse" } else { "skip" };
        let webhook = webhook(&batch.to_string(), true);
        let body = json!({ "input": { "format": format }, "on_bad_line": on_bad_line, "webhook": webhook });
        let request = self.request("/batches", None, Some(&key), &body);
        self.scene().files.batches.insert(batch.to_string(), BatchLedger::of(&jobs));
        self.files.push(FileOrder {
            batch,
            jobs,
            request,
            content,
            faulty_lines,
            refuses,
            submitted: false,
            uploaded: false,
            started: false,
            over: false,
        });
    }

    async fn submit_file(&mut self, file: usize) {
        let event = LambdaEvent::new(self.files[file].request.clone(), Context::default());
        let work = |apps: Apps| async move { http(submit::handle(&apps.submit, event).await) };
        self.act(Role::FileOwner { file, starts: false }, work).await;
    }

    async fn upload(&mut self, file: usize) {
        let order = &mut self.files[file];
        order.uploaded = true;
        let (ready, key) = (self.universe.stack.ready(), format!("batches/{}/input", order.batch));
        let body = ByteStream::from(order.content.clone().into_bytes());
        self.s3().put_object().bucket(&ready.bucket).key(key).body(body).send().await.expect("the bucket answers");
    }

    async fn start(&mut self, file: usize) {
        let batch = self.files[file].batch.to_string();
        let event =
            LambdaEvent::new(self.request("/batches/{id}/start", Some(batch), None, &Value::Null), Context::default());
        let work = |apps: Apps| async move { http(submit::handle(&apps.submit, event).await) };
        self.act(Role::FileOwner { file, starts: true }, work).await;
    }

    /// The owner of a file is answered.
    pub(super) fn answered(&mut self, file: usize, starts: bool, status: u16, body: &Value) {
        let order = &mut self.files[file];
        match status {
            202 if starts => order.started = true,
            202 => order.submitted = true,
            409 if starts && body["code"] != json!("no_input") => order.over = true,
            503 => {}
            _ => self.scene().violation(format!("an owner of a file was answered {status}: {body}")),
        }
    }

    /// Somebody cancels or retries a batch from a file.
    async fn steer_file(&mut self) {
        let Some(mut batch) = self.some_file() else { return };
        let mut action = ["/batches/{id}/cancel", "/batches/{id}/retry"][self.pick(2)];
        if self.pick(4) > 0
            && let Some((critical, means)) = self.critical_file()
        {
            (batch, action) = (critical, means);
        }
        self.scene().fault("batch from a file steered");
        self.steer_batch(batch, action).await;
    }

    /// A batch that is being admitted and should be canceled, or one that has ended and should be retried.
    fn critical_file(&self) -> Option<(BatchId, &'static str)> {
        let scene = self.scene();
        let stage = |order: &FileOrder| scene.files.batches.get(&order.batch.to_string())?.stage;
        self.files.iter().find_map(|order| match stage(order)? {
            Stage::Admitting => Some((order.batch, "/batches/{id}/cancel")),
            Stage::Ended => Some((order.batch, "/batches/{id}/retry")),
            _ => None,
        })
    }

    fn some_file(&self) -> Option<BatchId> {
        (!self.files.is_empty()).then(|| self.files[self.pick(self.files.len())].batch)
    }

    async fn look_at_files(&mut self) {
        let Some(batch) = self.some_file() else { return };
        match self.pick(3) {
            0 => self.list_batch(batch).await,
            1 => self.look_at_batch(batch).await,
            _ => {
                let jobs = self.jobs();
                if !jobs.is_empty() {
                    self.look(jobs[self.pick(jobs.len())]).await;
                }
            }
        }
    }

    /// Holds what somebody saw of a batch against the rules.
    pub(super) fn seen_batch(&self, view: &BatchView) {
        let mut scene = self.scene();
        let has_ended = |batch: &BatchLedger| batch.ended_by.is_some() || batch.canceled;
        let known = scene.files.batches.get(&view.id.to_string()).is_some_and(has_ended);
        let ended =
            matches!(view.status, BatchStatus::Completed | BatchStatus::CompletedWithErrors | BatchStatus::Canceled);
        if ended && !known {
            scene.violation(format!("batch {} was shown as {} and has not ended", view.id, view.status));
        }
        let Counts { total, queued, running, succeeded, failed, canceled } = view.counts;
        if total != queued + running + succeeded + failed + canceled || ended && queued + running > 0 {
            scene.violation(format!("batch {} is {} with {:?}", view.id, view.status, view.counts));
        }
    }

    /// Delivers the ticket of a batch to its function.
    pub(super) async fn deliver_to_batch(&mut self, ticket: usize) {
        let mut record = SqsMessage::default();
        {
            let mut scene = self.scene();
            let (lost, newer) = (scene.chance(0.02), scene.chance(0.02));
            let now = scene.clock.now();
            let Some(message) = scene.queue[ticket].as_mut() else { return };
            if lost {
                let batch = message.batch().unwrap_or_default();
                scene.queue[ticket] = None;
                scene.events.lost.extend(batch.parse::<BatchId>());
                if let Some(batch) = scene.files.batches.get_mut(&batch) {
                    batch.lost_ticket = true;
                }
                scene.fault("ticket of a batch lost");
                return;
            }
            message.receives += 1;
            message.visible_at = now + BATCH_VISIBILITY;
            let receives = message.receives;
            record.message_id = Some(format!("message-{ticket}"));
            record.receipt_handle = Some(format!("receipt-{ticket}"));
            record.attributes.insert("ApproximateReceiveCount".to_owned(), receives.to_string());
            let body = message.body.clone();
            record.body = Some(if newer { body.replace("\"v\":1", "\"v\":2") } else { body });
            if newer {
                scene.fault("ticket of a newer version");
            }
            scene.most_receives = scene.most_receives.max(receives);
            if receives > MOST_RECEIVES {
                scene.violation(format!("the ticket {ticket} of a batch was received {receives} times"));
            }
        }
        self.scene().history.push(format!("{}: is delivered the ticket {ticket} of a batch", self.next_actor));
        let mut event = SqsEvent::default();
        event.records.push(record);
        let event = LambdaEvent::new(event, context(BATCH_INVOCATION));
        let work = |apps: Apps| async move {
            Outcome::of_delivery(&batch::handle(&apps.batch, event).await.expect("the function always answers"))
        };
        self.act(Role::Batch { tickets: vec![ticket], began: self.universe.clock.now() }, work).await;
    }

    /// Nothing goes wrong any more, and every owner of a file goes on until it is started.
    async fn settle_files(&mut self) {
        {
            let mut scene = self.scene();
            scene.calm = true;
            scene.throttled_writes = 0;
        }
        self.release_all().await;
        self.arrive(Timestamp::from_ms(i64::MAX)).await;
        self.advance(Duration::from_secs(60)).await;
        for file in 0..self.files.len() {
            while !self.files[file].started && !self.files[file].over && self.scene().violations.is_empty() {
                self.request_for(file).await;
                self.release_all().await;
            }
        }
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
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        let stack = &self.universe.stack;
        let config = aws_sdk_s3::config::Builder::from(stack.config()).endpoint_url(&stack.ready().s3);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// The lines of one of a batch's files; `None` if it was not written.
    async fn document(&self, id: BatchId, name: &str) -> Option<Vec<Value>> {
        let get =
            self.s3().get_object().bucket(&self.universe.stack.ready().bucket).key(format!("batches/{id}/{name}"));
        let body = get.send().await.ok()?.body.collect().await.ok()?.into_bytes();
        let text = String::from_utf8(body.to_vec()).ok()?;
        Some(text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect())
    }

    /// Holds the world against the rules.
    async fn check_files(&mut self) {
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        let mut records = BTreeMap::new();
        for file in 0..self.files.len() {
            let batch = self.record(self.files[file].batch).await;
            let jobs = self.files[file].jobs.clone();
            let mut found = BTreeMap::new();
            for id in jobs {
                if let Some(job) = table.get(id).await.expect("the table answers") {
                    found.insert(id, job);
                }
            }
            let Some(batch) = batch else {
                self.scene().violation(format!("a batch from file {file} has no record"));
                continue;
            };
            self.expect_jobs(file, &batch, &found);
            records.insert(file, batch);
        }
        self.check().await;
        for (file, batch) in records {
            if batch.stage == Stage::Ended && batch.total > 0 {
                let order = &self.files[file];
                self.check_results(&batch, &order.jobs, order.faulty_lines).await;
            }
            let faults = self.document(batch.id, "faults.ndjson").await.unwrap_or_default();
            let counted = batch.input().map_or(0, |input| input.checked.faults);
            if batch.has_faults() && faults.len() as u64 != counted {
                let what = format!("batch {} has {counted} faults, and lists {faults:?}", batch.id);
                self.scene().violation(what);
            }
        }
        self.read_lists().await;
        self.release_all().await;
    }

    /// Holds a batch's stage and the existence of its jobs against its file.
    fn expect_jobs(&self, file: usize, batch: &Batch, found: &BTreeMap<JobId, Job>) {
        let order = &self.files[file];
        let valid = !order.jobs.is_empty() && (order.faulty_lines == 0 || !order.refuses);
        let canceled = batch.canceled_at.is_some();
        let mut scene = self.scene();
        let mut expect = |good: bool, rule: &str| {
            if !good {
                let (id, stage) = (batch.id, batch.stage);
                scene.violation(format!("batch {id} is {stage:?}, its jobs {:?}: {rule}", found.keys()));
            }
        };
        match batch.stage {
            Stage::Invalid => {
                expect(!valid, "its file is good");
                expect(found.is_empty(), "an invalid batch has no jobs");
                expect(batch.input().is_some_and(|input| input.checked.faults > 0), "an invalid batch has faults");
            }
            Stage::Ended if batch.total == 0 => {
                expect(canceled, "only a canceled batch ends without jobs");
                expect(found.is_empty(), "a batch that was canceled in time has no jobs");
            }
            Stage::Ended => {
                expect(valid, "its file is faulty");
                expect(batch.total == order.jobs.len(), "it has another number of jobs than its file");
                expect(canceled || found.len() == order.jobs.len(), "a job has no record");
            }
            Stage::AwaitingInput => expect(!order.started, "it was started"),
            Stage::Submitting => expect(false, "its jobs come from a file"),
            Stage::Checking | Stage::Admitting | Stage::InProgress => expect(false, "it was started and never ends"),
        }
        for id in found.keys() {
            scene.ledger(&id.to_string()).accepted = true;
        }
        let lost = scene.files.batches.get(&batch.id.to_string()).is_some_and(|batch| batch.lost_ticket);
        for (id, job) in found {
            if let JobState::Failed { error, .. } = &job.state
                && error.code == ErrorCode::DeadlineExceeded
                && !lost
                && !self.ever_unanswered.contains(id)
            {
                scene.violation(format!("job {id} waited until its deadline, and no ticket of it was lost"));
            }
        }
    }

    /// Holds the results of a batch against its record, its request or file, and the records of its jobs.
    pub(super) async fn check_results(&self, batch: &Batch, jobs: &[JobId], faulty_lines: usize) {
        let table = self.universe.stack.aws().table(self.universe.stack.ready().table.clone());
        let id = batch.id;
        let name = batch.complete_results().map(|name| format!("results-{name}.ndjson")).unwrap_or_default();
        let Some(lines) = self.document(id, &name).await else {
            self.scene().violation(format!("batch {id} has ended without results"));
            return;
        };
        let (skipped, of_jobs): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["status"] == json!("invalid"));
        if skipped.len() != faulty_lines || of_jobs.len() != jobs.len() {
            self.scene().violation(format!("the results of batch {id} have other lines than its jobs: {lines:?}"));
            return;
        }
        let place = if batch.input().is_some() { "line" } else { "index" };
        if !lines.is_sorted_by_key(|line| line[place].as_u64()) {
            self.scene().violation(format!("the results of batch {id} are out of order: {lines:?}"));
        }
        let statuses = of_jobs.iter().filter_map(|line| line["status"].as_str()?.parse::<Status>().ok());
        let counts = Counts::of(statuses);
        if counts != batch.progress.counts {
            let recorded = batch.progress.counts;
            self.scene().violation(format!("batch {id} counts {recorded:?}, and its results are {lines:?}"));
        }
        for (job_id, line) in jobs.iter().zip(of_jobs) {
            let job = table.get(*job_id).await.expect("the table answers");
            let name = job_id.to_string();
            let mut scene = self.scene();
            let ended_by = scene.files.batches.get(&id.to_string()).and_then(|batch| batch.ended_by);
            let retried = scene.retried.get(&name).copied();
            let written = line["status"].as_str().unwrap_or_default();
            match job {
                None if written == "canceled" && line["job_id"].is_null() => {}
                // It was stored after its batch had ended, and nobody ever worked on it.
                Some(job)
                    if written == "canceled" && line["job_id"].is_null() && job.attempts == 0 && job.setbacks == 0 => {}
                Some(job) if job.status().as_str() == written && line["job_id"] == json!(name) => {}
                Some(_) if retried.is_some() && retried >= ended_by => {}
                job => {
                    let status = job.map(|job| job.status());
                    scene.violation(format!("job {name} is {status:?}, and the results of batch {id} say {line}"));
                }
            }
        }
    }
}
