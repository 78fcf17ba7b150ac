//! The command `poster` as its users see it: what it writes, and how it ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use local::Options;
use serde_json::{Value, json};
use shared::Timestamp;
use tempfile::TempDir;
use tests::pipeline::Pipeline;
use tests::runtime_api::binary;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A directory in which the command is run against a pipeline.
pub(crate) struct Desk {
    binary: PathBuf,
    directory: TempDir,
    pub(crate) pipeline: Pipeline,
}

/// What the command has written, and how it ended.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    /// Standard error.
    pub(crate) words: String,
    /// The lines of standard output that are not JSON.
    pub(crate) shown: String,
    /// The lines of standard output that are JSON.
    pub(crate) data: Vec<Value>,
}

impl Desk {
    pub(crate) async fn new(pipeline: Pipeline) -> Self {
        Self { binary: binary("poster"), directory: tempfile::tempdir().expect("a directory"), pipeline }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("it is written");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("POSTER_API", &self.pipeline.ready().api)
            .env("XDG_CONFIG_HOME", self.directory.path())
            .env_remove("POSTER_API_KEY")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn poster(&self, arguments: &[&str]) -> Told {
        told(self.command(arguments).output().await.expect("it runs"))
    }

    /// How many jobs the service has.
    async fn jobs(&self) -> usize {
        let items = self.pipeline.dynamodb().scan().table_name(&self.pipeline.ready().table).send().await;
        let is_job = |item: &HashMap<_, AttributeValue>| item["pk"].as_s().is_ok_and(|key| key.starts_with("JOB#"));
        items.expect("the table answers").items().iter().filter(|item| is_job(item)).count()
    }

    /// The batch of a state file.
    pub(crate) fn batch(&self, state: &str) -> String {
        let text = std::fs::read_to_string(self.path(state)).expect("a state file");
        let state: Value = serde_json::from_str(&text).expect("it is JSON");
        state["poster_batch"].as_str().expect("an id").to_owned()
    }
}

pub(crate) fn told(output: Output) -> Told {
    let words = String::from_utf8(output.stderr).expect("it is UTF-8");
    // Line breaks depend on the terminal.
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let out = String::from_utf8(output.stdout).expect("it is UTF-8");
    let (data, shown): (Vec<_>, Vec<_>) = out.lines().partition(|line| line.starts_with('{'));
    let data = data.into_iter().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    Told { code: output.status.code(), words, shown: shown.join("\n"), data }
}

/// The names of the files, without the ends of their jobs' ids.
pub(crate) fn files(directory: &Path, ending: &str) -> Vec<String> {
    let files = std::fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").file_name());
    let mut files: Vec<_> = files.filter_map(|name| name.into_string().ok()).collect();
    files.retain(|name| name.ends_with(ending) && name != "contact-sheet.png");
    for file in &mut files {
        let id = file.len() - ending.len() - "-0123456789ab".len();
        file.drain(id..file.len() - ending.len());
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_title_too_small_to_read_gets_a_warning() {
    let desk = Desk::new(Pipeline::start().await).await;
    let warning = "warning: the title is too small to read";
    let long = "W".repeat(80);
    let made = desk.poster(&["make", "A heist", "--title", &long, "--json"]).await;
    assert_eq!(made.code, Some(0), "{}", made.words);
    assert!(made.words.contains(warning), "{}", made.words);
    let id = made.data[0]["job"]["id"].as_str().expect("an id");
    assert!(desk.poster(&["watch", id]).await.words.contains(warning));
    assert!(desk.poster(&["get", id]).await.shown.contains("warning   the title is too small to read"));

    let jobs = ["Short", &long, &long]
        .map(|title| format!("{}\n", json!({ "prompt": "A heist", "poster": { "title": title } })));
    desk.write("jobs.ndjson", &jobs.concat());
    let batch = desk.poster(&["batch", "jobs.ndjson"]).await;
    assert_eq!(batch.code, Some(0), "{}", batch.words);
    assert!(batch.words.contains("warning: 2 titles too small to read, of lines 2, 3."), "{}", batch.words);
    let short = desk.poster(&["make", "A heist", "--title", "Short"]).await;
    assert!(!short.words.contains("warning"), "{}", short.words);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_poster_is_made_listed_shown_and_watched() {
    let desk = Desk::new(Pipeline::start().await).await;
    let made = desk.poster(&["make", "A heist", "on the moon", "--seed", "7", "--title", "Moonfall", "--json"]).await;
    assert_eq!(made.code, Some(0), "{}", made.words);
    let (file, id) =
        (made.data[0]["file"].as_str().expect("a file"), made.data[0]["job"]["id"].as_str().expect("an id"));
    assert_eq!(made.data[0]["job"]["prompt"], "A heist on the moon");
    assert_eq!(made.data[0]["job"]["poster"]["title"], "Moonfall");
    let manifest = std::fs::read_to_string(desk.path("posters/posters.ndjson")).expect("a manifest");
    assert!(manifest.contains("\"title\":\"Moonfall\""), "{manifest}");
    let bytes = std::fs::metadata(desk.path(file)).expect("the picture is there").len();
    assert_eq!(made.data[0]["job"]["image"]["bytes"], bytes);

    let listed = desk.poster(&["list", "--status", "succeeded", "--json"]).await;
    assert_eq!((listed.data.len(), &listed.data[0]["id"], &*listed.shown), (1, &Value::from(id), ""));
    // The result goes to standard output, where the next program reads it.
    let listed = desk.poster(&["list"]).await;
    assert!(listed.shown.contains(id) && listed.shown.ends_with("A heist on the moon"), "{}", listed.shown);
    let got = desk.poster(&["get", &id.to_uppercase()]).await;
    assert!(got.code == Some(0) && got.shown.contains("A heist on the moon"), "{}", got.shown);
    assert_eq!(desk.poster(&["watch", id]).await.code, Some(0));
    // It has succeeded, so it can be neither canceled nor retried.
    for action in ["cancel", "retry"] {
        let refused = desk.poster(&[action, id]).await;
        assert!(refused.code == Some(1) && refused.words.contains("succeeded"), "{action}: {}", refused.words);
    }
    let again = desk.poster(&["download", id, "--out", "posters", "--json"]).await;
    assert_eq!((again.code, again.data.len()), (Some(0), 0), "it is there already: {}", again.words);
    std::fs::write(desk.path(file), "changed").expect("it is written");
    let again = desk.poster(&["download", id, "--out", "posters", "--json"]).await;
    assert_eq!((again.code, again.data.len()), (Some(0), 1), "{}", again.words);
    assert_eq!(desk.poster(&["sheet", "posters"]).await.code, Some(0));
    assert!(desk.path("posters/contact-sheet.png").exists() && desk.path("posters/index.html").exists());

    // Whoever reads the list has closed the pipe.
    let mut unread =
        desk.command(&["list", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(unread.stdout.take());
    let unread = told(unread.wait_with_output().await.expect("it ends"));
    assert!(unread.code == Some(141) && !unread.words.contains("error"), "{}", unread.words);

    for (arguments, code) in [
        (&["make", ""][..], 2),
        (&["make", "x", "--seed", "0"], 2),
        (&["get", "x"], 2),
        (&["get", "00000000-0000-4000-8000-000000000000"], 2),
        (&["sheet", "nowhere"], 4),
        (&["list", "--api", "nowhere"], 2),
        (&["list", "--api", "http://nowhere:port"], 2),
    ] {
        let wrong = desk.poster(arguments).await;
        assert_eq!(wrong.code, Some(code), "{arguments:?}: {}", wrong.words);
    }
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn bad_lines_are_reported_before_anything_is_submitted() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("a.ndjson", "{\"prompt\":\"One\"}\n{\"prompt\":\"\"}\nnonsense\n{\"prompt\":\"Two\",\"sede\":1}\n");
    let refused = desk.poster(&["batch", "a.ndjson", "--json"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.words);
    let lines: Vec<_> = refused.data.iter().map(|bad| bad["line"].as_u64()).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(4)]);
    assert!(refused.words.contains("line 4: sede is not a field of this request"), "{}", refused.words);
    assert_eq!((desk.jobs().await, desk.path("a.ndjson.poster-state").exists()), (0, false));
    // Text shows the first faults, JSON shows all.
    desk.write("many.ndjson", &"{}\n".repeat(25));
    let refused = desk.poster(&["batch", "many.ndjson", "--check", "--json"]).await;
    assert_eq!((refused.code, refused.data.len()), (Some(2), 25), "{}", refused.words);
    assert!(refused.words.contains("and 5 more") && !refused.words.contains("line 21:"), "{}", refused.words);

    let refused = desk.poster(&["batch", "a.ndjson", "--skip-bad", "--state", "many.ndjson"]).await;
    assert!(refused.code == Some(2) && refused.words.contains("not a state file"), "{}", refused.words);

    let skipped = desk.poster(&["batch", "a.ndjson", "--skip-bad", "--no-sheet"]).await;
    assert_eq!(skipped.code, Some(1), "lines were left out: {}", skipped.words);
    assert_eq!(files(&desk.path("a.ndjson-posters"), ".png"), ["000001-one.png"]);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn every_format_is_submitted_and_saved_line_by_line() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("a.csv", "prompt,custom_id,metadata.campaign\n\"One, two\",first,winter\nThree,,\n");
    desk.write("b.json", "{\"defaults\":{\"seed\":5},\"jobs\":[{\"prompt\":\"One\"},\n{\"prompt\":\"Two\"}]}");
    desk.write("c.txt", "\nOne\n\nTwo\n");
    for (file, names) in [
        ("a.csv", ["000002-first.png", "000003-three.png"]),
        ("b.json", ["000001-one.png", "000002-two.png"]),
        ("c.txt", ["000002-one.png", "000004-two.png"]),
    ] {
        let done = desk.poster(&["batch", file, "--no-sheet"]).await;
        assert_eq!(done.code, Some(0), "{file}: {}", done.words);
        assert_eq!(files(&desk.path(&format!("{file}-posters")), ".png"), names, "{file}");
    }
    let mut jobs = Vec::new();
    for file in ["a.csv", "b.json", "c.txt"] {
        let listed = desk.poster(&["list", "--batch", &format!("{file}.poster-state"), "--all", "--json"]).await;
        jobs.extend(listed.data);
    }
    let job = |prompt: &str, seed: Option<u64>| {
        jobs.iter().find(|job| job["prompt"] == prompt && job["seed"].as_u64() == seed).expect("a job").clone()
    };
    assert_eq!(job("One, two", None)["metadata"]["campaign"], "winter");
    assert_eq!(job("Two", Some(5))["status"], "succeeded");

    // The same standard input finds its state file again.
    for round in 0..2 {
        let mut child = desk.command(&["batch", "-", "--no-sheet", "--json"]);
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(b"From a pipe\n").await.expect("it reads");
        drop(input);
        let done = told(child.wait_with_output().await.expect("it ends"));
        let end = done.data.last().expect("an end");
        assert_eq!((done.code, &end["downloaded"]), (Some(0), &Value::from(1 - round)), "{}", done.words);
    }
    assert_eq!(desk.jobs().await, 7);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn failed_lines_can_be_submitted_again_or_retried() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.pipeline.model("filter=1");
    desk.write("a.txt", "One\nTwo\nThree\n");
    let failed = desk.poster(&["batch", "a.txt", "--json", "--aspect-ratio", "1:1"]).await;
    assert_eq!(failed.code, Some(1), "{}", failed.words);
    let batch = failed.data.last().expect("an end")["batch"].as_str().expect("an id").to_owned();
    assert_eq!(batch, desk.batch("a.txt.poster-state"));
    assert!(!failed.words.contains("poster retry"), "the filter would refuse them again: {}", failed.words);
    let lines = std::fs::read_to_string(desk.path("a.txt.failed.ndjson")).expect("the failed lines");
    assert_eq!(lines.lines().next(), Some("{\"aspect_ratio\":\"1:1\",\"prompt\":\"One\"}"), "{lines}");
    assert_eq!(desk.poster(&["batch", "a.txt.failed.ndjson", "--check"]).await.code, Some(0));

    desk.pipeline.model("");
    assert_eq!(desk.poster(&["retry", &batch]).await.code, Some(0));
    let done = desk.poster(&["batch", "a.txt", "--aspect-ratio", "1:1"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png").len(), 3);
    assert!(!desk.path("a.txt.failed.ndjson").exists(), "nothing failed in the end");
    assert_eq!(desk.jobs().await, 3);

    // Other content or other settings make another batch.
    let other = desk.poster(&["batch", "a.txt"]).await;
    assert!(
        other.code == Some(2)
            && other.words.split_whitespace().collect::<Vec<_>>().join(" ").contains("other settings"),
        "{}",
        other.words
    );
    desk.write("a.txt", "One\nTwo\nFour\n");
    let other = desk.poster(&["batch", "a.txt", "--aspect-ratio", "1:1"]).await;
    assert!(
        other.code == Some(2) && other.words.split_whitespace().collect::<Vec<_>>().join(" ").contains("has changed"),
        "{}",
        other.words
    );
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_batch_without_failed_lines_needs_no_place_for_their_file() {
    let desk = Desk::new(Pipeline::start().await).await;
    // The name of the file of failed lines would be too long, so there is nothing that could be deleted.
    let file = format!("{}.txt", "a".repeat(240));
    desk.write(&file, "One\n");
    let elsewhere = ["--state", "state", "--out", "posters", "--name", "Long", "--no-sheet"];
    let done = desk.poster(&[&["batch", &file], &elsewhere[..]].concat()).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    desk.pipeline.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn pictures_need_a_path_that_the_state_file_can_record() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let desk = Desk::new(Pipeline::start().await).await;
    let file = OsStr::from_bytes(b"\xff.txt");
    std::fs::write(desk.directory.path().join(file), "One\n").expect("it is written");
    let refused = desk.command(&["batch"]).arg(file).output().await.expect("it runs");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("must be UTF-8") && words.contains("--out"), "{words}");
    assert_eq!(desk.jobs().await, 0, "nothing was submitted");
    let elsewhere =
        desk.command(&["batch", "--out", "posters", "--no-sheet"]).arg(file).output().await.expect("it runs");
    assert_eq!(elsewhere.status.code(), Some(0), "{}", String::from_utf8_lossy(&elsewhere.stderr));
    assert_eq!(files(&desk.path("posters"), ".png").len(), 1);
    desk.pipeline.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_is_told_to_cancel_a_batch_that_has_ended() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("a.txt", "One\n");
    let done = desk.poster(&["batch", "a.txt", "--no-sheet"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    let full = std::fs::File::create("/dev/full").expect("it opens");
    let command = desk.command(&["batch", "a.txt", "--json"]).stdout(full).stderr(Stdio::piped()).spawn();
    let failed = command.expect("it starts").wait_with_output().await.expect("it runs");
    let words = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(4), "{words}");
    assert!(words.contains("Run the same command again") && !words.contains("poster cancel"), "{words}");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_command_that_would_be_refused_again_is_not_to_be_repeated() {
    let desk = Desk::new(Pipeline::start().await).await;
    let job = json!({ "prompt": "One", "model": "stability.sd3-5-large-v1:0" });
    desk.write("a.json", &json!({ "defaults": { "output_format": "webp" }, "jobs": [job] }).to_string());
    let refused = desk.poster(&["batch", "a.json"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.words);
    assert!(refused.words.contains("/defaults/output_format"), "{}", refused.words);
    assert!(!refused.words.contains("Run the same command again"), "{}", refused.words);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn no_picture_overwrites_that_of_another_job() {
    let desk = Desk::new(Pipeline::start().await).await;
    for (file, prompts) in [("a.txt", "A heist\nA spy\n"), ("b.txt", "A heist\nA spy!\n")] {
        desk.write(file, prompts);
        let done = desk.poster(&["batch", file, "--out", "friday", "--no-sheet"]).await;
        assert_eq!(done.code, Some(0), "{}", done.words);
    }
    let names = ["000001-a-heist.png", "000001-a-heist.png", "000002-a-spy.png", "000002-a-spy.png"];
    assert_eq!(files(&desk.path("friday"), ".png"), names);
    // Neither is downloaded again, however the paths of the file and the directory are spelled.
    let file = desk.path("a.txt").display().to_string();
    let out = desk.path("./friday").display().to_string();
    for out in ["friday", "./friday/", &out] {
        for file in ["a.txt", "./a.txt", &file] {
            let again = desk.poster(&["batch", file, "--out", out, "--json"]).await;
            let end = again.data.iter().find(|event| event["event"] == "end").expect("an end");
            assert_eq!((again.code, &end["downloaded"]), (Some(0), &Value::from(0)), "{file} {out}: {}", again.words);
        }
    }
    // With another state file it is the same batch.
    let other = desk.poster(&["batch", "a.txt", "--out", "again", "--state", "other", "--no-sheet"]).await;
    assert_eq!((other.code, files(&desk.path("again"), ".png").len()), (Some(0), 2), "{}", other.words);
    assert_eq!(desk.jobs().await, 4);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn structured_input_is_not_painted_as_text() {
    let desk = Desk::new(Pipeline::start().await).await;
    for (input, lines) in [
        ("prompt,seed,custom_id\nA heist,7,moon\n", 1),
        ("\u{feff}{\"prompt\":\"A heist\"}\n", 1),
        ("\r\n{\"prompt\":\"A heist\"}\r\n", 1),
        ("A heist\nA spy\n", 2),
    ] {
        let mut command = desk.command(&["batch", "-", "--check"]);
        let mut command = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut stdin = command.stdin.take().expect("it has an input");
        stdin.write_all(input.as_bytes()).await.expect("it is read");
        drop(stdin);
        let checked = told(command.wait_with_output().await.expect("it ends"));
        let good = format!("{lines} line{} good", if lines == 1 { "" } else { "s" });
        assert!(checked.code == Some(0) && checked.words.contains(&good), "{input}: {}", checked.words);
    }
    let left = std::fs::read_dir(desk.path("")).expect("a directory").count();
    assert_eq!(left, 0, "a check leaves no copy of its input behind");
    for (name, content, why) in [
        ("a.txt", "prompt,seed\nA heist,7\n", "looks like the header of a CSV file"),
        ("b.txt", "{\"prompt\":\"A heist\"}\n", "looks like JSON"),
        ("c.tsv", "prompt\tseed\nA heist\t7\n", "separated by tabs"),
        ("d.csv", "prompt;seed\nA heist;7\n", "separated by semicolons"),
        ("e.csv", "prompt,seed\r\nA,5\r\nB,x\r\n", "line 3: seed"),
        ("f.csv", "prompt\n\"A heist\nA spy\n", "line 2: the line has a quotation mark that is never closed"),
    ] {
        desk.write(name, content);
        let refused = desk.poster(&["batch", name]).await;
        assert!(refused.code == Some(2) && refused.words.contains(why), "{name}: {}", refused.words);
    }
    assert_eq!(desk.jobs().await, 0);
    desk.pipeline.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_stopped_command_leaves_no_partial_copy_of_its_input() {
    let desk = Desk::new(Pipeline::start().await).await;
    let mut command = desk.command(&["batch", "-"]).stdin(Stdio::piped()).spawn().expect("it runs");
    let _input = command.stdin.take().expect("its input, which does not end");
    let files = || std::fs::read_dir(desk.path("")).expect("a directory").count();
    while files() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = command.id().expect("it runs").to_string();
    let stopped = Command::new("kill").args(["-TERM", &id]).status().await.expect("it is stopped");
    assert!(stopped.success());
    assert_eq!(command.wait().await.expect("it ends").code(), Some(143));
    assert_eq!(files(), 0);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn nothing_is_painted_that_cannot_be_saved() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("posters", "a file where a directory should be");
    let refused = desk.poster(&["make", "A heist"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.words);
    assert_eq!(desk.jobs().await, 0);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_picture_that_is_larger_than_the_service_says_is_not_saved() {
    let desk = Desk::new(Pipeline::start().await).await;
    assert_eq!(desk.poster(&["make", "A heist", "--out", "made"]).await.code, Some(0));
    let keys = desk.pipeline.pictures().await;
    let key = keys.iter().find(|key| !key.ends_with("-thumbnail")).expect("a picture");
    let longer = aws_sdk_s3::primitives::ByteStream::from(vec![0; 5_000_000]);
    let put = desk.pipeline.s3().put_object().bucket(&desk.pipeline.ready().bucket).key(key).body(longer);
    put.send().await.expect("the bucket answers");
    let id = key.split('/').nth(1).expect("the id of the job");
    let refused = desk.poster(&["download", id, "--out", "again"]).await;
    assert!(refused.code == Some(1) && refused.words.contains("it has more than"), "{}", refused.words);
    assert!([".png", ".part"].iter().all(|ending| files(&desk.path("again"), ending).is_empty()));
    desk.pipeline.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_partial_picture_is_removed_and_the_whole_one_can_be_saved_later() {
    let desk = Desk::new(Pipeline::start().await).await;
    // Files are limited to one kilobyte, as on a disk that is nearly full.
    let mut bash = Command::new("bash");
    bash.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]).arg(&desk.binary).args(["make", "A heist"]);
    bash.current_dir(desk.directory.path()).env("POSTER_API", &desk.pipeline.ready().api).stdin(Stdio::null());
    let unsaved = told(bash.output().await.expect("it runs"));
    assert_eq!(unsaved.code, Some(4), "{}", unsaved.words);
    let left =
        std::fs::read_dir(desk.path("posters")).expect("a directory").map(|file| file.expect("a file").file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["posters.ndjson"]);
    // The picture is paid for, so the message says how to get it.
    let (_, way_on) = unsaved.words.split_once('`').expect("a command");
    let (way_on, _) = way_on.split_once('`').expect("its end");
    let arguments: Vec<_> = way_on.split_whitespace().skip(1).collect();
    assert_eq!((arguments[0], &arguments[2..]), ("download", &["--out", "posters"][..]), "{way_on}");
    assert_eq!(desk.poster(&arguments).await.code, Some(0));
    assert_eq!(files(&desk.path("posters"), ".png"), ["a-heist.png"]);
    assert_eq!(desk.jobs().await, 1);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn the_options_of_the_command_set_the_lettering() {
    let desk = Desk::new(Pipeline::start().await).await;
    let credits = ["--credit", "directed by: Ada Marlowe", "--credit", "Somebody"];
    let set = ["make", "A heist", "--title", "Moonfall", "--style", "retro", "--placement", "top", "--json"];
    let made = desk.poster(&[&set[..], &credits].concat()).await;
    assert_eq!(made.code, Some(0), "{}", made.words);
    let job = &made.data[0]["job"];
    assert_eq!(
        (&job["image"]["poster"]["style"], &job["image"]["poster"]["placement"]),
        (&"retro".into(), &"top".into())
    );
    let credits = &job["poster"]["credits"];
    assert_eq!(
        (&credits[0]["role"], &credits[0]["name"], &credits[1]["name"]),
        (&"directed by".into(), &"Ada Marlowe".into(), &"Somebody".into())
    );
    assert_eq!(desk.poster(&["make", "A heist", "--style", "retro"]).await.code, Some(2), "there is nothing to set");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_webhook_can_be_set() {
    const URL: &str = "https://example.com/posters";
    let desk = Desk::new(Pipeline::start().await).await;
    let made = desk.poster(&["make", "A heist", "--webhook", URL, "--webhook-events", "job.failed", "--json"]).await;
    let webhook = json!({ "url": URL, "events": ["job.failed"] });
    assert_eq!((made.code, &made.data[0]["job"]["webhook"]), (Some(0), &webhook), "{}", made.words);
    let shown = desk.poster(&["get", made.data[0]["job"]["id"].as_str().expect("an id")]).await.shown;
    assert!(shown.contains(&format!("webhook   {URL}")), "{shown}");

    desk.write("a.txt", "One\n");
    assert_eq!(desk.poster(&["batch", "a.txt", "--webhook", URL, "--no-sheet"]).await.code, Some(0));
    let document = json!({ "jobs": [{ "prompt": "One" }], "webhook": { "url": URL, "events": ["job.canceled"] } });
    desk.write("a.json", &document.to_string());
    assert_eq!(desk.poster(&["batch", "a.json", "--no-sheet"]).await.code, Some(0));
    for (state, events) in [("a.txt", json!(["batch.ended"])), ("a.json", json!(["job.canceled"]))] {
        let batch = desk.poster(&["get", &desk.batch(&format!("{state}.poster-state")), "--json"]).await;
        assert_eq!(batch.data[0]["webhook"], json!({ "url": URL, "events": events }), "{state}");
    }

    let jobs = desk.jobs().await;
    for (arguments, words) in [
        (&["make", "A heist", "--webhook", "ftp://example.com"][..], "webhook.url must begin with https://"),
        (&["make", "A heist", "--webhook", URL, "--webhook-events", "batch.ended"], "webhook.events must be"),
        (&["make", "A heist", "--webhook-events", "job.failed"], "--webhook"),
        (&["batch", "a.txt", "--name", "b", "--webhook", "https://10.0.0.1"], "webhook.url must name a host"),
    ] {
        let wrong = desk.poster(arguments).await;
        assert!(wrong.code == Some(2) && wrong.words.contains(words), "{arguments:?}: {}", wrong.words);
    }
    assert_eq!(desk.jobs().await, jobs, "nothing was submitted");
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_deadline_can_be_set() {
    let desk = Desk::new(Pipeline::start().await).await;
    let hours = |job: &Value| {
        let [created, deadline] = ["created_at", "deadline_at"]
            .map(|name| serde_json::from_value::<Timestamp>(job[name].clone()).expect("a time"));
        deadline.since(created).as_secs().div_ceil(3600)
    };
    let made = desk.poster(&["make", "A heist", "--deadline-hours", "2", "--json"]).await;
    assert_eq!((made.code, hours(&made.data[0]["job"])), (Some(0), 2), "{}", made.words);
    desk.write("a.txt", "One\n");
    assert_eq!(desk.poster(&["batch", "a.txt", "--deadline-hours", "96", "--no-sheet"]).await.code, Some(0));
    let listed = desk.poster(&["list", "--batch", "a.txt.poster-state", "--json"]).await;
    assert_eq!(hours(&listed.data[0]), 96);
    assert_eq!(desk.poster(&["make", "A heist", "--deadline-hours", "97"]).await.code, Some(2));
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_succeed_fails_at_once() {
    let desk = Desk::new(Pipeline::start().await).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let nowhere = format!("http://{closed}");
    let refused = desk.poster(&["list", "--api", &nowhere]).await;
    assert!(refused.code == Some(3) && refused.words.contains("is `cargo run` serving there?"), "{}", refused.words);
    assert!(!refused.words.contains("next try"), "{}", refused.words);
    let refused = desk.poster(&["list", "--api", "http://nowhere.invalid"]).await;
    assert!(refused.code == Some(3) && refused.words.contains("is the URL right?"), "{}", refused.words);
    assert!(!refused.words.contains("next try"), "{}", refused.words);
    // A batch may wait for the service, and says so at once.
    desk.write("a.txt", "A heist\n");
    let mut command = desk.command(&["batch", "a.txt", "--api", &nowhere]);
    let mut waiting = command.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut words = tokio::io::BufReader::new(waiting.stderr.take().expect("its standard error")).lines();
    let mut told = String::new();
    while !told.contains("is `cargo run` serving there?; next try in") {
        told += &words.next_line().await.expect("it can be read").expect("it goes on asking");
    }
    waiting.kill().await.expect("it is stopped");
    // TLS fails in the same way at each try.
    let secure = desk.pipeline.ready().api.replace("http:", "https:");
    let refused = desk.poster(&["list", "--api", &secure]).await;
    assert!(refused.code == Some(3) && !refused.words.contains("next try"), "{}", refused.words);
    desk.pipeline.stop().await;
}

/// A proxy that answers every request itself, and keeps the head of each.
async fn proxy(answer: &'static str) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (heads, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
            let _ = heads.send(String::from_utf8_lossy(&head).to_lowercase());
            let _ = stream.write_all(answer.as_bytes()).await;
            // Closing a connection with unread bytes would reset it and lose the answer.
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    (address, received)
}

#[tokio::test]
async fn the_environments_proxies_are_used() {
    let desk = Desk::new(Pipeline::start().await).await;
    let list = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 33\r\n\r\n{\"jobs\":[],   \"next_cursor\":null}";
    let (address, mut heads) = proxy(list).await;
    let mut command = desk.command(&["list", "--api", "http://service.invalid/v1"]);
    let listed = command.env("HTTP_PROXY", format!("http://me:secret@{address}")).output().await.expect("it runs");
    assert!(listed.status.success(), "{listed:?}");
    let head = heads.recv().await.expect("a request");
    assert!(head.starts_with("get http://service.invalid/v1/jobs?limit=20 http/1.1"), "{head}");
    assert!(head.contains("proxy-authorization: basic bwu6c2vjcmv0"), "{head}");

    // For https the proxy is asked for a tunnel. If what is behind it does not speak TLS, the command says so at once.
    let (address, mut heads) = proxy("HTTP/1.1 200 OK\r\n\r\nthis is not TLS").await;
    let mut command = desk.command(&["list", "--api", "https://service.invalid/v1"]);
    let listed = told(command.env("HTTPS_PROXY", format!("http://{address}")).output().await.expect("it runs"));
    assert!(listed.code == Some(3) && !listed.words.contains("next try"), "{}", listed.words);
    assert!(heads.recv().await.expect("a request").starts_with("connect service.invalid:443 http/1.1"));

    let mut command = desk.command(&["list"]);
    command.env("HTTP_PROXY", format!("http://{address}")).env("NO_PROXY", "127.0.0.1");
    assert!(command.output().await.expect("it runs").status.success(), "this address is asked without a proxy");
    assert!(heads.try_recv().is_err());
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn reasons_are_reported_even_if_the_file_has_changed() {
    let desk = Desk::new(Pipeline::start().await).await;
    // The service starts no job until the file has changed.
    desk.pipeline.model("throttle=1");
    desk.write("a.txt", "One\nTwo\n");
    let command = desk.command(&["batch", "a.txt", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let command = command.expect("it runs");
    while desk.jobs().await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.write("a.txt", "One\nTwo\nThree\n");
    desk.pipeline.model("filter=1");
    let failed = told(command.wait_with_output().await.expect("it ends"));
    assert!(failed.code == Some(2) && failed.words.contains("a.txt has changed"), "{}", failed.words);
    assert!(failed.words.contains("2 content_filtered: lines 1, 2"), "{}", failed.words);
    let end = failed.data.last().expect("an end");
    assert_eq!((&end["event"], &end["failed"], &end["failed_file"]), (&"end".into(), &2.into(), &Value::Null), "{end}");
    assert!(!desk.path("a.txt.failed.ndjson").exists());
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_state_file_stands_for_its_batch() {
    let parameters = [("MaxAttempts".to_owned(), "1".to_owned())].into();
    let desk = Desk::new(Pipeline::with(Options { parameters, ..Options::default() }).await).await;
    desk.write("a.txt", "One\nTwo\nThree\nFour\nFive\n");
    desk.pipeline.model("error=1");
    let failed = desk.poster(&["batch", "a.txt", "--json"]).await;
    assert!(failed.code == Some(1) && failed.words.contains("5 model_error: lines 1, 2, 3, 4, 5"), "{}", failed.words);
    let batch = desk.batch("a.txt.poster-state");
    assert!(failed.words.contains(&format!("poster retry {batch}")), "{}", failed.words);

    desk.pipeline.model("");
    let retried = desk.poster(&["retry", "a.txt.poster-state", "--json"]).await;
    assert_eq!((retried.code, &retried.data[0]["id"]), (Some(0), &Value::from(&*batch)), "{}", retried.words);
    let watched = desk.poster(&["watch", "a.txt.poster-state", "--json"]).await;
    assert_eq!((watched.code, &watched.data[0]["status"]), (Some(0), &"completed".into()), "{}", watched.words);
    let done = desk.poster(&["batch", "a.txt"]).await;
    assert_eq!(done.code, Some(0), "{}", done.words);
    assert_eq!(files(&desk.path("a.txt-posters"), ".png").len(), 5);
    for (more, jobs, cut) in [("--all", 5, false), ("--limit=3", 3, true)] {
        let listed = desk.poster(&["list", "--batch", "a.txt.poster-state", more, "--json"]).await;
        assert_eq!((listed.data.len(), listed.words.contains("there are more")), (jobs, cut), "{more}");
    }
    assert_eq!(desk.poster(&["list", "--batch", "../jobs"]).await.code, Some(2));
    let listed = desk.poster(&["list", "--batches", "--json"]).await;
    assert_eq!((listed.data.len(), &listed.data[0]["id"]), (1, &Value::from(batch)));
    assert!(desk.poster(&["list", "--batches"]).await.shown.ends_with("5 jobs, a"));
    let got = desk.poster(&["download", "a.txt.poster-state", "--out", "again", "--json"]).await;
    assert_eq!((got.code, got.data.len()), (Some(0), 5), "{}", got.words);
    assert_eq!(desk.jobs().await, 5);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_download_has_the_pictures_of_jobs_that_were_retried_one_by_one() {
    let desk = Desk::new(Pipeline::start().await).await;
    desk.write("a.txt", "One\nTwo\n");
    desk.pipeline.model("filter=1");
    assert_eq!(desk.poster(&["batch", "a.txt"]).await.code, Some(1));
    desk.pipeline.model("");
    let listed = desk.poster(&["list", "--batch", "a.txt.poster-state", "--json"]).await;
    for (index, code, words) in [(0, 1, "1 job without a picture"), (1, 0, "1 picture already there")] {
        let id = listed.data[index]["id"].as_str().expect("an id");
        assert_eq!(desk.poster(&["retry", id]).await.code, Some(0));
        assert_eq!(desk.poster(&["watch", id]).await.code, Some(0));
        let got = desk.poster(&["download", "a.txt.poster-state", "--out", "all", "--json"]).await;
        assert_eq!((got.code, got.data.len()), (Some(code), 1), "{}", got.words);
        assert!(got.words.contains(words), "{}", got.words);
    }
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn a_line_that_only_the_service_refuses_is_reported_or_left_out() {
    let desk = Desk::new(Pipeline::start().await).await;
    // The model that the service uses for jobs that name none paints no WebP.
    desk.write("a.csv", "prompt,output_format\nOne,png\nTwo,webp\n\nThree,png\nFour,webp\nFive\n");
    let refused = desk.poster(&["batch", "a.csv"]).await;
    assert!(refused.code == Some(2) && refused.words.contains("line 7:"), "{}", refused.words);
    desk.write("a.csv", "prompt,output_format\nOne,png\nTwo,webp\n\nThree,png\nFour,webp\n");
    let refused = desk.poster(&["batch", "a.csv"]).await;
    assert!(refused.code == Some(2) && refused.words.contains("line 3: output_format"), "{}", refused.words);
    assert_eq!(desk.jobs().await, 0);
    // Now it has a line that this command refuses too.
    desk.write("a.csv", "prompt,output_format\nOne,png\nTwo,webp\n\nThree,png\nFour,webp\nFive\n");
    let some = desk.poster(&["batch", "a.csv", "--skip-bad", "--no-sheet", "--json"]).await;
    assert_eq!(some.code, Some(1), "a line was left out: {}", some.words);
    assert_eq!(files(&desk.path("a.csv-posters"), ".png"), ["000002-one.png", "000005-three.png"]);
    assert!(some.words.contains("2 lines left out by the service"), "{}", some.words);

    desk.write("b.ndjson", &"{\"prompt\":\"One\",\"custom_id\":\"a\"}\n".repeat(2));
    let twice = desk.poster(&["batch", "b.ndjson", "--skip-bad"]).await;
    assert!(twice.code == Some(2) && twice.words.contains("cannot be left out"), "{}", twice.words);
    desk.pipeline.stop().await;
}

#[tokio::test]
async fn the_key_is_sent_to_the_service_and_shown_nowhere() {
    const KEY: &str = "a-key-of-alice";
    let api_keys = [(KEY.to_owned(), "alice".to_owned()), ("a-key-of-bob".to_owned(), "bob".to_owned())].into();
    let desk = Desk::new(Pipeline::with(Options { api_keys, ..Options::default() }).await).await;
    let refused = desk.poster(&["list"]).await;
    assert!(refused.code == Some(2) && refused.words.contains("forbidden"), "{}", refused.words);

    std::fs::create_dir(desk.path("poster")).expect("a directory");
    desk.write("poster/config.toml", &format!("api_key = \"{KEY}\"\n"));
    let made = desk.poster(&["make", "A heist", "--json"]).await;
    assert_eq!(made.code, Some(0), "{}", made.words);
    let wrong = desk.command(&["list"]).env("POSTER_API_KEY", "another").output().await.expect("it runs");
    assert_eq!(told(wrong).code, Some(2), "the variable comes before the file");
    desk.write("a.txt", "One\nTwo\n");
    assert_eq!(desk.poster(&["batch", "a.txt", "--no-wait"]).await.code, Some(0));
    let other = desk.command(&["batch", "a.txt"]).env("POSTER_API_KEY", "a-key-of-bob").output().await;
    let other = told(other.expect("it runs"));
    assert!(other.code == Some(2) && other.words.contains("Is the API key the one"), "{}", other.words);
    assert_eq!(desk.poster(&["batch", "a.txt", "--no-sheet"]).await.code, Some(0), "with her own key it goes on");
    let help = desk.command(&["--help"]).env("POSTER_API_KEY", KEY).output().await.expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for shown in [made.words, format!("{:?}", made.data), help] {
        assert!(!shown.contains(KEY), "{shown}");
    }
    desk.pipeline.stop().await;
}
