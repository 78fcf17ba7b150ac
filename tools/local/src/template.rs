//! Reads `template.yaml`, so that the local stack runs what is deployed.
//!
//! It resolves the intrinsic functions of CloudFormation that the template uses in the properties that matter here. Others are
//! an error that names their place.

use std::collections::BTreeMap;
use std::slice;

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;
use shared::webhook::WebhookPolicy;

/// The deployed template, as of the build of this program.
pub const TEMPLATE: &str = include_str!("../../../template.yaml");

/// The account that the emulated resources belong to.
pub(crate) const ACCOUNT: &str = "000000000000";

pub(crate) const REGION: &str = "us-west-2";

/// The status function makes the key of its cursors from it. It is constant, so that cursors outlive a restart.
const STACK_ID: &str = "arn:aws:cloudformation:us-west-2:000000000000:stack/local/local";

const INTEGRATION: &str = "x-amazon-apigateway-integration";

const ANY_METHOD: &str = "x-amazon-apigateway-any-method";

/// What a deployment depends on besides the template.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The URL of the emulated SQS, with which every queue's URL begins.
    pub sqs: String,
    /// Parameters that replace their defaults.
    pub parameters: BTreeMap<String, String>,
    /// What every secret of Secrets Manager holds.
    pub secret: String,
}

/// Why the template cannot be deployed locally.
#[derive(Debug, thiserror::Error)]
#[error("template.yaml, at {place}: {what}")]
pub struct TemplateError {
    place: String,
    what: String,
}

/// The part of the template that is emulated.
#[derive(Debug, Default)]
pub struct Deployment {
    /// The tables, by logical id.
    pub tables: BTreeMap<String, Table>,
    /// The queues, by logical id.
    pub queues: BTreeMap<String, Queue>,
    /// The names of the buckets, by logical id.
    pub buckets: BTreeMap<String, String>,
    /// The functions, by the name of their binary.
    pub functions: BTreeMap<String, Function>,
    /// What API Gateway answers without a function, by the type of the response.
    pub gateway_responses: BTreeMap<String, GatewayResponse>,
    /// What API Gateway answers to OPTIONS, by path.
    pub preflights: BTreeMap<String, GatewayResponse>,
    pub(crate) minimum_compression_size: Option<usize>,
}

/// An answer of API Gateway without a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body. Variables of API Gateway are not replaced.
    pub body: String,
}

/// A DynamoDB table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its properties, in the form of CloudFormation.
    pub properties: Value,
}

/// An SQS queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    pub(crate) arn: String,
    /// Its attributes, by their names in the SQS API.
    pub attributes: BTreeMap<String, String>,
}

/// A Lambda function.
#[derive(Debug)]
pub struct Function {
    /// Its environment variables.
    pub environment: BTreeMap<String, String>,
    /// The timeout of an invocation, in seconds.
    pub timeout: u64,
    /// Its routes of the API.
    pub routes: Vec<Route>,
    /// The queues whose messages it processes.
    pub sources: Vec<Source>,
}

/// A route of the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Route {
    /// The path, with its parameters in braces.
    pub path: String,
    /// The HTTP method, in capitals; `ANY` stands for all that no other route of the path has.
    pub method: String,
    /// Who may call it.
    #[serde(default)]
    pub auth: RouteAuth,
}

/// Who may call a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RouteAuth {
    /// Whether the caller needs an API key, which is the API's default.
    pub api_key_required: bool,
}

impl Default for RouteAuth {
    fn default() -> Self {
        Self { api_key_required: true }
    }
}

/// An SQS event source.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Source {
    /// The ARN of the queue.
    pub queue: String,
    pub(crate) batch_size: i32,
    /// How far it scales.
    #[serde(rename = "ScalingConfig")]
    pub scaling: Scaling,
}

#[derive(Deserialize)]
#[serde(tag = "Type", content = "Properties")]
enum Event {
    Api(Route),
    #[serde(rename = "SQS")]
    Sqs(Source),
}

