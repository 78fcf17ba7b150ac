//! API Gateway: turns HTTP requests into events of the functions, and their answers into HTTP responses.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body::{Binary, Text};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::{BoxFuture, FutureExt};
use lambda_runtime::{Error, LambdaEvent};
use uuid::Uuid;

use crate::host::Authority;
use crate::invoke::{MAX_ANSWER_BYTES, MAX_EVENT_BYTES, context, fits};
use crate::template::{self, Deployment, GatewayResponse};

/// The largest body that API Gateway accepts, in bytes, see
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

pub(crate) type Handler = Arc<
    dyn Fn(LambdaEvent<ApiGatewayProxyRequest>) -> BoxFuture<'static, Result<ApiGatewayProxyResponse, Error>>
        + Send
        + Sync,
>;

/// The owner of all jobs of a stack without keys.
pub const EVERYONE: &str = "everyone";

/// The callers' names by their API keys. If there are none, everybody may call.
pub type ApiKeys = BTreeMap<String, String>;

#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) declared: template::Route,
    pub(crate) handler: Handler,
    pub(crate) timeout: Duration,
}

/// What API Gateway answers without a function, by CloudFormation's name of the response.
pub(crate) type GatewayResponses = BTreeMap<String, GatewayResponse>;

struct Api {
    routes: Vec<Route>,
    keys: ApiKeys,
    responses: GatewayResponses,
    /// Another origin whose pages may use the API, or `*` for any.
    allowed_origin: Option<String>,
    minimum_compression_size: Option<usize>,
}

pub(crate) fn router(routes: Vec<Route>, keys: ApiKeys, deployment: &Deployment) -> Router {
    let allowed = deployment.functions.values().find_map(|function| function.environment.get("ALLOWED_ORIGIN"));
    let api = Api {
        routes,
        keys,
        responses: deployment.gateway_responses.clone(),
        allowed_origin: allowed.filter(|origin| !origin.is_empty()).cloned(),
        minimum_compression_size: deployment.minimum_compression_size,
    };
    Router::new().fallback(serve).with_state(Arc::new(api))
}

