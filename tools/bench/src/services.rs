//! Stand-ins for DynamoDB, SQS, S3 and Bedrock that answer after a fixed time and count their calls.
//!
//! They hold only as much of each service as a poster needs. The table keeps items, conditions and sizes as DynamoDB
//! does, so that duplicates are refused and write units are counted as they would be billed. What they do not
//! understand they refuse loudly.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use shared::batch::JOBS_PER_PART;
use shared::{BatchId, JobId};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::products::DELIVERIES_TABLE;

pub(crate) type Item = Map<String, Value>;

/// The indexes that `template.yaml` gives the table: the index's own key, and then what else it holds. An index without
/// its key in an item does not hold the item.
const INDEXES: [(&str, &[&str]); 2] = [("owner", &["owner", "created_at"]), ("batch_id", &["batch_id", "status"])];

/// How many jobs are kept whole in a table that forgets. The function `batch` admits a thousand at a time.
const WHOLE_JOBS: usize = 5000;

/// How the services behave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behavior {
    /// How long the table, the queue and the bucket take.
    pub(crate) latency: Duration,
    /// How long the model takes.
    pub(crate) model: Duration,
    /// The model's answer.
    pub(crate) answer: Bytes,
    /// Whether calls fail now and then: some before anything was done, some after, and the model turns some away.
    pub(crate) faults: bool,
    /// The input file of every batch.
    pub(crate) input: Option<Input>,
    /// What every job of a batch looks like, whatever is in the table.
    pub(crate) stored: Option<Item>,
    /// Whether the table forgets all of a job but its id, its part and its status, once [`WHOLE_JOBS`] newer ones are
    /// stored, so that a million jobs fit into memory.
    pub(crate) forgets: bool,
}

/// A file of NDJSON that is made while it is read: so many lines of one length, each a job with a `custom_id` of its own.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    lines: usize,
    line: Vec<u8>,
    /// Whether the last line repeats the `custom_id` of the first.
    repeats: bool,
}

/// Where a generated line has its number, and how many digits it has.
const NUMBER: std::ops::Range<usize> = 14..21;

impl Input {
    pub(crate) fn new(lines: usize, bytes_per_line: usize, repeats: bool) -> Self {
        let (head, tail) = ("{\"custom_id\":\"0000000\",\"prompt\":\"", "\"}\n");
        let prompt = "A heist on the moon. ".chars().cycle().take(bytes_per_line - head.len() - tail.len() - 1);
        let line = format!("{head}{}.{tail}", prompt.collect::<String>()).into_bytes();
        Self { lines, line, repeats }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines * self.line.len()
    }

    fn bytes(&self, range: std::ops::Range<usize>) -> Bytes {
        let width = self.line.len();
        let first = range.start / width;
        let last = range.end.div_ceil(width);
        let mut bytes = self.line.repeat(last - first);
        for (line, number) in bytes.chunks_exact_mut(width).zip(first..) {
            let number = if self.repeats && number + 1 == self.lines { 0 } else { number };
            line[NUMBER].copy_from_slice(format!("{number:07}").as_bytes());
        }
        Bytes::from(bytes).slice(range.start - first * width..range.end - first * width)
    }
}

/// The calls, and what AWS would bill for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Calls by the name of their operation.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Answers of the model that hold a picture, each of which would be billed.
    pub(crate) pictures: u64,
    /// Write units of the table and its indexes.
    pub(crate) writes: f64,
    /// Read units of the table.
    pub(crate) reads: f64,
    /// The size of the largest item that was written, in bytes.
    pub(crate) largest_item: usize,
    /// How long the services took over all calls but the model's.
    pub(crate) service_time: Duration,
}

impl Counts {
    /// How many calls there were of an operation.
    pub(crate) fn of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }

    /// The calls in words, such as `2 UpdateItem`, for one of `n` units.
    pub(crate) fn per(&self, n: u64) -> String {
        let mut text = String::new();
        for (operation, &calls) in &self.calls {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = match calls % n {
                0 => write!(text, "{separator}{} {operation}", calls / n),
                _ => write!(text, "{separator}{:.2} {operation}", calls as f64 / n as f64),
            };
        }
        text
    }
}

