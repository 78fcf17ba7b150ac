//! The template's numbers against each other, and its variables against those that the functions read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use local::template::{Deployment, GatewayResponse, Route, Surroundings, TEMPLATE, TemplateError};
use serde_json::{Value, json};
use shared::api::ROUTES;
use shared::aws::callers::OwnerFrom;
use shared::problem::{ProblemDetails, type_of};
use shared::{Clock, Problem};
use tests::pipeline::Pipeline;

fn read(parameters: BTreeMap<String, String>) -> Result<Deployment, TemplateError> {
    let (sqs, secret) = ("http://127.0.0.1:9".to_owned(), "secret".to_owned());
    Deployment::read(TEMPLATE, &Surroundings { sqs, parameters, secret })
}

fn deployment() -> Deployment {
    read(BTreeMap::new()).expect("the template is understood")
}

#[test]
fn a_message_stays_hidden_for_six_times_its_functions_timeout() {
    let deployment = deployment();
    let mut sources = 0;
    for (name, function) in &deployment.functions {
        for source in &function.sources {
            let queue = deployment.queue_by_arn(&source.queue).expect("the queue is declared");
            let visibility: u64 = queue.attributes["VisibilityTimeout"].parse().expect("a number");
            assert!(visibility >= 6 * function.timeout, "{name}: {visibility} s for {} s", function.timeout);
            sources += 1;
        }
    }
    assert_eq!(sources, 4);
}

#[test]
fn the_worker_has_half_a_minute_beyond_its_slowest_model() {
    let longest = |seconds: u64| read(BTreeMap::from([("ModelTimeoutSeconds".to_owned(), seconds.to_string())]));
    let timeout = deployment().functions["worker"].timeout;
    assert!(longest(timeout - 30).is_ok(), "the model may take all but half a minute of the worker's time");
    assert!(longest(timeout - 29).is_err(), "and no second more");
}

#[test]
fn no_painting_is_estimated_to_last_longer_than_the_worker_may_run() {
    assert_eq!(status::LONGEST_PAINTING.as_secs(), deployment().functions["worker"].timeout);
}

#[test]
fn api_gateways_own_answers_are_problems_too() {
    let responses = deployment().gateway_responses;
    // DEFAULT_4XX would answer these with 400, but callers must be able to distinguish them.
    let refusals = ["UNAUTHORIZED", "INVALID_SIGNATURE", "EXPIRED_TOKEN", "ACCESS_DENIED", "WAF_FILTERED"];
    let others = ["DEFAULT_4XX", "DEFAULT_5XX", "INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT"];
    for kind in refusals.into_iter().chain(others) {
        assert!(responses.contains_key(kind), "{kind} is answered in API Gateway's own form");
    }
    // AWS: "Customizing the 413 REQUEST_TOO_LARGE default gateway response is currently not supported".
    assert!(!responses.contains_key("REQUEST_TOO_LARGE"));
    for (kind, response) in responses {
        // API Gateway inserts its own message there, as a JSON string.
        let body = response.body.replace("$context.error.messageString", "\"its words\"");
        let problem: ProblemDetails = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(problem.status, response.status, "{kind}");
        assert_eq!(problem.kind, type_of(&problem.code), "{kind}");
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{kind}");
        assert_eq!(response.headers["Content-Type"], "application/problem+json", "{kind}");
        assert_eq!(response.headers["Cache-Control"], "no-store", "{kind}");
        let may_pass = response.status >= 500 || kind == "THROTTLED";
        assert_eq!(response.headers.contains_key("Retry-After"), may_pass, "{kind}");
        // The functions refuse this in the same words.
        let same = match kind.as_str() {
            "MISSING_AUTHENTICATION_TOKEN" => Problem::NoSuchRoute.details(),
            "UNSUPPORTED_MEDIA_TYPE" => Problem::UnsupportedMediaType.details(),
            "UNAUTHORIZED" | "INVALID_SIGNATURE" | "EXPIRED_TOKEN" => Problem::Unauthorized.details(),
            _ => continue,
        };
        assert_eq!((problem.title, problem.detail, problem.code), (same.title, same.detail, same.code), "{kind}");
    }
}

