//! The observers, who read a job, a batch, or a list page by page, and the rules for what they see.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_lambda_events::http::Method;
use lambda_runtime::{Context, LambdaEvent};
use local::Apps;
use serde_json::{Value, json};
use shared::api::{BatchView, JobView};
use shared::job::Status;
use shared::{BatchId, JobId, Timestamp};

use super::Bug;
use super::actors::{Outcome, Role, http};
use super::bulk::{WholePage, size_of};
use super::scene::{CLOCKS_DIFFER, Ledger};
use super::world::World;

/// How many jobs of a list are on a page.
const LIMIT: usize = 2;

/// How many are on a page of large ones: the largest limit.
const MOST: usize = 100;

/// What an observer reads, and what was known before.
pub(super) struct Sight {
    what: What,
    /// The jobs that had been seen to end, with their status and their deadline, which a retry changes.
    ended: BTreeMap<JobId, (Status, Timestamp)>,
    /// The jobs that had been accepted.
    accepted: BTreeSet<JobId>,
    began: Timestamp,
}

enum What {
    Job(JobId),
    Batch,
    List(Option<Status>),
    /// A whole list, after the faults have stopped, and the accepted jobs that belong in it.
    WholeList(BTreeSet<JobId>),
    /// The list of all batches, after the faults have stopped, and those that belong in it.
    AllBatches(BTreeSet<BatchId>),
}

