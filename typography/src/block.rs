use std::ops::Range;

use tiny_skia::{Path, PathBuilder, Rect};

use crate::face::Face;
use crate::line::{Align, Font, Line, shifted};

const TITLE_LINES: usize = 3;

/// The gap between the capitals of a title's lines, in ems.
const TITLE_GAP: f32 = 0.16;

/// In ems: an accent may come this close to the line above before it pushes the lines apart.
const INK_GAP: f32 = 0.09;

/// How much larger a title must become for a word to be broken at its hyphens.
const WORTH_A_BREAK: f32 = 1.3;

/// Lines of text set together. The top is at y = 0, and x = 0 is the aligned edge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    pub(crate) main: Option<Path>,
    pub(crate) small: Option<Path>,
    pub(crate) width: f32,
    pub(crate) height: f32,
    pub(crate) letters: f32,
}

impl Block {
    pub(crate) fn at(&self, x: f32, y: f32) -> Block {
        let place = |path: &Option<Path>| path.as_ref().and_then(|path| shifted(path, x, y));
        Block { main: place(&self.main), small: place(&self.small), ..*self }
    }

    pub(crate) fn bounds(&self) -> Option<Rect> {
        let boxes = [&self.main, &self.small].into_iter().flatten().map(Path::bounds);
        boxes.reduce(|one, other| one.join(&other).unwrap_or(one))
    }
}

/// Sets a title on up to three lines, as large as the box allows but not larger than `font.size`. It does not change
/// the case. Lines break at spaces, except for no-break spaces. If it makes the title much larger, they also break at
/// soft hyphens and after the hyphens of compounds. Punctuation stays with its word, even after a space, as in French.
pub(crate) fn fit_title(title: &str, font: Font, width: f32, height: f32, align: Align) -> Block {
    let largest = |pieces: &[Piece]| {
        let most = TITLE_LINES.min(pieces.len());
        let set = |count| set_title(&balanced(pieces, font, count), font, width, height, align);
        // Of settings of equal size, the last one is chosen: the one with the fewest lines.
        (1..=most).rev().map(set).max_by(|one, other| one.letters.total_cmp(&other.letters)).unwrap_or_default()
    };
    let words = words(title);
    let whole = largest(&words);
    let parts: Vec<Piece> = words.iter().flat_map(Piece::parts).collect();
    if parts.len() == words.len() {
        return whole;
    }
    let broken = largest(&parts);
    if broken.letters > WORTH_A_BREAK * whole.letters { broken } else { whole }
}

/// What stays together on a line, and what follows it within a line or at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    text: String,
    joint: &'static str,
    ending: &'static str,
}

impl Piece {
    /// The parts of a word that is broken at its hyphens, except next to a digit: `Catch-22` stays whole.
    fn parts(&self) -> Vec<Piece> {
        let chars: Vec<char> = self.text.chars().collect();
        let letter = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphabetic());
        let mut parts = Vec::new();
        let mut text = String::new();
        for (at, &c) in chars.iter().enumerate() {
            let ending = match c {
                '-' | '\u{2010}' | '\u{2013}' | '\u{2014}' => {
                    text.push(c);
                    ""
                }
                SOFT_HYPHEN => "-",
                _ => {
                    text.push(c);
                    continue;
                }
            };
            if letter(at.checked_sub(1)) && letter(Some(at + 1)) {
                parts.push(Piece { text: std::mem::take(&mut text), joint: "", ending });
            }
        }
        parts.push(Piece { text, ..self.clone() });
        parts
    }
}

const SOFT_HYPHEN: char = '\u{ad}';

fn words(title: &str) -> Vec<Piece> {
    let space = |c: char| c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}');
    let closes = |word: &str| word.chars().all(|c| "!?:;.,…»›”’)]%–—-‐\u{2011}".contains(c));
    let opens = |word: &str| word.chars().all(|c| "«‹“„‘([¿¡".contains(c));
    let mut words: Vec<Piece> = Vec::new();
    let mut open = false;
    for word in title.split(space).filter(|word| !word.is_empty()) {
        match words.last_mut() {
            Some(last) if open || closes(word) => {
                last.text.push(' ');
                last.text.push_str(word);
            }
            _ => words.push(Piece { text: word.to_owned(), joint: " ", ending: "" }),
        }
        open = opens(word);
    }
    words
}

