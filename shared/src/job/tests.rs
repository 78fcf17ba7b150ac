//! The state machine under arbitrary interleavings of workers that may stall, lose their lease and come back.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::image::{ImageFacts, SignedUrl};
use crate::order::{Model, OutputFormat};

const MAX_ATTEMPTS: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(1_000);

fn job() -> Job {
    let order = Order::parse(json!({ "prompt": "A heist on the moon" }), "", Model::Core).expect("a good order");
    let owner = Owner::new("alice");
    Job::new(
        JobId::new(),
        owner,
        order,
        Timestamp::from_ms(0),
        Terms { deadline: DEADLINE, retention: Duration::from_secs(5_000) },
    )
}

fn image() -> Image {
    Image {
        facts: ImageFacts {
            format: OutputFormat::Png,
            bytes: 1,
            width: 832,
            height: 1216,
            seed: Some(1),
            lettering: None,
        },
        url: SignedUrl { url: "https://example.com".to_owned(), expires_at: Timestamp::from_ms(1) },
        artwork: None,
        thumbnail: None,
    }
}

fn last_error(code: ErrorCode, at: Timestamp) -> LastError {
    LastError { code, message: "It was busy.".to_owned(), at }
}

/// What a caller or a worker may try to do with a job.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// The clock is set back.
    SetBack(u64),
    /// Worker `w` reads the record and tries to claim it.
    Claim(usize),
    /// Worker `w` acts on what it believes to hold, which may be long lost.
    Succeed(usize),
    Fail(usize),
    Throttled(usize),
    Crash(usize),
    GiveUp,
    Adopt,
    /// The worker that holds the job is believed to be dead, rightly or not.
    Abandon,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0..3_usize;
    let step = prop_oneof![
        3 => (1..200_u64).prop_map(Step::Wait),
        1 => (1..4_000_u64).prop_map(Step::SetBack),
        4 => worker.clone().prop_map(Step::Claim),
        1 => worker.clone().prop_map(Step::Succeed),
        1 => worker.clone().prop_map(Step::Fail),
        2 => worker.clone().prop_map(Step::Throttled),
        1 => worker.prop_map(Step::Crash),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Adopt),
        1 => Just(Step::Abandon),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn a_job_ends_once_and_its_fence_refuses_whoever_lost_it(steps in steps()) {
        let mut now = Timestamp::from_ms(0);
        let mut stored = job();
        let mut workers: [Option<Claimed>; 3] = [None, None, None];
        let mut begun = 0;

        for step in steps {
            let believed = |w: usize, workers: &mut [Option<Claimed>; 3]| workers[w].take();
            let next = match step.clone() {
                Step::Wait(secs) => {
                    now = now + Duration::from_secs(secs);
                    None
                }
                Step::SetBack(secs) => {
                    now = Timestamp::from_ms(0).max(now - Duration::from_secs(secs));
                    None
                }
                Step::Claim(w) => {
                    let lease = Lease::new(now + Duration::from_secs(90));
                    let claimed = stored.claim(lease, MAX_ATTEMPTS, now);
                    if let Ok(claimed) = &claimed {
                        workers[w] = Some(claimed.clone());
                        begun += 1;
                    }
                    claimed.ok().map(|claimed| claimed.0)
                }
                Step::Succeed(w) => believed(w, &mut workers).map(|claimed| claimed.succeed(image(), now)),
                Step::Fail(w) => believed(w, &mut workers)
                    .map(|claimed| claimed.fail(ErrorCode::ContentFiltered, "No.".to_owned(), Attempt::NeverBegan, now)),
                Step::Throttled(w) => believed(w, &mut workers)
                    .map(|claimed| claimed.release(last_error(ErrorCode::Throttled, now), Attempt::NeverBegan)),
                Step::Crash(w) => {
                    workers[w] = None;
                    None
                }
                Step::GiveUp => stored.give_up(ErrorCode::AttemptsExhausted, now),
                Step::Adopt => stored.adopt(image(), now),
                Step::Abandon => stored.abandon(now),
            };
            let Some(next) = next else { continue };
            // This is the one condition that the store checks.
            if next.fence != stored.fence + 1 {
                continue;
            }
            if next.setbacks > stored.setbacks {
                begun -= 1;
            }
            prop_assert!(stored.finished_at().is_none(), "{:?} was left for {:?}", stored.status(), next.status());
            prop_assert!(next.status() >= stored.status(), "a caller saw the job go backwards");
            prop_assert!(next.attempts <= MAX_ATTEMPTS);
            prop_assert_eq!(next.attempts, begun, "every painting that may have begun is counted");
            if let JobState::Failed { error, .. } = &next.state {
                prop_assert_eq!(error.billed, begun > 0, "it says whether one was");
            }
            prop_assert_eq!((next.id, &next.order, next.created_at), (stored.id, &stored.order, stored.created_at));
            let free = matches!(step, Step::Throttled(_) | Step::Abandon);
            if free {
                let sooner = Timestamp::from_ms(0).max(now - Duration::from_secs(3_600));
                let again = next.claim(Lease::new(now), MAX_ATTEMPTS, sooner);
                prop_assert!(!matches!(again, Err(ClaimRefused::Leased(_))), "a clock set back has revived a lease");
            }
            stored = next;
        }
    }

    #[test]
    fn two_workers_never_hold_the_same_job(at in 0..2_000_u64, held in 1..500_u64) {
        let start = Timestamp::from_ms(0);
        let claimed = job().claim(Lease::new(start + Duration::from_secs(held)), MAX_ATTEMPTS, start);
        let claimed = claimed.expect("a fresh job can be claimed");
        let now = start + Duration::from_secs(at);
        let second = claimed.claim(Lease::new(now + Duration::from_secs(90)), MAX_ATTEMPTS, now);
        prop_assert_eq!(second.is_ok(), at >= held && at < DEADLINE.as_secs());
    }
}

