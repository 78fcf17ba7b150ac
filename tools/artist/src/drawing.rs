//! The drawings of which pictures are made: `drawings.svg`, which any browser shows.

use std::collections::HashMap;
use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder};

/// A path's class, which says how it is painted, its own color if it has one, and its data.
pub(crate) type Part = (&'static str, Option<&'static str>, &'static str);

static DRAWINGS: LazyLock<HashMap<&str, Vec<Part>>> = LazyLock::new(|| {
    let attribute = |text: &'static str, name| text.split_once(name)?.1.split('"').next();
    let part = |line| Some((attribute(line, "class=\"")?, attribute(line, "fill=\""), attribute(line, " d=\"")?));
    let groups = include_str!("drawings.svg").split("<g ").skip(1);
    groups.filter_map(|group| Some((attribute(group, "id=\"")?, group.lines().filter_map(part).collect()))).collect()
});

/// The parts of the named drawings, from back to front.
pub(crate) fn parts(names: &str) -> impl Iterator<Item = &'static Part> {
    names.split(' ').filter_map(|name| DRAWINGS.get(name)).flatten()
}

pub(crate) fn trace(data: &str, place: impl Fn(f32, f32) -> (f32, f32)) -> Option<Path> {
    let (mut path, mut command, mut points, mut first) = (PathBuilder::new(), "", Vec::new(), None);
    for token in data.split(' ') {
        match (token.parse::<f32>(), first.take()) {
            (Ok(y), Some(x)) => points.push(place(x, y)),
            (Ok(x), None) => first = Some(x),
            (Err(_), _) => command = token,
        }
        match (command, points.as_slice()) {
            ("M", &[(x, y)]) => path.move_to(x, y),
            ("L", &[(x, y)]) => path.line_to(x, y),
            ("Q", &[(ax, ay), (x, y)]) => path.quad_to(ax, ay, x, y),
            ("C", &[(ax, ay), (bx, by), (x, y)]) => path.cubic_to(ax, ay, bx, by, x, y),
            ("Z", []) => path.close(),
            _ => continue,
        }
        points.clear();
    }
    path.finish()
}
