//! Reads of the table that lag behind: eventually consistent reads, and reads of the indexes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};

use super::Bug;
use super::files::{FileBug, hide_cancellation, show_canceled};
use super::gate::{Gate, body_of, replace_body};
use super::scene::{Scene, answer};

/// How long a read may lag behind a write.
const LAG: Duration = Duration::from_secs(5);

impl Scene {
    /// Records what is now stored under a key, or null.
    pub(super) fn stored(&mut self, item: Value) {
        let pk = item["pk"]["S"].as_str().unwrap_or_default().to_owned();
        let now = self.clock.now();
        let versions = self.versions.entry(pk).or_insert_with(|| (Value::Null, Value::Null, now));
        let item = if item["deleted"].is_null() { item } else { Value::Null };
        *versions = (std::mem::take(&mut versions.1), item, now);
    }

    /// What a read that lags behind returns for a key: the item before the last write, or null. `None` if it is up to date.
    fn behind(&mut self, pk: &str, share: f64) -> Option<Value> {
        let (before, _, written_at) = self.versions.get(pk)?.clone();
        (self.clock.now().since(written_at) < LAG && self.chance(share)).then_some(before)
    }
}

impl Gate {
    pub(super) async fn get_item(
        &self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
        body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        if self.may_be_behind(&body) {
            let mut scene = self.scene();
            if let Some(before) = scene.behind(body["Key"]["pk"]["S"].as_str().unwrap_or_default(), 0.3) {
                scene.fault("read of the version before");
                return Ok(answer(200, &if before.is_null() { json!({}) } else { json!({ "Item": before }) }));
            }
        }
        let bug = self.scene().bug;
        let response = inner.call(request).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let mut found = body_of(response.body());
        self.doctor(bug, &mut found["Item"]);
        Ok(answer(200, &found))
    }

    /// Changes an item that is read as the planted bug or the older version of the functions would.
    fn doctor(&self, bug: Option<Bug>, item: &mut Value) {
        if item.is_null() {
            return;
        }
        let scene = self.scene();
        let actor = self.actor.load(Ordering::Relaxed);
        if scene.has_file_bug(actor, FileBug::CancellationOverlooked) {
            hide_cancellation(item);
        }
        let expires_at = item["expires_at"]["N"].as_str().and_then(|text| text.parse().ok());
        match bug {
            Some(Bug::ExpiredShown) if expires_at.is_some_and(|end: i64| end <= scene.clock.now().secs_ceil()) => {
                item["expires_at"] = json!({ "N": "4000000000" });
            }
            Some(Bug::TotalFromIndex) if item.get("total").is_some() && !scene.alive.contains_key(&actor) => {
                let jobs =
                    scene.versions.iter().filter(|(_, (before, _, _))| before["batch_id"]["S"] == batch_of(item));
                item["total"]["N"] = jobs.count().to_string().into();
            }
            Some(Bug::DeadLetterTakesAll) if scene.dead_letters.contains(&actor) && item["lease"]["M"].is_object() => {
                item["lease"]["M"]["until"] = json!({ "N": "0" });
            }
            _ => {}
        }
        self.version.read(item);
    }

    fn may_be_behind(&self, body: &Value) -> bool {
        body["ConsistentRead"] != json!(true) || self.scene().bug == Some(Bug::ReadsBehind)
    }

    pub(super) async fn batch_get(
        &self,
        inner: &SharedHttpConnector,
        mut request: HttpRequest,
        mut body: Value,
    ) -> Result<HttpResponse, ConnectorError> {
        let Some(table) = body["RequestItems"].as_object().and_then(|tables| tables.keys().next().cloned()) else {
            return inner.call(request).await;
        };
        let wanted = &mut body["RequestItems"][&table];
        let behind = self.may_be_behind(wanted);
        let mut unprocessed = json!({});
        let keys = wanted["Keys"].as_array().map_or(0, Vec::len);
        // This also affects the last reader, who must see every job.
        if keys > 1 && self.scene().random.f64() < 0.2 {
            self.scene().fault("unprocessed keys");
            let left = wanted["Keys"].as_array_mut().expect("counted above").split_off(keys / 2);
            if self.scene().bug != Some(Bug::UnprocessedKeysIgnored) {
                unprocessed = json!({ &table: { "Keys": left, "ConsistentRead": wanted["ConsistentRead"] } });
            }
            replace_body(&mut request, &body);
        }
        let response = inner.call(request).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let mut found = body_of(response.body());
        let mut scene = self.scene();
        let items = found["Responses"][&table].as_array_mut().map(std::mem::take).unwrap_or_default();
        let seen = items.into_iter().map(|item| {
            let pk = item["pk"]["S"].as_str().unwrap_or_default().to_owned();
            let before = if behind { scene.behind(&pk, 0.3) } else { None };
            before.inspect(|_| scene.fault("read of the version before")).unwrap_or(item)
        });
        let mut seen: Vec<_> = seen.filter(|item| !item.is_null()).collect();
        let bug = scene.bug;
        drop(scene);
        seen.iter_mut().for_each(|item| self.doctor(bug, item));
        let actor = self.actor.load(Ordering::Relaxed);
        if self.scene().has_file_bug(actor, FileBug::ResultsTooEarly) {
            seen.iter_mut().for_each(show_canceled);
        }
        found["Responses"][&table] = seen.into();
        found["UnprocessedKeys"] = unprocessed;
        Ok(answer(200, &found))
    }

    /// An index may lack a new item, or show an old state.
    pub(super) async fn query(
        &self,
        inner: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let response = inner.call(request).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let mut found = body_of(response.body());
        let mut scene = self.scene();
        let mut shown = Vec::new();
        for mut item in found["Items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            let pk = item["pk"]["S"].as_str().unwrap_or_default().to_owned();
            match scene.behind(&pk, 0.3) {
                Some(before) if before.is_null() || item.get("batch_id") != before.get("batch_id") => {
                    scene.fault("index lacks a job");
                    continue;
                }
                Some(before) if item.get("status").is_some() => {
                    scene.fault("index shows an old state");
                    item["status"] = before["status"].clone();
                }
                _ => {}
            }
            if scene.has_file_bug(self.actor.load(Ordering::Relaxed), FileBug::ResultsTooEarly) {
                show_canceled(&mut item);
            }
            shown.push(item);
        }
        found["Items"] = shown.into();
        Ok(answer(200, &found))
    }
}

/// The batch whose record this is.
fn batch_of(item: &Value) -> &str {
    item["pk"]["S"].as_str().and_then(|pk| pk.strip_prefix("BATCH#")).unwrap_or_default()
}
