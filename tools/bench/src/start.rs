//! What a function costs before its first answer: its size, its start, and its first connections.

use std::path::PathBuf;

use tokio::process::Command;

use crate::events::{answer, messages, picture, submission};
use crate::products::{Endpoints, Product, Products, Run, TlsFront};
use crate::report::{Report, mb, ms, part, times};
use crate::runtime_api::Function;
use crate::services::Services;
use crate::{Failure, Runs, median};

/// The sizes of what is uploaded to Lambda.
pub(crate) async fn sizes(products: &Products, report: &mut Report) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    for product in Product::OURS {
        let bootstrap = directory.path().join("bootstrap");
        std::fs::copy(products.binary(product), &bootstrap)?;
        let zip = directory.path().join("function.zip");
        Command::new("python3").args(["-m", "zipfile", "-c"]).args([&zip, &bootstrap]).run().await?;
        let size = std::fs::metadata(&zip)?.len() as f64;
        let binary = std::fs::metadata(&bootstrap)?.len() as f64;
        let limit = if product == Product::Worker { 3.6e6 } else { 2.5e6 };
        let note = format!("{} unpacked, {}.", mb(binary), std::env::consts::ARCH);
        let reason = match product {
            Product::Worker => "It includes fonts for the lettering, and decoders and encoders of three image formats.",
            Product::Batch => "It includes S3's client, which reads the files of batches and writes their results.",
            Product::Submit | Product::Webhook => {
                "The SDK's HTTP client always includes HTTP/2, which this function does not need."
            }
            _ => {
                "It includes S3's client, which deletes files of ended jobs and looks for a picture before a job fails."
            }
        };
        report.at_most("zip", product.name(), size, limit, mb, (&note, reason));
    }
    Ok(())
}

/// Measurements of a function when it first asks for an event.
struct Start {
    product: Product,
    cpu: Vec<f64>,
    memory: Vec<f64>,
    /// That part of it which is not mapped from files.
    own_memory: Vec<f64>,
}

impl Start {
    fn cpu(&self) -> f64 {
        median(&self.cpu)
    }

    fn memory(&self) -> f64 {
        median(&self.memory)
    }
}

/// Starts every function in turn, again and again.
pub(crate) async fn starts(products: &Products, runs: Runs, report: &mut Report) -> Result<(), Failure> {
    use Product::{DeadLetter, Floor, PeerSubmit, PeerWorker, Status, Submit, Worker, WorkerDefaults};
    let running = Services::default().start().await?;
    let services = Endpoints::plain(&running.addresses);
    let all = [Floor, Submit, Status, DeadLetter, Worker, WorkerDefaults, PeerSubmit, PeerWorker];
    let mut starts = all.map(|product| Start { product, cpu: Vec::new(), memory: Vec::new(), own_memory: Vec::new() });
    for _ in 0..runs.times(15) {
        for start in &mut starts {
            let function = Function::start(&mut products.command(start.product, &services)).await?;
            start.cpu.push(function.process.cpu()?.as_secs_f64() * 1e3);
            start.memory.push(function.process.memory()? as f64);
            start.own_memory.push(function.process.own_memory()? as f64);
            function.stop().await?;
        }
    }
    let [floor, submit, status, dead_letter, worker, defaults, peer_submit, peer_worker] = &starts;

    let mut instructions = Vec::new();
    for product in [Floor, Submit, Status, DeadLetter, Worker, WorkerDefaults] {
        instructions.push((product, count_instructions(products, product, &services).await?));
    }
    let floor_instructions = instructions[0].1;
    for ((product, count), limit) in instructions.iter().skip(1).zip([5.0, 5.0, 9.0, 9.0]) {
        let note = format!("{:.2} M against {:.2} M.", count / 1e6, floor_instructions / 1e6);
        let what = format!("instructions of {}, of the floor's", product.name());
        let reason = "Each client of the SDK parses AWS's list of partitions, which takes 0.42 M. This function has \
                      three clients: table, queue and bucket.";
        report.at_most("start", &what, count / floor_instructions, limit, times, (&note, reason));
    }
    for (ours, peer) in [(submit, peer_submit), (worker, peer_worker)] {
        let name = ours.product.name();
        let note = format!("{} against {}; floor {}.", ms(ours.cpu()), ms(peer.cpu()), ms(floor.cpu()));
        let what = format!("CPU of {name}, of the peer's");
        report.at_most("start", &what, ours.cpu() / peer.cpu(), 1.0 / 100.0, part, (&note, ""));
        let own = median(&ours.own_memory);
        let note = format!("{} against {}; floor {}.", mb(ours.memory()), mb(peer.memory()), mb(floor.memory()));
        let what = format!("memory of {name}, of the peer's");
        let reason = format!(
            "Only {} of it is the function's own memory. The rest is pages of its binary and of libraries, which the \
             kernel maps sixteen at a time and can drop.",
            mb(own)
        );
        report.at_most("start", &what, ours.memory() / peer.memory(), 1.0 / 8.0, part, (&note, &reason));
    }
    let names =
        ["floor", "submit", "status", "dead_letter", "worker", "worker, defaults", "submit, Python", "worker, Python"];
    let ordered = [floor, submit, status, dead_letter, worker, defaults, peer_submit, peer_worker];
    let bars = |value: fn(&Start) -> f64| names.into_iter().zip(ordered.map(value)).collect();
    report.plot("CPU until a function is ready", "ms", bars(Start::cpu));
    report.plot("Memory of a function that is ready", "MB", bars(|start| start.memory() / 1e6));
    let bars = names.into_iter().zip(instructions.iter().map(|(_, count)| count / 1e6)).collect();
    report.plot("Instructions until a function is ready", "millions", bars);
    Ok(())
}

