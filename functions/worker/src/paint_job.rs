use std::time::Duration;

use bytes::Bytes;
use shared::aws::job_end::{give_up, verdict_for, wind_up};
use shared::aws::messages::{Received, Verdict};
use shared::aws::{File, Files, Kind, Result, Saved, Stored};
use shared::backoff::full_jitter;
use shared::image::{ImageFacts, Variant};
use shared::job::{Attempt, ClaimRefused, Claimed, ErrorCode, LastError, Lease};
use shared::origin::{Origin, mark};
use shared::{Job, JobState};
use tokio::time::{Instant, sleep, timeout_at};

use crate::App;
use crate::failure::Failure;
use crate::thumbnail::{NoThumbnail, thumbnail};
use crate::typesetter::typeset;

/// The time that must be left after a painting to store and record it.
const TIME_TO_STORE: Duration = Duration::from_secs(20);

const PATIENCE_WITH_THUMBNAILS: Duration = Duration::from_secs(5);

/// The maximum difference between the clocks of two machines.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// A record is written before its ticket is sent. If it is still missing after this time, it was deleted.
const TIME_TO_APPEAR: Duration = Duration::from_secs(60);

/// Processes a ticket. Lambda stops the invocation at `end`.
pub(crate) async fn paint(app: &App, received: Received, end: Instant) -> Result<Verdict> {
    if !may_paint_before(app, end) {
        return Ok(Verdict::Again(Duration::ZERO));
    }
    let left = end.saturating_duration_since(Instant::now());
    let id = received.message.job;
    let now = app.clock.now();
    let Some(job) = app.table.get(id).await?.filter(|job| job.expires_at > now) else {
        let age = received.sent_at.map(|sent| now.since(sent));
        if age.is_some_and(|age| age < TIME_TO_APPEAR) {
            return Ok(Verdict::Again(Duration::from_secs(5)));
        }
        tracing::warn!(job.id = %id, "dropped a ticket whose job has no record");
        return Ok(Verdict::Done);
    };
    let lease = Lease::new(now + left + CLOCK_SKEW);
    let claimed = match job.claim(lease, app.max_attempts, now) {
        Ok(claimed) => claimed,
        Err(ClaimRefused::Leased(until)) => return Ok(Verdict::Again(until.since(now))),
        Err(ClaimRefused::Ended) => return wind_up(&app.outbox, &app.images, &job, now).await,
        Err(ClaimRefused::DeadlinePassed) => return give_up_job(app, job, ErrorCode::DeadlineExceeded).await,
        Err(ClaimRefused::AttemptsExhausted) => return give_up_job(app, job, ErrorCode::AttemptsExhausted).await,
    };
    match app.table.save(&claimed).await? {
        Saved::Stored => {}
        Saved::MovedOn(job) => return verdict_for(&app.outbox, &app.images, &job, app.clock.now()).await,
        Saved::Gone => return Ok(Verdict::Done),
    }
    match obtain_files(app, &claimed, end).await {
        Ok(files) => {
            let now = app.clock.now();
            let image = app.images.publish(&claimed, files, now, app.url_life).await?;
            end_job(app, claimed.succeed(image, now)).await
        }
        Err(failure) => fail_or_release(app, claimed, failure, &received).await,
    }
}

