//! What the words of a prompt mean to the painter: `vocabulary.json`.

use std::sync::LazyLock;

use serde::Deserialize;

/// Terms, separated by commas, and what they mean. A term also matches its plural in -s. The name of a genre among the terms
/// makes the row that genre's default. Of rows that match equally well, the first wins.
pub(crate) type Row<T> = (String, T);

#[derive(Deserialize)]
pub(crate) struct Vocabulary {
    /// The last one is the default.
    pub(crate) genres: Vec<Row<Genre>>,
    /// Settings, as layers from the back to the front.
    pub(crate) places: Vec<Row<Vec<Layer>>>,
    /// Drawings behind the hero, each with its distance to the side and its height, in heights of the hero.
    pub(crate) landmarks: Vec<Row<(String, f32, f32)>>,
    /// The people in front: drawings on top of each other. A plus sign begins another person.
    pub(crate) heroes: Vec<Row<String>>,
    /// Times of day and what they do to the colors. The first is the night.
    pub(crate) times: Vec<Row<Wash>>,
    pub(crate) tints: Vec<Row<Wash>>,
    pub(crate) lights: Vec<Row<String>>,
    /// What falls or drifts through the air: a drawing, and how often it appears.
    pub(crate) weathers: Vec<Row<(String, usize)>>,
    /// Taglines in other languages, by words that reveal the language.
    pub(crate) taglines: Vec<Row<String>>,
    /// Words at which a title made from the prompt ends, because they describe the poster or end a phrase.
    pub(crate) breaks: String,
    /// Words that a title may have only in the middle, and those of them that may also begin it.
    pub(crate) links: String,
    pub(crate) articles: String,
}

/// A color over the sky, its strength at the zenith, in the middle and at the horizon, and the remaining share of the light.
pub(crate) type Wash = (String, [f32; 3], f32);

#[derive(Deserialize)]
pub(crate) struct Genre {
    pub(crate) name: String,
    /// A [`typography::Style`] by its name.
    pub(crate) look: String,
    pub(crate) disc: Disc,
    pub(crate) taglines: Vec<String>,
    /// The colors of the zenith, the middle of the sky, the horizon, the light and the ground.
    pub(crate) skies: Vec<[String; 5]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Disc {
    /// A moon: it is night, unless the prompt names another time.
    Moon,
    Sun,
    /// A sun cut by stripes, in rings of light.
    Rings,
    /// A sun of ink laid on with a dry brush.
    Ink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    Flat,
    Rolling,
    Jagged,
    Mesa,
}

/// Depth 0 is the horizon, and 1 is the ground on which the hero stands. Lengths are in heights of the hero.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// The sun or moon at a height, between clouds.
    Sun(f32),
    /// Ridges at these depths, each with a row of drawings, chosen from names separated by bars. If the last number is 1, the
    /// row leaves a gap at the focus.
    Ridges(Profile, String, Vec<f32>, f32),
    Landmarks(f32),
    /// A drawing at a distance beside the hero, at a depth.
    Stand(String, f32, f32),
    /// Water from a depth down, which mirrors the picture above it.
    Water(f32),
    Hero,
}

pub(crate) static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| serde_json::from_str(include_str!("vocabulary.json")).expect("the vocabulary is sound"));
