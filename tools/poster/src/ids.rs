//! The ids of jobs and batches on a command line.

use std::path::Path;

use crate::api::{Api, Found};
use crate::failure::Failure;
use crate::groups::Groups;
use crate::journal::read_parts;
use crate::terminal::Terminal;

/// The ids of a command line. A state file stands for the groups of its batch; one without any is refused, since a crash
/// may have kept a submitted part from being recorded.
pub(crate) fn resolve_ids(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for word in words {
        if let Ok(id) = uuid::Uuid::try_parse(word) {
            ids.push(id.to_string());
            continue;
        }
        let path = Path::new(word);
        if !path.exists() {
            let rule = "is neither an id nor a state file; `poster list` shows your jobs";
            return Err(Failure::Usage(format!("{word:?} {rule}")));
        }
        let (header, parts) = read_parts(path)?;
        if parts.is_empty() {
            let advice = "run its `poster batch` command with --no-wait first";
            return Err(Failure::Usage(format!("{word:?} records no submitted part; {advice}")));
        }
        ids.extend(Groups::of(&header, &parts)?.ids().iter().map(ToString::to_string));
    }
    Ok(ids)
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

#[cfg(test)]
mod tests {
    use shared::BatchId;

    use super::*;
    use crate::journal::{Header, Journal, Part, tests::header};

    #[test]
    fn a_state_file_names_the_groups_of_its_parts() {
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
        assert!(groups.add(1, first).is_err(), "this group has another id");
        assert!(groups.add(0, first).is_ok());
        assert_eq!(groups.ids(), [first, second]);
    }
}
