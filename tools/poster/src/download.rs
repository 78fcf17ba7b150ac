//! Downloading the pictures of jobs and batches.

use std::collections::HashSet;
use std::path::Path;

use futures_util::{StreamExt, stream};
use serde_json::json;
use shared::JobId;
use shared::api::{JobView, JobsView};
use shared::job::Status;

use crate::api::{Api, Found, PAGE};
use crate::arguments::Download;
use crate::failure::{Failure, Outcome};
use crate::ids::for_each_found;
use crate::manifest::{self, Manifest};
use crate::pictures::{Unfetched, fetch, name_of};
use crate::terminal::Terminal;
use crate::words::count_of;

/// How many pictures are downloaded at a time.
const AT_ONCE: usize = 8;

pub(crate) async fn run(api: &Api, terminal: &Terminal, download: &Download) -> Result<Outcome, Failure> {
    let Download { ids, out } = download;
    let mut manifest = Manifest::open(out)?;
    let mut there = HashSet::new();
    terminal.status("checking saved pictures …");
    manifest::read(out, |_, picture| {
        if picture.is_in(out) {
            there.insert(picture.job);
        }
    })?;
    let mut saving = Saving { api, terminal, out, manifest: &mut manifest, there, saved: 0, kept: 0 };
    let mut missing = 0;
    let found = for_each_found(api, terminal, ids, async |id, found| {
        match found {
            Found::Job(job) if job.status == Status::Succeeded => missing += saving.save(vec![*job]).await?,
            Found::Job(job) => {
                terminal.println(format!("job {id} is {} and has no picture", job.status));
                missing += 1;
            }
            Found::Batch(batch) => {
                let list = format!("/batches/{id}/jobs?status={}", Status::Succeeded);
                let mut cursor = None;
                loop {
                    let page: JobsView = api.page(&list, PAGE, cursor.as_deref()).await?;
                    missing += saving.save(page.jobs).await?;
                    cursor = page.next_cursor;
                    if cursor.is_none() {
                        break;
                    }
                }
                missing += batch.value.counts.total - batch.value.counts.succeeded;
            }
        }
        Ok(Outcome::AllDone)
    })
    .await?;
    let Saving { saved, kept, .. } = saving;
    let before = if kept > 0 { format!(", {} were there already", count_of(kept, "picture")) } else { String::new() };
    terminal.println(format!("{} saved in {}{before}", count_of(saved, "picture"), out.display()));
    if missing > 0 {
        terminal.println(format!("{} without a picture", count_of(missing as u64, "job")));
    }
    Ok(if missing > 0 { Outcome::SomeFailed } else { found })
}

struct Saving<'a> {
    api: &'a Api,
    terminal: &'a Terminal,
    out: &'a Path,
    manifest: &'a mut Manifest,
    there: HashSet<JobId>,
    saved: u64,
    kept: u64,
}

impl Saving<'_> {
    /// Saves the pictures of these jobs, and returns how many are not available.
    async fn save(&mut self, jobs: Vec<JobView>) -> Result<usize, Failure> {
        let (known, new): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| self.there.contains(&job.id));
        self.kept += known.len() as u64;
        let (api, out) = (self.api, self.out);
        let fetches = new.iter().map(|job| async move { (job.id, fetch(api, job, out, &name_of(job), None).await) });
        let mut fetched = stream::iter(fetches).buffer_unordered(AT_ONCE);
        let mut missing = 0;
        while let Some((id, picture)) = fetched.next().await {
            let picture = match picture {
                Ok(picture) => picture.keep(out, self.manifest)?,
                Err(Unfetched::All(failure)) => return Err(failure),
                Err(Unfetched::Picture(why)) => {
                    self.terminal.println(format!("the picture of job {id}: {why}"));
                    missing += 1;
                    continue;
                }
            };
            self.saved += 1;
            self.terminal.data(&json!({
                "job": picture.job, "file": out.join(&picture.file), "bytes": picture.bytes, "sha256": picture.sha256
            }))?;
            self.terminal.status(format!("{} saved", count_of(self.saved, "picture")));
        }
        Ok(missing)
    }
}
