//! SQS in memory, by `rustack-sqs`. This module adds what that lacks: an HTTP server with a graceful shutdown,
//! `MessageGroupId` on standard queues (fair queues), the `AWSTraceHeader` attribute, and the limits on a visibility timeout
//! and on the size of a batch.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::message::md5_of_message_attributes;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_http::response::{error_to_response, json_response};
use rustack_sqs_http::router::resolve_operation;
use rustack_sqs_model::error::{SqsError, SqsErrorCode};
use rustack_sqs_model::input::{
    ChangeMessageVisibilityBatchInput, ChangeMessageVisibilityInput, CreateQueueInput, ReceiveMessageInput,
    SendMessageBatchInput, SendMessageInput,
};
use rustack_sqs_model::operations::SqsOperation;
use rustack_sqs_model::output::{ChangeMessageVisibilityBatchOutput, ReceiveMessageOutput};
use rustack_sqs_model::types::{BatchResultErrorEntry, MessageAttributeValue, MessageSystemAttributeValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{Error, Shutdown, serve_router};
use crate::template::{ACCOUNT, Queue, REGION};

/// The longest visibility timeout, 12 hours in seconds.
const MAX_VISIBILITY_TIMEOUT: i32 = 43_200;

const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// The most bytes of one request: a full batch, escaped as JSON.
const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// The system attributes that `rustack-sqs` does not keep, and the message attribute that carries each of them. No sender can
/// use these names, because SQS refuses attributes that begin with `AWS.`.
const CARRIED: [(&str, &str); 2] = [("MessageGroupId", "AWS.MessageGroupId"), ("AWSTraceHeader", "AWS.AWSTraceHeader")];

type Answer = Result<axum::http::Response<SqsResponseBody>, SqsError>;

/// An embedded SQS. Its queues and messages are in memory. It accepts any credentials.
pub(crate) struct Sqs(Arc<RustackSqs>);

impl Sqs {
    /// A service without queues. Their URLs will have this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self(Arc::new(RustackSqs::new(SqsConfig {
            skip_signature_validation: true,
            default_region: REGION.to_owned(),
            account_id: ACCOUNT.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
        })))
    }

    /// Creates a queue. The dead-letter queue that it names must exist.
    pub(crate) async fn create_queue(&self, Queue { name, url, attributes, .. }: &Queue) -> Result<(), Error> {
        let attributes = attributes.clone().into_iter().collect();
        let input = CreateQueueInput { queue_name: name.clone(), attributes, ..CreateQueueInput::default() };
        let created =
            self.0.create_queue(input).await.map_err(|source| Error::Queue { queue: name.clone(), source })?;
        debug_assert_eq!(created.queue_url.as_ref(), Some(url));
        Ok(())
    }

    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        let Self(queues) = self;
        let service = Service { queues: Arc::clone(&queues), shutdown: shutdown.clone() };
        // Older clients send to the queue's URL, newer ones to the root.
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES)).with_state(service);
        let result = serve_router(listener, router, shutdown).await;
        queues.shutdown_all().await;
        result
    }
}

#[derive(Clone)]
struct Service {
    queues: Arc<RustackSqs>,
    shutdown: Shutdown,
}

async fn answer(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    let answered = match resolve_operation(&headers) {
        Ok(operation) => service.perform(operation, body).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| refuse(&error)).map(Body::new)
}

fn refuse(error: &SqsError) -> axum::http::Response<SqsResponseBody> {
    let mut response = error_to_response(error, &Uuid::new_v4().to_string());
    if error.code == SqsErrorCode::MessageNotInflight {
        // rustack-sqs omits the prefix of this code, and the SDK does not recognize the error without it.
        let code = HeaderValue::from_static("AWS.SimpleQueueService.MessageNotInflight;Sender");
        response.headers_mut().insert("x-amzn-query-error", code);
    }
    response
}

impl Service {
    async fn perform(&self, operation: SqsOperation, body: Bytes) -> Answer {
        match operation {
            SqsOperation::SendMessage => {
                let mut input: SendMessageInput = parse(&body)?;
                let digest = carry_in(
                    &input.queue_url,
                    &mut input.message_group_id,
                    &input.message_system_attributes,
                    &mut input.message_attributes,
                );
                let mut output = self.queues.send_message(input).await?;
                output.md5_of_message_attributes = digest;
                respond(&output)
            }
            SqsOperation::SendMessageBatch => self.send_batch(parse(&body)?).await,
            SqsOperation::ReceiveMessage => self.receive(parse(&body)?).await,
            SqsOperation::ChangeMessageVisibility => {
                let input: ChangeMessageVisibilityInput = parse(&body)?;
                check_visibility_timeout(input.visibility_timeout)?;
                respond(&self.queues.change_message_visibility(input).await?)
            }
            SqsOperation::ChangeMessageVisibilityBatch => self.change_visibility_batch(parse(&body)?).await,
            other => RustackSqsHandler::new(Arc::clone(&self.queues)).handle_operation(other, body).await,
        }
    }

