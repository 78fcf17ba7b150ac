use crate::color::{Lab, Rgb};
use crate::face::Face;
use crate::line::Align;
use crate::survey::Survey;

/// A style, named after a genre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Tall, narrow capitals under a spaced tagline.
    Noir,
    /// Roman capitals, widely spaced.
    Epic,
    /// Plain left-aligned capitals under a short bar.
    Modern,
    /// A heavy slab with a hard shadow.
    Retro,
    /// Geometric capitals, widely spaced.
    Scifi,
    /// A fat italic.
    Romance,
}

pub(crate) struct Design {
    pub(crate) title: Setting,
    pub(crate) tagline: Setting,
    pub(crate) tagline_first: bool,
    pub(crate) ornament: Ornament,
    pub(crate) align: Align,
    pub(crate) inks: Inks,
}

#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) face: Face,
    pub(crate) tracking: f32,
    pub(crate) capitals: bool,
    /// Relative to the maximum for the position.
    pub(crate) size: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ornament {
    None,
    Rule,
    /// Two tapering lines with a diamond between them, between title and tagline.
    Diamond,
    /// A short thick bar above everything.
    Bar,
    /// A line as wide as the title, between title and tagline.
    Horizon,
    Shadow,
}

pub(crate) struct Inks {
    pub(crate) title: Rgb,
    pub(crate) tagline: Rgb,
    pub(crate) ornament: Rgb,
    pub(crate) names: Rgb,
    pub(crate) roles: Rgb,
}

impl Style {
    /// Every style.
    pub const ALL: [Style; 6] = [Style::Noir, Style::Epic, Style::Modern, Style::Retro, Style::Scifi, Style::Romance];

    /// The style that fits a picture's colors.
    pub(crate) fn of(survey: &Survey) -> Self {
        // From red to orange to yellow.
        let warm = (0.2..2.0).contains(&survey.hue);
        match survey.mean_chroma {
            chroma if chroma < 0.035 => Self::Noir,
            _ if warm => Self::Epic,
            _ => Self::Modern,
        }
    }

    pub(crate) fn design(self, survey: &Survey) -> Design {
        let tint = |lightness, most: f32| Lab::polar(lightness, (survey.chroma * 1.1).min(most), survey.hue).rgb();
        let set = |face, tracking, capitals, size| Setting { face, tracking, capitals, size };
        let billing = |title, tagline, ornament| Inks {
            title,
            tagline,
            ornament,
            names: tint(0.88, 0.012),
            roles: tint(0.80, 0.02),
        };
        let paper = tint(0.965, 0.012);
        let spaced = set(Face::LeagueGothic, 0.16, true, 1.0);
        match self {
            Self::Noir => Design {
                title: set(Face::LeagueGothic, 0.012, true, 1.2),
                tagline: spaced,
                tagline_first: true,
                ornament: Ornament::Rule,
                align: Align::Center,
                inks: billing(paper, tint(0.84, 0.10), tint(0.74, 0.15)),
            },
            Self::Epic => Design {
                title: set(Face::Cinzel, 0.05, true, 0.9),
                tagline: set(Face::Cinzel, 0.14, true, 0.72),
                tagline_first: false,
                ornament: Ornament::Diamond,
                align: Align::Center,
                inks: billing(tint(0.90, 0.085), paper, tint(0.78, 0.12)),
            },
            Self::Modern => Design {
                title: set(Face::BebasNeue, 0.015, true, 1.0),
                tagline: set(Face::BebasNeue, 0.10, true, 0.9),
                tagline_first: false,
                ornament: Ornament::Bar,
                align: Align::Left,
                inks: billing(paper, tint(0.86, 0.08), tint(0.74, 0.17)),
            },
            Self::Retro => Design {
                title: set(Face::AlfaSlabOne, 0.01, true, 0.9),
                tagline: spaced,
                tagline_first: true,
                ornament: Ornament::Shadow,
                align: Align::Center,
                inks: billing(tint(0.91, 0.10), paper, tint(0.36, 0.13)),
            },
            Self::Scifi => Design {
                title: set(Face::Orbitron, 0.12, true, 0.75),
                tagline: set(Face::LeagueGothic, 0.3, true, 0.95),
                tagline_first: false,
                ornament: Ornament::Horizon,
                align: Align::Center,
                inks: billing(tint(0.94, 0.05), tint(0.86, 0.09), tint(0.74, 0.14)),
            },
            Self::Romance => Design {
                title: set(Face::PlayfairDisplay, -0.005, false, 1.0),
                tagline: spaced,
                tagline_first: false,
                ornament: Ornament::None,
                align: Align::Center,
                inks: billing(tint(0.95, 0.04), tint(0.87, 0.08), paper),
            },
        }
    }
}
