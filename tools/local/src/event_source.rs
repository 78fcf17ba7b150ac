//! Lambda's event source mapping for SQS: polls a queue, invokes a function, and deletes the messages that it processed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use futures_util::future::BoxFuture;
use lambda_runtime::{Error, LambdaEvent};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::invoke::context;
use crate::template::{Queue, Source};

/// How long a poll waits for messages: the longest wait that SQS allows.
const POLL_SECONDS: i32 = 20;

pub(crate) type Handler =
    Arc<dyn Fn(LambdaEvent<SqsEvent>) -> BoxFuture<'static, Result<SqsBatchResponse, Error>> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct EventSource {
    pub(crate) client: Client,
    pub(crate) queue: Queue,
    pub(crate) source: Source,
    pub(crate) timeout: Duration,
    /// Whether an invocation may be cut off, because whatever it did is repeated at no cost.
    pub(crate) interruptible: bool,
    pub(crate) handler: Handler,
}

impl EventSource {
    /// Invokes the function until `stop` turns true, and then waits for running invocations or cuts them off.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(self.source.scaling.maximum_concurrency));
        let mut invocations = JoinSet::new();
        loop {
            while invocations.try_join_next().is_some() {}
            let slot = tokio::select! {
                slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
                _ = stop.wait_for(|&stop| stop) => break,
            };
            let messages = tokio::select! {
                messages = self.receive() => messages,
                _ = stop.wait_for(|&stop| stop) => break,
            };
            if !messages.is_empty() {
                let source = self.clone();
                invocations.spawn(async move {
                    source.invoke(messages).await;
                    drop(slot);
                });
            }
        }
        if self.interruptible {
            invocations.shutdown().await;
        } else {
            // They end by the function's timeout. A painting that is cut off would be paid for again.
            invocations.join_all().await;
        }
    }

    async fn receive(&self) -> Vec<Message> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.queue.url)
            .max_number_of_messages(self.source.batch_size)
            .wait_time_seconds(POLL_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await;
        match received {
            Ok(received) => received.messages.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = %aws_sdk_sqs::error::DisplayErrorContext(error), "cannot poll a queue");
                tokio::time::sleep(Duration::from_secs(1)).await;
                Vec::new()
            }
        }
    }

    async fn invoke(&self, messages: Vec<Message>) {
        let mut event = SqsEvent::default();
        event.records = messages.iter().map(|message| self.record(message)).collect();
        let invocation = (self.handler)(LambdaEvent::new(event, context(self.timeout)));
        let failed: HashSet<String> = match tokio::time::timeout(self.timeout, invocation).await {
            Ok(Ok(response)) => {
                response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a function failed");
                return;
            }
            Err(_) => {
                tracing::error!(timeout_s = self.timeout.as_secs(), "a function timed out");
                return;
            }
        };
        let ids: HashSet<&str> = messages.iter().filter_map(Message::message_id).collect();
        // To Lambda, an unknown message id means that the whole batch failed.
        if !failed.iter().all(|id| ids.contains(id.as_str())) {
            tracing::error!("a function reported a message that it did not get");
            return;
        }
        let done = messages.iter().filter(|message| !failed.contains(message.message_id().unwrap_or_default()));
        self.delete(done).await;
    }

    async fn delete(&self, messages: impl Iterator<Item = &Message>) {
        let entries: Vec<_> = messages
            .enumerate()
            .filter_map(|(i, message)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(i.to_string());
                entry.receipt_handle(message.receipt_handle()?).build().ok()
            })
            .collect();
        if entries.is_empty() {
            return;
        }
        let delete = self.client.delete_message_batch().queue_url(&self.queue.url).set_entries(Some(entries));
        if let Err(error) = delete.send().await {
            tracing::warn!(error = %aws_sdk_sqs::error::DisplayErrorContext(error), "cannot delete messages");
        }
    }

    fn record(&self, message: &Message) -> SqsMessage {
        let mut record = SqsMessage::default();
        record.message_id = message.message_id.clone();
        record.receipt_handle = message.receipt_handle.clone();
        record.body = message.body.clone();
        record.md5_of_body = message.md5_of_body.clone();
        let attributes = message.attributes.iter().flatten();
        record.attributes = attributes.map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect();
        record.event_source = Some("aws:sqs".to_owned());
        record.event_source_arn = Some(self.queue.arn.clone());
        record
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;
    use crate::services::Sqs;
    use crate::services::tests::Running;
    use crate::template::Scaling;

    /// Stops an event source while its function works. Returns whether the function finished; `go` lets it.
    async fn finishes(interruptible: bool, go: Arc<Notify>) -> bool {
        let sqs = Running::start(|listener, signal| {
            let address = listener.local_addr().expect("a bound address");
            Sqs::new(address).serve(listener, signal)
        })
        .await;
        let client = Client::new(&sqs.sdk_config());
        let queue = client.create_queue().queue_name("queue").send().await.expect("a queue");
        let queue_url = queue.queue_url.expect("its URL");
        client.send_message().queue_url(&queue_url).message_body("work").send().await.expect("sent");

        let (begun, finished) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (begins, work) = (begun.clone(), finished.clone());
        let handler: Handler = Arc::new(move |_| {
            let (begins, go, work) = (begins.clone(), go.clone(), work.clone());
            async move {
                begins.notify_one();
                go.notified().await;
                work.store(true, Ordering::Relaxed);
                Ok(SqsBatchResponse::default())
            }
            .boxed()
        });
        let arn = "arn:aws:sqs:us-west-2:000000000000:queue".to_owned();
        let source = EventSource {
            client,
            source: Source { queue: arn.clone(), batch_size: 1, scaling: Scaling { maximum_concurrency: 1 } },
            queue: Queue { name: "queue".to_owned(), url: queue_url, arn, attributes: BTreeMap::new() },
            timeout: Duration::from_secs(900),
            interruptible,
            handler,
        };
        let (stop, stopped) = watch::channel(false);
        let source = tokio::spawn(source.run(stopped));
        begun.notified().await;
        stop.send_replace(true);
        source.await.expect("it does not panic");
        sqs.stop().await;
        finished.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_stop_cuts_off_only_what_may_be_interrupted() {
        assert!(!finishes(true, Arc::new(Notify::new())).await);
        let go = Arc::new(Notify::new());
        go.notify_one();
        assert!(finishes(false, go).await);
    }
}
