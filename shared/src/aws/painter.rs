//! A text-to-image model on Amazon Bedrock.

use std::time::Duration;

use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::operation::invoke_model::InvokeModelError;
use aws_sdk_bedrockruntime::primitives::Blob;

use super::{Kind, ServiceError};
use crate::order::Order;
use crate::stability::{self, NoPicture, Picture};

const SERVICE: &str = "Bedrock";

/// The model.
#[derive(Clone, Debug)]
pub struct Painter {
    client: Client,
    timeout: Duration,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaintError {
    /// The model answered, but without a picture.
    #[error(transparent)]
    NoPicture(#[from] NoPicture),
    /// Bedrock did not let the model answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Painter {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// The longest that one painting may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Has the model paint an order, once.
    ///
    /// # Errors
    /// Why there is no picture.
    pub async fn paint(&self, order: &Order) -> Result<Picture, PaintError> {
        let output = self
            .client
            .invoke_model()
            .model_id(order.model.as_str())
            .content_type("application/json")
            .accept("application/json")
            .body(Blob::new(stability::request(order)))
            .send()
            .await
            .map_err(|error| {
                let mut failure = ServiceError::new(SERVICE, &error);
                // A model error that goes back to a client error of the model's own server will not pass by itself.
                if let Some(InvokeModelError::ModelErrorException(model)) = error.as_service_error()
                    && model.original_status_code().is_some_and(|status| (400..500).contains(&status))
                {
                    failure.kind = Kind::Rejected;
                }
                failure
            })?;
        Ok(stability::picture(output.body.into_inner())?)
    }
}
