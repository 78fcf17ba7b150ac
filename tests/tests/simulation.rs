//! Small simulated worlds in which everything fails that can fail, and the planted bugs that they must notice.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;
use tests::simulation::{Ailment, Bug, FileBug, Tally, Universe};

/// How many worlds each run of the tests has. `POSTER_WORLDS` sets another number or a range of seeds, such as
/// `1000..2000`. `POSTER_SEED` runs the one world of that seed, which repeats a failure.
const WORLDS: u64 = 200;

/// The number of worlds within which each planted bug must be noticed.
const PATIENCE: u64 = 200;

/// A world that notices the bug, for each bug that few worlds notice. The search for all bugs begins with it, and so is
/// short. A change of the functions changes the worlds. The search then goes on with the first world, finds another one, and
/// prints it.
const WITNESSES: &[(Bug, u64)] = &[
    (Bug::NoLookBeforePaying, 32),
    (Bug::BusyTicketDeleted, 19),
    (Bug::PartialFailureIgnored, 23),
    (Bug::ReadsBehind, 31),
    (Bug::PanickedTicketDeleted, 64),
    (Bug::ExpiredShown, 16),
    (Bug::DeadLetterIgnoresRetry, 26),
    (Bug::DeadLetterTakesAll, 85),
    (Bug::PageWithoutEnd, 52),
    (Bug::LeaseWithoutMargin, 100),
    (Bug::FaultsToldWhole, 53),
    (Bug::TicketBeforeEvent, 29),
    (Bug::RetryTellsNothing, 27),
];

/// The number of worlds of files in each run of the tests, unless `POSTER_WORLDS` or `POSTER_SEED` says otherwise.
const FILE_WORLDS: u64 = 60;

/// How many universes run in parallel, each on a thread of its own.
const UNIVERSES: u64 = 2;

fn seeds(worlds: u64) -> Range<u64> {
    let number = |text: &str| text.parse().expect("a number");
    if let Ok(seed) = std::env::var("POSTER_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("POSTER_WORLDS") {
        Err(_) => 0..worlds,
        Ok(worlds) => match worlds.split_once("..") {
            None => 0..number(&worlds),
            Some((from, to)) => number(from)..number(to),
        },
    }
}

/// Runs `work` with a universe of its own on a thread of its own.
fn in_universe<T: Send>(work: impl AsyncFnOnce(&Universe) -> T + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let universe = Universe::new().await;
        let result = work(&universe).await;
        universe.stop().await;
        result
    })
}

/// Where the jobs of worlds come from.
#[derive(Clone, Copy)]
enum Jobs {
    FromRequests,
    FromFiles,
}

/// Runs the worlds of these seeds. Returns what happened to them, and the violations.
async fn worlds(universe: &Universe, seeds: impl Iterator<Item = u64>, jobs: Jobs) -> (Tally, Vec<String>) {
    let (mut tally, mut violations) = (Tally::default(), Vec::new());
    for seed in seeds {
        let world = match jobs {
            Jobs::FromRequests => universe.world(seed, None).await,
            Jobs::FromFiles => universe.file_world(seed, None).await,
        };
        match world {
            Ok(world) => tally.add(&world),
            Err(happened) => {
                // With thousands of worlds, the first violation is printed before the last world ends.
                eprintln!("{}", happened.lines().next().unwrap_or_default());
                violations.push(happened);
            }
        }
    }
    (tally, violations)
}

/// Runs the worlds of these seeds in all universes. Returns what happened to them.
fn all_worlds(seeds: &Range<u64>, jobs: Jobs) -> Tally {
    let (mut tally, mut violations) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let part = |part: u64| seeds.clone().filter(move |seed| seed % UNIVERSES == part);
        let start =
            |number| scope.spawn(move || in_universe(async |universe| worlds(universe, part(number), jobs).await));
        let started: Vec<_> = (0..UNIVERSES).map(start).collect();
        for universe in started {
            let (part, happened) = universe.join().expect("a universe does not panic");
            tally.add(&part);
            violations.extend(happened);
        }
    });
    if let Some(first) = violations.first() {
        let seeds: Vec<_> = violations.iter().filter_map(|violation| violation.lines().next()).collect();
        panic!("{first}\n{} worlds broke a rule:\n{}", seeds.len(), seeds.join("\n"));
    }
    tally
}

#[test]
fn no_disorder_loses_a_job_or_pays_for_it_twice_without_a_reason() {
    let tally = all_worlds(&seeds(WORLDS), Jobs::FromRequests);
    assert!(tally.worlds < 100 || tally.faults.len() >= 35, "every kind of fault has happened: {:?}", tally.faults);
    eprintln!("simulation: {tally}, lost = 0");
}

