//! Reads settings from environment variables and reports all missing or invalid ones together. A missing or invalid one
//! reads as some value of its type, with which nothing is done.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What looks up the text of a setting.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads settings by name and collects errors.
pub struct Settings<'a> {
    lookup: Lookup<'a>,
    faults: Vec<String>,
}

/// All errors in the settings, in one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot start: {}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

impl<'a> Settings<'a> {
    /// Reads settings with `lookup`.
    pub fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, faults: Vec::new() }
    }

    /// A required text.
    pub fn text(&mut self, name: &str) -> String {
        match (self.lookup)(name) {
            Some(text) if !text.trim().is_empty() => text,
            _ => {
                self.faults.push(format!("{name} is not set"));
                String::new()
            }
        }
    }

    /// An optional text; an empty one counts as missing.
    pub fn optional(&mut self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    /// A required number in `range`.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u32>) -> u32 {
        let number = self.parse::<u32>(name);
        if let Some(number) = number.filter(|number| !range.contains(number)) {
            self.faults.push(format!("{name} is {number}, but must be {} to {}", range.start(), range.end()));
        }
        number.unwrap_or(*range.start())
    }

    /// A value of a type that can be parsed from text.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name);
        if text.is_empty() {
            return None;
        }
        text.parse().map_err(|error| self.faults.push(format!("{name} is {text:?}: {error}"))).ok()
    }

    /// A required number of these units, in `range`.
    pub fn time(&mut self, name: &str, range: RangeInclusive<u32>, unit: Duration) -> Duration {
        unit * self.number(name, range)
    }

    /// Returns what was made of the settings if all of them were valid; otherwise all errors.
    pub fn finish<T>(self, made: T) -> Result<T, SettingsError> {
        if self.faults.is_empty() { Ok(made) } else { Err(SettingsError(self.faults)) }
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
        let message = settings.finish(()).expect_err("three are bad").to_string();
        for part in ["HIGH is 70, but must be 1 to 10", "WORD is \"seven\"", "MISSING is not set"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