/// Whether an answer lets pages of other origins read it.
fn says_cors(response: &GatewayResponse) -> bool {
    response.headers.keys().any(|name| name.starts_with("Access-Control-"))
}

#[test]
fn pages_of_the_allowed_origin_may_read_api_gateways_own_answers() {
    let none = deployment();
    assert!(none.preflights.is_empty(), "anybody may call a method that nobody needs");
    assert!(!none.gateway_responses.values().any(says_cors));

    let origin = "https://app.example.com";
    let allowing = read(BTreeMap::from([("AllowedOrigin".to_owned(), origin.to_owned())])).expect("it is understood");
    for (kind, response) in &allowing.gateway_responses {
        assert_eq!(response.headers["Access-Control-Allow-Origin"], origin, "{kind}");
        let [exposed, told] = ["Access-Control-Expose-Headers", "Retry-After"].map(|name| response.headers.get(name));
        assert_eq!(exposed.map(String::as_str), told.map(|_| "Retry-After"), "{kind}");
    }
    let paths: BTreeSet<_> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(allowing.preflights.keys().cloned().collect::<BTreeSet<_>>(), paths);
}

#[tokio::test]
async fn a_page_may_send_the_bucket_the_same_requests_deployed_and_local() {
    let template = document();
    let rules = &template["Resources"]["ImageBucket"]["Properties"]["CorsConfiguration"]["CorsRules"];
    let [rule] = rules.as_array().expect("rules").as_slice() else { panic!("{rules}") };
    assert_eq!((&rule["AllowedOrigins"], &rule["AllowedHeaders"]), (&json!(["*"]), &json!(["*"])));
    let pipeline = Pipeline::without_event_sources().await;
    let address = format!("{}/{}/batches/1/input", pipeline.ready().s3, pipeline.ready().bucket);
    let ask = pipeline.http.request(Method::OPTIONS, address).header("origin", "https://app.example.com");
    let ask = ask.header("access-control-request-method", "PUT").send().await.expect("the bucket answers");
    assert_eq!(ask.status(), 204);
    assert_eq!(ask.headers()["access-control-allow-origin"], "*");
    let allowed = ask.headers()["access-control-allow-methods"].to_str().expect("methods");
    assert_eq!(json!(allowed.split(", ").collect::<Vec<_>>()), rule["AllowedMethods"]);
    pipeline.stack.stop().await;
}

#[test]
fn routes_without_a_key_are_limited_to_a_few_requests_a_second() {
    let template = document();
    let api = &template["Resources"]["Api"]["Properties"];
    assert_eq!(api["Auth"]["AddApiKeyRequiredToCorsPreflight"], false);
    let mut limited = BTreeSet::new();
    for setting in api["MethodSettings"].as_array().expect("settings") {
        let (setting, condition) = match setting["Fn::If"].as_array() {
            Some(choice) => (&choice[1], choice[0].as_str()),
            None => (setting, None),
        };
        let path = setting["ResourcePath"].as_str().expect("a path").replacen('/', "", 1).replace("~1", "/");
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let method = setting["HttpMethod"].as_str().expect("a method").to_owned();
        // API Gateway refuses settings for a method that does not exist.
        assert_eq!(condition, (method == "OPTIONS").then_some("AllowsOrigin"), "{method} {path}");
        assert!(setting["MetricsEnabled"] == false && setting["DataTraceEnabled"] == false, "{method} {path}");
        if method != "*" {
            assert_eq!(setting["ThrottlingRateLimit"], 5, "{method} {path}");
            limited.insert((method, path));
        }
    }
    let deployment = deployment();
    let routes = deployment.functions.values().flat_map(|function| &function.routes);
    let open =
        routes.filter(|route| !route.auth.api_key_required).map(|route| (route.method.clone(), route.path.clone()));
    let preflights = ROUTES.iter().map(|(path, _)| ("OPTIONS".to_owned(), (*path).to_owned()));
    assert_eq!(limited, open.chain(preflights).collect());
}

