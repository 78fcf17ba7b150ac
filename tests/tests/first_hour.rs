//! What a newcomer sees first: the local stack's program in a terminal.

use std::process::Stdio;

use serde_json::Value;
use tests::runtime_api::binary;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn the_commands_of_the_banner_work_as_printed() {
    let mut command = Command::new(binary("local"));
    command.args(["--port", "0", "--model-plain", "--api-key", "me=my-key"]).env_remove("RUST_LOG").kill_on_drop(true);
    let mut local = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(local.stdout.take().expect("its output")).lines();
    let mut commands = Vec::new();
    loop {
        let line = lines.next_line().await.expect("it can be read").expect("the banner has an end");
        if line.starts_with("  curl") {
            commands.push(line);
        } else if line.starts_with("Press Ctrl-C") {
            break;
        }
    }
    let mut answers = Vec::new();
    for command in &commands {
        let output = Command::new("sh").args(["-c", command]).output().await.expect("a shell");
        answers.push(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"));
    }
    let [submitted, newest] = &answers[..] else { panic!("there are two commands: {commands:?}") };
    assert!(submitted["id"].is_string(), "{submitted}");
    assert_eq!(newest["jobs"][0]["id"], submitted["id"], "{newest}");

    let id = local.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.expect("it is interrupted").success());
    assert!(local.wait().await.expect("it ends").success());
    let mut log = String::new();
    local.stderr.take().expect("its log").read_to_string(&mut log).await.expect("it is UTF-8");
    assert!(log.contains("job submitted"), "{log}");
    assert!(!log.contains("WARN") && !log.contains('\u{1b}'), "nothing alarms, and a file gets no colors: {log}");
}

#[tokio::test]
async fn a_prompt_needs_no_quotes_and_the_output_names_no_stopped_service() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = binary("local");
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(&local);
        command.args(arguments).current_dir(&directory).env_remove("RUST_LOG");
        command.output().await.expect("it runs")
    };
    let made = run(&["--model-plain", "A", "noir", "detective"]).await;
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(!said.contains("http"), "the services have stopped: {said}");
    let file = said.lines().next().expect("the file's name");
    assert!(directory.path().join(file).exists(), "{said}");

    std::fs::write(directory.path().join("file"), "").expect("it is written");
    let refused = run(&["--out", "file/posters", "A heist"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !said.contains("submitting"), "nothing is painted: {said}");
}
