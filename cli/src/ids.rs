//! The ids of jobs and batches on a command line.

use std::path::Path;

use crate::api::{Api, Found};
use crate::failure::Failure;
use crate::groups::Groups;
use crate::journal::read_parts;
use crate::terminal::Terminal;

/// The ids that these words name: each is an id itself, or a state file, which stands for the groups of its batch.
///
/// # Errors
/// When there is no such file, it is no state file, or it has no word of anything that was submitted: what a crash has
/// kept from being recorded would otherwise be taken for canceled.
pub(crate) fn resolve_ids(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for word in words {
        if let Ok(id) = uuid::Uuid::try_parse(word) {
            ids.push(id.to_string());
            continue;
        }
        let path = Path::new(word);
        if !path.exists() {
            let rule = "is neither an id nor the state file of a batch; `poster list` shows your jobs";
            return Err(Failure::Usage(format!("{word:?} {rule}")));
        }
        let (header, parts) = read_parts(path)?;
        if parts.is_empty() {
            let resume_hint = "run the command that began it with --no-wait first";
            return Err(Failure::Usage(format!("{word:?} records nothing as submitted; {resume_hint}")));
        }
        ids.extend(Groups::of(&header, &parts)?.ids().iter().map(ToString::to_string));
    }
    Ok(ids)
}

/// What this one of the ids names. One of several that the service has nothing of, such as the first group of an old
/// batch, is told and is `None`, so that it does not keep the others from their turn.
///
/// # Errors
/// When the service has nothing of the only id, or does not answer.
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

#[cfg(test)]
mod tests {
    use shared::BatchId;

    use super::*;
    use crate::journal::{Header, Journal, Part, tests::header};

    #[test]
    fn parts_fall_to_groups_and_a_state_file_names_them() {
        let header = Header { parts_per_group: 2, ..header() };
        let [first, second] = [BatchId::new(), BatchId::new()];
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a state");
        let (mut journal, _) = Journal::open(&path, &header).expect("a new state");
        let unrecorded = resolve_ids(&[path.display().to_string()]);
        assert!(unrecorded.is_err_and(|failure| failure.to_string().contains("--no-wait")));
        for (chunk, group) in [(0, first), (1, first), (3, second)] {
            journal.part(&Part::new(chunk, BatchId::new(), group, vec![(1, 1)])).expect("it is written");
        }
        let other = BatchId::new().to_string();
        let found = resolve_ids(&[other.to_uppercase(), path.display().to_string()]).expect("a state file");
        assert_eq!(found, [other, first.to_string(), second.to_string()]);
        assert!(resolve_ids(&["nothing".to_owned()]).is_err());

        let mut groups = Groups::of(&header, &[Part::new(3, BatchId::new(), second, vec![(1, 1)])]).expect("one group");
        assert!(groups.add(1, first).is_err(), "the group at this place has another id");
        assert!(groups.add(0, first).is_ok());
        assert_eq!(groups.ids(), [first, second]);
    }
}
