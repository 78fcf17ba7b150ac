//! The local stack: how fast it is, what it holds, and what its build takes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::process::Process;
use crate::products::{Products, Run, cargo};
use crate::report::{Report, mb, ms};
use crate::{Failure, Runs, median};

/// The most jobs of a batch.
const BATCH: usize = 1000;

/// The local stack, serving.
pub(crate) struct Stack {
    child: Child,
    process: Process,
    api: String,
    http: reqwest::Client,
    /// From its start to the moment at which everything answers.
    ready_after: Duration,
    _directory: tempfile::TempDir,
}

impl Stack {
    pub(crate) async fn start(binary: &Path, flags: &[&str]) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let ready = directory.path().join("ready.json");
        let begun = Instant::now();
        let child = Command::new(binary)
            .args(["--parameter", "Thumbnails=false", "--port", "0", "--ready-file"])
            .arg(&ready)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        while !ready.exists() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("the local stack does not start".into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        let ready_after = begun.elapsed();
        let told: Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
        let api = told["api"].as_str().ok_or("the local stack tells no address")?.to_owned();
        let process = Process(child.id().ok_or("the local stack ended at once")?);
        Ok(Self { child, process, api, http: reqwest::Client::new(), ready_after, _directory: directory })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.http.post(format!("{}{path}", self.api)).json(body).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// Asks for something every `pause` until it says that it has ended well.
    async fn wait(&self, address: &str, ended: &str, pause: Duration) -> Result<Value, Failure> {
        loop {
            let state: Value = self.http.get(address).send().await?.error_for_status()?.json().await?;
            match state["status"].as_str() {
                Some(status) if status == ended => return Ok(state),
                Some("queued" | "running" | "in_progress") => sleep(pause).await,
                _ => return Err(format!("a job came to a bad end: {state}").into()),
            }
        }
    }

    /// How long one job takes from its submission to its picture, in milliseconds.
    async fn one(&self) -> Result<f64, Failure> {
        let begun = Instant::now();
        self.finished(&json!({ "prompt": "A noir detective thriller in 1940s Venice" })).await?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// Submits a job and waits for its picture.
    pub(crate) async fn finished(&self, order: &Value) -> Result<Value, Failure> {
        let job = self.post("/jobs", order).await?;
        let address = job["links"]["self"].as_str().ok_or("a job has no address")?;
        self.wait(address, "succeeded", Duration::from_millis(2)).await
    }

    /// How many posters are made in a second when many are wanted.
    async fn many(&self, posters: usize) -> Result<f64, Failure> {
        let begun = Instant::now();
        let mut batches = Vec::new();
        let mut left = posters;
        while left > 0 {
            let jobs = vec![json!({ "prompt": "A noir detective thriller in 1940s Venice" }); left.min(BATCH)];
            left -= jobs.len();
            let batch = self.post("/batches", &json!({ "jobs": jobs })).await?;
            batches.push(batch["links"]["self"].as_str().ok_or("a batch has no address")?.to_owned());
        }
        for batch in batches {
            self.wait(&batch, "completed", Duration::from_millis(500)).await?;
        }
        Ok(posters as f64 / begun.elapsed().as_secs_f64())
    }

    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }
}

/// Builds the stack as `cargo run` does, and says where it is.
pub(crate) async fn build_stack(products: &Products) -> Result<PathBuf, Failure> {
    // The whole workspace's features, as for `cargo run` at its root.
    cargo(&products.root, &products.target).args(["build", "--locked", "--bin", "local"]).run().await?;
    Ok(products.target.join("debug/local"))
}

/// Measures the stack as `cargo run` builds it.
pub(crate) async fn measure(products: &Products, runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let binary = build_stack(products).await?;
    let (mut ready, mut rest) = (Vec::new(), Vec::new());
    for _ in 0..runs.times(10) {
        let stack = Stack::start(&binary, &[]).await?;
        ready.push(stack.ready_after.as_secs_f64() * 1e3);
        sleep(Duration::from_millis(300)).await;
        rest.push(stack.process.memory()? as f64);
        stack.stop().await?;
    }
    let stack = Stack::start(&binary, &[]).await?;
    stack.one().await?;
    let mut painted = Vec::new();
    for _ in 0..runs.times(10) {
        painted.push(stack.one().await?);
    }
    let artist = stack.many(runs.times(50)).await?;
    stack.stop().await?;

    let stack = Stack::start(&binary, &["--model-plain"]).await?;
    stack.one().await?;
    let mut plain = Vec::new();
    for _ in 0..runs.times(30) {
        plain.push(stack.one().await?);
    }
    let jobs = runs.times(10_000);
    let rate = stack.many(jobs).await?;
    let peak = stack.process.peak()? as f64;
    sleep(Duration::from_secs(1)).await;
    let after = stack.process.memory()? as f64;
    stack.stop().await?;

    let table = format!(
        "| the local stack, as `cargo run` builds it, without thumbnails | |\n|---|---|\n\
         | from its start until everything answers | {} |\n\
         | memory at rest | {} |\n\
         | memory after {jobs} jobs | {}, at its peak {} |\n\
         | from POST to a finished job, the offline artist painting | {} |\n\
         | from POST to a finished job, plain color | {} |\n\
         | posters a second, the offline artist painting | {artist:.1} |\n\
         | posters a second, plain color | {rate:.0} |",
        ms(median(&ready)),
        mb(median(&rest)),
        mb(after),
        mb(peak),
        ms(median(&painted)),
        ms(median(&plain)),
    );
    report.section("local", table);
    Ok(())
}

/// Builds the local stack from nothing and once more, and reports what took the time.
pub(crate) async fn build(products: &Products, report: &mut Report) -> Result<(), Failure> {
    let target = products.target.join("from-nothing");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let mut command = cargo(&products.root, &target);
    command.args(["build", "--locked", "--bin", "local"]);
    let (begun, cpu) = (Instant::now(), cpu_of_children()?);
    command.arg("--timings").run().await?;
    let (cold, cpu) = (begun.elapsed().as_secs_f64() / 60.0, (cpu_of_children()? - cpu) / 60.0);
    let begun = Instant::now();
    let mut command = cargo(&products.root, &target);
    command.args(["build", "--locked", "--bin", "local"]).run().await?;
    let warm = begun.elapsed().as_secs_f64();
    let units = units(&target.join("cargo-timings/cargo-timing.html"))?;
    std::fs::remove_dir_all(&target)?;

    let whole: f64 = units.iter().map(|unit| unit.1).sum();
    let processors = std::thread::available_parallelism()?;
    let mut text = format!(
        "`cargo build` from scratch, with the dependencies downloaded, takes {cold:.1} minutes on {processors} processors, \
         or {cpu:.1} minutes of CPU time; a second build without changes, {warm:.1} s. Where the time goes:\n\n\
         | crate | share of the build |\n|---|---|\n"
    );
    for (name, seconds) in units.iter().take(12) {
        let _ = writeln!(text, "| {name} | {:.0} % |", seconds / whole * 100.0);
    }
    let rest: f64 = units.iter().skip(12).map(|unit| unit.1).sum();
    let _ = writeln!(text, "| {} others | {:.0} % |", units.len().saturating_sub(12), rest / whole * 100.0);
    report.section("build", text);
    Ok(())
}

/// The crates of Cargo's build report with their seconds, the longest first.
fn units(report: &Path) -> Result<Vec<(String, f64)>, Failure> {
    let html = std::fs::read_to_string(report)?;
    let begin = html.split_once("const UNIT_DATA = ").ok_or("Cargo's report of the build tells no units")?.1;
    let data = begin.split_once("];").ok_or("Cargo's report of the build is cut short")?.0;
    let data: Vec<Value> = serde_json::from_str(&format!("{data}]"))?;
    let mut units = std::collections::BTreeMap::<String, f64>::new();
    for unit in data {
        let name = unit["name"].as_str().unwrap_or_default().to_owned();
        *units.entry(name).or_default() += unit["duration"].as_f64().unwrap_or(0.0);
    }
    let mut units: Vec<_> = units.into_iter().collect();
    units.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(units)
}

/// The processor time of all children that have ended, in seconds.
fn cpu_of_children() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, which may hold anything, ends at the last bracket; see proc_pid_stat(5).
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(13) + ticks(14)) / 100.0)
}
