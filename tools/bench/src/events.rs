//! Events as API Gateway and SQS send them to a function.

use serde_json::{Value, json};

/// A request as a REST API hands it to a Lambda function. `id` replaces `{id}` in the resource's path.
pub fn request(method: &str, resource: &str, id: Option<&str>, headers: &[(&str, &str)], body: Option<&str>) -> Value {
    let path = id.map_or_else(|| resource.to_owned(), |id| resource.replace("{id}", id));
    let mut all = json!({
        "Accept": "*/*", "Content-Type": "application/json", "Host": "abc123.execute-api.us-west-2.amazonaws.com",
        "X-Forwarded-Proto": "https", "x-api-key": "0123456789abcdef"
    });
    for (name, value) in headers {
        all[*name] = json!(value);
    }
    json!({
        "resource": resource, "path": path, "httpMethod": method,
        "headers": all,
        "multiValueHeaders": { "Accept": ["*/*"], "Content-Type": ["application/json"] },
        "queryStringParameters": null, "multiValueQueryStringParameters": null,
        "pathParameters": id.map(|id| json!({ "id": id })),
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

/// The submission of one job.
pub fn submission() -> Value {
    request("POST", "/jobs", None, &[], Some(r#"{"prompt":"A noir detective thriller in 1940s Venice"}"#))
}

/// Messages as an event source sends them to a function.
pub fn messages(bodies: &[impl AsRef<str>]) -> Value {
    let records: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(i, body)| {
            json!({
                "messageId": format!("message-{i}"),
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
                "body": body.as_ref(),
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

/// A PNG file of about this many bytes, with noise for pixels, like compressed data.
pub fn picture(bytes: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(bytes + 8);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while pixels.len() < bytes {
        // Xorshift, by George Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pixels.extend_from_slice(&state.to_le_bytes());
    }
    // Nothing checks the checksums, which are zero.
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x03\x40\0\0\x04\xc0\x08\x02\0\0\0\0\0\0\0".as_slice();
    let length = u32::try_from(pixels.len()).expect("a picture of a few megabytes").to_be_bytes();
    [header, &length, b"IDAT", &pixels, b"\0\0\0\0\0\0\0\0IEND\0\0\0\0"].concat()
}

/// The model's answer with this picture.
pub fn answer(picture: &[u8]) -> Vec<u8> {
    let image = base64_simd::STANDARD.encode_to_string(picture);
    format!(r#"{{"seeds":[42],"finish_reasons":[null],"images":["{image}"]}}"#).into_bytes()
}
