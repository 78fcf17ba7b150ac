//! Requests as API Gateway passes them to a function, and a function's answers. The owner is that of a stack without keys.

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::http::Method;
use lambda_runtime::{Context, LambdaEvent};
use local::EVERYONE;
use serde_json::Value;

/// A POST to a resource such as `/jobs/{id}/retry`, with this id in its path, this key and this JSON body, if any.
pub fn post(
    resource: &str,
    id: Option<String>,
    key: Option<&str>,
    body: &Value,
) -> LambdaEvent<ApiGatewayProxyRequest> {
    let mut request = request(Method::POST, resource, id);
    if let Some(key) = key {
        request.headers.insert("idempotency-key", key.parse().expect("a header"));
    }
    if !body.is_null() {
        request.headers.insert("content-type", "application/json".parse().expect("a header"));
        request.body = Some(body.to_string());
    }
    LambdaEvent::new(request, Context::default())
}

/// A GET of a resource, with this id in its path, if any.
pub fn get(resource: &str, id: Option<String>) -> LambdaEvent<ApiGatewayProxyRequest> {
    LambdaEvent::new(request(Method::GET, resource, id), Context::default())
}

fn request(method: Method, resource: &str, id: Option<String>) -> ApiGatewayProxyRequest {
    let mut request = ApiGatewayProxyRequest::default();
    request.resource = Some(resource.to_owned());
    request.http_method = method;
    request.request_context.identity.api_key_id = Some(EVERYONE.to_owned());
    request.path_parameters.extend(id.map(|id| ("id".to_owned(), id)));
    request
}

/// An answer's status and its JSON body, or null if it has none.
pub fn answer(response: ApiGatewayProxyResponse) -> (i64, Value) {
    let body = match response.body {
        Some(Body::Text(text)) => serde_json::from_str(&text).unwrap_or_default(),
        _ => Value::Null,
    };
    (response.status_code, body)
}
