//! The two requests that submit a batch: one has its jobs, the other says how to read a file of them.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::input::{Checked, Input};
use crate::batch_file::{Format, Position};
use crate::fault::{Faults, FieldError, MAX_FAULTS};
use crate::json::{Fields, kind, object, string};
use crate::label::{BatchName, CustomId};
use crate::order::{DeadlineHours, Model, Order};
use crate::text::hex;
use crate::webhook::Webhook;

/// The maximum number of jobs in a request for a batch. A batch from a file may have more.
pub const MAX_JOBS: usize = 1000;

/// The maximum size of the defaults as JSON, in bytes. The record keeps them, and an item of DynamoDB has at most 400
/// KB. The longest valid texts and metadata take less, unless there are spaces around them.
pub const MAX_DEFAULTS_BYTES: usize = 100_000;

/// The request to submit a batch.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct BatchOrder {
    pub name: Option<BatchName>,
    pub deadline_hours: Option<DeadlineHours>,
    pub webhook: Option<Webhook>,
    /// The jobs, in the caller's order.
    pub entries: Vec<Entry>,
}

/// One job of a batch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What to paint.
    pub order: Order,
    /// The caller's id for the job.
    pub custom_id: Option<CustomId>,
}

impl BatchOrder {
    /// Parses a batch. Returns the faults it found, stopping soon after a hundred.
    pub fn parse(value: Value, default_model: Model) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, "")?;
        let name = fields.optional("name", |value| string(value)?.try_into());
        let defaults = fields.optional("defaults", object);
        let jobs = fields.required("jobs", |value| match value {
            Value::Array(jobs) if (1..=MAX_JOBS).contains(&jobs.len()) => Ok(jobs),
            Value::Array(jobs) => Err(format!("must have 1 to {MAX_JOBS} jobs, but has {}", jobs.len())),
            other => Err(format!("must be an array, not {}", kind(&other))),
        });
        let deadline_hours = fields.optional("deadline_hours", |value| DeadlineHours::parse(&value));
        let webhook = fields.nested("webhook", Webhook::of_batch);
        let webhook_of_jobs = webhook.as_ref().and_then(Webhook::for_jobs);
        for name in ["input", "on_bad_line"] {
            fields.optional::<(), _>(name, |_| Err("is not for a batch with its jobs in the request".to_owned()));
        }
        let mut errors = fields.faults();
        let mut defaults = defaults.unwrap_or_default();
        // Report a fault of the defaults once, not for every job that uses them.
        let faults = faults_of_defaults(&defaults, default_model);
        if !faults.is_empty() {
            errors.extend(faults);
            defaults.clear();
        }
        let mut entries = Vec::new();
        let mut seen = HashMap::new();
        for (index, job) in jobs.into_iter().flatten().enumerate() {
            match Entry::parse(job, &format!("/jobs/{index}"), &defaults, default_model) {
                Ok(mut entry) => {
                    entry.order.deadline_hours = deadline_hours;
                    entry.order.webhook = webhook_of_jobs.clone();
                    if let Some(first) = entry.custom_id.clone().and_then(|id| seen.insert(id, index)) {
                        let detail = format!("must be unique in the batch, but job {first} has the same");
                        errors.push(FieldError::new(&format!("/jobs/{index}/custom_id"), detail));
                    }
                    entries.push(entry);
                }
                Err(found) => errors.extend(found),
            }
            if errors.len() >= MAX_FAULTS {
                break;
            }
        }
        if errors.is_empty() { Ok(Self { name, deadline_hours, webhook, entries }) } else { Err(errors) }
    }

    /// A digest that is equal for two batches exactly if they ask for the same thing.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&self.name).expect("a name is always JSON"));
        if let Some(webhook) = &self.webhook {
            digest.update(serde_json::to_vec(webhook).expect("a webhook is always JSON"));
        }
        for Entry { order, custom_id } in &self.entries {
            digest.update(serde_json::to_vec(&(order, custom_id)).expect("an order is always JSON"));
        }
        hex(&digest.finalize())
    }
}

