//! The template's numbers against each other, and its variables against what the functions read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use local::template::{Deployment, Surroundings, TEMPLATE};
use shared::Clock;
use tests::pipeline::Pipeline;

fn deployment() -> Deployment {
    let sqs = "http://127.0.0.1:9".to_owned();
    let surroundings = Surroundings { region: "us-west-2".to_owned(), sqs, parameters: BTreeMap::new() };
    Deployment::read(TEMPLATE, &surroundings).expect("the template is understood")
}

#[test]
fn a_message_stays_hidden_for_six_times_its_functions_timeout() {
    let deployment = deployment();
    let mut sources = 0;
    for (name, function) in &deployment.functions {
        for source in &function.sources {
            let queue = deployment.queue_by_arn(&source.queue).expect("the queue is declared");
            let visibility: u64 = queue.attributes["VisibilityTimeout"].parse().expect("a number");
            assert!(visibility >= 6 * function.timeout, "{name}: {visibility} s for {} s", function.timeout);
            sources += 1;
        }
    }
    assert_eq!(sources, 2);
}

#[test]
fn the_worker_has_half_a_minute_beyond_its_slowest_model() {
    let longest = |seconds: u64| {
        let parameters = BTreeMap::from([("ModelTimeoutSeconds".to_owned(), seconds.to_string())]);
        let surroundings = Surroundings { region: "r".to_owned(), sqs: "http://q".to_owned(), parameters };
        Deployment::read(TEMPLATE, &surroundings)
    };
    let timeout = deployment().functions["worker"].timeout;
    assert!(longest(timeout - 30).is_ok(), "the model may take all but half a minute of the worker's time");
    assert!(longest(timeout - 29).is_err(), "and no second more");
}

#[tokio::test]
async fn each_function_reads_just_the_variables_that_it_is_given() {
    let pipeline = Pipeline::without_event_sources().await;
    let (aws, deployment) = (pipeline.stack.aws(), pipeline.stack.deployment());
    for (name, function) in &deployment.functions {
        let read = RefCell::new(BTreeSet::new());
        let lookup = |variable: &str| {
            read.borrow_mut().insert(variable.to_owned());
            function.environment.get(variable).cloned()
        };
        let clock = Clock::system();
        let built = match name.as_str() {
            "submit" => submit::App::new(aws, clock, &lookup).map(drop),
            "worker" => worker::App::new(aws, clock, &lookup).map(drop),
            "status" => status::App::new(aws, clock, &lookup).map(drop),
            "dead_letter" => dead_letter::App::new(aws, clock, &lookup).map(drop),
            other => panic!("{other} is a function that this test does not know"),
        };
        built.expect("the template sets what the function needs");
        let given: BTreeSet<_> = function.environment.keys().cloned().collect();
        assert_eq!(read.into_inner(), given, "{name}");
    }
    pipeline.stop().await;
}