#[test]
fn a_parameter_that_changes_the_api_deploys_it() {
    let template = document();
    // Otherwise SAM creates a deployment only if the template's text has changed.
    assert_eq!(template["Resources"]["Api"]["Properties"]["AlwaysDeploy"], true);
    // With MergeDefinitions, SAM writes such an event into the definition as "any", which API Gateway does not accept.
    for (id, _, function) in functions(&template) {
        for (name, event) in function["Properties"]["Events"].as_object().into_iter().flatten() {
            assert_ne!(event["Properties"]["Method"], "ANY", "{id}: {name}");
        }
    }
}

#[tokio::test]
async fn each_function_reads_exactly_the_variables_that_it_gets() {
    let pipeline = Pipeline::without_event_sources().await;
    let (aws, deployment) = (pipeline.stack.aws(), pipeline.stack.deployment());
    for (name, function) in &deployment.functions {
        let read = RefCell::new(BTreeSet::new());
        let lookup = |variable: &str| {
            read.borrow_mut().insert(variable.to_owned());
            function.environment.get(variable).cloned()
        };
        let clock = Clock::system();
        let built = match name.as_str() {
            "submit" => submit::App::new(aws, clock, &lookup).map(drop),
            "worker" => worker::App::new(aws, clock, &lookup).map(drop),
            "status" => status::App::new(aws, clock, &lookup).map(drop),
            "dead_letter" => dead_letter::App::new(aws, clock, &lookup).map(drop),
            "batch" => batch::App::new(aws, clock, &lookup).map(drop),
            "webhook" => webhook::App::new(aws, clock, &lookup).map(drop),
            other => panic!("{other} is a function that this test does not know"),
        };
        built.expect("the template sets what the function needs");
        let given: BTreeSet<_> = function.environment.keys().cloned().collect();
        assert_eq!(read.into_inner(), given, "{name}");
    }
    pipeline.stop().await;
}

/// The template, unresolved.
pub(crate) fn document() -> Value {
    local::template::document(TEMPLATE).expect("the template is YAML")
}

/// The functions of the template: logical id, name of the binary, declaration.
pub(crate) fn functions(template: &Value) -> Vec<(&str, &str, &Value)> {
    let resources = template["Resources"].as_object().expect("resources");
    let functions = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
    let functions = functions.map(|(id, function)| {
        let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary");
        (id.as_str(), binary, function)
    });
    functions.collect()
}

