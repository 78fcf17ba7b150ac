//! Several batches under one name, and the steps in which a request works through them.

use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::caller::Owner;
use crate::id::BatchId;
use crate::label::GroupName;
use crate::problem::Problem;
use crate::time::Timestamp;

/// Several batches under one name. Nothing is kept of it but which batches are its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name among the batches.
    pub id: BatchId,
    /// Who may see it.
    pub owner: Owner,
    /// What the caller calls it.
    pub name: GroupName,
    /// When its first part was submitted.
    pub created_at: Timestamp,
    /// When its record is deleted: no sooner than its last part's.
    pub expires_at: Timestamp,
    /// Those of its parts whose retention has not ended, oldest first.
    pub parts: Vec<Batch>,
}

impl Group {
    /// How many parts a group may have. A look at a group counts the jobs of all of them, 250,000 at the most, within the
    /// 29 seconds that API Gateway waits.
    pub const MAX_PARTS: usize = 250;
}

/// What a caller means by a batch's name: one batch, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// One batch.
    Batch(Batch),
    /// All batches of a group.
    Group(Group),
}

impl Whole {
    /// The name.
    pub fn id(&self) -> BatchId {
        match self {
            Self::Batch(batch) => batch.id,
            Self::Group(group) => group.id,
        }
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Batch(batch) => &batch.owner,
            Self::Group(group) => &group.owner,
        }
    }

    /// When its record is deleted.
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Self::Batch(batch) => batch.expires_at,
            Self::Group(group) => group.expires_at,
        }
    }

    /// Its batches, oldest first.
    pub fn parts(&self) -> &[Batch] {
        match self {
            Self::Batch(batch) => std::slice::from_ref(batch),
            Self::Group(group) => &group.parts,
        }
    }

    /// How many jobs it has in all.
    pub fn total(&self) -> usize {
        self.parts().iter().map(|part| part.total).sum()
    }
}

/// The work on a group's parts, one after the other, as far as the time of a request reaches.
#[derive(Debug)]
pub struct Steps {
    /// The part with which to begin; `None` is the first.
    first: Option<BatchId>,
    begun: Option<Instant>,
    time: Duration,
    next: Option<BatchId>,
}

impl Steps {
    /// How long after its first part one request goes on to further ones. A part takes some seconds, and API Gateway
    /// waits 29.
    pub const TIME: Duration = Duration::from_secs(12);

    /// How long after it began with its first part one request stays with a part, when the table is slow.
    pub const LIMIT: Duration = Duration::from_secs(18);

    /// The steps that begin where `cursor` says, or else with the first part.
    ///
    /// # Errors
    /// When the cursor is none.
    pub fn from(cursor: Option<&String>) -> Result<Self, Problem> {
        let first = cursor.map(|cursor| cursor.parse()).transpose().map_err(|_| Problem::InvalidCursor)?;
        Ok(Self { first, begun: None, time: Self::TIME, next: None })
    }

    /// Makes sure that the cursor names a part of this batch.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, batch: &Whole) -> Result<(), Problem> {
        let known = |id| batch.parts().iter().any(|part| part.id == id);
        if self.first.is_none_or(known) { Ok(()) } else { Err(Problem::InvalidCursor) }
    }

    /// Whether it is the turn of `part`, for which all are asked in their order: not before the first, and not after the
    /// time has passed. One part is always worked off, so that there is progress.
    pub fn is_turn_of(&mut self, part: &Batch) -> bool {
        let now = Instant::now();
        let Some(begun) = self.begun else {
            self.begun = self.first.is_none_or(|first| first == part.id).then_some(now);
            return self.begun.is_some();
        };
        if self.next.is_none() && now >= begun + self.time {
            self.next = Some(part.id);
        }
        self.next.is_none()
    }

    /// When to leave the rest of a part to the next request.
    pub fn limit(&self) -> Instant {
        self.begun.unwrap_or_else(Instant::now) + Self::LIMIT
    }

    /// Has the next request begin with `part`, whose work the limit has cut short.
    pub fn leave(&mut self, part: &Batch) {
        self.next = Some(part.id);
    }

    /// What the next request begins with; `None` when all is done.
    pub fn next_cursor(&self) -> Option<String> {
        self.next.map(|id| id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_worked_off_in_steps() {
        let part = |seconds: i64| Batch {
            id: BatchId::new(),
            owner: Owner::new("somebody"),
            name: None,
            group: None,
            total: 1,
            created_at: Timestamp::from_ms(seconds),
            deadline_at: Timestamp::from_ms(seconds),
            expires_at: Timestamp::from_ms(seconds),
            fingerprint: String::new(),
            writing: None,
            canceled_at: None,
        };
        let parts = [part(1), part(2), part(3)];
        let turns = |mut steps: Steps| {
            let turns = parts.each_ref().map(|part| steps.is_turn_of(part));
            (turns, steps.next_cursor())
        };
        let steps = |cursor: Option<&String>| Steps::from(cursor).expect("a good cursor");
        assert_eq!(turns(steps(None)), ([true, true, true], None));
        let out_of_time = |steps: Steps| Steps { time: Duration::ZERO, ..steps };
        let (first, next) = turns(out_of_time(steps(None)));
        assert_eq!((first, &next), ([true, false, false], &Some(parts[1].id.to_string())));
        let (second, next) = turns(out_of_time(steps(next.as_ref())));
        assert_eq!((second, &next), ([false, true, false], &Some(parts[2].id.to_string())));
        assert_eq!(turns(out_of_time(steps(next.as_ref()))), ([false, false, true], None));
        let mut cut_short = steps(None);
        assert!(cut_short.is_turn_of(&parts[0]));
        cut_short.leave(&parts[0]);
        assert_eq!(turns(cut_short), ([false, false, false], Some(parts[0].id.to_string())));
        assert!(Steps::from(Some(&"x".to_owned())).is_err());
        let stranger = BatchId::new().to_string();
        assert!(steps(Some(&stranger)).check(&Whole::Batch(part(1))).is_err());
    }
}
