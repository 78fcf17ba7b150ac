//! The groups that a batch is on the service: one, or several where it has more parts than a group may have.

use std::collections::BTreeMap;
use std::path::Path;

use shared::BatchId;

use crate::api::Api;
use crate::failure::Failure;
use crate::journal::{Header, Part};
use crate::words::quoted;

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
pub(crate) fn command_for(action: &str, groups: &[BatchId], state: &Path) -> String {
    match groups {
        [group] => format!("poster {action} {group}"),
        _ => format!("poster {action} {}", quoted(&state.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_that_a_shell_reads() {
        let [first, second] = [BatchId::new(), BatchId::new()];
        let state = Path::new("it's a.poster-state");
        assert_eq!(command_for("retry", &[first], state), format!("poster retry {first}"));
        assert_eq!(command_for("retry", &[first, second], state), "poster retry 'it'\\''s a.poster-state'");
        assert_eq!(command_for("retry", &[first, second], Path::new("a.x")), "poster retry a.x");
    }
}