#[derive(Debug, Default)]
struct Inner {
    behavior: Behavior,
    counts: Counts,
    table: BTreeMap<String, Item>,
    ledger: Ledger,
    tickets: Vec<String>,
    objects: BTreeMap<String, (HeaderMap, Bytes)>,
    /// How many calls could have failed, and how many the model could have turned away.
    chances: (u64, u64),
}

/// The jobs of a table that forgets.
#[derive(Debug, Default)]
struct Ledger {
    /// The statuses of the jobs, by their part and their key.
    parts: BTreeMap<String, BTreeMap<String, String>>,
    /// The keys of those that the table has whole, oldest first.
    whole: VecDeque<String>,
}

impl Ledger {
    /// Notes a job that the table has whole. Returns the key of the job that the table now forgets.
    fn note(&mut self, item: &Item) -> Option<String> {
        let part = part_of(item)?;
        let (key, status) = (key_of_item(item), item.get("status")?["S"].as_str()?);
        let is_new = self.parts.entry(part.to_owned()).or_default().insert(key.to_owned(), status.to_owned()).is_none();
        if is_new {
            self.whole.push_back(key.to_owned());
        }
        if self.whole.len() > WHOLE_JOBS { self.whole.pop_front() } else { None }
    }

    fn holds(&self, item: &Item) -> bool {
        let part = part_of(item).and_then(|part| self.parts.get(part));
        part.is_some_and(|jobs| jobs.contains_key(key_of_item(item)))
    }
}

/// The part of a batch to which a job belongs.
fn part_of(item: &Item) -> Option<&str> {
    ["batch_id", "part"].into_iter().find_map(|name| item.get(name)?["S"].as_str())
}

/// The services. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(Arc<Mutex<Inner>>);

/// The running services' addresses, in the order DynamoDB, SQS, S3, Bedrock.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) addresses: [SocketAddr; 4],
    servers: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

impl Services {
    /// Starts the services, each on a port of its own.
    pub(crate) async fn start(&self) -> Result<Running, Failure> {
        let routers = [
            Router::new().fallback(dynamodb).with_state(self.clone()),
            Router::new().fallback(sqs).with_state(self.clone()),
            Router::new().fallback(s3).with_state(self.clone()),
            Router::new().fallback(bedrock).with_state(self.clone()),
        ];
        let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 4];
        let mut servers = Vec::new();
        for (router, address) in routers.into_iter().zip(&mut addresses) {
            let listener = TcpListener::bind(*address).await?;
            *address = listener.local_addr()?;
            servers.push(tokio::spawn(axum::serve(listener, router).into_future()));
        }
        Ok(Running { addresses, servers })
    }

    /// Changes how the services behave from the next call on.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.lock().behavior);
    }

    /// The calls since the last time.
    pub(crate) fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.lock().counts)
    }

    /// The messages that were sent since the last time this was asked for.
    pub(crate) fn take_tickets(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().tickets)
    }

    /// How many items have this status.
    pub(crate) fn with_status(&self, status: &str) -> usize {
        self.lock().table.values().filter(|item| item.get("status").is_some_and(|found| found["S"] == status)).count()
    }

    /// The item with this key.
    pub(crate) fn item(&self, key: &str) -> Option<Item> {
        self.lock().table.get(key).cloned()
    }

    /// An item with this status.
    pub(crate) fn any_with_status(&self, status: &str) -> Option<Item> {
        self.lock().table.values().find(|item| item.get("status").is_some_and(|found| found["S"] == status)).cloned()
    }

    /// How many jobs are in a table that forgets.
    pub(crate) fn jobs(&self) -> usize {
        self.lock().ledger.parts.values().map(BTreeMap::len).sum()
    }

    /// The keys of the jobs of a part in a table that forgets.
    pub(crate) fn keys_of_part(&self, part: &str) -> Vec<String> {
        self.lock().ledger.parts.get(part).map(|jobs| jobs.keys().cloned().collect()).unwrap_or_default()
    }

    /// Gives one job of each part in a table that forgets another status.
    pub(crate) fn change_one_of_each_part(&self, status: &str) {
        for jobs in self.lock().ledger.parts.values_mut() {
            jobs.values_mut().take(1).for_each(|found| status.clone_into(found));
        }
    }

    /// Puts an item, without counting it.
    pub(crate) fn put(&self, item: Item) {
        self.lock().table.insert(key_of_item(&item).to_owned(), item);
    }

    /// Forgets all items and objects.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.table.clear();
        inner.ledger = Ledger::default();
        inner.objects.clear();
        inner.tickets.clear();
        inner.counts = Counts::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, lets the time pass that it takes, and does it, unless it is one that fails.
    async fn call(&self, operation: &str, act: impl FnOnce(&mut Inner) -> Response) -> Response {
        let begun = Instant::now();
        let (latency, fault) = {
            let mut inner = self.lock();
            *inner.counts.calls.entry(operation.to_owned()).or_default() += 1;
            inner.chances.0 += u64::from(inner.behavior.faults);
            (inner.behavior.latency, if inner.behavior.faults { inner.chances.0 } else { 1 })
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let failed = || (StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response();
        // Every fifth call fails and does nothing; the answer of every seventh is lost.
        let response = match fault {
            call if call % 5 == 0 => failed(),
            call if call % 7 == 0 => {
                act(&mut self.lock());
                failed()
            }
            _ => act(&mut self.lock()),
        };
        self.lock().counts.service_time += begun.elapsed();
        response
    }
}

/// The operation and the document of a request in one of AWS's JSON protocols.
async fn json_request(request: Request) -> Option<(String, Value)> {
    let target = request.headers().get("x-amz-target")?.to_str().ok()?;
    let operation = target.rsplit('.').next()?.to_owned();
    let body = to_bytes(request.into_body(), usize::MAX).await.ok()?;
    Some((operation, serde_json::from_slice(&body).ok()?))
}

fn json_answer(answer: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], answer.to_string()).into_response()
}

