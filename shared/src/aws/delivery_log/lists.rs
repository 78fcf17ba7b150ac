use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::rows::{Item, key_of};
use super::{DeliveryLog, SERVICE};
use crate::aws::{Result, ServiceError};
use crate::caller::Owner;
use crate::delivery::{Delivery, DeliveryId, DeliveryStatus};
use crate::id::Subject;
use crate::time::Timestamp;

/// A filter that few deliveries match would otherwise read the whole list.
const QUERIES_PER_PAGE: usize = 8;

const KEYS_PER_QUERY: usize = 1000;

const READS_AT_ONCE: usize = 16;

/// Which deliveries of an owner to list.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryFilter {
    /// Where to look for them.
    pub range: DeliveryRange,
    /// Only those with this status.
    pub status: Option<DeliveryStatus>,
}

/// A range of an owner's deliveries.
#[derive(Clone, Copy, Debug)]
pub enum DeliveryRange {
    /// All of them.
    All,
    /// Those of a job or batch.
    Of(Subject),
    /// Those that were created in this span, including its ends.
    Between(Timestamp, Timestamp),
}

type Place = (DeliveryId, String);

impl DeliveryLog {
    /// The owner's delivery with this id; `None` if it belongs to another owner or has expired.
    pub async fn get_owned(&self, id: DeliveryId, owner: &Owner, now: Timestamp) -> Result<Option<Delivery>> {
        let delivery = self.get(id).await?;
        Ok(delivery.filter(|delivery| delivery.owner == *owner && delivery.expires_at > now))
    }

    /// Lists up to `limit` of the owner's deliveries, newest first, from the position `after`, and the position of the
    /// next page. A page before the end may be shorter, or empty, and the index may lag behind the table.
    pub async fn list(
        &self,
        owner: &Owner,
        filter: DeliveryFilter,
        limit: usize,
        after: Option<String>,
        now: Timestamp,
    ) -> Result<(Vec<Delivery>, Option<String>)> {
        // DynamoDB refuses a condition that no item can meet.
        if matches!(filter.range, DeliveryRange::Between(since, until) if since > until) {
            return Ok((Vec::new(), None));
        }
        let (places, next) = self.places(owner, filter, limit, after).await?;
        let has_places = !places.is_empty();
        let mut deliveries: Vec<_> = stream::iter(places)
            .map(|(id, _)| self.get_owned(id, owner, now))
            .buffered(READS_AT_ONCE)
            .try_filter_map(async |delivery| Ok(delivery))
            .try_collect()
            .await?;
        // The deliveries of a job or batch have one owner. Another owner must not learn that there is a next page.
        if matches!(filter.range, DeliveryRange::Of(_)) && has_places && deliveries.is_empty() {
            return Ok((deliveries, None));
        }
        deliveries.retain(|delivery| filter.status.is_none_or(|status| delivery.status == status));
        Ok((deliveries, next))
    }

    async fn places(
        &self,
        owner: &Owner,
        filter: DeliveryFilter,
        limit: usize,
        after: Option<String>,
    ) -> Result<(Vec<Place>, Option<String>)> {
        let mut found = Vec::new();
        let mut next = after;
        for _ in 0..QUERIES_PER_PAGE {
            let read = if filter.status.is_some() { KEYS_PER_QUERY } else { limit - found.len() };
            let (places, end) = self.query(owner, filter, read, next.take()).await?;
            let mut places = places.into_iter();
            while let Some(place) = places.next() {
                let position = place.1.clone();
                found.push(place);
                if found.len() == limit {
                    return Ok((found, if places.len() > 0 { Some(position) } else { end }));
                }
            }
            next = end;
            if next.is_none() {
                break;
            }
        }
        Ok((found, next))
    }

    async fn query(
        &self,
        owner: &Owner,
        filter: DeliveryFilter,
        read: usize,
        after: Option<String>,
    ) -> Result<(Vec<Place>, Option<String>)> {
        let start = after.map(|place| start_key(owner, filter.range, &place)).transpose()?;
        let mut query = self
            .client
            .query()
            .table_name(&self.name)
            .scan_index_forward(false)
            .limit(i32::try_from(read).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start);
        if let DeliveryRange::Of(subject) = filter.range {
            query = query
                .key_condition_expression("subject = :subject")
                .expression_attribute_values(":subject", AttributeValue::S(subject.to_string()));
        } else {
            query = query
                .index_name("by_owner")
                .key_condition_expression("#owner = :owner")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":owner", AttributeValue::S(owner.as_str().to_owned()));
        }
        if let DeliveryRange::Between(since, until) = filter.range {
            query = query
                .key_condition_expression("#owner = :owner AND created_at BETWEEN :since AND :until")
                .expression_attribute_values(":since", AttributeValue::N(since.ms().to_string()))
                .expression_attribute_values(":until", AttributeValue::N(until.ms().to_string()));
        }
        if let Some(status) = filter.status {
            query = query
                .filter_expression("#status = :status")
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":status", AttributeValue::S(status.to_string()));
        }
        let output = query.send().await.map_err(ServiceError::of(SERVICE))?;
        let places = output.items().iter().map(|item| place_of(item).ok_or_else(|| ServiceError::corrupt(SERVICE)));
        let end = output.last_evaluated_key().and_then(place_of).map(|(_, position)| position);
        Ok((places.collect::<Result<_, _>>()?, end))
    }
}

/// The place of an item, or of a key of the table or its index. A key of the table alone has no creation time.
fn place_of(item: &Item) -> Option<Place> {
    let number = |name: &str| item.get(name)?.as_n().ok();
    let since = Timestamp::from_ms(number("at")?.parse().ok()?);
    let id = DeliveryId { subject: item.get("subject")?.as_s().ok()?.parse().ok()?, since };
    let created_at = number("created_at").map_or("", String::as_str);
    Some((id, format!("{id} {created_at}")))
}

fn start_key(owner: &Owner, range: DeliveryRange, position: &str) -> Result<Item> {
    let corrupt = || ServiceError::corrupt(SERVICE);
    let (id, created_at) = position.split_once(' ').ok_or_else(corrupt)?;
    let mut key = key_of(id.parse().map_err(|_| corrupt())?);
    if !matches!(range, DeliveryRange::Of(_)) {
        key.insert("owner".to_owned(), AttributeValue::S(owner.as_str().to_owned()));
        key.insert("created_at".to_owned(), AttributeValue::N(created_at.to_owned()));
    }
    Ok(key)
}