impl Entry {
    /// Parses one job at the JSON pointer `pointer` of the request. `defaults` supply the fields that it leaves out.
    pub fn parse(job: Value, pointer: &str, defaults: &Map<String, Value>, model: Model) -> Result<Self, Faults> {
        let mut job = object(job).map_err(|detail| vec![FieldError::new(pointer, detail)])?;
        let own = take_fields_of_batch(&mut job, pointer);
        let custom_id = match job.remove("custom_id").filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => string(value).and_then(CustomId::try_from).map(Some),
        };
        for (name, value) in defaults {
            if job.get(name).is_none_or(Value::is_null) {
                job.insert(name.clone(), value.clone());
            }
        }
        let order = Order::parse(Value::Object(job), pointer, model);
        match (order, custom_id) {
            (Ok(order), Ok(custom_id)) if own.is_empty() => Ok(Self { order, custom_id }),
            (order, custom_id) => {
                let mut errors = order.err().unwrap_or_default();
                let bad_id = custom_id.err();
                errors.extend(bad_id.map(|detail| FieldError::new(&format!("{pointer}/custom_id"), detail)));
                errors.extend(own);
                Err(errors)
            }
        }
    }
}

/// Takes the fields out of a job that only a whole batch may have, and returns a fault for each that it had.
fn take_fields_of_batch(job: &mut Map<String, Value>, pointer: &str) -> Faults {
    let rule = || "must be set for the whole batch, not for its jobs".to_owned();
    let names = ["deadline_hours", "webhook"].into_iter();
    let given = names.filter(|name| job.remove(*name).is_some_and(|value| !value.is_null()));
    given.map(|name| FieldError::new(&format!("{pointer}/{name}"), rule())).collect()
}

/// The faults of the defaults, found by parsing them as a job with a prompt.
pub fn faults_of_defaults(defaults: &Map<String, Value>, model: Model) -> Faults {
    let mut job = defaults.clone();
    let of_batch = take_fields_of_batch(&mut job, "/defaults");
    let has_prompt = job.insert("prompt".to_owned(), "x".into()).is_some();
    let mut errors = Order::parse(Value::Object(job), "/defaults", model).err().unwrap_or_default();
    if has_prompt {
        errors.push(FieldError::new("/defaults/prompt", "must be set for each job, not in the defaults".to_owned()));
    }
    errors.extend(of_batch);
    errors
}

/// The request to submit a batch from a file.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "as those of a batch in a request")]
pub struct FileBatchOrder {
    pub name: Option<BatchName>,
    pub input: Input,
    pub deadline_hours: Option<DeadlineHours>,
    pub webhook: Option<Webhook>,
}

impl FileBatchOrder {
    /// Whether the request is for a batch from a file.
    pub fn is_meant(value: &Value) -> bool {
        value.get("input").is_some_and(|input| !input.is_null())
    }

    /// Parses a request. The error lists every fault.
    pub fn parse(value: Value, default_model: Model) -> Result<Self, Faults> {
        let mut fields = Fields::new(value, "")?;
        let name = fields.optional("name", |value| string(value)?.try_into());
        let defaults = fields.optional("defaults", object);
        let on_bad_line = fields.optional("on_bad_line", |value| string(value)?.parse());
        let format = fields.nested("input", |input, pointer| {
            let mut fields = Fields::new(input, pointer)?;
            let format = fields.required("format", |value| string(value)?.parse::<Format>());
            fields.finish(format)
        });
        let deadline_hours = fields.optional("deadline_hours", |value| DeadlineHours::parse(&value));
        let webhook = fields.nested("webhook", Webhook::of_batch);
        fields.optional::<(), _>("jobs", |_| Err("must not be given together with input".to_owned()));
        let mut errors = fields.faults();
        let defaults = defaults.unwrap_or_default();
        errors.extend(faults_of_defaults(&defaults, default_model));
        let bytes = serde_json::to_vec(&defaults).expect("an object is always JSON").len();
        if bytes > MAX_DEFAULTS_BYTES {
            let detail = format!("must be at most {MAX_DEFAULTS_BYTES} bytes long as JSON, but has {bytes}");
            errors.push(FieldError::new("/defaults", detail));
        }
        match format {
            Some(format) if errors.is_empty() => {
                let input = Input {
                    format,
                    on_bad_line: on_bad_line.unwrap_or_default(),
                    defaults,
                    model: default_model,
                    file: None,
                    checked: Checked::default(),
                    position: Position::default(),
                };
                Ok(Self { name, input, deadline_hours, webhook })
            }
            _ => Err(errors),
        }
    }

