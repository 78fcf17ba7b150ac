use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};
use local::Options;
use local::bedrock::{Behavior, Painter};
use poster::OrderOptions;

/// Runs the whole movie poster pipeline on this machine: the code and AWS clients of the deployed functions, over
/// AWS-compatible services in this process.
///
/// With a PROMPT it makes one poster and ends. Without one it serves the API until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "local", version, max_term_width = 100)]
#[command(after_help = "Examples:
  cargo run -- \"A noir detective thriller in 1940s Venice\"
  cargo run -- --title \"The Last Signal\" --tagline \"Nobody is listening\" \"An astronaut on a moon of Saturn\"
  cargo run
  cargo run -- --data ./data --model-latency 3s --model-faults throttle=0.2,error=0.05
  cargo run -- --bedrock aws \"A heist on the moon\"      (your credentials, your cost)")]
pub(crate) struct Arguments {
    /// What to paint; without it the API is served
    pub(crate) prompt: Vec<String>,

    #[command(flatten)]
    pub(crate) order: OrderOptions,

    /// Where the picture is written
    #[arg(long, value_name = "DIR", default_value = "posters", requires = "prompt")]
    pub(crate) out: PathBuf,

    /// The port of the API, with the services on the next four ports; 0 takes any free ports [default: 3000, or any
    /// free port with a PROMPT]
    #[arg(long)]
    port: Option<u16>,

    /// Keep all data in this directory, so that it survives a restart [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// What paints the pictures
    #[arg(long, value_enum, default_value_t)]
    bedrock: Painter,

    #[command(flatten)]
    model: Behavior,

    /// Require an API key, and keep the jobs of each caller apart; repeat it for more callers
    #[arg(long, value_name = "NAME=KEY", value_parser = parameter, conflicts_with = "prompt")]
    pub(crate) api_key: Vec<(String, String)>,

    /// Accept webhooks to this machine, such as http://127.0.0.1:8788/, to try them out
    #[arg(long, conflicts_with = "prompt")]
    webhooks_to_loopback: bool,

    /// A parameter of template.yaml, such as MaxAttempts=5
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    parameter: Vec<(String, String)>,

    /// Once everything answers, write all addresses, names and keys to this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

impl Arguments {
    /// Reads a command line. What a picture is like matters only with a prompt; all else of lettering needs a title.
    pub(crate) fn read<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let options = ["title", "aspect_ratio", "negative_prompt", "seed", "output_format", "model"].into_iter();
        let command = options.fold(Self::command(), |all, option| all.mut_arg(option, |arg| arg.requires("prompt")));
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    pub(crate) fn options(&self) -> Options {
        let default_port = if self.prompt.is_empty() { 3000 } else { 0 };
        Options {
            port: self.port.unwrap_or(default_port),
            data: self.data.clone(),
            painter: self.bedrock,
            model: self.model,
            parameters: self.parameter.iter().cloned().collect(),
            api_keys: self.api_key.iter().map(|(name, key)| (key.clone(), name.clone())).collect(),
            webhooks_to_loopback: self.webhooks_to_loopback,
            ..Options::default()
        }
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_describes_a_picture_needs_a_prompt() {
        for option in ["--title=x", "--aspect-ratio=1:1", "--negative-prompt=x", "--seed=5", "--output-format=png"] {
            assert!(Arguments::read(["local", option]).is_err(), "{option}");
            assert!(Arguments::read(["local", option, "A heist"]).is_ok(), "{option}");
        }
        assert!(Arguments::read(["local", "--model=stability.stable-image-core-v1:1"]).is_err());
        assert!(Arguments::read(["local", "--style=noir", "A heist"]).is_err());
    }

    #[test]
    fn times_are_read() {
        let latency =
            |text: &str| Arguments::try_parse_from(["local", "--model-latency", text]).map(|read| read.model.latency);
        for (text, milliseconds) in [("3s", 3_000), ("250ms", 250), ("1.5m", 90_000)] {
            assert_eq!(latency(text).expect("it is a time"), Duration::from_millis(milliseconds), "{text}");
        }
        for bad in ["", "3", "s", "-1s", "1e999s"] {
            assert!(latency(bad).is_err(), "{bad}");
        }
    }
}
