use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::signing::{SERVICE, Signing, presigning};
use super::{Result, ServiceError};
use crate::image::{Artwork, Image, ImageFacts, SignedUrl, Variant};
use crate::job::Job;
use crate::order::OutputFormat;
use crate::poster::Lettering;
use crate::stability::Picture;
use crate::time::Timestamp;

/// The bucket of pictures in Amazon S3.
#[derive(Clone, Debug)]
pub struct Images {
    client: Client,
    bucket: String,
    signing: Signing,
    failing: Arc<AtomicBool>,
}

/// The outcome of storing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The file was stored.
    New,
    /// A file was already there, and was kept.
    Existing,
}

/// A file in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its properties.
    pub facts: ImageFacts,
    /// Its contents.
    pub bytes: Bytes,
}

impl From<Picture> for File {
    fn from(picture: Picture) -> Self {
        let Picture { bytes, format, width, height, seed } = picture;
        let facts = ImageFacts { format, bytes: bytes.len() as u64, width, height, seed, lettering: None };
        Self { facts, bytes }
    }
}

/// The properties of a job's files when all of them are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// The picture, or the poster.
    pub image: ImageFacts,
    /// The picture beneath the lettering of a poster.
    pub artwork: Option<ImageFacts>,
    /// Whether there is a thumbnail.
    pub thumbnail: bool,
}

impl From<&Image> for Files {
    fn from(Image { facts, artwork, thumbnail, .. }: &Image) -> Self {
        let artwork = artwork.as_ref().map(|artwork| artwork.facts);
        Self { image: *facts, artwork, thumbnail: thumbnail.is_some() }
    }
}

impl Images {
    const PROBE: &str = "images/probe";

    pub(super) fn new(client: Client, bucket: String, signing: Signing) -> Self {
        Self { client, bucket, signing, failing: Arc::default() }
    }

    /// Stores one of a job's files unless it exists. The first file is kept, so that the record stays true if a worker
    /// that lost its lease stores another one later.
    pub async fn put(&self, job: &Job, variant: Variant, file: &File) -> Result<Stored> {
        let File { facts, bytes } = file;
        let name = match variant {
            Variant::Image => "poster",
            Variant::Artwork | Variant::Thumbnail => variant.as_str(),
        };
        let result = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(job.image_key(variant))
            .if_none_match("*")
            .content_type(facts.format.content_type())
            .content_disposition(format!("inline; filename=\"{name}-{}.{}\"", job.id, facts.format))
            .set_metadata(Some(metadata(facts)))
            .body(ByteStream::from(bytes.clone()))
            .customize()
            // TLS and the SDK's CRC already protect the contents; a SHA-256 would cost five times as much CPU.
            .disable_payload_signing()
            .send()
            .await;
        let stored = match result.map_err(ServiceError::of(SERVICE)) {
            Ok(_) => Ok(Stored::New),
            Err(error) if error.code == "PreconditionFailed" => Ok(Stored::Existing),
            Err(error) => Err(error),
        };
        self.failing.store(stored.is_err(), Ordering::Relaxed);
        stored
    }

    /// Whether this process failed to store its last file.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Finds the job's files; `None` if its picture or poster is not in the bucket.
    pub async fn find(&self, job: &Job) -> Result<Option<Files>> {
        let Some(image) = self.head(job, Variant::Image).await? else { return Ok(None) };
        let has_artwork = job.variants().contains(&Variant::Artwork);
        let artwork = if has_artwork { self.head(job, Variant::Artwork).await? } else { None };
        let thumbnail = self.head(job, Variant::Thumbnail).await?.is_some();
        Ok(Some(Files { image, artwork, thumbnail }))
    }

    async fn head(&self, job: &Job, variant: Variant) -> Result<Option<ImageFacts>> {
        match self.client.head_object().bucket(&self.bucket).key(job.image_key(variant)).send().await {
            Ok(head) => {
                let facts = facts(head.content_type(), head.content_length(), head.metadata());
                facts.map(Some).ok_or_else(|| ServiceError::corrupt(SERVICE))
            }
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(ServiceError::new(SERVICE, &error)),
        }
    }

    /// Reads one of a job's files; `None` if it does not exist.
    pub async fn read(&self, job: &Job, variant: Variant) -> Result<Option<File>> {
        match self.client.get_object().bucket(&self.bucket).key(job.image_key(variant)).send().await {
            Ok(object) => {
                let facts = facts(object.content_type(), object.content_length(), object.metadata());
                let facts = facts.ok_or_else(|| ServiceError::corrupt(SERVICE))?;
                let bytes = object.body.collect().await.map_err(|_| ServiceError::cut_short(SERVICE))?.into_bytes();
                Ok(Some(File { facts, bytes }))
            }
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => Ok(None),
            Err(error) => Err(ServiceError::new(SERVICE, &error)),
        }
    }

