//! Sharp poster lettering: text is shaped with harfrust, outlined with skrifa, and returned as tiny-skia paths, which
//! the caller can fill, blur or measure.
//!
//! All lengths are pixels unless said otherwise. The y axis points down, as in tiny-skia.

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
pub use poster::{NotSet, Place, Poster, Sheet, covers, typeset};
pub use raster::{Format, Raster, Unreadable};
pub use style::Style;
pub use thumbnail::Thumbnail;
