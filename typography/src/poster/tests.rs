use super::*;
use crate::color::luminance;

const SHEET: Sheet<'_> =
    Sheet { title: "The Bridge of Sighs", tagline: None, credits: &[], style: Some(Style::Noir), place: None };

fn picture(width: usize, height: usize, pixel: impl Fn(usize, usize) -> Rgb) -> Raster {
    let pixels = (0..width * height).flat_map(|i| pixel(i % width, i / width)).collect();
    Raster { width, height, pixels, notes: Vec::new() }
}

fn white(width: usize, height: usize) -> Raster {
    picture(width, height, |_, _| [255; 3])
}

/// A picture that is hard to write on: bright and dark, large and small shapes, and a dark edge.
fn busy(width: usize, height: usize) -> Raster {
    picture(width, height, |x, y| {
        if x / 37 % 3 == 0 && y / 23 % 2 == 0 {
            [250, 240, 200]
        } else if x < 8 {
            [4, 6, 12]
        } else {
            [(x * 7 + y * 3) as u8, (x * y) as u8 / 2, (x ^ y) as u8]
        }
    })
}

fn pixel(picture: &Raster, x: usize, y: usize) -> Rgb {
    let at = (y * picture.width + x) * 3;
    [picture.pixels[at], picture.pixels[at + 1], picture.pixels[at + 2]]
}

/// The box of all pixels of exactly this color: left, top, right, bottom.
fn ink_box(picture: &Raster, ink: Rgb) -> Option<[usize; 4]> {
    let all = (0..picture.width * picture.height).map(|i| (i % picture.width, i / picture.width));
    let inked = all.filter(|(x, y)| pixel(picture, *x, *y) == ink);
    inked.fold(None, |found, (x, y)| {
        let [left, top, right, bottom] = found.unwrap_or([x, y, x, y]);
        Some([left.min(x), top.min(y), right.max(x), bottom.max(y)])
    })
}

#[test]
fn the_title_stands_out_from_every_pixel_beneath_it_in_every_look_and_shape() {
    let credits = [("directed by", "Ada Marlowe"), ("", "Émile Żuk")];
    for style in Style::ALL {
        for (width, height, place) in [(624, 912, Place::Bottom), (960, 400, Place::Top)] {
            let artwork = busy(width, height);
            let ink = style.design(&Survey::of(&artwork)).inks.title;
            let sheet = Sheet { tagline: Some("Every canal has two sides"), credits: &credits, ..SHEET };
            let sheet = Sheet { style: Some(style), place: Some(place), ..sheet };
            let poster = typeset(artwork, &sheet).expect("it is set");
            let shown = format!("{style:?} {place:?} {width} by {height}: {}", poster.contrast);
            assert!(poster.contrast >= TITLE_CONTRAST, "{shown}");
            assert_eq!((poster.style, poster.place), (style, place));
            assert_eq!((poster.picture.width, poster.picture.height), (width, height));

            let picture = &poster.picture;
            let [left, top, right, bottom] = ink_box(picture, ink).expect("the title is there");
            assert!(left > 4 && right < width - 4 && top > 2 && bottom < height - 2, "{shown}: it has margins");
            // What is not within four pixels of something bright, which can only be a letter, lies beneath the title.
            let bright = |x, y| contrast(luminance(ink), luminance(pixel(picture, x, y))) < 3.0;
            let near = |x: usize, y: usize| {
                let columns = x.saturating_sub(4)..=(x + 4).min(width - 1);
                columns.into_iter().any(|x| (y.saturating_sub(4)..=(y + 4).min(height - 1)).any(|y| bright(x, y)))
            };
            let mut looked_at = 0;
            for (x, y) in (top..=bottom).flat_map(|y| (left..=right).map(move |x| (x, y))) {
                if !near(x, y) {
                    let measured = contrast(luminance(ink), luminance(pixel(picture, x, y)));
                    assert!(measured >= TITLE_CONTRAST, "{shown}: {measured} at {x} {y}");
                    looked_at += 1;
                }
            }
            assert!(looked_at > 20, "{shown}: {looked_at} pixels between the letters");
        }
    }
}

