//! The ids of jobs and batches on a command line.

use std::path::Path;

use crate::api::{Api, Found};
use crate::failure::Failure;
use crate::state::batch_of;
use crate::terminal::Terminal;

/// The ids of a command line. A state file stands for its batch.
pub(crate) fn resolve_ids(words: &[String]) -> Result<Vec<String>, Failure> {
    words.iter().map(|word| resolve_id(word)).collect()
}

/// The id that a word of a command line names.
pub(crate) fn resolve_id(word: &str) -> Result<String, Failure> {
    if let Ok(id) = uuid::Uuid::try_parse(word) {
        return Ok(id.to_string());
    }
    let path = Path::new(word);
    if !path.exists() {
        let rule = "is neither an id nor a state file; `poster list` shows your jobs and batches";
        return Err(Failure::Usage(format!("{word:?} {rule}")));
    }
    let batch = batch_of(path)?.ok_or_else(|| {
        let advice = "run its `poster batch` command with --no-wait first";
        Failure::Usage(format!("{word:?} records no batch; {advice}"))
    })?;
    Ok(batch.to_string())
}

/// Finds the job or batch of one of the ids. If there are several, one that does not exist is reported and is `None`, so
/// that the command continues with the others.
pub(crate) async fn find_one_of(
    ids: &[String],
    id: &str,
    api: &Api,
    terminal: &Terminal,
) -> Result<Option<Found>, Failure> {
    match api.find(id).await {
        Err(failure) if failure.is_not_found() && ids.len() > 1 => {
            terminal.println(format!("{id}: the service has no such job or batch"));
            Ok(None)
        }
        found => found.map(Some),
    }
}
