//! What a poster costs in calls of AWS services, and that no duplicate and no failure has it painted twice.

use std::time::Duration;

use serde_json::{Value, json};

use crate::events::{answer, messages, picture, request, submission};
use crate::files::INVOCATION;
use crate::products::{Endpoints, Product, Products};
use crate::report::Report;
use crate::runtime_api::{Function, Invocation};
use crate::services::{Counts, Services};
use crate::start::no_failures;
use crate::worker::TICKETS;
use crate::{Failure, Runs};

/// What the table bills for one poster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Units {
    pub(crate) writes: f64,
    pub(crate) reads: f64,
}

/// What the cost model needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// Of jobs that are submitted one by one.
    pub(crate) single: Units,
    /// Of jobs that are submitted ten in a batch, with the looks at it.
    pub(crate) batch: Units,
    /// Of the function `batch` for one batch of ten, in milliseconds.
    pub(crate) looks_took: f64,
    pub(crate) looks_cpu: f64,
    /// The size of the largest record, in bytes.
    pub(crate) largest_item: usize,
}

/// How often the function `batch` looks at a batch that is painted in half a minute.
pub(crate) const LOOKS: usize = 8;

pub(crate) async fn measure(products: &Products, runs: Runs, report: &mut Report) -> Result<Calls, Failure> {
    let services = Services::default();
    services.behave(|behavior| behavior.answer = answer(&picture(1000)).into());
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let mut submit = Function::start(&mut products.command(Product::Submit, &endpoints)).await?;
    let mut worker = Function::start(&mut products.command(Product::Worker, &endpoints)).await?;

    for _ in 0..TICKETS {
        submit.invoke(&submission()).await?;
    }
    let submitted = services.take_counts();
    let tickets = services.take_tickets();
    let worked = work(&services, &mut worker, tickets).await?;
    let exactly = |report: &mut Report, what: &str, counts: &Counts, target: &str, note: &str| {
        let calls = counts.per(TICKETS as u64);
        report.check("calls", what, calls.clone(), target.to_owned(), calls == target, (note, ""));
    };
    exactly(report, "submission", &submitted, "1 PutItem, 1 SendMessage", "");
    let painting = "1 GetItem, 1 InvokeModel, 1 PutObject, 2 UpdateItem";
    exactly(report, "poster", &worked, painting, "The updates write the claim and the end.");
    let single = units(&[&submitted, &worked]);
    let largest_item = worked.largest_item;

    services.clear();
    let jobs = vec![json!({ "prompt": "A noir detective thriller in 1940s Venice" }); TICKETS];
    let batch = request("POST", "/batches", None, &[], Some(&json!({ "jobs": jobs }).to_string()));
    submit.invoke(&batch).await?;
    let submitted = services.take_counts();
    let whole = submitted.per(1);
    let target = "1 GetItem, 11 PutItem, 1 SendMessage, 1 SendMessageBatch, 1 UpdateItem";
    report.check("calls", "submission of ten in a batch", whole.clone(), target.to_owned(), whole == target, ("", ""));
    let (tickets, of_batch): (Vec<_>, Vec<_>) =
        services.take_tickets().into_iter().partition(|ticket| ticket.contains("\"job\""));
    let mut watcher = Function::start_with_limit(&mut products.command(Product::Batch, &endpoints), INVOCATION).await?;
    let mut looks = Vec::new();
    for _ in 1..LOOKS {
        looks.push(watcher.invoke(&messages(&of_batch)).await?);
    }
    let watched = services.take_counts();
    let worked = work(&services, &mut worker, tickets).await?;
    let last = watcher.invoke(&messages(&of_batch)).await?;
    if !no_failures(&last.answer) {
        return Err(format!("the batch has not ended: {}", last.answer).into());
    }
    looks.push(last);
    watcher.stop().await?;
    let ended = services.take_counts();
    let end = ended.per(1);
    let target = "1 BatchGetItem, 1 ChangeMessageVisibility, 1 GetItem, 1 PutObject, 1 Query, 1 UpdateItem";
    let note = format!("It comes after {} looks with {}.", LOOKS - 1, watched.per(1));
    report.check("calls", "end of a batch of ten", end.clone(), target.to_owned(), end == target, (&note, ""));
    let batch = units(&[&submitted, &watched, &worked, &ended]);
    let total = |time: fn(&Invocation) -> Duration| looks.iter().map(time).sum::<Duration>().as_secs_f64() * 1e3;
    let (looks_took, looks_cpu) = (total(|look| look.took), total(|look| look.cpu));

    services.clear();
    let posters = runs.times(100).div_ceil(TICKETS) * TICKETS;
    for _ in 0..posters {
        submit.invoke(&submission()).await?;
    }
    submit.stop().await?;
    worker.stop().await?;
    let tickets = services.take_tickets();
    services.take_counts();
    services.behave(|behavior| {
        behavior.faults = true;
        behavior.model = Duration::from_millis(50);
    });
    let (first, second) = tokio::try_join!(
        deliver(products, &endpoints, tickets.clone()),
        // The other copies come in another order.
        deliver(products, &endpoints, tickets.into_iter().rev().collect()),
    )?;
    let counts = services.take_counts();
    let ratio = counts.pictures as f64 / posters as f64;
    let finished = services.with_status("succeeded");
    let note = format!(
        "{posters} posters, each ticket delivered twice to two workers at once and {} times in all; every fifth \
         call of table and bucket failed, and every seventh lost its answer; the model refused every sixth of its {} \
         calls.",
        first + second,
        counts.of("InvokeModel")
    );
    let met = ratio == 1.0 && finished == posters;
    let measured = format!("{ratio:.3}");
    let reason = format!("{finished} of {posters} jobs succeeded.");
    report.check("calls", "pictures per poster, disturbed", measured, "1.000".to_owned(), met, (&note, &reason));
    Ok(Calls { single, batch, looks_took, looks_cpu, largest_item })
}

