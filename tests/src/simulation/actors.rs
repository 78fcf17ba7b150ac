//! The actors: callers that submit, cancel, retry and read, workers, and the dead-letter function, each with a gate of its
//! own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::sqs::SqsBatchResponse;
use aws_sdk_sqs::config::{AsyncSleep, Sleep};
use lambda_runtime::Error;
use local::Apps;
use serde_json::Value;
use shared::api::JobView;
use shared::{BatchId, Clock, JobId, Timestamp};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Bug;
use super::bulk::{MOST_BYTES, size_of};
use super::gate::Gate;
use super::observer::Sight;
use super::scene::{CLOCKS_DIFFER, Fate};
use super::versions::Version;
use super::world::World;
use crate::events;

/// What an actor reports to the scheduler.
pub(super) enum News {
    /// It wants to make a call.
    Call { actor: usize, fate: oneshot::Sender<Fate> },
    /// It has died at one of its calls.
    Died { actor: usize },
    /// It has ended.
    Done { actor: usize, outcome: Outcome },
}

/// The result of an actor's work.
pub(super) enum Outcome {
    /// The status and the body of an HTTP answer.
    Answer(u16, Value),
    /// The positions of the tickets that come back.
    ComeBack(BTreeSet<usize>),
}

/// A sleep that never ends, for the clients. A call may wait at its gate for as long as the scheduler likes, and no
/// timeout by the clock of a busy machine may interrupt it.
#[derive(Debug)]
struct Timeless;

impl AsyncSleep for Timeless {
    fn sleep(&self, duration: Duration) -> Sleep {
        if duration.is_zero() { Sleep::new(std::future::ready(())) } else { Sleep::new(std::future::pending()) }
    }
}

/// Who acts.
pub(super) enum Role {
    /// A caller that submits the jobs of the order with this number.
    Submitter { order: usize },
    /// A caller that cancels or retries these jobs, or a whole batch.
    Steersman { jobs: Vec<JobId>, action: &'static str, batch: Option<BatchId> },
    /// A caller that reads.
    Observer(Sight),
    /// A caller whose request is invalid.
    Nobody,
    /// A worker, or the dead-letter function, with these tickets.
    Worker { tickets: Vec<usize>, began: Timestamp },
    /// The owner of the batch from a file with this number, whose request submits or starts it.
    FileOwner { file: usize, starts: bool },
    /// The function of batches from files, with these tickets.
    Batch { tickets: Vec<usize>, began: Timestamp },
}

pub(super) struct Actor {
    pub(super) role: Role,
    pub(super) task: JoinHandle<()>,
    pub(super) waiting: Option<oneshot::Sender<Fate>>,
    process: Process,
}

/// The functions on one machine, with a clock of its own. They serve one actor after another, and are frozen in between.
pub(super) struct Process {
    pub(super) apps: Apps,
    pub(super) clock: Clock,
    version: Version,
    actor: Arc<AtomicUsize>,
}

impl World<'_> {
    /// Makes the waiting calls, and those that follow from them.
    pub(super) async fn release_all(&mut self) {
        while self.actors.values().any(|actor| actor.waiting.is_some()) {
            self.release(Fate::Made).await;
        }
    }

    /// Gives one of the waiting calls this fate.
    pub(super) async fn release(&mut self, fate: Fate) {
        let waiting: Vec<_> =
            self.actors.iter().filter(|(_, actor)| actor.waiting.is_some()).map(|(&id, _)| id).collect();
        if waiting.is_empty() {
            return;
        }
        let id = waiting[self.pick(waiting.len())];
        self.release_one(id, fate).await;
    }

    /// Gives the waiting call of an actor this fate.
    pub(super) async fn release_one(&mut self, id: usize, fate: Fate) {
        // A call takes some time, so that no two lives of a job begin at the same moment.
        self.advance(Duration::from_millis(1)).await;
        if let Some(told) = self.actors.get_mut(&id).and_then(|actor| actor.waiting.take()) {
            let _ = told.send(fate);
            self.listen().await;
        }
    }