    /// A digest that is equal for two requests exactly if they ask for the same thing.
    pub fn fingerprint(&self) -> String {
        let Input { format, on_bad_line, defaults, model, .. } = &self.input;
        let parts = (&self.name, format, on_bad_line, defaults, model, &self.deadline_hours, &self.webhook);
        hex(&Sha256::digest(serde_json::to_vec(&parts).expect("an order is always JSON")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Seed;
    use serde_json::json;

    fn pointers(value: Value) -> Vec<String> {
        let errors = BatchOrder::parse(value, Model::Core).expect_err("it breaks a rule");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn defaults_fill_what_a_job_leaves_out() {
        let batch = json!({
            "name": "Friday",
            "defaults": { "aspect_ratio": "1:1", "seed": 7, "metadata": { "a": "b" } },
            "jobs": [{ "prompt": "One", "custom_id": "1" }, { "prompt": "Two", "seed": 8, "metadata": null }]
        });
        let batch = BatchOrder::parse(batch, Model::Core).expect("a good batch");
        let seeds: Vec<_> = batch.entries.iter().map(|entry| entry.order.seed.map(Seed::get)).collect();
        assert_eq!(seeds, [Some(7), Some(8)]);
        assert!(batch.entries.iter().all(|entry| entry.order.aspect_ratio.as_str() == "1:1"));
        assert_eq!(batch.entries[1].order.metadata.pairs()["a"], "b");
    }

    #[test]
    fn every_fault_is_named_with_its_job() {
        let jobs = json!([{ "prompt": "" }, { "prompt": "x", "custom_id": "" }, 7, { "prompt": "x", "sede": 1 }]);
        assert_eq!(
            pointers(json!({ "jobs": jobs })),
            ["/jobs/0/prompt", "/jobs/1/custom_id", "/jobs/2", "/jobs/3/sede"]
        );
        let twins = json!([{ "prompt": "x", "custom_id": "a" }, { "prompt": "y", "custom_id": "a" }]);
        assert_eq!(pointers(json!({ "jobs": twins })), ["/jobs/1/custom_id"]);
        for jobs in [json!([]), json!(vec![json!({ "prompt": "x" }); 1001]), json!({}), json!(null)] {
            assert_eq!(pointers(json!({ "jobs": jobs })), ["/jobs"]);
        }
        let jobs = json!([{ "prompt": "x" }, { "prompt": "y" }]);
        let defaults = json!({ "seed": -1, "prompt": "z", "nmae": 1 });
        let found = pointers(json!({ "jobs": jobs, "defaults": defaults, "name": "" }));
        assert_eq!(found, ["/name", "/defaults/seed", "/defaults/nmae", "/defaults/prompt"]);
        let of_batch = json!({ "deadline_hours": 5, "webhook": { "url": "https://example.com" } });
        let late = json!({ "prompt": "x", "deadline_hours": 5, "webhook": {} });
        let found = pointers(json!({ "jobs": [late], "defaults": of_batch, "deadline_hours": 97, "webhook": {} }));
        let names = ["/deadline_hours", "/webhook/url"];
        let inside =
            ["/defaults", "/jobs/0"].map(|place| [format!("{place}/deadline_hours"), format!("{place}/webhook")]);
        assert_eq!(found, [&names.map(str::to_owned)[..], &inside.concat()].concat());
        let found = pointers(json!({ "jobs": [{ "prompt": "" }], "defaults": { "seed": 0 }, "name": "" }));
        assert_eq!(found, ["/name", "/defaults/seed", "/jobs/0/prompt"]);
        assert_eq!(pointers(json!({ "jobs": vec![json!({}); 1000] })).len(), MAX_FAULTS);
    }

    #[test]
    fn an_order_names_every_fault() {
        let order = json!({
            "input": { "format": "xlsx", "x": 1 }, "jobs": [], "on_bad_line": "ask", "defaults": { "seed": 0 }, "name": ""
        });
        let faults = FileBatchOrder::parse(order, Model::Core).expect_err("faults");
        let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/defaults/seed", "/input/format", "/input/x", "/jobs", "/name", "/on_bad_line"]);
        let faults = FileBatchOrder::parse(json!({ "input": {} }), Model::Core).expect_err("faults");
        assert_eq!(faults[0].pointer, "/input/format");
    }
}
