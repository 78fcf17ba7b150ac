//! The documents against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use local::Options;
use serde_json::{Value, json};
use shared::api::{MAX_BODY_BYTES, ROUTES};
use shared::batch::BatchOrder;
use shared::batch_file::MAX_COLUMNS;
use shared::fault::MAX_FAULTS;
use shared::order::{Model, Order};
use tests::front::serve;
use tests::pipeline::Pipeline;
use tests::runtime_api::binary;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

type Routes = BTreeSet<(String, String)>;

fn routes_of_code() -> Routes {
    let route = |path: &str, method: &str| (method.to_owned(), path.to_owned());
    ROUTES.iter().flat_map(|(path, methods)| methods.iter().map(move |method| route(path, method))).collect()
}

#[tokio::test]
async fn openapi_the_template_and_the_code_name_the_same_routes() {
    let openapi: Value = serde_yaml_ng::from_str(&read("api/openapi.yaml")).expect("it is YAML");
    let methods = ["get", "post", "put", "delete", "patch", "head", "options", "trace"];
    let mut documented = Routes::new();
    for (path, item) in openapi["paths"].as_object().expect("it has paths") {
        for method in
            item.as_object().expect("a path is an object").keys().filter(|key| methods.contains(&key.as_str()))
        {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    assert_eq!(documented, routes_of_code());

    let pipeline = Pipeline::without_event_sources().await;
    let functions = pipeline.stack.deployment().functions.values();
    let deployed: Routes = functions
        .clone()
        .flat_map(|function| function.routes.iter().map(|route| (route.method.to_uppercase(), route.path.clone())))
        .collect();
    let (others, named): (Routes, Routes) = deployed.into_iter().partition(|(method, _)| method == "ANY");
    // A route without a key needs none for HEAD either. For other paths the route for any method answers HEAD.
    let (heads, named): (Routes, Routes) = named.into_iter().partition(|(method, _)| method == "HEAD");
    let mut open: Vec<_> = functions.flat_map(|function| &function.routes).collect();
    open.retain(|route| !route.auth.api_key_required && route.method != "HEAD");
    let open: Routes = open.iter().map(|route| ("HEAD".to_owned(), route.path.clone())).collect();
    assert_eq!(heads, open);
    assert_eq!(named, routes_of_code());
    let answered: BTreeSet<_> = others.into_iter().map(|(_, path)| path).collect();
    let paths: BTreeSet<_> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(answered, paths, "every path answers to the methods that it does not know");
    pipeline.stop().await;
}

fn openapi() -> Value {
    serde_yaml_ng::from_str(&read("api/openapi.yaml")).expect("it is YAML")
}

/// Whether the service accepts a job, and a batch of this one job, with these fields in place of the usual ones.
fn is_taken(fields: Value) -> bool {
    let mut job = json!({ "prompt": "A heist", "poster": { "title": "Heist" } });
    let Value::Object(fields) = fields else { panic!("fields") };
    job.as_object_mut().expect("a job").extend(fields);
    Order::parse(job, "", Model::Sd35Large).is_ok()
}

fn is_batch_taken(batch: Value) -> bool {
    BatchOrder::parse(batch, Model::Sd35Large).is_ok()
}

#[test]
fn the_limits_of_the_documents_are_those_of_the_code() {
    let schemas = &openapi()["components"]["schemas"];
    let guide = read("docs/api.md");
    let text = |length: usize| "x".repeat(length);
    let poster = |field: &str, value: Value| {
        let mut poster = json!({ "title": "Heist" });
        poster[field] = value;
        is_taken(json!({ "poster": poster }))
    };
    let credit = |role: usize, name: usize| poster("credits", json!([{ "role": text(role), "name": text(name) }]));
    let metadata = |pairs: usize, key: usize, value: usize| {
        let pairs = (0..pairs).map(|pair| (format!("{pair:0>key$}"), text(value).into()));
        is_taken(json!({ "metadata": pairs.collect::<serde_json::Map<_, _>>() }))
    };
    let batch = |field: &str, length: usize| {
        let mut batch = json!({ "jobs": [{ "prompt": "A heist" }] });
        batch[field] = text(length).into();
        is_batch_taken(batch)
    };
    let jobs = |jobs: usize| is_batch_taken(json!({ "jobs": vec![json!({ "prompt": "A heist" }); jobs] }));
    let custom_id = |length: usize| is_batch_taken(json!({ "jobs": [{ "prompt": "x", "custom_id": text(length) }] }));

    let webhook = |length: usize| {
        let url = format!("https://example.com/{}", text(length - "https://example.com/".len()));
        is_taken(json!({ "webhook": { "url": url } }))
    };

    type Takes<'a> = &'a dyn Fn(usize) -> bool;
    let limits: [(&str, &str, Takes<'_>, &str); 15] = [
        (
            "Prompt",
            "maxLength",
            &|n| is_taken(json!({ "prompt": text(n) })),
            "| `prompt`, `negative_prompt` | 1 to {} char",
        ),
        (
            "JobRequest/negative_prompt",
            "maxLength",
            &|n| is_taken(json!({ "negative_prompt": text(n), "poster": null })),
            "`negative_prompt` | 1 to {} char",
        ),
        ("JobRequest/seed", "maximum", &|n| is_taken(json!({ "seed": n })), "1 to {}"),
        ("Metadata", "maxProperties", &|n| metadata(n, 2, 1), "| `metadata` | {} pairs; keys"),
        ("Metadata//propertyNames", "maxLength", &|n| metadata(1, n, 1), "keys of 1 to {} characters, values"),
        ("Metadata//additionalProperties", "maxLength", &|n| metadata(1, 1, n), "values of at most {}; no such"),
        (
            "Lettering/title",
            "maxLength",
            &|n| poster("title", text(n).into()),
            "| `title` | required; 1 to {} characters |",
        ),
        (
            "Lettering/tagline",
            "maxLength",
            &|n| poster("tagline", text(n).into()),
            "| `tagline` | 1 to {} characters |",
        ),
        (
            "Lettering/credits",
            "maxItems",
            &|n| poster("credits", vec![json!({ "name": "x" }); n].into()),
            "| `credits` | at most {} of",
        ),
        ("Credit/role", "maxLength", &|n| credit(n, 1), "the role of 1 to {} or"),
        ("Credit/name", "maxLength", &|n| credit(1, n), "the name of 1 to {} char"),
        ("WebhookUrl", "maxLength", &webhook, "| `url` of a webhook | {} characters |"),
        ("BatchRequest/name", "maxLength", &|n| batch("name", n), "| `name` of a batch | 1 to {} char"),
        ("BatchRequest/jobs", "maxItems", &jobs, "| jobs in a batch | 1 to {} |"),
        ("BatchJobRequest/custom_id", "maxLength", &custom_id, "| `custom_id` | 1 to {} characters"),
    ];
    for (place, keyword, takes, told) in limits {
        let (schema, rest) = place.split_once('/').unwrap_or((place, ""));
        let schema = match rest.strip_prefix('/') {
            Some(keyword) => &schemas[schema][keyword],
            None if rest.is_empty() => &schemas[schema],
            None => &schemas[schema]["properties"][rest],
        };
        let limit = schema[keyword].as_u64().unwrap_or_else(|| panic!("{place} has no {keyword}")) as usize;
        assert!(takes(limit) && !takes(limit + 1), "{place}: {keyword} is {limit}");
        let told = [limit.to_string(), with_commas(limit)].map(|limit| told.replace("{}", &limit));
        assert!(told.iter().any(|told| guide.contains(told)), "docs/api.md does not say {told:?}");
    }
}

#[test]
fn the_guide_states_the_limits_that_no_schema_has() {
    let guide = read("docs/api.md");
    for (limit, told) in [
        (MAX_BODY_BYTES, "| a body | {} bytes, where"),
        (MAX_COLUMNS, "| columns of a CSV file | {} |"),
        (MAX_FAULTS, "| faults in one problem | {};"),
    ] {
        let told = told.replace("{}", &with_commas(limit));
        assert!(guide.contains(&told), "docs/api.md does not say {told:?}");
    }
}

fn with_commas(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", with_commas(number / 1000), number % 1000) }
}

#[test]
fn the_openapi_document_lists_each_problem_under_its_status() {
    let document = openapi();
    let mut places: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let paths = document["paths"].as_object().expect("it has paths").values();
    let operations = paths.flat_map(|path| path.as_object().expect("a path").values());
    for (status, response) in operations.filter_map(|operation| operation["responses"].as_object()).flatten() {
        let response = resolved(&document, response);
        let Some(problem) = response["content"].get("application/problem+json") else { continue };
        assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem");
        for example in problem["examples"].as_object().expect("examples").values() {
            let problem = &resolved(&document, example)["value"];
            let code = problem["code"].as_str().expect("a code").to_owned();
            places.entry((code, problem["status"].to_string())).or_default().insert(status.clone());
        }
    }
    for ((code, status), places) in &places {
        assert!(places.contains(status), "{code} has the status {status}, and stands at {places:?}");
    }
    // These answer requests that no operation describes.
    let others =
        ["bad_request", "foreign_host", "foreign_origin", "invalid_host", "method_not_allowed", "no_such_route"];
    let codes = document["components"]["schemas"]["ProblemCode"]["enum"].as_array().expect("codes");
    let codes: BTreeSet<_> = codes.iter().filter_map(Value::as_str).collect();
    let seen = places.keys().map(|(code, _)| code.as_str());
    assert_eq!(codes, seen.chain(others).collect());
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(place) => document.pointer(&place[1..]).unwrap_or_else(|| panic!("there is no {place}")),
        None => value,
    }
}

/// Client generators read only a part of JSON Schema. They drop the rest, and with it fields or whole answers.
#[test]
fn the_openapi_document_uses_only_what_client_generators_read() {
    let document = openapi();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in schemas {
        every(schema, &mut |part| {
            let has = |keyword: &str| part.get(keyword).is_some();
            assert!(!has("if") && !has("then") && !has("else"), "{name} has a condition");
            assert!(
                !(has("properties") && (has("anyOf") || has("oneOf"))),
                "{name} has alternatives beside its properties"
            );
            // A default that a client sends by itself would override the batch's defaults or the deployment's model.
            assert!(!has("default"), "{name} has a default");
            let is_wide = part["maximum"].as_u64().is_some_and(|most| most > i32::MAX as u64);
            assert!(!is_wide || part["format"] == "int64", "{name} has a number beyond 32 bits");
            let pattern = part["pattern"].as_str().unwrap_or_default();
            assert!(pattern.chars().all(|c| c <= '\u{ffff}'), "{name} has a pattern that is none without the flag u");
        });
        let fields = schema["properties"].as_object().into_iter().flatten();
        let unnamed: Vec<_> = fields.filter(|(_, part)| part.get("enum").is_some()).map(|(field, _)| field).collect();
        assert!(unnamed.is_empty(), "the values of these fields of {name} have no name of their own: {unnamed:?}");
    }
}

fn every(schema: &Value, check: &mut impl FnMut(&Value)) {
    match schema {
        Value::Object(parts) => {
            check(schema);
            parts.values().for_each(|part| every(part, check));
        }
        Value::Array(parts) => parts.iter().for_each(|part| every(part, check)),
        _ => {}
    }
}

#[test]
fn the_postman_collection_calls_every_route() {
    let collection: Value = serde_json::from_str(&read("api/postman_collection.json")).expect("it is JSON");
    let mut called = BTreeSet::new();
    requests(&collection, &mut called);
    for (path, methods) in ROUTES {
        for method in *methods {
            let shape = path.split('/').map(|part| if part.starts_with('{') { "{{" } else { part });
            let shape: Vec<_> = shape.collect();
            let found = called.iter().any(|(verb, parts)| {
                let same = |(want, have): (&&str, &String)| *want == "{{" && have.starts_with("{{") || *want == have;
                verb == method && parts.len() == shape.len() && shape.iter().zip(parts).all(same)
            });
            assert!(found, "{method} {path} is called nowhere: {called:?}");
        }
    }
}

/// Collects the method and the path of every request below an item.
fn requests(item: &Value, called: &mut BTreeSet<(String, Vec<String>)>) {
    for item in item["item"].as_array().into_iter().flatten() {
        requests(item, called);
    }
    let url = item["request"]["url"]["raw"].as_str().or(item["request"]["url"].as_str());
    if let (Some(method), Some(url)) = (item["request"]["method"].as_str(), url)
        && let Some(path) = url.strip_prefix("{{baseUrl}}")
    {
        let path = path.split('?').next().unwrap_or_default();
        called.insert((method.to_owned(), path.split('/').map(str::to_owned).collect()));
    }
}

/// A block of shell commands in a document, and the answer in JSON that the document prints behind it.
struct Block {
    commands: String,
    answer: Option<Value>,
}

/// The blocks of a document, in their order.
fn blocks(document: &str) -> Vec<Block> {
    let parts = document.split("```sh\n").skip(1).filter_map(|part| part.split_once("```"));
    let block = |(commands, rest): (&str, &str)| {
        let answer = rest.trim_start().strip_prefix("```json\n").and_then(|answer| answer.split_once("```"));
        let answer = answer.map(|(answer, _)| serde_json::from_str(answer).expect("it is JSON"));
        Block { commands: commands.to_owned(), answer }
    };
    parts.map(block).collect()
}

/// Runs these commands in one shell, and returns the output of each block.
async fn run(script: &[String], variables: &[(&str, &str)], folder: &Path) -> Vec<String> {
    const END: char = '\u{1e}';
    let script = script.join("\nprintf '\\036'\n");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(folder)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("bash runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told.split(END).map(str::to_owned).collect()
}

/// Asserts that two answers have the same fields.
fn assert_alike(printed: &Value, answered: &Value, place: &str) {
    match (printed, answered) {
        (Value::Object(printed), Value::Object(answered)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(printed), names(answered), "the fields of {place}");
            printed.iter().for_each(|(name, value)| assert_alike(value, &answered[name], &format!("{place}/{name}")));
        }
        (Value::Array(printed), Value::Array(answered)) => {
            printed.iter().zip(answered).for_each(|(printed, answered)| assert_alike(printed, answered, place));
        }
        _ => {}
    }
}

#[test]
fn each_block_of_the_deployment_guide_defines_what_it_uses() {
    let guide = read("docs/deploy.md");
    let mut blocks = 0;
    for block in guide.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block)) {
        assert!(!block.contains("$(output ") || block.contains("output() {"), "output is not defined in\n{block}");
        for rest in block.split('$').skip(1) {
            let name: String = rest.trim_start_matches('{').chars().take_while(char::is_ascii_lowercase).collect();
            let set = [format!("{name}="), format!("for {name} in ")];
            assert!(name.is_empty() || set.iter().any(|set| block.contains(set)), "${name} is not set in\n{block}");
        }
        blocks += 1;
    }
    assert!(blocks > 15, "{blocks}");
}

