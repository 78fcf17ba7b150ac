//! Pictures and posters as they are stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::order::OutputFormat;
use crate::poster::Lettering;
use crate::spelled::spelled;
use crate::time::Timestamp;

/// The result of a job: the poster if the order asked for lettering, or else the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Image {
    pub facts: ImageFacts,
    pub url: SignedUrl,
    pub artwork: Option<Artwork>,
    /// A presigned URL of the thumbnail, if there is one.
    pub thumbnail: Option<SignedUrl>,
}

/// The picture beneath the lettering of a poster, as the model painted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Artwork {
    pub facts: ImageFacts,
    pub url: SignedUrl,
}

spelled! {
    /// One of a job's files.
    #[derive(Default)]
    Variant, "a variant",
    /// The picture, or the poster.
    #[default]
    Image = "image",
    /// The picture beneath the lettering of a poster.
    Artwork = "artwork",
    Thumbnail = "thumbnail",
}

/// The properties of a stored file, read from the file itself or from the model's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct ImageFacts {
    pub format: OutputFormat,
    pub bytes: u64,
    pub width: u32,
    pub height: u32,
    /// The seed that the model reports.
    pub seed: Option<u32>,
    pub lettering: Option<Lettering>,
}

/// A URL that anyone may use until it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// The URL.
    pub url: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Hides the URL, so that no log can contain a signature.
impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl(until {})", self.expires_at)
    }
}