/// How far an event source scales.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scaling {
    /// The most invocations at once.
    pub maximum_concurrency: usize,
}

impl Deployment {
    /// Has the functions accept endpoints on this machine, which the template itself cannot say.
    pub(crate) fn allow_webhooks_to_loopback(&mut self) {
        for function in self.functions.values_mut() {
            if let Some(setting) = function.environment.get_mut("WEBHOOKS").filter(|setting| *setting == "true") {
                *setting = WebhookPolicy::AlsoLoopback.to_string();
            }
        }
    }

    /// Reads and resolves a template. What this stack does not understand is an error, and so is an unknown parameter.
    pub fn read(template: &str, surroundings: &Surroundings) -> Result<Self, TemplateError> {
        let template = document(template)?;
        let resolver = Resolver::new(&template, surroundings)?;
        let mut deployment = Self::default();
        // The paths of the API name functions, so these are read before it.
        for is_api in [false, true] {
            for (id, resource) in resolver.resources {
                if (resource["Type"] == "AWS::Serverless::Api") == is_api {
                    let added = deployment.add(&resolver, id, resource);
                    added.map_err(|error| error.within("Properties").within(id).within("Resources"))?;
                }
            }
        }
        Ok(deployment)
    }

    fn add(&mut self, resolver: &Resolver<'_>, id: &str, resource: &Value) -> Result<(), TemplateError> {
        let (id, properties) = (id.to_owned(), &resource["Properties"]);
        if let Some(condition) = resource["Condition"].as_str()
            && !resolver.condition(condition)?
        {
            return Ok(());
        }
        match resource["Type"].as_str() {
            Some("AWS::DynamoDB::Table") => {
                let table = Table { name: name(&id), properties: resolver.resolve(properties)? };
                self.tables.insert(id, table);
            }
            Some("AWS::SQS::Queue") => {
                let attributes = resolver.queue_attributes(properties)?;
                let queue = Queue { name: name(&id), url: resolver.queue_url(&id), arn: queue_arn(&id), attributes };
                self.queues.insert(id, queue);
            }
            Some("AWS::S3::Bucket") => {
                let name = resolver.bucket_name(&id)?;
                self.buckets.insert(id, name);
            }
            Some("AWS::Serverless::Function") => {
                self.functions.insert(resolver.binary(&id)?, resolver.function(properties)?);
            }
            Some("AWS::Serverless::Api") => self.add_api(resolver, properties)?,
            _ => {}
        }
        Ok(())
    }

    fn add_api(&mut self, resolver: &Resolver<'_>, properties: &Value) -> Result<(), TemplateError> {
        for (kind, response) in entries(&properties["GatewayResponses"]) {
            let response = resolver.resolve(response).and_then(|response| gateway_response(&response));
            let response = response.map_err(|error| error.within(kind).within("GatewayResponses"))?;
            self.gateway_responses.insert(kind.clone(), response);
        }
        for (path, methods) in entries(&properties["DefinitionBody"]["paths"]) {
            let within = |error: TemplateError| error.within(path).within("paths").within("DefinitionBody");
            let options = resolver.resolve(&methods["options"]).map_err(within)?;
            if !options.is_null() {
                self.preflights.insert(path.clone(), preflight(&options).map_err(within)?);
            }
            if let Some(method) = methods.get(ANY_METHOD) {
                let function = method[INTEGRATION]["uri"]["Fn::Sub"][1]["Function"]["Ref"].as_str();
                let binary = function.and_then(|alias| resolver.binary(alias.strip_suffix(".Alias")?).ok());
                let function = binary.and_then(|binary| self.functions.get_mut(&binary));
                let function =
                    function.ok_or_else(|| within(fault("it does not invoke a function of this template")))?;
                let route = Route { path: path.clone(), method: "ANY".to_owned(), auth: RouteAuth::default() };
                function.routes.push(route);
            }
        }
        let size = properties["MinimumCompressionSize"].as_u64();
        self.minimum_compression_size = size.and_then(|size| size.try_into().ok());
        Ok(())
    }

