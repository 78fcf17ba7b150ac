use shared::api::SecretView;
use shared::aws::SavedDelivery;
use shared::aws::gateway::log_failure;
use shared::caller::IdempotencyKey;
use shared::webhook_secret::SecretNumbers;
use shared::{Owner, Problem};

use crate::{App, Webhooks};

async fn stored(webhooks: &Webhooks, owner: &Owner) -> Result<SecretNumbers, Problem> {
    webhooks.log.secret_numbers(owner).await.map_err(log_failure("secret"))
}

pub(crate) async fn get(app: &App, webhooks: &Webhooks, owner: &Owner) -> Result<SecretView, Problem> {
    let numbers = stored(webhooks, owner).await?;
    Ok(SecretView::new(&webhooks.master, owner, &numbers, app.clock.now()))
}

/// Makes a new secret. Returns the valid secrets, and whether an earlier request with this key made the new one.
pub(crate) async fn rotate(
    app: &App,
    webhooks: &Webhooks,
    owner: &Owner,
    key: Option<&IdempotencyKey>,
) -> Result<(SecretView, bool), Problem> {
    loop {
        let now = app.clock.now();
        let numbers = stored(webhooks, owner).await?;
        let view = |numbers| SecretView::new(&webhooks.master, owner, numbers, now);
        let next = numbers.rotate(key, now).map_err(Problem::TooManyRotations)?;
        let Some(next) = next else { return Ok((view(&numbers), true)) };
        let saved = webhooks.log.save_secret_numbers(owner, &next).await.map_err(log_failure("secret"))?;
        if saved == SavedDelivery::Stored {
            tracing::info!(number = next.current, "webhook secret rotated");
            return Ok((view(&next), false));
        }
    }
}
