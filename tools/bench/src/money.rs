//! What a million posters cost without the model, from the measurements and AWS's prices.

use std::fmt::Write;
use std::time::Duration;

use crate::calls::{Calls, LOOKS, Units};
use crate::files::Admission;
use crate::report::Report;
use crate::requests::Submit;
use crate::services::Counts;
use crate::worker::Work;

/// The public prices of us-west-2 and us-east-1, in dollars, as of the date below and without the free tiers.
mod prices {
    pub(super) const DATE: &str = "as of May 2026 (Lambda), March 2026 (SQS) and July 2025 (DynamoDB)";
    /// For a million requests, <https://aws.amazon.com/lambda/pricing/>.
    pub(super) const LAMBDA_REQUESTS: f64 = 0.20;
    /// For a gigabyte-second on arm64.
    pub(super) const LAMBDA_GB_SECOND: f64 = 0.000_013_333_4;
    /// For a million requests, standard queues, <https://aws.amazon.com/sqs/pricing/>.
    pub(super) const SQS_REQUESTS: f64 = 0.40;
    /// What a million sends cost beyond that because they name a message group, which makes the queue a fair one.
    pub(super) const SQS_FAIR: f64 = 0.10;
    /// For a million units, on demand, <https://aws.amazon.com/dynamodb/pricing/on-demand/>.
    pub(super) const DYNAMODB_WRITES: f64 = 0.625;
    pub(super) const DYNAMODB_READS: f64 = 0.125;
    /// For a million PUT requests, S3 Standard, <https://aws.amazon.com/s3/pricing/>. A GET costs less.
    pub(super) const S3_PUTS: f64 = 5.00;
    /// For a gigabyte and a month.
    pub(super) const S3_STORAGE: f64 = 0.023;
}

/// The memory of the functions in `template.yaml`, in gigabytes, and that of `batch`.
const MEMORY: f64 = 0.25;
const MEMORY_OF_BATCH: f64 = 1.0;

/// The memory for which Lambda gives a function a whole processor, in gigabytes, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>. With less, it computes that much slower.
const WHOLE_PROCESSOR: f64 = 1769.0 / 1024.0;

/// How many calls a submission of ten in a batch makes, and one of a single job. Calls are most of what a submission
/// computes, so a batch takes that many times as long, at the most.
const BATCH_CALLS: f64 = 15.0;
const SINGLE_CALLS: f64 = 2.0;

/// The cost of a million posters made in one way, in dollars.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    requests: f64,
    compute: f64,
    queue: f64,
    table: f64,
    bucket: f64,
}

impl Cost {
    fn total(&self) -> f64 {
        self.requests + self.compute + self.queue + self.table + self.bucket
    }
}

/// The gigabyte-seconds of a million posters, of which each takes so long on a whole processor, of which `cpu` computing,
/// both in milliseconds. That all computing comes on top of the waiting is the worst case.
fn compute_cost(took: f64, cpu: f64) -> f64 {
    compute_cost_of(MEMORY, took, cpu)
}

/// The same for a function with this memory.
fn compute_cost_of(memory: f64, took: f64, cpu: f64) -> f64 {
    let seconds = (took + cpu * (WHOLE_PROCESSOR / memory - 1.0)) / 1e3;
    seconds * memory * 1e6 * prices::LAMBDA_GB_SECOND
}

/// The cost of invocations of `batch`, in dollars. They took so long in all, of which `cpu` computing.
pub(crate) fn of_batch(invocations: usize, took: Duration, cpu: Duration, counts: &Counts) -> f64 {
    let [took, cpu] = [took, cpu].map(|time| time.as_secs_f64() * 1e3);
    let compute = compute_cost_of(MEMORY_OF_BATCH, took, cpu) + invocations as f64 * prices::LAMBDA_REQUESTS;
    let queue = counts.of("SendMessageBatch") as f64 * (prices::SQS_REQUESTS + prices::SQS_FAIR)
        + counts.of("ChangeMessageVisibility") as f64 * prices::SQS_REQUESTS;
    (compute + queue + table_cost(Units { writes: counts.writes, reads: counts.reads })) / 1e6
}

fn table_cost(units: Units) -> f64 {
    units.writes * prices::DYNAMODB_WRITES + units.reads * prices::DYNAMODB_READS
}

