//! Those who act: submitters, steersmen, workers and the function of dead letters, each over a gate of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::http::Method;
use aws_sdk_sqs::config::{AsyncSleep, Sleep};
use lambda_runtime::Error;
use local::Apps;
use serde_json::Value;
use shared::api::JobView;
use shared::{JobId, Timestamp};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Bug;
use super::gate::Gate;
use super::scene::Fate;
use super::world::World;

/// What an actor tells the scheduler.
pub(super) enum News {
    /// It wants to make a call.
    Call { actor: usize, fate: oneshot::Sender<Fate> },
    /// It has died of a call's fate.
    Died { actor: usize },
    /// It has come to its end.
    Done { actor: usize, outcome: Outcome },
}

/// What an actor has come to.
pub(super) enum Outcome {
    /// The status of an answer over HTTP, and the body.
    Answer(u16, Value),
    /// The positions of the tickets that come back.
    ComeBack(BTreeSet<usize>),
}

/// What the clients know of time: nothing. A call may wait at its gate for as long as the scheduler likes, and no timeout of
/// the machine's clock, which may be a busy one, has a say in it.
#[derive(Debug)]
struct Timeless;

impl AsyncSleep for Timeless {
    fn sleep(&self, duration: Duration) -> Sleep {
        if duration.is_zero() { Sleep::new(std::future::ready(())) } else { Sleep::new(std::future::pending()) }
    }
}

/// Who acts.
pub(super) enum Role {
    /// Somebody who submits the jobs of the order with this number.
    Submitter { order: usize },
    /// Somebody who cancels or retries this job.
    Steersman { job: JobId, action: &'static str },
    /// A worker, or the function of dead letters, with these tickets.
    Worker { tickets: Vec<usize>, began: Timestamp },
}

pub(super) struct Actor {
    pub(super) role: Role,
    pub(super) task: JoinHandle<()>,
    pub(super) waiting: Option<oneshot::Sender<Fate>>,
}
impl World<'_> {
    /// Lets the waiting calls be made, and those that follow from them.
    pub(super) async fn release_all(&mut self) {
        while self.actors.values().any(|actor| actor.waiting.is_some()) {
            self.release(Fate::Made).await;
        }
    }

    /// Lets one of the waiting calls have its fate.
    pub(super) async fn release(&mut self, fate: Fate) {
        let waiting: Vec<_> =
            self.actors.iter().filter(|(_, actor)| actor.waiting.is_some()).map(|(&id, _)| id).collect();
        if waiting.is_empty() {
            return;
        }
        let id = waiting[self.pick(waiting.len())];
        if let Some(told) = self.actors.get_mut(&id).and_then(|actor| actor.waiting.take()) {
            let _ = told.send(fate);
            self.listen().await;
        }
    }

    pub(super) async fn act(&mut self, id: usize, role: Role, work: impl Future<Output = Outcome> + Send + 'static) {
        let news = self.sender.clone();
        let task = tokio::spawn(async move {
            let outcome = work.await;
            let _ = news.send(News::Done { actor: id, outcome });
        });
        self.actors.insert(id, Actor { role, task, waiting: None });
        self.listen().await;
    }

    /// Waits until the one actor that is not waiting itself has something to tell.
    pub(super) async fn listen(&mut self) {
        loop {
            match self.news.recv().await.expect("the world holds a sender itself") {
                News::Call { actor, fate } => {
                    if let Some(actor) = self.actors.get_mut(&actor) {
                        assert!(actor.waiting.is_none(), "an actor makes one call at a time");
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
        if let Role::Steersman { job, action: "retry" } = role {
            self.unanswered.insert(*job);
        }
    }

    pub(super) fn done(&mut self, id: usize, actor: Actor, outcome: Outcome) {
        match (actor.role, outcome) {
            (Role::Submitter { order }, Outcome::Answer(202, _)) => {
                self.orders[order].accepted = true;
                for job in self.orders[order].jobs.clone() {
                    self.scene().ledger(&job.to_string()).accepted = true;
                }
            }
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
            (Role::Worker { tickets, .. }, Outcome::ComeBack(mut back)) => {
                self.scene().history.push(format!("{id}: is done; of {tickets:?} come back {back:?}"));
                let mut scene = self.scene();
                if scene.bug == Some(Bug::BusyTicketDeleted) {
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

    /// Functions of an actor's own, over its own gate.
    pub(super) fn apps(&mut self, hurried: bool) -> (usize, Apps) {
        let actor = self.next_actor;
        self.next_actor += 1;
        let config = self.universe.stack.config();
        let inner = config.http_client().expect("the stack has a client");
        let (news, scene) = (self.sender.clone(), self.scene.clone());
        let gate = Gate { actor, hurried, inner, turn: Arc::default(), news, scene };
        let config = config.to_builder().http_client(gate).sleep_impl(Timeless).build();
        (actor, self.universe.stack.apps_with(config).expect("the settings are good"))
    }

    pub(super) fn request(
        &self,
        path: &str,
        id: Option<JobId>,
        key: Option<&str>,
        body: &Value,
    ) -> ApiGatewayProxyRequest {
        let mut request = ApiGatewayProxyRequest::default();
        request.resource = Some(path.to_owned());
        request.http_method = Method::POST;
        request.request_context.identity.api_key_id = Some(self.owner.as_str().to_owned());
        request.path_parameters.extend(id.map(|id| ("id".to_owned(), id.to_string())));
        if let Some(key) = key {
            request.headers.insert("idempotency-key", key.parse().expect("a header"));
        }
        if !body.is_null() {
            request.headers.insert("content-type", "application/json".parse().expect("a header"));
            request.body = Some(body.to_string());
        }
        request
    }
}

pub(super) fn http(answer: Result<ApiGatewayProxyResponse, Error>) -> Outcome {
    let answer = answer.expect("a function always answers");
    let body = match &answer.body {
        Some(Body::Text(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Value::Null,
    };
    Outcome::Answer(u16::try_from(answer.status_code).unwrap_or_default(), body)
}
