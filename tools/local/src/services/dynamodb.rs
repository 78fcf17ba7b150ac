//! DynamoDB on SQLite, by `dynoxide`. Its own HTTP server would answer any web page (`Access-Control-Allow-Origin: *`), so it
//! gets another one here.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use dynoxide::auth_material::{self, AuthMaterial};
use dynoxide::{Database, DynoxideError};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{Error, Shutdown, serve_router};
use crate::template::Table;

/// The most bytes of one request: a full BatchWriteItem, see
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// How often expired items are removed. DynamoDB itself does so "within a few days".
const TTL_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// An embedded DynamoDB. Requests must be signed, but any key is accepted.
pub(crate) struct DynamoDb {
    database: Database,
}

impl DynamoDb {
    pub(crate) fn in_memory() -> Result<Self, Error> {
        Ok(Self { database: Database::memory()? })
    }

    /// The database in the file at `path`, which is created if it does not exist. It survives a restart and a kill.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let storage_error = |source| Error::Storage { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(storage_error)?;
        }
        let name = path.to_str().ok_or_else(|| storage_error(io::Error::other("the path is not UTF-8")))?;
        Ok(Self { database: Database::new(name)? })
    }

    /// Creates a table from its properties in CloudFormation's form, which is also that of DynamoDB's calls. An existing
    /// table stays as it is.
    pub(crate) fn create_table(&self, Table { name, properties }: &Table) -> Result<(), Error> {
        let call = |operation: &str, names: &[&str]| {
            let mut request = json!({ "TableName": name });
            for &name in names.iter().filter(|&&name| !properties[name].is_null()) {
                request[name] = properties[name].clone();
            }
            perform(&self.database, operation, request.to_string().as_bytes())
        };
        if call("DescribeTable", &[]).is_ok() {
            return Ok(());
        }
        let schema = ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"];
        call("CreateTable", &schema)?;
        if !properties["TimeToLiveSpecification"].is_null() {
            call("UpdateTimeToLive", &["TimeToLiveSpecification"])?;
        }
        Ok(())
    }

    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES));
        let router = router.with_state(self.database.clone());
        tokio::select! {
            result = serve_router(listener, router, shutdown) => result,
            never = remove_expired_items(self.database) => match never {},
        }
    }
}

async fn answer(State(database): State<Database>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let operation = text("x-amz-target").and_then(|target| target.strip_prefix("DynamoDB_20120810."));
    let material = AuthMaterial {
        authorization: text("authorization"),
        query: uri.query().unwrap_or_default(),
        has_date_header: headers.contains_key("x-amz-date") || headers.contains_key(header::DATE),
    };
    let (status, body) = match auth_material::validate(material) {
        Some(refusal) => (StatusCode::BAD_REQUEST, refusal),
        None => match perform(&database, operation.unwrap_or_default(), &body) {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => (StatusCode::from_u16(error.status_code()).unwrap_or_default(), error.to_json()),
        },
    };
    let request_id = Uuid::new_v4().to_string();
    let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amzn-requestid", &request_id)];
    (status, headers, body).into_response()
}