    /// The queue with this ARN.
    pub fn queue_by_arn(&self, arn: &str) -> Option<&Queue> {
        self.queues.values().find(|queue| queue.arn == arn)
    }
}

/// A template as JSON, with unresolved intrinsic functions in their long form.
pub fn document(template: &str) -> Result<Value, TemplateError> {
    json_of(serde_yaml_ng::from_str(template).map_err(|error| fault(error.to_string()))?)
}

fn fault(what: impl Into<String>) -> TemplateError {
    TemplateError { place: String::new(), what: what.into() }
}

impl TemplateError {
    /// The same error, at a place within `outer`.
    fn within(mut self, outer: &str) -> Self {
        self.place = format!("{outer}/{}", self.place).trim_end_matches('/').to_owned();
        self
    }
}

/// Turns YAML into JSON, and the short form of an intrinsic function (`!Ref X`) into the long form (`{"Ref": "X"}`).
fn json_of(yaml: Yaml) -> Result<Value, TemplateError> {
    Ok(match yaml {
        Yaml::Sequence(items) => items.into_iter().map(json_of).collect::<Result<_, _>>()?,
        Yaml::Mapping(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                let key = key.as_str().ok_or_else(|| fault("a key is not a string"))?.to_owned();
                let value = json_of(value).map_err(|error| error.within(&key))?;
                map.insert(key, value);
            }
            map.into()
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let (name, value) = match (tag.trim_start_matches('!'), json_of(tagged.value)?) {
                (name @ ("Ref" | "Condition"), value) => (name.to_owned(), value),
                // The short form is one text of resource and attribute.
                ("GetAtt", Value::String(text)) => {
                    ("Fn::GetAtt".to_owned(), text.split('.').map(Value::from).collect())
                }
                (name, value) => (format!("Fn::{name}"), value),
            };
            Value::Object(Map::from_iter([(name, value)]))
        }
        scalar => serde_json::to_value(scalar).map_err(|error| fault(error.to_string()))?,
    })
}

/// The entries of an object; none of anything else.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn gateway_response(declared: &Value) -> Result<GatewayResponse, TemplateError> {
    let status = declared["StatusCode"].as_u64().and_then(|status| status.try_into().ok());
    let body = declared["ResponseTemplates"]["application/json"].as_str();
    let (Some(status), Some(body)) = (status, body) else {
        return Err(fault("the response needs a status and a body"));
    };
    let headers = headers(&declared["ResponseParameters"]["Headers"], "")?;
    Ok(GatewayResponse { status, headers, body: body.to_owned() })
}

/// The answer of a mock integration.
fn preflight(method: &Value) -> Result<GatewayResponse, TemplateError> {
    let declared = &method[INTEGRATION]["responses"]["default"];
    let status = declared["statusCode"].as_str().and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| fault("the response needs a status"))?;
    let headers = headers(&declared["responseParameters"], "method.response.header.")?;
    Ok(GatewayResponse { status, headers, body: String::new() })
}

/// Headers with constant values, which are in quotes.
fn headers(declared: &Value, prefix: &str) -> Result<BTreeMap<String, String>, TemplateError> {
    let header = |(name, value): (&String, &Value)| {
        let value = value.as_str()?.strip_prefix('\'')?.strip_suffix('\'')?;
        Some((name.strip_prefix(prefix)?.to_owned(), value.to_owned()))
    };
    let headers = entries(declared).map(header).collect::<Option<_>>();
    headers.ok_or_else(|| fault("each header must be a constant in quotes"))
}

/// The physical name of a resource.
fn name(id: &str) -> String {
    format!("moviePosterDesign-{id}")
}

fn queue_arn(id: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{}", name(id))
}

