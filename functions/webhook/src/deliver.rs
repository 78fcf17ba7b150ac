use std::time::Duration;

use shared::Timestamp;
use shared::aws::messages::{Received, Verdict};
use shared::aws::{Result, SavedDelivery};
use shared::delivery::{Delivery, DeliveryMessage, DeliveryStatus, KEPT, Try, TryErrorCode};
use shared::webhook_secret::SecretNumbers;
use tokio::time::Instant;
use tracing::field::display;
use url::{Position, Url};

use crate::App;
use crate::client::{Outcome, Post, error};

/// How much earlier than planned a try may begin, as clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Tries a delivery unless it has ended or is not due, and then records the result, so the event arrives at least once.
pub(crate) async fn deliver(app: &App, received: Received<DeliveryMessage>) -> Result<Verdict> {
    let message = received.message;
    if message.at + KEPT <= app.clock.now() {
        tracing::info!(delivery.id = %message.id, "dropped a message whose delivery has expired");
        return Ok(Verdict::Done);
    }
    let (deliveries, numbers) =
        tokio::try_join!(app.log.of_subject(message.id.subject), app.log.secret_numbers(&message.owner))?;
    let now = app.clock.now();
    let stored = deliveries.iter().find(|delivery| delivery.id == message.id);
    let delivery = match stored {
        None => Delivery::new(&message),
        Some(stored) if is_over(stored, &message) => {
            tracing::info!(delivery.id = %message.id, "dropped a message whose delivery has ended or was replayed");
            return Ok(Verdict::Done);
        }
        // A replay sends the message before it records the round.
        Some(stored) => stored.clone().moved_to(message.round, now),
    };
    // SQS hides no message for longer than twelve hours, and may deliver it twice.
    if let Some(next) = next_after(&delivery, now) {
        return Ok(Verdict::Again(next.since(now)));
    }
    // An owner must not be able to stop the deliveries of another to the same host.
    let host = format!("{} {}", message.owner.as_str(), host_of(&message));
    let begun = Instant::now();
    let outcome = if has_gone(&deliveries, &message) {
        let gone = error(TryErrorCode::EndpointGone, "The endpoint answered 410 to an earlier event.");
        Outcome { error: Some(gone), ..Outcome::default() }
    } else if app.pauses.include(&host) {
        let left_alone = "Nothing was sent, because the host has not answered the last requests to it in time.";
        Outcome { error: Some(error(TryErrorCode::Timeout, left_alone)), ..Outcome::default() }
    } else {
        let outcome = send(app, &message, &numbers, now).await;
        app.pauses.learn(&host, outcome.error.as_ref().is_some_and(|error| error.code == TryErrorCode::Timeout));
        outcome
    };
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Outcome { status, error, response } = outcome;
    let tried = Try { round: message.round, at: now, duration_ms, status, error, response };
    record(app, delivery, tried).await
}

/// When the delivery is tried next, if a try at this time would be too early.
fn next_after(delivery: &Delivery, time: Timestamp) -> Option<Timestamp> {
    delivery.next_try_at.filter(|&next| next > time + CLOCK_SKEW)
}

fn is_over(stored: &Delivery, message: &DeliveryMessage) -> bool {
    stored.round > message.round || (stored.round == message.round && stored.status != DeliveryStatus::Pending)
}

/// Whether the last answer of the endpoint about this subject was 410. A replay tries again, as it may be repaired.
fn has_gone(deliveries: &[Delivery], message: &DeliveryMessage) -> bool {
    let tries = deliveries.iter().filter(|delivery| delivery.url == message.url).flat_map(|delivery| &delivery.tries);
    let last = tries.filter(|tried| tried.status.is_some()).max_by_key(|tried| tried.at);
    message.round == 0 && last.is_some_and(Try::is_gone)
}

async fn send(app: &App, message: &DeliveryMessage, numbers: &SecretNumbers, now: Timestamp) -> Outcome {
    let id = message.id.to_string();
    let timestamp = now.ms().div_euclid(1000);
    let sign = |(number, _)| app.secret.secret(&message.owner, number).sign(&id, timestamp, message.payload.as_bytes());
    let signatures: Vec<_> = numbers.valid(now).map(sign).collect();
    let signature = signatures.join(" ");
    app.client.post(Post { url: &message.url, id: &id, timestamp, signature: &signature, body: &message.payload }).await
}

async fn record(app: &App, mut before: Delivery, tried: Try) -> Result<Verdict> {
    loop {
        let was_pending = before.status == DeliveryStatus::Pending;
        let (after, wait) = before.tried(tried.clone());
        if app.log.save(&after).await? == SavedDelivery::MovedOn {
            // A deleted record had expired.
            let Some(stored) = app.log.get(after.id).await? else { return Ok(Verdict::Done) };
            // Otherwise an earlier write stored this try, and its answer was lost.
            if !stored.tries.contains(&tried) {
                if let Some(next) = next_of_twin(&stored, &tried) {
                    report(&stored, &tried);
                    return Ok(Verdict::Again(next.since(app.clock.now())));
                }
                before = stored.moved_to(tried.round, tried.at);
                continue;
            }
        }
        report(&after, &tried);
        if was_pending {
            app.metrics.ended(&after, &tried);
        }
        return Ok(wait.map_or(Verdict::Done, Verdict::Again));
    }
}

/// When the delivery is tried next, if it has failed at the same time through another message of the same event. Only
/// one of the tries counts, or else an event that was queued twice would be given up after half of the time.
fn next_of_twin(stored: &Delivery, tried: &Try) -> Option<Timestamp> {
    let is_retried = stored.round == tried.round && !tried.succeeded() && !tried.is_gone();
    next_after(stored, tried.at).filter(|_| is_retried)
}

fn report(delivery: &Delivery, tried: &Try) {
    let (job, batch) = delivery.id.subject.ids();
    let (job, batch) = (job.map(display), batch.map(display));
    let Try { status, duration_ms, .. } = *tried;
    let attempt = delivery.tries.iter().filter(|earlier| earlier.round == tried.round).count();
    let code = tried.error.as_ref().map(|error| display(error.code));
    if tried.succeeded() {
        tracing::info!(
            job.id = job, batch.id = batch, delivery.id = %delivery.id, attempt, duration_ms, status,
            "delivered an event"
        );
    } else if delivery.status == DeliveryStatus::Failed {
        tracing::warn!(
            job.id = job, batch.id = batch, delivery.id = %delivery.id, attempt, duration_ms, status, code,
            "gave up a delivery"
        );
    } else {
        tracing::info!(
            job.id = job, batch.id = batch, delivery.id = %delivery.id, attempt, duration_ms, status, code,
            "an endpoint did not accept an event"
        );
    }
}

fn host_of(message: &DeliveryMessage) -> String {
    let url = Url::parse(message.url.as_str());
    url.map(|url| url[Position::BeforeHost..Position::BeforePath].to_owned()).unwrap_or_default()
}