fn perform(database: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    macro_rules! operations {
        ($($name:literal => $perform:ident),+ $(,)?) => {
            match operation {
                $($name => {
                    let request = serde_json::from_slice(body);
                    let request = request.map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
                    serde_json::to_string(&database.$perform(request)?)
                })+
                _ => return Err(DynoxideError::ValidationException(format!("{operation:?} is not supported here"))),
            }
        };
    }
    let response = operations! {
        "BatchGetItem" => batch_get_item,
        "BatchWriteItem" => batch_write_item,
        "CreateTable" => create_table,
        "DeleteItem" => delete_item,
        "DeleteTable" => delete_table,
        "DescribeTable" => describe_table,
        "DescribeTimeToLive" => describe_time_to_live,
        "ExecuteStatement" => execute_statement,
        "GetItem" => get_item,
        "ListTables" => list_tables,
        "PutItem" => put_item,
        "Query" => query,
        "Scan" => scan,
        "TransactGetItems" => transact_get_items,
        "TransactWriteItems" => transact_write_items,
        "UpdateItem" => update_item,
        "UpdateTable" => update_table,
        "UpdateTimeToLive" => update_time_to_live,
    };
    response.map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// Removes expired items from time to time. dynoxide does not do it by itself.
async fn remove_expired_items(database: Database) -> Infallible {
    let mut interval = tokio::time::interval(TTL_SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(removed)) => tracing::debug!(removed, "swept expired items"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot sweep expired items"),
            Err(error) => tracing::warn!(%error, "the sweep of expired items failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::put_item::PutItemError;
    use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
        ProjectionType, PutRequest, ReturnValue, ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
        TimeToLiveSpecification, WriteRequest,
    };
    use futures_util::future::join_all;

    use super::super::tests::Running;
    use super::*;

    fn text(value: impl Into<String>) -> AttributeValue {
        AttributeValue::S(value.into())
    }

    fn key(name: &str, key_type: KeyType) -> KeySchemaElement {
        KeySchemaElement::builder().attribute_name(name).key_type(key_type).build().expect("complete")
    }

    fn attribute(name: &str) -> AttributeDefinition {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .expect("complete")
    }

    /// A client of a table with the key `pk` and an index of owners' items by time.
    async fn client_with_table(service: &Running) -> Client {
        let client = Client::new(&service.sdk_config());
        let index = GlobalSecondaryIndex::builder()
            .index_name("by_owner")
            .key_schema(key("owner", KeyType::Hash))
            .key_schema(key("created_at", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()
            .expect("complete");
        client
            .create_table()
            .table_name("jobs")
            .attribute_definitions(attribute("pk"))
            .attribute_definitions(attribute("owner"))
            .attribute_definitions(attribute("created_at"))
            .key_schema(key("pk", KeyType::Hash))
            .global_secondary_indexes(index)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .expect("a table");
        client
    }

    async fn start_in_memory() -> Running {
        let service = DynamoDb::in_memory().expect("a database");
        Running::start(|listener, signal| service.serve(listener, signal)).await
    }

    #[tokio::test]
    async fn a_failed_condition_gives_back_the_item_that_stood_in_the_way() {
        let service = start_in_memory().await;
        let client = client_with_table(&service).await;
        let put = |state: &str| {
            client
                .put_item()
                .table_name("jobs")
                .item("pk", text("JOB#1"))
                .item("state", text(state))
                .condition_expression("attribute_not_exists(pk)")
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
        };
        put("queued").await.expect("the first put");

        let error = put("other").await.expect_err("the second put").into_service_error();
        let PutItemError::ConditionalCheckFailedException(failed) = error else {
            panic!("another error: {error:?}");
        };
        assert_eq!(failed.item().expect("the old item")["state"], text("queued"));

        let error = client
            .update_item()
            .table_name("jobs")
            .key("pk", text("JOB#1"))
            .update_expression("SET #s = :s")
            .condition_expression("#s = :expected")
            .expression_attribute_names("#s", "state")
            .expression_attribute_values(":s", text("succeeded"))
            .expression_attribute_values(":expected", text("running"))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await
            .expect_err("a failed condition")
            .into_service_error();
        let UpdateItemError::ConditionalCheckFailedException(failed) = error else {
            panic!("another error: {error:?}");
        };
        assert_eq!(failed.item().expect("the old item")["state"], text("queued"));
        service.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_fifty_racing_claims_one_wins() {
        let service = start_in_memory().await;
        let client = client_with_table(&service).await;
        let update = || {
            client
                .update_item()
                .table_name("jobs")
                .key("pk", text("JOB#1"))
                .expression_attribute_names("#s", "state")
                .return_values(ReturnValue::AllNew)
        };
        update()
            .update_expression("SET #s = :queued")
            .expression_attribute_values(":queued", text("queued"))
            .send()
            .await
            .expect("a job");
        let claims = (0..50).map(|_| {
            tokio::spawn(
                update()
                    .update_expression("SET #s = :running ADD fence :one")
                    .condition_expression("attribute_exists(pk) AND #s = :queued")
                    .expression_attribute_values(":queued", text("queued"))
                    .expression_attribute_values(":running", text("running"))
                    .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
                    .send(),
            )
        });
        let won: Vec<_> =
            join_all(claims).await.into_iter().filter_map(|claim| claim.expect("no panic").ok()).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(won[0].attributes().expect("the new item")["fence"], AttributeValue::N("1".to_owned()));
        service.stop().await;
    }

    #[tokio::test]
    async fn an_index_pages_through_an_owners_items_newest_first() {
        let service = start_in_memory().await;
        let client = client_with_table(&service).await;
        let items = (0..25).map(|number| {
            let item = HashMap::from([
                ("pk".to_owned(), text(format!("JOB#{number}"))),
                ("owner".to_owned(), text(if number % 5 == 4 { "bob" } else { "alice" })),
                ("created_at".to_owned(), text(format!("2026-01-01T00:00:{number:02}Z"))),
            ]);
            let put = PutRequest::builder().set_item(Some(item)).build().expect("complete");
            WriteRequest::builder().put_request(put).build()
        });
        let written = client.batch_write_item().request_items("jobs", items.collect()).send().await.expect("a batch");
        assert!(written.unprocessed_items().is_none_or(HashMap::is_empty));

        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = client
                .query()
                .table_name("jobs")
                .index_name("by_owner")
                .key_condition_expression("#o = :o")
                .expression_attribute_names("#o", "owner")
                .expression_attribute_values(":o", text("alice"))
                .scan_index_forward(false)
                .limit(8)
                .set_exclusive_start_key(cursor)
                .send()
                .await
                .expect("a page");
            seen.extend(page.items().iter().map(|item| item["created_at"].as_s().expect("text").clone()));
            cursor = page.last_evaluated_key;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 20);
        assert!(seen.is_sorted_by(|newer, older| newer > older), "{seen:?}");
        service.stop().await;
    }

    #[tokio::test]
    async fn what_was_written_survives_a_killed_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data").join("dynamodb.sqlite");
        let service = DynamoDb::open(&path).expect("a new database");
        let service = Running::start(|listener, signal| service.serve(listener, signal)).await;
        let client = client_with_table(&service).await;
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("expires_at").build();
        client
            .update_time_to_live()
            .table_name("jobs")
            .time_to_live_specification(ttl.expect("complete"))
            .send()
            .await
            .expect("a time to live");
        client.put_item().table_name("jobs").item("pk", text("JOB#1")).send().await.expect("an item");

        // The files as they stand while the service runs are what a killed process leaves behind.
        let left_behind = directory.path().join("left_behind");
        std::fs::create_dir(&left_behind).expect("a directory");
        for file in std::fs::read_dir(path.parent().expect("a directory")).expect("files") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), left_behind.join(file.file_name())).expect("a copy");
        }
        service.stop().await;

        for path in [path, left_behind.join("dynamodb.sqlite")] {
            let service = DynamoDb::open(&path).expect("the database again");
            let service = Running::start(|listener, signal| service.serve(listener, signal)).await;
            let client = Client::new(&service.sdk_config());
            let found = client.get_item().table_name("jobs").key("pk", text("JOB#1")).send().await.expect("an answer");
            assert!(found.item().is_some(), "lost in {}", path.display());
            let described = client.describe_time_to_live().table_name("jobs").send().await.expect("an answer");
            let description = described.time_to_live_description().expect("a description");
            assert_eq!(description.attribute_name(), Some("expires_at"));
            service.stop().await;
        }
    }
}
