use crate::vocabulary::VOCABULARY;

/// A title that the bundled faces can render: the prompt's own title, or an early phrase of it, or `other`.
pub(crate) fn derive(prompt: &str, other: String) -> String {
    let legible = |title: &String| {
        let seen = title.chars().any(char::is_alphanumeric) && title.chars().all(typography::covers);
        // A longer title is not legible on a poster.
        seen && (2..=44).contains(&title.chars().count())
    };
    let clauses = prompt.split(|c: char| !c.is_alphanumeric() && !c.is_whitespace() && !"-'’\u{301}".contains(c));
    let clauses: Vec<Vec<&str>> = clauses.take(2).map(|clause| clause.split_whitespace().collect()).collect();
    let phrases = clauses.iter().flat_map(|words| words.split(|word| breaks(word))).filter_map(phrase);
    let title = given(prompt).into_iter().chain(phrases).find(legible).unwrap_or(other);
    let first = title.chars().next().map(|first| first.to_uppercase().to_string() + &title[first.len_utf8()..]);
    first.unwrap_or_default()
}

/// A title between quotation marks, or after "titled" and the like.
fn given(prompt: &str) -> Option<String> {
    let between = |(open, close)| Some(prompt.split_once(open)?.1.split_once(close)?.0);
    let quoted = [('"', '"'), ('“', '”'), ('«', '»'), ('„', '“')].into_iter().find_map(between);
    let told = || {
        let marks = [" titled ", " called ", "Title: ", "title: "];
        let title = marks.into_iter().find_map(|mark| Some(prompt.split_once(mark)?.1))?;
        let end = |end| title.find(end).unwrap_or(title.len());
        let ends = [" about ", " where ", " set in ", " with ", ",", ".", ";", "\n", "("].map(end);
        title.get(..ends.into_iter().min()?)
    };
    Some(quoted.or_else(told)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word.to_lowercase())
}

fn breaks(word: &str) -> bool {
    let verb = word.len() > 6 && word.ends_with("ing") && !has("wedding,evening,morning,lightning,building", word);
    verb || has(&VOCABULARY.breaks, word)
}

/// The title at the beginning of a run of words: two or three meaningful words and what links them.
fn phrase(run: &[&str]) -> Option<String> {
    let (mut title, mut meaningful) = (Vec::new(), 0);
    for (i, &word) in run.iter().enumerate() {
        let (article, link) = (has("a,an", word), has(&VOCABULARY.links, word));
        // "The gunslinger faces the sheriff": an -s before an article ends a verb.
        let verb = word.ends_with('s') && run.get(i + 1).is_some_and(|next| has("a,an,the", next));
        if meaningful == 3 || meaningful > 0 && (article || verb) {
            break;
        } else if article {
            title = vec!["The"];
        } else if meaningful > 0 || !link || has(&VOCABULARY.articles, word) {
            meaningful += usize::from(!link);
            title.push(word);
        }
    }
    while title.last().is_some_and(|word| has(&VOCABULARY.links, word)) {
        title.pop();
    }
    (meaningful > 1).then(|| title.join(" "))
}