async fn obtain_files(app: &App, job: &Claimed, end: Instant) -> Result<Files, Failure> {
    let is_first = job.attempts == 1;
    let earlier = if is_first { Ok(None) } else { app.images.find(job).await };
    if let Some(files) = earlier.map_err(Failure::from_storage_error(Attempt::NeverBegan))? {
        let thumbnail = files.thumbnail || store_thumbnail(app, job, None, end).await;
        return Ok(Files { thumbnail, ..files });
    }
    let Some(poster) = &job.order.poster else {
        let picture = paint_picture(app, job, end).await?;
        let image = store(app, job, Variant::Image, picture, end).await;
        let File { facts, bytes } = image.map_err(Failure::from_storage_error(Attempt::Counts))?;
        let thumbnail = store_thumbnail(app, job, Some(bytes), end).await;
        return Ok(Files { image: facts, artwork: None, thumbnail });
    };
    // Store the artwork before the lettering is set, so that a crash does not cost another painting.
    let paid = if is_first { Ok(None) } else { app.images.read(job, Variant::Artwork).await };
    let (artwork, attempt) = match paid.map_err(Failure::from_storage_error(Attempt::NeverBegan))? {
        Some(artwork) => (artwork, Attempt::NeverBegan),
        None => {
            let picture = paint_picture(app, job, end).await?;
            let artwork = store(app, job, Variant::Artwork, picture, end).await;
            (artwork.map_err(Failure::from_storage_error(Attempt::Counts))?, Attempt::Counts)
        }
    };
    let (facts, origin) = (artwork.facts, Origin::of(&artwork.bytes).unwrap_or(Origin::Model));
    let set = typeset(&app.drawing, &job.order, poster, artwork).await;
    let set = set.map_err(|error| Failure::from_typesetting_error(job, &error, attempt))?;
    let set = marked(job, set, origin.with_lettering());
    let image = store(app, job, Variant::Image, set, end).await.map_err(Failure::from_storage_error(attempt))?;
    let thumbnail = store_thumbnail(app, job, Some(image.bytes), end).await;
    Ok(Files { image: image.facts, artwork: Some(facts), thumbnail })
}

/// Stores a thumbnail of `picture`, or else of the stored file, and returns whether that succeeded. It is optional.
async fn store_thumbnail(app: &App, job: &Claimed, picture: Option<Bytes>, end: Instant) -> bool {
    if !app.thumbnails {
        return false;
    }
    let stop = end - TIME_TO_STORE / 2;
    let stored = timeout_at(stop, async {
        let picture = match picture {
            Some(picture) => picture,
            None => app.images.read(job, Variant::Image).await?.map(|file| file.bytes).unwrap_or_default(),
        };
        let file = app.drawing.run(move || thumbnail(&picture)).await??;
        let stop = stop.min(Instant::now() + PATIENCE_WITH_THUMBNAILS);
        put(app, job, Variant::Thumbnail, &file, stop).await?;
        Ok::<_, NoThumbnail>(())
    });
    let stored = stored.await.map_err(NoThumbnail::from).flatten();
    if let Err(error) = &stored {
        tracing::warn!(job.id = %job.id, attempt = job.attempts, %error, "thumbnail failed");
    }
    stored.is_ok()
}

/// Whether there is time for the model's full timeout and for storing. A late picture would be paid for in vain.
fn may_paint_before(app: &App, end: Instant) -> bool {
    end.saturating_duration_since(Instant::now()) >= app.painter.timeout() + TIME_TO_STORE
}

/// Paints a picture. If storing one failed before, first checks that the bucket works, which costs nothing.
async fn paint_picture(app: &App, job: &Claimed, end: Instant) -> Result<File, Failure> {
    let lost_one = job.last_error.as_ref().is_some_and(|last| last.code == ErrorCode::StorageUnavailable);
    if lost_one || app.images.is_failing() {
        app.images.check().await.map_err(Failure::from_storage_error(Attempt::NeverBegan))?;
    }
    if !may_paint_before(app, end) {
        return Err(Failure::out_of_time());
    }
    match timeout_at(end - TIME_TO_STORE, app.painter.paint(&job.order)).await {
        Ok(Ok(picture)) => Ok(marked(job, picture.into(), Origin::Model)),
        Ok(Err(error)) => Err(Failure::from_paint_error(&error, app.painter.has_answered(job.order.model))),
        Err(_) => Err(Failure::model_error("The model did not answer in time.")),
    }
}

/// Stores a file, retrying as long as there is time, as another painting would cost more. Returns the stored file.
async fn store(app: &App, job: &Claimed, variant: Variant, file: File, end: Instant) -> Result<File> {
    loop {
        if put(app, job, variant, &file, end - TIME_TO_STORE / 2).await? == Stored::New {
            return Ok(file);
        }
        // A worker that lost its lease stored its file first, and the record must describe that file.
        if let Some(stored) = app.images.read(job, variant).await? {
            return Ok(stored);
        }
        // Another worker deleted the file meanwhile. Each round follows a deletion, so the loop ends.
    }
}

