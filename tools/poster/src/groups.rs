//! The groups of a batch on the service: one, or several if it has more parts than a group may have.

use std::collections::BTreeMap;
use std::path::Path;

use shared::BatchId;

use crate::api::Api;
use crate::failure::Failure;
use crate::journal::{Header, Part};
use crate::words::quoted;

/// The ids of the groups that were submitted, by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups(BTreeMap<usize, BatchId>);

impl Groups {
    /// The groups that these parts belong to.
    pub(crate) fn of(header: &Header, parts: &[Part]) -> Result<Self, Failure> {
        let mut groups = Self::default();
        for part in parts {
            groups.add(header.group_of(part.chunk), part.group)?;
        }
        Ok(groups)
    }

    /// Adds a group. Fails if it is known under another id, which it has for another caller.
    pub(crate) fn add(&mut self, place: usize, id: BatchId) -> Result<(), Failure> {
        if *self.0.entry(place).or_insert(id) == id {
            return Ok(());
        }
        let other = "this batch belongs to another caller. Is the API key the one it was started with?";
        Err(Failure::Usage(other.to_owned()))
    }

    /// The ids, in the order of the input.
    pub(crate) fn ids(&self) -> Vec<BatchId> {
        self.0.values().copied().collect()
    }

    /// Fails if the service does not know the last group, or it belongs to another caller.
    pub(crate) async fn check(&self, api: &Api) -> Result<(), Failure> {
        match self.0.values().next_back() {
            Some(last) => match api.batch(&last.to_string()).await {
                Err(Failure::Refused(problem)) if problem.status == 404 => Err(Failure::Usage(
                    "the service does not know this batch. Is the API key the one it was started with? If its retention has \
                     ended, start over with --state and another file"
                        .to_owned(),
                )),
                answer => answer.map(drop),
            },
            None => Ok(()),
        }
    }
}

/// A command line for these groups. It names a single group by its id, and several by the state file.
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
    fn a_command_can_be_pasted_into_a_shell() {
        let [first, second] = [BatchId::new(), BatchId::new()];
        let state = Path::new("it's a.poster-state");
        assert_eq!(command_for("retry", &[first], state), format!("poster retry {first}"));
        assert_eq!(command_for("retry", &[first, second], state), "poster retry 'it'\\''s a.poster-state'");
        assert_eq!(command_for("retry", &[first, second], Path::new("a.x")), "poster retry a.x");
    }
}
