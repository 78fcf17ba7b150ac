//! Amazon API Gateway's part: turns HTTP requests into the events that the functions take, and their answers back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::any;
use futures_util::future::BoxFuture;
use lambda_runtime::{Error, LambdaEvent};
use shared::Problem;
use shared::aws::gateway::Answer;
use uuid::Uuid;

use crate::invoke::context;

/// The largest body that API Gateway takes, in bytes, see
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// A function behind a route.
pub(crate) type Handler = Arc<
    dyn Fn(LambdaEvent<ApiGatewayProxyRequest>) -> BoxFuture<'static, Result<ApiGatewayProxyResponse, Error>>
        + Send
        + Sync,
>;

/// The names of those who may call the API, by their keys. Without any, everybody may.
pub type ApiKeys = BTreeMap<String, String>;

/// One method of a path, and what serves it.
#[derive(Clone)]
pub(crate) struct Route {
    /// The path, with its parameters in braces.
    pub(crate) path: String,
    /// The method; `None` is every one that the path names nowhere else.
    pub(crate) method: Option<Method>,
    /// Whether the caller must have a key, where there are any.
    pub(crate) key_required: bool,
    /// The function that serves it.
    pub(crate) handler: Handler,
    /// How long the function may take.
    pub(crate) timeout: Duration,
}

/// The methods of one path.
#[derive(Clone)]
struct Resource {
    path: Arc<str>,
    routes: Arc<[Route]>,
    keys: Arc<ApiKeys>,
}

/// The API with these routes.
pub(crate) fn router(routes: Vec<Route>, keys: &ApiKeys) -> Router {
    let keys = Arc::new(keys.clone());
    let mut by_path: HashMap<String, Vec<Route>> = HashMap::new();
    for route in routes {
        by_path.entry(route.path.clone()).or_default().push(route);
    }
    let mut router = Router::new().fallback(async || respond(Problem::NoSuchRoute));
    for (path, routes) in by_path {
        let resource = Resource { path: path.as_str().into(), routes: routes.into(), keys: keys.clone() };
        router = router.route(&path, any(serve).with_state(resource));
    }
    router
}

async fn serve(State(resource): State<Resource>, parameters: RawPathParams, request: Request) -> Response {
    let named = resource.routes.iter().find(|route| route.method.as_ref() == Some(request.method()));
    let Some(route) = named.or_else(|| resource.routes.iter().find(|route| route.method.is_none())) else {
        return respond(Problem::NoSuchRoute);
    };
    let caller = request.headers().get("x-api-key").and_then(|key| resource.keys.get(key.to_str().ok()?)).cloned();
    if route.key_required && caller.is_none() && !resource.keys.is_empty() {
        return respond(Problem::Forbidden);
    }
    let parameters = parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut event = match event_of(&resource.path, parameters, request).await {
        Ok(event) => event,
        Err(problem) => return respond(problem),
    };
    event.request_context.identity.api_key_id = caller;
    let invocation = (route.handler)(LambdaEvent::new(event, context(route.timeout)));
    match tokio::time::timeout(route.timeout, invocation).await {
        Ok(Ok(response)) => http_of(response),
        // API Gateway answers so when a function fails, and when it takes too long.
        Ok(Err(error)) => {
            tracing::error!(%error, "a function failed");
            status(StatusCode::BAD_GATEWAY)
        }
        Err(_) => status(StatusCode::GATEWAY_TIMEOUT),
    }
}

async fn event_of(
    resource: &str,
    path_parameters: HashMap<String, String>,
    request: Request,
) -> Result<ApiGatewayProxyRequest, Problem> {
    let (parts, body) = request.into_parts();
    let bytes =
        to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Problem::PayloadTooLarge(shared::api::MAX_BODY_BYTES))?;
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let path = parts.uri.path().to_owned();

    let mut event = ApiGatewayProxyRequest::default();
    event.resource = Some(resource.to_owned());
    event.path = Some(path.clone());
    event.http_method = parts.method.clone();
    event.headers = parts.headers.clone();
    event.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    event.multi_value_headers = event.headers.clone();
    event.multi_value_query_string_parameters = query_of(&parts.uri).into();
    event.query_string_parameters = event.multi_value_query_string_parameters.clone();
    event.path_parameters = path_parameters;
    event.request_context.domain_name = host;
    event.request_context.path = Some(path);
    event.request_context.resource_path = Some(resource.to_owned());
    event.request_context.http_method = parts.method;
    event.request_context.request_id = Some(Uuid::new_v4().to_string());
    event.request_context.stage = Some("local".to_owned());
    if !bytes.is_empty() {
        match String::from_utf8(bytes.to_vec()) {
            Ok(text) => event.body = Some(text),
            Err(_) => {
                event.body = Some(base64_simd::STANDARD.encode_to_string(&bytes));
                event.is_base64_encoded = true;
            }
        }
    }
    Ok(event)
}

fn query_of(uri: &Uri) -> HashMap<String, Vec<String>> {
    let mut query: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        query.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    query
}

fn http_of(response: ApiGatewayProxyResponse) -> Response {
    let body = match response.body {
        Some(aws_lambda_events::encodings::Body::Text(text)) => Body::from(text),
        Some(aws_lambda_events::encodings::Body::Binary(bytes)) => Body::from(bytes),
        _ => Body::empty(),
    };
    let mut http = Response::new(body);
    let status = u16::try_from(response.status_code).ok().and_then(|status| StatusCode::from_u16(status).ok());
    *http.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
    *http.headers_mut() = response.headers;
    http
}

fn respond(problem: Problem) -> Response {
    http_of(Answer::from(problem).into())
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
