//! The pictures of a directory, with what its manifest says about them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, OfFile};
use crate::manifest::{self, Lines};
use crate::words::ellipsize;

/// The beginning of the file names of contact sheets.
pub(super) const SHEET: &str = "contact-sheet";

/// The longest title, in columns.
const MAX_TITLE: usize = 90;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) prompt: String,
    /// Its width and height in pixels, if known.
    pub(crate) size: Option<(u32, u32)>,
}

/// All pictures of a directory. In memory is the name of each and the offset of its line in the manifest.
#[derive(Debug)]
pub(crate) struct Catalog {
    directory: PathBuf,
    pictures: Vec<(Box<str>, Option<u64>)>,
}

impl Catalog {
    pub(crate) fn of(directory: &Path) -> Result<Self, Failure> {
        let mut pictures = Vec::new();
        for file in std::fs::read_dir(directory).of_file(directory)? {
            let name = file.of_file(directory)?.file_name().to_string_lossy().into_owned();
            if is_poster(&name) {
                pictures.push((name.into_boxed_str(), None));
            }
        }
        pictures.sort_unstable();
        manifest::read(directory, |place, picture| {
            if let Ok(found) = pictures.binary_search_by(|(name, _)| (**name).cmp(&picture.file)) {
                pictures[found].1 = Some(place);
            }
        })?;
        Ok(Self { directory: directory.to_owned(), pictures })
    }

    pub(crate) fn len(&self) -> usize {
        self.pictures.len()
    }

    pub(crate) fn entries(&self, range: Range<usize>) -> Result<Vec<Entry>, Failure> {
        let pictures = &self.pictures[range];
        let mut lines = None;
        let entry = |(file, place): &(Box<str>, Option<u64>)| {
            let file = file.to_string();
            let Some(place) = *place else {
                let title = file.rsplit_once('.').map_or("", |(stem, _)| stem).replace(['-', '_'], " ");
                return Ok(Entry { file, title, prompt: String::new(), size: None });
            };
            let lines = match &mut lines {
                Some(lines) => lines,
                None => lines.insert(Lines::open(&self.directory)?),
            };
            let picture = lines.at(place)?;
            let title = picture.title.unwrap_or_else(|| ellipsize(&picture.prompt, MAX_TITLE));
            Ok(Entry { file, title, prompt: picture.prompt, size: Some((picture.width, picture.height)) })
        };
        pictures.iter().map(entry).collect()
    }
}

/// Whether a file of this name is a picture, and not a contact sheet.
fn is_poster(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    let is_picture = ["png", "jpg", "jpeg", "webp"].contains(&ending.to_ascii_lowercase().as_str());
    is_picture && !stem.is_empty() && !name.starts_with('.') && !name.starts_with(SHEET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_title_of_their_last_line_or_of_their_name() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["c.png", "a_stray-one.JPG", "b.webp", "contact-sheet.png", ".d.png.part", "posters.txt", ".png"] {
            std::fs::write(directory.path().join(name), "").expect("it is written");
        }
        let line = |file: &str, prompt: &str| {
            let job = shared::JobId::new();
            format!(
                "{{\"file\":\"{file}\",\"bytes\":1,\"sha256\":\"\",\"job\":\"{job}\",\"prompt\":\"{prompt}\",\
                 \"width\":2,\"height\":3}}\n"
            )
        };
        let lines = [
            line("c.png", "old"),
            line("gone.png", "x"),
            "torn\n".to_owned(),
            line("b.webp", "B"),
            line("c.png", "C"),
            "{\"file\":\"b.webp\",\"prompt\":\"no record of a picture\"}\n".to_owned(),
        ];
        std::fs::write(directory.path().join(manifest::FILE), lines.concat()).expect("it is written");
        let catalog = Catalog::of(directory.path()).expect("it is read");
        let entries = catalog.entries(0..catalog.len()).expect("it is read");
        let told: Vec<_> =
            entries.iter().map(|entry| (entry.file.as_str(), entry.title.as_str(), entry.size)).collect();
        let size = Some((2, 3));
        assert_eq!(told, [("a_stray-one.JPG", "a stray one", None), ("b.webp", "B", size), ("c.png", "C", size)]);
        assert_eq!(catalog.entries(2..3).expect("it is read")[0].prompt, "C");
    }
}
