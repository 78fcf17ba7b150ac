//! Small simulated worlds in which everything fails that can fail, in an order that a seed decides.
//!
//! The functions' own handlers run over the embedded table and bucket. Every call that they make to AWS stops at a gate,
//! and a scheduler decides what happens next: which of the waiting calls is made, whether its answer is lost, whether its
//! caller dies before or after it, whether a ticket is delivered late, twice or out of order, whether somebody cancels or
//! retries a job, or how far the clock jumps. Only one call is made at a time, so a seed always makes the same history.
//!
//! The gate simulates the queue and the model: the queue because it must use the world's time and not the machine's, the
//! model because its pictures are only counted.

mod actors;
mod bulk;
mod events;
mod files;
mod gate;
mod model;
mod observer;
mod outage;
mod reads;
mod scene;
mod versions;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use local::{Options, Stack};
use shared::{Clock, Timestamp};

pub use self::files::FileBug;
pub use self::outage::{Ailment, Outage};
use self::world::World;

/// The most attempts of a job: few, so that jobs reach the limit.
const MAX_ATTEMPTS: u32 = 2;

/// The longest invocation of the worker, and so the longest time for which its calls can be outstanding.
const INVOCATION: Duration = Duration::from_secs(90);

/// How long an outage of the model lasts.
const SPELL: Duration = Duration::from_secs(600);

/// The default visibility timeout of a ticket.
const VISIBILITY: Duration = Duration::from_secs(540);

const DAY: Duration = Duration::from_secs(86_400);

/// How long records are kept, as the template has it.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// How many random steps a world has before its faults stop.
const STEPS: usize = 85;

/// A rule that is left out at the gate, as if the code under test lacked it. The worlds must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A claim is written even if another worker has the job.
    ClaimWithoutCondition,
    /// The end of a job is written even after the job has moved on.
    FinishWithoutCondition,
    /// A new job overwrites one of the same name.
    CreateWithoutCondition,
    /// Attempts are not counted when they begin.
    AttemptsUncounted,
    /// A second painting begins without a check for the picture of the first.
    NoLookBeforePaying,
    /// The late picture of a canceled job is kept.
    LatePictureKept,
    /// A job is accepted whose ticket was not sent.
    TicketNotSent,
    /// The ticket of a job that another worker holds is deleted.
    BusyTicketDeleted,
    /// Entries of a batch of messages that failed are not sent again.
    PartialFailureIgnored,
    /// An attempt counts although the model never began.
    EverySetbackCounts,
    /// All tickets of a delivery are deleted although the work on one has panicked.
    PanickedTicketDeleted,
    /// Consistent reads are made as eventually consistent ones.
    ReadsBehind,
    /// Keys that a batch of reads left out are not read again.
    UnprocessedKeysIgnored,
    /// A lease is shorter than its worker may work.
    LeaseTooShort,
    /// A job is canceled even after it has moved on.
    CancelWithoutCondition,
    /// A batch has as many jobs as the index shows.
    TotalFromIndex,
    /// The dead-letter function ignores a worker's lease.
    DeadLetterTakesAll,
    /// Records that have expired but are not deleted yet are shown.
    ExpiredShown,
    /// A transition of a job removes the attributes of a newer version.
    NewerAttributesDropped,
    /// A dead letter ends a job that was retried after its ticket was sent.
    DeadLetterIgnoresRetry,
    /// A lease has no margin for clocks that differ.
    LeaseWithoutMargin,
    /// A page of a list has as many jobs as were requested, however large they are.
    PageWithoutEnd,
    /// A problem repeats all of the request.
    FaultsToldWhole,
    /// The event of a job's end is queued before the end is written.
    EventBeforeEnd,
    /// A job's record says that its event was queued before it is.
    MarkBeforeEvent,
    /// The ticket of a job or a batch is deleted before its event is queued.
    TicketBeforeEvent,
    /// A job is retried whose last event was not queued.
    RetryTellsNothing,
}

