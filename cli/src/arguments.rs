//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use serde_json::{Map, Value, json};
use shared::job::Status;
use shared::order::{AspectRatio, Model, OutputFormat, Seed};
use shared::poster::{Placement, Style};

use crate::config::ApiKey;

/// Makes movie posters from prompts, one or twenty thousand, by the HTTP API of the movie poster service.
#[derive(Debug, Parser)]
#[command(name = "poster", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "\
Examples:
  poster make \"A noir detective thriller in 1940s Venice\"
  poster batch prompts.ndjson       submit, wait, download; again to continue
  poster list --status failed
  poster sheet posters              one picture of all, and an index.html
  poster doctor                     is the service all right?

The service is the one at http://127.0.0.1:3000 (cargo run) unless told
otherwise: by --api and --api-key, by the variables POSTER_API and
POSTER_API_KEY, or by ~/.config/poster/config.toml:
  api = \"https://abc123.execute-api.us-west-2.amazonaws.com/v1\"
  api_key = \"...\"
Flags come before variables, and variables before the file.

Exit codes:
  0    everything was done
  1    some posters failed or were canceled, or lines were left out
  2    the command or its input is wrong, or the service refused it
  3    the service does not answer, or is too busy
  4    a file cannot be read or written
  130  stopped by Ctrl-C (143: by SIGTERM; 141: nobody reads its output)")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// The address of the API [default: http://127.0.0.1:3000]
    #[arg(long, env = "POSTER_API", value_name = "URL", global = true, help_heading = "Options of every command")]
    pub(crate) api: Option<String>,

    /// Your API key; better in the variable or the file, since other users see a command line
    #[arg(
        long,
        env = "POSTER_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true,
        help_heading = "Options of every command"
    )]
    #[arg(value_parser = |text: &str| Ok::<_, String>(ApiKey::from(text)))]
    pub(crate) api_key: Option<ApiKey>,

    /// The configuration file [default: ~/.config/poster/config.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Options of every command")]
    pub(crate) config: Option<PathBuf>,

    /// Write data to standard output, as JSON lines
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,

    /// Say nothing but errors
    #[arg(long, short, global = true, help_heading = "Options of every command")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make one poster: submit, wait, save, open
    Make(Make),
    /// Make a poster of each line of a file; the same command again continues
    Batch(Batch),
    /// Wait for jobs and batches to end, and show how they get on
    Watch(Ids),
    /// List your jobs, newest first, or those of a batch
    List(List),
    /// Show jobs or batches as they stand
    Get(Ids),
    /// Cancel jobs, or what has not started of batches
    Cancel(Ids),
    /// Queue failed jobs again, or what failed of batches
    Retry(Ids),
    /// Download the pictures of jobs or batches
    Download(Download),
    /// Put the pictures of a directory on one sheet, and in an index.html
    Sheet(Sheet),
    /// Check a service step by step, and say what to do about what fails
    Doctor(Doctor),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  poster completions bash > ~/.local/share/bash-completion/completions/poster
  poster completions zsh > ~/.zfunc/_poster
  poster completions fish > ~/.config/fish/completions/poster.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What a picture is to be like, beside its prompt.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PictureOptions {
    /// The shape of the picture [default: 2:3]
    #[arg(long, value_name = "RATIO", value_parser = one_of(AspectRatio::ALL, AspectRatio::as_str))]
    aspect_ratio: Option<AspectRatio>,

    /// What to keep out of the picture
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,

    /// The same seed paints the same picture again
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(Seed::MAX)))]
    seed: Option<u32>,

    /// The file format, webp only with a model that paints it [default: png]
    #[arg(long, value_name = "FORMAT", value_parser = one_of(OutputFormat::ALL, OutputFormat::as_str))]
    output_format: Option<OutputFormat>,

    /// The model, by its Bedrock id
    #[arg(long, value_name = "ID", value_parser = one_of(Model::ALL, Model::as_str))]
    model: Option<Model>,
}

impl PictureOptions {
    /// The fields of a request that say the same.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("aspect_ratio", self.aspect_ratio.map(|ratio| json!(ratio))),
            ("negative_prompt", self.negative_prompt.as_ref().map(|text| json!(text))),
            ("seed", self.seed.map(|seed| json!(seed))),
            ("output_format", self.output_format.map(|format| json!(format))),
            ("model", self.model.map(|model| json!(model))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  poster make \"A heist on the moon\"
  poster make \"A heist on the moon\" --title \"Moonfall\"
  poster make \"A heist on the moon\" --aspect-ratio 16:9 --seed 7 --out pictures
  poster make --no-wait --json \"A heist on the moon\" | jq -r .id")]
