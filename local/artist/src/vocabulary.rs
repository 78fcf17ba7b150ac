//! What the words of a prompt mean to the painter: `vocabulary.json`.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::land::Profile;
use crate::sky::Disc;

/// Terms with commas between them, and what they mean. Plurals in -s are found as well. The name of a genre among the
/// terms makes the row the usual choice of that genre. Of rows that fit equally well the first wins.
pub(crate) type Row<T> = (String, T);

#[derive(Deserialize)]
pub(crate) struct Vocabulary {
    /// The last is for prompts that name no genre.
    pub(crate) genres: Vec<Row<Genre>>,
    /// Settings, as layers from the back to the front.
    pub(crate) places: Vec<Row<Vec<Layer>>>,
    /// What to see beyond the hero: a drawing, and how far aside and how high up it is, in heights of the hero.
    pub(crate) landmarks: Vec<Row<(String, f32, f32)>>,
    /// Who stands in front: drawings to lay over each other. A plus sign begins another person.
    pub(crate) heroes: Vec<Row<String>>,
    /// Times of day, of which the first is the night, and what they do to the colors.
    pub(crate) times: Vec<Row<Wash>>,
    pub(crate) tints: Vec<Row<Wash>>,
    /// Colors of the sun or moon.
    pub(crate) lights: Vec<Row<String>>,
    /// What falls or drifts through the air: a drawing, and how many of it.
    pub(crate) weathers: Vec<Row<(String, usize)>>,
    /// Taglines in other languages, after words that give the language away.
    pub(crate) taglines: Vec<Row<String>>,
    /// Words that no title has unless it is given as one, for they speak of the poster or end a phrase.
    pub(crate) breaks: String,
    /// Words that may stand in the middle of a title only, and those among them that may also begin one.
    pub(crate) links: String,
    pub(crate) articles: String,
}

/// A color to lay over the sky: how much of it from the zenith to the horizon, and what is left of the light.
pub(crate) type Wash = (String, [f32; 3], f32);

#[derive(Deserialize)]
pub(crate) struct Genre {
    pub(crate) name: String,
    /// The name of the [`typography::Style`] that its words are set in.
    pub(crate) look: String,
    pub(crate) disc: Disc,
    pub(crate) taglines: Vec<String>,
    /// Colors from the zenith over the middle of the sky to the horizon, then of the light, then of the ground.
    pub(crate) skies: Vec<[String; 5]>,
}

/// A part of a picture. Depths are from 0, the horizon, to 1, the ground that the hero stands on, and below it. Lengths
/// are in heights of the hero.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// The sun or moon at a height, between clouds.
    Sun(f32),
    /// Ridges at these depths, each with a row of drawings on it, chosen from names between bars. Where the last number is
    /// one and not zero, the row leaves the view at the focus open.
    Ridges(Profile, String, Vec<f32>, f32),
    /// What the prompt wants to see beyond the hero, at a depth.
    Landmarks(f32),
    /// A drawing so far beside the hero, at a depth.
    Stand(String, f32, f32),
    /// Water from a depth down, which mirrors what has been painted above.
    Water(f32),
    /// The people in front.
    Hero,
}

pub(crate) static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| serde_json::from_str(include_str!("vocabulary.json")).expect("the vocabulary is sound"));