#[test]
fn a_claim_is_refused_for_the_right_reason() {
    let start = Timestamp::from_ms(0);
    let lease = |from: Timestamp| Lease::new(from + Duration::from_secs(90));
    let claimed = job().claim(lease(start), 1, start).expect("a fresh job can be claimed");
    let until = start + Duration::from_secs(90);
    assert_eq!(claimed.claim(lease(start), 1, start), Err(ClaimRefused::Leased(until)));
    assert_eq!(claimed.claim(lease(until), 1, until), Err(ClaimRefused::AttemptsExhausted));
    let late = start + DEADLINE;
    assert_eq!(claimed.claim(lease(late), 1, late), Err(ClaimRefused::DeadlinePassed));
    let ended = claimed.succeed(image(), until);
    assert_eq!(ended.claim(lease(until), 1, until), Err(ClaimRefused::Ended));
    assert_eq!(ended.give_up(ErrorCode::AttemptsExhausted, until), None);
    assert_eq!(ended.adopt(image(), until), None);
}

#[test]
fn a_job_says_how_long_its_worker_may_be_at_it() {
    let start = Timestamp::from_ms(0);
    let (later, until) = (start + Duration::from_secs(1), start + Duration::from_secs(90));
    let claimed = job().claim(Lease::new(until), MAX_ATTEMPTS, start).expect("a fresh job can be claimed");
    assert_eq!((job().held_until, claimed.held_until), (None, Some(until)));
    // The worker of a canceled job learns of that only when it comes to record its picture.
    assert_eq!(claimed.cancel(later).map(|canceled| canceled.held_until), Ok(Some(until)));
    let ended = [
        claimed.abandon(later).expect("its lease lives"),
        claimed.clone().succeed(image(), later),
        claimed.clone().fail(ErrorCode::ContentFiltered, "No.".to_owned(), Attempt::NeverBegan, later),
        claimed.release(last_error(ErrorCode::Throttled, later), Attempt::NeverBegan),
    ];
    for job in ended {
        assert_eq!(job.held_until, None, "{:?}", job.state);
    }
}

#[test]
fn a_retried_job_is_like_a_new_one_but_for_its_name_its_age_and_its_version() {
    let (start, retention) = (Timestamp::from_ms(0), Duration::from_secs(5_000));
    let claimed = job().claim(Lease::new(start + Duration::from_secs(90)), 2, start).expect("a fresh job");
    let released = claimed.release(last_error(ErrorCode::Throttled, start), Attempt::NeverBegan);
    let now = start + DEADLINE;
    let failed = released.give_up(ErrorCode::DeadlineExceeded, now).expect("nobody works on it");
    let retried = failed.retry(None, now, Terms { deadline: DEADLINE, retention }).expect("it failed");
    let new =
        Job::new(failed.id, failed.owner.clone(), failed.order.clone(), now, Terms { deadline: DEADLINE, retention });
    assert_eq!(retried, Job { created_at: start, fence: failed.fence + 1, ..new });
}

#[test]
fn only_a_model_that_is_too_busy_throttles() {
    let start = Timestamp::from_ms(0);
    for &code in ErrorCode::ALL {
        let claimed = job().claim(Lease::new(start + Duration::from_secs(90)), 2, start).expect("a fresh job");
        let released = claimed.release(last_error(code, start), Attempt::NeverBegan);
        assert_eq!(released.throttles, u32::from(code == ErrorCode::Throttled), "{code}");
    }
}

#[test]
fn only_what_the_order_itself_is_to_blame_for_is_not_worth_a_retry() {
    let hopeless: Vec<_> = ErrorCode::ALL.iter().copied().filter(|code| !code.may_pass()).collect();
    assert_eq!(hopeless, [ErrorCode::ContentFiltered, ErrorCode::InvalidRequest]);
}

