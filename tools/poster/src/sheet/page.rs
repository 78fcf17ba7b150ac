//! HTML pages of all posters, which need no file but the pictures.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use html_escape::encode_quoted_attribute;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::catalog::{Catalog, Entry};
use crate::failure::{Failure, OfFile};
use crate::words::{count_of, thousands};

pub(super) const PAGE: &str = "index.html";

const HEAD: &str = include_str!("head.html");

const TAIL: &str = include_str!("tail.html");

/// The most posters of a page. A browser opens it in two seconds; with ten times as many it takes a minute.
const PER_PAGE: usize = 10_000;

/// The characters of a file name that are percent-encoded in its URL.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// How many posters are held in memory at once.
const PIECE: usize = 200;

/// Writes the pages of all posters, and returns their number. The first page is written last: if it exists, so do all.
pub(crate) fn write_all(directory: &Path, title: &str, catalog: &Catalog) -> Result<usize, Failure> {
    let pages = catalog.len().div_ceil(PER_PAGE);
    for page in (0..pages).rev() {
        let posters = page * PER_PAGE..((page + 1) * PER_PAGE).min(catalog.len());
        let path = directory.join(name(page));
        let part = path.with_extension("html.part");
        let mut file = BufWriter::new(File::create(&part).of_file(&path)?);
        file.write_all(head(title, catalog.len(), page, pages, &posters).as_bytes()).of_file(&path)?;
        for begin in posters.clone().step_by(PIECE) {
            for entry in catalog.entries(begin..(begin + PIECE).min(posters.end))? {
                write_poster(&mut file, &entry).of_file(&path)?;
            }
        }
        file.write_all(TAIL.as_bytes()).of_file(&path)?;
        file.into_inner().of_file(&path)?;
        std::fs::rename(part, &path).of_file(&path)?;
    }
    Ok(pages)
}

/// Fails if there is an `index.html` that this command did not write.
pub(crate) fn check(directory: &Path) -> Result<(), Failure> {
    // Every page contains it.
    const MARK: &str = "aria-label=\"One poster\"";
    let path = directory.join(PAGE);
    match std::fs::read_to_string(&path) {
        Ok(page) if page.contains(MARK) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Failure::Local(format!("{} was not written by poster; it was not changed", path.display()))),
    }
}

/// The file name of a page, counted from zero.
fn name(page: usize) -> String {
    if page == 0 { PAGE.to_owned() } else { PAGE.replace(".html", &format!("-{}.html", page + 1)) }
}

fn head(title: &str, all: usize, page: usize, pages: usize, posters: &Range<usize>) -> String {
    let count = if pages == 1 {
        count_of(all as u64, "poster")
    } else {
        let [first, last, all] = [posters.start + 1, posters.end, all].map(|number| thousands(number as u64));
        format!("{first} to {last} of {all} posters")
    };
    let link = |to: usize, word: &str| format!("<a href=\"./{}\">{word}</a>", name(to));
    let before = if page > 0 { link(page - 1, "← Previous page") } else { String::new() };
    let after = if page + 1 < pages { link(page + 1, "Next page →") } else { String::new() };
    let place = if pages > 1 { " on this page" } else { "" };
    let head =
        HEAD.replace("{count}", &count).replace("{links}", &format!("{before} {after}")).replace("{place}", place);
    // Last, so that no placeholder in a title is filled in.
    head.replace("{title}", &encode_quoted_attribute(title))
}

fn write_poster(page: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let (file, title) = (utf8_percent_encode(&entry.file, NOT_PLAIN), encode_quoted_attribute(&entry.title));
    let prompt = encode_quoted_attribute(if entry.prompt.is_empty() { &entry.title } else { &entry.prompt });
    let size = entry.size.map(|(width, height)| format!(" width=\"{width}\" height=\"{height}\"")).unwrap_or_default();
    writeln!(
        page,
        "<figure><a href=\"./{file}\"><img src=\"./{file}\" loading=\"lazy\" decoding=\"async\" alt=\"{prompt}\"{size}></a>\
         <figcaption dir=\"auto\">{title}</figcaption></figure>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_names_cannot_break_out() {
        let entry = Entry {
            file: "a\"b#c.png".to_owned(),
            title: "<script>alert('1')</script>".to_owned(),
            prompt: "\" onload=\"alert(1)".to_owned(),
            size: Some((2, 3)),
        };
        let mut poster = Vec::new();
        write_poster(&mut poster, &entry).expect("it is written");
        let page = head("</title><b>{count}", 1, 0, 1, &(0..1)) + &String::from_utf8(poster).expect("it is UTF-8");
        assert!(
            !page.contains("<script>alert") && !page.contains("\" onload") && !page.contains("</title><b>"),
            "{page}"
        );
        assert!(page.contains("src=\"./a%22b%23c.png\"") && page.contains(">1 poster<"), "{page}");
        assert!(page.contains("&lt;/title&gt;&lt;b&gt;{count}</h1>"), "a placeholder in a title is not filled in");
    }

    #[test]
    fn a_page_of_somebody_else_is_not_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a.png"), "").expect("it is written");
        assert!(check(directory.path()).is_ok());
        write_all(directory.path(), "One", &Catalog::of(directory.path()).expect("it is read")).expect("it is written");
        assert!(check(directory.path()).is_ok(), "our own page may be overwritten");
        std::fs::write(directory.path().join("index.html"), "<title>My films</title>").expect("it is written");
        assert!(check(directory.path()).is_err_and(|failure| failure.exit_code() == 4));
    }

    #[test]
    fn pages_lead_to_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        for number in 0..=PER_PAGE {
            File::create(directory.path().join(format!("{number:06}.png"))).expect("it is written");
        }
        let catalog = Catalog::of(directory.path()).expect("it is read");
        let second = directory.path().join("index-2.html");
        std::fs::create_dir(&second).expect("it is made");
        assert!(write_all(directory.path(), "Many", &catalog).is_err(), "a directory is in the way");
        assert!(!directory.path().join("index.html").exists(), "no page links to missing ones");
        std::fs::remove_dir(second).expect("it goes");
        assert_eq!(write_all(directory.path(), "Many", &catalog).expect("they are written"), 2);
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it is there");
        let (first, second) = (read("index.html"), read("index-2.html"));
        assert!(first.contains("1 to 10,000 of 10,001 posters") && first.contains("href=\"./index-2.html\""));
        assert!(second.contains("10,001 to 10,001 of") && second.contains("href=\"./index.html\""));
        assert_eq!([&first, &second].map(|page| page.matches("<figure>").count()), [PER_PAGE, 1]);
    }
}
