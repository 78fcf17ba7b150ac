//! Decoding the model's answer, beside a copy of it.

use std::hint::black_box;
use std::time::Instant;

use shared::stability;

use crate::events::{answer, picture};
use crate::process::Process;
use crate::report::{Report, ms, times};
use crate::{Failure, Runs, median};

/// The size of the answer that is decoded.
const ANSWER: usize = 2 << 20;

/// The answer of which the peak is taken. The kernel counts memory in batches of pages, which a large one hides.
const LARGE: usize = 64 << 20;

pub(crate) fn measure(runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let body = answer(&picture(ANSWER / 4 * 3));
    let (mut decodes, mut copies) = (Vec::new(), Vec::new());
    let mut copy = vec![0; body.len()];
    for _ in 0..runs.times(500) {
        let own = body.clone();
        let begun = Instant::now();
        black_box(stability::picture(black_box(own))?);
        decodes.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        black_box(&mut copy).copy_from_slice(black_box(&body));
        copies.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let (decode, memcpy) = (median(&decodes), median(&copies));
    let note = format!("{} against {} for memcpy, 2 MiB", ms(decode), ms(memcpy));
    report.at_most("decode", "time", decode / memcpy, 2.5, times, &note, "");
    report.plot("Decoding an answer of 2 MiB", "ms", vec![("decode", decode), ("memcpy", memcpy)]);

    let this = Process(std::process::id());
    let body = answer(&picture(LARGE / 4 * 3));
    let size = body.len() as f64;
    let before = this.memory()?;
    this.forget_peak()?;
    black_box(stability::picture(black_box(body))?);
    let grown = this.peak()?.saturating_sub(before) as f64;
    report.at_most("decode", "peak memory, of the answer's", (size + grown) / size, 1.05, times, "of 64 MiB", "");
    Ok(())
}
