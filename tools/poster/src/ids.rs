use std::path::Path;

use crate::api::{Api, Found};
use crate::arguments::Ids;
use crate::failure::{Failure, Outcome};
use crate::state::batch_of;

/// Finds the job or batch of each word of a command line, one after the other, and calls `each` with it. A state file stands
/// for its batch. If there are several words, one whose job or batch does not exist is reported, and the command continues.
pub(crate) async fn for_each_found(
    api: &Api,
    words: &Ids,
    mut each: impl AsyncFnMut(&str, Found) -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let ids: Vec<_> = words.ids.iter().map(|word| resolve_id(word)).collect::<Result<_, _>>()?;
    let mut outcome = Outcome::AllDone;
    for id in &ids {
        match api.find(id).await {
            Err(failure) if failure.is_not_found() && ids.len() > 1 => {
                api.terminal.println(format!("{id}: the service has no such job or batch"));
                outcome = Outcome::SomeFailed;
            }
            found => each(id, found?).await?,
        }
    }
    Ok(outcome)
}

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
