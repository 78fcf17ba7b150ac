mod lists;
mod rows;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

pub use self::lists::{DeliveryFilter, DeliveryRange};
use self::rows::{Item, delivery_of, item_of, item_of_numbers, key_of, numbers_key, numbers_of};
use super::{Result, ServiceError};
use crate::caller::Owner;
use crate::delivery::{Delivery, DeliveryId};
use crate::id::Subject;
use crate::webhook_secret::SecretNumbers;

const SERVICE: &str = "DynamoDB";

/// The table of deliveries in Amazon DynamoDB, which also holds the numbers of the owners' valid secrets.
#[derive(Clone, Debug)]
pub struct DeliveryLog {
    client: Client,
    name: String,
}

/// The outcome of saving a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedDelivery {
    /// It was saved.
    Stored,
    /// Another writer was first, so loops over this end. Or an earlier call stored it, and its answer was lost.
    MovedOn,
}

impl DeliveryLog {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// The delivery with this id, by a consistent read.
    pub async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        self.get_item(key_of(id)).await?.map(delivery_of).transpose()
    }

    /// All deliveries of a job or batch, oldest first, by consistent reads.
    pub async fn of_subject(&self, subject: Subject) -> Result<Vec<Delivery>> {
        let items = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression("subject = :subject")
            .expression_attribute_values(":subject", AttributeValue::S(subject.to_string()))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(ServiceError::of(SERVICE))?;
        items.into_iter().map(delivery_of).collect()
    }

    /// Saves a delivery, if the stored fence is the one before its own.
    pub async fn save(&self, delivery: &Delivery) -> Result<SavedDelivery> {
        self.put(item_of(delivery), delivery.fence).await
    }

    /// Which secrets of the owner are valid, by a consistent read.
    pub async fn secret_numbers(&self, owner: &Owner) -> Result<SecretNumbers> {
        let item = self.get_item(numbers_key(owner)).await?;
        Ok(item.map(numbers_of).transpose()?.unwrap_or_default())
    }

    /// Saves the numbers of the owner's valid secrets, if there was no rotation since the numbers before these.
    pub async fn save_secret_numbers(&self, owner: &Owner, numbers: &SecretNumbers) -> Result<SavedDelivery> {
        // The current number counts the rotations, so it is the fence.
        self.put(item_of_numbers(owner, numbers), numbers.current.into()).await
    }

    async fn get_item(&self, key: Item) -> Result<Option<Item>> {
        let get = self.client.get_item().table_name(&self.name).set_key(Some(key)).consistent_read(true);
        Ok(get.send().await.map_err(ServiceError::of(SERVICE))?.item)
    }

    async fn put(&self, item: Item, fence: u64) -> Result<SavedDelivery> {
        let mut put = self.client.put_item().table_name(&self.name).set_item(Some(item));
        put = match fence.saturating_sub(1) {
            0 => put.condition_expression("attribute_not_exists(subject)"),
            before => put
                .condition_expression("fence = :before")
                .expression_attribute_values(":before", AttributeValue::N(before.to_string())),
        };
        match put.send().await {
            Ok(_) => Ok(SavedDelivery::Stored),
            Err(error) => match error.as_service_error() {
                Some(error) if error.is_conditional_check_failed_exception() => Ok(SavedDelivery::MovedOn),
                _ => Err(ServiceError::new(SERVICE, &error)),
            },
        }
    }
}
