//! The plot: bars on a logarithmic scale, because the values differ by orders of magnitude.

use std::fmt::Write;

/// A measurement of several functions.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Names and values.
    pub(crate) bars: Vec<(&'static str, f64)>,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const VALUES: f64 = 110.0;
const BAR: f64 = 18.0;

/// Draws the groups one below the other, each from a tenth of its least value on.
pub(crate) fn draw(groups: &[Group]) -> String {
    let height: f64 = groups.iter().map(|group| 42.0 + group.bars.len() as f64 * (BAR + 4.0)).sum::<f64>() + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut y = 26.0;
    for Group { title, unit, bars } in groups {
        let _ = writeln!(svg, "<text x=\"12\" y=\"{y}\" font-weight=\"600\" fill=\"#1b1f24\">{title}, {unit}</text>");
        y += 10.0;
        let least = bars.iter().map(|bar| bar.1).fold(f64::INFINITY, f64::min) / 10.0;
        let greatest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        for (name, value) in bars {
            let width = (WIDTH - LABELS - VALUES) * (value / least).ln() / (greatest / least).ln();
            let color = match *name {
                "floor" => "#8c959f",
                name if name.contains("Python") => "#bf8700",
                name if name.contains("defaults") || name.contains("one at a time") || name.contains("memcpy") => {
                    "#57606a"
                }
                _ => "#0969da",
            };
            let middle = y + BAR - 5.0;
            let value = if *value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\" fill=\"#1b1f24\">{name}</text>\
                 <rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{color}\"/>\
                 <text x=\"{end:.1}\" y=\"{middle}\" fill=\"#1b1f24\">{value}</text>",
                x = LABELS - 8.0,
                end = LABELS + width + 6.0,
            );
            y += BAR + 4.0;
        }
        y += 32.0;
    }
    svg.push_str("</svg>\n");
    svg
}
