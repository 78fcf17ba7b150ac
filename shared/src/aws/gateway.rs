//! Requests and responses of an API Gateway proxy integration, see
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value;

use super::callers::OwnerFrom;
use super::{Result, ServiceError};
use crate::api::MAX_BODY_BYTES;
use crate::caller::{IdempotencyKey, Owner};
use crate::fault::FieldError;
use crate::json;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::text::cut;

/// How the API is reached, from the settings.
#[derive(Clone, Debug)]
pub struct Entrance {
    owner_from: OwnerFrom,
    /// The base URL for links, without a trailing slash, if it differs from the one that API Gateway reports.
    public_url: Option<String>,
    /// The origin whose pages may read responses, or `*` for any.
    allowed_origin: Option<String>,
}

impl Entrance {
    /// Reads the settings. [`Settings::finish`] later reports invalid ones, and discards this value.
    pub fn read(settings: &mut Settings<'_>) -> Self {
        let owner_from = settings.parse("OWNER_FROM").unwrap_or(OwnerFrom::ApiKey);
        let (public_url, allowed_origin) = (settings.optional("PUBLIC_URL"), settings.optional("ALLOWED_ORIGIN"));
        Self { owner_from, public_url, allowed_origin }
    }

    /// Builds the response, with the CORS headers if an origin is allowed. They are the same for every caller, so the
    /// response does not vary with `Origin`.
    pub fn respond(&self, answer: Result<Answer, Problem>) -> ApiGatewayProxyResponse {
        let mut answer = answer.unwrap_or_else(Answer::from);
        if let Some(origin) = &self.allowed_origin {
            answer = answer
                .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
                .header(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        answer.into()
    }
}

/// A caller's request.
pub struct Request {
    event: ApiGatewayProxyRequest,
    entrance: Entrance,
}

impl Request {
    /// Wraps an event of API Gateway.
    pub fn new(event: ApiGatewayProxyRequest, entrance: Entrance) -> Self {
        Self { event, entrance }
    }

    /// The caller.
    pub fn owner(&self) -> Result<Owner, Problem> {
        self.entrance.owner_from.owner(&self.event.request_context).ok_or(Problem::Unauthorized)
    }

    /// The id in the path. An invalid one is answered like an unknown one, without reading the table. To decode twice is
    /// safe, as no valid id contains a percent sign.
    pub fn id<T: FromStr>(&self) -> Result<T, Problem> {
        let text = self.event.path_parameters.get("id").map_or("", String::as_str);
        percent_decode_str(text).decode_utf8_lossy().parse().map_err(|_| Problem::NotFound)
    }

    /// The base URL as the caller reached it: with the path of the stage or custom domain, without a trailing slash.
    pub fn base_url(&self) -> String {
        if let Some(url) = &self.entrance.public_url {
            return url.clone();
        }
        let context = &self.event.request_context;
        // The path ends in as many segments as the resource has, but possibly escaped or with repeated slashes.
        let resource = self.event.resource.as_deref().unwrap_or_default();
        let mut prefix = context.path.as_deref().unwrap_or_default().trim_end_matches('/');
        for _ in resource.split('/').filter(|part| !part.is_empty()) {
            prefix = prefix.rsplit_once('/').map_or("", |(before, _)| before).trim_end_matches('/');
        }
        let scheme = self.texts("x-forwarded-proto").last().unwrap_or("https");
        let host = context.domain_name.as_deref().unwrap_or("localhost");
        format!("{scheme}://{host}{prefix}")
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value, Problem> {
        let kind = self.texts(header::CONTENT_TYPE.as_str()).last().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let mut encodings = self.texts(header::CONTENT_ENCODING.as_str()).flat_map(|value| value.split(','));
        let encoded = encodings.any(|encoding| !encoding.trim().eq_ignore_ascii_case("identity"));
        let body = self.event.body.as_deref().unwrap_or_default();
        // An empty body needs no content type, as the missing body is reported instead.
        if !body.is_empty() && (!essence.eq_ignore_ascii_case("application/json") || encoded) {
            return Err(Problem::UnsupportedMediaType);
        }
        let body = if self.event.is_base64_encoded {
            let decoded = base64_simd::STANDARD.decode_to_vec(body);
            Cow::Owned(decoded.map_err(|_| Problem::InvalidJson("it is not valid base64".to_owned()))?)
        } else {
            Cow::Borrowed(body.as_bytes())
        };
        if json::escaped_len(&body) > MAX_BODY_BYTES {
            return Err(Problem::PayloadTooLarge(MAX_BODY_BYTES));
        }
        Ok(json::parse(&body)?)
    }

    /// The idempotency key, if the caller sent one.
    pub fn idempotency_key(&self) -> Result<Option<IdempotencyKey>, Problem> {
        let mut values = self.values("idempotency-key");
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
        key.map(Some).ok_or(Problem::InvalidIdempotencyKey)
    }

    /// How long to hold the answer, from `Prefer: wait` (RFC 7240), in whole seconds of at least one. Ignores invalid
    /// values, and the header on HEAD, which monitors send.
    pub fn wait(&self) -> Option<Duration> {
        if self.event.http_method == Method::HEAD {
            return None;
        }
        let preferences = self.texts("prefer").flat_map(|value| value.split([',', ';']));
        let wishes = preferences.filter_map(|wish| wish.trim().split_once('='));
        let mut waits = wishes.filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
        let secs = waits.next()?.1.trim().parse().ok().filter(|&secs| secs > 0)?;
        Some(Duration::from_secs(secs))
    }

    /// Whether the caller already has the version `etag` (RFC 9110, section 13.1.2).
    pub fn has(&self, etag: &str) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let mut tags = self.texts(header::IF_NONE_MATCH.as_str()).flat_map(|value| value.split(','));
        tags.any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
    }

    /// The route that API Gateway chose, such as `GET` and `/jobs/{id}`. HEAD is routed like GET (RFC 9110, section
    /// 9.3.2); the HTTP server drops the body.
    pub fn route(&self) -> (&str, &str) {
        let method = match self.event.http_method.as_str() {
            "HEAD" => "GET",
            method => method,
        };
        (method, self.event.resource.as_deref().unwrap_or_default())
    }

    /// The query parameters. Fails if one is not in `known` or is repeated.
    pub fn query(&self, known: &[&str]) -> Result<Query, Problem> {
        let mut query = Query::default();
        for (name, value) in self.event.multi_value_query_string_parameters.iter() {
            let fault = if !known.contains(&name) {
                "is not a parameter of this path"
            } else if query.texts.insert(name.to_owned(), value.to_owned()).is_some() {
                "must be given once"
            } else {
                continue;
            };
            query.fault(&cut(name), fault.to_owned());
        }
        let errors = std::mem::take(&mut query.errors);
        if errors.is_empty() { Ok(query) } else { Err(Problem::faults(errors)) }
    }

    /// All values of a header. `multiValueHeaders` has all of them, `headers` only the last.
    fn values(&self, name: &str) -> impl Iterator<Item = &HeaderValue> {
        let ApiGatewayProxyRequest { headers, multi_value_headers, .. } = &self.event;
        let from = if multi_value_headers.contains_key(name) { multi_value_headers } else { headers };
        from.get_all(name).iter()
    }

    fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(|value| value.to_str().ok())
    }
}

/// The query parameters of a request. Each is taken out and parsed, and faults are collected.
#[derive(Default)]
pub struct Query {
    texts: HashMap<String, String>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Parses a parameter; `None` if it is not given or has a fault.
    pub fn take<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.texts.remove(name)?;
        parse(&text).map_err(|detail| self.fault(name, detail)).ok()
    }

