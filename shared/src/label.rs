//! The names that callers give to batches and jobs.

use serde::{Deserialize, Serialize};

use crate::text::{check_visible, is_plain};

macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $max:literal) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        // Stored values are not checked again, so that stricter rules do not make records unreadable.
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let fits = check_visible(&text).is_ok() && text.chars().count() <= $max && is_plain(&text);
                let rule = concat!("must have 1 to ", $max, " characters, at least one of them visible, and no control characters");
                if fits { Ok(Self(text)) } else { Err(rule.to_owned()) }
            }
        }

        impl From<$name> for String {
            fn from(label: $name) -> Self {
                label.0
            }
        }
    };
}

label! {
    /// The caller's name for a batch.
    BatchName, 128
}

label! {
    /// The caller's id for a job, unique within its batch.
    CustomId, 64
}
