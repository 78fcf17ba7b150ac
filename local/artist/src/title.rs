//! Making a title out of a prompt.

use typography::Face;

use crate::noise::Random;

/// A title longer than this many characters is not legible on a poster.
const LONGEST: usize = 44;

/// Words that speak of the poster or the kind of film, and words that end a phrase. No title has
/// them unless it is given in quotes.
#[rustfmt::skip]
const BREAKS: &[&str] = &[
    "movie", "film", "poster", "cinematic", "epic", "dramatic", "style", "stylized", "design", "create", "make",
    "draw", "paint", "generate", "image", "picture", "illustration", "detailed", "quality", "high", "resolution",
    "thriller", "crime", "gritty", "drama", "comedy", "horror", "western", "romance", "romantic", "noir", "sci-fi", "science", "fiction",
    "fantasy", "adventure", "animated", "featuring", "showing", "depicting", "set", "background", "lighting", "scene",
    "story", "very", "please", "affiche", "cartel", "plakat", "película", "drame", "familial", "titled", "called",
    "is", "are", "was", "were", "who", "that", "which", "where", "when", "with", "his", "her", "their", "my", "i",
    "we", "he", "she", "they", "it", "its", "must", "has", "have", "had", "from", "by", "into", "through", "about",
    "as", "but", "so", "then", "there", "this", "these", "those", "before", "after", "against", "between", "over",
    "under", "behind", "not", "no", "be", "been", "can", "could", "will", "just", "really", "something", "some",
    "how", "what", "why", "if", "or", "because", "while", "for", "to", "him", "them", "you", "your", "our", "me",
    "qui", "avec", "dans", "pour", "est", "sur", "que", "con", "por", "para", "und", "mit", "une", "un", "una",
    "uno", "ein", "eine", "einer", "son", "sa", "ses", "et", "y", "au", "lone", "single",
];
/// Words that may stand in the middle of a title but not at its end.
#[rustfmt::skip]
const LINKS: &[&str] = &[
    "of", "in", "on", "at", "and", "the", "de", "du", "des", "la", "le", "les", "à", "aux", "von", "der", "die",
    "das", "den", "im", "am", "del", "el", "los", "las", "da", "do", "di", "della", "il",
];
/// Links that may also begin a title.
const ARTICLES: &[&str] = &["the", "la", "le", "les", "der", "die", "das", "el", "los", "las", "il"];
/// Words in -ing that are no verbs.
const NOUNS_IN_ING: &[&str] = &["wedding", "evening", "morning", "lightning", "building", "painting"];

/// A title of a few words in capitals, which some bundled face can render: the one the prompt gives,
/// else its best phrase, else `fallback`.
pub(crate) fn derive(prompt: &str, fallback: &str, random: &mut Random) -> String {
    let legible = |title: &String| {
        let face = Face::BebasNeue.covering(title);
        (2..=LONGEST).contains(&title.chars().count()) && title.contains(char::is_alphabetic) && face.is_some()
    };
    if let Some(title) = given(prompt).map(capitals).filter(legible) {
        return title;
    }
    let mut best = (f32::MIN, fallback.to_uppercase());
    for (title, worth) in phrases(prompt) {
        let score = worth + random.range(0.0, 0.5);
        if score > best.0 && legible(&title) {
            best = (score, title);
        }
    }
    best.1
}

/// A title between quotation marks, or after "titled" and the like.
fn given(prompt: &str) -> Option<&str> {
    let quotes = [('"', '"'), ('“', '”'), ('«', '»'), ('„', '“')];
    let between = |(open, close)| Some(prompt.split_once(open)?.1.split_once(close)?.0.trim());
    quotes.into_iter().find_map(between).or_else(|| announced(prompt))
}

fn announced(prompt: &str) -> Option<&str> {
    // Lower case in ASCII only, so that places in it are places in the prompt, after the blank.
    let lower = format!(" {}", prompt.to_ascii_lowercase().replace('\n', " "));
    let marks = [" titled ", " entitled ", " called ", " title: ", " titre : "];
    let start = marks.into_iter().find_map(|mark| Some(lower.find(mark)? + mark.len() - 1))?;
    let ends = [" about ", " where ", " set in ", " featuring ", " starring "];
    let end = ends.into_iter().filter_map(|end| lower[start + 1..].find(end)).min();
    let title = prompt.get(start..end.map_or(prompt.len(), |end| start + end))?;
    title.split([',', '.', ';', '\n', '(']).next().map(str::trim)
}

/// Phrases of up to three meaningful words, with what each is worth as a title.
fn phrases(prompt: &str) -> Vec<(String, f32)> {
    let is_break = |c: char| !c.is_alphanumeric() && !c.is_whitespace() && !"-'’\u{301}".contains(c);
    let clauses = prompt.split(is_break).take(40);
    let words: Vec<Vec<&str>> = clauses.map(|clause| clause.split_whitespace().collect()).collect();
    let runs = words.iter().flat_map(|clause| clause.split(|word| ends_phrase(word)));
    let phrases = runs.filter_map(phrase).enumerate();
    // Earlier phrases are worth more, for a prompt begins with what matters.
    phrases.map(|(i, (title, worth))| (title, worth - 0.35 * i.min(9) as f32)).collect()
}

/// The title that a run of words begins with.
fn phrase(run: &[&str]) -> Option<(String, f32)> {
    let (mut title, mut meaningful, mut proper) = (Vec::new(), 0, 0.0);
    for (i, word) in run.iter().enumerate() {
        let lower = word.to_lowercase();
        let next = run.get(i + 1).map(|next| next.to_lowercase()).unwrap_or_default();
        // "The gunslinger faces the sheriff": an -s before an article ends a verb.
        let verb = meaningful > 0 && lower.ends_with('s') && ["a", "an", "the"].contains(&next.as_str());
        if verb || meaningful == 3 || (lower == "a" || lower == "an") && meaningful > 0 {
            break;
        } else if lower == "a" || lower == "an" {
            title = vec!["THE".to_owned()];
        } else if meaningful > 0 || !LINKS.contains(&lower.as_str()) || ARTICLES.contains(&lower.as_str()) {
            let link = LINKS.contains(&lower.as_str());
            meaningful += i32::from(!link);
            proper += if i > 0 && !link && word.starts_with(char::is_uppercase) { 0.4 } else { 0.0 };
            title.push(capitals(word));
        }
    }
    while title.last().is_some_and(|word| LINKS.contains(&word.to_lowercase().as_str())) {
        title.pop();
    }
    let worth = [None, Some(0.0), Some(2.0), Some(2.2)][meaningful as usize]?;
    let named = if title.first().is_some_and(|word| word == "THE") { 0.6 } else { 0.0 };
    Some((title.join(" "), worth + proper + named))
}

fn ends_phrase(word: &str) -> bool {
    let lower = word.to_lowercase();
    let lower = lower.as_str();
    let verb = lower.ends_with("ing") && lower.len() > 6 && !NOUNS_IN_ING.contains(&lower);
    verb || BREAKS.contains(&lower)
}

/// `text` in capitals, but for words such as "1940s".
fn capitals(text: &str) -> String {
    let raise = |word: &str| {
        if word.starts_with(|c: char| c.is_ascii_digit()) { word.to_owned() } else { word.to_uppercase() }
    };
    text.split_whitespace().map(raise).collect::<Vec<_>>().join(" ")
}
