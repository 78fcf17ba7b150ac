//! Blocks of several lines: a title fitted to a box, and a billing block.

use std::ops::Range;

use tiny_skia::{Color, Path, PathBuilder, PixmapMut};

use crate::face::Face;
use crate::line::{Align, Line, Style, fill, shifted};

/// The most lines that a title is broken into.
const TITLE_LINES: usize = 3;

/// The gap between title lines, in ems.
const TITLE_GAP: f32 = 0.16;

/// Lines of text set together. Its top is at y = 0 and x = 0 is where it is aligned.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The outline of the title, or of the names in a billing block.
    pub main: Option<Path>,
    /// The outline of the smaller words, such as the roles in a billing block.
    pub small: Option<Path>,
    /// The width of the widest line.
    pub width: f32,
    /// The height from the top of the first line to the bottom of the last.
    pub height: f32,
}

impl Block {
    /// The block with its top at `y` and its aligned edge at `x`.
    pub fn at(&self, x: f32, y: f32) -> Block {
        let place = |path: &Option<Path>| path.as_ref().and_then(|path| shifted(path, x, y));
        Block { main: place(&self.main), small: place(&self.small), ..*self }
    }

    /// Fill the block with two colours, with its top at `y` and its aligned edge at `x`.
    pub fn draw(&self, picture: &mut PixmapMut<'_>, x: f32, y: f32, main: Color, small: Color) {
        let placed = self.at(x, y);
        fill(picture, placed.main.as_ref(), main);
        fill(picture, placed.small.as_ref(), small);
    }
}

/// Set a title as large as a box of `width` by `height` allows, but not larger than `style.size`,
/// on up to three lines. The title is set as given: upper-case it first if that is wanted.
pub fn fit_title(title: &str, style: Style, width: f32, height: f32, align: Align) -> Block {
    let words: Vec<&str> = title.split_whitespace().collect();
    let most = TITLE_LINES.min(words.len());
    let set = |count| set_title(&balanced(&words, style, count), style, width, height, align);
    // Of settings that are equally large, the one with the fewest lines comes last and is taken.
    let settings = (1..=most).rev().map(set);
    let largest = settings.max_by(|(a, _), (b, _)| a.total_cmp(b));
    largest.map(|(_, block)| block).unwrap_or_default()
}

/// Set these lines at the largest size that fits, and say which size that is.
fn set_title(lines: &[String], style: Style, width: f32, height: f32, align: Align) -> (f32, Block) {
    let inks = lines.iter().filter_map(|text| Line::new(text, style).ink());
    let (mut widest, mut tall) = (1.0_f32, -TITLE_GAP * style.size);
    for ink in inks {
        widest = widest.max(ink.width());
        tall += ink.height() + TITLE_GAP * style.size;
    }
    let scale = (width / widest).min(height / tall.max(1.0)).min(1.0);
    let style = Style { size: style.size * scale, ..style };
    let mut path = PathBuilder::new();
    let mut y = 0.0;
    for line in lines.iter().map(|text| Line::new(text, style)) {
        let Some(ink) = line.ink() else { continue };
        if let Some(outline) = line.at(0.0, y - ink.top(), align) {
            path.push_path(&outline);
        }
        y += ink.height() + TITLE_GAP * style.size;
    }
    let height = (y - TITLE_GAP * style.size).max(0.0);
    let block = Block { main: path.finish(), small: None, width: widest * scale, height };
    (style.size, block)
}

/// Break words into at most `count` lines of as even a width as their order allows.
fn balanced(words: &[&str], style: Style, count: usize) -> Vec<String> {
    let space = Line::new(" ", style).advance() + 2.0 * style.tracking * style.size;
    let widths: Vec<f32> = words.iter().map(|word| Line::new(word, style).advance()).collect();
    even_rows(&widths, space, count).into_iter().map(|row| words[row].join(" ")).collect()
}

/// Break items of these widths into at most `count` rows of as even a width as their order allows.
fn even_rows(widths: &[f32], gap: f32, count: usize) -> Vec<Range<usize>> {
    // The narrowest measure that needs no more rows gives rows of even width.
    let (mut narrow, mut wide) = (0.0, widths.iter().map(|width| width + gap).sum());
    for _ in 0..16 {
        let middle = (narrow + wide) / 2.0;
        if filled_rows(widths, gap, middle).len() > count { narrow = middle } else { wide = middle }
    }
    filled_rows(widths, gap, wide)
}

