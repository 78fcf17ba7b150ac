//! Checking a file of jobs, line by line.

use serde_json::{Map, json};
use shared::batch_file::{Format, Reader};
use shared::order::Model;

use crate::process::Process;
use crate::report::Report;
use crate::{Failure, Runs, median};

/// How many jobs are generated. Their lines are read over and over as one file.
const JOBS: usize = 40_000;

/// How many bytes are read at a time.
const PIECE: usize = 256 * 1024;

pub(crate) fn measure(runs: Runs, report: &mut Report) -> Result<(), Failure> {
    let this = Process(std::process::id());
    let mut speeds = Vec::new();
    for (format, header, line) in [
        (Format::Ndjson, "", ndjson as fn(usize) -> String),
        (
            Format::Csv,
            "custom_id,prompt,aspect_ratio,seed,metadata.campaign,metadata.territory,title,poster.style\n",
            csv,
        ),
        (Format::Text, "", prompt),
    ] {
        let lines: String = (1..=JOBS).map(|number| line(number) + "\n").collect();
        let mut reader = Reader::new(format);
        reader.push(header.as_bytes());
        let (before, mut passes) = (this.memory()?, Vec::new());
        this.forget_peak()?;
        for _ in 0..runs.times(20) {
            let (begun, mut good) = (this.cpu()?, 0);
            for piece in lines.as_bytes().chunks(PIECE) {
                reader.push(piece);
                while let Some(line) = reader.next_line() {
                    line.order(&Map::new(), Model::Core).map_err(|faults| format!("a bad line: {faults:?}"))?;
                    good += 1;
                }
            }
            assert_eq!(good, JOBS, "every line is read");
            passes.push(lines.len() as f64 / 1e6 / (this.cpu()? - begun).as_secs_f64());
        }
        let grown = this.peak()?.saturating_sub(before);
        speeds.push((format, lines.len() / JOBS, median(&passes), grown, reader.position().offset));
    }
    let show = |speed: f64| format!("{speed:.0} MB/s");
    let note: Vec<_> = speeds[1..]
        .iter()
        .map(|(format, length, speed, ..)| format!("{format} with lines of {length} bytes: {}", show(*speed)))
        .collect();
    let (_, length, speed, ..) = speeds[0];
    let note = format!("lines of {length} bytes, by CPU time; {}", note.join(", "));
    report.check("batch", "NDJSON checked", show(speed), "≥ 100 MB/s".to_owned(), speed >= 100.0, (&note, ""));
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let (grown, read) = speeds.iter().map(|(.., grown, read)| (*grown, *read)).max().unwrap_or_default();
    let note = format!("while {} were read in pieces of {} kB", megabytes(read), PIECE / 1024);
    let target = "≤ 4.0 MB".to_owned();
    report.check("batch", "memory of the reader", megabytes(grown), target, grown <= 4_000_000, (&note, ""));
    Ok(())
}

fn prompt(number: usize) -> String {
    format!(
        "A lone astronaut on a moon of Saturn looks at a signal that nobody else can see, painted as a science fiction \
         epic of the 1970s, number {number}"
    )
}

fn ndjson(number: usize) -> String {
    json!({
        "custom_id": format!("poster-{number:07}"),
        "prompt": prompt(number),
        "aspect_ratio": "2:3",
        "seed": number,
        "metadata": { "campaign": "autumn", "territory": "DE" },
        "poster": { "title": "The Last Signal", "style": "epic" },
    })
    .to_string()
}

fn csv(number: usize) -> String {
    format!("poster-{number:07},\"{}\",2:3,{number},autumn,DE,The Last Signal,epic", prompt(number))
}