pub(crate) struct Make {
    /// What to paint
    #[arg(required = true)]
    pub(crate) prompt: Vec<String>,

    /// A title to set over the picture, crisp and in full
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,

    /// A line that goes with the title
    #[arg(long, value_name = "TEXT", requires = "title")]
    pub(crate) tagline: Option<String>,

    /// A line of the billing block, such as "directed by: Ada Marlowe"; may be given several times
    #[arg(long = "credit", value_name = "ROLE: NAME", requires = "title", value_parser = credit)]
    pub(crate) credits: Vec<Value>,

    /// How the title is set [default: as the prompt suggests]
    #[arg(long, requires = "title", value_parser = one_of(Style::ALL, Style::as_str))]
    pub(crate) style: Option<Style>,

    /// Where the title stands [default: where the picture is calmest]
    #[arg(long, requires = "title", value_parser = one_of(Placement::ALL, Placement::as_str))]
    pub(crate) placement: Option<Placement>,

    #[command(flatten)]
    pub(crate) picture: PictureOptions,

    /// Where the picture is saved
    #[arg(long, short, value_name = "DIR", default_value = "posters")]
    pub(crate) out: PathBuf,

    /// Submit only, and end at once
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Do not open the picture
    #[arg(long)]
    pub(crate) no_open: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A line holds a job: a prompt, what else POST /jobs takes, and custom_id, your
own name for it.
  .ndjson  {\"prompt\": \"A heist on the moon\", \"custom_id\": \"moon\"}
  .json    [{\"prompt\": ...}, ...] or {\"defaults\": {...}, \"jobs\": [...]}
  .csv     a header such as prompt,seed,poster.title, a row for each job
  .txt     a prompt on each line

Every line is checked before anything is submitted. Beside FILE lies
FILE.poster-state, by which the same command again continues after a Ctrl-C,
a crash or a lost network: nothing is submitted twice or downloaded twice.
Lines that failed come into FILE.failed.ndjson, to be fed again.

Examples:
  poster batch prompts.ndjson
  poster batch prompts.txt --aspect-ratio 1:1 --output-format jpeg --out friday
  poster batch prompts.csv --skip-bad --json > results.ndjson
  generate | poster batch - --format ndjson")]
pub(crate) struct Batch {
    /// The file, or - for standard input
    pub(crate) file: PathBuf,

    /// How the file is written [default: by its name, else by its first line]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// What the batch is called [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) picture: PictureOptions,

    /// Where the pictures are saved [default: FILE-posters]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Leave bad lines out and go on
    #[arg(long)]
    pub(crate) skip_bad: bool,

    /// Check the lines and end
    #[arg(long)]
    pub(crate) check: bool,

    /// Submit, and neither wait nor download; the command without this flag goes on from there
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Make no contact sheet and no index.html
    #[arg(long)]
    pub(crate) no_sheet: bool,

    /// The state file [default: FILE.poster-state]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    /// How many jobs one request carries
    #[arg(long, value_name = "JOBS", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) chunk: u16,

    /// How many pictures are downloaded at once
    #[arg(long, value_name = "PICTURES", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) at_once: u8,

    /// How long to go on asking a service that does not answer, such as 90s, 15m or 12h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
}

/// How a file of jobs is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object on each line
    Ndjson,
    /// A JSON document: an array of jobs, or a batch as POST /batches takes it
    Json,
    /// Rows of fields separated by commas, the first of which names them
    Csv,
    /// A prompt on each line
    Text,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  poster list
  poster list --status failed --limit 100
  poster list --batch 77981ec5-c758-89cb-ad6f-dbb3af96b75c --all")]
pub(crate) struct List {
    /// Only those of this status
    #[arg(long, value_parser = one_of(Status::ALL, Status::as_str))]
    pub(crate) status: Option<Status>,

    /// Those of this batch, or of the batch of this state file
    #[arg(long, value_name = "ID", value_hint = ValueHint::FilePath)]
    pub(crate) batch: Option<String>,

    /// How many
    #[arg(long, default_value_t = 20, conflicts_with = "all")]
    pub(crate) limit: usize,

    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// The ids of jobs or batches; the state file of `poster batch` stands for its whole batch
    #[arg(required = true, value_name = "ID", value_hint = ValueHint::FilePath)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    /// The ids of jobs or batches; the state file of `poster batch` stands for its whole batch
    #[arg(required = true, value_name = "ID", value_hint = ValueHint::FilePath)]
    pub(crate) ids: Vec<String>,

    /// Where the pictures are saved
    #[arg(long, short, value_name = "DIR", default_value = "posters")]
    pub(crate) out: PathBuf,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The titles come from posters.ndjson, which poster writes beside the pictures
it saves; pictures from elsewhere are called by their file names.

Examples:
  poster sheet posters
  poster sheet posters --all --title \"The autumn season\"")]
pub(crate) struct Sheet {
    /// The directory of pictures
    pub(crate) dir: PathBuf,

    /// What the sheet is called [default: the directory's name]
    #[arg(long)]
    pub(crate) title: Option<String>,

    /// Draw as many sheets as all pictures need, not only the first
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The steps: the address, the name of its host, a connection to it or to the
proxy, TLS, the health of the service, the clock, the key, and with --paint one
picture from its submission to its download. A line tells of each, with what to
do where it fails. Nothing is saved.

Examples:
  poster doctor
  poster doctor --paint                     costs what one picture costs
  poster doctor --paint --title \"Moonfall\"   the lettering too")]
pub(crate) struct Doctor {
    /// Have one picture painted and download it; on AWS that costs $0.04 to $0.14, by the model
    #[arg(long)]
    pub(crate) paint: bool,

    /// A title to set over that picture
    #[arg(long, value_name = "TEXT", requires = "paint")]
    pub(crate) title: Option<String>,
}

/// A person or company of the billing block. What stands before the first colon is the role.
fn credit(text: &str) -> Result<Value, String> {
    Ok(match text.split_once(':') {
        Some((role, name)) => json!({ "role": role.trim(), "name": name.trim() }),
        None => json!({ "name": text.trim() }),
    })
}

/// A value that is one of few, which completions and `--help` then name.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let named = move |text: &str| all.iter().copied().find(|value| name(*value) == text);
    PossibleValuesParser::new(all.iter().map(|value| name(*value)))
        .map(move |text| named(&text).expect("only these are possible"))
}

/// The command line as completions are made from it: file names are offered where a file is asked for, and nowhere else.
pub(crate) fn for_completions() -> clap::Command {
    Arguments::command().mut_args(without_file_names).mut_subcommands(|command| command.mut_args(without_file_names))
}

fn without_file_names(argument: Arg) -> Arg {
    let is_text = argument.get_action().takes_values() && argument.get_value_hint() == ValueHint::Unknown;
    if is_text { argument.value_hint(ValueHint::Other) } else { argument }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn file_names_complete_what_is_a_file_and_nothing_else() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut for_completions(), "poster", &mut script);
        let script = String::from_utf8(script).expect("it is UTF-8");
        for (option, files) in [
            ("status", false),
            ("aspect-ratio", false),
            ("format", false),
            ("seed", false),
            ("negative-prompt", false),
            ("name", false),
            ("api-key", false),
            ("batch", true),
            ("config", true),
            ("state", true),
        ] {
            let places: Vec<_> = script.split(&format!(" --{option})\n")).skip(1).collect();
            assert!(!places.is_empty(), "{option}");
            for place in places {
                let offered = place.split("return 0").next().expect("a first part");
                assert_eq!(offered.contains("compgen -f"), files, "{option}: {offered}");
            }
        }
    }

    #[test]
    fn help_keeps_the_options_of_every_command_apart() {
        let mut arguments = Arguments::command();
        arguments.build();
        for command in arguments.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            let (own, all) = help.split_once("Options of every command:").expect("they have a heading");
            for option in ["--api <URL>", "--api-key <KEY>", "--config <FILE>", "--json", "--quiet"] {
                assert!(all.contains(option) && !own.contains(option), "{option}: {help}");
            }
        }
    }

    #[test]
    fn times_are_read() {
        let patience = |text: &str| match Arguments::try_parse_from(["poster", "batch", "a.txt", "--patience", text]) {
            Ok(Arguments { command: Command::Batch(batch), .. }) => Some(batch.patience.as_secs()),
            _ => None,
        };
        for (text, seconds) in [("90s", 90), ("2h", 7_200), ("1.5h", 5_400), ("3d", 259_200)] {
            assert_eq!(patience(text), Some(seconds), "{text}");
        }
        for bad in ["", "3", "s", "-1s"] {
            assert_eq!(patience(bad), None, "{bad}");
        }
    }
}
