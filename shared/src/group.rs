//! Groups: several batches under one name, and how requests work through them.

use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::caller::Owner;
use crate::file_batch::FileBatch;
use crate::id::BatchId;
use crate::label::GroupName;
use crate::problem::Problem;
use crate::time::Timestamp;

/// Several batches under one name. The record of a group only lists its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id, which is also valid as a batch's.
    pub id: BatchId,
    /// Who may see it.
    pub owner: Owner,
    /// The caller's name for it.
    pub name: GroupName,
    /// When its first part was submitted.
    pub created_at: Timestamp,
    /// When its record is deleted: not before that of its last part.
    pub expires_at: Timestamp,
    /// Its unexpired parts, oldest first.
    pub parts: Vec<Batch>,
}

impl Group {
    /// The maximum number of parts. A request that counts all jobs of a group, up to 250,000, must finish within the 29
    /// seconds that API Gateway waits.
    pub const MAX_PARTS: usize = 250;
}

/// What a batch's id in a request refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchOrGroup {
    /// A single batch.
    Batch(Batch),
    /// A group with its batches.
    Group(Group),
    /// A batch from a file.
    File(Box<FileBatch>),
}

impl BatchOrGroup {
    /// The id.
    pub fn id(&self) -> BatchId {
        match self {
            Self::Batch(batch) => batch.id,
            Self::Group(group) => group.id,
            Self::File(file) => file.batch.id,
        }
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Batch(batch) => &batch.owner,
            Self::Group(group) => &group.owner,
            Self::File(file) => &file.batch.owner,
        }
    }

    /// When it was submitted.
    pub fn created_at(&self) -> Timestamp {
        match self {
            Self::Batch(batch) => batch.created_at,
            Self::Group(group) => group.created_at,
            Self::File(file) => file.batch.created_at,
        }
    }

    /// When its record is deleted.
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Self::Batch(batch) => batch.expires_at,
            Self::Group(group) => group.expires_at,
            Self::File(file) => file.batch.expires_at,
        }
    }

    /// Its batches, oldest first.
    pub fn parts(&self) -> &[Batch] {
        match self {
            Self::Batch(batch) => std::slice::from_ref(batch),
            Self::Group(group) => &group.parts,
            Self::File(file) => std::slice::from_ref(&file.batch),
        }
    }

    /// The total number of jobs.
    pub fn total(&self) -> usize {
        self.parts().iter().map(|part| part.total).sum()
    }
}

/// Divides the work on a group's parts into requests: each does what its time allows, and the next one continues.
#[derive(Debug)]
pub struct GroupCursor {
    /// The part to begin with; `None` is the first one.
    first: Option<BatchId>,
    /// When the work on that part began.
    begun: Option<Instant>,
    /// The part to begin with next time.
    next: Option<BatchId>,
}

impl GroupCursor {
    /// A request starts no further part after this time. A part takes some seconds, and API Gateway waits 29.
    pub const TIME: Duration = Duration::from_secs(12);

    /// A request stops working on a part after this time, in case the table is slow.
    pub const LIMIT: Duration = Duration::from_secs(18);

    /// Reads the cursor of a request; `None` begins with the first part.
    pub fn parse(cursor: Option<&String>) -> Result<Self, Problem> {
        let first = cursor.map(|cursor| cursor.parse()).transpose().map_err(|_| Problem::InvalidCursor)?;
        Ok(Self { first, begun: None, next: None })
    }

    /// Checks that the cursor names a part of this batch.
    pub fn check(&self, batch: &BatchOrGroup) -> Result<(), Problem> {
        let known = |id| batch.parts().iter().any(|part| part.id == id);
        if self.first.is_none_or(known) { Ok(()) } else { Err(Problem::InvalidCursor) }
    }

    /// Until when this request works on `part`; `None` if it does not. Call it for every part, in order.
    ///
    /// Each request works on at least one part, so it makes progress.
    pub fn turn_of(&mut self, part: &Batch, now: Instant) -> Option<Instant> {
        if self.begun.is_none() && self.first.is_none_or(|first| first == part.id) {
            self.begun = Some(now);
        }
        let begun = self.begun?;
        if self.next.is_none() && now >= begun + Self::TIME {
            self.next = Some(part.id);
        }
        self.next.is_none().then_some(begun + Self::LIMIT)
    }

    /// Lets the next request begin with `part`, which this one could not finish.
    pub fn stop_at(&mut self, part: &Batch) {
        self.next = Some(part.id);
    }

    /// The cursor for the next request; `None` when all parts are done.
    pub fn next_cursor(&self) -> Option<String> {
        self.next.map(|id| id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_processed_in_several_requests() {
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
        let cursor = |text: Option<&String>| GroupCursor::parse(text).expect("a good cursor");
        let turns = |mut cursor: GroupCursor, seconds_per_part: u32| {
            let mut now = Instant::now();
            let turns = parts.each_ref().map(|part| {
                let turn = cursor.turn_of(part, now).is_some();
                now += seconds_per_part * Duration::from_secs(1);
                turn
            });
            (turns, cursor.next_cursor())
        };
        assert_eq!(turns(cursor(None), 5), ([true, true, true], None));
        let (first, next) = turns(cursor(None), 12);
        assert_eq!((first, &next), ([true, false, false], &Some(parts[1].id.to_string())));
        let (second, next) = turns(cursor(next.as_ref()), 12);
        assert_eq!((second, &next), ([false, true, false], &Some(parts[2].id.to_string())));
        assert_eq!(turns(cursor(next.as_ref()), 12), ([false, false, true], None));
        let (mut cut_short, now) = (cursor(None), Instant::now());
        assert_eq!(cut_short.turn_of(&parts[0], now), Some(now + GroupCursor::LIMIT));
        cut_short.stop_at(&parts[0]);
        assert_eq!(turns(cut_short, 0), ([false, false, false], Some(parts[0].id.to_string())));
        assert!(GroupCursor::parse(Some(&"x".to_owned())).is_err());
        let stranger = BatchId::new().to_string();
        assert!(cursor(Some(&stranger)).check(&BatchOrGroup::Batch(part(1))).is_err());
    }
}