#[tokio::test]
async fn every_example_of_the_api_guide_works_and_answers_as_printed() {
    let pipeline = Pipeline::with(Options { webhooks_to_loopback: true, ..Options::default() }).await;
    let receiver = serve(Router::new().fallback(async || "Thank you")).await;
    let blocks = blocks(&read("docs/api.md"));
    let folder = tempfile::tempdir().expect("a directory");
    let commands: Vec<_> = blocks.iter().map(|block| block.commands.clone()).collect();
    let variables = [("API", pipeline.ready().api.as_str()), ("FILMS", "1000"), ("HOOK", receiver.as_str())];
    let answers = run(&commands, &variables, folder.path()).await;
    let mut compared = 0;
    for (Block { commands, answer }, answered) in blocks.iter().zip(answers) {
        let Some(printed) = answer else { continue };
        let answered = serde_json::from_str(&answered).unwrap_or_else(|_| panic!("{answered} of\n{commands}"));
        assert_alike(printed, &answered, commands);
        compared += 1;
    }
    assert!(compared >= 15, "the guide has examples: {compared}");
    pipeline.stack.stop().await;
}

/// Blocks of the README and the command guide that are not run here, by a text in them, and why.
const NOT_RUN: [(&str, &str); 2] =
    [("sam deploy", "it deploys to an account"), ("poster listen", "it does not end by itself")];

