//! Reads a prompt: what to paint, in which mood, and with which words.

use crate::vocabulary::{Disc, Genre, Layer, Row, VOCABULARY, Wash};
use crate::{Order, title};

pub(crate) struct Brief {
    pub(crate) genre: &'static Genre,
    pub(crate) disc: Disc,
    pub(crate) layers: &'static [Layer],
    pub(crate) landmarks: Vec<&'static (String, f32, f32)>,
    pub(crate) cast: &'static str,
    pub(crate) weather: Option<&'static (String, usize)>,
    pub(crate) washes: Vec<&'static Wash>,
    pub(crate) light: Option<&'static str>,
    /// Whether the picture may have words other than the disclosure.
    pub(crate) lettered: bool,
    pub(crate) title: String,
    pub(crate) tagline: &'static str,
}

impl Brief {
    pub(crate) fn read(order: &Order<'_>) -> Brief {
        let known = &*VOCABULARY;
        let (words, unwanted) = (spaced(order.prompt), spaced(order.negative_prompt));
        let named = |term: &&str| has(&words, term) && !has(&unwanted, term);
        let count = |terms: &str| terms.split(',').filter(named).count();
        let shuns = |terms: &str| terms.split(',').any(|term| has(&unwanted, term));
        let genre = best(&known.genres, count).unwrap_or(&known.genres[known.genres.len() - 1]);
        // A term of the prompt counts more than a default of the genre.
        let worth = |term: &str| match known.genres.iter().any(|row| row.1.name == term) {
            true => usize::from(term == genre.1.name),
            false => 2 * usize::from(named(&term)),
        };
        let fit = |terms: &str| terms.split(',').map(worth).sum::<usize>();
        let place = best(&known.places, fit).unwrap_or(&known.places[0]);
        let mut landmarks: Vec<_> = known.landmarks.iter().filter(|row| fit(&row.0) > 1).take(2).collect();
        if landmarks.is_empty() {
            landmarks.extend(best(&known.landmarks, fit));
        }
        let hero = best(&known.heroes, fit).unwrap_or(&known.heroes[0]);
        let time = best(&known.times, count);
        let disc = match time {
            Some(row) if row.0 == known.times[0].0 => Disc::Moon,
            Some(_) if genre.1.disc == Disc::Moon => Disc::Sun,
            _ => genre.1.disc,
        };
        // If no phrase makes a title, as in a script that no face has, the title names the time and the subject.
        let plain = |term: &&str| term.bytes().all(|byte| byte.is_ascii_lowercase()) && named(term);
        let name = |terms: &'static str| terms.split(',').find(plain).or(terms.split(',').next()).unwrap_or_default();
        let subject = name(if fit(&hero.0) > 1 { &hero.0 } else { &place.0 });
        let other = format!("{} {subject}", time.map_or("the", |row| name(&row.0)));
        let foreign = best(&known.taglines, count).filter(|_| count("the,of,and,with,who") == 0);
        let usual = &genre.1.taglines[order.seed as usize % genre.1.taglines.len()];
        Brief {
            genre: &genre.1,
            disc,
            layers: &place.1,
            landmarks: landmarks.into_iter().map(|row| &row.1).collect(),
            cast: if shuns("people,person,human,figure,man,woman") { "" } else { &hero.1 },
            weather: best(&known.weathers, fit).map(|row| &row.1),
            washes: time.into_iter().chain(best(&known.tints, count)).map(|row| &row.1).collect(),
            light: best(&known.lights, count).map(|row| row.1.as_str()),
            lettered: !shuns("text,title,lettering,typography,word,letter,watermark"),
            title: title::derive(order.prompt, other),
            tagline: foreign.map_or(usual, |row| &row.1),
        }
    }
}

/// The words of a text in lower case, with one space before and after each.
fn spaced(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |line, word| line + word + " ")
}

/// Whether spaced words have a term, or its plural. Chinese and Japanese have no spaces between words.
fn has(words: &str, term: &str) -> bool {
    let ideographic = term.starts_with(|c: char| c > '\u{3000}') && words.contains(term);
    ideographic || words.contains(&format!(" {term} ")) || words.contains(&format!(" {term}s "))
}

/// The first row with the highest score, unless all scores are 0.
fn best<T>(rows: &'static [Row<T>], score: impl Fn(&str) -> usize) -> Option<&'static Row<T>> {
    let scored = rows.iter().map(|row| (row, score(&row.0))).filter(|(_, score)| *score > 0);
    scored.reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(row, _)| row)
}
