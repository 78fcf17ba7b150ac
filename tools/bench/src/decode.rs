//! Decoding the model's answer, compared with copying it.

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

/// How many answers are decoded one after the other: together they are larger than a processor's cache, because a worker
/// sees each answer once.
const ANSWERS: usize = 64;

pub(crate) fn measure(runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let body = answer(&picture(ANSWER / 4 * 3));
    let (mut decodes, mut copies) = (Vec::new(), Vec::new());
    let mut into = vec![body.clone(); ANSWERS];
    for _ in 0..runs.times(10) {
        let from = vec![body.clone(); ANSWERS];
        for (from, into) in from.iter().zip(&mut into) {
            let begun = Instant::now();
            black_box(into).copy_from_slice(black_box(from));
            copies.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        for body in from {
            let begun = Instant::now();
            let picture = stability::picture(black_box(body))?;
            decodes.push(begun.elapsed().as_secs_f64() * 1e3);
            black_box(picture);
        }
    }
    let (decode, memcpy) = (median(&decodes), median(&copies));
    let note = format!("{} against {} for memcpy, 2 MiB that are not in the cache", ms(decode), ms(memcpy));
    report.at_most("decode", "time, of memcpy's", decode / memcpy, 2.5, times, (&note, ""));
    report.plot("Decoding an answer of 2 MiB", "ms", vec![("decode", decode), ("memcpy", memcpy)]);

    let this = Process(std::process::id());
    let body = answer(&picture(LARGE / 4 * 3));
    let size = body.len() as f64;
    let before = this.memory()?;
    this.forget_peak()?;
    black_box(stability::picture(black_box(body))?);
    let grown = this.peak()?.saturating_sub(before) as f64;
    report.at_most("decode", "peak memory, of the answer's", (size + grown) / size, 1.05, times, ("of 64 MiB", ""));
    Ok(())
}