async fn serve(State(api): State<Arc<Api>>, Extension(authority): Extension<Authority>, request: Request) -> Response {
    if let Err(refusal) = authority.refuse_other_origins(request.headers(), api.allowed_origin.as_deref()) {
        return refusal.into_response();
    }
    let gzip = takes_gzip(request.headers());
    match api.pass_on(authority, request).await {
        Ok(response) => http_of(if gzip { api.compressed(response) } else { response }),
        // The template cannot change this response.
        Err("REQUEST_TOO_LARGE") => {
            let body = r#"{"message":"Request Too Long"}"#;
            (StatusCode::PAYLOAD_TOO_LARGE, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(kind) => {
            let response = api.responses.get(kind).cloned();
            response.map_or_else(|| StatusCode::BAD_GATEWAY.into_response(), |response| http_of(response.into()))
        }
    }
}

/// Whether the caller accepts gzip (RFC 9110, section 12.5.3). API Gateway ignores `*`.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

impl Api {
    /// The error is the type of the response with which API Gateway answers by itself, the same for any failed function.
    async fn pass_on(&self, authority: Authority, request: Request) -> Result<ApiGatewayProxyResponse, &'static str> {
        let (route, parameters) =
            self.find(request.method(), request.uri().path()).ok_or("MISSING_AUTHENTICATION_TOKEN")?;
        let caller = request.headers().get("x-api-key").and_then(|key| self.keys.get(key.to_str().ok()?)).cloned();
        if route.declared.auth.api_key_required && caller.is_none() && !self.keys.is_empty() {
            return Err("INVALID_API_KEY");
        }
        let mut event = event_of(&route.declared.path, parameters, authority, request).await?;
        event.request_context.identity.api_key_id =
            caller.or_else(|| self.keys.is_empty().then(|| EVERYONE.to_owned()));
        if !fits(&event, MAX_EVENT_BYTES) {
            return Err("REQUEST_TOO_LARGE");
        }
        let invocation = (route.handler)(LambdaEvent::new(event, context(route.timeout)));
        let invocation = tokio::time::timeout(route.timeout, AssertUnwindSafe(invocation).catch_unwind());
        let why = match invocation.await {
            Ok(Ok(Ok(response))) if fits(&response, MAX_ANSWER_BYTES) => return Ok(response),
            Ok(Ok(Ok(_))) => "its answer is larger than Lambda allows".to_owned(),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "it panicked".to_owned(),
            Err(_) => format!("it took longer than {} s", route.timeout.as_secs()),
        };
        tracing::error!(route = route.declared.path, why, "a function failed");
        Err("DEFAULT_5XX")
    }

    fn compressed(&self, mut response: ApiGatewayProxyResponse) -> ApiGatewayProxyResponse {
        if let Some(Text(text)) = &response.body
            && self.minimum_compression_size.is_some_and(|least| text.len() >= least)
        {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            if gzip.write_all(text.as_bytes()).is_ok()
                && let Ok(bytes) = gzip.finish()
            {
                response.body = Some(Binary(bytes));
                response.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        response
    }

    /// The route of a path and a method, with the values of the path's parameters. A REST API ignores a slash at the end.
    fn find(&self, method: &Method, path: &str) -> Option<(&Route, HashMap<String, String>)> {
        let parts: Vec<_> = parts(path).collect();
        let matching = self.routes.iter().filter_map(|route| Some((route, parameters(&route.declared.path, &parts)?)));
        // A path without parameters wins over one with parameters, and a named method over any method.
        let rank = |(route, parameters): &(&Route, HashMap<_, _>)| (parameters.len(), route.declared.method == "ANY");
        let served = matching.filter(|(route, _)| ["ANY", method.as_str()].contains(&&*route.declared.method));
        served.min_by_key(rank)
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.strip_suffix('/').unwrap_or(path).split('/')
}

/// The values of a resource's parameters in a path, still percent-encoded. `None` if the path does not match.
fn parameters(resource: &str, path: &[&str]) -> Option<HashMap<String, String>> {
    let named: Vec<_> = parts(resource).collect();
    if named.len() != path.len() {
        return None;
    }
    let mut parameters = HashMap::new();
    for (named, &part) in named.iter().zip(path) {
        match named.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !part.is_empty() => drop(parameters.insert(name.to_owned(), part.to_owned())),
            None if *named == part => {}
            _ => return None,
        }
    }
    Some(parameters)
}

async fn event_of(
    resource: &str,
    path_parameters: HashMap<String, String>,
    Authority(host): Authority,
    request: Request,
) -> Result<ApiGatewayProxyRequest, &'static str> {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| "REQUEST_TOO_LARGE")?;
    let path = parts.uri.path().to_owned();

    let mut event = ApiGatewayProxyRequest::default();
    event.resource = Some(resource.to_owned());
    event.path = Some(path.clone());
    event.http_method = parts.method.clone();
    event.multi_value_headers = parts.headers;
    event.multi_value_headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    event.headers = last_values(&event.multi_value_headers);
    let query = query_of(&parts.uri);
    let last = query.iter().filter_map(|(name, values)| Some((name.clone(), values.last()?.clone())));
    event.query_string_parameters = last.collect::<HashMap<_, _>>().into();
    event.multi_value_query_string_parameters = query.into();
    event.path_parameters = path_parameters;
    event.request_context.domain_name = Some(host);
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

fn last_values(headers: &HeaderMap) -> HeaderMap {
    let mut last = HeaderMap::new();
    for (name, value) in headers {
        last.insert(name.clone(), value.clone());
    }
    last
}

fn query_of(uri: &Uri) -> HashMap<String, Vec<String>> {
    let mut query: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        query.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    query
}

pub(crate) fn http_of(response: ApiGatewayProxyResponse) -> Response {
    let body = match response.body {
        Some(Text(text)) => Body::from(text),
        Some(Binary(bytes)) => Body::from(bytes),
        _ => Body::empty(),
    };
    let mut http = Response::new(body);
    let status = u16::try_from(response.status_code).ok().and_then(|status| StatusCode::from_u16(status).ok());
    *http.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
    *http.headers_mut() = response.headers;
    http
}

impl From<GatewayResponse> for ApiGatewayProxyResponse {
    fn from(GatewayResponse { status, headers, body }: GatewayResponse) -> Self {
        let mut response = Self::default();
        response.status_code = status.into();
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
                response.headers.insert(name, value);
            }
        }
        response.body = Some(Text(body));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<ApiGatewayProxyResponse, Error>;

    fn route(method: &str, path: &str, handler: impl Fn() -> Outcome + Send + Sync + 'static) -> Route {
        let (handler, auth) = (Arc::new(handler), template::RouteAuth { api_key_required: false });
        Route {
            declared: template::Route { path: path.to_owned(), method: method.to_owned(), auth },
            handler: Arc::new(move |_| {
                let handler = handler.clone();
                async move { handler() }.boxed()
            }),
            timeout: Duration::from_secs(28),
        }
    }

    fn api(routes: Vec<Route>, responses: GatewayResponses) -> Api {
        Api { routes, keys: ApiKeys::new(), responses, allowed_origin: None, minimum_compression_size: Some(1024) }
    }

    fn found(path: &str) -> Option<(String, HashMap<String, String>)> {
        let good = || Ok(ApiGatewayProxyResponse::default());
        let paths = ["/", "/jobs", "/jobs/{id}", "/jobs/{id}/image", "/jobs/latest"];
        let mut routes: Vec<_> = paths.iter().map(|path| route("ANY", path, good)).collect();
        routes.push(route("POST", "/jobs/only/post", good));
        let api = api(routes, GatewayResponses::new());
        api.find(&Method::GET, path).map(|(route, parameters)| (route.declared.path.clone(), parameters))
    }

    #[test]
    fn a_path_is_routed_as_by_a_rest_api() {
        let id = |id: &str| HashMap::from([("id".to_owned(), id.to_owned())]);
        for (path, resource, parameters) in [
            ("/", "/", HashMap::new()),
            ("/jobs", "/jobs", HashMap::new()),
            ("/jobs/", "/jobs", HashMap::new()),
            ("/jobs/01a2%2D7c", "/jobs/{id}", id("01a2%2D7c")),
            ("/jobs/%FF/", "/jobs/{id}", id("%FF")),
            ("/jobs/01a2-7c/image/", "/jobs/{id}/image", id("01a2-7c")),
            ("/jobs/latest", "/jobs/latest", HashMap::new()),
        ] {
            assert_eq!(found(path), Some((resource.to_owned(), parameters)), "{path}");
        }
        for path in ["", "//", "//jobs", "/jobs//", "/jobs//image", "/JOBS", "/jobs/a/b/c", "/jobs/only/post"] {
            assert!(path.is_empty() || found(path).is_none(), "{path}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_name_it() {
        for (values, taken) in [
            (&["gzip"][..], true),
            (&["deflate, GZIP;q=0.5, br"], true),
            (&["br", "gzip ; q=1.0"], true),
            (&[], false),
            (&["*"], false),
            (&["br"], false),
            (&["gzip;q=0"], false),
            (&["x-gzip, gzip; q=0.000"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(takes_gzip(&headers), taken, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn whatever_a_function_does_wrong_is_told_as_a_problem() {
        let response = GatewayResponse { status: 502, headers: BTreeMap::new(), body: "a problem".to_owned() };
        let responses = BTreeMap::from([("DEFAULT_5XX".to_owned(), response)]);
        let large = || {
            let mut response = ApiGatewayProxyResponse::default();
            response.body = Some(Text("\"".repeat(MAX_ANSWER_BYTES / 2)));
            Ok(response)
        };
        let mut slow = route("ANY", "/slow", || Ok(ApiGatewayProxyResponse::default()));
        slow.handler = Arc::new(|_| std::future::pending().boxed());
        slow.timeout = Duration::from_millis(10);
        let routes = vec![
            route("ANY", "/error", || Err("no".into())),
            route("ANY", "/panic", || panic!("for a test")),
            route("ANY", "/large", large),
            slow,
        ];
        let api = Arc::new(api(routes, responses));
        for path in ["/error", "/panic", "/large", "/slow"] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let response = serve(State(api.clone()), Extension(Authority("localhost".to_owned())), request).await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{path}");
            let body = to_bytes(response.into_body(), 100).await.expect("a body");
            assert_eq!(body, "a problem", "{path}");
        }
    }

    #[tokio::test]
    async fn an_event_has_the_last_value_of_a_header_and_all_of_them() {
        let request = Request::builder().uri("/jobs/?a=1&a=2").header("prefer", "wait=2").header("prefer", "x");
        let request = request.header("x-forwarded-proto", "https").body(Body::empty()).expect("a request");
        let event = event_of("/jobs", HashMap::new(), Authority("[::1]:3000".to_owned()), request).await;
        let event = serde_json::to_value(event.expect("an event")).expect("an event is JSON");
        assert_eq!(event["headers"]["prefer"], "x");
        assert_eq!(event["multiValueHeaders"]["prefer"], serde_json::json!(["wait=2", "x"]));
        assert_eq!(event["multiValueHeaders"]["x-forwarded-proto"], serde_json::json!(["http"]));
        assert_eq!(event["queryStringParameters"]["a"], "2");
        assert_eq!(event["multiValueQueryStringParameters"]["a"], serde_json::json!(["1", "2"]));
        assert_eq!(event["requestContext"]["path"], "/jobs/");
        assert_eq!(event["requestContext"]["domainName"], "[::1]:3000");
    }
}