struct Resolver<'a> {
    surroundings: &'a Surroundings,
    parameters: BTreeMap<&'a str, Value>,
    conditions: &'a Value,
    resources: &'a Map<String, Value>,
}

impl<'a> Resolver<'a> {
    fn new(template: &'a Value, surroundings: &'a Surroundings) -> Result<Self, TemplateError> {
        let mut parameters = BTreeMap::new();
        for (name, parameter) in entries(&template["Parameters"]) {
            let given = surroundings.parameters.get(name).map(|text| Value::from(text.as_str()));
            let value = parameter_value(parameter, &given.unwrap_or_else(|| parameter["Default"].clone()));
            let value = value.map_err(|rule| fault(rule).within(name).within("Parameters"))?;
            parameters.insert(name.as_str(), value);
        }
        if let Some(stranger) = surroundings.parameters.keys().find(|name| !parameters.contains_key(name.as_str())) {
            let known: Vec<_> = parameters.keys().copied().collect();
            return Err(fault(format!("there is no {stranger}, only {}", known.join(", "))).within("Parameters"));
        }
        let resources = template["Resources"].as_object();
        let resources = resources.ok_or_else(|| fault("the template has no resources"))?;
        Ok(Self { surroundings, parameters, conditions: &template["Conditions"], resources })
    }

    fn queue_url(&self, id: &str) -> String {
        format!("{}/{ACCOUNT}/{}", self.surroundings.sqs, name(id))
    }

    fn bucket_name(&self, id: &str) -> Result<String, TemplateError> {
        let given = self.resolve(&self.resources[id]["Properties"]["BucketName"])?;
        // Bucket names must be in lower case.
        Ok(scalar(&given).unwrap_or_else(|| name(id).to_lowercase()))
    }

    fn binary(&self, id: &str) -> Result<String, TemplateError> {
        let function = self.resources.get(id).unwrap_or(&Value::Null);
        let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str();
        binary.map(str::to_owned).ok_or_else(|| fault("the function has no Metadata.BuildProperties.Binary"))
    }

    fn function(&self, properties: &Value) -> Result<Function, TemplateError> {
        let mut environment = BTreeMap::new();
        for (name, value) in entries(&self.resolve(&properties["Environment"]["Variables"])?) {
            let value = scalar(value).ok_or_else(|| fault(format!("the variable {name} must be a scalar")))?;
            environment.insert(name.clone(), value);
        }
        let timeout = properties["Timeout"].as_u64().ok_or_else(|| fault("the function has no Timeout"))?;
        let (mut routes, mut sources) = (Vec::new(), Vec::new());
        for (name, event) in entries(&properties["Events"]) {
            let event = self
                .resolve(event)
                .and_then(|event| serde_json::from_value(event).map_err(|error| fault(error.to_string())));
            match event.map_err(|error| error.within(name).within("Events"))? {
                Event::Api(route) => routes.push(route),
                Event::Sqs(source) => sources.push(source),
            }
        }
        Ok(Function { environment, timeout, routes, sources })
    }

