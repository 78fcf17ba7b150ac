//! Ten tickets in one invocation.

use std::time::Duration;

use crate::events::{answer, messages, picture, submission};
use crate::products::{Endpoints, Product, Products};
use crate::report::{Report, mb, ms, part, times};
use crate::runtime_api::Function;
use crate::services::Services;
use crate::start::no_failures;
use crate::{Failure, Runs, median};

/// The most tickets of an invocation.
pub(crate) const TICKETS: usize = 10;

/// How long the model takes.
pub(crate) const MODEL: Duration = Duration::from_secs(1);

/// The size of a picture: what the real model's PNG files of 832 × 1216 pixels have.
pub(crate) const PICTURE: usize = 1_500_000;

/// What the cost model needs of the workers, in milliseconds for one poster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Of an invocation's time, ten tickets at once.
    pub(crate) took: f64,
    pub(crate) cpu: f64,
    /// Of an invocation's time, one ticket in an invocation.
    pub(crate) took_alone: f64,
    pub(crate) cpu_alone: f64,
    /// Of the synchronous peer's.
    pub(crate) took_synchronous: f64,
    pub(crate) cpu_synchronous: f64,
}

/// A worker, the function that submits its jobs, and its measurements.
struct Contender {
    submit: Function,
    worker: Function,
    took: Vec<f64>,
    cpu: Vec<f64>,
}

impl Contender {
    async fn start(
        products: &Products,
        endpoints: &Endpoints,
        submit: Product,
        worker: Product,
        in_flight: &str,
    ) -> Result<Self, Failure> {
        let submit = Function::start(&mut products.command(submit, endpoints)).await?;
        let worker = Function::start(products.command(worker, endpoints).env("POSTERS_IN_FLIGHT", in_flight)).await?;
        Ok(Self { submit, worker, took: Vec::new(), cpu: Vec::new() })
    }

    /// Submits jobs and hands all their tickets to the worker at once.
    async fn work(&mut self, services: &Services, tickets: usize) -> Result<(f64, f64), Failure> {
        for _ in 0..tickets {
            self.submit.invoke(&submission()).await?;
        }
        services.take_counts();
        let invocation = self.worker.invoke(&messages(&services.take_tickets())).await?;
        let pictures = services.take_counts().pictures as usize;
        if !no_failures(&invocation.answer) || pictures != tickets {
            return Err(format!("{pictures} of {tickets} pictures: {}", invocation.answer).into());
        }
        services.clear();
        Ok((invocation.took.as_secs_f64() * 1e3, invocation.cpu.as_secs_f64() * 1e3))
    }

    async fn round(&mut self, services: &Services, tickets: usize) -> Result<(), Failure> {
        let (took, cpu) = self.work(services, tickets).await?;
        self.took.push(took);
        self.cpu.push(cpu / tickets as f64);
        Ok(())
    }
}

