//! The functions' own binaries, started as Lambda starts them, with events as AWS sends them.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};
use shared::JobId;
use shared::job::Status;
use shared::ticket::Ticket;
use tests::pipeline::Pipeline;
use tests::runtime_api::{Outcome, command, invoke, weigh};

/// What Lambda would set for the function: what the template says, credentials, and the addresses of the services.
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

/// A request as a REST API sends it to a Lambda proxy integration.
fn request(method: &str, resource: &str, parameters: &Value, path: &str, body: Option<&str>) -> Value {
    json!({
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": {
            "Accept": "*/*", "Content-Type": "application/json", "Host": "abc123.execute-api.us-west-2.amazonaws.com",
            "X-Forwarded-Proto": "https", "x-api-key": "0123456789abcdef"
        },
        "multiValueHeaders": { "Accept": ["*/*"], "Content-Type": ["application/json"] },
        "queryStringParameters": null,
        "multiValueQueryStringParameters": null,
        "pathParameters": parameters,
        "stageVariables": null,
        "requestContext": {
            "resourceId": "us4z18", "resourcePath": resource, "httpMethod": method, "extendedRequestId": "Jk3=",
            "requestTime": "24/Nov/2026:10:00:00 +0000", "path": format!("/v1{path}"), "accountId": "123456789012",
            "protocol": "HTTP/1.1", "stage": "v1", "domainPrefix": "abc123", "requestTimeEpoch": 1_795_514_400_000_u64,
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "apiId": "abc123",
            "domainName": "abc123.execute-api.us-west-2.amazonaws.com",
            "identity": {
                "cognitoIdentityPoolId": null, "apiKey": "0123456789abcdef", "principalOrgId": null,
                "cognitoAuthenticationType": null, "userArn": null, "apiKeyId": "k3y1d", "userAgent": "curl/8.0",
                "accountId": null, "caller": null, "sourceIp": "203.0.113.7", "accessKey": null,
                "cognitoAuthenticationProvider": null, "user": null
            }
        },
        "body": body,
        "isBase64Encoded": false
    })
}

/// A batch as Lambda's event source mapping for SQS sends it.
pub(crate) fn batch(bodies: &[&str]) -> Value {
    let records: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(i, body)| {
            json!({
                "messageId": format!("message-{i}"),
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082649185"
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-west-2:123456789012:Queue",
                "awsRegion": "us-west-2"
            })
        })
        .collect();
    json!({ "Records": records })
}

async fn answer(pipeline: &Pipeline, function: &str, event: &Value) -> Value {
    match invoke(function, &variables(pipeline, function), event).await {
        Outcome::Response(answer) => answer,
        Outcome::Error(error) => panic!("{function} failed: {error}"),
    }
}

#[tokio::test]
async fn the_deployed_binaries_take_a_prompt_to_a_picture() {
    let pipeline = Pipeline::without_event_sources().await;
    let post = request("POST", "/jobs", &Value::Null, "/jobs", Some(r#"{"prompt":"A heist on the moon"}"#));
    let submitted = answer(&pipeline, "submit", &post).await;
    assert_eq!(submitted["statusCode"], 202, "{submitted}");
    let job: Value = serde_json::from_str(submitted["body"].as_str().expect("a body")).expect("a job");
    let id: JobId = job["id"].as_str().expect("an id").parse().expect("an id");
    let address = format!("https://abc123.execute-api.us-west-2.amazonaws.com/v1/jobs/{id}");
    assert_eq!(submitted["headers"]["location"], address.as_str());

    let ticket = Ticket { job: id, queued_at: None, trace: None }.to_body();
    let worked = answer(&pipeline, "worker", &batch(&[&ticket, "no ticket"])).await;
    assert_eq!(worked, json!({ "batchItemFailures": [] }));
    assert_eq!(pipeline.messages(&pipeline.ready().parked_queue_url).await, 1);

    let get = request("GET", "/jobs/{id}", &json!({ "id": id }), &format!("/jobs/{id}"), None);
    let told = answer(&pipeline, "status", &get).await;
    assert_eq!(told["statusCode"], 200, "{told}");
    let job: shared::api::JobView = serde_json::from_str(told["body"].as_str().expect("a body")).expect("a job");
    assert_eq!(job.status, Status::Succeeded);
    let picture = pipeline.http.get(job.image.expect("a picture").url).send().await.expect("S3 answers");
    assert!(picture.status().is_success());

    let buried = answer(&pipeline, "dead_letter", &batch(&[&ticket])).await;
    assert_eq!(buried, json!({ "batchItemFailures": [] }));
    assert_eq!(pipeline.stack.bedrock().stats().images, 1);
    // The local API has another owner than the key that submitted the job, and so does not show it.
    assert_eq!(pipeline.get(&format!("/jobs/{id}")).await.status().as_u16(), 404);
    pipeline.stop().await;
}

#[tokio::test]
async fn a_function_with_missing_settings_does_not_start_and_names_them_all() {
    for (function, settings) in [
        ("submit", &["TABLE_NAME", "QUEUE_URL", "OWNER_FROM"][..]),
        ("worker", &["BEDROCK_REGION", "MAX_ATTEMPTS"]),
        ("status", &["TABLE_NAME", "IMAGE_BUCKET", "OWNER_FROM"]),
        ("dead_letter", &["DEAD_LETTER_QUEUE_URL", "PARKED_QUEUE_URL"]),
    ] {
        let mut command = command(function).await;
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
async fn a_function_that_would_know_no_owner_does_not_start() {
    for function in ["submit", "status"] {
        let mut command = command(function).await;
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
async fn the_worst_of_bodies_fit_the_memory_of_the_function() {
    let pipeline = Pipeline::without_event_sources().await;
    let variables = variables(&pipeline, "submit");
    let fields = (0..300_000).map(|i| format!(r#","a{i}":1"#)).collect::<String>();
    for body in [
        format!(r#"{{"prompt":"x"{fields}}}"#),
        format!(r#"{{"prompt":"x","list":[{}1]}}"#, "1,".repeat(2_700_000)),
        format!(r#"{{"prompt":"x","list":[{}1]}}"#, r#"{"a":""},"#.repeat(49_000)),
        format!(r#"{{"prompt":"x","{}":1}}"#, "n".repeat(5_400_000)),
    ] {
        let (outcome, peak) =
            weigh("submit", &variables, &request("POST", "/jobs", &json!({}), "/v1/jobs", Some(&body))).await;
        let Outcome::Response(answer) = outcome else { panic!("{body:.80}: {outcome:?}") };
        assert_eq!(answer["statusCode"], 400, "{body:.80}");
        assert!(peak < 128 << 20, "{} MiB for {body:.80}", peak >> 20);
    }
    pipeline.stop().await;
}