/// The instructions until a function asks for its first event.
async fn count_instructions(products: &Products, product: Product, services: &Endpoints) -> Result<f64, Failure> {
    let mut command = products.command_under(&CALLGRIND, product, services);
    collected(Function::start(command.stderr(std::process::Stdio::piped())).await?).await
}

/// The command that counts the instructions of a program.
pub(crate) const CALLGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// Ends a function that runs under callgrind, and returns the number of its instructions.
pub(crate) async fn collected(function: Function) -> Result<f64, Failure> {
    let told = function.terminate().await?;
    let sum = told.lines().find_map(|line| line.split_once("Collected :")).ok_or("callgrind tells no sum")?.1;
    Ok(sum.trim().parse()?)
}

/// The first invocation of each kind of worker, over TLS: one ticket, and so calls to three services.
pub(crate) async fn first_over_tls(products: &Products, runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let services = Services::default();
    // A small picture, so that mostly the connections are measured.
    services.behave(|behavior| behavior.answer = answer(&picture(1000)).into());
    let running = services.start().await?;
    let front = TlsFront::start(products, &running.addresses).await?;
    let plain = Endpoints::plain(&running.addresses);
    let machine: PathBuf = Products::roots_of_machine()?;
    let peer = products.roots_of_peer().await?;
    let kinds = [
        (Product::Worker, Product::Submit, front.endpoints("AWS_CA_BUNDLE", None)?),
        (Product::WorkerDefaults, Product::Submit, front.endpoints("SSL_CERT_FILE", Some(&machine))?),
        (Product::PeerWorker, Product::PeerSubmit, front.endpoints("AWS_CA_BUNDLE", Some(&peer))?),
    ];
    let mut cpu = kinds.each_ref().map(|_| Vec::new());
    let mut took = kinds.each_ref().map(|_| Vec::new());
    for _ in 0..runs.times(15) {
        for (i, (worker, submit, endpoints)) in kinds.iter().enumerate() {
            let mut submit = Function::start(&mut products.command(*submit, &plain)).await?;
            submit.invoke(&submission()).await?;
            submit.stop().await?;
            let kind = worker.name();
            let mut worker = Function::start(&mut products.command(*worker, endpoints)).await?;
            let invocation = worker.invoke(&messages(&services.take_tickets())).await?;
            worker.stop().await?;
            if !no_failures(&invocation.answer) {
                return Err(format!("the first invocation of {kind} over TLS failed: {}", invocation.answer).into());
            }
            cpu[i].push(invocation.cpu.as_secs_f64() * 1e3);
            took[i].push(invocation.took.as_secs_f64() * 1e3);
        }
    }
    let [ours, defaults, peer] = cpu.map(|cpu| median(&cpu));
    let [took, defaults_took, peer_took] = took.map(|took| median(&took));
    let others = [("defaults'", defaults, defaults_took, 1.0 / 15.0), ("peer's", peer, peer_took, 1.0 / 25.0)];
    for (whose, theirs, their_time, limit) in others {
        let what = format!("CPU of the first invocation over TLS, of the {whose}");
        let note = format!("{} against {}; took {} against {}.", ms(ours), ms(theirs), ms(took), ms(their_time));
        let reason = "Ours are three handshakes and three clients' first calls, and little else.";
        report.at_most("start", &what, ours / theirs, limit, part, (&note, reason));
    }
    let bars = vec![("worker", ours), ("worker, defaults", defaults), ("worker, Python", peer)];
    report.plot("CPU of a first invocation over TLS", "ms", bars);
    Ok(())
}

/// Whether a worker's answer reports no failed ticket.
pub(crate) fn no_failures(answer: &serde_json::Value) -> bool {
    answer["batchItemFailures"].as_array().is_none_or(Vec::is_empty)
}