fn refused(code: &str, more: Item) -> Response {
    let mut answer = Value::Object(more);
    answer["__type"] = json!(format!("com.amazonaws#{code}"));
    let mut response = json_answer(&answer);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

fn not_understood(what: &str) -> Response {
    refused("ValidationException", Map::from_iter([("message".to_owned(), json!(format!("not understood: {what}")))]))
}

async fn dynamodb(State(services): State<Services>, request: Request) -> Response {
    let Some((operation, document)) = json_request(request).await else { return not_understood("the request") };
    let call = operation.clone();
    services
        .call(&operation, move |inner| match call.as_str() {
            _ if document["TableName"] == DELIVERIES_TABLE => inner.empty_log(&call, &document),
            "BatchGetItem" => inner.batch_get_item(&document),
            "GetItem" => inner.get_item(&document),
            "Query" => inner.query(&document),
            "PutItem" => inner.put_item(&document),
            "UpdateItem" => inner.update_item(&document),
            other => not_understood(other),
        })
        .await
}

impl Inner {
    /// The table of deliveries, which keeps nothing: each event is sent for the first time.
    fn empty_log(&mut self, operation: &str, document: &Value) -> Response {
        match operation {
            "GetItem" => json_answer(&json!({})),
            "Query" => json_answer(&json!({ "Items": [], "Count": 0, "ScannedCount": 0 })),
            "PutItem" if document["ConditionExpression"] == "attribute_not_exists(subject)" => json_answer(&json!({})),
            other => not_understood(other),
        }
    }

    fn get_item(&mut self, document: &Value) -> Response {
        let item = self.table.get(key_of(&document["Key"]));
        let units = item.map_or(1, |item| size_of_item(item).div_ceil(4096)) as f64;
        self.counts.reads += if document["ConsistentRead"] == true { units } else { units / 2.0 };
        json_answer(&item.map_or_else(|| json!({}), |item| json!({ "Item": item })))
    }

    fn batch_get_item(&mut self, document: &Value) -> Response {
        let Some((table, wanted)) = document["RequestItems"].as_object().and_then(|tables| tables.iter().next()) else {
            return not_understood("RequestItems");
        };
        let keys = wanted["Keys"].as_array().into_iter().flatten().map(key_of);
        let items: Vec<_> = match &self.behavior.stored {
            // A million items are written as text, because that is faster.
            Some(stored) => {
                let (text, size) = (json!(stored).to_string(), size_of_item(stored));
                let own = key_of_item(stored);
                keys.map(|key| (text.replace(own, key), size)).collect()
            }
            None => {
                let stored = keys.filter_map(|key| self.table.get(key));
                stored.map(|item| (json!(item).to_string(), size_of_item(item))).collect()
            }
        };
        self.counts.reads += items.iter().map(|(_, size)| size.div_ceil(4096) as f64).sum::<f64>();
        let items: Vec<_> = items.into_iter().map(|(text, _)| text).collect();
        let answer = format!("{{\"Responses\":{{\"{table}\":[{}]}},\"UnprocessedKeys\":{{}}}}", items.join(","));
        ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], answer).into_response()
    }

    /// Reads a part of a batch from the index, by an eventually consistent read.
    fn query(&mut self, document: &Value) -> Response {
        let part = &document["ExpressionAttributeValues"][":batch"];
        if document["IndexName"] != "by_batch" {
            return not_understood("IndexName");
        }
        let projected = |item: &Item| -> Item {
            ["pk", "batch_id", "status"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), item.get(name)?.clone())))
                .collect()
        };
        let items: Vec<_> = match &self.behavior.stored {
            Some(stored) => ids_of(part["S"].as_str().unwrap_or_default())
                .map(|id| {
                    Item::from_iter([
                        ("batch_id".to_owned(), part.clone()),
                        ("status".to_owned(), stored["status"].clone()),
                        ("pk".to_owned(), json!({ "S": format!("JOB#{id}") })),
                    ])
                })
                .collect(),
            None if self.behavior.forgets => {
                let jobs = self.ledger.parts.get(part["S"].as_str().unwrap_or_default());
                let entry = |(key, status): (&String, &String)| {
                    let entry = json!({ "pk": { "S": key }, "batch_id": part, "status": { "S": status } });
                    entry.as_object().cloned().unwrap_or_default()
                };
                jobs.into_iter().flatten().map(entry).collect()
            }
            None => self.table.values().filter(|item| item.get("batch_id") == Some(part)).map(projected).collect(),
        };
        self.counts.reads += (items.iter().map(size_of_item).sum::<usize>().div_ceil(4096) as f64) / 2.0;
        json_answer(&json!({ "Items": items, "Count": items.len(), "ScannedCount": items.len() }))
    }

    fn put_item(&mut self, document: &Value) -> Response {
        let Some(item) = document["Item"].as_object().cloned() else { return not_understood("Item") };
        let existing = self.table.get(key_of(&document["Item"]));
        match (document["ConditionExpression"].as_str(), existing) {
            (Some(condition), _) if !condition.starts_with("attribute_not_exists(pk)") => {
                return not_understood(condition);
            }
            (Some(_), Some(existing)) => return condition_failed(document, Some(existing)),
            (_, None) if self.ledger.holds(&item) => return not_understood("a job that was forgotten"),
            _ => {}
        }
        self.write(item);
        json_answer(&json!({}))
    }

    fn update_item(&mut self, document: &Value) -> Response {
        let names = &document["ExpressionAttributeNames"];
        let values = &document["ExpressionAttributeValues"];
        let name = |name: &str| names[name].as_str().unwrap_or(name).to_owned();
        let existing = self.table.get(key_of(&document["Key"]));
        if let Some(condition) = document["ConditionExpression"].as_str() {
            let stored = |path: &str| {
                let mut path = path.split('.');
                let attribute = name(path.next().unwrap_or_default());
                path.fold(existing.and_then(|item| item.get(&attribute)), |stored, member| stored?["M"].get(member))
            };
            // Equalities and the presence of attributes are understood.
            let term = |term: &str| {
                let argument = |function: &str| term.strip_prefix(function)?.strip_suffix(')');
                if let Some(attribute) = argument("attribute_exists(") {
                    return Some(stored(attribute).is_some());
                }
                if let Some(attribute) = argument("attribute_not_exists(") {
                    return Some(stored(attribute).is_none());
                }
                let (attribute, value) = term.split_once(" = ")?;
                Some(stored(attribute).is_some_and(|stored| *stored == values[value]))
            };
            let mut holds = false;
            for all in condition.split(" OR ") {
                let Some(terms) = all.split(" AND ").map(term).collect::<Option<Vec<_>>>() else {
                    return not_understood(condition);
                };
                holds |= terms.into_iter().all(|holds| holds);
            }
            if !holds {
                return condition_failed(document, existing);
            }
        }
        let mut item = existing.cloned().or_else(|| document["Key"].as_object().cloned()).unwrap_or_default();
        let update = document["UpdateExpression"].as_str().unwrap_or_default();
        let (update, removed) = update.split_once(" REMOVE ").unwrap_or((update, ""));
        let Some(assignments) = update.strip_prefix("SET ") else { return not_understood(update) };
        for assignment in assignments.split(", ") {
            let Some((attribute, value)) = assignment.split_once(" = ") else { return not_understood(update) };
            item.insert(name(attribute), values[value].clone());
        }
        item.remove(&name(removed));
        self.write(item);
        json_answer(&json!({}))
    }

    /// Writes an item and counts the units: one for each kilobyte of the larger one of old and new, and the same for
    /// each index whose entry changes. (The entries are all smaller than a kilobyte.)
    fn write(&mut self, item: Item) {
        if self.behavior.forgets
            && let Some(forgotten) = self.ledger.note(&item)
        {
            self.table.remove(&forgotten);
        }
        let size = size_of_item(&item);
        self.counts.largest_item = self.counts.largest_item.max(size);
        let old = self.table.insert(key_of_item(&item).to_owned(), item.clone());
        let larger = size.max(old.as_ref().map_or(0, size_of_item));
        self.counts.writes += larger.div_ceil(1024) as f64;
        for (key, attributes) in INDEXES {
            let entry = |item: &Item| {
                item.get(key).map(|_| attributes.iter().map(|name| item.get(*name).cloned()).collect::<Vec<_>>())
            };
            let (before, after) = (old.as_ref().and_then(entry), entry(&item));
            self.counts.writes += if before == after { 0.0 } else { 1.0 };
        }
    }
}

