use super::*;
use typography::Face;

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
fn every_ratio_has_its_size_and_says_how_it_was_made() {
    const SIZES: [(u32, u32); 9] = [
        (1536, 640),
        (1344, 768),
        (1216, 832),
        (1088, 896),
        (1024, 1024),
        (896, 1088),
        (832, 1216),
        (768, 1344),
        (640, 1536),
    ];
    for (width, height) in SIZES {
        let file = paint(&order("noir detective in Venice", 7, width, height), Format::Png);
        assert!(file.len() < 2_500_000, "{} bytes", file.len());
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
        let frame = reader.next_frame(&mut pixels).expect("a whole picture");
        assert_eq!((frame.width, frame.height, frame.buffer_size()), (width, height, (width * height * 3) as usize));
        let texts = &reader.info().uncompressed_latin1_text;
        assert!(texts.iter().any(|chunk| chunk.keyword == "Comment" && chunk.text == DISCLOSURE));
        assert!(texts.iter().any(|chunk| chunk.keyword == "Software"));
    }
}

#[test]
fn jpeg_and_webp_have_their_size() {
    let jpeg = paint(&order("a western", 7, 320, 200), Format::Jpeg);
    assert!(jpeg.starts_with(&[0xFF, 0xD8, 0xFF, 0xFE]) && jpeg.ends_with(&[0xFF, 0xD9]));
    assert!(jpeg.windows(DISCLOSURE.len()).any(|bytes| bytes == DISCLOSURE.as_bytes()));
    assert!(jpeg.windows(9).any(|bytes| bytes == [0xFF, 0xC0, 0, 17, 8, 0, 200, 1, 64]), "a frame of 200 by 320");
    let webp = paint(&order("a western", 7, 320, 200), Format::Webp);
    let decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(webp)).expect("a WebP");
    assert_eq!(decoder.dimensions(), (320, 200));
}

#[test]
fn no_order_is_too_odd() {
    let long = "word ".repeat(2_000);
    let odd = [
        "",
        " ",
        "\n\t",
        "🎬🍿👩‍🚀",
        "侍",
        "?!.,;:",
        "\"",
        "\"\"",
        "« »",
        "a",
        "the of in",
        "\u{0}\u{202E}",
        "İIıi ßẞ",
        &long,
    ];
    let places = [
        "canal",
        "street",
        "neon city cyberpunk",
        "bakery",
        "haunted orphanage child",
        "forest in snow",
        "western desert",
        "egypt desert",
        "samurai mountain",
        "castle fantasy",
        "mars",
        "lighthouse",
        "pirate ship",
        "whale underwater",
        "submarine",
    ];
    let sizes = [(64, 64), (64, 200), (200, 64), (97, 131), (0, 1), (1, 1), (3, 500), (500, 3)];
    for (i, prompt) in odd.iter().chain(&places).enumerate() {
        for (j, (width, height)) in sizes.into_iter().enumerate() {
            paint(&order(prompt, (i * 31 + j) as u32, width, height), Format::Png);
        }
    }
    paint(&order("a western", u32::MAX, 5_000, 64), Format::Jpeg);
    paint(&order("noir in Venice", 7, 2_048, 2_048), Format::Jpeg);
    paint(&Order { negative_prompt: "people, text", ..order("noir", 0, 64, 64) }, Format::Png);
}

#[test]
fn titles_are_made_of_the_prompt() {
    let title = |prompt: &str| Brief::read(&order(prompt, 1, 64, 64)).title;
    assert_eq!(title("A movie poster titled The Long Way Home, drama"), "THE LONG WAY HOME");
    assert_eq!(title("a film called “Sea of Ash” with dragons"), "SEA OF ASH");
    assert_eq!(title("Poster.\nTitle: Été Noir\nGenre: drama"), "ÉTÉ NOIR");
    assert_eq!(title("A drama called The Long Night about a nurse"), "THE LONG NIGHT");
    assert_eq!(title("an untitled spy thriller"), "THE UNTITLED SPY");
    assert_eq!(title("A haunted orphanage, horror film"), "THE HAUNTED ORPHANAGE");
    assert_eq!(title("Noir detective in 1940s Venice"), "DETECTIVE IN 1940s VENICE");
    assert_eq!(title("a gunslinger faces the last sheriff"), "THE GUNSLINGER");
    assert_eq!(title("七人の侍が村を守る"), "SAMURAI");
    assert_eq!(title("🎬"), "UNTITLED");
}

#[test]
fn no_title_has_a_missing_glyph() {
    let prompts = [
        "Une forêt enchantée où l'été ne finit jamais",
        "Ein Käfer träumt von Größe",
        "El niño y el corazón perdido",
        "Şişli'de bir yağmur gecesi",
        "Żółta łódź na jeziorze",
        "Příběh o ztraceném městě",
        "Ночь над Невой",
        "東京の夜",
        "مدينة الليل",
        "\"गंगा\" drama",
        "ความรัก",
        "Τα παιδιά",
    ];
    for prompt in prompts {
        let brief = Brief::read(&order(prompt, 3, 64, 64));
        let face = brief.mood.face.covering(&brief.title).unwrap_or(Face::BebasNeue);
        assert_eq!(face.missing(&brief.title), None, "{}", brief.title);
        assert_eq!(Face::LeagueGothic.missing(&brief.tagline.to_uppercase()), None, "{}", brief.tagline);
    }
}