/// Has the worker work these tickets off.
async fn work(services: &Services, worker: &mut Function, tickets: Vec<String>) -> Result<Counts, Failure> {
    let invocation = worker.invoke(&messages(&tickets)).await?;
    if !no_failures(&invocation.answer) {
        return Err(format!("tickets came to nothing: {}", invocation.answer).into());
    }
    Ok(services.take_counts())
}

fn units(counts: &[&Counts]) -> Units {
    let sum = |units: fn(&Counts) -> f64| counts.iter().map(|counts| units(counts)).sum::<f64>() / TICKETS as f64;
    Units { writes: sum(|counts| counts.writes), reads: sum(|counts| counts.reads) }
}

/// Hands the tickets to a worker, ten at a time, and those that come to nothing again until none is left. Gives back how
/// many were handed over in all.
async fn deliver(products: &Products, endpoints: &Endpoints, mut tickets: Vec<String>) -> Result<usize, Failure> {
    // The shortest invocation in which a worker begins anything, so that a lost lease ends soon.
    let mut command = products.command(Product::Worker, endpoints);
    let limit = Duration::from_secs(22);
    let mut worker = Function::start_with_limit(command.env("MODEL_TIMEOUT_SECONDS", "1"), limit).await?;
    let mut deliveries = 0;
    for _ in 0..40 {
        let mut again = Vec::new();
        for batch in tickets.chunks(TICKETS) {
            deliveries += batch.len();
            let answer = worker.invoke(&messages(batch)).await?.answer;
            again.extend(named(&answer, batch));
        }
        if again.is_empty() {
            worker.stop().await?;
            return Ok(deliveries);
        }
        tickets = again;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(format!("{} tickets come to no end", tickets.len()).into())
}

/// The tickets of a batch that the worker's answer names.
fn named(answer: &Value, batch: &[String]) -> Vec<String> {
    let failures = answer["batchItemFailures"].as_array().into_iter().flatten();
    let indexes =
        failures.filter_map(|failure| failure["itemIdentifier"].as_str()?.strip_prefix("message-")?.parse().ok());
    indexes.filter_map(|index: usize| batch.get(index).cloned()).collect()
}
