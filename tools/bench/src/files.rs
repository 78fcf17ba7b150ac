//! What the function `batch` needs for batches from files: memory, calls, and how long its steps take.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::batch::JOBS_PER_PART;
use shared::{BatchId, JobId};

use crate::calls::Units;
use crate::events::{answer, messages, picture, request};
use crate::products::{Endpoints, Product, Products};
use crate::report::{Report, mb, ms};
use crate::runtime_api::{Function, Invocation};
use crate::services::{Counts, Input, Item, Services};
use crate::start::no_failures;
use crate::worker::TICKETS;
use crate::{Failure, Runs};

/// The most lines of a file.
const LINES: usize = 1_000_000;

/// The size of the lines that make the largest file of that many, 5 GB.
const LONG: usize = 5_000;

/// The size of lines with a prompt of 41 characters, as the other ways of submitting have it.
const SHORT: usize = 77;

/// How many jobs are admitted.
const ADMITTED: usize = 20_000;

/// How long the services take.
const LATENCY: Duration = Duration::from_millis(5);

/// The timeout of the function.
pub(crate) const INVOCATION: Duration = Duration::from_secs(900);

/// What the cost model needs of a batch from a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Of the function `batch`, in milliseconds for one job: the check, the admission and the results.
    pub(crate) cpu: f64,
    pub(crate) took: f64,
    /// What the table bills for one job, painting included.
    pub(crate) units: Units,
    /// Calls of the bucket for one job, beside its picture.
    pub(crate) objects: f64,
}

/// The functions that a batch passes through.
struct Run {
    services: Services,
    submit: Function,
    batch: Function,
    /// The batch.
    id: String,
}

impl Run {
    async fn start(
        products: &Products,
        endpoints: &Endpoints,
        services: &Services,
        input: Input,
    ) -> Result<Self, Failure> {
        services.clear();
        services.behave(|behavior| behavior.input = Some(input));
        let mut submit = Function::start(&mut products.command(Product::Submit, endpoints)).await?;
        let batch = Function::start_with_limit(&mut products.command(Product::Batch, endpoints), INVOCATION).await?;
        let order = json!({ "input": { "format": "ndjson" } }).to_string();
        let submitted = submit.invoke(&request("POST", "/batches", None, &[], Some(&order))).await?.answer;
        let view: Value = serde_json::from_str(submitted["body"].as_str().unwrap_or_default())?;
        let id = view["id"].as_str().ok_or_else(|| format!("no batch: {submitted}"))?.to_owned();
        submit.invoke(&request("POST", "/batches/{id}/start", Some(&id), &[], None)).await?;
        services.take_counts();
        Ok(Self { services: services.clone(), submit, batch, id })
    }

    /// Delivers the batch's ticket.
    async fn look(&mut self) -> Result<(Invocation, Counts), Failure> {
        let invocation = self.batch.invoke(&self.ticket()).await?;
        Ok((invocation, self.services.take_counts()))
    }

    /// Delivers the batch's ticket until its jobs are admitted. Returns what all invocations took.
    async fn admit(&mut self) -> Result<(Invocation, Counts), Failure> {
        let mut invocation = self.batch.invoke(&self.ticket()).await?;
        while self.stage()? == "admitting" {
            let next = self.batch.invoke(&self.ticket()).await?;
            invocation.took += next.took;
            invocation.cpu += next.cpu;
        }
        self.expect_stage("in_progress")?;
        Ok((invocation, self.services.take_counts()))
    }

    fn ticket(&self) -> Value {
        messages(&[json!({ "v": 1, "batch": self.id }).to_string()])
    }

    fn stage(&self) -> Result<String, Failure> {
        let record = self.record()?;
        Ok(record["file"]["M"]["stage"]["S"].as_str().unwrap_or_default().to_owned())
    }

    fn record(&self) -> Result<Item, Failure> {
        self.services.item(&format!("BATCH#{}", self.id)).ok_or_else(|| "the batch has no record".into())
    }

