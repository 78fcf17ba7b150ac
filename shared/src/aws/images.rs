//! The bucket of pictures in Amazon S3.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::ProvideCredentials;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;

use super::{Kind, ServiceError};
use crate::job::{ImageFacts, Job, SignedUrl};
use crate::order::OutputFormat;
use crate::stability::Picture;
use crate::time::Timestamp;

const SERVICE: &str = "S3";

/// The bucket of pictures.
#[derive(Clone, Debug)]
pub struct Images {
    client: Client,
    bucket: String,
    credentials: Option<SharedCredentialsProvider>,
}

/// What came of storing a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    New,
    /// A picture of this job was there already, and stays.
    Existing,
}

impl Images {
    pub(super) fn new(client: Client, bucket: String, credentials: Option<SharedCredentialsProvider>) -> Self {
        Self { client, bucket, credentials }
    }

    /// Stores a job's picture, unless it has one. The first picture stays, so that what the record says of it is true
    /// even when a worker that lost its lease comes late with a second one.
    ///
    /// # Errors
    /// When the bucket does not answer as it should. The picture may then have been stored all the same.
    pub async fn put(&self, job: &Job, picture: &Picture) -> Result<Stored, ServiceError> {
        let result = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(job.image_key())
            .if_none_match("*")
            .content_type(picture.format.content_type())
            .content_disposition(format!("inline; filename=\"poster-{}.{}\"", job.id, picture.format))
            .set_metadata(Some(metadata(picture)))
            .body(ByteStream::from(picture.bytes.clone()))
            .customize()
            // TLS and the CRC that the SDK sends protect the bytes already; a SHA-256 over them costs five times as much.
            .disable_payload_signing()
            .send()
            .await;
        match result.map_err(|error| ServiceError::new(SERVICE, &error)) {
            Ok(_) => Ok(Stored::New),
            Err(error) if error.code == "PreconditionFailed" => Ok(Stored::Existing),
            Err(error) => Err(error),
        }
    }

    /// What is known of the job's picture; `None` when there is none.
    ///
    /// # Errors
    /// When the bucket does not answer as it should, or does not exist.
    pub async fn find(&self, job: &Job) -> Result<Option<ImageFacts>, ServiceError> {
        let result = self.client.head_object().bucket(&self.bucket).key(job.image_key()).send().await;
        match result {
            Ok(head) => {
                let number = |name: &str| head.metadata()?.get(name)?.parse::<u32>().ok();
                let format = head
                    .content_type()
                    .and_then(|kind| OutputFormat::ALL.iter().copied().find(|format| format.content_type() == kind));
                let facts = (|| {
                    Some(ImageFacts {
                        format: format?,
                        bytes: u64::try_from(head.content_length()?).ok()?,
                        width: number("width")?,
                        height: number("height")?,
                        seed: number("seed"),
                    })
                })();
                facts.map(Some).ok_or_else(|| ServiceError::corrupt(SERVICE))
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_s3::operation::head_object::HeadObjectError::is_not_found) =>
            {
                Ok(None)
            }
            Err(error) => Err(ServiceError::new(SERVICE, &error)),
        }
    }

    /// Whether the bucket answers, which a look for a single picture in it does not tell.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), ServiceError> {
        let head = self.client.head_bucket().bucket(&self.bucket);
        head.send().await.map(drop).map_err(|error| ServiceError::new(SERVICE, &error))
    }

    /// Deletes the job's picture, if there is one.
    ///
    /// # Errors
    /// When the bucket does not answer as it should.
    pub async fn delete(&self, job: &Job) -> Result<(), ServiceError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(job.image_key());
        delete.send().await.map(drop).map_err(|error| ServiceError::new(SERVICE, &error))
    }

    /// Signs a URL of the job's picture that works for `life` from `now`, and no longer than the credentials that sign.
    ///
    /// # Errors
    /// When there are no credentials.
    pub async fn sign(&self, job: &Job, now: Timestamp, life: Duration) -> Result<SignedUrl, ServiceError> {
        let config = PresigningConfig::builder().start_time(now.to_system()).expires_in(life).build();
        let config = config.map_err(|_| ServiceError {
            service: SERVICE,
            code: "InvalidUrlLife".to_owned(),
            kind: Kind::Rejected,
        })?;
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(job.image_key())
            .presigned(config)
            .await
            .map_err(|error| ServiceError::new(SERVICE, &error))?;
        let mut expires_at = now + life;
        if let Some(end) = self.credentials_end().await {
            expires_at = expires_at.min(end);
        }
        Ok(SignedUrl { url: request.uri().to_owned(), expires_at })
    }

    /// When the credentials end, if they say so. A URL dies with the credentials that signed it.
    async fn credentials_end(&self) -> Option<Timestamp> {
        let credentials = self.credentials.as_ref()?.provide_credentials().await.ok()?;
        credentials.expiry().map(Timestamp::from)
    }
}

/// What the record will say of the picture, kept beside it for whoever finds it after a crash.
fn metadata(picture: &Picture) -> std::collections::HashMap<String, String> {
    let seed = picture.seed.map(|seed| ("seed".to_owned(), seed.to_string()));
    [("width".to_owned(), picture.width.to_string()), ("height".to_owned(), picture.height.to_string())]
        .into_iter()
        .chain(seed)
        .collect()
}
