//! The programs of the workspace, and the functions' binaries with a stand-in for Lambda's runtime API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use bench::runtime_api::Function;
use serde_json::Value;
use tokio::process::Command;

/// One invocation of a function's binary.
#[derive(Debug)]
pub struct Run {
    /// The handler's answer.
    pub answer: Value,
    /// What the binary wrote to its standard output, which is its log.
    pub log: String,
    /// The peak memory of the binary in bytes, if the operating system reports it.
    pub peak: Option<u64>,
}

/// Runs the binary of the function `name` with these environment variables, and invokes it with one event.
///
/// # Panics
/// When the binary does not start, the invocation fails, or there is no answer within two minutes.
pub async fn invoke(name: &str, variables: &BTreeMap<String, String>, event: &Value) -> Run {
    let mut function =
        Function::start(command(name).envs(variables).stdout(Stdio::piped())).await.expect("the function starts");
    let answer = function.invoke(event).await.expect("the function answers").answer;
    let peak = function.process.peak().ok();
    let output = function.stop().await.expect("the function ends");
    Run { answer, log: String::from_utf8_lossy(&output.stdout).into_owned(), peak }
}

/// The binary of the function `name`, with the environment variables that Lambda itself sets and no others.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command
        .env_clear()
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The program `name`, started under that name, which `--help` prints.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command.arg0(name);
    command
}

/// The path of the program `name`, such as `worker`, `local` or `poster`. `Cargo.toml` declares each as a program of this
/// package, so that Cargo builds it before the tests.
///
/// # Panics
/// When it does not exist.
pub fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the program knows its path");
    // A test is in target/<profile>/deps, a program in the directory above.
    let directory = this.ancestors().skip(1).find(|directory| !directory.ends_with("deps")).expect("it is in target");
    let path = directory.join(format!("tested-{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "there is no {}; `cargo build -p tests --bins` builds it", path.display());
    path
}
