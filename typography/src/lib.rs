//! Sharp poster lettering: text is shaped with harfrust, outlined with skrifa, and returned as tiny-skia paths, which
//! the caller can fill, blur or measure.
//!
//! All lengths are pixels unless said otherwise. The y axis points down, as in tiny-skia.
//!
//! ```
//! use tiny_skia::{Color, Pixmap};
//! use typography::{Align, Face, Font, Line};
//!
//! let mut picture = Pixmap::new(400, 200).expect("the size is not zero");
//! let font = Font { face: Face::Cinzel, size: 30.0, tracking: 0.02 };
//! let title = Line::new("The Last Lighthouse", font);
//! title.draw(&mut picture.as_mut(), 200.0, 100.0, Align::Center, Color::WHITE);
//! ```

mod block;
mod color;
mod face;
mod heads;
mod line;
mod poster;
mod raster;
mod style;
mod survey;
mod thumbnail;

pub use color::{contrast, luminance};
pub use face::Face;
pub use heads::{Head, heads};
pub use line::{Align, Font, Line};
pub use poster::{LEGIBLE, NotSet, Place, Poster, Sheet, covers, typeset};
pub use raster::{Format, Raster, Unreadable};
pub use style::Style;
pub use thumbnail::Thumbnail;
