use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::signing::{SERVICE, Signing, presigning};
use super::{Result, ServiceError};
use crate::batch::InputFile;
use crate::id::BatchId;
use crate::image::SignedUrl;
use crate::time::Timestamp;

const BYTES_PER_READ: u64 = 4 * 1024 * 1024;

/// The size of a part of an upload. S3 wants at least 5 MiB and at most 10,000 parts, see
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const BYTES_PER_PART: usize = 8 * 1024 * 1024;

/// A file that the service writes about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The faults of the input file.
    Faults,
    /// What became of each line, as [`Batch::results`](crate::Batch::results) names it.
    Results(Uuid),
}

impl Document {
    fn key(self, batch: BatchId) -> String {
        match self {
            Self::Faults => format!("batches/{batch}/faults.ndjson"),
            Self::Results(id) => format!("batches/{batch}/results-{id}.ndjson"),
        }
    }

    fn file_name(self, batch: BatchId) -> String {
        match self {
            Self::Faults => format!("{batch}-faults.ndjson"),
            Self::Results(_) => format!("{batch}-results.ndjson"),
        }
    }
}

/// The files of batches in Amazon S3: what their owners upload, and the lists of faults and results.
#[derive(Clone, Debug)]
pub struct BatchFiles {
    client: Client,
    bucket: String,
    signing: Signing,
}

impl BatchFiles {
    pub(super) fn new(client: Client, bucket: String, signing: Signing) -> Self {
        Self { client, bucket, signing }
    }

    /// Presigns a PUT of a batch's input file, for `life` from `now`, but not longer than the signing credentials.
    pub async fn sign_upload(&self, batch: BatchId, now: Timestamp, life: Duration) -> Result<SignedUrl> {
        let put = self.client.put_object().bucket(&self.bucket).key(input_key(batch));
        self.signing.url(put.presigned(presigning(now, life)?).await, now, life).await
    }

    /// Presigns a GET of one of the service's own files, for `life` from `now`, but not longer than the credentials.
    pub async fn sign(&self, batch: BatchId, document: Document, now: Timestamp, life: Duration) -> Result<SignedUrl> {
        let get = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(document.key(batch))
            .response_content_type("application/x-ndjson")
            .response_content_disposition(format!("attachment; filename=\"{}\"", document.file_name(batch)));
        self.signing.url(get.presigned(presigning(now, life)?).await, now, life).await
    }

    /// The input file; `None` if it was not uploaded.
    pub async fn head(&self, batch: BatchId) -> Result<Option<InputFile>> {
        match self.client.head_object().bucket(&self.bucket).key(input_key(batch)).send().await {
            Ok(head) => {
                let bytes = head.content_length().and_then(|length| u64::try_from(length).ok());
                let file = head.e_tag().zip(bytes).map(|(etag, bytes)| InputFile { etag: etag.to_owned(), bytes });
                file.map(Some).ok_or_else(|| ServiceError::corrupt(SERVICE))
            }
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(ServiceError::new(SERVICE, &error)),
        }
    }

    /// The input file's bytes from `offset`, which must be before its end; `None` if the file was replaced or deleted.
    pub async fn read(&self, batch: BatchId, file: &InputFile, offset: u64) -> Result<Option<Bytes>> {
        let last = file.bytes.min(offset + BYTES_PER_READ) - 1;
        let get = self.client.get_object().bucket(&self.bucket).key(input_key(batch));
        match get.range(format!("bytes={offset}-{last}")).send().await {
            Ok(object) if object.e_tag() != Some(&file.etag) => Ok(None),
            Ok(object) => {
                let bytes = object.body.collect().await.map_err(|_| ServiceError::cut_short(SERVICE))?.into_bytes();
                Ok(Some(bytes))
            }
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => Ok(None),
            // The file has become shorter.
            Err(error) => match ServiceError::new(SERVICE, &error) {
                error if error.code == "InvalidRange" => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Starts to write one of the service's own files.
    pub fn write(&self, batch: BatchId, document: Document) -> Writer {
        Writer { files: self.clone(), key: document.key(batch), buffer: Vec::new(), upload: None, parts: Vec::new() }
    }
}

/// Writes a file line by line, in bounded memory. The file appears when it is finished, in place of an earlier one.
#[derive(Debug)]
pub struct Writer {
    files: BatchFiles,
    key: String,
    buffer: Vec<u8>,
    upload: Option<String>,
    parts: Vec<CompletedPart>,
}

impl Writer {
    /// Adds a line of JSON.
    pub async fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.buffer, line).expect("a line is always JSON");
        self.buffer.push(b'\n');
        if self.buffer.len() >= BYTES_PER_PART { self.put_part().await } else { Ok(()) }
    }

    /// Finishes the file. An unfinished one costs storage until the bucket's rule for incomplete uploads deletes it.
    pub async fn finish(mut self) -> Result<()> {
        let BatchFiles { client, bucket, .. } = &self.files;
        if self.upload.is_none() {
            let put = client.put_object().bucket(bucket).key(&self.key).body(ByteStream::from(self.buffer));
            return put.send().await.map(drop).map_err(ServiceError::of(SERVICE));
        }
        if !self.buffer.is_empty() {
            self.put_part().await?;
        }
        let Self { files: BatchFiles { client, bucket, .. }, key, upload, parts, .. } = self;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = client.complete_multipart_upload().bucket(bucket).key(key).set_upload_id(upload);
        complete.multipart_upload(parts).send().await.map(drop).map_err(ServiceError::of(SERVICE))
    }

    /// Discards what was written.
    pub async fn abandon(self) -> Result<()> {
        let Self { files: BatchFiles { client, bucket, .. }, key, upload: Some(upload), .. } = self else {
            return Ok(());
        };
        let abort = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(upload);
        abort.send().await.map(drop).map_err(ServiceError::of(SERVICE))
    }

    async fn put_part(&mut self) -> Result<()> {
        let BatchFiles { client, bucket, .. } = &self.files;
        if self.upload.is_none() {
            let begin = client.create_multipart_upload().bucket(bucket).key(&self.key).send().await;
            let id = begin.map_err(ServiceError::of(SERVICE))?.upload_id;
            self.upload = Some(id.ok_or_else(|| ServiceError::corrupt(SERVICE))?);
        }
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let body = ByteStream::from(std::mem::take(&mut self.buffer));
        let put = client.upload_part().bucket(bucket).key(&self.key).set_upload_id(self.upload.clone());
        let put = put.part_number(number).body(body).send().await.map_err(ServiceError::of(SERVICE))?;
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build());
        Ok(())
    }
}

fn input_key(batch: BatchId) -> String {
    format!("batches/{batch}/input")
}