    async fn send_batch(&self, mut input: SendMessageBatchInput) -> Answer {
        if input.entries.iter().map(|entry| entry.message_body.len()).sum::<usize>() > MAX_BATCH_BYTES {
            return Err(SqsError::new(
                SqsErrorCode::BatchRequestTooLong,
                format!("Batch requests cannot be longer than {MAX_BATCH_BYTES} bytes."),
            ));
        }
        let mut digests = HashMap::new();
        for entry in &mut input.entries {
            let digest = carry_in(
                &input.queue_url,
                &mut entry.message_group_id,
                &entry.message_system_attributes,
                &mut entry.message_attributes,
            );
            digests.insert(entry.id.clone(), digest);
        }
        let mut output = self.queues.send_message_batch(input).await?;
        for sent in &mut output.successful {
            sent.md5_of_message_attributes = digests.remove(&sent.id).flatten();
        }
        respond(&output)
    }

    async fn receive(&self, mut input: ReceiveMessageInput) -> Answer {
        if let Some(seconds) = input.visibility_timeout {
            check_visibility_timeout(seconds)?;
        }
        let wanted: Vec<(&str, &str)> = CARRIED
            .into_iter()
            .filter(|(name, _)| {
                let mut requested = input.attribute_names.iter().chain(&input.message_system_attribute_names);
                requested.any(|attribute| attribute == "All" || attribute == name)
            })
            .collect();
        input.message_attribute_names.extend(wanted.iter().map(|(_, carrier)| (*carrier).to_owned()));

        // Otherwise a long poll would delay the shutdown by up to twenty seconds.
        let mut output = tokio::select! {
            output = self.queues.receive_message(input) => output?,
            () = self.shutdown.clone() => ReceiveMessageOutput::default(),
        };
        for message in &mut output.messages {
            for (name, carrier) in CARRIED {
                let carried = message.message_attributes.remove(carrier).and_then(|attribute| attribute.string_value);
                if let Some(value) = carried.filter(|_| wanted.contains(&(name, carrier))) {
                    message.attributes.insert(name.to_owned(), value);
                }
            }
            message.md5_of_message_attributes = md5_of_message_attributes(&message.message_attributes);
        }
        respond(&output)
    }

    async fn change_visibility_batch(&self, mut input: ChangeMessageVisibilityBatchInput) -> Answer {
        let (valid, invalid): (Vec<_>, Vec<_>) = std::mem::take(&mut input.entries)
            .into_iter()
            .partition(|entry| check_visibility_timeout(entry.visibility_timeout).is_ok());
        input.entries = valid;
        let mut output = if input.entries.is_empty() && !invalid.is_empty() {
            ChangeMessageVisibilityBatchOutput::default()
        } else {
            self.queues.change_message_visibility_batch(input).await?
        };
        output.failed.extend(invalid.into_iter().filter_map(|entry| {
            let error = check_visibility_timeout(entry.visibility_timeout).err()?;
            Some(BatchResultErrorEntry {
                id: entry.id,
                sender_fault: true,
                code: error.code.error_type().to_owned(),
                message: Some(error.message),
            })
        }));
        respond(&output)
    }
}

/// Moves the system attributes that `rustack-sqs` would refuse or drop into message attributes. Returns the digest of the
/// sender's own attributes, which the sender may check. A FIFO queue keeps its group.
fn carry_in(
    queue_url: &str,
    group_id: &mut Option<String>,
    system_attributes: &HashMap<String, MessageSystemAttributeValue>,
    attributes: &mut HashMap<String, MessageAttributeValue>,
) -> Option<String> {
    let digest = md5_of_message_attributes(attributes);
    let group_id = if queue_url.ends_with(".fifo") { None } else { group_id.take() };
    let trace_header = system_attributes.get("AWSTraceHeader").and_then(|attribute| attribute.string_value.clone());
    for ((_, carrier), value) in CARRIED.into_iter().zip([group_id, trace_header]) {
        if value.is_some() {
            let attribute =
                MessageAttributeValue { data_type: "String".to_owned(), string_value: value, binary_value: None };
            attributes.insert(carrier.to_owned(), attribute);
        }
    }
    digest
}

