//! The functions' own binaries, started as Lambda starts them, with events as AWS sends them.

use std::collections::BTreeMap;
use std::process::Stdio;

use bench::events::{messages, request};
use bench::runtime_api::Function;
use serde_json::{Value, json};
use shared::JobId;
use shared::delivery::{DeliveryId, TryErrorCode};
use shared::job::Status;
use shared::ticket::{Message as _, Ticket};
use tests::pipeline::Pipeline;
use tests::receiver::{Receiver, Reply};
use tests::runtime_api::{command, invoke};

/// The function's environment: the template's variables, credentials, and the URLs of the services.
pub(crate) fn variables(pipeline: &Pipeline, function: &str) -> BTreeMap<String, String> {
    let ready = pipeline.ready();
    let mut variables = pipeline.stack.deployment().functions[function].environment.clone();
    for (name, value) in [
        ("AWS_REGION", &ready.region),
        ("AWS_ACCESS_KEY_ID", &ready.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &ready.secret_access_key),
        ("AWS_ENDPOINT_URL_DYNAMODB", &ready.dynamodb),
        ("AWS_ENDPOINT_URL_SQS", &ready.sqs),
        ("AWS_ENDPOINT_URL_S3", &ready.s3),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", &ready.bedrock),
    ] {
        variables.insert(name.to_owned(), value.clone());
    }
    variables
}

async fn answer(pipeline: &Pipeline, function: &str, event: &Value) -> Value {
    invoke(function, &variables(pipeline, function), event).await.answer
}

