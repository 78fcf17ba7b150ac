//! The contact sheet and the `index.html` of a directory of pictures.

mod catalog;
mod contact;
mod page;

use std::path::Path;

use serde_json::json;

use crate::arguments::Sheet;
use crate::failure::{Failure, OfFile, Outcome};
use crate::manifest;
use crate::sheet::catalog::{Catalog, SHEET};
use crate::sheet::page::PAGE;
use crate::terminal::Terminal;
use crate::words::{count_of, quoted, short_path, thousands};

const PER_SHEET: usize = 400;

pub(crate) fn run(terminal: &Terminal, sheet: &Sheet) -> Result<Outcome, Failure> {
    let name = match &sheet.title {
        Some(title) => title.clone(),
        None => {
            let path = sheet.dir.canonicalize().of_file(&sheet.dir)?;
            path.file_name().map_or("Posters".to_owned(), |name| name.to_string_lossy().into_owned())
        }
    };
    let unreadable = draw(terminal, &sheet.dir, &name, sheet.all)?;
    Ok(if unreadable == 0 { Outcome::AllDone } else { Outcome::SomeFailed })
}

/// Whether the directory has a sheet and a page that are newer than its pictures. The page is written last.
pub(crate) fn is_in(directory: &Path) -> bool {
    let changed = |name: &str| directory.join(name).metadata().and_then(|metadata| metadata.modified()).ok();
    let is_new = changed(PAGE).is_some_and(|page| changed(manifest::FILE).is_none_or(|saved| saved <= page));
    is_new && directory.join(format!("{SHEET}.png")).exists()
}

/// Draws the first sheet, or with `all` every sheet, and writes the pages. Returns how many pictures could not be read.
pub(crate) fn draw(terminal: &Terminal, directory: &Path, name: &str, all: bool) -> Result<usize, Failure> {
    let catalog = Catalog::of(directory)?;
    let pictures = catalog.len();
    if pictures == 0 {
        return Err(Failure::Usage(format!("{} contains no pictures", directory.display())));
    }
    page::check(directory)?;
    let sheets_in_all = pictures.div_ceil(PER_SHEET);
    let mut unreadable = 0;
    let mut sheets = Vec::new();
    for number in 0..if all { sheets_in_all } else { 1 } {
        let before = number * PER_SHEET;
        let entries = catalog.entries(before..(before + PER_SHEET).min(pictures))?;
        let title =
            if sheets_in_all > 1 { format!("{name} · {} of {sheets_in_all}", number + 1) } else { name.to_owned() };
        let file = if number == 0 { format!("{SHEET}.png") } else { format!("{SHEET}-{}.png", number + 1) };
        let path = directory.join(&file);
        let sign = |done: usize| {
            let done = thousands((before + done) as u64);
            terminal.status(format!("contact sheet: {done} of {}", count_of(pictures as u64, "picture")));
        };
        unreadable += contact::draw(directory, &entries, &title, &path, sign)?;
        sheets.push(path);
    }
    let pages = page::write_all(directory, name, &catalog)?;
    terminal.clear();
    terminal.println(format!("contact sheet: {}", short_path(&sheets[0]).display()));
    if sheets.len() < sheets_in_all {
        let (first, of) = (thousands(PER_SHEET as u64), count_of(pictures as u64, "picture"));
        terminal.println(format!("  shows the first {first} of {of}; for all {sheets_in_all} sheets:"));
        terminal.println(format!("    poster sheet {} --all", quoted(&directory.display().to_string())));
    } else if sheets.len() > 1 {
        terminal.println(format!("  and {}", count_of(sheets.len() as u64 - 1, "more sheet")));
    }
    let page = directory.join(PAGE);
    terminal.println(format!("all posters:   {}", short_path(&page).display()));
    if pages > 1 {
        terminal.println(format!("  the first of {pages} pages"));
    }
    if unreadable > 0 {
        terminal.println(format!("{} cannot be read", count_of(unreadable as u64, "picture")));
    }
    terminal
        .data(&json!({ "event": "sheet", "sheets": sheets, "page": page, "pages": pages, "pictures": pictures }))?;
    Ok(unreadable)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_sheet_counts_only_if_it_is_newer_than_the_pictures() {
        let directory = tempfile::tempdir().expect("a directory");
        let make = |name: &str| File::create(directory.path().join(name)).expect("it is made");
        let page = make(PAGE);
        assert!(!is_in(directory.path()), "there is no sheet");
        make("contact-sheet.png");
        assert!(is_in(directory.path()));
        make(manifest::FILE);
        page.set_modified(SystemTime::now() - Duration::from_secs(1)).expect("it is set back");
        assert!(!is_in(directory.path()), "more was saved since");
        page.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("it is set");
        assert!(is_in(directory.path()));
    }
}
