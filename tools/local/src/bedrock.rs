//! An endpoint that answers as the Stability AI models on Bedrock do, with pictures by the offline artist. The pictures say,
//! in print and in their metadata, that no diffusion model painted them.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use shared::order::{AspectRatio, Model, OutputFormat};
use shared::origin::{Origin, mark};

/// What paints the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Painter {
    /// The offline artist, at no cost
    #[default]
    Local,
    /// Amazon Bedrock, with your own credentials and at your own cost
    Aws,
}

/// How the local model behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args)]
pub struct Behavior {
    /// How long the local model waits before it paints, such as 3s or 250ms
    #[arg(long = "model-latency", value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub latency: Duration,

    /// How often the local model fails, as shares of its calls: throttle, unavailable, error, hang, filter, deny
    #[arg(long = "model-faults", value_name = "NAME=RATE,...", default_value = "")]
    pub faults: Faults,

    /// Have the local model paint plain colors without delay, to see how fast the rest is
    #[arg(long = "model-plain")]
    pub plain: bool,
}

/// How often the model fails in each way, as a share of its calls from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Throttled: 429.
    pub throttle: f64,
    /// No capacity: 503.
    pub unavailable: f64,
    /// An internal error: 500.
    pub error: f64,
    /// No answer.
    pub hang: f64,
    /// The content filter refuses the prompt.
    pub filter: f64,
    /// No access to the model: 403.
    pub deny: f64,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self { throttle: 0.0, unavailable: 0.0, error: 0.0, hang: 0.0, filter: 0.0, deny: 0.0 };
}

impl FromStr for Faults {
    type Err = String;

    /// Reads `throttle=0.2,error=0.05`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut rates = Map::new();
        let mut sum = 0.0;
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, rate) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=RATE"))?;
            let rate: f64 = rate.trim().parse().map_err(|_| format!("{rate:?} is not a number"))?;
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("the rate {rate} must be from 0 to 1"));
            }
            sum += rate;
            rates.insert(name.trim().to_owned(), rate.into());
        }
        if sum > 1.0 {
            return Err(format!("the rates add up to {sum}, which is more than 1"));
        }
        serde_json::from_value(rates.into()).map_err(|error| error.to_string())
    }
}

/// How many calls were made, by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All calls.
    pub invocations: u64,
    /// Pictures, which the real model would have billed.
    pub images: u64,
    /// Calls that were throttled, or found no capacity.
    pub throttled: u64,
    /// Calls that failed, were denied or were invalid.
    pub errors: u64,
    /// Calls that the content filter refused.
    pub filtered: u64,
}

/// The model's endpoint. Clones share its state.
#[derive(Clone, Debug, Default)]
pub struct Bedrock(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    behavior: Behavior,
    stats: Stats,
}

