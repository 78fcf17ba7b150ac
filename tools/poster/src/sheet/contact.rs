use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use tiny_skia::{Color, Pixmap, PremultipliedColorU8, Rect, Transform};
use typography::{Align, Face, Font, Line, Raster};

use super::catalog::Entry;
use crate::failure::{Failure, OfFile};
use crate::words::wrapped;

/// The greatest width of a sheet, in pixels. A cell's two limits are widths too.
const WIDTH: usize = 2400;

const MAX_CELL: usize = 360;

const MIN_CELL: usize = 110;

/// The largest file that is read, in bytes. The service's files have a few million.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The face of titles: a condensed one, since titles are long and cells are narrow.
const FACE: Face = Face::LeagueGothic;

const LINES: usize = 2;

/// The layout of a sheet, in pixels.
#[derive(Debug)]
struct Layout {
    columns: usize,
    cell: usize,
    /// The height of a cell, which is 2:3 like a movie poster.
    tall: usize,
    gap: usize,
    letters: f32,
    /// The height of a cell with its title and the gap below.
    row: usize,
    head: usize,
    width: usize,
    height: usize,
}

impl Layout {
    fn of(pictures: usize) -> Self {
        // More columns than rows, since screens are wide though cells are tall.
        let columns = ((pictures as f64 * 1.6).sqrt().ceil() as usize).clamp(1, pictures.max(1));
        let cell = (WIDTH / columns).clamp(MIN_CELL, MAX_CELL) * 9 / 10;
        let gap = (cell / 9).max(8);
        let letters = (cell as f32 / 9.0).clamp(14.0, 30.0);
        let (tall, head) = (cell * 3 / 2, (cell / 3).clamp(48, 90));
        let row = tall + gap + (letters * 1.2 * LINES as f32) as usize;
        let (width, height) = (columns * (cell + gap) + gap, head + pictures.div_ceil(columns) * row + gap);
        Self { columns, cell, tall, gap, letters, row, head, width, height }
    }

    fn corner(&self, place: usize) -> (usize, usize) {
        let (column, row) = (place % self.columns, place / self.columns);
        (self.gap + column * (self.cell + self.gap), self.head + row * self.row)
    }
}

/// Draws the sheet with one picture at a time in memory, and returns how many could not be read.
pub(crate) fn draw(
    directory: &Path,
    entries: &[Entry],
    title: &str,
    path: &Path,
    sign: impl Fn(usize),
) -> Result<usize, Failure> {
    let layout = Layout::of(entries.len());
    let size = (layout.width as u32, layout.height as u32);
    let mut sheet = Pixmap::new(size.0, size.1).ok_or_else(|| Failure::Local("the sheet is too large".to_owned()))?;
    sheet.fill(Color::from_rgba8(18, 18, 20, 255));
    let white = Color::from_rgba8(236, 236, 238, 255);
    let grey = Color::from_rgba8(168, 168, 174, 255);
    let (size, baseline) = ((layout.head as f32 * 0.5).min(40.0), layout.head as f32 * 0.68);
    write(&mut sheet, title, (layout.gap as f32, baseline), size, layout.width - 2 * layout.gap, white);
    let mut unreadable = 0;
    for (place, entry) in entries.iter().enumerate() {
        let (left, top) = layout.corner(place);
        match read(&directory.join(&entry.file), layout.cell, layout.tall) {
            Some(picture) => {
                let (aside, below) = ((layout.cell - picture.width) / 2, (layout.tall - picture.height) / 2);
                paste(&mut sheet, &picture, left + aside, top + below);
            }
            None => {
                unreadable += 1;
                frame(&mut sheet, left, top, layout.cell, layout.tall);
            }
        }
        let mut baseline = (top + layout.tall) as f32 + layout.letters * 1.15;
        for line in caption(entry, layout.letters, layout.cell as f32) {
            write(&mut sheet, &line, (left as f32, baseline), layout.letters, layout.cell, grey);
            baseline += layout.letters * 1.15;
        }
        sign(place + 1);
    }
    save(&sheet, path).of_file(path)?;
    Ok(unreadable)
}

/// The title in lines that fit, or the file name if no face has the title's letters.
fn caption(entry: &Entry, letters: f32, width: f32) -> Vec<String> {
    let title = if FACE.covering(&entry.title).is_some() { entry.title.as_str() } else { entry.file.as_str() };
    let Some(face) = FACE.covering(title) else { return Vec::new() };
    let fits = |text: &str| line_of(text, face, letters).advance() <= width;
    let mut lines = wrapped(title, fits);
    let is_cut = lines.len() > LINES;
    lines.truncate(LINES);
    for (place, line) in lines.iter_mut().enumerate() {
        let ending = if is_cut && place + 1 == LINES { "…" } else { "" };
        // A word may be wider than the line, and the ellipsis takes room too.
        while !line.is_empty() && !fits(&format!("{line}{ending}")) {
            line.pop();
        }
        *line = format!("{}{ending}", line.trim_end());
    }
    lines
}

