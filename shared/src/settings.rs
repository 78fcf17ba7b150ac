//! Settings, read once at start from variables, with every missing or bad one reported together.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads settings by name and gathers what is wrong with them.
pub struct Settings<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
}

/// All that is wrong with the settings, in one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot start: {}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

impl<'a> Settings<'a> {
    /// Settings that `lookup` finds by their names.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, faults: Vec::new() }
    }

    /// The text of `name`, which must not be empty.
    pub fn text(&mut self, name: &str) -> String {
        match (self.lookup)(name) {
            Some(text) if !text.trim().is_empty() => text,
            _ => {
                self.faults.push(format!("{name} is not set"));
                String::new()
            }
        }
    }

    /// The text of `name`, which may be missing or empty.
    pub fn optional(&mut self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    /// The number `name`, which must lie in `range`.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u32>) -> u32 {
        let number = self.parse::<u32>(name);
        if let Some(number) = number.filter(|number| !range.contains(number)) {
            self.faults.push(format!("{name} is {number}, but must lie in {} to {}", range.start(), range.end()));
        }
        number.unwrap_or(*range.start())
    }

    /// The value `name`, in whatever form its type reads.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name);
        if text.is_empty() {
            return None;
        }
        text.parse().map_err(|error| self.faults.push(format!("{name} is {text:?}: {error}"))).ok()
    }

    /// What `build` makes of the settings that were read.
    ///
    /// # Errors
    /// Everything that was missing or bad. `build` is then not called.
    pub fn finish<T>(self, build: impl FnOnce() -> T) -> Result<T, SettingsError> {
        if self.faults.is_empty() { Ok(build()) } else { Err(SettingsError(self.faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_reported_together() {
        let lookup = |name: &str| match name {
            "GOOD" => Some("7".to_owned()),
            "HIGH" => Some("70".to_owned()),
            "WORD" => Some("seven".to_owned()),
            _ => None,
        };
        let mut settings = Settings::new(&lookup);
        assert_eq!(settings.number("GOOD", 1..=10), 7);
        for name in ["HIGH", "WORD", "MISSING"] {
            settings.number(name, 1..=10);
        }
        let message = settings.finish(|| ()).expect_err("three are bad").to_string();
        for part in ["HIGH is 70, but must lie in 1 to 10", "WORD is \"seven\"", "MISSING is not set"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
