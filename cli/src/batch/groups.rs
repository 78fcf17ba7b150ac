//! The groups that a batch is on the service: one, or several where it has more parts than a group may have.

use std::collections::BTreeMap;
use std::path::Path;

use shared::BatchId;

use super::journal::{Header, Part, read_parts};
use crate::api::Api;
use crate::failure::Failure;
use crate::terminal::quoted;

/// The ids of the groups that the service is known to have, by their places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups(BTreeMap<usize, BatchId>);

impl Groups {
    /// The groups that these parts belong to.
    ///
    /// # Errors
    /// When parts of one group have different ids for it.
    pub(crate) fn of(header: &Header, parts: &[Part]) -> Result<Self, Failure> {
        let mut groups = Self::default();
        for part in parts {
            groups.add(header.group_of(part.chunk), part.group)?;
        }
        Ok(groups)
    }

    /// Takes note that the group at this place has this id.
    ///
    /// # Errors
    /// When it is known under another one, which a group has for another caller.
    pub(crate) fn add(&mut self, place: usize, id: BatchId) -> Result<(), Failure> {
        if *self.0.entry(place).or_insert(id) == id {
            return Ok(());
        }
        let owner = "the service takes this batch for another's; is the API key the one it began with?";
        Err(Failure::Usage(owner.to_owned()))
    }

    /// The ids, in the order of the input.
    pub(crate) fn ids(&self) -> Vec<BatchId> {
        self.0.values().copied().collect()
    }

    /// Makes sure that the service knows the last of them, and that it is the caller's.
    ///
    /// # Errors
    /// When it does not, or the service does not answer.
    pub(crate) async fn check(&self, api: &Api) -> Result<(), Failure> {
        match self.0.values().next_back() {
            Some(last) => match api.batch(&last.to_string()).await {
                Err(Failure::Refused(problem)) if problem.status == 404 => Err(Failure::Usage(
                    "the service does not know what this batch submitted. Is the API key the one it began with? If the \
                     service keeps it no longer, begin anew with --state and another file"
                        .to_owned(),
                )),
                answer => answer.map(drop),
            },
            None => Ok(()),
        }
    }
}

/// A command about these groups: by its id where it is one, and otherwise by the state file, which names all.
pub(crate) fn command(action: &str, groups: &[BatchId], state: &Path) -> String {
    match groups {
        [group] => format!("poster {action} {group}"),
        _ => format!("poster {action} {}", quoted(&state.display().to_string())),
    }
}

/// The ids that these words name: each is an id itself, or a state file, which stands for the groups of its batch.
///
/// # Errors
/// When there is no such file, it is no state file, or it has no word of anything that was submitted: what a crash has
/// kept from being recorded would otherwise be taken for canceled.
pub(crate) fn named(words: &[String]) -> Result<Vec<String>, Failure> {
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
            let way_on = "run the command that began it with --no-wait first";
            return Err(Failure::Usage(format!("{word:?} records nothing as submitted; {way_on}")));
        }
        ids.extend(Groups::of(&header, &parts)?.ids().iter().map(ToString::to_string));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::journal::{Journal, tests::header};

    #[test]
    fn parts_fall_to_groups_and_a_state_file_names_them() {
        let header = Header { parts_per_group: 2, ..header() };
        let [first, second] = [BatchId::new(), BatchId::new()];
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a state");
        let (mut journal, _) = Journal::open(&path, &header).expect("a new state");
        let unrecorded = named(&[path.display().to_string()]);
        assert!(unrecorded.is_err_and(|failure| failure.to_string().contains("--no-wait")));
        for (chunk, group) in [(0, first), (1, first), (3, second)] {
            journal.part(&Part::new(chunk, BatchId::new(), group, vec![(1, 1)])).expect("it is written");
        }
        let other = BatchId::new().to_string();
        let found = named(&[other.to_uppercase(), path.display().to_string()]).expect("a state file");
        assert_eq!(found, [other, first.to_string(), second.to_string()]);
        assert!(named(&["nothing".to_owned()]).is_err());

        let mut groups = Groups::of(&header, &[Part::new(3, BatchId::new(), second, vec![(1, 1)])]).expect("one group");
        assert!(groups.add(1, first).is_err(), "the group at this place has another id");
        assert!(groups.add(0, first).is_ok());
        assert_eq!(groups.ids(), [first, second]);
    }

    #[test]
    fn a_command_is_one_that_a_shell_reads() {
        let [first, second] = [BatchId::new(), BatchId::new()];
        let state = Path::new("it's a.poster-state");
        assert_eq!(command("retry", &[first], state), format!("poster retry {first}"));
        assert_eq!(command("retry", &[first, second], state), "poster retry 'it'\\''s a.poster-state'");
        assert_eq!(command("retry", &[first, second], Path::new("a.x")), "poster retry a.x");
    }
}
