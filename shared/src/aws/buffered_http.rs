use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

/// Memory is reserved at once up to this size. All expected responses are shorter.
const MAX: u64 = 32 << 20;

/// An HTTP client that reads each response into one buffer of the right size. The SDK would collect the chunks and then
/// copy them, which needs the memory of up to ten pictures twice and fragments the heap.
#[derive(Debug)]
pub(super) struct BufferedHttp(pub(super) SharedHttpClient);

#[derive(Debug)]
struct BufferedConnector(SharedHttpConnector);

impl HttpClient for BufferedHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(BufferedConnector(self.0.http_connector(settings, components)))
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for BufferedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            let length = answer.body().content_length().filter(|length| *length <= MAX);
            if let Some(length) = length.and_then(|length| usize::try_from(length).ok()) {
                let mut parts = ByteStream::new(answer.take_body());
                let mut whole = Vec::with_capacity(length);
                while let Some(part) = parts.next().await {
                    whole.extend_from_slice(&part.map_err(|error| ConnectorError::io(error.into()))?);
                }
                *answer.body_mut() = SdkBody::from(whole);
            }
            Ok(answer)
        })
    }
}