fn set_title(lines: &[String], font: Font, width: f32, height: f32, align: Align) -> Block {
    let inks: Vec<Rect> = lines.iter().filter_map(|text| Line::new(text, font).ink()).collect();
    let (Some(first), Some(last)) = (inks.first(), inks.last()) else { return Block::default() };
    let capitals = font.face.capitals() * font.size;
    let apart = inks.windows(2).map(|pair| pair[0].bottom() - pair[1].top() + INK_GAP * font.size);
    let leading = apart.fold(capitals + TITLE_GAP * font.size, f32::max);
    let tall = last.bottom() - first.top() + leading * (inks.len() - 1) as f32;
    let widest = inks.iter().map(Rect::width).fold(1.0, f32::max);
    let scale = (width / widest).min(height / tall.max(1.0)).min(1.0);
    let font = Font { size: font.size * scale, ..font };
    let mut path = PathBuilder::new();
    let mut baseline = -first.top() * scale;
    for line in lines.iter().map(|text| Line::new(text, font)) {
        if let Some(outline) = line.at(0.0, baseline, align) {
            path.push_path(&outline);
            baseline += leading * scale;
        }
    }
    Block { main: path.finish(), small: None, width: widest * scale, height: tall * scale, letters: capitals * scale }
}

fn balanced(pieces: &[Piece], font: Font, count: usize) -> Vec<String> {
    let tracking = font.tracking * font.size;
    let space = Line::new(" ", font).advance() + 2.0 * tracking;
    let gap = |joint: &str| if joint.is_empty() { tracking } else { space };
    let gaps = std::iter::once(0.0).chain(pieces.iter().map(|piece| gap(piece.joint)));
    let sizes = gaps.zip(pieces).map(|(gap, piece)| (gap, Line::new(&piece.text, font).advance())).collect::<Vec<_>>();
    let line = |row: Range<usize>| {
        let (last, before) = pieces[row].split_last().expect("a row has a piece");
        let before: String = before.iter().flat_map(|piece| [piece.text.as_str(), piece.joint]).collect();
        before + &last.text + last.ending
    };
    even_rows(&sizes, count).into_iter().map(line).collect()
}

fn even_rows(items: &[(f32, f32)], count: usize) -> Vec<Range<usize>> {
    // The narrowest width that needs no more rows makes them even.
    let (mut narrow, mut wide) = (0.0, items.iter().map(|(gap, width)| gap + width).sum());
    for _ in 0..16 {
        let middle = (narrow + wide) / 2.0;
        if filled_rows(items, middle).len() > count { narrow = middle } else { wide = middle }
    }
    filled_rows(items, wide)
}

