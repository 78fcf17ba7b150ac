use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use shared::api::ReplayedView;
use shared::aws::gateway::{found, log_failure};
use shared::aws::{DeliveryFilter, DeliveryRange, Result, SavedDelivery};
use shared::caller::IdempotencyKey;
use shared::delivery::{Delivery, DeliveryId};
use shared::replay::ReplayRequest;
use shared::{Owner, Problem};

use crate::{App, Webhooks, list_jobs};

/// A request replays no further deliveries after this time. API Gateway waits 29 seconds.
const TIME: Duration = Duration::from_secs(18);

const PAGE: usize = 100;

const AT_ONCE: usize = 16;

pub(crate) struct Replayed {
    pub(crate) delivery: Delivery,
    pub(crate) repeated: bool,
    sent: bool,
}

pub(crate) async fn replay(
    app: &App,
    webhooks: &Webhooks,
    owner: &Owner,
    id: DeliveryId,
    key: Option<&IdempotencyKey>,
) -> Result<Replayed, Problem> {
    let delivery = found(id, webhooks.log.get_owned(id, owner, app.clock.now()).await)?;
    let replayed = send_again(app, webhooks, delivery, key).await.map_err(log_failure(id))?;
    tracing::info!(delivery.id = %id, "delivery replayed");
    replayed.ok_or(Problem::NotFound)
}

/// Sends the message of a new round, then records the round. After a crash in between, the function `webhook` records
/// it. A delivery that is about to be tried is not sent again, so that repeated requests cannot fill the queue.
async fn send_again(
    app: &App,
    webhooks: &Webhooks,
    delivery: Delivery,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Replayed>> {
    let now = app.clock.now();
    let Some(mut next) = delivery.replayed(key, now) else {
        return Ok(Some(Replayed { delivery, repeated: true, sent: false }));
    };
    if delivery.is_due(now) {
        return Ok(Some(Replayed { delivery, repeated: false, sent: false }));
    }
    webhooks.queue.send_delivery(&next.message()).await?;
    while webhooks.log.save(&next).await? == SavedDelivery::MovedOn {
        let Some(current) = webhooks.log.get(next.id).await? else { return Ok(None) };
        next = current.in_round(next.round, key, now);
    }
    Ok(Some(Replayed { delivery: next, repeated: false, sent: true }))
}

/// Replays the owner's deliveries that match, newest first. If the time is too short, returns where to continue.
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
    let mut place = list_jobs::place(app, &scope, wanted.cursor.as_ref())?;
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
        replayed += sent.into_iter().flatten().filter(|replayed| replayed.sent).count();
        // An incomplete page is listed again. The deliveries that were sent have another status by then.
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
