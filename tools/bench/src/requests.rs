//! What a request costs: submitting a job, and asking after one.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::events::{answer, messages, picture, request, submission};
use crate::products::{Endpoints, Product, Products};
use crate::report::{Report, ms, part, times};
use crate::runtime_api::Function;
use crate::services::Services;
use crate::start::{CALLGRIND, collected};
use crate::{Failure, Runs, median};

/// What the cost model needs of `submit`, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submit {
    pub(crate) took: f64,
    pub(crate) cpu: f64,
}

/// Submits jobs to the function and the peer in turn.
pub(crate) async fn submit(products: &Products, runs: Runs, report: &mut Report) -> Result<Submit, Failure> {
    let services = Services::default();
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let mut ours = Function::start(&mut products.command(Product::Submit, &endpoints)).await?;
    let mut peer = Function::start(&mut products.command(Product::PeerSubmit, &endpoints)).await?;
    for function in [&mut ours, &mut peer] {
        repeat(function, 30, 202).await?;
    }
    let (mut cpu, mut peer_cpu) = (Vec::new(), Vec::new());
    for _ in 0..runs.times(20) {
        cpu.extend(repeat(&mut ours, 20, 202).await?.0);
        peer_cpu.extend(repeat(&mut peer, 20, 202).await?.0);
    }
    services.behave(|behavior| behavior.latency = Duration::from_millis(5));
    services.take_counts();
    let (mut took, mut peer_took, mut service) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs.times(20) {
        took.extend(repeat(&mut ours, 5, 202).await?.1);
        let counts = services.take_counts();
        service.push(counts.service_time.as_secs_f64() * 1e3 / counts.calls.values().sum::<u64>() as f64);
        peer_took.extend(repeat(&mut peer, 5, 202).await?.1);
        services.take_counts();
    }
    ours.stop().await?;
    peer.stop().await?;
    let (cpu, peer_cpu) = (median(&cpu), median(&peer_cpu));
    let note = format!("{} against {}.", ms(cpu), ms(peer_cpu));
    let reason =
        "Most of it is two calls by the SDK, and their system calls; little of it is this function's own code.";
    report.at_most("submit", "CPU, of the peer's", cpu / peer_cpu, 0.1, part, (&note, reason));
    let (took, service) = (median(&took), median(&service));
    let note = format!(
        "{} with services of {}; peer {}. The record must be written before the ticket is sent: a worker would find \
         no record for an earlier ticket, and the ticket would be useless if the record could not be written.",
        ms(took),
        ms(service),
        ms(median(&peer_took))
    );
    report.at_most("submit", "latency, of the slower service's", took / service, 2.3, times, (&note, ""));
    report.plot("CPU of a submission", "ms", vec![("submit", cpu), ("submit, Python", peer_cpu)]);
    Ok(Submit { took, cpu })
}

/// Submits jobs, and gives back what each took in processor time and in all, in milliseconds.
async fn repeat(function: &mut Function, times: usize, status: u16) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut cpu, mut took) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let invocation = function.invoke(&submission()).await?;
        expect(&invocation.answer, status)?;
        cpu.push(invocation.cpu.as_secs_f64() * 1e3);
        took.push(invocation.took.as_secs_f64() * 1e3);
    }
    Ok((cpu, took))
}

fn expect(answer: &Value, status: u16) -> Result<(), Failure> {
    if answer["statusCode"] == status { Ok(()) } else { Err(format!("not {status}: {answer}").into()) }
}

/// Asks after a finished job, whole and by its version.
pub(crate) async fn status(products: &Products, runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let services = Services::default();
    services.behave(|behavior| behavior.answer = answer(&picture(1000)).into());
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let mut submit = Function::start(&mut products.command(Product::Submit, &endpoints)).await?;
    let job = submit.invoke(&submission()).await?.answer;
    submit.stop().await?;
    let job: Value = serde_json::from_str(job["body"].as_str().unwrap_or_default())?;
    let id = job["id"].as_str().ok_or("a submission told no id")?;
    let mut worker = Function::start(&mut products.command(Product::Worker, &endpoints)).await?;
    worker.invoke(&messages(&services.take_tickets())).await?;
    worker.stop().await?;

    let whole = request("GET", "/jobs/{id}", Some(id), &[], None);
    let mut function = Function::start(&mut products.command(Product::Status, &endpoints)).await?;
    let first = function.invoke(&whole).await?.answer;
    expect(&first, 200)?;
    let etag = first["headers"]["etag"].as_str().ok_or("a status has no ETag")?.to_owned();
    let version = request("GET", "/jobs/{id}", Some(id), &[("If-None-Match", &etag)], None);
    for _ in 0..30 {
        function.invoke(&whole).await?;
    }
    services.take_counts();
    let (mut cpu, mut unchanged) = (Vec::new(), Vec::new());
    let rounds = runs.times(300);
    for _ in 0..rounds {
        let invocation = function.invoke(&whole).await?;
        expect(&invocation.answer, 200)?;
        cpu.push(invocation.cpu.as_secs_f64() * 1e3);
        let invocation = function.invoke(&version).await?;
        expect(&invocation.answer, 304)?;
        unchanged.push(invocation.cpu.as_secs_f64() * 1e3);
    }
    function.stop().await?;
    let counts = services.take_counts();
    let calls = counts.per(2 * rounds as u64);
    let units = counts.reads / (2 * rounds) as f64;
    let note = format!("{units:.1} read units");
    report.check("status", "calls", calls.clone(), "1 GetItem".to_owned(), calls == "1 GetItem", (&note, ""));
    let (cpu, unchanged) = (median(&cpu), median(&unchanged));
    report.at_most("status", "CPU", cpu, 0.5, ms, ("", ""));

    let mut instructions = [0.0; 2];
    for (event, instructions) in [&whole, &version].into_iter().zip(&mut instructions) {
        let few = count_instructions(products, &endpoints, event, 2).await?;
        *instructions = (count_instructions(products, &endpoints, event, 12).await? - few) / 10.0;
    }
    let [whole, unchanged_instructions] = instructions;
    let note = format!(
        "{:.0} k against {:.0} k; {} against {}",
        unchanged_instructions / 1e3,
        whole / 1e3,
        ms(unchanged),
        ms(cpu)
    );
    let ratio = unchanged_instructions / whole;
    report.at_most("status", "instructions of a 304, of a 200's", ratio, 1.0, times, (&note, ""));
    Ok(())
}

/// The instructions of a start and so many requests.
async fn count_instructions(
    products: &Products,
    endpoints: &Endpoints,
    event: &Value,
    times: usize,
) -> Result<f64, Failure> {
    let mut command = products.command_under(&CALLGRIND, Product::Status, endpoints);
    let mut function = Function::start(command.stderr(Stdio::piped())).await?;
    for _ in 0..times {
        function.invoke(event).await?;
    }
    collected(function).await
}