/// Every name that `value` refers to, by `Ref`, `Fn::GetAtt` or `Fn::Sub`.
fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, argument) in map {
                match (name.as_str(), argument) {
                    ("Ref", Value::String(target)) => drop(into.insert(target.clone())),
                    ("Fn::GetAtt", Value::Array(path)) => into.extend(path[0].as_str().map(str::to_owned)),
                    ("Fn::Sub", Value::String(text)) => {
                        let names = text.split("${").skip(1).filter_map(|rest| rest.split(['}', '.']).next());
                        into.extend(names.map(str::to_owned));
                    }
                    (_, argument) => references(argument, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

#[test]
fn a_parameter_that_changes_a_function_publishes_a_version_of_it() {
    let template = document();
    let parameters = template["Parameters"].as_object().expect("parameters");
    for (id, _, function) in functions(&template) {
        let properties = &function["Properties"];
        let mut used = BTreeSet::new();
        for part in ["Architectures", "LoggingConfig", "MemorySize", "Environment", "Timeout"] {
            references(&properties[part], &mut used);
            references(&template["Globals"]["Function"][part], &mut used);
        }
        // A variable may hold the name of a resource, which a parameter decides.
        for resource in used.clone() {
            references(&template["Resources"][&resource]["Properties"]["BucketName"], &mut used);
        }
        used.retain(|name| parameters.contains_key(name));
        let mut described = BTreeSet::new();
        references(&properties["VersionDescription"], &mut described);
        assert_eq!(described, used, "{id}");
        assert_eq!(properties["AutoPublishAliasAllProperties"], true, "{id}");
    }
}

#[test]
fn a_function_that_is_left_out_leaves_nothing_behind() {
    let template = document();
    for (id, _, function) in functions(&template) {
        if !function["Condition"].is_null() {
            let passed = &function["Properties"]["DeploymentPreference"]["PassthroughCondition"];
            assert_eq!(*passed, true, "SAM would still make a deployment group for {id}");
        }
    }
}

/// The texts of an IAM list, which may be a single text.
fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map_or_else(|| value.as_str().into_iter().collect(), |list| list.iter().filter_map(Value::as_str).collect())
}

#[test]
fn the_boundary_of_the_deploy_role_includes_all_rights_of_the_roles() {
    let (template, deploy) = (document(), deploy_role());
    let statements =
        deploy["Resources"]["Boundary"]["Properties"]["PolicyDocument"]["Statement"].as_array().expect("a list");
    let bounds: BTreeSet<_> = statements.iter().flat_map(|statement| texts(&statement["Action"])).collect();
    let mut roles = 0;
    for (id, role) in template["Resources"].as_object().expect("resources") {
        if role["Type"] != "AWS::IAM::Role" {
            continue;
        }
        let properties = &role["Properties"];
        assert_eq!(properties["PermissionsBoundary"]["Fn::If"][1]["Ref"], "PermissionsBoundary", "{id}");
        for policy in properties["Policies"].as_array().into_iter().flatten() {
            for statement in policy["PolicyDocument"]["Statement"].as_array().expect("statements") {
                // Statements for what the stack may leave out.
                let statement = if statement["Fn::If"].is_array() { &statement["Fn::If"][1] } else { statement };
                assert_eq!(statement["Effect"], "Allow", "{id}");
                for action in texts(&statement["Action"]) {
                    assert!(bounds.contains(action), "{id} may not {action} within the boundary");
                }
            }
        }
        let attached = properties["ManagedPolicyArns"].as_array().into_iter().flatten();
        for policy in attached.map(|arn| arn["Fn::Sub"].as_str().expect("a policy of AWS")) {
            assert!(deploy_role_text().contains(policy), "{id}: CloudFormation may not attach {policy}");
        }
        roles += 1;
    }
    assert_eq!(roles, 8);
}

#[test]
fn the_deploy_role_may_create_every_kind_of_resource_in_the_stack() {
    let (template, deploy) = (document(), deploy_role());
    let policy = &deploy["Resources"]["ServiceRole"]["Properties"]["Policies"][0]["PolicyDocument"];
    let statements = policy["Statement"].as_array().expect("statements");
    let services: BTreeSet<_> =
        statements.iter().flat_map(|one| texts(&one["Action"])).filter_map(|action| action.split(':').next()).collect();
    for resource in template["Resources"].as_object().expect("resources").values() {
        let kind = resource["Type"].as_str().expect("a type");
        let service = match kind.split("::").nth(1).expect("a service") {
            "Serverless" if kind.ends_with("Api") => "apigateway".to_owned(),
            "Serverless" => "lambda".to_owned(),
            other => other.to_lowercase(),
        };
        assert!(services.contains(service.as_str()), "{kind}");
    }
    // Without these the deploy role could create a role with more rights than its own.
    for statement in statements {
        let actions = texts(&statement["Action"]);
        let makes =
            |action: &&&str| matches!(**action, "iam:CreateRole" | "iam:PutRolePolicy" | "iam:AttachRolePolicy");
        if actions.iter().any(|action| makes(&action)) {
            assert_eq!(statement["Condition"]["StringEquals"]["iam:PermissionsBoundary"]["Ref"], "Boundary");
        }
        assert!(!actions.contains(&"iam:DeleteRolePermissionsBoundary") && !actions.contains(&"iam:*"));
    }
}

fn deploy_role_text() -> &'static str {
    include_str!("../../deploy-role.yaml")
}

fn deploy_role() -> Value {
    local::template::document(deploy_role_text()).expect("the template is YAML")
}

#[test]
fn an_authorizer_guards_every_method_except_the_open_ones() {
    let template = document();
    let paths = &template["Resources"]["Api"]["Properties"]["DefinitionBody"]["paths"];
    let guarded = json!([{ "Fn::If": ["HasAuthorizer", { "caller": [] }, { "Ref": "AWS::NoValue" }] }]);
    let mut open = BTreeSet::new();
    for Route { path, method, auth } in deployment().functions.into_values().flat_map(|function| function.routes) {
        let name = if method == "ANY" { "x-amazon-apigateway-any-method".to_owned() } else { method.to_lowercase() };
        let security = &paths[&path][name]["security"];
        if auth.api_key_required {
            assert_eq!(*security, guarded, "{method} {path}");
        } else {
            assert!(security.is_null(), "{method} {path}");
            open.insert(path);
        }
    }
    assert_eq!(open, BTreeSet::from(["/".to_owned(), "/health".to_owned()]));
}

/// The value of a rule's condition.
fn evaluated(value: &Value, parameters: &BTreeMap<&str, Value>) -> Value {
    let Some((function, argument)) = value.as_object().and_then(|map| map.iter().next()) else { return value.clone() };
    let of = |index: usize| evaluated(&argument[index], parameters);
    match function.as_str() {
        "Ref" => parameters[argument.as_str().expect("a parameter")].clone(),
        "Fn::Equals" => (of(0) == of(1)).into(),
        "Fn::Not" => (of(0) == false).into(),
        "Fn::Contains" => argument[0].as_array().expect("a list").contains(&of(1)).into(),
        other => panic!("{other} is not known"),
    }
}

/// The reasons why CloudFormation refuses this combination of parameters.
fn refusals(given: &[(&str, &str)]) -> Vec<String> {
    let template = document();
    let defaults = template["Parameters"].as_object().expect("parameters").iter();
    let mut parameters: BTreeMap<_, _> =
        defaults.map(|(name, parameter)| (name.as_str(), parameter["Default"].clone())).collect();
    for (name, value) in given {
        assert!(parameters.insert(name, (*value).into()).is_some(), "{name} is no parameter");
    }
    let rules = template["Rules"].as_object().expect("rules").values();
    let applied = rules.filter(|rule| evaluated(&rule["RuleCondition"], &parameters) == true);
    let assertions = applied.flat_map(|rule| rule["Assertions"].as_array().expect("assertions"));
    let broken = assertions.filter(|assertion| evaluated(&assertion["Assert"], &parameters) == false);
    broken.map(|assertion| assertion["AssertDescription"].as_str().expect("a reason").to_owned()).collect()
}

#[test]
fn parameters_that_make_no_sense_together_are_refused() {
    let (pool, function) = (("UserPoolArn", "arn:aws:cognito-idp:x"), ("AuthorizerFunctionArn", "arn:aws:lambda:x"));
    let (iam, cognito, lambda) = (("Authorizer", "Iam"), ("Authorizer", "Cognito"), ("Authorizer", "Lambda"));
    let (domain, certificate, zone) =
        (("DomainName", "a.example"), ("CertificateArn", "arn:aws:acm:x"), ("HostedZoneId", "Z1"));
    let (owner, no_page) = (|source| ("OwnerFrom", source), ("Page", "false"));
    for good in [
        &[][..],
        &[iam, no_page],
        &[iam, no_page, owner("IamRole")],
        &[cognito, no_page, pool],
        &[cognito, no_page, pool, owner("Claim:sub")],
        &[lambda, no_page, function, owner("Principal")],
        &[domain, certificate],
        &[domain, certificate, zone],
    ] {
        assert_eq!(refusals(good), [""; 0], "{good:?}");
    }
    for bad in [
        &[owner("Claim:sub")][..],
        &[owner("IamRole")],
        &[owner("Principal")],
        &[iam],
        &[iam, no_page, owner("Claim:sub")],
        &[iam, no_page, owner("Principal")],
        &[cognito, no_page],
        &[cognito, no_page, pool, owner("IamRole")],
        &[cognito, no_page, pool, owner("Principal")],
        &[lambda, no_page],
        &[lambda, no_page, function, owner("Claim:sub")],
        &[domain],
        &[zone],
    ] {
        assert_eq!(refusals(bad).len(), 1, "{bad:?}: {:?}", refusals(bad));
    }
}

#[test]
fn the_functions_accept_each_source_of_owners_that_the_template_accepts() {
    let template = document();
    let pattern = template["Parameters"]["OwnerFrom"]["AllowedPattern"].as_str().expect("a pattern");
    for source in pattern.split('|') {
        let source = source.split_once('[').map_or(source.to_owned(), |(kind, _)| format!("{kind}cognito:username"));
        assert!(source.parse::<OwnerFrom>().is_ok(), "{source}");
    }
}

#[test]
fn samconfig_sets_no_parameter() {
    let lines = include_str!("../../samconfig.toml").lines();
    // Every deployment would set it again, and undo what was changed in between.
    assert!(lines.filter(|line| !line.starts_with('#')).all(|line| !line.contains("parameter_overrides")));
}

#[test]
fn each_suppressed_check_says_why() {
    let (template, deploy) = (document(), deploy_role());
    let mut reasons = 0;
    let resources = [&template, &deploy].map(|template| template["Resources"].as_object().expect("resources"));
    for (id, resource) in resources.into_iter().flatten() {
        assert!(resource["Metadata"]["cfn-lint"].is_null(), "{id}");
        for skip in resource["Metadata"]["checkov"]["skip"].as_array().into_iter().flatten() {
            let reason = skip["comment"].as_str().unwrap_or_default();
            assert!(reason.len() > 30 && reason.ends_with('.'), "{id}: {skip}");
            reasons += 1;
        }
    }
    assert!(reasons > 0);
}

#[test]
fn a_failed_first_deployment_leaves_nothing_that_blocks_the_next() {
    let template = document();
    let mut kept = BTreeMap::new();
    for (id, resource) in template["Resources"].as_object().expect("resources") {
        if let Some(policy) = resource["DeletionPolicy"].as_str() {
            assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{id}");
            kept.insert(id.as_str(), policy);
        }
    }
    // A protected table cannot be deleted, so a rollback that tried would fail. It has no fixed name.
    for table in ["JobsTable", "DeliveriesTable"] {
        assert_eq!(kept.remove(table), Some("Retain"));
        assert!(template["Resources"][table]["Properties"]["TableName"].is_null());
    }
    assert_eq!(
        kept.keys().copied().collect::<Vec<_>>(),
        ["ApiGatewayAccount", "ApiGatewayLogRoleForAccount", "ImageBucket", "WebhookMasterSecret"]
    );
    assert!(kept.values().all(|policy| *policy == "RetainExceptOnCreate"), "{kept:?}");
}

#[test]
fn alarms_read_every_table_and_index_and_no_more_metrics_than_cloudwatch_allows() {
    let template = document();
    let mut watched = BTreeSet::new();
    for (id, resource) in template["Resources"].as_object().expect("resources") {
        let Some(queries) = resource["Properties"]["Metrics"].as_array() else { continue };
        // Metrics of what the stack may leave out.
        let queries: Vec<_> =
            queries.iter().map(|query| if query["Fn::If"].is_array() { &query["Fn::If"][1] } else { query }).collect();
        let read: Vec<_> = queries.iter().filter(|query| query["MetricStat"].is_object()).collect();
        // "Limits that apply to alarms based on metric math expressions".
        assert!(read.len() <= 10, "{id} reads {} metrics", read.len());
        let expressions: Vec<_> = queries.iter().filter_map(|query| query["Expression"].as_str()).collect();
        assert_eq!(expressions.len(), 1, "{id}");
        for query in read {
            let name = query["Id"].as_str().expect("an id");
            let filled =
                expressions[0].contains(&format!("FILL({name}, 0)")) || expressions[0].contains("FILL(METRICS(), 0)");
            assert!(filled, "{id}: what is missing of {name} must not make all of it missing");
            let metric = &query["MetricStat"]["Metric"];
            let name = metric["MetricName"].as_str().expect("a name");
            if name.ends_with("ThrottleEvents") {
                let dimensions = metric["Dimensions"].as_array().expect("dimensions");
                let table = dimensions[0]["Value"]["Ref"].as_str().expect("a table");
                watched.insert((table, dimensions.get(1).and_then(|index| index["Value"].as_str()), name));
            }
        }
    }
    let mut all = BTreeSet::new();
    for table in ["JobsTable", "DeliveriesTable"] {
        let indexes = template["Resources"][table]["Properties"]["GlobalSecondaryIndexes"].as_array().expect("indexes");
        let names = indexes.iter().map(|index| Some(index["IndexName"].as_str().expect("a name")));
        for index in std::iter::once(None).chain(names) {
            all.extend(["ReadThrottleEvents", "WriteThrottleEvents"].map(|metric| (table, index, metric)));
        }
    }
    assert_eq!(watched, all);
}

#[test]
fn nothing_is_served_over_plain_http_or_old_tls() {
    let template = document();
    let resources = template["Resources"].as_object().expect("resources");
    for id in ["Api", "Domain"] {
        assert_eq!(resources[id]["Properties"]["SecurityPolicy"], "SecurityPolicy_TLS13_1_2_2021_06", "{id}");
    }
    for (id, resource) in resources {
        if matches!(resource["Type"].as_str(), Some("AWS::SQS::Queue" | "AWS::S3::Bucket")) {
            let policy = &resources[&format!("{id}Policy")]["Properties"];
            let whom = if policy["Queues"].is_null() { &policy["Bucket"] } else { &policy["Queues"][0] };
            assert_eq!(whom["Ref"], id.as_str());
            let statement = &policy["PolicyDocument"]["Statement"][0];
            assert_eq!((&statement["Effect"], &statement["Principal"]), (&"Deny".into(), &"*".into()), "{id}");
            assert_eq!(statement["Condition"]["Bool"]["aws:SecureTransport"], "false", "{id}");
            let resource =
                if statement["Resource"].is_array() { &statement["Resource"][0] } else { &statement["Resource"] };
            assert_eq!(resource["Fn::GetAtt"][0], id.as_str());
        }
    }
}

#[test]
fn the_access_log_is_json_and_holds_no_key() {
    let template = document();
    let format = template["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Format"].as_str().expect("a format");
    let fields: BTreeMap<String, String> = serde_json::from_str(format).expect("it is JSON");
    for (name, variable) in &fields {
        assert!(variable.starts_with("$context."), "{name}: {variable}");
        assert_ne!(variable, "$context.identity.apiKey");
    }
    assert_eq!(fields["apiKeyId"], "$context.identity.apiKeyId");
}

#[test]
fn the_dashboard_is_json() {
    let template = document();
    let body = &template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"];
    let (text, choice) = (body[0].as_str().expect("a body"), &body[1]["WebhookWidgets"]["Fn::If"]);
    assert_eq!(choice[0], "SendsWebhooks");
    let widgets = [choice[1]["Fn::Sub"].as_str(), choice[2].as_str()].map(|more| {
        let body: Value = serde_json::from_str(&text.replace("${WebhookWidgets}", more?)).expect("it is JSON");
        Some(body["widgets"].as_array()?.len())
    });
    assert!(widgets[0] > widgets[1] && widgets[1] > Some(0), "{widgets:?}");
}

#[test]
fn a_panic_unwinds_in_the_deployed_functions() {
    let manifest = include_str!("../../Cargo.toml");
    let release = manifest.split("[profile.release]\n").nth(1).expect("there is a release profile");
    let release = release.split("\n[").next().expect("a section");
    // cargo-lambda builds with `panic = "abort"` by default, and then one bad ticket would end its neighbors too.
    assert!(release.contains("panic = \"unwind\""), "{release}");
}