#[test]
fn the_measured_contrast_is_that_of_the_pixels() {
    // On a picture of one color each row of the scrim is of one color, which its first pixel shows.
    for color in [[255; 3], [230, 200, 120], [90, 140, 220], [2, 2, 4]] {
        let artwork = picture(208, 304, |_, _| color);
        let ink = Style::Noir.design(&Survey::of(&artwork)).inks.title;
        let poster = typeset(artwork, &SHEET).expect("it is set");
        // The scrim of a bright picture passes through the title's own color where it fades out.
        let mut picture = poster.picture;
        let fading = (0..304).filter(|y| pixel(&picture, 0, *y) == ink).collect::<Vec<_>>();
        for y in fading {
            picture.pixels[y * 208 * 3..(y + 1) * 208 * 3].fill(0);
        }
        let [_, top, _, bottom] = ink_box(&picture, ink).expect("the title is there");
        let brightest = (top..=bottom).map(|y| luminance(pixel(&picture, 0, y))).fold(0.0, f32::max);
        let measured = contrast(luminance(ink), brightest);
        assert!((measured - poster.contrast).abs() < 0.001, "{measured} and {}", poster.contrast);
    }
}

#[test]
fn a_scrim_is_only_as_strong_as_the_contrast_needs() {
    let poster = typeset(white(208, 304), &SHEET).expect("it is set");
    assert!((TITLE_CONTRAST..TITLE_CONTRAST + 0.3).contains(&poster.contrast), "{}", poster.contrast);

    let night = picture(208, 304, |_, y| [6, 8, (y / 16) as u8]);
    let poster = typeset(night.clone(), &SHEET).expect("it is set");
    assert!(poster.contrast > 15.0);
    let edge = |picture: &Raster| (0..304).map(|y| pixel(picture, 1, y)).collect::<Vec<_>>();
    assert_eq!(edge(&poster.picture), edge(&night), "what is dark enough is left alone");
    let corner = Rect::from_xywh(0.0, 0.0, 1.0, 1.0).expect("a box");
    assert_eq!(needed(&night, corner, 0.5, [0; 3], &Light::new()), 0);

    // The strength found is enough, and one less is not.
    let (light, busy, area) = (Light::new(), busy(64, 64), Rect::from_xywh(3.0, 4.0, 50.0, 40.0).expect("a box"));
    let (limit, dark) = (0.09, [5, 8, 20]);
    let strength = needed(&busy, area, limit, dark, &light);
    let brightest = |strength| {
        let veil = |rgb: Rgb| [0, 1, 2].map(|channel| veiled(rgb[channel], dark[channel], strength));
        pixels_in(&busy, area).map(|rgb| light.luminance(veil(rgb))).fold(0.0, f32::max)
    };
    assert!(brightest(strength) <= limit && brightest(strength - 1) > limit, "{strength}");
}

#[test]
fn a_title_stands_where_the_picture_is_calm() {
    let half = |busy_top: bool| {
        picture(208, 304, move |x, y| {
            let calm = [60, 60, 70];
            if (y < 152) != busy_top { calm } else { [calm, [200, 180, 150]][(x / 9 + y / 9) % 2] }
        })
    };
    for (busy_top, place) in [(true, Place::Bottom), (false, Place::Top)] {
        assert_eq!(typeset(half(busy_top), &SHEET).expect("it is set").place, place);
    }
    // Where both are alike it stands where titles are used to stand.
    assert_eq!(typeset(white(208, 304), &SHEET).expect("it is set").place, Place::Bottom);
}

#[test]
fn colors_and_looks_are_taken_from_the_picture() {
    let ink = |rgb: Rgb| Style::Epic.design(&Survey::of(&picture(96, 144, |_, _| rgb))).inks.title;
    let ([warm, .., dim], [cold, .., bright]) = (ink([200, 80, 20]), ink([30, 90, 200]));
    assert!(warm > dim && bright > cold, "the title takes the picture's hue");
    let style = |rgb: Rgb| Style::of(&Survey::of(&picture(96, 144, |_, _| rgb)));
    assert_eq!([[40; 3], [200, 110, 20], [30, 90, 200]].map(style), [Style::Noir, Style::Epic, Style::Modern]);
}

#[test]
fn what_no_face_has_is_named_and_never_drawn_as_a_box() {
    let set = |title, tagline, credits| typeset(white(96, 144), &Sheet { title, tagline, credits, ..SHEET }).err();
    assert_eq!(set("Seven 侍", None, &[]), Some(NotSet::NoFace('侍')));
    assert_eq!(set("Seven", Some("💥"), &[]), Some(NotSet::NoFace('💥')));
    assert_eq!(set("Seven", None, &[("роль", "ไทย")]), Some(NotSet::NoFace('ไ')));
    assert_eq!(set("Сад камней — Łódź №7", Some("Cafe\u{301} ŉ ß ẞ ﬁ"), &[("", "Ünïcödé")]), None);
}