impl Bedrock {
    /// An endpoint with this behavior.
    pub fn new(behavior: Behavior) -> Self {
        Self(Arc::new(Mutex::new(Inner { behavior, stats: Stats::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the behavior from the next call on.
    pub fn behave(&self, behavior: Behavior) {
        self.inner().behavior = behavior;
    }

    /// The calls so far.
    pub fn stats(&self) -> Stats {
        self.inner().stats
    }

    /// The endpoint's routes: InvokeModel and `/_stats`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/model/{model}/invoke", post(invoke))
            .route(
                "/_stats",
                get(|State(bedrock): State<Self>| async move { axum_json(StatusCode::OK, &bedrock.stats()) }),
            )
            .with_state(self.clone())
    }

    async fn answer(&self, model: &str, body: &[u8]) -> Result<Response, Refusal> {
        self.inner().stats.invocations += 1;
        let Behavior { latency, faults, plain } = self.inner().behavior;
        let mut dice = fastrand::f64();
        let mut strikes = |rate: f64| {
            dice -= rate;
            dice < 0.0
        };
        for (rate, status, code, message) in [
            (faults.throttle, 429, "ThrottlingException", "Too many requests, please wait before trying again."),
            (faults.unavailable, 503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
            (faults.error, 500, "InternalServerException", "The model failed."),
            (
                faults.deny,
                403,
                "AccessDeniedException",
                "You don't have access to the model with the specified model ID.",
            ),
        ] {
            if strikes(rate) {
                return Err(Refusal::new(status, code, message));
            }
        }
        let model = model.parse::<Model>().map_err(|_| {
            let message = "Could not resolve the foundation model from the provided model identifier.";
            Refusal::new(404, "ResourceNotFoundException", message)
        })?;
        let request = InvokeBody::parse(body, model)?;
        if strikes(faults.hang) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(latency).await;
        if strikes(faults.filter) || is_unfit(&request.prompt) {
            self.inner().stats.filtered += 1;
            // The model's answer to a filtered prompt has neither seeds nor images.
            return Ok(axum_json(StatusCode::OK, &json!({ "finish_reasons": ["Filter reason: prompt"] })));
        }
        let seed = if request.seed == 0 { fastrand::u32(1..) } else { request.seed };
        let picture = tokio::task::spawn_blocking(move || paint(&request, seed, plain));
        let picture = picture.await.map_err(|_| Refusal::new(500, "InternalServerException", "The artist failed."))?;
        self.inner().stats.images += 1;
        let picture = mark(picture.into(), Origin::Algorithm).expect("what the artist encodes can be marked");
        let image = base64_simd::STANDARD.encode_to_string(picture);
        Ok(axum_json(StatusCode::OK, &json!({ "seeds": [seed], "finish_reasons": [null], "images": [image] })))
    }
}

async fn invoke(State(bedrock): State<Bedrock>, Path(model): Path<String>, body: axum::body::Bytes) -> Response {
    bedrock.answer(&model, &body).await.unwrap_or_else(|refusal| {
        match refusal.status {
            429 | 503 => bedrock.inner().stats.throttled += 1,
            _ => bedrock.inner().stats.errors += 1,
        }
        refusal.into_response()
    })
}

fn axum_json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("an answer's body is always JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The body of an InvokeModel call, by the model's own rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InvokeBody {
    prompt: String,
    #[serde(default)]
    negative_prompt: String,
    #[serde(default)]
    seed: u32,
    #[serde(default = "square")]
    aspect_ratio: AspectRatio,
    #[serde(default)]
    output_format: OutputFormat,
    #[serde(default)]
    mode: Option<String>,
}

/// The model's own default, which differs from the API's.
fn square() -> AspectRatio {
    AspectRatio::Square
}

impl InvokeBody {
    fn parse(body: &[u8], model: Model) -> Result<Self, Refusal> {
        let invalid = |why: &str| Refusal::new(400, "ValidationException", why);
        let request: Self = serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        let rule = |broken: bool, rule: &str| if broken { Err(invalid(rule)) } else { Ok(()) };
        let too_long = |text: &str| text.chars().count() > 10_000;
        rule(request.prompt.is_empty() || too_long(&request.prompt), "prompt must have 1 to 10000 characters")?;
        rule(too_long(&request.negative_prompt), "negative_prompt must have at most 10000 characters")?;
        rule(
            request.output_format == OutputFormat::Webp && !model.paints_webp(),
            "output_format webp is not supported",
        )?;
        rule(request.mode.is_some() && model == Model::Core, "mode is not a parameter of this model")?;
        rule(request.mode.as_deref().is_some_and(|mode| mode != "text-to-image"), "mode must be text-to-image")?;
        Ok(request)
    }
}

/// The local content filter: it refuses one word, so that demonstrations and tests can get a refusal.
fn is_unfit(prompt: &str) -> bool {
    prompt.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("nsfw"))
}

fn paint(request: &InvokeBody, seed: u32, plain: bool) -> Vec<u8> {
    let (width, height) = size(request.aspect_ratio);
    if plain {
        return artist::paint_plain(seed, width, height);
    }
    let format = match request.output_format {
        OutputFormat::Png => artist::Format::Png,
        OutputFormat::Jpeg => artist::Format::Jpeg,
        OutputFormat::Webp => artist::Format::Webp,
    };
    let order =
        artist::Order { prompt: &request.prompt, negative_prompt: &request.negative_prompt, seed, width, height };
    artist::paint(&order, format)
}

/// The sizes that the models paint, in pixels.
pub fn size(ratio: AspectRatio) -> (u32, u32) {
    match ratio {
        AspectRatio::UltraWide => (1536, 640),
        AspectRatio::Wide => (1344, 768),
        AspectRatio::Landscape => (1216, 832),
        AspectRatio::Broad => (1088, 896),
        AspectRatio::Square => (1024, 1024),
        AspectRatio::Tall => (896, 1088),
        AspectRatio::OneSheet => (832, 1216),
        AspectRatio::Phone => (768, 1344),
        AspectRatio::UltraTall => (640, 1536),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("each is a status");
        let mut response = axum_json(status, &json!({ "message": self.message }));
        let error_type = HeaderName::from_static("x-amzn-errortype");
        response.headers_mut().insert(error_type, HeaderValue::from_static(self.code));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_checked() {
        let faults: Faults = "throttle=0.2, error=0.05,hang=0.01,filter=0.01".parse().expect("good rates");
        assert_eq!((faults.throttle, faults.error, faults.hang, faults.filter), (0.2, 0.05, 0.01, 0.01));
        for bad in ["throttle", "throttle=x", "throttle=1.5", "sleep=0.1", "throttle=0.7,error=0.7"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_are_held_to_each_models_contract() {
        let parse = |body: serde_json::Value, model| InvokeBody::parse(body.to_string().as_bytes(), model);
        assert!(parse(json!({ "prompt": "x", "aspect_ratio": "2:3", "seed": 0 }), Model::Core).is_ok());
        assert!(parse(json!({ "prompt": "x", "mode": "text-to-image" }), Model::Ultra).is_ok());
        for body in [
            json!({}),
            json!({ "prompt": "" }),
            json!({ "prompt": "x", "cfg_scale": 7 }),
            json!({ "prompt": "x", "mode": "text-to-image" }),
            json!({ "prompt": "x", "output_format": "webp" }),
            json!({ "prompt": "x", "aspect_ratio": "7:5" }),
        ] {
            assert!(parse(body.clone(), Model::Core).is_err(), "{body}");
        }
    }
}