    /// Adds a fault of the parameter `name`.
    pub fn fault(&mut self, name: &str, detail: String) {
        self.errors.push(FieldError::new(&format!("?{name}"), detail));
    }

    /// Returns what was made of the parameters if they have no fault.
    pub fn finish<T>(self, made: T) -> Result<T, Problem> {
        if self.errors.is_empty() { Ok(made) } else { Err(Problem::faults(self.errors)) }
    }
}

/// What pages of another origin may read besides the safelisted headers, see
/// <https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name>.
const EXPOSED: &str = "Allow, ETag, Idempotency-Replayed, Link, Location, Preference-Applied, Retry-After";

/// A response to the caller.
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// A JSON response. Not cached: it is private to the owner and soon outdated.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("an answer's body is always JSON");
        Self { status, headers: HeaderMap::new(), body }
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// An HTML page, which browsers revalidate each time.
    pub fn html(body: &str) -> Self {
        Self { status: 200, headers: HeaderMap::new(), body: body.to_owned() }
            .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: String::new() }.header(header::CACHE_CONTROL, "no-store")
    }

    /// Adds a header. An invalid value is left out.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Adds `Idempotency-Replayed` if an earlier request with the same key has taken effect.
    pub fn repeated(self, repeated: bool) -> Self {
        if repeated { self.header(HeaderName::from_static("idempotency-replayed"), "true") } else { self }
    }

    /// Adds `Retry-After`, in whole seconds from 1 to 30, so that no client sleeps through a change.
    pub fn retry_after(self, wait: Duration) -> Self {
        let secs = wait.as_secs_f64().ceil().clamp(1.0, 30.0);
        self.header(header::RETRY_AFTER, format!("{secs}"))
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let answer =
            Self::json(problem.status(), &problem.details()).header(header::CONTENT_TYPE, "application/problem+json");
        match problem {
            Problem::Unavailable { retry_after } => answer.retry_after(retry_after),
            Problem::MethodNotAllowed(methods) => answer.header(header::ALLOW, methods.join(", ")),
            _ => answer,
        }
    }
}