    /// Checks that the bucket accepts files, by storing one. It is always the same empty file, so nothing accumulates.
    pub async fn check(&self) -> Result<()> {
        let put = self.client.put_object().bucket(&self.bucket).key(Self::PROBE).body(ByteStream::default());
        let put = put.send().await.map(drop).map_err(ServiceError::of(SERVICE));
        self.failing.store(put.is_err(), Ordering::Relaxed);
        put
    }

    /// Deletes the job's files.
    pub async fn delete(&self, job: &Job) -> Result<()> {
        for variant in job.variants() {
            let delete = self.client.delete_object().bucket(&self.bucket).key(job.image_key(*variant));
            delete.send().await.map_err(ServiceError::of(SERVICE))?;
        }
        Ok(())
    }

    /// Deletes the files that were stored for the job before its last retry.
    pub async fn delete_earlier(&self, job: &Job) -> Result<()> {
        // One response lists up to 1,000 files. Each was painted and paid for, so there are fewer.
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(job.files_prefix());
        let listed = list.send().await.map_err(ServiceError::of(SERVICE))?;
        for key in listed.contents().iter().filter_map(|object| object.key()).filter(|key| job.is_earlier_file(key)) {
            let delete = self.client.delete_object().bucket(&self.bucket).key(key);
            delete.send().await.map_err(ServiceError::of(SERVICE))?;
        }
        Ok(())
    }

    /// Adds presigned URLs to a job's files, signed as of `now`; see [`Images::sign`].
    pub async fn publish(&self, job: &Job, files: Files, now: Timestamp, life: Duration) -> Result<Image> {
        let url = self.sign(job, Variant::Image, now, life).await?;
        let artwork = match files.artwork {
            Some(facts) => Some(Artwork { facts, url: self.sign(job, Variant::Artwork, now, life).await? }),
            None => None,
        };
        let thumbnail = if files.thumbnail { Some(self.sign(job, Variant::Thumbnail, now, life).await?) } else { None };
        Ok(Image { facts: files.image, url, artwork, thumbnail })
    }

    /// Presigns a URL of one of the job's files, for `life` from `now`, but not longer than the signing credentials.
    pub async fn sign(&self, job: &Job, variant: Variant, now: Timestamp, life: Duration) -> Result<SignedUrl> {
        let get = self.client.get_object().bucket(&self.bucket).key(job.image_key(variant));
        self.signing.url(get.presigned(presigning(now, life)?).await, now, life).await
    }

    /// The origin of the presigned URLs, such as `https://bucket.s3.us-west-2.amazonaws.com`.
    pub async fn origin(&self) -> Result<String> {
        // Only the SDK knows whether the bucket is part of the host or the path, so take it from a URL.
        let config = presigning(Timestamp::from(SystemTime::now()), Duration::from_secs(60))?;
        let request = self.client.get_object().bucket(&self.bucket).key("any").presigned(config).await;
        let request = request.map_err(ServiceError::of(SERVICE))?;
        Ok(request.uri().split('/').take(3).collect::<Vec<_>>().join("/"))
    }
}

/// The facts for the record, kept as S3 metadata in case the worker crashes before it writes the record.
fn metadata(facts: &ImageFacts) -> HashMap<String, String> {
    let lettering = facts.lettering;
    let metadata = [
        ("width", Some(facts.width.to_string())),
        ("height", Some(facts.height.to_string())),
        ("seed", facts.seed.map(|seed| seed.to_string())),
        ("style", lettering.map(|set| set.style.to_string())),
        ("placement", lettering.map(|set| set.placement.to_string())),
        ("contrast", lettering.map(|set| f64::from(set.contrast).to_string())),
        ("legible", lettering.and_then(|set| set.legible).map(|legible| legible.to_string())),
    ];
    metadata.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Reads the facts from S3's answer; `None` if [`Images::put`] did not store the file.
fn facts(
    content_type: Option<&str>,
    length: Option<i64>,
    metadata: Option<&HashMap<String, String>>,
) -> Option<ImageFacts> {
    let text = |name: &str| metadata?.get(name).map(String::as_str);
    let number = |name: &str| text(name)?.parse::<u32>().ok();
    let lettering = || {
        let contrast: f64 = text("contrast")?.parse().ok()?;
        let (style, placement) = (text("style")?.parse().ok()?, text("placement")?.parse().ok()?);
        let legible = text("legible").and_then(|legible| legible.parse().ok());
        Some(Lettering { style, placement, contrast: contrast.into(), legible })
    };
    Some(ImageFacts {
        format: OutputFormat::ALL.iter().copied().find(|format| Some(format.content_type()) == content_type)?,
        bytes: u64::try_from(length?).ok()?,
        width: number("width")?,
        height: number("height")?,
        seed: number("seed"),
        lettering: lettering(),
    })
}
