//! The pictures of a directory by their names, with what its manifest says of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::manifest::{self, Lines};
use crate::words::ellipsize;

/// The beginning of the names of the sheets themselves, which are no posters.
pub(super) const SHEET: &str = "contact-sheet";

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

/// All pictures of a directory. What is in memory of each is its name, and where the manifest tells of it.
#[derive(Debug)]
pub(crate) struct Catalog {
    directory: PathBuf,
    pictures: Vec<(Box<str>, Option<u64>)>,
}

impl Catalog {
    /// The pictures of this directory.
    ///
    /// # Errors
    /// When it, or its manifest, cannot be read.
    pub(crate) fn of(directory: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::file(directory, error);
        let mut pictures = Vec::new();
        for file in std::fs::read_dir(directory).map_err(failed)? {
            let name = file.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if is_poster(&name) {
                pictures.push((name.into_boxed_str(), None));
            }
        }
        pictures.sort_unstable();
        manifest::places(directory, |file, place| {
            if let Ok(found) = pictures.binary_search_by(|(name, _)| (**name).cmp(file)) {
                pictures[found].1 = Some(place);
            }
        })?;
        Ok(Self { directory: directory.to_owned(), pictures })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pictures.len()
    }

    /// All that is known of those in this range.
    ///
    /// # Errors
    /// When the manifest cannot be read.
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

/// Whether a file of this name is a picture, and no sheet of pictures.
fn is_poster(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    let is_picture = ["png", "jpg", "jpeg", "webp"].contains(&ending.to_ascii_lowercase().as_str());
    is_picture && !stem.is_empty() && !name.starts_with('.') && !name.starts_with(SHEET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_of_by_the_last_line_about_them_or_by_their_names() {
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
