use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_bedrockruntime::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_bedrockruntime::error::BoxError;
use aws_sdk_bedrockruntime::primitives::Blob;

use super::Refusal;
use crate::order::{Model, Order};
use crate::stability::{self, NoPicture, Picture};

/// A text-to-image model on Amazon Bedrock. Clones share their state.
#[derive(Clone, Debug)]
pub struct Painter {
    client: Client,
    timeout: Duration,
    answered: Arc<[AtomicBool; Model::ALL.len()]>,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaintError {
    /// The model answered without a picture.
    #[error(transparent)]
    NoPicture(#[from] NoPicture),
    /// Bedrock refused the call.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Painter {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, answered: Arc::default() }
    }

    /// The timeout of one painting.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the model has answered this process before, with or without a picture, so the service has access to it.
    pub fn has_answered(&self, model: Model) -> bool {
        self.answered[model as usize].load(Ordering::Relaxed)
    }

    /// Calls the model once to paint an order.
    pub async fn paint(&self, order: &Order) -> Result<Picture, PaintError> {
        let sent = Sent::default();
        let output = self
            .client
            .invoke_model()
            .model_id(order.model.as_str())
            .content_type("application/json")
            .accept("application/json")
            .body(Blob::new(stability::request(order)))
            .customize()
            .interceptor(sent.clone())
            .send()
            .await
            .map_err(|error| Refusal::new(&error, sent.0.load(Ordering::Relaxed)))?;
        self.answered[order.model as usize].store(true, Ordering::Relaxed);
        Ok(stability::picture(output.body.into_inner())?)
    }
}

/// Before the request is sent, the SDK fetches credentials, and reports missing ones like a broken connection.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<AtomicBool>);

impl Intercept for Sent {
    fn name(&self) -> &'static str {
        "Sent"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}