impl Bug {
    /// All bugs.
    pub const ALL: &[Self] = &[
        Self::ClaimWithoutCondition,
        Self::FinishWithoutCondition,
        Self::CreateWithoutCondition,
        Self::AttemptsUncounted,
        Self::NoLookBeforePaying,
        Self::LatePictureKept,
        Self::TicketNotSent,
        Self::BusyTicketDeleted,
        Self::PartialFailureIgnored,
        Self::EverySetbackCounts,
        Self::PanickedTicketDeleted,
        Self::ReadsBehind,
        Self::UnprocessedKeysIgnored,
        Self::LeaseTooShort,
        Self::CancelWithoutCondition,
        Self::TotalFromIndex,
        Self::DeadLetterTakesAll,
        Self::ExpiredShown,
        Self::NewerAttributesDropped,
        Self::DeadLetterIgnoresRetry,
        Self::LeaseWithoutMargin,
        Self::PageWithoutEnd,
        Self::FaultsToldWhole,
        Self::EventBeforeEnd,
        Self::MarkBeforeEvent,
        Self::TicketBeforeEvent,
        Self::RetryTellsNothing,
    ];
}

/// What happened in the worlds, for the reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worlds.
    pub worlds: usize,
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Calls to AWS services.
    pub calls: usize,
    /// Pictures painted.
    pub pictures: usize,
    /// Events queued for webhooks.
    pub events: usize,
    /// The faults, by kind.
    pub faults: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Adds what happened to another world.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.jobs += other.jobs;
        self.calls += other.calls;
        self.pictures += other.pictures;
        self.events += other.events;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, jobs, calls, pictures, events, faults } = self;
        write!(f, "{worlds} worlds, {jobs} jobs, {calls} calls, {pictures} pictures, {events} events; faults: ")?;
        let faults: Vec<_> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        f.write_str(&faults.join(", "))
    }
}

/// A stack for many worlds. Worlds share its table and bucket, but nothing in them.
pub struct Universe {
    stack: Stack,
    clock: Clock,
    max_attempts: u32,
}

impl Universe {
    /// A universe whose clock moves only when a world advances it.
    pub async fn new() -> Self {
        Self::with_attempts(MAX_ATTEMPTS).await
    }

    /// The same, with this many paintings allowed for each job.
    pub async fn with_attempts(max_attempts: u32) -> Self {
        let clock = Clock::still(Timestamp::from_ms(1_795_500_000_000));
        let parameters = [("MaxAttempts", max_attempts.to_string()), ("PostersInFlight", "1".to_owned())];
        let options = Options {
            event_sources: false,
            clock: clock.clone(),
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Options::default()
        };
        Self { stack: Stack::start(options).await.expect("the stack starts"), clock, max_attempts }
    }

    /// Runs the world of a seed, with one rule left out or none.
    ///
    /// # Errors
    /// The violations, with the seed and the history.
    pub async fn world(&self, seed: u64, bug: Option<Bug>) -> Result<Tally, String> {
        outcome(seed, &self.happen(seed, bug).await)
    }

    /// Lets the world of a seed happen whose jobs come from files, with one rule left out or none.
    ///
    /// # Errors
    /// What happened that must not, each with the seed.
    pub async fn file_world(&self, seed: u64, bug: Option<FileBug>) -> Result<Tally, String> {
        outcome(seed, &World::with_files(self, seed, bug).await)
    }

    /// The history of the world of a seed, line by line.
    pub async fn history(&self, seed: u64) -> Vec<String> {
        let world = self.happen(seed, None).await;
        let scene = world.scene();
        scene.history.clone()
    }

    async fn happen(&self, seed: u64, bug: Option<Bug>) -> World<'_> {
        let mut world = World::new(self, seed, bug);
        if world.pick(40) == 0 {
            world.fill_lists().await;
        }
        world.disorder(STEPS).await;
        world.settle().await;
        world.check().await;
        if world.pick(6) == 0 {
            world.age().await;
            world.disorder(STEPS / 2).await;
            world.settle().await;
            world.check().await;
        }
        world
    }

    /// Stops the stack.
    pub async fn stop(self) {
        self.stack.stop().await;
    }
}

/// What happened in a world, or what happened that must not.
fn outcome(seed: u64, world: &World<'_>) -> Result<Tally, String> {
    let scene = world.scene();
    if scene.violations.is_empty() {
        Ok(Tally { worlds: 1, ..scene.tally.clone() })
    } else {
        Err(format!("seed {seed}: {}\n{}", scene.violations.join("; "), scene.history.join("\n")))
    }
}