fn condition_failed(document: &Value, existing: Option<&Item>) -> Response {
    let wanted = document["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD";
    let item = existing.filter(|_| wanted).map(|item| ("Item".to_owned(), json!(item)));
    refused("ConditionalCheckFailedException", Map::from_iter(item))
}

/// The ids of the jobs of a full part.
fn ids_of(part: &str) -> impl Iterator<Item = JobId> {
    let (batch, part) = part.split_once('#').unwrap_or((part, "0"));
    let (batch, part): (Option<BatchId>, usize) = (batch.parse().ok(), part.parse().unwrap_or(0));
    let indexes = part * JOBS_PER_PART..(part + 1) * JOBS_PER_PART;
    batch.into_iter().flat_map(move |batch| indexes.clone().map(move |index| JobId::in_batch(batch, index)))
}

fn key_of(key: &Value) -> &str {
    key["pk"]["S"].as_str().unwrap_or_default()
}

fn key_of_item(item: &Item) -> &str {
    item.get("pk").and_then(|pk| pk["S"].as_str()).unwrap_or_default()
}

/// An item's size as DynamoDB counts it, see "DynamoDB item sizes and formats",
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
fn size_of_item(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    match (kind.as_str(), value) {
        ("N", Value::String(digits)) => digits.len().div_ceil(2) + 1,
        (_, Value::String(text)) => text.len(),
        ("M", Value::Object(members)) => 3 + members.len() + size_of_item(members),
        ("L", Value::Array(members)) => 3 + members.iter().map(|member| 1 + size_of_value(member)).sum::<usize>(),
        _ => 1,
    }
}

async fn sqs(State(services): State<Services>, request: Request) -> Response {
    let Some((operation, document)) = json_request(request).await else { return not_understood("the request") };
    let call = operation.clone();
    services
        .call(&operation, move |inner| match call.as_str() {
            "SendMessage" => {
                inner.tickets.push(document["MessageBody"].as_str().unwrap_or_default().to_owned());
                json_answer(&json!({ "MessageId": "m" }))
            }
            "SendMessageBatch" => {
                let entries = document["Entries"].as_array().cloned().unwrap_or_default();
                let sent = |entry: &Value| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" });
                let answer = json!({ "Successful": entries.iter().map(sent).collect::<Vec<_>>(), "Failed": [] });
                let bodies = entries.iter().filter_map(|entry| entry["MessageBody"].as_str().map(str::to_owned));
                inner.tickets.extend(bodies);
                json_answer(&answer)
            }
            "ChangeMessageVisibility" => json_answer(&json!({})),
            "GetQueueAttributes" => json_answer(&json!({ "Attributes": {
                "ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0"
            } })),
            other => not_understood(other),
        })
        .await
}

async fn s3(State(services): State<Services>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let key = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let input = if key.ends_with("/input") { services.lock().behavior.input.clone() } else { None };
    match (parts.method, input) {
        (Method::HEAD, Some(input)) => {
            services.call("HeadObject", move |_| headers_of(input.len()).into_response()).await
        }
        (Method::GET, Some(input)) => {
            let Some(range) = range_of(&parts.headers) else { return not_understood("the range") };
            let bytes = input.bytes(range);
            services
                .call("GetObject", move |_| {
                    (StatusCode::PARTIAL_CONTENT, headers_of(bytes.len()), bytes).into_response()
                })
                .await
        }
        (Method::POST, _) if query.contains("uploads") => {
            let answer = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
            services.call("CreateMultipartUpload", |_| answer.into_response()).await
        }
        (Method::POST, _) if query.contains("uploadId=") => {
            drain(body).await;
            let answer = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
            services.call("CompleteMultipartUpload", |_| answer.into_response()).await
        }
        (Method::PUT, _) if query.contains("partNumber=") => {
            drain(body).await;
            services.call("UploadPart", |_| ([(header::ETAG, "\"e\"")], ()).into_response()).await
        }
        (Method::PUT, _) => match to_bytes(body, usize::MAX).await {
            Ok(body) => services.call("PutObject", move |inner| inner.put_object(key, parts.headers, body)).await,
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
        // The bucket itself, which is there.
        (Method::HEAD, _) if !key.trim_matches('/').contains('/') => {
            services.call("HeadBucket", |_| StatusCode::OK.into_response()).await
        }
        (Method::HEAD, _) => services.call("HeadObject", move |inner| inner.object(&key, Bytes::new())).await,
        // A worker whose answer to a PUT was lost reads what it finds stored.
        (Method::GET, _) => {
            services
                .call("GetObject", move |inner| {
                    let body = inner.objects.get(&key).map(|object| object.1.clone()).unwrap_or_default();
                    inner.object(&key, body)
                })
                .await
        }
        (method, _) => (StatusCode::NOT_IMPLEMENTED, method.to_string()).into_response(),
    }
}

fn headers_of(length: usize) -> [(HeaderName, String); 2] {
    [(header::CONTENT_LENGTH, length.to_string()), (header::ETAG, "\"e\"".to_owned())]
}

/// The range of bytes that is asked for.
fn range_of(headers: &HeaderMap) -> Option<std::ops::Range<usize>> {
    let (first, last) = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
}

async fn drain(body: Body) {
    let mut parts = body.into_data_stream();
    while parts.next().await.is_some() {}
}

impl Inner {
    fn put_object(&mut self, key: String, headers: HeaderMap, body: Bytes) -> Response {
        if headers.contains_key(header::IF_NONE_MATCH) && self.objects.contains_key(&key) {
            let error = "<Error><Code>PreconditionFailed</Code></Error>";
            return (StatusCode::PRECONDITION_FAILED, error).into_response();
        }
        self.objects.insert(key, (headers, body));
        ([(header::ETAG, "\"e\"")], ()).into_response()
    }

    /// What is told of an object, with `body`.
    fn object(&self, key: &str, body: Bytes) -> Response {
        let Some((stored, _)) = self.objects.get(key) else { return StatusCode::NOT_FOUND.into_response() };
        let told = |name: &HeaderName| {
            matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) || name.as_str().starts_with("x-amz-meta-")
        };
        let headers: HeaderMap<HeaderValue> =
            stored.iter().filter(|(name, _)| told(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
        (headers, body).into_response()
    }
}

async fn bedrock(State(services): State<Services>, request: Request) -> Response {
    drain(request.into_body()).await;
    let (latency, answer) = {
        let mut inner = services.lock();
        *inner.counts.calls.entry("InvokeModel".to_owned()).or_default() += 1;
        if inner.behavior.faults {
            inner.chances.1 += 1;
            // Every sixth call comes at a bad time.
            if inner.chances.1 % 6 == 0 {
                let headers = [("x-amzn-errortype", "ThrottlingException")];
                return (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response();
            }
        }
        inner.counts.pictures += 1;
        (inner.behavior.model, inner.behavior.answer.clone())
    };
    tokio::time::sleep(latency).await;
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}
