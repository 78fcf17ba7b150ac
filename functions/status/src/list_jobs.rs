use futures_util::{StreamExt, TryStreamExt, stream};
use shared::api::{JobView, JobsView};
use shared::aws::gateway::{Query, Request, log_failure};
use shared::aws::{List, Page};
use shared::batch::Batch;
use shared::job::Status;
use shared::json::escaped_len_of;
use shared::{Job, Owner, Problem};

use crate::{App, digest, etag, get_job};

const DEFAULT_LIMIT: usize = 20;

const MAX_LIMIT: usize = 100;

/// As escaped in a response of Lambda, see [`MAX_BODY_BYTES`](shared::api::MAX_BODY_BYTES). One job is always smaller.
const MAX_PAGE_BYTES: usize = 4_000_000;

pub(crate) struct Listed {
    pub(crate) jobs: JobsView,
    pub(crate) etag: String,
}

pub(crate) struct Range {
    pub(crate) limit: usize,
    cursor: Option<String>,
}

impl Range {
    pub(crate) fn of(query: &mut Query) -> Self {
        let limit = query.take("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit.ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}"))
        });
        let cursor = query.take("cursor", |text| Ok(text.to_owned()));
        Self { limit: limit.unwrap_or(DEFAULT_LIMIT), cursor }
    }

    pub(crate) fn place(&self, app: &App, scope: &[&str]) -> Result<Option<String>, Problem> {
        place(app, scope, self.cursor.as_ref())
    }

    pub(crate) fn query(&self, cursor: &str) -> String {
        format!("limit={}&cursor={cursor}", self.limit)
    }
}

pub(crate) fn place(app: &App, scope: &[&str], cursor: Option<&String>) -> Result<Option<String>, Problem> {
    let open = |cursor: &String| app.cursors.open(scope, cursor).ok_or(Problem::InvalidCursor);
    cursor.map(open).transpose()
}

pub(crate) struct Filter {
    status: Option<Status>,
    range: Range,
}

impl Filter {
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        let mut query = request.query(&["status", "limit", "cursor"])?;
        let filter = Self { status: query.take("status", str::parse), range: Range::of(&mut query) };
        query.finish(filter)
    }

    fn scope<'a>(&self, [kind, name]: [&'a str; 2]) -> [&'a str; 3] {
        [kind, name, self.status.map_or("", Status::as_str)]
    }

    pub(crate) fn query(&self, cursor: &str) -> String {
        let status = self.status.map(|status| format!("status={status}&")).unwrap_or_default();
        format!("{status}{}", self.range.query(cursor))
    }
}

pub(crate) async fn of_owner(app: &App, owner: &Owner, filter: &Filter, base: &str) -> Result<Listed, Problem> {
    list(app, List::OfOwner(owner), filter, &filter.scope(["owner", owner.as_str()]), base).await
}

pub(crate) async fn of_batch(app: &App, batch: &Batch, filter: &Filter, base: &str) -> Result<Listed, Problem> {
    let id = batch.id.to_string();
    list(app, List::OfBatch(batch), filter, &filter.scope(["batch", &id]), base).await
}

async fn list(app: &App, list: List<'_>, filter: &Filter, scope: &[&str], base: &str) -> Result<Listed, Problem> {
    let after = filter.range.place(app, scope)?;
    let page = app.table.list(list, candidates(app, filter), filter.range.limit, after).await;
    let (jobs, next) = shown(app, page.map_err(log_failure("list"))?, filter, scope).await?;
    Ok(fitting(app, &jobs, next, scope, base, |last| list.place_after(last)))
}

/// Selects the jobs with the wanted status, and overdue jobs, which have yet to be ended.
fn candidates(app: &App, filter: &Filter) -> impl Fn(&Job) -> bool + use<> {
    let (status, now) = (filter.status, app.clock.now());
    move |job| job.expires_at > now && (job.is_overdue(now) || status.is_none_or(|status| job.status() == status))
}

fn fitting(
    app: &App,
    jobs: &[Job],
    mut next: Option<String>,
    scope: &[&str],
    base: &str,
    place_after: impl Fn(&Job) -> String,
) -> Listed {
    let (mut views, mut bytes, mut last) = (Vec::with_capacity(jobs.len()), 0, None);
    let mut versions = String::new();
    for job in jobs {
        let view = JobView::new(job, base);
        bytes += escaped_len_of(&view);
        if let Some(last) = last.filter(|_| bytes > MAX_PAGE_BYTES) {
            next = Some(app.cursors.seal(scope, &place_after(last)));
            break;
        }
        versions.extend([&job.id.to_string(), &etag(job)].map(String::as_str));
        views.push(view);
        last = Some(job);
    }
    versions.extend(next.as_deref());
    Listed { etag: format!("W/\"{}\"", digest(&versions)), jobs: JobsView { jobs: views, next_cursor: next } }
}

async fn shown(app: &App, page: Page, filter: &Filter, scope: &[&str]) -> Result<(Vec<Job>, Option<String>), Problem> {
    let Page { jobs, next } = page;
    let jobs = stream::iter(jobs)
        .inspect(|job| app.pace.learn(job))
        .map(|job| async {
            match get_job::end_if_overdue(app, job).await {
                Some(job) if filter.status.is_none_or(|status| job.status() == status) => {
                    get_job::with_live_url(app, job).await.map(Some)
                }
                _ => Ok(None),
            }
        })
        .buffered(MAX_LIMIT)
        .try_filter_map(|job| async { Ok(job) })
        .try_collect()
        .await
        .map_err(log_failure("list"))?;
    Ok((jobs, next.map(|place| app.cursors.seal(scope, &place))))
}
