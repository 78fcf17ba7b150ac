//! Thousands of small worlds in which everything goes wrong that can.

use tests::simulation::{Bug, Tally, Universe};

/// How many worlds happen in each run of the tests; `POSTER_WORLDS` asks for another number, and `POSTER_SEED` for the one
/// world of that seed, with which a failure is found again.
const WORLDS: u64 = 2_000;

/// Within how many worlds each planted bug must be noticed.
const PATIENCE: u64 = 150;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    number("POSTER_SEED").map_or(0..number("POSTER_WORLDS").unwrap_or(WORLDS), |seed| seed..seed + 1)
}

#[tokio::test]
async fn no_disorder_loses_a_job_or_pays_for_it_twice_without_a_reason() {
    let universe = Universe::new().await;
    let mut tally = Tally::default();
    for seed in seeds() {
        match universe.world(seed, None).await {
            Ok(world) => tally.add(&world),
            Err(violations) => panic!("{violations}"),
        }
    }
    universe.stop().await;
    assert!(tally.worlds < 100 || tally.faults.len() >= 10, "every kind of fault has happened: {:?}", tally.faults);
    eprintln!("simulation: {tally:?}, lost = 0");
}

#[tokio::test]
async fn every_rule_that_is_left_out_is_missed() {
    let universe = Universe::new().await;
    for &bug in Bug::ALL {
        let mut noticed = None;
        for seed in 0..PATIENCE {
            if let Err(violations) = universe.world(seed, Some(bug)).await {
                noticed = Some((seed, violations));
                break;
            }
        }
        let (seed, violations) = noticed.unwrap_or_else(|| panic!("{bug:?} was not noticed in {PATIENCE} worlds"));
        eprintln!("simulation: {bug:?} is noticed after {} worlds: {violations:.160}", seed + 1);
    }
    universe.stop().await;
}
