use super::*;
use crate::vocabulary::{Layer, VOCABULARY};

fn order(prompt: &str, seed: u32, width: u32, height: u32) -> Order<'_> {
    Order { prompt, negative_prompt: "", seed, width, height }
}

#[test]
fn the_same_order_gives_the_same_bytes() {
    for format in [Format::Png, Format::Jpeg, Format::Webp] {
        let bytes = |seed| paint(&order("a samurai at dawn", seed, 200, 300), format);
        assert_eq!(bytes(1), bytes(1), "{format:?}");
        assert_ne!(bytes(1), bytes(2), "{format:?}");
    }
}

#[test]
fn every_picture_has_its_size_and_says_how_it_was_made() {
    for (width, height) in [(1344, 768), (1024, 1024), (832, 1216), (640, 1536)] {
        let file = paint(&order("noir detective in Venice", 7, width, height), Format::Png);
        assert!(file.len() < 2_500_000, "{} bytes", file.len());
        let picture = Raster::decode(&file).expect("a PNG");
        assert_eq!((picture.width, picture.height), (width as usize, height as usize));
        assert!(picture.notes.contains(&("Comment".to_owned(), DISCLOSURE.to_owned())));
    }
    for format in [Format::Jpeg, Format::Webp] {
        let picture = Raster::decode(&paint(&order("a western", 7, 320, 200), format)).expect("a picture");
        assert_eq!((picture.width, picture.height), (320, 200));
    }
}

#[test]
fn no_order_is_too_odd() {
    let long = "word ".repeat(2_000);
    let odd = ["", " \n\t", "🎬🍿👩‍🚀", "?!.,;:", "\"\"", "« »", "the of in", "\u{0}\u{202E}", "İIıi ßẞ", &long];
    let places = VOCABULARY.places.iter().map(|row| row.0.as_str());
    let sizes = [(64, 64), (64, 200), (200, 64), (0, 1), (1, 1), (3, 500), (500, 3)];
    for (i, prompt) in odd.into_iter().chain(places).enumerate() {
        let (width, height) = sizes[i % sizes.len()];
        paint(&order(prompt, i as u32, width, height), Format::Png);
    }
    paint(&order("a western", u32::MAX, 5_000, 64), Format::Jpeg);
    paint(&Order { negative_prompt: "people, text", ..order("noir", 0, 64, 64) }, Format::Png);
}

#[test]
fn the_vocabulary_names_drawings_looks_and_colors_that_are_there() {
    let known = &*VOCABULARY;
    let standing = known.places.iter().flat_map(|row| &row.1).filter_map(|layer| match layer {
        Layer::Ridges(_, names, ..) | Layer::Stand(names, ..) => Some(names),
        _ => None,
    });
    let landmarks = known.landmarks.iter().map(|row| &row.1.0);
    let others = known.heroes.iter().map(|row| &row.1).chain(known.weathers.iter().map(|row| &row.1.0));
    for names in standing.chain(landmarks).chain(others) {
        for name in names.split([' ', '|']).filter(|name| !["", "+"].contains(name)) {
            let parts: Vec<_> = drawing::parts(name).collect();
            assert!(!parts.is_empty(), "{name}");
            assert!(parts.iter().all(|part| drawing::trace(part.2, |x, y| (x, y)).is_some()), "{name}");
        }
    }
    let washes = known.times.iter().chain(&known.tints).map(|row| &row.1.0);
    for color in washes.chain(known.lights.iter().map(|row| &row.1)) {
        canvas::rgb(color);
    }
    for (_, genre) in &known.genres {
        genre.skies.iter().flatten().for_each(|color| assert!(canvas::rgb(color)[0] <= 1.0));
        assert!(Style::ALL.iter().any(|look| format!("{look:?}") == genre.look), "{}", genre.look);
    }
}

#[test]
fn titles_are_made_of_the_prompt() {
    let title = |prompt: &str| Brief::read(&order(prompt, 1, 64, 64)).title;
    assert_eq!(title("A movie poster titled The Long Way Home, drama"), "The Long Way Home");
    assert_eq!(title("a film called “Sea of Ash” with dragons"), "Sea of Ash");
    assert_eq!(title("Poster.\nTitle: Été Noir\nGenre: drama"), "Été Noir");
    assert_eq!(title("A drama called The Long Night about a nurse"), "The Long Night");
    assert_eq!(title("A haunted orphanage, horror film"), "The haunted orphanage");
    assert_eq!(title("Noir detective in 1940s Venice"), "Detective in 1940s Venice");
    assert_eq!(title("a gunslinger faces the last sheriff"), "The gunslinger");
    assert_eq!(title("七人の侍が村を守る"), "The samurai");
    assert_eq!(title("Ночь над Невой"), "Ночь над Невой");
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let brief =
        |negative_prompt| Brief::read(&Order { negative_prompt, ..order("a noir with a lighthouse", 1, 64, 64) });
    assert!(brief("").lettered && !brief("").cast.is_empty());
    assert!(!brief("text, lettering, title, watermark").lettered);
    assert!(brief("people").cast.is_empty());
    assert_ne!(brief("lighthouse").landmarks.first().map(|row| &row.0), brief("").landmarks.first().map(|row| &row.0));
}
