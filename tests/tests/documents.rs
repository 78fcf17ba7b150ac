//! The documents against the code: one contract, told several times.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use shared::api::ROUTES;
use shared::order::{is_forbidden, is_invisible};
use shared::poster::Words;
use tests::pipeline::Pipeline;
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
    // What needs no key needs none for HEAD either; elsewhere the route for any method answers it.
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

/// The ranges of a regular expression's class that has just these characters. Those beyond U+FFFF stand there themselves,
/// because regular expressions have no common escape for them.
fn class(has: &dyn Fn(char) -> bool) -> String {
    let mut ranges: Vec<(char, char)> = Vec::new();
    for c in ('\0'..=char::MAX).filter(|c| has(*c)) {
        match ranges.last_mut() {
            Some((_, last)) if u32::from(*last) + 1 == u32::from(c) => *last = c,
            _ => ranges.push((c, c)),
        }
    }
    let spelled = |c: char| if c > '\u{ffff}' { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    let range = |(first, last)| match first == last {
        true => spelled(first),
        false => format!("{}-{}", spelled(first), spelled(last)),
    };
    ranges.into_iter().map(range).collect()
}

#[test]
fn openapi_lets_through_just_the_texts_that_have_something_to_see() {
    let openapi: Value = serde_yaml_ng::from_str(&read("api/openapi.yaml")).expect("it is YAML");
    let space = class(&char::is_whitespace);
    let forbidden = class(&is_forbidden);
    let unseen = class(&|c| is_forbidden(c) || is_invisible(c));
    let prompt = format!("^[{space}]*[^{forbidden}]*[^{unseen}][^{forbidden}]*[{space}]*$");
    let forbidden = class(&|c| is_forbidden(c) || c.is_control());
    let label = format!("^[^{forbidden}]*[^{unseen}][^{forbidden}]*$");
    for (name, pattern) in [("Prompt", prompt), ("Label", label)] {
        let documented = openapi["components"]["schemas"][name]["pattern"].as_str().expect("a pattern");
        assert!(documented == pattern, "the pattern of {name} is to be\n{}", pattern.escape_default());
    }
}

#[test]
fn openapi_lets_through_just_the_characters_that_the_fonts_have() {
    let openapi: Value = serde_yaml_ng::from_str(&read("api/openapi.yaml")).expect("it is YAML");
    let space = class(&char::is_whitespace);
    // Some are only taken beside others: the horn of Vietnamese makes a letter of the one before it.
    let taken = |text: String| Words::<9>::try_from(text).is_ok();
    let any = class(&|c| !c.is_control() && taken(format!("o{c}o")));
    let seen = class(&|c| taken(c.to_string()));
    let pattern = format!("^[{space}]*[{any}]*[{seen}][{any}]*[{space}]*$");
    assert_eq!(openapi["components"]["schemas"]["Words"]["pattern"], pattern);
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

/// Gathers the method and the path of every request below an item.
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

/// The blocks of shell commands in a document, in their order.
fn shell_blocks(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1).filter_map(|block| block.split_once("```").map(|(block, _)| block));
    blocks.collect::<Vec<_>>().join("\n")
}

#[test]
fn each_block_of_the_deployment_guide_brings_what_it_uses() {
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
async fn every_example_of_the_api_guide_works() {
    let pipeline = Pipeline::start().await;
    let script = shell_blocks(&read("docs/api.md"));
    assert!(script.matches("curl").count() >= 10, "the guide has examples");
    let folder = tempfile::tempdir().expect("a directory");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .env("API", &pipeline.ready().api)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("bash runs");
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", told(&output.stdout), told(&output.stderr));
    pipeline.stack.stop().await;
}