fn line_of(text: &str, face: Face, size: f32) -> Line {
    Line::new(text, Font { face, size, tracking: 0.02 })
}

/// Writes a line, smaller if it would be too wide. A text that no face covers is left out.
fn write(sheet: &mut Pixmap, text: &str, (left, baseline): (f32, f32), size: f32, width: usize, color: Color) {
    let Some(face) = FACE.covering(text) else { return };
    let size = size * (width as f32 / line_of(text, face, size).advance().max(1.0)).min(1.0);
    line_of(text, face, size).draw(&mut sheet.as_mut(), left, baseline, Align::Left, color);
}

fn read(path: &Path, width: usize, height: usize) -> Option<Raster> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(Raster::decode(&bytes).ok()?.scaled(width, height))
}

fn paste(sheet: &mut Pixmap, picture: &Raster, left: usize, top: usize) {
    let width = sheet.width() as usize;
    let pixels = sheet.pixels_mut();
    for (y, row) in picture.pixels.chunks_exact(picture.width * 3).enumerate() {
        let begin = (top + y) * width + left;
        for (to, &[red, green, blue]) in pixels[begin..begin + picture.width].iter_mut().zip(row.as_chunks().0) {
            // An opaque color is the same premultiplied.
            if let Some(color) = PremultipliedColorU8::from_rgba(red, green, blue, 255) {
                *to = color;
            }
        }
    }
}

/// An empty cell, for a picture that cannot be read.
fn frame(sheet: &mut Pixmap, left: usize, top: usize, width: usize, height: usize) {
    let Some(rect) = Rect::from_xywh(left as f32, top as f32, width as f32, height as f32) else { return };
    let mut paint = tiny_skia::Paint::default();
    paint.set_color(Color::from_rgba8(44, 44, 48, 255));
    sheet.fill_rect(rect, &paint, Transform::identity(), None);
}

/// Saves the sheet. The file gets its name once it is complete.
fn save(sheet: &Pixmap, path: &Path) -> std::io::Result<()> {
    let part = path.with_extension("png.part");
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(&part)?), sheet.width(), sheet.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut header = encoder.write_header()?;
    // Row by row, to avoid a second copy of the sheet in memory.
    let mut rows = header.stream_writer()?;
    for row in sheet.pixels().chunks_exact(sheet.width() as usize) {
        let row: Vec<u8> = row.iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
        rows.write_all(&row)?;
    }
    rows.finish()?;
    header.finish()?;
    std::fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(title: &str) -> Entry {
        Entry { file: "000001-a.png".to_owned(), title: title.to_owned(), prompt: String::new(), size: None }
    }

    #[test]
    fn any_number_of_pictures_fits_a_sheet_of_limited_size() {
        for pictures in [1, 2, 3, 12, 50, 399, 400] {
            let layout = Layout::of(pictures);
            assert!(layout.width * layout.height < 24_000_000, "{pictures}: {layout:?}");
            let (left, top) = layout.corner(pictures - 1);
            assert!(left + layout.cell <= layout.width && top + layout.tall <= layout.height, "{pictures}: {layout:?}");
        }
    }

    #[test]
    fn titles_fit_their_cells() {
        let long = "A very long title about a heist on the moon, and what came of it afterwards in the end";
        for title in [long, "Short", "Antidisestablishmentarianism-and-so-on-and-on-and-on-and-on", "七人の侍"] {
            let lines = caption(&entry(title), 14.0, 120.0);
            assert!(!lines.is_empty() && lines.len() <= LINES, "{title}: {lines:?}");
            for line in &lines {
                assert!(line_of(line, FACE, 14.0).advance() <= 120.0, "{line}");
            }
        }
        assert!(caption(&entry(long), 14.0, 120.0)[1].ends_with('…'));
        assert_eq!(caption(&entry("七人の侍"), 14.0, 200.0), ["000001-a.png"]);
    }

    #[test]
    fn a_sheet_counts_the_pictures_that_it_cannot_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut poster = Pixmap::new(20, 30).expect("the size is not zero");
        poster.fill(Color::from_rgba8(200, 0, 0, 255));
        save(&poster, &directory.path().join("000001-a.png")).expect("it is saved");
        let missing = Entry { file: "missing.png".to_owned(), ..entry("Gone") };
        let broken = Entry { file: "broken.png".to_owned(), ..entry("Broken") };
        std::fs::write(directory.path().join("broken.png"), b"\x89PNG\r\n\x1a\nx").expect("it is written");
        let path = directory.path().join("sheet.png");
        let unreadable =
            draw(directory.path(), &[entry("Red"), missing, broken], "Three", &path, |_| {}).expect("it is drawn");
        assert_eq!(unreadable, 2);
        let sheet = read(&path, 10_000, 10_000).expect("it is a picture");
        assert!(sheet.pixels.chunks_exact(3).any(|pixel| pixel == [200, 0, 0]));
    }
}