    /// The counts that the batch has, such as `5 queued, 1 running`.
    fn counts(&self) -> Result<String, Failure> {
        let record = self.record()?;
        let count = |status: &str| record["file"]["M"]["counts"]["M"][status]["N"].as_str().unwrap_or("0").to_owned();
        let counts = ["queued", "running", "succeeded", "failed", "canceled"].map(|status| (count(status), status));
        let counts = counts.into_iter().filter(|(count, _)| count != "0");
        Ok(counts.map(|(count, status)| format!("{count} {status}")).collect::<Vec<_>>().join(", "))
    }

    /// Changes the record of the batch.
    fn edit(&self, change: impl FnOnce(&mut Item)) -> Result<(), Failure> {
        let mut record = self.record()?;
        change(&mut record);
        self.services.put(record);
        Ok(())
    }

    fn expect_stage(&self, stage: &str) -> Result<(), Failure> {
        let found = self.stage()?;
        if found == stage { Ok(()) } else { Err(format!("the batch is not {stage}, but {found}").into()) }
    }

    async fn stop(self) -> Result<(), Failure> {
        self.submit.stop().await?;
        self.batch.stop().await?;
        Ok(())
    }
}

pub(crate) async fn measure(products: &Products, runs: Runs, report: &mut Report) -> Result<Admission, Failure> {
    let services = Services::default();
    services.behave(|behavior| {
        behavior.answer = answer(&picture(1000)).into();
        behavior.latency = LATENCY;
    });
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);

    // A file whose last line is faulty, so that it is only checked.
    let input = Input::new(runs.times(LINES), LONG, true);
    let bytes = input.len() as f64;
    let mut run = Run::start(products, &endpoints, &services, input).await?;
    let (checked, _) = run.look().await?;
    run.expect_stage("invalid")?;
    let peak = run.batch.process.peak()? as f64;
    let speed = bytes / 1e6 / checked.cpu.as_secs_f64();
    let note = format!(
        "{:.1} GB with {} custom ids: {:.0} s, of which {:.0} s CPU; {speed:.0} MB/s of CPU time with reading and HTTP",
        bytes / 1e9,
        runs.times(LINES),
        checked.took.as_secs_f64(),
        checked.cpu.as_secs_f64(),
    );
    report.at_most("batch", "peak memory of a check", peak, 64e6, mb, (&note, ""));
    run.stop().await?;

    let jobs = runs.times(ADMITTED).next_multiple_of(JOBS_PER_PART);
    let mut run = Run::start(products, &endpoints, &services, Input::new(jobs, SHORT, false)).await?;
    let (admitted, counts) = run.admit().await?;
    let per_job = counts.writes / jobs as f64;
    let note = format!("{jobs} jobs: {}", counts.per(1));
    report.at_most("batch", "write units of an admitted job", per_job, 3.0, |units| format!("{units:.2}"), (&note, ""));
    let (took, cpu) = (admitted.took.as_secs_f64(), admitted.cpu.as_secs_f64());
    let note = format!("{cpu:.1} s of it CPU; services of {}", ms(LATENCY.as_secs_f64() * 1e3));
    let limit = 20.0 * jobs as f64 / ADMITTED as f64;
    report.at_most(
        "batch",
        &format!("{jobs} jobs checked and admitted"),
        took,
        limit,
        |s| format!("{s:.1} s"),
        (&note, ""),
    );
    let (admission_cpu, admission_took) = (cpu * 1e3 / jobs as f64, took * 1e3 / jobs as f64);
    let admission = Units { writes: per_job, reads: counts.reads / jobs as f64 };

    // What the worker writes for each.
    let tickets: Vec<_> =
        services.take_tickets().into_iter().filter(|ticket| ticket.contains("\"job\"")).take(TICKETS).collect();
    let mut worker = Function::start(&mut products.command(Product::Worker, &endpoints)).await?;
    let worked = worker.invoke(&messages(&tickets)).await?;
    let painted = services.take_counts();
    if !no_failures(&worked.answer) || painted.pictures as usize != TICKETS {
        return Err(format!("{} of {TICKETS} pictures: {}", painted.pictures, worked.answer).into());
    }
    worker.stop().await?;
    let painting = Units { writes: painted.writes / TICKETS as f64, reads: painted.reads / TICKETS as f64 };
    let job = services.any_with_status("succeeded").ok_or("no job is painted")?;

    // A look at a million jobs, none of which is in the table.
    let full = json!((0..LINES / JOBS_PER_PART).map(|part| json!({ "N": part.to_string() })).collect::<Vec<_>>());
    let million = |record: &mut Item, open: Value| {
        record["total"] = json!({ "N": LINES.to_string() });
        let file = &mut record["file"]["M"];
        file["admitted_jobs"] = json!({ "N": LINES.to_string() });
        file["checked_jobs"] = json!({ "N": LINES.to_string() });
        file["open_parts"] = json!({ "L": open });
        let input = Input::new(LINES, SHORT, false);
        file["bytes"] = json!({ "N": input.len().to_string() });
        services.behave(|behavior| behavior.input = Some(input));
    };
    let mut running_job = job.clone();
    running_job["status"] = json!({ "S": "running" });
    services.behave(|behavior| behavior.stored = Some(running_job));
    run.edit(|record| million(record, full.clone()))?;
    services.take_counts();
    let (looked, counts) = run.look().await?;
    run.expect_stage("in_progress")?;
    let note = format!(
        "{}, {:.0} read and {:.0} write units, {} with {} CPU",
        counts.per(1),
        counts.reads,
        counts.writes,
        ms(looked.took.as_secs_f64() * 1e3),
        ms(looked.cpu.as_secs_f64() * 1e3),
    );
    let dollars = crate::money::of_batch(1, looked.took, looked.cpu, &counts);
    report.at_most("batch", "one look at a million open jobs", dollars, 0.01, |sum| format!("${sum:.4}"), (&note, ""));

    // A cancellation of as many.
    let mut status = Function::start(&mut products.command(Product::Status, &endpoints)).await?;
    let cancel = request("POST", "/batches/{id}/cancel", Some(&run.id), &[], None);
    let canceled = status.invoke(&cancel).await?;
    if canceled.answer["statusCode"] != 202 {
        return Err(format!("not canceled: {}", canceled.answer).into());
    }
    status.stop().await?;
    let counts = services.take_counts();
    let note = format!("the first request of its function: {}", counts.per(1));
    let took = canceled.took.as_secs_f64() * 1e3;
    report.at_most("batch", "a cancellation of a million jobs", took, 100.0, ms, (&note, ""));

    // The results of a million painted jobs.
    services.behave(|behavior| behavior.stored = Some(job));
    run.edit(|record| {
        million(record, json!([]));
        record["file"]["M"]["cancel_from"] = json!({ "NULL": true });
    })?;
    services.take_counts();
    let (written, counts) = run.look().await?;
    run.expect_stage("ended")?;
    let peak = run.batch.process.peak()? as f64;
    let (took, cpu) = (written.took.as_secs_f64(), written.cpu.as_secs_f64());
    let note = format!("{took:.0} s, of which {cpu:.0} s CPU; {}; {:.0} read units", counts.per(1), counts.reads);
    report.at_most("batch", "peak memory of a million results", peak, 64e6, mb, (&note, ""));
    run.stop().await?;

    let lines = LINES as f64;
    Ok(Admission {
        cpu: admission_cpu + cpu * 1e3 / lines,
        took: admission_took + took * 1e3 / lines,
        units: Units {
            writes: admission.writes + painting.writes,
            reads: admission.reads + painting.reads + counts.reads / lines,
        },
        objects: (counts.of("UploadPart") + counts.of("GetObject")) as f64 / lines,
    })
}