impl From<Answer> for ApiGatewayProxyResponse {
    fn from(answer: Answer) -> Self {
        let mut response = Self::default();
        response.status_code = i64::from(answer.status);
        response.headers = answer.headers;
        response.body = Some(Body::Text(answer.body));
        response
    }
}

/// The job, batch or delivery `id` that was read, or the problem to answer with.
pub fn found<T>(id: impl Display, answer: Result<Option<T>>) -> Result<T, Problem> {
    answer.map_err(log_failure(id))?.ok_or(Problem::NotFound)
}

/// Logs a failed call to a service for the job, batch or route `id`, and returns the problem to answer with.
pub fn log_failure(id: impl Display) -> impl FnOnce(ServiceError) -> Problem {
    move |error| {
        tracing::error!(id = %id, %error, "request failed");
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entrance(public_url: Option<&str>) -> Entrance {
        Entrance { owner_from: OwnerFrom::ApiKey, public_url: public_url.map(str::to_owned), allowed_origin: None }
    }

    /// The event of API Gateway for this resource, with these members in place of the defaults.
    fn request(resource: &str, path: &str, domain: &str, more: Value) -> Request {
        let mut event = json!({
            "resource": resource, "path": "/", "httpMethod": "GET", "isBase64Encoded": false, "body": null,
            "headers": { "Host": domain, "X-Forwarded-Proto": "https" },
            "multiValueHeaders": { "Host": [domain], "X-Forwarded-Proto": ["https"] },
            "queryStringParameters": null, "multiValueQueryStringParameters": null, "pathParameters": null,
            "requestContext": {
                "resourcePath": resource, "path": path, "httpMethod": "GET", "domainName": domain, "stage": "v1",
                "identity": { "apiKeyId": "k3y1d", "sourceIp": "203.0.113.7" },
            },
        });
        let event_members = event.as_object_mut().expect("an event is an object");
        event_members.extend(more.as_object().expect("members").clone());
        Request::new(serde_json::from_value(event).expect("an event"), entrance(None))
    }

    #[test]
    fn links_begin_with_the_address_under_which_the_caller_reached_the_api() {
        const STAGE: &str = "abc123.execute-api.us-west-2.amazonaws.com";
        const CUSTOM: &str = "posters.example.com";
        for (domain, resource, path, prefix) in [
            (STAGE, "/", "/v1/", "/v1"),
            (STAGE, "/", "/v1", "/v1"),
            (STAGE, "/jobs", "/v1/jobs", "/v1"),
            (STAGE, "/jobs", "/v1/jobs/", "/v1"),
            (STAGE, "/jobs", "/v1//jobs", "/v1"),
            (STAGE, "/jobs", "/v1//jobs//", "/v1"),
            (STAGE, "/jobs/{id}", "/v1/jobs/01a2-7c", "/v1"),
            (STAGE, "/jobs/{id}", "/v1/jobs/01a2%2D7c", "/v1"),
            (STAGE, "/jobs/{id}/retry", "/v1/jobs/01a2%2D7c/retry/", "/v1"),
            (STAGE, "/jobs/{id}/retry", "/v1//jobs//01a2-7c//retry//", "/v1"),
            // A stage may have the name of a resource.
            (STAGE, "/jobs", "/jobs/jobs", "/jobs"),
            (CUSTOM, "/", "/", ""),
            (CUSTOM, "/jobs", "/jobs", ""),
            (CUSTOM, "/jobs", "//jobs/", ""),
            (CUSTOM, "/batches/{id}/jobs", "/batches/01a2%2d7c/jobs", ""),
            (CUSTOM, "/jobs/{id}", "/art/posters/jobs/01a2-7c/", "/art/posters"),
            (CUSTOM, "/", "/art/posters/", "/art/posters"),
        ] {
            let base = request(resource, path, domain, json!({})).base_url();
            assert_eq!(base, format!("https://{domain}{prefix}"), "{resource} as {path}");
        }
        let event = request("/jobs", "/v1/jobs", STAGE, json!({})).event;
        let behind = Request::new(event, entrance(Some("https://posters.example.com/make")));
        assert_eq!(behind.base_url(), "https://posters.example.com/make");
    }

    #[test]
    fn a_part_of_the_path_is_the_same_however_it_is_escaped() {
        for (told, read) in [("01a2-7c", "01a2-7c"), ("01a2%2D7c", "01a2-7c"), ("%FF", "\u{fffd}"), ("", "")] {
            let request = request("/jobs/{id}", "/v1/jobs/x", "x", json!({ "pathParameters": { "id": told } }));
            assert_eq!(request.id(), Ok(read.to_owned()), "{told}");
        }
    }

    #[test]
    fn a_header_that_is_sent_twice_is_read_twice() {
        let sent = |name: &str, values: &[&str]| {
            let more = json!({ "headers": { name: values.last() }, "multiValueHeaders": { name: values } });
            request("/jobs/{id}", "/v1/jobs/x", "x", more)
        };
        let two = Some(Duration::from_secs(2));
        assert_eq!(sent("Prefer", &["wait=2", "handling=strict"]).wait(), two);
        assert_eq!(sent("prefer", &["handling=strict", "wait=2"]).wait(), two);
        assert!(sent("If-None-Match", &["\"a\"", "\"b\""]).has("W/\"a\""));
        assert!(!sent("If-None-Match", &["\"a\"", "\"b\""]).has("W/\"c\""));
        assert_eq!(sent("Idempotency-Key", &["a"]).idempotency_key(), Ok(Some("a".parse().expect("a key"))));
        assert_eq!(sent("Idempotency-Key", &["a", "b"]).idempotency_key(), Err(Problem::InvalidIdempotencyKey));
        // A test in the console sends only one of the two.
        let more = json!({ "headers": { "Prefer": "wait=2" }, "multiValueHeaders": null });
        assert_eq!(request("/jobs/{id}", "/v1/jobs/x", "x", more).wait(), two);
    }

    #[test]
    fn a_body_may_say_that_it_is_not_encoded() {
        for (encodings, good) in [
            (&["identity"][..], true),
            (&["Identity"], true),
            (&["IDENTITY, identity"], true),
            (&["gzip"], false),
            (&["gzip", "identity"], false),
            (&["identity, gzip"], false),
        ] {
            let headers = json!({ "Content-Type": ["application/json"], "Content-Encoding": encodings });
            let more = json!({ "body": "{}", "multiValueHeaders": headers });
            let read = request("/jobs", "/v1/jobs", "x", more).json();
            assert_eq!(read.is_ok(), good, "{encodings:?}: {read:?}");
        }
    }

    #[test]
    fn head_is_asked_like_get_and_never_waits() {
        let more = json!({ "httpMethod": "HEAD", "headers": { "Prefer": "wait=20" }, "multiValueHeaders": null });
        let head = request("/jobs/{id}", "/v1/jobs/x", "x", more);
        assert_eq!((head.route(), head.wait()), (("GET", "/jobs/{id}"), None));
    }
}
