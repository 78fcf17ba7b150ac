//! A page of all posters that opens from the disk: one file, without any other but the pictures.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Entry;

/// What comes before the posters.
const HEAD: &str = include_str!("head.html");

/// What comes behind them.
const TAIL: &str = include_str!("tail.html");

/// Writes the page.
pub(crate) fn write(path: &Path, title: &str, entries: &[Entry]) -> io::Result<()> {
    let part = path.with_extension("html.part");
    let mut page = BufWriter::new(File::create(&part)?);
    let count = format!("{} poster{}", entries.len(), if entries.len() == 1 { "" } else { "s" });
    page.write_all(HEAD.replace("{title}", &escaped(title)).replace("{count}", &count).as_bytes())?;
    for entry in entries {
        let (file, title) = (address(&entry.file), escaped(&entry.title));
        let prompt = escaped(if entry.prompt.is_empty() { &entry.title } else { &entry.prompt });
        let size = entry.size.map(|(width, height)| format!(" width=\"{width}\" height=\"{height}\""));
        writeln!(
            page,
            "<figure><a href=\"{file}\"><img src=\"{file}\" loading=\"lazy\" decoding=\"async\" alt=\"{prompt}\"{}></a>\
             <figcaption title=\"{prompt}\">{title}</figcaption></figure>",
            size.unwrap_or_default()
        )?;
    }
    page.write_all(TAIL.as_bytes())?;
    page.into_inner().map_err(io::IntoInnerError::into_error)?;
    std::fs::rename(part, path)
}

/// Text as it stands in HTML, within quotation marks too.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The relative address of a file. What is not plain is encoded, so that no name is taken for anything else.
fn address(file: &str) -> String {
    let mut address = String::from("./");
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => address.push(char::from(byte)),
            byte => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_names_cannot_break_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("index.html");
        let entry = Entry {
            file: "a\"b#c.png".to_owned(),
            title: "<script>alert('1')</script>".to_owned(),
            prompt: "\" onload=\"alert(1)".to_owned(),
            size: Some((2, 3)),
        };
        write(&path, "</title><b>", &[entry]).expect("it is written");
        let page = std::fs::read_to_string(&path).expect("it can be read");
        assert!(
            !page.contains("<script>alert") && !page.contains("\" onload") && !page.contains("</title><b>"),
            "{page}"
        );
        assert!(page.contains("src=\"./a%22b%23c.png\"") && page.contains("1 poster<"), "{page}");
    }
}
