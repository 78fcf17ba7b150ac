//! People, put together from a body, what is on the head and what is carried.

use crate::canvas::Shape;
use crate::outlines::*;
use crate::reading::{Brief, Genre};

/// A person, as outlines that are mirrored and outlines that are not.
pub(crate) struct Figure {
    halves: &'static [&'static str],
    wholes: &'static [&'static str],
    /// The height, against a grown-up's.
    pub(crate) stature: f32,
}

impl Figure {
    /// The person that a brief calls for, or else the genre's usual hero.
    pub(crate) fn cast(brief: &Brief) -> Figure {
        let is = |terms| brief.mentions(terms);
        let woman = is(
            "woman,girl,she,her,mother,daughter,sister,queen,princess,heroine,femme,fille,mère,frau,mujer,nun,actress,lady",
        );
        let (halves, wholes): (&[_], &[_]) = if is("astronaut,cosmonaut,spaceship") {
            (&[SPACESUIT], &[BACKPACK])
        } else if is("wizard,sorcerer,mage,witch") {
            (&[HEAD, POINTED_HAT, ROBE], &[STAFF])
        } else if is("child,kid,boy,children,orphan,enfant,garçon,kind,niño,niña,girl,fille") {
            (&[CHILD], if brief.genre == Genre::Horror { &[RAISED_ARM] } else { &[] })
        } else if woman && ![Genre::Samurai, Genre::Fantasy, Genre::SciFi].contains(&brief.genre) {
            (&[HEAD, LONG_HAIR, DRESS], if is("rain,umbrella") { &[UMBRELLA] } else { &[] })
        } else {
            match brief.genre {
                Genre::Noir if is("rain,umbrella") => (&[HEAD, FEDORA, COAT], &[UMBRELLA]),
                Genre::Noir => (&[HEAD, FEDORA, COAT], &[]),
                Genre::SciFi if is("city,cyberpunk,tokyo") => (&[HEAD, HOOD, COAT], &[]),
                Genre::SciFi => (&[SPACESUIT], &[BACKPACK]),
                Genre::Western => (&[HEAD, STETSON, DUSTER], &[]),
                Genre::Samurai if woman => (&[HEAD, LONG_HAIR, ROBE], &[SWORDS]),
                Genre::Samurai => (&[HEAD, STRAW_HAT, ROBE], &[SWORDS]),
                Genre::Fantasy if woman => (&[HEAD, LONG_HAIR], &[CLOAK, SWORD]),
                Genre::Fantasy if is("knight,warrior,king,sword") => (&[HEAD], &[CLOAK, SWORD]),
                Genre::Fantasy => (&[HEAD, HOOD], &[CLOAK, STAFF]),
                Genre::Adventure => (&[HEAD, FEDORA, DUSTER], &[STAFF]),
                Genre::Horror => (&[HEAD, LONG_HAIR, DRESS], &[]),
                Genre::Romance | Genre::Drama => (&[HEAD, SUIT], &[]),
            }
        };
        Figure { halves, wholes, stature: if halves == [CHILD] { 0.62 } else { 1.0 } }
    }

    /// A man and a woman.
    pub(crate) fn couple() -> [Figure; 2] {
        let man = Figure { halves: &[HEAD, SUIT], wholes: &[], stature: 1.0 };
        [man, Figure { halves: &[HEAD, LONG_HAIR, DRESS], wholes: &[], stature: 0.93 }]
    }

    /// The outlines with the soles at (`x`, `y`), turned to `side`. They overlap.
    pub(crate) fn outlines(&self, x: f32, y: f32, height: f32, side: f32) -> Vec<Shape> {
        let k = height * self.stature / 100.0;
        // Hips and shoulders sway and the far half is narrower, for people are not symmetric.
        let place = move |px: f32, py: f32| {
            let sway = 1.3 * (py * 0.055).sin();
            let px = if px < 0.0 { px * 0.9 } else { px * 1.03 };
            (x + side * (px + sway) * k, y + (py - 100.0) * k)
        };
        let mut shapes = Vec::new();
        for half in self.halves {
            shapes.push(Shape::default().svg(half, place));
            shapes.push(Shape::default().svg(half, move |px, py| place(-px, py)));
        }
        shapes.extend(self.wholes.iter().map(|whole| Shape::default().svg(whole, place)));
        shapes
    }
}
