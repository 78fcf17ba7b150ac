use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use serde_json::json;
use shared::JobId;
use shared::api::JobView;
use shared::job::Status;

use crate::api::{Api, Found, PAGE};
use crate::arguments::Download;
use crate::failure::{Failure, Outcome};
use crate::ids::for_each_found;
use crate::manifest::{self, Manifest, Picture};
use crate::pictures::save;
use crate::words::count_of;

const AT_ONCE: usize = 8;

pub(crate) async fn run(api: &Api, download: &Download) -> Result<Outcome, Failure> {
    let (terminal, out) = (&api.terminal, &*download.out);
    let manifest = Manifest::open(out)?;
    let mut there = HashSet::new();
    terminal.status("checking saved pictures …");
    manifest::read(out, |_, picture| {
        if picture.is_in(out) {
            there.insert(picture.job);
        }
    })?;
    let mut saving = Saving { api, manifest, there, saved: 0, kept: 0, missing: 0 };
    let found = for_each_found(api, &download.ids, async |id, found| {
        match found {
            Found::Job(job) if job.status == Status::Succeeded => saving.save(vec![*job]).await?,
            Found::Job(job) => {
                terminal.println(format!("job {id} is {} and has no picture", job.status));
                saving.missing += 1;
            }
            Found::Batch(batch) => {
                let list = format!("/batches/{id}/jobs?status={}", Status::Succeeded);
                let (mut cursor, mut painted) = (None, 0);
                loop {
                    let page = api.page(&list, PAGE, cursor.as_deref()).await?;
                    painted += page.items.len();
                    saving.save(page.items).await?;
                    cursor = page.next_cursor;
                    if cursor.is_none() {
                        break;
                    }
                }
                // The counts of an ended batch leave out the jobs that were retried one by one. If the file was being
                // checked, the total was not known yet.
                saving.missing += batch.value.counts.total.saturating_sub(painted);
            }
        }
        Ok(())
    })
    .await?;
    let Saving { saved, kept, missing, .. } = saving;
    let before = if kept > 0 { format!(", {} already there", count_of(kept, "picture")) } else { String::new() };
    terminal.println(format!("{} saved in {}{before}", count_of(saved, "picture"), out.display()));
    if missing > 0 {
        terminal.println(format!("{} without a picture", count_of(missing as u64, "job")));
    }
    Ok(if missing > 0 { Outcome::SomeFailed } else { found })
}

struct Saving<'a> {
    api: &'a Api,
    manifest: Manifest,
    there: HashSet<JobId>,
    saved: u64,
    kept: u64,
    missing: usize,
}

impl Saving<'_> {
    async fn save(&mut self, jobs: Vec<JobView>) -> Result<(), Failure> {
        let (known, new): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| self.there.contains(&job.id));
        self.kept += known.len() as u64;
        let (api, manifest) = (self.api, &self.manifest);
        let saves = new.iter().map(|job| async move { (job.id, save(api, manifest, job, None).await) });
        let mut saves = stream::iter(saves).buffer_unordered(AT_ONCE);
        while let Some((id, picture)) = saves.next().await {
            match picture? {
                Ok(Picture { file, bytes, sha256, .. }) => {
                    self.saved += 1;
                    let file = manifest.directory.join(file);
                    api.terminal.data(&json!({ "job": id, "file": file, "bytes": bytes, "sha256": sha256 }))?;
                    api.terminal.status(format!("{} saved", count_of(self.saved, "picture")));
                }
                Err(why) => {
                    api.terminal.println(format!("the picture of job {id}: {why}"));
                    self.missing += 1;
                }
            }
        }
        Ok(())
    }
}