/// Computes the cost of each way, and compares ours with the least that a queue needs.
pub(crate) fn compute(submit: &Submit, work: &Work, calls: &Calls, admission: &Admission, report: &mut Report) {
    let submission = compute_cost(submit.took, submit.cpu);
    // A queue bills a message's sending, receiving and deleting, and ten together as one.
    let (alone, tenth, fair) = (prices::SQS_REQUESTS, prices::SQS_REQUESTS / 10.0, prices::SQS_FAIR);
    let bucket = prices::S3_PUTS;
    let floor = Cost {
        requests: 2.0 * prices::LAMBDA_REQUESTS / 10.0,
        compute: 0.0,
        queue: 3.0 * tenth,
        table: table_cost(Units { writes: 2.0, reads: 0.0 }),
        bucket,
    };
    // The batch's own ticket is sent and deleted once. For each look it is received, hidden while the function works, and
    // hidden again until the next one. The results are one file.
    let looks = LOOKS as f64;
    let watching = compute_cost_of(MEMORY_OF_BATCH, calls.looks_took, calls.looks_cpu);
    let batches = Cost {
        requests: (2.0 + looks) * prices::LAMBDA_REQUESTS / 10.0,
        compute: (submission * BATCH_CALLS / SINGLE_CALLS + watching) / 10.0 + compute_cost(work.took, work.cpu),
        queue: 3.0 * tenth + fair / 10.0 + (1.0 + 3.0 * looks) * tenth,
        table: table_cost(calls.batch),
        bucket: bucket * 1.1,
    };
    // The file is uploaded by one PUT, and read and written in pieces.
    let files = Cost {
        requests: prices::LAMBDA_REQUESTS / 10.0,
        compute: compute_cost_of(MEMORY_OF_BATCH, admission.took, admission.cpu) + compute_cost(work.took, work.cpu),
        queue: 3.0 * tenth + fair / 10.0,
        table: table_cost(admission.units),
        bucket: bucket * (1.0 + admission.objects),
    };
    let singles = Cost {
        requests: 1.1 * prices::LAMBDA_REQUESTS,
        compute: submission + compute_cost(work.took, work.cpu),
        queue: alone + fair + 2.0 * tenth,
        table: table_cost(calls.single),
        bucket,
    };
    let one_ticket = Cost {
        requests: 2.0 * prices::LAMBDA_REQUESTS,
        compute: submission + compute_cost(work.took_alone, work.cpu_alone),
        queue: 3.0 * alone + fair,
        ..singles
    };
    let synchronous = Cost {
        requests: prices::LAMBDA_REQUESTS,
        compute: compute_cost(work.took_synchronous, work.cpu_synchronous),
        queue: 0.0,
        table: 0.0,
        bucket,
    };
    let mut table = "| per million posters | Lambda requests | Lambda GB-seconds | queue | table | S3 PUT | sum |\n\
                     |---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, cost) in [
        ("the minimum: two write units, everything else in tens, no computing", floor),
        ("a million in one file, ten tickets per invocation", files),
        ("ten submitted in a batch, ten tickets per invocation", batches),
        ("submitted one by one, ten tickets per invocation", singles),
        ("submitted one by one, one ticket per invocation", one_ticket),
        ("the synchronous peer: no table, no queue, no retry", synchronous),
    ] {
        let Cost { requests, compute, queue, table: units, bucket } = cost;
        let sum = cost.total();
        let _ = writeln!(
            table,
            "| {name} | ${requests:.2} | ${compute:.2} | ${queue:.2} | ${units:.2} | ${bucket:.2} | **${sum:.2}** |"
        );
    }
    let storage = crate::worker::PICTURE as f64 / 1e9 * 1e6 * prices::S3_STORAGE;
    let _ = write!(
        table,
        "\nPrices of us-west-2 and us-east-1, {}; 256 MB, and 1,024 MB for `batch`, at arm64's price, with the times of \
         this machine and without the free tiers. The model takes 1 s; each further second costs ${:.2} if ten posters share an invocation, and \
         ${:.2} if each has its own. A poster takes {:.1} write units submitted alone, {:.1} in a \
         batch of ten and {:.1} from a file, and {:.1} read units, or {:.1} from a file; its final record has {} bytes, with a prompt of 41 characters, and without lettering or thumbnail. \
         Longer prompts take more write units, and so does a thumbnail; a poster with lettering stores two files. \
         Not included: the pictures' storage, ${storage:.2} for a month of 1.5 MB each; API Gateway's $3.50 for a million \
         calls, of which a batch of ten takes a tenth; and logs, traces, and the table's storage and backups, \
         which [deploy.md](deploy.md) lists.",
        prices::DATE,
        compute_cost(100.0, 0.0),
        compute_cost(1000.0, 0.0),
        calls.single.writes,
        calls.batch.writes,
        admission.units.writes,
        calls.single.reads,
        admission.units.reads,
        calls.largest_item,
    );
    report.section("money", table);
    let limit = 1.25 * floor.total();
    let dollars = |value: f64| format!("${value:.2}");
    let reason = "The floor has two write units. This service also writes the claim of a job; the job's last write \
                  exceeds 1 KB because of the URL; the indexes for lists take 2 write units for a job of a batch and 1 \
                  for a single job; the record of a small batch, the looks at it and its results take the rest.";
    let note = format!("1.25 × {}.", dollars(floor.total()));
    report.at_most("money", "a million posters, from a file", files.total(), 9.60, dollars, ("", reason));
    report.at_most("money", "a million posters, in batches", batches.total(), limit, dollars, (&note, reason));
    report.at_most("money", "a million posters, one by one", singles.total(), limit, dollars, (&note, reason));
}