#[test]
fn no_disorder_loses_a_line_of_a_file() {
    let tally = all_worlds(&seeds(FILE_WORLDS), Jobs::FromFiles);
    assert!(tally.worlds < 60 || tally.jobs > tally.worlds, "few jobs were accepted: {tally}");
    eprintln!("simulation of files: {tally}, lost = 0");
}

#[test]
fn every_rule_about_files_that_is_left_out_is_missed() {
    let unnoticed = in_universe(async |universe| {
        let mut unnoticed = Vec::new();
        for &bug in FileBug::ALL.iter().filter(|bug| is_asked_for(*bug)) {
            let world = async |seed| universe.file_world(seed, Some(bug)).await;
            if !is_noticed(bug, 0..FILE_WORLDS, world).await {
                unnoticed.push(bug);
            }
        }
        unnoticed
    });
    assert!(unnoticed.is_empty(), "not noticed in {FILE_WORLDS} worlds: {unnoticed:?}");
}

#[test]
fn six_hours_without_the_model_lose_no_job_and_paint_each_once() {
    // The full form has 1000 jobs: `cargo run -p tests --bin soak -- --outage 6h --jobs 1000`.
    let lasts = Duration::from_secs(6 * 3600);
    let outage = in_universe(async |universe| universe.outage(20, Ailment::Throttled, lasts).await);
    assert!(outage.is_good() && outage.jobs == 20, "{outage}");
    assert!(outage.refusals > 20 * 20, "the jobs were tried again and again: {outage}");
}

/// The template allows three attempts by default.
#[test]
fn ten_minutes_of_any_ailment_of_the_model_fail_no_job_and_cost_no_second_picture() {
    // The full form has 1000 jobs: `cargo run -p tests --bin soak -- --outage 10m --ailment unavailable --jobs 1000`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let universe = Universe::with_attempts(3).await;
        for &ailment in Ailment::value_variants() {
            let outage = universe.outage(10, ailment, Duration::from_secs(600)).await;
            assert!(outage.is_good() && outage.jobs == 10, "{outage}");
            assert!(outage.refusals > 10, "each job met it, and some more than once: {outage}");
        }
        universe.stop().await;
    });
}

#[test]
fn a_seed_always_makes_the_same_history() {
    let once = || in_universe(async |universe| universe.history(127).await);
    assert_eq!(once(), once());
}

/// The name of the only planted bug to search for; `None` for all.
fn asked_for() -> Option<String> {
    std::env::var("POSTER_BUG").ok()
}

fn is_asked_for(bug: &impl Debug) -> bool {
    asked_for().is_none_or(|name| name == format!("{bug:?}"))
}

/// Runs the worlds of these seeds with a planted bug until one of them notices it. Returns whether one did.
async fn is_noticed(
    bug: impl Debug,
    seeds: impl IntoIterator<Item = u64>,
    world: impl AsyncFn(u64) -> Result<Tally, String>,
) -> bool {
    for seed in seeds {
        if let Err(violations) = world(seed).await {
            let violation = violations.lines().next().unwrap_or_default();
            eprintln!("simulation: {bug:?} is noticed in the world of {violation:.200}");
            return true;
        }
    }
    false
}

#[test]
fn every_rule_that_is_left_out_is_noticed() {
    let search = async |universe: &Universe, bug| {
        let witness = WITNESSES.iter().find(|(of, _)| *of == bug && asked_for().is_none());
        let seeds = witness.map(|&(_, seed)| seed).into_iter().chain(0..PATIENCE);
        is_noticed(bug, seeds, async |seed| universe.world(seed, Some(bug)).await).await
    };
    // Some bugs take many more worlds than others, so each universe takes the next bug when it is done with one.
    let bugs = Mutex::new(Bug::ALL.iter().filter(|bug| is_asked_for(*bug)));
    let next = || bugs.lock().expect("no one panicked").next();
    let part = || {
        in_universe(async |universe| {
            let mut unnoticed = Vec::new();
            while let Some(&bug) = next() {
                if !search(universe, bug).await {
                    unnoticed.push(bug);
                }
            }
            unnoticed
        })
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..UNIVERSES).map(|_| scope.spawn(part)).collect();
        let unnoticed: Vec<_> =
            started.into_iter().flat_map(|universe| universe.join().expect("a universe does not panic")).collect();
        assert!(unnoticed.is_empty(), "not noticed in {PATIENCE} worlds: {unnoticed:?}");
    });
}
