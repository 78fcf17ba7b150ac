use std::time::Duration;

use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};

use super::{Kind, Result, ServiceError};
use crate::image::SignedUrl;
use crate::settings::Settings;
use crate::time::Timestamp;

pub(super) const SERVICE: &str = "S3";

/// Reads how long the presigned URLs of pictures last. The credentials of a function, with which they end, last longer.
pub fn url_life(settings: &mut Settings<'_>) -> Duration {
    settings.time("URL_LIFE_SECONDS", 60..=21_600, Duration::from_secs(1))
}

#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) credentials: Option<SharedCredentialsProvider>,
    /// When they expire, if they do not report it.
    pub(super) credentials_end: Option<Timestamp>,
}

impl Signing {
    pub(super) async fn url<E: ProvideErrorMetadata>(
        &self,
        request: Result<PresignedRequest, SdkError<E>>,
        now: Timestamp,
        life: Duration,
    ) -> Result<SignedUrl> {
        let request = request.map_err(ServiceError::of(SERVICE))?;
        Ok(SignedUrl { url: request.uri().to_owned(), expires_at: self.end(now, life).await })
    }

    /// When a URL expires that is signed at `now` for `life`: with its credentials at the latest.
    async fn end(&self, now: Timestamp, life: Duration) -> Timestamp {
        // Credentials that can still sign have not expired, even if they were assumed to.
        self.expiry().await.map_or(now + life, |end| end.max(now).min(now + life))
    }

    async fn expiry(&self) -> Option<Timestamp> {
        let credentials = self.credentials.as_ref()?.provide_credentials().await.ok()?;
        credentials.expiry().map(Timestamp::from).or(self.credentials_end)
    }
}

pub(super) fn presigning(now: Timestamp, life: Duration) -> Result<PresigningConfig> {
    let config = PresigningConfig::builder().start_time(now.to_system()).expires_in(life).build();
    config.map_err(|_| ServiceError { service: SERVICE, code: "InvalidUrlLife".to_owned(), kind: Kind::Rejected })
}