impl World<'_> {
    /// An observer reads something.
    pub(super) async fn observe(&mut self) {
        let (jobs, batches) = (self.jobs(), self.batches());
        match self.pick(4) {
            0 if !batches.is_empty() => {
                self.look_at_batch(batches[self.pick(batches.len())]).await;
            }
            1 => {
                let of_batch = if batches.is_empty() { None } else { batches.get(self.pick(batches.len() + 1)) };
                let path = if of_batch.is_some() { "/batches/{id}/jobs" } else { "/jobs" };
                let status = Status::ALL.get(self.pick(Status::ALL.len() + 1)).copied();
                self.look_at(What::List(status), path, of_batch.map(BatchId::to_string)).await;
            }
            _ if !jobs.is_empty() => self.look(jobs[self.pick(jobs.len())]).await,
            _ => {}
        }
    }

    /// An observer reads a job.
    pub(super) async fn look(&mut self, id: JobId) {
        self.look_at(What::Job(id), "/jobs/{id}", Some(id.to_string())).await;
    }

    /// An observer reads a batch.
    pub(super) async fn look_at_batch(&mut self, id: BatchId) {
        self.look_at(What::Batch, "/batches/{id}", Some(id.to_string())).await;
    }

    /// An observer reads the jobs of a batch.
    pub(super) async fn list_batch(&mut self, id: BatchId) {
        self.look_at(What::List(None), "/batches/{id}/jobs", Some(id.to_string())).await;
    }

    /// An observer reads all lists.
    pub(super) async fn read_lists(&mut self) {
        let of_files = self.files.iter().map(|file| (Some(file.batch), file.jobs.clone()));
        let lists: Vec<_> = self.orders.iter().map(|order| (order.batch, order.jobs.clone())).chain(of_files).collect();
        let now = self.universe.clock.now();
        let mut jobs: BTreeMap<Option<BatchId>, BTreeSet<JobId>> = BTreeMap::new();
        let mut batches = BTreeSet::new();
        for (batch, of_list) in lists {
            let mut scene = self.scene();
            // A job whose retention is over is in no list, even if its record is not deleted yet.
            let is_listed = |id: &&JobId| {
                let ledger = scene.ledger(&id.to_string());
                ledger.accepted && ledger.expires_at.is_none_or(|end| end > now + CLOCKS_DIFFER)
            };
            jobs.entry(batch).or_default().extend(of_list.iter().filter(is_listed));
            // The record of a batch may be deleted before those of its jobs, but not before any of them has aged.
            let is_kept =
                |id: &JobId| matches!(scene.ledger(&id.to_string()), Ledger { accepted: true, aged: false, .. });
            batches.extend(batch.filter(|_| of_list.iter().all(is_kept) && !of_list.is_empty()));
        }
        for (batch, jobs) in jobs {
            let path = if batch.is_some() { "/batches/{id}/jobs" } else { "/jobs" };
            self.look_at(What::WholeList(jobs), path, batch.map(|id| id.to_string())).await;
        }
        self.look_at(What::AllBatches(batches), "/batches", None).await;
    }

    async fn look_at(&mut self, what: What, path: &str, id: Option<String>) {
        let mut request = self.request(path, id, None, &Value::Null);
        request.http_method = Method::GET;
        let mut query = HashMap::new();
        let limit = if self.large { MOST } else { LIMIT };
        if matches!(what, What::List(_) | What::WholeList(_) | What::AllBatches(_)) {
            query.insert("limit".to_owned(), limit.to_string());
        }
        if let What::List(Some(status)) = what {
            query.insert("status".to_owned(), status.to_string());
        }
        let known = |id: &JobId| self.scene().ended.get(&id.to_string()).copied();
        let ended = self.jobs().into_iter().filter_map(|id| Some((id, known(&id)?))).collect();
        let is_accepted = |id: &JobId| self.scene().ledger(&id.to_string()).accepted;
        let accepted = self.jobs().into_iter().filter(is_accepted).collect();
        let bug = self.scene().bug;
        let work = move |apps: Apps| async move {
            let (mut entries, mut whole) = (Vec::new(), WholePage::default());
            loop {
                let mut request = request.clone();
                request.multi_value_query_string_parameters = query.clone().into();
                let answer = status::handle(&apps.status, LambdaEvent::new(request, Context::default())).await;
                let bytes = answer.as_ref().map_or(0, size_of);
                let outcome = http(answer);
                let Outcome::Answer(200, mut body) = outcome else { return outcome };
                let list = if body["batches"].is_array() { "batches" } else { "jobs" };
                let Some(page) = body[list].as_array_mut().map(std::mem::take) else {
                    return Outcome::Answer(200, body);
                };
                if bug == Some(Bug::PageWithoutEnd) && whole.is_too_large_with(page.len(), bytes, limit) {
                    return Outcome::too_large();
                }
                entries.extend(page);
                match body["next_cursor"].as_str() {
                    Some(cursor) => query.insert("cursor".to_owned(), cursor.to_owned()),
                    None => return Outcome::Answer(200, json!({ list: entries })),
                };
            }
        };
        self.act(Role::Observer(Sight { what, ended, accepted, began: self.universe.clock.now() }), work).await;
    }

    /// Checks what an observer saw against the rules.
    pub(super) fn seen(&mut self, sight: Sight, status: u16, body: Value) {
        let Sight { what, ended, accepted, began } = &sight;
        match (what, status) {
            (_, 503) => {}
            (What::Job(id), 404) if accepted.contains(id) => {
                self.scene().violation(format!("job {id} was accepted and is not found"));
            }
            (_, 404) => {}
            (What::Job(_), 200) => {
                let view: JobView = serde_json::from_value(body).expect("it is a job");
                self.seen_job(ended, *began, &view);
                let mut scene = self.scene();
                if view.finished_at.is_some() {
                    scene.ended.insert(view.id.to_string(), (view.status, view.deadline_at));
                }
            }
            (What::Batch, 200) => {
                let view: BatchView = serde_json::from_value(body).expect("it is a batch");
                self.seen_batch(&view);
            }
            (What::List(_) | What::WholeList(_), 200) => {
                let jobs: Vec<JobView> = serde_json::from_value(body["jobs"].clone()).expect("they are jobs");
                let mut met = BTreeSet::new();
                for view in jobs {
                    self.seen_job(ended, *began, &view);
                    let (id, status) = (view.id, view.status);
                    if matches!(what, What::List(Some(wanted)) if *wanted != status) {
                        self.scene().violation(format!("job {id} is {status} in a list of another state"));
                    }
                    if !met.insert(id) {
                        self.scene().violation(format!("job {id} is twice in a list"));
                    }
                }
                if let What::WholeList(wanted) = what
                    && let Some(id) = wanted.iter().find(|id| !met.contains(id))
                {
                    self.scene().violation(format!("job {id} was accepted and is in no list"));
                }
            }
            (What::AllBatches(wanted), 200) => {
                let batches: Vec<BatchView> =
                    serde_json::from_value(body["batches"].clone()).expect("they are batches");
                let met: BTreeSet<_> = batches.iter().map(|view| view.id).collect();
                if met.len() < batches.len() {
                    self.scene().violation("a batch is twice in the list".to_owned());
                }
                if let Some(id) = wanted.iter().find(|id| !met.contains(id)) {
                    self.scene().violation(format!("batch {id} was accepted and is in no list"));
                }
            }
            (_, status) => self.scene().violation(format!("a look was answered with {status}: {body}")),
        }
    }

    /// A caller that has seen a job end sees the same end afterwards, unless the job was retried.
    fn seen_job(&self, ended: &BTreeMap<JobId, (Status, Timestamp)>, began: Timestamp, view: &JobView) {
        let mut scene = self.scene();
        let expires_at = scene.ledger(&view.id.to_string()).expires_at;
        if expires_at.is_some_and(|end| end + CLOCKS_DIFFER < began) {
            scene.violation(format!("job {} was shown after its time", view.id));
        }
        if let Some((before, deadline_at)) = ended.get(&view.id)
            && *deadline_at == view.deadline_at
            && *before != view.status
        {
            scene.violation(format!("job {} was seen {before}, and {} afterwards", view.id, view.status));
        }
    }
}