/// Admits a file with the most lines in one run, and counts its jobs. Nothing is painted, and the function is killed
/// twice while it admits them.
pub(crate) async fn million(products: &Products, report: &mut Report) -> Result<(), Failure> {
    let services = Services::default();
    services.behave(|behavior| behavior.forgets = true);
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let mut run = Run::start(products, &endpoints, &services, Input::new(LINES, SHORT, false)).await?;
    let (begun, mut invocations, mut cpu, mut peak) = (Instant::now(), 0, Duration::ZERO, 0);
    let mut kills = Vec::new();
    for jobs in [LINES / 3, LINES / 3 * 2] {
        let are_stored = async {
            while services.jobs() < jobs {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut are_stored = std::pin::pin!(are_stored);
        loop {
            invocations += 1;
            let ticket = run.ticket();
            tokio::select! {
                invocation = run.batch.invoke(&ticket) => { invocation?; }
                () = &mut are_stored => break,
            }
        }
        cpu += run.batch.process.cpu()?;
        peak = peak.max(run.batch.process.peak()?);
        let next = Function::start_with_limit(&mut products.command(Product::Batch, &endpoints), INVOCATION).await?;
        std::mem::replace(&mut run.batch, next).stop().await?;
        run.expect_stage("admitting")?;
        let admitted = run.record()?["file"]["M"]["admitted_jobs"]["N"].as_str().unwrap_or_default().to_owned();
        kills.push(format!("with {} jobs stored, of which its record knew {admitted}", services.jobs()));
    }
    while run.stage()? == "admitting" {
        invocations += 1;
        run.batch.invoke(&run.ticket()).await?;
    }
    let took = begun.elapsed();
    cpu += run.batch.process.cpu()?;
    peak = peak.max(run.batch.process.peak()?);
    run.expect_stage("in_progress")?;
    let counts = services.take_counts();

    // Every job has its record, in its part, and a ticket, and there is no other.
    let (batch, stored): (BatchId, _) = (run.id.parse()?, services.jobs());
    let mut ticketed = BTreeSet::new();
    for ticket in services.take_tickets() {
        let ticket: Value = serde_json::from_str(&ticket)?;
        ticketed.extend(ticket["job"].as_str().map(str::to_owned));
    }
    let mut found = 0;
    for part in 0..LINES / JOBS_PER_PART {
        let name = if part == 0 { run.id.clone() } else { format!("{}#{part}", run.id) };
        let keys: BTreeSet<_> = services.keys_of_part(&name).into_iter().collect();
        let ids = (part * JOBS_PER_PART..(part + 1) * JOBS_PER_PART).map(|index| JobId::in_batch(batch, index));
        found += ids.filter(|id| keys.contains(&format!("JOB#{id}")) && ticketed.contains(&id.to_string())).count();
    }
    let counted = run.counts()?;
    if (found, stored, ticketed.len(), counted.as_str()) != (LINES, LINES, LINES, "1000000 queued") {
        return Err(format!("{found} of {stored} jobs, {} with tickets, {counted}", ticketed.len()).into());
    }
    // If a job of each part has begun, a look reads every part.
    services.change_one_of_each_part("running");
    let (looked, look) = run.look().await?;
    let begun_jobs = run.counts()?;
    if begun_jobs != "999000 queued, 1000 running" || look.of("Query") != 1000 {
        return Err(format!("{begun_jobs} by {}", look.per(1)).into());
    }
    run.stop().await?;

    let dollars = crate::money::of_batch(invocations, took, cpu, &counts);
    let table = format!(
        "| {LINES} lines of {SHORT} bytes in one run, nothing painted | |\n|---|---|\n\
         | killed | {} |\n\
         | at the end | {found} jobs, each with its record and a ticket, and no others; the batch counts {counted} |\n\
         | when one job of each thousand has begun | the batch counts {begun_jobs}, by {} in {:.1} s |\n\
         | time | {:.0} s, of which {:.0} s CPU, with services that take no time |\n\
         | peak memory | {} |\n\
         | calls | {} |\n\
         | cost | ${dollars:.2}, with {:.0} write units |",
        kills.join("; "),
        look.per(1),
        looked.took.as_secs_f64(),
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        mb(peak as f64),
        counts.per(1),
        counts.writes,
    );
    report.section("million", table);
    Ok(())
}