#[test]
fn an_abandoned_job_is_free_at_once_and_its_attempt_still_counts() {
    let start = Timestamp::from_ms(0);
    let later = start + Duration::from_secs(1);
    assert_eq!(job().abandon(later), None);
    let claimed = job().claim(Lease::new(start + Duration::from_secs(90)), 2, start).expect("a fresh job");
    let abandoned = claimed.abandon(later).expect("its lease lives");
    assert_eq!((abandoned.status(), abandoned.attempts), (Status::Running, 1));
    assert_eq!(abandoned.abandon(later), None);
    let again = abandoned.claim(Lease::new(later + Duration::from_secs(90)), 2, later).expect("nobody holds it");
    assert_eq!(again.attempts, 2);
    assert_eq!(claimed.succeed(image(), later).fence, abandoned.fence, "the dead worker's write is refused");
}

#[test]
fn a_live_lease_protects_from_being_given_up() {
    let start = Timestamp::from_ms(0);
    let now = start + DEADLINE - Duration::from_secs(1);
    let claimed = job().claim(Lease::new(now + Duration::from_secs(90)), 1, now).expect("the deadline is not over yet");
    assert!(!claimed.is_overdue(start + DEADLINE));
    assert_eq!(claimed.give_up(ErrorCode::DeadlineExceeded, start + DEADLINE), None);
    let later = now + Duration::from_secs(90);
    assert!(claimed.is_overdue(later));
    let failed = claimed.give_up(ErrorCode::DeadlineExceeded, later).expect("the lease is over");
    assert!(matches!(failed.state, JobState::Failed { error: JobError { billed: true, retryable: true, .. }, .. }));
}

fn key(name: &str) -> IdempotencyKey {
    name.parse().expect("a good key")
}

#[test]
fn a_retry_remembers_the_last_keys_whatever_came_between() {
    let terms = Terms { deadline: DEADLINE, retention: Duration::from_secs(5_000) };
    let now = Timestamp::from_ms(10);
    let retry = |job: &Job, name: Option<&str>| {
        let canceled = job.cancel(now).expect("it has not ended");
        canceled.retry(name.map(key).as_ref(), now, terms).expect("it is canceled")
    };
    let mut retried = retry(&retry(&job(), Some("first")), None);
    // A job that waits only remembers the key.
    let told = retried.retry(Some(&key("told")), now, terms).expect("it waits");
    assert_eq!((told.fence, told.queued_at), (retried.fence + 1, retried.queued_at));
    retried = told;
    for number in 2..RetryKeys::MOST {
        retried = retry(&retried, Some(&number.to_string()));
    }
    for name in ["first", "told", "2", "15"] {
        assert!(retried.retry_keys.contain(&key(name)), "{name}");
    }
    let more = retry(&retried, Some("one-more"));
    assert!(!more.retry_keys.contain(&key("first")) && more.retry_keys.contain(&key("told")));
}

#[test]
fn the_files_of_each_life_have_keys_of_their_own() {
    let start = Timestamp::from_ms(0);
    let retry = |job: &Job, now| {
        let canceled = job.cancel(now).expect("it has not ended");
        canceled
            .retry(None, now, Terms { deadline: DEADLINE, retention: Duration::from_secs(5_000) })
            .expect("it is canceled")
    };
    // Nothing was painted, so nothing can be left behind. The clock stands still, or is set back.
    let second = retry(&job(), start);
    assert_eq!((second.former_until, second.queued_at), (None, Timestamp::from_ms(1)));
    let until = start + Duration::from_secs(90);
    let painted = second.claim(Lease::new(until), MAX_ATTEMPTS, start).expect("it waits");
    let third = retry(&painted, start);
    assert_eq!((third.former_until, third.held_until), (Some(until), None));
    assert!(third.queued_at > painted.queued_at);
    // A life in which nothing was painted forgets nothing of the one before.
    let fourth = retry(&third, start);
    assert_eq!(fourth.former_until, Some(until));
    for &variant in Variant::ALL {
        for earlier in [&second, &third] {
            assert!(fourth.is_earlier_file(&earlier.image_key(variant)));
            assert!(!earlier.is_earlier_file(&fourth.image_key(variant)));
        }
        assert!(!fourth.is_earlier_file(&fourth.image_key(variant)));
        assert!(!fourth.is_earlier_file(&job().image_key(variant)), "that is another job's");
    }
    assert!(!fourth.is_earlier_file("images/probe"));
}

#[test]
fn a_released_job_is_free_whatever_the_clock_says_later() {
    let now = Timestamp::from_ms(1_795_000_000_000);
    let hour = Duration::from_secs(3_600);
    let lease = |from: Timestamp| Lease::new(from + Duration::from_secs(90));
    let order = Order::parse(json!({ "prompt": "A heist on the moon" }), "", Model::Core).expect("a good order");
    let job =
        Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: 24 * hour, retention: 48 * hour });
    let claim = || job.claim(lease(now), MAX_ATTEMPTS, now).expect("a fresh job can be claimed");
    let released = claim().release(last_error(ErrorCode::Throttled, now), Attempt::NeverBegan);
    for free in [released, claim().abandon(now).expect("its lease lives")] {
        let sooner = now - hour;
        free.claim(lease(sooner), MAX_ATTEMPTS, sooner).expect("nobody holds it");
        assert!(free.adopt(image(), sooner).is_some(), "nobody holds it");
        assert_eq!(free.abandon(sooner), None, "there is no lease to end");
    }
}