#[tokio::test]
async fn every_block_of_the_readme_and_the_command_guide_works_as_printed() {
    // The programs that are already built replace cargo, and an error answer of the API is a failure.
    const SHELL: &str = r#"
        cargo() {
            case "$*" in
            run | test) ;;
            "run -- "*) "$LOCAL" "${@:3}" ;;
            "install --path "*) test -d "$3" ;;
            *) echo "not expected: cargo $*" >&2; return 1 ;;
            esac
        }
        poster() { "$POSTER" "$@"; }
        curl() { command curl --fail-with-body "$@"; }
    "#;
    let pipeline = Pipeline::start().await;
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    for name in ["api", "tools/poster"] {
        std::fs::create_dir_all(at(name)).expect("a directory");
    }
    std::fs::copy(root().join("api/prompts.csv"), at("api/prompts.csv")).expect("the sample file is there");
    let [local, poster] = [binary("local"), binary("poster")].map(|path| path.display().to_string());
    let variables = [
        ("LOCAL", local.as_str()),
        ("POSTER", &poster),
        ("POSTER_API", &pipeline.ready().api),
        ("XDG_CONFIG_HOME", "."),
    ];
    let mut script = vec![SHELL.to_owned()];
    let mut left_out = BTreeSet::new();
    for block in ["README.md", "docs/cli.md"].into_iter().flat_map(|document| blocks(&read(document))) {
        match NOT_RUN.iter().find(|(mark, _)| block.commands.contains(mark)) {
            Some((mark, _)) => drop(left_out.insert(*mark)),
            None => script.push(block.commands.replace("http://127.0.0.1:3000", &pipeline.ready().api)),
        }
    }
    assert!(script.len() > 6, "there are blocks");
    assert_eq!(left_out, NOT_RUN.map(|(mark, _)| mark).into(), "what is left out is there");
    run(&script, &variables, folder.path()).await;
    assert!(at("api/prompts.csv-posters/index.html").exists(), "the batch of the sample file was made");
    pipeline.stack.stop().await;
}
