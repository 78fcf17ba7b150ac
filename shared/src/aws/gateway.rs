//! Requests and answers as Amazon API Gateway hands them to a function and takes them back.
//!
//! See "Lambda proxy integrations in API Gateway",
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;
use serde_json::Value;

use crate::api::MAX_BODY_BYTES;
use crate::job::Owner;
use crate::json;
use crate::order::IdempotencyKey;
use crate::problem::{FieldError, Problem};

/// A caller's request.
pub struct Request {
    event: ApiGatewayProxyRequest,
}

impl Request {
    /// The request that API Gateway reports.
    pub fn new(event: ApiGatewayProxyRequest) -> Self {
        Self { event }
    }

    /// Who asks: the API key's id, else the IAM principal, else what the authorizer says.
    ///
    /// An API without any of them has one owner, whose jobs everybody may see who may call it.
    pub fn owner(&self) -> Owner {
        let context = &self.event.request_context;
        let principal = context.authorizer.fields.get("principalId").and_then(Value::as_str);
        let identity = &context.identity;
        let name = identity.api_key_id.as_deref().or(identity.user_arn.as_deref()).or(principal);
        name.map_or_else(Owner::everyone, Owner::new)
    }

    /// The part `name` of the path.
    pub fn path_parameter(&self, name: &str) -> &str {
        self.event.path_parameters.get(name).map_or("", String::as_str)
    }

    /// The address under which the caller reached the API, with the stage's path or the custom domain's, and without a
    /// slash at its end.
    pub fn base_url(&self) -> String {
        let context = &self.event.request_context;
        let mut route = self.event.resource.clone().unwrap_or_default();
        for (name, value) in &self.event.path_parameters {
            route = route.replace(&format!("{{{name}}}"), value);
        }
        let path = context.path.as_deref().unwrap_or_default();
        let prefix = path.strip_suffix(route.as_str()).unwrap_or_default();
        let scheme = self.header("x-forwarded-proto").unwrap_or("https");
        let host = context.domain_name.as_deref().unwrap_or("localhost");
        format!("{scheme}://{host}{prefix}")
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// When the body is not declared to be JSON, is too large, or is not JSON.
    pub fn json(&self) -> Result<Value, Problem> {
        let kind = self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let encoded = self.header(header::CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding != "identity");
        let body = self.event.body.as_deref().unwrap_or_default();
        // Without a body there is nothing to declare, and the missing body is what the caller should hear of.
        if !body.is_empty() && (!essence.eq_ignore_ascii_case("application/json") || encoded) {
            return Err(Problem::UnsupportedMediaType);
        }
        let body = if self.event.is_base64_encoded {
            let decoded = base64_simd::STANDARD.decode_to_vec(body);
            Cow::Owned(decoded.map_err(|_| Problem::InvalidJson("it is not valid base64".to_owned()))?)
        } else {
            Cow::Borrowed(body.as_bytes())
        };
        if body.len() > MAX_BODY_BYTES {
            return Err(Problem::PayloadTooLarge(MAX_BODY_BYTES));
        }
        json::parse(&body).map_err(Problem::InvalidJson)
    }

    /// The key with which the caller may send the request again.
    ///
    /// # Errors
    /// When the header breaks its rule.
    pub fn idempotency_key(&self) -> Result<Option<IdempotencyKey>, Problem> {
        let value = self.event.headers.get("idempotency-key");
        value
            .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Problem::InvalidIdempotencyKey))
            .transpose()
    }

    /// How long the caller would like the answer to be held until there is news, from `Prefer: wait` (RFC 7240), in whole
    /// seconds of at least one. What cannot be read is no wish.
    pub fn wait(&self) -> Option<Duration> {
        let preferences = self.event.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let wishes =
            preferences.flat_map(|value| value.split([',', ';'])).filter_map(|wish| wish.trim().split_once('='));
        let mut waits = wishes.filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
        let secs = waits.next()?.1.trim().parse().ok().filter(|&secs| secs > 0)?;
        Some(Duration::from_secs(secs))
    }

    /// Whether the caller has the version `etag` already (RFC 9110, section 13.1.2).
    pub fn has(&self, etag: &str) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let tags = self.event.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        tags.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
    }

    /// The route that API Gateway chose, such as `GET` and `/jobs/{id}`.
    pub fn route(&self) -> (&str, &str) {
        (self.event.http_method.as_str(), self.event.resource.as_deref().unwrap_or_default())
    }

    /// The query, of which only the parameters `known` may be there, each once.
    ///
    /// # Errors
    /// What else is there.
    pub fn query(&self, known: &[&str]) -> Result<HashMap<String, String>, Problem> {
        let mut query = HashMap::new();
        let mut errors = Vec::new();
        for (name, value) in self.event.multi_value_query_string_parameters.iter() {
            let fault = if !known.contains(&name) {
                "is not a parameter of this path"
            } else if query.insert(name.to_owned(), value.to_owned()).is_some() {
                "must be given once"
            } else {
                continue;
            };
            errors.push(FieldError::new(&format!("?{name}"), fault.to_owned()));
        }
        if errors.is_empty() { Ok(query) } else { Err(Problem::InvalidRequest(errors)) }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.event.headers.get(name)?.to_str().ok()
    }
}

/// An answer to a caller.
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// An answer with a JSON body. Nobody may keep it, for it is the owner's alone and soon out of date.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("an answer's body is always JSON");
        let answer = Self { status, headers: HeaderMap::new(), body };
        answer
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// A page of HTML, which may be kept but must be asked for again each time.
    pub fn html(body: &str) -> Self {
        let answer = Self { status: 200, headers: HeaderMap::new(), body: body.to_owned() };
        answer
            .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        let answer = Self { status, headers: HeaderMap::new(), body: String::new() };
        answer.header(header::CACHE_CONTROL, "no-store")
    }

    /// The same answer with a header.
    ///
    /// A value that cannot stand in a header is left out.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The same answer with the time after which to ask again, in whole seconds: at least one, and at most thirty, so that
    /// nobody sleeps through a change.
    pub fn retry_after(self, wait: Duration) -> Self {
        let secs = wait.as_secs_f64().ceil().clamp(1.0, 30.0);
        self.header(header::RETRY_AFTER, format!("{secs}"))
    }
}

/// The one place where a problem becomes HTTP.
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

impl From<Result<Answer, Problem>> for Answer {
    fn from(result: Result<Answer, Problem>) -> Self {
        result.unwrap_or_else(Self::from)
    }
}
