//! Jobs that the model refuses: whether they fail or wait, how long, and whether it counts as an attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::job::{ErrorCode, Status};
use tests::interceptor::{Action, Call};
use tests::pipeline::{Pipeline, ticket};

fn refusal(code: &str, message: &str) -> String {
    serde_json::json!({ "__type": code, "message": message }).to_string()
}

/// Bedrock answers these like bad requests, but the operator must fix them.
#[tokio::test]
async fn a_fault_of_the_operator_fails_no_job() {
    for (code, message, expected) in [
        ("ValidationException", "The provided model identifier is invalid.", ErrorCode::ModelNotFound),
        (
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn’t supported.",
            ErrorCode::ModelNotFound,
        ),
        ("ValidationException", "Operation not allowed", ErrorCode::ModelAccessDenied),
        (
            "ValidationException",
            "Your account is not authorized to invoke this API operation.",
            ErrorCode::ModelAccessDenied,
        ),
        ("NotAuthorized", "", ErrorCode::ModelAccessDenied),
        ("RequestExpired", "", ErrorCode::ModelAccessDenied),
        ("IncompleteSignature", "", ErrorCode::ModelAccessDenied),
    ] {
        let pipeline = Pipeline::without_event_sources().await;
        let body = refusal(code, message);
        let (_, apps) = pipeline.intercept(move |call| match call.is_to_model() {
            true => Action::Answer(400, body.clone()),
            false => Action::Pass,
        });
        let job = pipeline.submit("A heist on the moon").await;
        for receives in 1..=5 {
            let answer = worker::handle(&apps.worker, ticket(job.id, receives)).await.expect("the worker answers");
            assert_eq!(answer.batch_item_failures.len(), 1, "{code}: {message}: the ticket comes back");
        }
        let waits = pipeline.job(job.id).await;
        let last = waits.last_error.expect("it says why it waits");
        assert_eq!((waits.status, waits.attempts, last.code), (Status::Running, 0, expected), "{code}: {message}");
        assert!(last.message.contains("the operator must"), "{}", last.message);
        worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 6)).await.expect("the worker answers");
        assert_eq!(pipeline.job(job.id).await.status, Status::Succeeded);
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_request_is_blamed_only_once_the_model_has_answered_another() {
    // A prompt that the filter refuses is an answer of the model too.
    for (good, ends) in [("A heist on Mars", Status::Succeeded), ("nsfw", Status::Failed)] {
        let pipeline = Pipeline::without_event_sources().await;
        let (_, apps) = pipeline.intercept(|call| match call.is_to_model() && call.text().contains("moon") {
            true => Action::Answer(400, refusal("ValidationException", "Malformed input request")),
            false => Action::Pass,
        });
        let blamed = pipeline.submit("A heist on the moon").await.id;
        for receives in 1..=5 {
            worker::handle(&apps.worker, ticket(blamed, receives)).await.expect("the worker answers");
            let waits = pipeline.job(blamed).await;
            assert_eq!((waits.status, waits.attempts), (Status::Running, 0));
            assert_eq!(waits.last_error.expect("it says why it waits").code, ErrorCode::InvalidRequest);
        }
        let other = pipeline.submit(good).await.id;
        worker::handle(&apps.worker, ticket(other, 1)).await.expect("the worker answers");
        assert_eq!(pipeline.job(other).await.status, ends);
        worker::handle(&apps.worker, ticket(blamed, 6)).await.expect("the worker answers");
        let ended = pipeline.job(blamed).await;
        let error = ended.error.expect("it says why");
        assert_eq!((ended.status, error.code, ended.attempts), (Status::Failed, ErrorCode::InvalidRequest, 0));
        assert!(!error.billed && !error.retryable);
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_model_that_is_away_costs_no_attempt() {
    type Rule = fn() -> Action;
    let away: [Rule; 2] =
        [|| Action::Refuse, || Action::Answer(503, refusal("ServiceUnavailableException", "Too many connections"))];
    for away in away {
        let pipeline = Pipeline::without_event_sources().await;
        let (_, apps) = pipeline.intercept(move |call| if call.is_to_model() { away() } else { Action::Pass });
        let job = pipeline.submit("A heist on the moon").await.id;
        for receives in 1..=10 {
            worker::handle(&apps.worker, ticket(job, receives)).await.expect("the worker answers");
        }
        let waits = pipeline.job(job).await;
        assert_eq!((waits.status, waits.attempts), (Status::Running, 0));
        assert_eq!(waits.last_error.expect("it says why it waits").code, ErrorCode::ModelUnavailable);
        // If its deadline passed now, nothing could have been paid for it.
        pipeline.clock.advance(Duration::from_secs(25 * 3600));
        let ended = pipeline.job(job).await;
        let error = ended.error.expect("it says why");
        assert_eq!((error.code, error.billed), (ErrorCode::DeadlineExceeded, false));
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_failure_is_billed_if_any_of_its_attempts_may_have_been() {
    let pipeline = Pipeline::without_event_sources().await;
    let worker = &pipeline.stack.apps().worker;
    let job = pipeline.submit("A heist on the moon").await.id;
    for (receives, faults) in [(1, "error=1"), (2, "throttle=1"), (3, "filter=1")] {
        pipeline.model(faults);
        worker::handle(worker, ticket(job, receives)).await.expect("the worker answers");
    }
    let ended = pipeline.job(job).await;
    let error = ended.error.expect("it says why");
    assert_eq!((error.code, error.billed), (ErrorCode::ContentFiltered, true), "the first attempt may be on the bill");
    assert_eq!(ended.attempts, 1, "the filter refused before anything was painted");
    pipeline.stop().await;
}

/// The visibility timeouts, in seconds, that the worker sets.
fn hidden(call: &Call<'_>) -> Option<u64> {
    (call.operation == "ChangeMessageVisibility").then(|| call.json()["VisibilityTimeout"].as_u64()).flatten()
}

#[tokio::test]
async fn a_jobs_wait_follows_its_own_setbacks_and_not_the_receive_count() {
    let pipeline = Pipeline::without_event_sources().await;
    let waits = Arc::new(Mutex::new(Vec::new()));
    let seen = waits.clone();
    let (_, apps) = pipeline.intercept(move |call| {
        seen.lock().expect("no panic").extend(hidden(call));
        if call.is_to_model() { Action::Answer(503, refusal("ServiceUnavailableException", "")) } else { Action::Pass }
    });
    // A ticket that was received a hundred times waits no longer than a new one.
    let mut longest = [0; 12];
    for _ in 0..10 {
        let job = pipeline.submit("A heist on the moon").await.id;
        for longest in &mut longest {
            worker::handle(&apps.worker, ticket(job, 100)).await.expect("the worker answers");
            let wait = waits.lock().expect("no panic").pop().expect("the ticket is hidden");
            *longest = wait.max(*longest);
        }
        pipeline.post(&format!("/jobs/{job}/cancel"), &serde_json::Value::Null).await;
    }
    assert!(longest[0] <= 2 && longest[1] <= 4 && longest[2] <= 8, "{longest:?}");
    assert!(longest.iter().all(|&wait| wait <= 900) && longest[9..].iter().any(|&wait| wait > 300), "{longest:?}");
    pipeline.stop().await;
}