/// Refuses what SQS refuses. A negative timeout would overflow the queue's clock and end the queue.
fn check_visibility_timeout(seconds: i32) -> Result<(), SqsError> {
    if (0..=MAX_VISIBILITY_TIMEOUT).contains(&seconds) {
        return Ok(());
    }
    Err(SqsError::invalid_parameter_value(format!(
        "Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and \
         {MAX_VISIBILITY_TIMEOUT}."
    )))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body)
        .map_err(|error| SqsError::invalid_parameter_value(format!("Cannot read the request: {error}")))
}

fn respond<T: Serialize>(output: &T) -> Answer {
    let json = serde_json::to_vec(output)
        .map_err(|error| SqsError::internal_error(format!("Cannot write the answer: {error}")))?;
    Ok(json_response(json, &Uuid::new_v4().to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use aws_sdk_sqs::Client;
    use aws_sdk_sqs::types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageAttributeValue,
        MessageSystemAttributeName, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
        QueueAttributeName, SendMessageBatchRequestEntry,
    };

    use super::super::tests::Running;
    use super::*;

    async fn start() -> (Running, Client) {
        let service = Running::start(|listener, signal| {
            let address = listener.local_addr().expect("a bound address");
            Sqs::new(address).serve(listener, signal)
        })
        .await;
        let client = Client::new(&service.sdk_config());
        (service, client)
    }

    async fn create_queue(client: &Client, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let mut request = client.create_queue().queue_name(name);
        for (attribute, value) in attributes {
            request = request.attributes(attribute.clone(), *value);
        }
        request.send().await.expect("a queue").queue_url.expect("its URL")
    }

    async fn send(client: &Client, queue: &str, body: &str) {
        client.send_message().queue_url(queue).message_body(body).send().await.expect("sent");
    }

    async fn receive(client: &Client, queue: &str, wait: i32) -> Vec<Message> {
        let received = client
            .receive_message()
            .queue_url(queue)
            .max_number_of_messages(10)
            .wait_time_seconds(wait)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await;
        received.expect("an answer").messages.unwrap_or_default()
    }

    async fn return_to_queue(client: &Client, queue: &str, message: &Message) {
        client
            .change_message_visibility()
            .queue_url(queue)
            .receipt_handle(message.receipt_handle().expect("a handle"))
            .visibility_timeout(0)
            .send()
            .await
            .expect("visible again");
    }

    async fn counts(client: &Client, queue: &str) -> (String, String) {
        let attributes = client.get_queue_attributes().queue_url(queue).attribute_names(QueueAttributeName::All);
        let attributes = attributes.send().await.expect("attributes").attributes.expect("attributes");
        (
            attributes[&QueueAttributeName::ApproximateNumberOfMessages].clone(),
            attributes[&QueueAttributeName::ApproximateNumberOfMessagesNotVisible].clone(),
        )
    }

    #[tokio::test]
    async fn a_message_that_is_never_deleted_ends_in_the_dead_letter_queue() {
        let (service, client) = start().await;
        let dead = create_queue(&client, "dead", &[]).await;
        let redrive = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:000000000000:dead","maxReceiveCount":2}"#;
        let live = create_queue(&client, "live", &[(QueueAttributeName::RedrivePolicy, redrive)]).await;
        assert!(live.starts_with(&format!("http://{}/", service.address)), "{live}");

        send(&client, &live, "poison").await;
        for count in ["1", "2"] {
            let messages = receive(&client, &live, 0).await;
            let attributes = messages[0].attributes().expect("attributes");
            assert_eq!(attributes[&MessageSystemAttributeName::ApproximateReceiveCount], count);
            assert_eq!(counts(&client, &live).await, ("0".to_owned(), "1".to_owned()));
            return_to_queue(&client, &live, &messages[0]).await;
        }
        assert!(receive(&client, &live, 0).await.is_empty());
        let messages = receive(&client, &dead, 1).await;
        assert_eq!(messages[0].body(), Some("poison"));
        assert_eq!(counts(&client, &live).await, ("0".to_owned(), "0".to_owned()));
        service.stop().await;
    }

    #[tokio::test]
    async fn visibility_follows_the_queue_and_what_a_receiver_says() {
        let (service, client) = start().await;
        let queue = create_queue(&client, "queue", &[(QueueAttributeName::VisibilityTimeout, "1")]).await;
        send(&client, &queue, "again").await;
        let first = receive(&client, &queue, 0).await;
        assert!(receive(&client, &queue, 0).await.is_empty());
        tokio::time::sleep(Duration::from_millis(1050)).await;
        let second = receive(&client, &queue, 0).await;
        assert_eq!(second.len(), 1);

        let change = |handle: &str, seconds: i32| {
            let request = client.change_message_visibility().queue_url(&queue).visibility_timeout(seconds);
            request.receipt_handle(handle).send()
        };
        let handle = second[0].receipt_handle().expect("a handle");
        change(handle, 43_200).await.expect("the longest");
        for seconds in [-1, 43_201] {
            let error = change(handle, seconds).await.expect_err("out of range");
            assert_eq!(error.into_service_error().meta().code(), Some("InvalidParameterValue"));
        }
        let stale = first[0].receipt_handle().expect("a handle");
        let error = change(stale, 0).await.expect_err("no longer in flight").into_service_error();
        assert!(error.is_message_not_inflight(), "{error:?}");

        let entry = |id: &str, handle: &str, seconds| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(handle);
            entry.visibility_timeout(seconds).build().expect("complete")
        };
        let request = client.change_message_visibility_batch().queue_url(&queue);
        let changed = request
            .entries(entry("now", handle, 0))
            .entries(entry("stale", stale, 0))
            .entries(entry("never", handle, -1))
            .send()
            .await
            .expect("an answer");
        assert_eq!(changed.successful().iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["now"]);
        assert_eq!(changed.failed().iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["stale", "never"]);
        assert_eq!(receive(&client, &queue, 0).await.len(), 1);
        service.stop().await;
    }

    #[tokio::test]
    async fn a_long_poll_wakes_for_a_message_and_for_the_shutdown() {
        let (service, client) = start().await;
        let queue = create_queue(&client, "queue", &[]).await;
        let poll = || {
            let (client, queue) = (client.clone(), queue.clone());
            tokio::spawn(async move { receive(&client, &queue, 20).await })
        };
        let start = Instant::now();
        let waiting = poll();
        tokio::time::sleep(Duration::from_millis(100)).await;
        send(&client, &queue, "wake").await;
        assert_eq!(waiting.await.expect("no panic").len(), 1);
        let waiting = poll();
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.stop().await;
        assert!(waiting.await.expect("no panic").is_empty());
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_batch_reports_each_message_and_keeps_group_and_trace() {
        let (service, client) = start().await;
        let queue = create_queue(&client, "queue", &[]).await;
        let trace = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let trace_header = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
        let version = MessageAttributeValue::builder().data_type("Number").string_value("1").build();
        let good = SendMessageBatchRequestEntry::builder()
            .id("good")
            .message_body("ticket")
            .message_group_id("alice")
            .message_attributes("version", version.expect("complete"))
            .message_system_attributes(
                MessageSystemAttributeNameForSends::AwsTraceHeader,
                trace_header.expect("complete"),
            );
        let bad = SendMessageBatchRequestEntry::builder().id("bad").message_body("x".repeat(262_145));
        let sent = client
            .send_message_batch()
            .queue_url(&queue)
            .entries(good.build().expect("complete"))
            .entries(bad.build().expect("complete"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(sent.successful().iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(sent.failed().iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["bad"]);

        let messages = receive(&client, &queue, 0).await;
        let attributes = messages[0].attributes().expect("attributes");
        assert_eq!(attributes[&MessageSystemAttributeName::MessageGroupId], "alice");
        assert_eq!(attributes[&MessageSystemAttributeName::AwsTraceHeader], trace);
        let own = messages[0].message_attributes().expect("attributes");
        assert_eq!(own.keys().collect::<Vec<_>>(), ["version"]);
        assert_eq!(messages[0].md5_of_message_attributes(), sent.successful()[0].md5_of_message_attributes());

        let handle = messages[0].receipt_handle().expect("a handle");
        let entry = DeleteMessageBatchRequestEntry::builder().id("good").receipt_handle(handle);
        let request = client.delete_message_batch().queue_url(&queue);
        let deleted = request.entries(entry.build().expect("complete")).send().await.expect("an answer");
        assert_eq!(deleted.successful().len(), 1);
        assert_eq!(counts(&client, &queue).await, ("0".to_owned(), "0".to_owned()));

        send(&client, &queue, "unwanted").await;
        client.purge_queue().queue_url(&queue).send().await.expect("purged");
        assert_eq!(counts(&client, &queue).await, ("0".to_owned(), "0".to_owned()));
        let error = client.get_queue_url().queue_name("none").send().await.expect_err("no such queue");
        assert!(error.into_service_error().is_queue_does_not_exist());
        service.stop().await;
    }
}