    /// A queue's properties as attributes of the SQS API: text, and JSON for the redrive policy.
    fn queue_attributes(&self, properties: &Value) -> Result<BTreeMap<String, String>, TemplateError> {
        // Encryption, tags and the like mean nothing to a queue in this process.
        let known =
            ["DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "RedrivePolicy", "VisibilityTimeout"];
        let properties = self.resolve(properties)?;
        let known = entries(&properties).filter(|(name, _)| known.contains(&name.as_str()));
        Ok(known.map(|(name, value)| (name.clone(), scalar(value).unwrap_or_else(|| value.to_string()))).collect())
    }

    fn resolve(&self, value: &Value) -> Result<Value, TemplateError> {
        match value {
            Value::Object(map) => {
                if let Some((name, argument)) = map.iter().next()
                    && map.len() == 1
                    && (name == "Ref" || name.starts_with("Fn::"))
                {
                    return self.call(name, argument);
                }
                let mut resolved = Map::new();
                for (key, value) in map {
                    let value = self.resolve(value).map_err(|error| error.within(key))?;
                    // `AWS::NoValue` removes the property.
                    if !value.is_null() {
                        resolved.insert(key.clone(), value);
                    }
                }
                Ok(Value::Object(resolved))
            }
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            scalar => Ok(scalar.clone()),
        }
    }

    fn call(&self, name: &str, argument: &Value) -> Result<Value, TemplateError> {
        let arguments = argument.as_array().map_or(slice::from_ref(argument), Vec::as_slice);
        match (name, arguments) {
            ("Ref", [Value::String(target)]) => self.reference(target),
            ("Fn::GetAtt", [Value::String(id), Value::String(attribute)])
                if attribute == "Arn" && self.kind(id) == Some("AWS::SQS::Queue") =>
            {
                Ok(queue_arn(id).into())
            }
            // A dynamic reference, see
            // <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references-secretsmanager.html>.
            ("Fn::Sub", [Value::String(text)]) if text.starts_with("{{resolve:secretsmanager:") => {
                Ok(self.surroundings.secret.clone().into())
            }
            ("Fn::Sub", [Value::String(text)]) => self.substitute(text).map(Value::from),
            ("Fn::If", [Value::String(condition), then, otherwise]) => {
                self.resolve(if self.condition(condition)? { then } else { otherwise })
            }
            ("Fn::Equals", [left, right]) => {
                Ok(Value::Bool(scalar(&self.resolve(left)?) == scalar(&self.resolve(right)?)))
            }
            ("Fn::Not", [argument]) => match self.resolve(argument)? {
                Value::Bool(flag) => Ok(Value::Bool(!flag)),
                _ => Err(fault("Fn::Not needs a condition")),
            },
            _ => Err(fault(format!("the local stack does not understand {name} of {argument}"))),
        }
    }

    fn condition(&self, name: &str) -> Result<bool, TemplateError> {
        let condition = self.resolve(&self.conditions[name])?;
        condition.as_bool().ok_or_else(|| fault(format!("there is no condition {name}")))
    }

    /// The type of a resource; `None` if there is none of this id.
    fn kind(&self, id: &str) -> Option<&str> {
        self.resources.get(id)?["Type"].as_str()
    }

    fn reference(&self, target: &str) -> Result<Value, TemplateError> {
        if let Some(value) = self.parameters.get(target) {
            return Ok(value.clone());
        }
        Ok(match target {
            "AWS::NoValue" => Value::Null,
            "AWS::StackName" => "local".into(),
            "AWS::StackId" => STACK_ID.into(),
            _ => match self.kind(target) {
                Some("AWS::SQS::Queue") => self.queue_url(target).into(),
                Some("AWS::S3::Bucket") => self.bucket_name(target)?.into(),
                Some(_) => name(target).into(),
                None => return Err(fault(format!("there is no {target}"))),
            },
        })
    }

    fn substitute(&self, text: &str) -> Result<String, TemplateError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| fault("a ${ is not closed"))?;
            out = out + before + &scalar(&self.reference(name)?).unwrap_or_default();
            rest = after;
        }
        Ok(out + rest)
    }
}

/// A parameter's value, checked by the rules of CloudFormation except patterns.
fn parameter_value(parameter: &Value, value: &Value) -> Result<Value, String> {
    let text = scalar(value).ok_or("it has no default and must be given")?;
    if let Some(allowed) = parameter["AllowedValues"].as_array()
        && !allowed.iter().any(|one| scalar(one).as_deref() == Some(&text))
    {
        return Err(format!("{text:?} is not one of its allowed values"));
    }
    if parameter["Type"] != "Number" {
        return Ok(text.into());
    }
    let number: i64 = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    let (least, most) = (parameter["MinValue"].as_i64(), parameter["MaxValue"].as_i64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        return Err(format!("{number} is outside of its limits"));
    }
    Ok(number.into())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