async fn put(app: &App, job: &Job, variant: Variant, file: &File, stop: Instant) -> Result<Stored> {
    let mut tries = 0;
    loop {
        match app.images.put(job, variant, file).await {
            Ok(stored) => return Ok(stored),
            Err(error) => {
                let wait = full_jitter(Duration::from_millis(500), Duration::from_secs(5), tries);
                let may_pass = matches!(error.kind, Kind::Throttled | Kind::Unavailable);
                if !may_pass || Instant::now() + wait >= stop {
                    return Err(error);
                }
                sleep(wait).await;
                tries += 1;
            }
        }
    }
}

async fn fail_or_release(app: &App, job: Claimed, failure: Failure, received: &Received) -> Result<Verdict> {
    let now = app.clock.now();
    let Failure { code, message, attempt, then } = failure;
    // A picture may be stored despite the error, and the next attempt looks for it.
    let exhausted =
        attempt == Attempt::Counts && job.attempts >= app.max_attempts && code != ErrorCode::StorageUnavailable;
    // Higher than the setbacks: tickets also return for lack of time, or while another worker has the job.
    let before = match attempt {
        Attempt::Counts => job.attempts - 1,
        Attempt::NeverBegan => job.setbacks,
    };
    let Some(wait) = then.wait(before).filter(|_| !exhausted) else {
        return end_job(app, job.fail(code, message, attempt, now)).await;
    };
    let verdict = Verdict::Again(wait);
    tracing::warn!(
        job.id = %job.id, attempt = job.attempts, receives = received.receives, reason = %code, ?verdict,
        "attempt failed: {message}",
    );
    let released = job.release(LastError { code, message, at: now }, attempt);
    match app.table.save(&released).await? {
        Saved::Stored => Ok(verdict),
        Saved::MovedOn(current) => discard_stale(app, &released, Some(&current)).await,
        Saved::Gone => discard_stale(app, &released, None).await,
    }
}

async fn end_job(app: &App, job: Job) -> Result<Verdict> {
    match app.table.save(&job).await? {
        Saved::Stored => {
            log_end(&job);
            wind_up(&app.outbox, &app.images, &job, app.clock.now()).await
        }
        Saved::MovedOn(current) => {
            if matches!(job.state, JobState::Succeeded { .. }) {
                tracing::warn!(job.id = %job.id, status = %current.status(), "discarded a late picture");
            }
            discard_stale(app, &job, Some(&current)).await
        }
        Saved::Gone => discard_stale(app, &job, None).await,
    }
}

async fn give_up_job(app: &App, job: Job, code: ErrorCode) -> Result<Verdict> {
    let now = app.clock.now();
    match give_up(&app.table, &app.images, job, code, app.url_life, now).await? {
        Some(job) => verdict_for(&app.outbox, &app.images, &job, app.clock.now()).await,
        None => Ok(Verdict::Done),
    }
}

/// Deletes the files that this worker stored for `mine`, a job that changed meanwhile, unless the current version may
/// refer to them. The ticket of a canceled job is kept until the lease has expired, as a late request may store a file.
async fn discard_stale(app: &App, mine: &Job, current: Option<&Job>) -> Result<Verdict> {
    let over = |job: &Job| matches!(job.state, JobState::Failed { .. } | JobState::Canceled { .. });
    if current.is_none_or(|job| over(job) || job.queued_at != mine.queued_at) {
        app.images.delete(mine).await?;
    }
    match current {
        Some(job) => verdict_for(&app.outbox, &app.images, job, app.clock.now()).await,
        None => Ok(Verdict::Done),
    }
}

/// Adds the mark of origin. If that fails, the file is kept without it, as it was paid for.
fn marked(job: &Job, file: File, origin: Origin) -> File {
    let File { facts, bytes } = file;
    let bytes = mark(bytes.clone(), origin).unwrap_or_else(|error| {
        tracing::warn!(job.id = %job.id, %error, "mark of origin failed");
        bytes
    });
    File { facts: ImageFacts { bytes: bytes.len() as u64, ..facts }, bytes }
}

fn log_end(job: &Job) {
    let code = match &job.state {
        JobState::Failed { error, .. } => error.code.as_str(),
        _ => "",
    };
    let end = job.finished_at().unwrap_or(job.created_at);
    tracing::info!(
        job.id = %job.id, status = %job.status(), code, attempt = job.attempts, throttles = job.throttles,
        duration_ms = job.started_at.map(|start| end.since(start).as_millis() as u64),
        waited_ms = job.started_at.map(|start| start.since(job.queued_at).as_millis() as u64),
        "job ended",
    );
}
