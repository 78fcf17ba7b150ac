use shared::aws::File;
use shared::image::ImageFacts;
use shared::order::{Order, OutputFormat};
use shared::poster::{Contrast, Credit, Lettering, Placement, Poster, Style as StyleChoice, Words};
use tokio::task::JoinError;
use typography::{Format, NotSet, Place, Raster, Sheet, Style, Unreadable};

use crate::drawing::Drawing;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    #[error("the picture cannot be read or written: {0}")]
    Picture(#[from] Unreadable),
    #[error(transparent)]
    Lettering(#[from] NotSet),
    #[error("it panicked: {0}")]
    BrokeOff(#[from] JoinError),
}

pub(crate) async fn typeset(
    drawing: &Drawing,
    order: &Order,
    poster: &Poster,
    artwork: File,
) -> Result<File, SetError> {
    let (style, format) = (choose_style(order, poster), order.output_format);
    let poster = poster.clone();
    drawing.run(move || set(&poster, style, format, &artwork)).await?
}

fn set(poster: &Poster, style: Option<Style>, format: OutputFormat, artwork: &File) -> Result<File, SetError> {
    let role = |credit: &Credit| credit.role.clone().map_or_else(String::new, String::from);
    let credits: Vec<_> = poster.credits.iter().map(|credit| (role(credit), credit.name.as_str())).collect();
    let credits: Vec<_> = credits.iter().map(|(role, name)| (role.as_str(), *name)).collect();
    let sheet = Sheet {
        title: poster.title.as_str(),
        tagline: poster.tagline.as_ref().map(Words::as_str),
        credits: &credits,
        style,
        place: match poster.placement {
            Placement::Auto => None,
            Placement::Top => Some(Place::Top),
            Placement::Bottom => Some(Place::Bottom),
        },
    };
    let set = typography::typeset(Raster::decode(&artwork.bytes)?, &sheet)?;
    let lettering = Lettering {
        style: style_choice(set.style),
        placement: match set.place {
            Place::Top => Placement::Top,
            Place::Bottom => Placement::Bottom,
        },
        contrast: Contrast::from(f64::from(set.contrast)),
        legible: Some(set.legible),
    };
    let bytes = set.picture.encode(match format {
        OutputFormat::Png => Format::Png,
        OutputFormat::Jpeg => Format::Jpeg,
        OutputFormat::Webp => Format::Webp,
    })?;
    let facts = ImageFacts { format, bytes: bytes.len() as u64, lettering: Some(lettering), ..artwork.facts };
    Ok(File { facts, bytes: bytes.into() })
}

/// The requested style, or the one that fits the prompt; `None` lets the picture decide.
fn choose_style(order: &Order, poster: &Poster) -> Option<Style> {
    match poster.style {
        StyleChoice::Auto => style_of_genre(order.prompt.as_str()),
        StyleChoice::Noir => Some(Style::Noir),
        StyleChoice::Epic => Some(Style::Epic),
        StyleChoice::Modern => Some(Style::Modern),
        StyleChoice::Retro => Some(Style::Retro),
        StyleChoice::Scifi => Some(Style::Scifi),
        StyleChoice::Romance => Some(Style::Romance),
    }
}

fn style_choice(style: Style) -> StyleChoice {
    match style {
        Style::Noir => StyleChoice::Noir,
        Style::Epic => StyleChoice::Epic,
        Style::Modern => StyleChoice::Modern,
        Style::Retro => StyleChoice::Retro,
        Style::Scifi => StyleChoice::Scifi,
        Style::Romance => StyleChoice::Romance,
    }
}

/// Beginnings of words, in several languages, that suggest a style. In a tie, the first wins.
#[rustfmt::skip]
const GENRES: [(Style, &[&str]); 5] = [
    (Style::Noir, &[
        "noir", "detecti", "detekti", "détecti", "crim", "krimi", "murder", "mord", "thriller", "gangster", "mafia",
        "heist", "детектив", "убийств",
    ]),
    (Style::Scifi, &[
        "scifi", "science", "space", "astronaut", "cosmonaut", "robot", "android", "cyber", "alien", "galax", "futur",
        "planet", "weltraum", "espac", "космос", "космич",
    ]),
    (Style::Romance, &[
        "roman", "love", "liebe", "amour", "amor", "amore", "любов", "wedding", "hochzeit", "mariage", "kiss", "heart",
    ]),
    (Style::Retro, &[
        "retro", "rétro", "vintage", "western", "cowboy", "1950s", "1960s", "1970s", "grindhouse", "diner", "surf",
    ]),
    (Style::Epic, &[
        "epic", "épique", "épica", "fantas", "kingdom", "königreich", "royaume", "empire", "knight", "dragon", "sword",
        "warrior", "battle", "viking", "samurai", "ancient", "legend", "saga", "эпич", "легенд",
    ]),
];

fn style_of_genre(prompt: &str) -> Option<Style> {
    let prompt = prompt.to_lowercase().replace('-', "");
    let words: Vec<&str> = prompt.split(|c: char| !c.is_alphanumeric()).collect();
    let speaks = |beginnings: &[&str]| {
        words.iter().filter(|word| beginnings.iter().any(|beginning| word.starts_with(beginning))).count()
    };
    let counted = GENRES.iter().rev().map(|(style, beginnings)| (speaks(beginnings), *style));
    counted.filter(|(count, _)| *count > 0).max_by_key(|(count, _)| *count).map(|(_, style)| style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::order::Model;

    #[test]
    fn the_prompt_chooses_the_look_where_nobody_else_does() {
        for (prompt, style) in [
            ("A noir detective thriller in 1940s Venice", Some(Style::Noir)),
            ("A science fiction epic on Mars", Some(Style::Scifi)),
            ("Un film d'amour à Paris", Some(Style::Romance)),
            ("любовь в большом городе", Some(Style::Romance)),
            ("A Western about three cowboys", Some(Style::Retro)),
            ("Samurai in the rain", Some(Style::Epic)),
            ("A sci-fi love story between robots", Some(Style::Scifi)),
            ("A lighthouse keeper's last winter", None),
            ("", None),
        ] {
            assert_eq!(style_of_genre(prompt), style, "{prompt}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_set() {
        let mut pixels = vec![200; 96 * 144 * 3];
        pixels[..96 * 3].fill(20);
        let artwork = Raster { width: 96, height: 144, pixels, notes: Vec::new() };
        let bytes = artwork.encode(Format::Png).expect("it fits");
        for (style, placement, format) in [
            ("retro", "top", OutputFormat::Jpeg),
            ("auto", "bottom", OutputFormat::Png),
            ("epic", "auto", OutputFormat::Webp),
        ] {
            let order = json!({
                "prompt": "A noir", "output_format": format, "model": "stability.sd3-5-large-v1:0",
                "poster": { "title": "Go", "style": style, "placement": placement, "credits": [{ "name": "A" }] }
            });
            let order = Order::parse(order, "", Model::Core).expect("a good order");
            let poster = order.poster.clone().expect("lettering");
            let facts = ImageFacts {
                format: OutputFormat::Png,
                bytes: 1,
                width: 96,
                height: 144,
                seed: Some(7),
                lettering: None,
            };
            let file = File { facts, bytes: bytes.clone().into() };
            let set = set(&poster, choose_style(&order, &poster), format, &file).expect("it is set");
            let lettering = set.facts.lettering.expect("it was set");
            assert_eq!(lettering.style.as_str(), if style == "auto" { "noir" } else { style });
            assert!(
                lettering.placement != Placement::Auto
                    && (placement == "auto" || lettering.placement.as_str() == placement)
            );
            assert!(f64::from(lettering.contrast) >= 7.0);
            assert_eq!(OutputFormat::sniff(&set.bytes), Some(format));
            assert_eq!((set.facts.width, set.facts.height, set.facts.seed), (96, 144, Some(7)));
            assert_eq!(set.facts.bytes, set.bytes.len() as u64);
        }
    }

    #[test]
    fn a_damaged_picture_is_an_error() {
        let order = json!({ "prompt": "x", "poster": { "title": "Go" } });
        let order = Order::parse(order, "", Model::Core).expect("a good order");
        let poster = order.poster.clone().expect("lettering");
        let facts =
            ImageFacts { format: OutputFormat::Png, bytes: 1, width: 1, height: 1, seed: None, lettering: None };
        let file = File { facts, bytes: b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice().into() };
        assert!(matches!(set(&poster, None, OutputFormat::Png, &file), Err(SetError::Picture(_))));
    }
}
