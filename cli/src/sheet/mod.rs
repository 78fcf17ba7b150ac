//! A contact sheet and an `index.html` of a directory's pictures.

mod contact;
mod page;
mod thumbnail;

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;

use crate::arguments::Sheet;
use crate::failure::{Failure, Outcome};
use crate::manifest;
use crate::terminal::{Terminal, beginning, grouped, many};

/// The beginning of the names of the sheets themselves, which are no posters.
const SHEET: &str = "contact-sheet";

/// The name of the page.
const PAGE: &str = "index.html";

/// How many pictures one sheet holds.
const PER_SHEET: usize = 400;

/// The longest title, in characters.
const MAX_TITLE: usize = 90;

/// A picture of the directory.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its file name.
    pub(crate) file: String,
    /// What it is called.
    pub(crate) title: String,
    /// What it was painted from, if that is known.
    pub(crate) prompt: String,
    /// Its width and height in pixels, if they are known.
    pub(crate) size: Option<(u32, u32)>,
}

/// Draws the sheet and writes the page of the directory that was asked for.
pub(crate) fn run(terminal: &Terminal, sheet: &Sheet) -> Result<Outcome, Failure> {
    let name = match &sheet.title {
        Some(title) => title.clone(),
        None => {
            let path = sheet.dir.canonicalize().map_err(|error| Failure::file(&sheet.dir, error))?;
            path.file_name().map_or("Posters".to_owned(), |name| name.to_string_lossy().into_owned())
        }
    };
    let unreadable = draw(terminal, &sheet.dir, &name, sheet.all)?;
    Ok(if unreadable == 0 { Outcome::AllDone } else { Outcome::SomeFailed })
}

/// Whether the directory has its sheet and its page.
pub(crate) fn is_in(directory: &Path) -> bool {
    directory.join(PAGE).exists() && directory.join(format!("{SHEET}.png")).exists()
}

/// Draws one sheet of the directory's pictures, or as many as `all` of them need, and writes the page. Tells how many
/// pictures could not be read.
pub(crate) fn draw(terminal: &Terminal, directory: &Path, name: &str, all: bool) -> Result<usize, Failure> {
    let entries = entries(directory)?;
    if entries.is_empty() {
        return Err(Failure::Usage(format!("{} holds no pictures", directory.display())));
    }
    let pages = entries.len().div_ceil(PER_SHEET);
    let drawn = if all { pages } else { 1 };
    let mut unreadable = 0;
    let mut sheets = Vec::new();
    for (number, chunk) in entries.chunks(PER_SHEET).take(drawn).enumerate() {
        let title = if pages > 1 { format!("{name} · {} of {pages}", number + 1) } else { name.to_owned() };
        let file = if number == 0 { format!("{SHEET}.png") } else { format!("{SHEET}-{}.png", number + 1) };
        let path = directory.join(&file);
        let before = number * PER_SHEET;
        let sign = |done: usize| {
            let done = grouped((before + done) as u64);
            terminal.status(format_args!("contact sheet: {done} of {}", many(entries.len() as u64, "picture")));
        };
        unreadable += contact::draw(directory, chunk, &title, &path, sign)?;
        sheets.push(path);
    }
    let page = directory.join(PAGE);
    page::write(&page, name, &entries).map_err(|error| Failure::file(&page, error))?;
    terminal.clear();
    terminal.say(format_args!("contact sheet: {}", sheets[0].display()));
    if drawn < pages {
        let (first, of) = (grouped(PER_SHEET as u64), many(entries.len() as u64, "picture"));
        let more = format!("`poster sheet {} --all` draws {pages} sheets", directory.display());
        terminal.say(format_args!("  it shows the first {first} of {of}; {more}"));
    } else if sheets.len() > 1 {
        terminal.say(format_args!("  and {}", many(sheets.len() as u64 - 1, "further sheet")));
    }
    terminal.say(format_args!("all posters:   {}", page.display()));
    if unreadable > 0 {
        terminal.say(format_args!("{} cannot be read", many(unreadable as u64, "picture")));
    }
    terminal.data(&json!({ "event": "sheet", "sheets": sheets, "page": page, "pictures": entries.len() }))?;
    Ok(unreadable)
}

/// The pictures of a directory by their names, with what its manifest says of them.
fn entries(directory: &Path) -> Result<Vec<Entry>, Failure> {
    let failed = |error| Failure::file(directory, error);
    let mut known = HashMap::new();
    manifest::read(directory, |picture| {
        let title = picture.title.unwrap_or_else(|| beginning(&picture.prompt, MAX_TITLE));
        known.insert(picture.file, (title, picture.prompt, (picture.width, picture.height)));
    })?;
    let mut entries = Vec::new();
    for file in std::fs::read_dir(directory).map_err(failed)? {
        let file = file.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let Some((stem, ending)) = file.rsplit_once('.') else { continue };
        let is_picture = ["png", "jpg", "jpeg", "webp"].contains(&ending.to_ascii_lowercase().as_str());
        if !is_picture || stem.is_empty() || file.starts_with('.') || file.starts_with(SHEET) {
            continue;
        }
        entries.push(match known.remove(&file) {
            Some((title, prompt, size)) => Entry { file, title, prompt, size: Some(size) },
            None => Entry { title: stem.replace(['-', '_'], " "), prompt: String::new(), size: None, file },
        });
    }
    entries.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(entries)
}
