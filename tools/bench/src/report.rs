//! The table, in a terminal and in `docs/performance.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use shared::Timestamp;

use crate::Failure;
use crate::plot::{self, Group};

/// One line of the table.
#[derive(Clone, Debug)]
struct Row {
    topic: &'static str,
    what: String,
    measured: String,
    target: String,
    met: bool,
    note: String,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    sections: BTreeMap<&'static str, String>,
    groups: Vec<Group>,
}

impl Report {
    /// A figure that must be at most `limit`. `told` is a note on it, and the reason why when it is more.
    pub(crate) fn at_most(
        &mut self,
        topic: &'static str,
        what: &str,
        value: f64,
        limit: f64,
        show: impl Fn(f64) -> String,
        told: (&str, &str),
    ) {
        self.check(topic, what, show(value), format!("≤ {}", show(limit)), value <= limit, told);
    }

    /// A figure, what it must be, and whether it is; with a note, and the reason why when it is not.
    pub(crate) fn check(
        &mut self,
        topic: &'static str,
        what: &str,
        measured: String,
        target: String,
        met: bool,
        (note, reason): (&str, &str),
    ) {
        let note = [note, if met { "" } else { reason }].join(" ").trim().to_owned();
        self.rows.push(Row { topic, what: what.to_owned(), measured, target, met, note });
    }

    /// Text of the document that is not in the table of targets.
    pub(crate) fn section(&mut self, name: &'static str, text: String) {
        self.sections.insert(name, text);
    }

    /// Bars of the plot.
    pub(crate) fn plot(&mut self, title: &'static str, unit: &'static str, bars: Vec<(&'static str, f64)>) {
        self.groups.push(Group { title, unit, bars });
    }

    fn table(&self) -> String {
        let mut table = "| | | measured | target | verdict | |\n|---|---|---|---|---|---|\n".to_owned();
        let mut last = "";
        for Row { topic, what, measured, target, met, note } in &self.rows {
            let verdict = if *met { "met" } else { "**not met**" };
            let topic = if *topic == last { "" } else { topic };
            let _ = writeln!(table, "| {topic} | {what} | {measured} | {target} | {verdict} | {note} |");
            last = self.rows.iter().find(|row| row.topic == topic).map_or(last, |row| row.topic);
        }
        table
    }

    /// Writes the table to standard output.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let width = |text: fn(&Row) -> &str| self.rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0);
        let (what, measured, target) = (width(|row| &row.what), width(|row| &row.measured), width(|row| &row.target));
        let mut out = std::io::stdout();
        for row in &self.rows {
            let (a, b, c) = (&row.what, &row.measured, &row.target);
            let verdict = if row.met { "met" } else { "NOT MET" };
            writeln!(out, "{:<8} {a:<what$}  {b:>measured$}  {c:>target$}  {verdict:<7}  {}", row.topic, row.note)?;
        }
        for (name, text) in &self.sections {
            writeln!(out, "\n{name}\n\n{text}")?;
        }
        Ok(())
    }

    /// Writes what was measured into the document, each part between its two markers, and the plot beside it. A part that
    /// was left out this time stays as it is.
    pub(crate) fn write(&self, root: &Path) -> Result<(), Failure> {
        let path = root.join("docs/performance.md");
        let mut document = fs::read_to_string(&path)?;
        replace(&mut document, "targets", &self.table())?;
        for (name, text) in &self.sections {
            replace(&mut document, name, text)?;
        }
        fs::write(path, document)?;
        fs::write(root.join("docs/pictures/performance.svg"), plot::draw(&self.groups))?;
        Ok(())
    }
}

/// The machine and the date.
pub(crate) fn machine(python: &str) -> Result<String, Failure> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let model = model.split_once(": ").map_or(model, |(_, model)| model);
    let date = Timestamp::from(SystemTime::now()).to_string();
    let date = date.split('T').next().unwrap_or_default();
    let threads = std::thread::available_parallelism()?;
    Ok(format!("Measured on {date}, on {threads} threads of {model}, against {python}."))
}

fn replace(document: &mut String, name: &str, text: &str) -> Result<(), Failure> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let start = document.find(&begin).ok_or_else(|| format!("docs/performance.md has no marker of {name:?}"))?;
    let start = start + begin.len();
    let stop = document[start..].find(&end).ok_or_else(|| format!("docs/performance.md has no end of {name:?}"))?;
    document.replace_range(start..start + stop, &format!("\n{}\n\n", text.trim_end()));
    Ok(())
}

/// A number of milliseconds.
pub(crate) fn ms(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.2} ms"),
        _ if value < 100.0 => format!("{value:.1} ms"),
        _ => format!("{value:.0} ms"),
    }
}

/// A ratio.
pub(crate) fn times(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} ×") } else { format!("{value:.1} ×") }
}

/// A share, as one part in so many.
pub(crate) fn part(value: f64) -> String {
    let parts = 1.0 / value;
    if parts < 10.0 { format!("1/{parts:.1}") } else { format!("1/{parts:.0}") }
}

/// A number of megabytes.
pub(crate) fn mb(bytes: f64) -> String {
    format!("{:.2} MB", bytes / 1e6)
}
