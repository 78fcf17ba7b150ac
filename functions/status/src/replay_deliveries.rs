//! Sends deliveries of webhooks again.

use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::api::ReplayedView;
use shared::aws::gateway::log_failure;
use shared::aws::{DeliveryFilter, DeliveryRange, SavedDelivery, ServiceError};
use shared::caller::IdempotencyKey;
use shared::delivery::{Delivery, DeliveryId, DeliveryStatus};
use shared::replay::ReplayRequest;
use shared::{Owner, Problem};

use crate::{App, Webhooks};

/// A request replays no further deliveries after this time. API Gateway waits 29 seconds.
const TIME: Duration = Duration::from_secs(18);

/// How many deliveries are read before the time is checked.
const PAGE: usize = 100;

const AT_ONCE: usize = 16;

/// A delivery after a request to replay it.
pub(crate) struct Replayed {
    pub(crate) delivery: Delivery,
    /// Whether an earlier request with the same key has replayed it.
    pub(crate) repeated: bool,
}

/// Replays the owner's delivery.
pub(crate) async fn replay(
    app: &App,
    webhooks: &Webhooks,
    owner: &Owner,
    id: DeliveryId,
    key: Option<&IdempotencyKey>,
) -> Result<Replayed, Problem> {
    let delivery = webhooks.log.get_owned(id, owner, app.clock.now()).await.map_err(log_failure(id))?;
    let replayed = send_again(app, webhooks, delivery.ok_or(Problem::NotFound)?, key).await.map_err(log_failure(id))?;
    tracing::info!(delivery.id = %id, "delivery replayed");
    replayed.ok_or(Problem::NotFound)
}

/// Records that a delivery begins a new round, and sends its message. `None` if its record was deleted.
///
/// A crash between the two leaves a pending delivery without a message. The repeated request sends it.
async fn send_again(
    app: &App,
    webhooks: &Webhooks,
    mut delivery: Delivery,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Replayed>, ServiceError> {
    // Each iteration means that somebody else changed the delivery, so the loop ends.
    while let Some(next) = delivery.replayed(key, app.clock.now()) {
        match webhooks.log.save(&next).await? {
            SavedDelivery::Stored => {
                webhooks.queue.send_delivery(&next.message()).await?;
                return Ok(Some(Replayed { delivery: next, repeated: false }));
            }
            SavedDelivery::MovedOn => match webhooks.log.get(delivery.id).await? {
                Some(current) => delivery = current,
                None => return Ok(None),
            },
        }
    }
    if delivery.status == DeliveryStatus::Pending {
        webhooks.queue.send_delivery(&delivery.message()).await?;
    }
    Ok(Some(Replayed { delivery, repeated: true }))
}

/// Replays the wanted deliveries of the owner, newest first, and says where to go on if the time was too short.
pub(crate) async fn replay_all(
    app: &App,
    webhooks: &Webhooks,
    owner: &Owner,
    wanted: &ReplayRequest,
    key: Option<&IdempotencyKey>,
) -> Result<ReplayedView, Problem> {
    let now = app.clock.now();
    let end = now + TIME;
    let (since, until) = (wanted.since.ms().to_string(), wanted.until.map(|until| until.ms().to_string()));
    let scope = ["replay of owner", owner.as_str(), &since, until.as_deref().unwrap_or(""), wanted.status.as_str()];
    let open = |cursor: &String| app.cursors.open(&scope, cursor).ok_or(Problem::InvalidCursor);
    let mut place = wanted.cursor.as_ref().map(open).transpose()?;
    let range = DeliveryRange::Between(wanted.since, wanted.until.unwrap_or(now));
    let filter = DeliveryFilter { range, status: Some(wanted.status) };
    let mut replayed = 0;
    loop {
        let listed = webhooks.log.list(owner, filter, PAGE, place.clone(), now).await;
        let (deliveries, next) = listed.map_err(log_failure("deliveries"))?;
        let count = deliveries.len();
        let sent: Vec<_> = stream::iter(deliveries)
            .take_while(|_| ready(app.clock.now() < end))
            .map(|delivery| async {
                let id = delivery.id;
                send_again(app, webhooks, delivery, key).await.map_err(log_failure(id))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let is_complete = sent.len() == count;
        replayed += sent.into_iter().flatten().filter(|replayed| !replayed.repeated).count();
        // A page that is not complete is listed again. By then, what was sent has another status.
        if is_complete {
            place = next;
        }
        let is_end = is_complete && place.is_none();
        if is_end || app.clock.now() >= end {
            tracing::info!(deliveries = replayed, "deliveries replayed");
            if !is_end && place.is_none() {
                return Err(Problem::unavailable());
            }
            return Ok(ReplayedView { replayed, next_cursor: place.map(|place| app.cursors.seal(&scope, &place)) });
        }
    }
}
