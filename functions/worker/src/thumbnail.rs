use bytes::Bytes;
use shared::aws::{File, ServiceError};
use shared::image::ImageFacts;
use shared::order::OutputFormat;
use shared::origin::{MarkError, Origin, mark};
use tokio::task::JoinError;
use tokio::time::error::Elapsed;
use typography::{Raster, Thumbnail, Unreadable};

const MOST_BYTES: usize = 40_000;

/// The maximum size of the mark of origin, in bytes.
const MARK: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoThumbnail {
    #[error("the picture cannot be read or made small: {0}")]
    Picture(#[from] Unreadable),
    #[error("the thumbnail cannot be marked: {0}")]
    Unmarked(#[from] MarkError),
    #[error("it panicked: {0}")]
    BrokeOff(#[from] JoinError),
    #[error("it cannot be stored: {0}")]
    Unstored(#[from] ServiceError),
    #[error("not enough time")]
    TooLate(#[from] Elapsed),
}

pub(crate) fn thumbnail(picture: &Bytes) -> Result<File, NoThumbnail> {
    let small = Thumbnail::of(&Raster::decode(picture)?, MOST_BYTES - MARK)?;
    let bytes = mark(small.file.into(), Origin::of(picture).unwrap_or(Origin::Model))?;
    let facts = ImageFacts {
        format: OutputFormat::Jpeg,
        bytes: bytes.len() as u64,
        width: small.width as u32,
        height: small.height as u32,
        seed: None,
        lettering: None,
    };
    Ok(File { facts, bytes })
}