#[test]
fn every_covered_character_has_a_glyph_in_every_setting() {
    let all: String = (' '..=char::MAX).filter(|c| covers(*c)).collect();
    assert!(all.chars().count() > 600);
    for style in Style::ALL {
        let design = style.design(&Survey::of(&white(8, 8)));
        for setting in [design.title, design.tagline] {
            for c in all.chars() {
                let (text, font) = set_in(&format!("A{c}a"), setting, 10.0);
                assert_eq!(font.face.missing(&text), None, "{style:?} U+{:04X}", u32::from(c));
            }
        }
    }
    for c in all.chars() {
        let upper = format!("A{c}").to_uppercase();
        assert!(Face::LeagueGothic.covering(&upper).is_some(), "U+{:04X} in a billing block", u32::from(c));
    }
}

#[test]
fn a_title_without_ink_and_a_picture_without_room_are_told() {
    let invisible = Sheet { title: "\u{ad}", ..SHEET };
    assert_eq!(typeset(white(96, 144), &invisible).err(), Some(NotSet::NoTitle));
    let credits = [("directed by", "Ada Marlowe"); 16];
    for (width, height) in [(1, 1), (2, 900), (900, 2), (16, 16), (40, 60)] {
        for style in Style::ALL {
            let sheet = Sheet { style: Some(style), tagline: Some("Go"), credits: &credits, ..SHEET };
            if let Ok(poster) = typeset(white(width, height), &sheet) {
                assert_eq!(poster.picture.pixels.len(), width * height * 3);
            }
        }
    }
}

#[test]
fn many_names_take_no_more_room_than_a_seventh() {
    let credits = [("executive producer of", "Maximiliane Freifrau von Hohenstein-Wertheim"); 16];
    let block = fitted_billing(&credits, 1000.0, 700.0, Align::Center);
    assert!(block.height <= 140.0 && block.width <= 700.0, "{block:?}");
}

#[test]
fn a_title_too_long_to_be_read_is_told() {
    let legible = |title: &str, style| {
        let sheet = Sheet { title, style: Some(style), ..SHEET };
        typeset(white(416, 608), &sheet).expect("it is set").legible
    };
    let long = "Spider-Man and the Extraordinary Well-Behaved Cat of Rome";
    assert!(legible(long, Style::Noir) && !legible(long, Style::Scifi), "it depends on the width of the face");
    for style in Style::ALL {
        assert!(legible("The Bridge of Sighs", style), "{style:?}");
        assert!(!legible(&"W".repeat(80), style), "{style:?}");
    }
}

/// A portrait, and the box of its face: left, top, right, bottom.
fn portrait() -> (Raster, [usize; 4]) {
    (Raster::decode(include_bytes!("../../pictures/astronaut.jpg")).expect("a picture"), [72, 37, 126, 103])
}

#[test]
fn title_and_tagline_stand_on_no_face_wherever_they_are_asked_for() {
    let credits = [("directed by", "Ada Marlowe")];
    for style in Style::ALL {
        for (place, credits) in [(None, &credits[..]), (Some(Place::Top), &credits), (Some(Place::Bottom), &[])] {
            let (artwork, [left, top, right, bottom]) = portrait();
            let sheet = Sheet { tagline: Some("She never came down"), credits, style: Some(style), place, ..SHEET };
            let poster = typeset(artwork.clone(), &sheet).expect("it is set");
            assert!(poster.contrast >= TITLE_CONTRAST && poster.legible, "{style:?} {place:?}");
            // A scrim may darken a face a little where it fades out. Letters would be brighter.
            for (x, y) in (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y))) {
                let (before, after) = (pixel(&artwork, x, y), pixel(&poster.picture, x, y));
                let brighter = before.iter().zip(after).any(|(before, after)| after > *before);
                assert!(!brighter, "{style:?} {place:?}: ink at {x} {y}");
            }
        }
    }
}

#[test]
fn where_all_is_face_the_eyes_at_least_are_seen() {
    let (artwork, [left, top, right, bottom]) = portrait();
    let rows = artwork.pixels.chunks_exact(artwork.width * 3).skip(top).take(bottom - top);
    let pixels: Vec<u8> = rows.flat_map(|row| row[left * 3..right * 3].iter().copied()).collect();
    let face = Raster { width: right - left, height: bottom - top, pixels, notes: Vec::new() };
    let eyes = heads(&face).first().expect("it is a face").eyes;
    for place in [None, Some(Place::Top), Some(Place::Bottom)] {
        let poster = typeset(face.clone(), &Sheet { place, ..SHEET }).expect("it is set");
        let rows = eyes.top().max(0.0) as usize..eyes.bottom() as usize;
        for (x, y) in rows.flat_map(|y| (0..face.width).map(move |x| (x, y))) {
            let (before, after) = (pixel(&face, x, y), pixel(&poster.picture, x, y));
            assert!(after[0] <= before[0], "{place:?}: ink at {x} {y}");
        }
    }
}
