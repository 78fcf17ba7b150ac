//! The file that the jobs of a batch come from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::batch_file::{Format, LineFault, Position};
use crate::order::Model;
use crate::spelled::spelled;

/// In bytes: the limit of a single PUT, see
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html>.
pub const MAX_BYTES: u64 = 5_000_000_000;

/// How many faults the record keeps. All of them are in the file of faults.
pub const FIRST_FAULTS: usize = 20;

spelled! {
    /// What a faulty line means for the batch.
    #[derive(Default)]
    OnBadLine, "an action",
    /// The whole batch is invalid, and nothing is painted.
    #[default]
    Refuse = "refuse",
    Skip = "skip",
}

/// The file of a batch: how to read it, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Input {
    pub format: Format,
    pub on_bad_line: OnBadLine,
    /// The fields for the jobs that leave them out.
    pub defaults: Map<String, Value>,
    /// The model for jobs that name none.
    pub model: Model,
    /// The file that the batch was started with.
    pub file: Option<InputFile>,
    pub checked: Checked,
    /// The place in the file of the next job to admit.
    pub position: Position,
}

/// The file as it was when the batch was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its entity tag. A file with another one is not the batch's.
    pub etag: String,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// What the check found, so far or in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The lines that were read.
    #[serde(rename = "checked_lines")]
    pub lines: u64,
    /// The jobs among them.
    #[serde(rename = "checked_jobs")]
    pub jobs: usize,
    /// The total number of faults.
    pub faults: u64,
    /// The first [`FIRST_FAULTS`] of them.
    pub first_faults: Vec<LineFault>,
    /// Whether a fault is of the whole file: a repeated `custom_id`, too many lines, another format, another file. Only
    /// the check needs it, which starts over if it is interrupted.
    #[serde(skip)]
    pub is_of_file: bool,
}

impl Checked {
    /// Adds a fault.
    pub fn fault(&mut self, fault: LineFault) {
        self.faults += 1;
        if self.first_faults.len() < FIRST_FAULTS {
            self.first_faults.push(fault);
        }
    }
}
