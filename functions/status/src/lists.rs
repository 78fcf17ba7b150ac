//! Listing jobs, page by page.

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::aws::gateway::Request;
use shared::aws::{List, Page};
use shared::job::Status;
use shared::problem::FieldError;
use shared::{Job, Problem};

use crate::{App, unread};

/// How many jobs a page has when nobody says how many.
const DEFAULT_LIMIT: usize = 20;

/// How many jobs a page has at the most.
const MAX_LIMIT: usize = 100;

/// Which jobs of a list are asked for.
pub(crate) struct Filter {
    status: Option<Status>,
    limit: usize,
    cursor: Option<String>,
}

impl Filter {
    /// Reads the filter from a request's query.
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        let query = request.query(&["status", "limit", "cursor"])?;
        let mut errors = Vec::new();
        let mut fault = |name: &str, detail: String| errors.push(FieldError::new(&format!("?{name}"), detail));
        let status = query.get("status").and_then(|text| {
            let parsed = text.parse().map_err(|detail| fault("status", detail));
            parsed.ok()
        });
        let limit = query.get("limit").map_or(Some(DEFAULT_LIMIT), |text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            if limit.is_none() {
                fault("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"));
            }
            limit
        });
        match limit {
            Some(limit) if errors.is_empty() => Ok(Self { status, limit, cursor: query.get("cursor").cloned() }),
            _ => Err(Problem::InvalidRequest(errors)),
        }
    }

    /// The query that asks for the next page.
    pub(crate) fn query(&self, cursor: &str) -> String {
        let status = self.status.map(|status| format!("status={status}&")).unwrap_or_default();
        format!("{status}limit={}&cursor={cursor}", self.limit)
    }
}

impl App {
    /// A page of a list, and the cursor of the next one. A cursor works only for the same list and filter.
    pub(crate) async fn list(
        &self,
        list: List<'_>,
        name: &[&str],
        filter: &Filter,
    ) -> Result<(Vec<Job>, Option<String>), Problem> {
        let scope = [name, &[filter.status.map_or("", Status::as_str)]].concat();
        let open = |cursor: &String| self.cursors.open(&scope, cursor).ok_or(Problem::InvalidCursor);
        let after = filter.cursor.as_ref().map(open).transpose()?;
        let page = self.table.list(list, filter.status, filter.limit, after).await;
        let Page { jobs, next } = page.map_err(unread("list"))?;
        let now = self.clock.now();
        let jobs = stream::iter(jobs.into_iter().filter(|job| job.expires_at > now))
            .map(|job| async {
                match self.end_if_overdue(job).await? {
                    Some(job) => self.with_live_url(job).await.map(Some),
                    None => Ok(None),
                }
            })
            .buffered(MAX_LIMIT)
            .try_filter_map(|job| async { Ok(job) })
            .try_collect()
            .await
            .map_err(unread("list"))?;
        Ok((jobs, next.map(|place| self.cursors.seal(&scope, &place))))
    }
}