    /// Starts an actor, on functions that were frozen or on new ones.
    pub(super) async fn act<F>(&mut self, role: Role, work: impl FnOnce(Apps) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let id = self.next_actor;
        self.next_actor += 1;
        let knows_files = matches!(role, Role::Batch { .. } | Role::FileOwner { .. });
        let process = self.process(knows_files);
        process.actor.store(id, Ordering::Relaxed);
        let now = self.universe.clock.now();
        self.scene().events.began.insert(id, now);
        if let Role::Worker { began, .. } | Role::Batch { began, .. } = role {
            self.scene().alive.insert(id, began);
        }
        if let Role::Batch { began, .. } = role {
            self.scene().files.began.insert(id, began);
        }
        let (news, work) = (self.sender.clone(), work(process.apps.clone()));
        let task = tokio::spawn(async move {
            let outcome = work.await;
            let _ = news.send(News::Done { actor: id, outcome });
        });
        self.actors.insert(id, Actor { role, task, waiting: None, process });
        self.listen().await;
    }

    /// Waits until the one running actor reports something.
    pub(super) async fn listen(&mut self) {
        loop {
            match self.news.recv().await.expect("the world holds a sender itself") {
                News::Call { actor, fate } => {
                    if let Some(actor) = self.actors.get_mut(&actor) {
                        actor.waiting = Some(fate);
                        return;
                    }
                }
                News::Died { actor } => {
                    if self.actors.contains_key(&actor) {
                        self.bury(actor);
                        return;
                    }
                }
                News::Done { actor, outcome } => {
                    if let Some(actor) = self.actors.remove(&actor).map(|gone| (actor, gone)) {
                        self.done(actor.0, actor.1, outcome);
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn bury(&mut self, id: usize) {
        if let Some(actor) = self.actors.remove(&id) {
            actor.task.abort();
            self.note_unanswered(&actor.role);
        }
        self.scene().history.push(format!("{id}: is gone"));
        self.scene().forget(id);
    }

    pub(super) fn note_unanswered(&mut self, role: &Role) {
        let Role::Steersman { jobs, action, batch } = role else { return };
        if action.ends_with("retry") {
            self.unanswered.extend(jobs);
            self.ever_unanswered.extend(jobs);
        }
        self.scene().events.lost.extend(batch);
    }

    pub(super) fn done(&mut self, id: usize, actor: Actor, outcome: Outcome) {
        self.frozen.push(actor.process);
        match (actor.role, outcome) {
            (Role::Submitter { order }, Outcome::Answer(202, _)) => {
                self.orders[order].accepted = true;
                let batch = self.orders[order].batch.map(|id| id.to_string());
                for job in self.orders[order].jobs.clone() {
                    let scene = &mut *self.scene();
                    let batch = batch.as_ref().and_then(|id| scene.files.batches.get(id));
                    // A batch that is canceled early stores no more jobs.
                    let canceled = batch.is_some_and(|batch| batch.canceled);
                    let ledger = scene.ledger(&job.to_string());
                    // The record of a job may be deleted before that of its batch.
                    ledger.accepted = ledger.status.is_some() || !ledger.aged && !canceled;
                }
            }
            (Role::Observer(sight), Outcome::Answer(status, body)) => self.seen(sight, status, body),
            (Role::Nobody, Outcome::Answer(status, body)) => self.told_nobody(status, &body),
            (Role::Steersman { .. }, Outcome::Answer(200 | 202, body)) => {
                if let Ok(view) = serde_json::from_value::<JobView>(body) {
                    let known = self.scene().ledger(&view.id.to_string()).status;
                    if known.is_none() {
                        self.scene().violation(format!("job {} was steered and never written", view.id));
                    }
                }
            }
            (role @ (Role::Submitter { .. } | Role::Steersman { .. }), Outcome::Answer(status, body)) => {
                if !matches!(status, 404 | 409 | 503) {
                    self.scene().violation(format!("an answer was {status}: {body}"));
                }
                if status == 503 {
                    self.note_unanswered(&role);
                }
            }
            (Role::FileOwner { file, starts }, Outcome::Answer(status, body)) => {
                self.answered(file, starts, status, &body);
            }
            (Role::Worker { tickets, .. } | Role::Batch { tickets, .. }, Outcome::ComeBack(mut back)) => {
                self.scene().history.push(format!("{id}: is done; of {tickets:?} come back {back:?}"));
                let mut scene = self.scene();
                let panicked = scene.panicked.contains(&id);
                if scene.bug == Some(Bug::BusyTicketDeleted)
                    || scene.bug == Some(Bug::PanickedTicketDeleted) && panicked
                {
                    back.clear();
                }
                for ticket in tickets {
                    if !back.contains(&ticket) {
                        scene.queue[ticket] = None;
                    }
                }
            }
            _ => unreachable!("an actor's outcome fits its role"),
        }
        self.scene().forget(id);
    }

    /// Functions that serve no actor: frozen ones, or new ones.
    fn process(&mut self, knows_files: bool) -> Process {
        // The version before the present one has no batches from files.
        let fit = |process: &Process| !knows_files || process.version != Version::Former;
        let frozen: Vec<_> = (0..self.frozen.len()).filter(|&index| fit(&self.frozen[index])).collect();
        if !frozen.is_empty() && self.pick(3) > 0 {
            return self.frozen.swap_remove(frozen[self.pick(frozen.len())]);
        }
        let config = self.universe.stack.config();
        let inner = config.http_client().expect("the stack has a client");
        let (news, scene, actor) = (self.sender.clone(), self.scene.clone(), Arc::new(AtomicUsize::new(0)));
        let version = match self.pick(8) {
            0 if !knows_files => Version::Former,
            1 => Version::Newer,
            _ => Version::Present,
        };
        if version != Version::Present {
            self.scene().fault("functions of another version");
        }
        let gate = Gate { actor: actor.clone(), turn: Arc::default(), version, inner, news, scene };
        let config = config.to_builder().http_client(gate).sleep_impl(Timeless).build();
        let clock = Clock::still(self.universe.clock.now());
        self.set_off(&clock);
        let apps = self.universe.stack.apps_with(config, &clock).expect("the settings are good");
        Process { apps, clock, version, actor }
    }

    /// Sets a clock fast or slow, within the difference that clocks may have.
    fn set_off(&self, clock: &Clock) {
        let off = Duration::from_secs(self.pick(5) as u64);
        if self.scene().calm {
            return;
        }
        clock.advance(off);
        clock.set_back(CLOCKS_DIFFER / 2);
        self.scene().fault("clock that is off");
    }

    /// Advances the time for all, and lets the late calls that are due take effect.
    pub(super) async fn advance(&mut self, span: Duration) {
        let until = self.universe.clock.now() + span;
        self.arrive(until).await;
        self.universe.clock.advance(span);
        for process in self.actors.values().map(|actor| &actor.process).chain(&self.frozen) {
            process.clock.advance(span);
        }
    }

    /// A clock steps, usually back, as when it is corrected.
    pub(super) fn step_a_clock(&mut self) {
        let now = self.universe.clock.now();
        let clocks: Vec<_> = self.actors.values().map(|actor| &actor.process).chain(&self.frozen).collect();
        if clocks.is_empty() {
            return;
        }
        let clock = clocks[self.pick(clocks.len())].clock.clone();
        let before = clock.now();
        clock.set_back(before.since(now) + Duration::from_secs(3600));
        clock.advance(now.since(clock.now()));
        self.set_off(&clock);
        self.scene().fault("clock that steps");
    }

    /// Lets the late calls that are due by then take effect.
    pub(super) async fn arrive(&mut self, until: Timestamp) {
        loop {
            let late = {
                let mut scene = self.scene();
                let due = scene.late.iter().position(|late| late.due <= until);
                due.map(|index| scene.late.remove(index))
            };
            let Some(late) = late else { return };
            late.arrive().await;
        }
    }

    pub(super) fn request(
        &self,
        path: &str,
        id: Option<String>,
        key: Option<&str>,
        body: &Value,
    ) -> ApiGatewayProxyRequest {
        let mut request = events::post(path, id, key, body).payload;
        request.request_context.identity.api_key_id = Some(self.owner.as_str().to_owned());
        request
    }
}

impl Outcome {
    /// What a function has come to that was delivered tickets.
    pub(super) fn of_delivery(answer: &SqsBatchResponse) -> Self {
        let failures = answer.batch_item_failures.iter();
        let back = failures.filter_map(|failure| failure.item_identifier.strip_prefix("message-")?.parse().ok());
        Self::ComeBack(back.collect())
    }
}

pub(super) fn http(answer: Result<ApiGatewayProxyResponse, Error>) -> Outcome {
    let answer = answer.expect("a function always answers");
    if size_of(&answer) > MOST_BYTES {
        return Outcome::too_large();
    }
    let body = match &answer.body {
        Some(Body::Text(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Value::Null,
    };
    Outcome::Answer(u16::try_from(answer.status_code).unwrap_or_default(), body)
}