/// Processes ten tickets in each way in turn.
pub(crate) async fn measure(products: &Products, runs: Runs, report: &mut Report) -> Result<Work, Failure> {
    let services = Services::default();
    let answer = answer(&picture(PICTURE));
    let in_flight = (answer.len() * TICKETS) as f64;
    services.behave(|behavior| behavior.answer = answer.into());
    let running = services.start().await?;
    let endpoints = Endpoints::plain(&running.addresses);
    let start =
        async |submit, worker, in_flight| Contender::start(products, &endpoints, submit, worker, in_flight).await;
    let mut ours = start(Product::Submit, Product::Worker, "10").await?;
    let mut one_by_one = start(Product::Submit, Product::Worker, "1").await?;
    let mut alone = start(Product::Submit, Product::Worker, "1").await?;
    let mut defaults = start(Product::Submit, Product::WorkerDefaults, "10").await?;
    let mut pool = start(Product::PeerSubmit, Product::PeerWorker, "10").await?;
    // Connections are made and caches filled before anything is measured.
    for contender in [&mut ours, &mut one_by_one, &mut alone, &mut defaults, &mut pool] {
        contender.work(&services, 1).await?;
    }
    let mut synchronous = Function::start(&mut products.command(Product::PeerSynchronous, &endpoints)).await?;
    synchronous.invoke(&submission()).await?;
    services.behave(|behavior| behavior.model = MODEL);
    let (mut took_synchronous, mut cpu_synchronous) = (Vec::new(), Vec::new());
    let rounds = runs.times(15);
    for round in 0..rounds {
        for contender in [&mut ours, &mut defaults, &mut pool] {
            contender.round(&services, TICKETS).await?;
        }
        alone.round(&services, 1).await?;
        // This takes ten seconds.
        if round < rounds.div_ceil(5) {
            one_by_one.round(&services, TICKETS).await?;
        }
        let invocation = synchronous.invoke(&submission()).await?;
        took_synchronous.push(invocation.took.as_secs_f64() * 1e3);
        cpu_synchronous.push(invocation.cpu.as_secs_f64() * 1e3);
    }
    let memory = ours.worker.process.peak()? as f64;
    let (memory_defaults, memory_pool) = (defaults.worker.process.peak()?, pool.worker.process.peak()?);

    let took = median(&ours.took);
    let model = MODEL.as_secs_f64() * 1e3;
    let note = format!(
        "{} with POSTERS_IN_FLIGHT=10; defaults {}, peer's pool {}",
        ms(took),
        ms(median(&defaults.took)),
        ms(median(&pool.took))
    );
    report.at_most("worker", "invocation, of the model's time", took / model, 1.06, times, (&note, ""));
    let slow = median(&one_by_one.took);
    let note = format!("{} against {}", ms(took), ms(slow));
    let cheaper = slow / took;
    report.check(
        "worker",
        "cheaper than one at a time",
        times(cheaper),
        "≥ 9.50 ×".to_owned(),
        cheaper >= 9.5,
        (&note, ""),
    );
    let (cpu, cpu_pool) = (median(&ours.cpu), median(&pool.cpu));
    let note = format!("{} against {}; defaults {}", ms(cpu), ms(cpu_pool), ms(median(&defaults.cpu)));
    report.at_most("worker", "CPU per poster, of the peer's pool", cpu / cpu_pool, 0.2, part, (&note, ""));
    let note = format!(
        "{} for ten answers of {}; defaults {}, peer's pool {}.",
        mb(memory),
        mb(in_flight / TICKETS as f64),
        mb(memory_defaults as f64),
        mb(memory_pool as f64)
    );
    let reason = "The memory also includes the function itself and a megabyte of hyper's for each connection, which the \
                  SDK's HTTP client does not allow to limit.";
    report.at_most("worker", "peak memory, of the ten answers'", memory / in_flight, 1.5, times, (&note, reason));
    let bars = vec![("worker", cpu), ("worker, defaults", median(&defaults.cpu)), ("pool, Python", cpu_pool)];
    report.plot("CPU of a poster, ten at once", "ms", bars);
    let bars = vec![
        ("worker", took),
        ("worker, defaults", median(&defaults.took)),
        ("pool, Python", median(&pool.took)),
        ("one at a time", slow),
    ];
    report.plot("Ten posters, the model taking 1 s", "ms", bars);
    let bars = vec![
        ("worker", memory / 1e6),
        ("worker, defaults", memory_defaults as f64 / 1e6),
        ("pool, Python", memory_pool as f64 / 1e6),
    ];
    report.plot("Peak memory, ten posters of 1.5 MB at once", "MB", bars);
    let tickets = TICKETS as f64;
    Ok(Work {
        took: took / tickets,
        cpu,
        took_alone: median(&alone.took),
        cpu_alone: median(&alone.cpu),
        took_synchronous: median(&took_synchronous),
        cpu_synchronous: median(&cpu_synchronous),
    })
}