/// Fills rows up to the width `measure`, in order. A wider item gets its own row.
fn filled_rows(items: &[(f32, f32)], measure: f32) -> Vec<Range<usize>> {
    let mut rows: Vec<Range<usize>> = Vec::new();
    let mut used = f32::INFINITY;
    for (i, (gap, width)) in items.iter().enumerate() {
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

/// Sets small roles and tall names in the capitals of a condensed face, on as many lines as needed. `size` is that of the
/// names, in pixels per em. A role may be empty. Pairs that no bundled face covers are left out.
pub(crate) fn billing(credits: &[(&str, &str)], size: f32, width: f32, align: Align) -> Block {
    let credits: Vec<Credit> = credits.iter().filter_map(|(role, name)| Credit::new(role, name, size)).collect();
    let gap = size * 0.42;
    let sizes: Vec<(f32, f32)> = credits.iter().map(|credit| (gap, credit.width)).collect();
    let rows = even_rows(&sizes, filled_rows(&sizes, width).len());
    let (mut main, mut small) = (PathBuilder::new(), PathBuilder::new());
    let (mut widest, mut baseline) = (0.0_f32, size * 0.74);
    let leading = size * 1.14;
    for row in rows {
        let row = &credits[row];
        let row_width = row.iter().map(|credit| credit.width + gap).sum::<f32>() - gap;
        widest = widest.max(row_width);
        let mut x = align.left_of(row_width);
        for credit in row {
            credit.push(x, baseline, &mut main, &mut small);
            x += credit.width + gap;
        }
        baseline += leading;
    }
    let height = (baseline - leading).max(0.0);
    let letters = Face::LeagueGothic.capitals() * size;
    Block { main: main.finish(), small: small.finish(), width: widest, height, letters }
}

struct Credit {
    role: Line,
    name: Line,
    name_x: f32,
    /// Aligns the tops of role and name.
    raise: f32,
    width: f32,
}

impl Credit {
    fn new(role: &str, name: &str, size: f32) -> Option<Credit> {
        let (role, name) = (role.to_uppercase(), name.to_uppercase());
        let face = Face::LeagueGothic.covering(&format!("{role}{name}"))?;
        let role = Line::new(&role, Font { face, size: size * 0.5, tracking: 0.04 });
        let name = Line::new(&name, Font { face, size, tracking: 0.04 });
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

    const FONT: Font = Font { face: Face::BebasNeue, size: 200.0, tracking: 0.01 };

    #[test]
    fn a_title_stays_in_its_box() {
        let long = "Antidisestablishmentarianism ".repeat(40);
        for title in ["Go", "The Last Lighthouse on Mars", "Ünïcödé É", &long] {
            let block = fit_title(title, FONT, 300.0, 200.0, Align::Center);
            let ink = block.main.expect("the title is inked").bounds();
            assert!(ink.width() <= 301.0 && ink.height() <= 201.0, "{title}: {ink:?}");
        }
    }

    #[test]
    fn a_title_breaks_into_even_lines() {
        let lines = balanced(&words("THE LAST LIGHTHOUSE"), FONT, 2);
        assert_eq!(lines, ["THE LAST", "LIGHTHOUSE"]);
    }

    #[test]
    fn a_line_ends_at_spaces_but_at_no_no_break_space_and_not_before_punctuation() {
        let texts = |title: &str| words(title).into_iter().map(|word| word.text).collect::<Vec<_>>();
        for kept in [
            "Pourquoi\u{a0}?",
            "Apollo\u{202f}13",
            "Apollo\u{2007}13",
            "Apollo\u{2060}13",
            "Pourquoi ?",
            "« Non »",
            "Spider\u{2011}Man",
        ] {
            assert_eq!(texts(kept), [kept]);
        }
        assert_eq!(texts("Mais  pourquoi\u{2003}? Oui !"), ["Mais", "pourquoi ?", "Oui !"]);
        assert_eq!(texts("Tom & Jerry – again"), ["Tom", "&", "Jerry –", "again"]);
    }

    #[test]
    fn a_compound_is_broken_at_its_hyphens_and_a_soft_hyphen_shows_where_a_line_ends() {
        let lines = |title: &str, count| {
            let parts: Vec<Piece> = words(title).iter().flat_map(Piece::parts).collect();
            balanced(&parts, FONT, count)
        };
        assert_eq!(lines("WELL-BEHAVED", 2), ["WELL-", "BEHAVED"]);
        assert_eq!(lines("LIGHT\u{ad}HOUSE", 2), ["LIGHT-", "HOUSE"]);
        assert_eq!(lines("LIGHT\u{ad}HOUSE", 1), ["LIGHTHOUSE"]);
        for kept in ["CATCH-22", "-A-", "A\u{2011}B", "A-\u{2060}B"] {
            assert_eq!(lines(kept, 3), [kept]);
        }
    }

    #[test]
    fn a_word_is_broken_only_where_its_letters_become_much_larger() {
        let wide = |title: &str| fit_title(title, FONT, 300.0, 400.0, Align::Center);
        let long = "SPIDER-MAN-AND-THE-EXTRAORDINARY-WELL-BEHAVED-CAT";
        assert!(wide(long).letters > 2.0 * wide(&long.replace('-', "\u{2011}")).letters);
        // Three lines would make this one larger, but not by much.
        assert_eq!(wide("A-B CAR").height, wide("A\u{2011}B CAR").height);
    }

    #[test]
    fn baselines_are_evenly_spaced_whatever_accents_stand_above() {
        for title in ["EEEE EEEE ÉEEE", "EEEE ÉEEE EEEE", "ÉEEE EEEE EEEE"] {
            let font = Font { face: Face::Orbitron, size: 100.0, tracking: 0.12 };
            let block = fit_title(title, font, 350.0, 1000.0, Align::Left);
            let outline = block.main.expect("the title is inked");
            let has = |y: f32| outline.points().iter().any(|point| (point.y - y).abs() < 0.1);
            // An E has points at its foot and, as high as a capital is, at its head; an accent has no such pair.
            let mut feet: Vec<f32> = outline.points().iter().map(|point| point.y).collect();
            feet.retain(|foot| has(foot - block.letters));
            feet.sort_by(f32::total_cmp);
            feet.dedup_by(|one, other| (*one - *other).abs() < 0.1);
            let [first, second, third] = feet[..] else { panic!("{title}: {feet:?}") };
            assert!((third - 2.0 * second + first).abs() < 0.2, "{title}: {feet:?}");
        }
    }

    #[test]
    fn an_empty_title_is_nothing() {
        assert!(fit_title(" ", FONT, 300.0, 200.0, Align::Left).main.is_none());
    }

    #[test]
    fn a_billing_block_keeps_to_its_width() {
        let credits = [("directed by", "Ada Lovelace"), ("", "Émile"), ("music", "侍")].repeat(5);
        let block = billing(&credits, 30.0, 300.0, Align::Center);
        assert!(block.width <= 300.0 && block.height > 60.0, "{block:?}");
        assert!(block.main.is_some() && block.small.is_some());
    }
}