#[tokio::test]
async fn the_deployed_binaries_turn_a_prompt_into_a_picture() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = request("POST", "/jobs", None, &[], Some(r#"{"prompt":"A heist on the moon"}"#));
    let submitted = answer(&pipeline, "submit", &post).await;
    assert_eq!(submitted["statusCode"], 202, "{submitted}");
    let job: Value = serde_json::from_str(submitted["body"].as_str().expect("a body")).expect("a job");
    let id: JobId = job["id"].as_str().expect("an id").parse().expect("an id");
    let address = format!("https://abc123.execute-api.us-west-2.amazonaws.com/v1/jobs/{id}");
    assert_eq!(submitted["headers"]["location"], address.as_str());

    let ticket = Ticket { job: id, queued_at: None, trace: None }.to_body();
    let worked = answer(&pipeline, "worker", &messages(&[ticket.as_str(), "no ticket"])).await;
    assert_eq!(worked, json!({ "batchItemFailures": [] }));
    assert_eq!(pipeline.messages(&pipeline.ready().parked_queue_url).await, 1);

    let get = request("GET", "/jobs/{id}", Some(&id.to_string()), &[], None);
    let told = answer(&pipeline, "status", &get).await;
    assert_eq!(told["statusCode"], 200, "{told}");
    let job: shared::api::JobView = serde_json::from_str(told["body"].as_str().expect("a body")).expect("a job");
    assert_eq!(job.status, Status::Succeeded);
    let picture = pipeline.http.get(job.image.expect("a picture").url).send().await.expect("S3 answers");
    assert!(picture.status().is_success());

    let buried = answer(&pipeline, "dead_letter", &messages(&[&ticket])).await;
    assert_eq!(buried, json!({ "batchItemFailures": [] }));
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    // The local API has another owner than the key that submitted the job, and so does not show it.
    assert_eq!(pipeline.get(&format!("/jobs/{id}")).await.status().as_u16(), 404);
    pipeline.stop().await;
}

#[tokio::test]
async fn the_deployed_webhook_function_does_not_call_lambda_itself() {
    let pipeline = Pipeline::without_event_sources().await;
    let id: DeliveryId = format!("job_{}_1", JobId::new()).parse().expect("an id");
    let event = json!({
        "v": 1, "id": id.to_string(), "owner": "alice", "url": "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
        "type": "job.failed", "at": pipeline.clock.now().ms(), "round": 0, "payload": "{}",
    });
    let event = event.to_string();
    let told = answer(&pipeline, "webhook", &messages(&[event.as_str(), "no event"])).await;
    assert_eq!(told["batchItemFailures"].as_array().map(Vec::len), Some(1), "{told}");
    let log = pipeline.ready().deliveries_table.clone().expect("it sends webhooks");
    let delivery = pipeline.stack.aws().delivery_log(log).get(id).await.expect("it answers").expect("a record");
    let error = delivery.tries[0].error.as_ref().expect("an error");
    assert_eq!(error.code, TryErrorCode::AddressForbidden);
    assert_eq!(pipeline.messages(&pipeline.ready().parked_queue_url).await, 1);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_function_with_missing_settings_does_not_start_and_names_them_all() {
    for (function, settings) in [
        ("submit", &["TABLE_NAME", "QUEUE_URL", "OWNER_FROM"][..]),
        ("worker", &["BEDROCK_REGION", "MAX_ATTEMPTS"]),
        ("status", &["TABLE_NAME", "IMAGE_BUCKET", "OWNER_FROM"]),
        ("dead_letter", &["DEAD_LETTER_QUEUE_URL", "PARKED_QUEUE_URL"]),
        ("batch", &["BATCH_QUEUE_URL", "QUEUE_URL", "IMAGE_BUCKET"]),
        ("webhook", &["WEBHOOK_QUEUE_URL", "DELIVERIES_TABLE_NAME", "WEBHOOK_SECRET"]),
    ] {
        let mut command = command(function);
        command.env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").env("AWS_REGION", "us-west-2");
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.expect("the binary runs");
        assert!(!output.status.success(), "{function} started");
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for setting in settings {
            assert!(told.contains(&format!("{setting} is not set")), "{function}: {told}");
        }
    }
}

#[tokio::test]
async fn a_function_with_an_unknown_source_of_owners_does_not_start() {
    for function in ["submit", "status"] {
        let mut command = command(function);
        command
            .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
            .env("AWS_REGION", "us-west-2")
            .env("OWNER_FROM", "Everyone");
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.expect("the binary runs");
        assert!(!output.status.success(), "{function} started");
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("Everyone") && told.contains("Claim:sub"), "{function}: {told}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_most_demanding_bodies_fit_in_the_functions_memory() {
    let pipeline = Pipeline::without_event_sources().await;
    let variables = variables(&pipeline, "submit");
    let fields = (0..300_000).map(|i| format!(r#","a{i}":1"#)).collect::<String>();
    for body in [
        format!(r#"{{"prompt":"x"{fields}}}"#),
        format!(r#"{{"prompt":"x","list":[{}1]}}"#, "1,".repeat(2_700_000)),
        format!(r#"{{"prompt":"x","list":[{}1]}}"#, r#"{"a":""},"#.repeat(49_000)),
        format!(r#"{{"prompt":"x","{}":1}}"#, "n".repeat(5_400_000)),
    ] {
        let run = invoke("submit", &variables, &request("POST", "/jobs", None, &[], Some(&body))).await;
        assert_eq!(run.answer["statusCode"], 400, "{body:.80}");
        let peak = run.peak.expect("Linux says the memory of a process");
        assert!(peak < 128 << 20, "{} MiB for {body:.80}", peak >> 20);
    }
    pipeline.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn many_deliveries_leave_the_memory_of_the_function_as_it_is() {
    const INVOCATIONS: u64 = 60;
    let pipeline = Pipeline::without_event_sources().await;
    let receiver = Receiver::start(Reply::status(204)).await;
    let mut variables = variables(&pipeline, "webhook");
    variables.insert("WEBHOOKS".to_owned(), "loopback".to_owned());
    let mut command = command("webhook");
    let function = Function::start(command.envs(&variables).stdout(Stdio::null())).await;
    let mut function = function.expect("the function starts");
    let mut peaks = Vec::new();
    for _ in 0..INVOCATIONS {
        let bodies: Vec<_> = (0..10)
            .map(|_| {
                let event = json!({
                    "v": 1, "id": format!("job_{}_1", JobId::new()), "owner": "alice", "url": receiver.url(),
                    "type": "job.failed", "at": pipeline.clock.now().ms(), "round": 0,
                    "payload": format!("{{\"type\":\"{}\"}}", "x".repeat(15_000)),
                });
                event.to_string()
            })
            .collect();
        let answer = function.invoke(&messages(&bodies)).await.expect("the function answers").answer;
        assert_eq!(answer, json!({ "batchItemFailures": [] }));
        peaks.push(function.process.peak().expect("the system reports it"));
    }
    assert_eq!(receiver.requests().len() as u64, 10 * INVOCATIONS);
    let (early, late) = (peaks[peaks.len() / 4], peaks[peaks.len() - 1]);
    assert!(late < early + 4_000_000, "from {early} to {late} bytes");
    function.stop().await.expect("the function ends");
    pipeline.stop().await;
}