/// Fill rows up to a measure, in order. An item wider than the measure has a row of its own.
fn filled_rows(widths: &[f32], gap: f32, measure: f32) -> Vec<Range<usize>> {
    let mut rows: Vec<Range<usize>> = Vec::new();
    let mut used = f32::INFINITY;
    for (i, width) in widths.iter().enumerate() {
        used += gap + width;
        match rows.last_mut() {
            Some(row) if used <= measure => row.end = i + 1,
            _ => {
                rows.push(i..i + 1);
                used = *width;
            }
        }
    }
    rows
}

/// Set a billing block of `(role, name)` pairs: roles small and names tall, in capitals of a
/// condensed face, on as many lines of `width` as they need. `size` is that of the names, in
/// pixels per em. A role may be empty. Pairs whose letters no bundled face has are left out.
pub fn billing(credits: &[(&str, &str)], size: f32, width: f32, align: Align) -> Block {
    let credits: Vec<Credit> = credits.iter().filter_map(|(role, name)| Credit::new(role, name, size)).collect();
    let widths: Vec<f32> = credits.iter().map(|credit| credit.width).collect();
    let gap = size * 0.42;
    let rows = even_rows(&widths, gap, filled_rows(&widths, gap, width).len());
    let (mut main, mut small) = (PathBuilder::new(), PathBuilder::new());
    let (mut widest, mut baseline) = (0.0_f32, size * 0.74);
    let leading = size * 1.14;
    for row in rows {
        let row = &credits[row];
        let row_width = row.iter().map(|credit| credit.width + gap).sum::<f32>() - gap;
        widest = widest.max(row_width);
        let mut x = match align {
            Align::Left => 0.0,
            Align::Centre => -row_width / 2.0,
            Align::Right => -row_width,
        };
        for credit in row {
            credit.push(x, baseline, &mut main, &mut small);
            x += credit.width + gap;
        }
        baseline += leading;
    }
    let height = (baseline - leading).max(0.0);
    Block { main: main.finish(), small: small.finish(), width: widest, height }
}

/// One role with its name.
struct Credit {
    role: Line,
    name: Line,
    /// Where the name begins.
    name_x: f32,
    /// How far the role's baseline is above the name's, so that it stands at the name's top.
    raise: f32,
    width: f32,
}

impl Credit {
    fn new(role: &str, name: &str, size: f32) -> Option<Credit> {
        let (role, name) = (role.to_uppercase(), name.to_uppercase());
        let face = Face::LeagueGothic.covering(&format!("{role}{name}"))?;
        let role = Line::new(&role, Style { face, size: size * 0.5, tracking: 0.04 });
        let name = Line::new(&name, Style { face, size, tracking: 0.04 });
        let top = |line: &Line| line.ink().map_or(0.0, |ink| ink.top());
        let name_x = role.ink().map_or(0.0, |_| role.advance() + size * 0.13);
        let raise = top(&role) - top(&name);
        let width = name_x + name.advance();
        Some(Credit { role, name, name_x, raise, width })
    }

    fn push(&self, x: f32, baseline: f32, main: &mut PathBuilder, small: &mut PathBuilder) {
        if let Some(path) = self.role.at(x, baseline - self.raise, Align::Left) {
            small.push_path(&path);
        }
        if let Some(path) = self.name.at(x + self.name_x, baseline, Align::Left) {
            main.push_path(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { face: Face::BebasNeue, size: 200.0, tracking: 0.01 };

    #[test]
    fn a_title_stays_in_its_box() {
        let long = "Antidisestablishmentarianism ".repeat(40);
        for title in ["Go", "The Last Lighthouse on Mars", "Ünïcödé É", &long] {
            let block = fit_title(title, STYLE, 300.0, 200.0, Align::Centre);
            let ink = block.main.expect("the title is inked").bounds();
            assert!(ink.width() <= 301.0 && ink.height() <= 201.0, "{title}: {ink:?}");
        }
    }

    #[test]
    fn a_title_breaks_into_even_lines() {
        let lines = balanced(&["THE", "LAST", "LIGHTHOUSE"], STYLE, 2);
        assert_eq!(lines, ["THE LAST", "LIGHTHOUSE"]);
    }

    #[test]
    fn an_empty_title_is_nothing() {
        assert!(fit_title(" ", STYLE, 300.0, 200.0, Align::Left).main.is_none());
    }

    #[test]
    fn a_billing_block_keeps_to_its_width() {
        let credits = [("directed by", "Ada Lovelace"), ("", "Émile"), ("music", "侍")].repeat(5);
        let block = billing(&credits, 30.0, 300.0, Align::Centre);
        assert!(block.width <= 300.0 && block.height > 60.0, "{block:?}");
        assert!(block.main.is_some() && block.small.is_some());
    }
}
