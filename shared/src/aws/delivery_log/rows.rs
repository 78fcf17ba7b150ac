use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};

use super::SERVICE;
use crate::aws::{Result, ServiceError};
use crate::caller::{KeyDigests, Owner};
use crate::delivery::{Delivery, DeliveryId, DeliveryStatus, Try};
use crate::time::Timestamp;
use crate::webhook::{EventType, WebhookUrl};
use crate::webhook_secret::SecretNumbers;

pub(super) type Item = HashMap<String, AttributeValue>;

/// Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct DeliveryRow {
    subject: String,
    at: i64,
    owner: Owner,
    created_at: i64,
    /// In seconds, for DynamoDB's TTL.
    expires_at: i64,
    fence: u64,
    url: WebhookUrl,
    event: EventType,
    status: DeliveryStatus,
    next_try_at: Option<i64>,
    round: u32,
    replay_keys: KeyDigests<8>,
    tries: Vec<Try>,
    payload: String,
}

pub(super) fn key_of(id: DeliveryId) -> Item {
    key(id.subject.to_string(), id.since.ms())
}

/// The item has no attribute `owner`, so the index does not list it.
pub(super) fn numbers_key(owner: &Owner) -> Item {
    key(format!("secrets of {}", owner.as_str()), 0)
}

fn key(subject: String, at: i64) -> Item {
    let (subject, at) = (AttributeValue::S(subject), AttributeValue::N(at.to_string()));
    Item::from([("subject".to_owned(), subject), ("at".to_owned(), at)])
}

pub(super) fn item_of(delivery: &Delivery) -> Item {
    let row = DeliveryRow {
        subject: delivery.id.subject.to_string(),
        at: delivery.id.since.ms(),
        owner: delivery.owner.clone(),
        created_at: delivery.created_at.ms(),
        expires_at: delivery.expires_at.secs_ceil(),
        fence: delivery.fence,
        url: delivery.url.clone(),
        event: delivery.event,
        status: delivery.status,
        next_try_at: delivery.next_try_at.map(Timestamp::ms),
        round: delivery.round,
        replay_keys: delivery.replay_keys.clone(),
        tries: delivery.tries.clone(),
        payload: delivery.payload.clone(),
    };
    to_item(row).expect("a delivery's row is always an item")
}

pub(super) fn delivery_of(item: Item) -> Result<Delivery> {
    let row: DeliveryRow = from_item(item).map_err(|_| ServiceError::corrupt(SERVICE))?;
    let subject = row.subject.parse().map_err(|_| ServiceError::corrupt(SERVICE))?;
    Ok(Delivery {
        id: DeliveryId { subject, since: Timestamp::from_ms(row.at) },
        owner: row.owner,
        url: row.url,
        event: row.event,
        created_at: Timestamp::from_ms(row.created_at),
        expires_at: Timestamp::from_ms(row.expires_at * 1000),
        fence: row.fence,
        status: row.status,
        next_try_at: row.next_try_at.map(Timestamp::from_ms),
        round: row.round,
        replay_keys: row.replay_keys,
        tries: row.tries,
        payload: row.payload,
    })
}

pub(super) fn item_of_numbers(owner: &Owner, numbers: &SecretNumbers) -> Item {
    let mut item: Item = to_item(numbers).expect("the numbers are always an item");
    item.extend(numbers_key(owner));
    item.insert("fence".to_owned(), AttributeValue::N(numbers.current.to_string()));
    item
}

pub(super) fn numbers_of(item: Item) -> Result<SecretNumbers> {
    from_item(item).map_err(|_| ServiceError::corrupt(SERVICE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{DeliveryMessage, MAX_TRIES, TryError, TryErrorCode};

    fn delivery() -> Delivery {
        let id = "job_01930000-0000-7000-8000-000000000001_1795500000000".parse().expect("an id");
        let at = Timestamp::from_ms(1_795_500_001_000);
        let message = DeliveryMessage {
            id,
            owner: Owner::new("alice"),
            url: WebhookUrl::parse("https://example.com/posters").expect("a URL"),
            event: EventType::JobFailed,
            at,
            round: 0,
            payload: r#"{"type":"job.failed"}"#.to_owned(),
        };
        let error = TryError { code: TryErrorCode::Timeout, message: "No answer.".to_owned() };
        let tried = Try {
            round: 0,
            at,
            duration_ms: 52,
            status: Some(503),
            error: Some(error),
            response: Some("busy".to_owned()),
        };
        Delivery::new(&message).tried(tried).0
    }

    #[test]
    fn a_delivery_reads_back_as_it_was_written() {
        let delivery = delivery();
        let item = item_of(&delivery);
        assert!(key_of(delivery.id).iter().all(|(name, value)| item.get(name) == Some(value)), "{item:?}");
        assert!(delivery_of(item).expect("it reads back") == delivery);
    }

    #[test]
    fn the_numbers_of_secrets_read_back_as_they_were_written() {
        let now = Timestamp::from_ms(1_795_500_001_123);
        let key = "first".parse().expect("a key");
        let numbers = SecretNumbers::default().rotate(Some(&key), now).expect("few").expect("new");
        let item = item_of_numbers(&Owner::new("alice"), &numbers);
        assert!(!item.contains_key("owner") && !item.contains_key("expires_at"), "{item:?}");
        assert_eq!(numbers_of(item).expect("they read back"), numbers);
    }

    #[test]
    fn attributes_that_are_not_ours_are_passed_over_and_missing_ones_are_noticed() {
        let mut item = item_of(&delivery());
        item.insert("priority".to_owned(), AttributeValue::N("5".to_owned()));
        assert!(delivery_of(item.clone()).is_ok());
        item.remove("fence");
        assert!(delivery_of(item).is_err());
    }

    #[test]
    fn the_largest_record_fits_into_an_item() {
        let mut delivery = delivery();
        delivery.payload = "x".repeat(20_000);
        let tried = Try { response: Some("\u{fffd}".repeat(256)), ..delivery.tries[0].clone() };
        delivery.tries = vec![tried; MAX_TRIES];
        assert!(format!("{:?}", item_of(&delivery)).len() < 400_000 / 2);
    }
}
