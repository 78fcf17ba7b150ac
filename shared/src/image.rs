//! The files that a job has to show.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::order::OutputFormat;
use crate::poster::Lettering;
use crate::spelled::spelled;
use crate::time::Timestamp;

/// What a job has to show: a poster, where it asked for one, and else the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is.
    pub facts: ImageFacts,
    /// A presigned URL of it.
    pub url: SignedUrl,
    /// The picture beneath the lettering of a poster.
    pub artwork: Option<Artwork>,
    /// A presigned URL of the thumbnail, where there is one.
    pub thumbnail: Option<SignedUrl>,
}

/// The picture beneath the lettering of a poster, as the model painted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artwork {
    /// What it is.
    pub facts: ImageFacts,
    /// A presigned URL of it.
    pub url: SignedUrl,
}

spelled! {
    /// Which of a job's files is meant.
    #[derive(Default)]
    Variant, "a variant",
    /// What the job has to show.
    #[default]
    Image = "image",
    /// The picture beneath the lettering of a poster.
    Artwork = "artwork",
    /// A small copy of what the job has to show.
    Thumbnail = "thumbnail",
}

/// What is known of a stored picture, all of it read from the picture itself or from the model's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The file format.
    pub format: OutputFormat,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
    /// The seed that the model says it used.
    pub seed: Option<u32>,
    /// How the lettering was set, on a poster.
    #[serde(default)]
    pub lettering: Option<Lettering>,
}

/// A URL that works for everybody until it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// The URL.
    pub url: String,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Shows only the end of its life, so that no log can hold a signature.
impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl(until {})", self.expires_at)
    }
}
