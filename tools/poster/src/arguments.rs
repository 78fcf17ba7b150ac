use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::job::Status;
use shared::order::{AspectRatio, Model, OutputFormat, Seed};
use shared::poster::{Placement, Style};
use shared::webhook::EventType;
use shared::webhook_secret::WebhookSecret;

use crate::config::ApiKey;

/// Makes movie posters from prompts, one or twenty thousand, through the HTTP API of the movie poster service.
#[derive(Debug, Parser)]
#[command(name = "poster", version, max_term_width = 100, propagate_version = true)]
#[command(next_help_heading = "Options of every command")]
#[command(after_help = "\
Examples:
  poster make \"A noir detective thriller in 1940s Venice\"
  poster batch prompts.ndjson       submit, wait, download; run it again to continue
  poster list --status failed
  poster sheet posters              a contact sheet and an index.html
  poster doctor                     is the service working?

The default service is http://127.0.0.1:3000 (cargo run). Set another with
--api and --api-key, with the variables POSTER_API and POSTER_API_KEY, or in
~/.config/poster/config.toml:
  api = \"https://abc123.execute-api.us-west-2.amazonaws.com/v1\"
  api_key = \"...\"
Flags override variables, and variables override the file.

Exit codes:
  0    success
  1    some posters failed or were canceled, or lines were left out
  2    the command or its input is wrong, or the service refused it
  3    the service does not answer, or is too busy
  4    a file cannot be read or written
  130  stopped by Ctrl-C (143: by SIGTERM; 141: its output was closed)")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// The URL of the API [default: http://127.0.0.1:3000]
    #[arg(long, env = "POSTER_API", value_name = "URL", global = true)]
    pub(crate) api: Option<String>,

    /// Your API key; better set in the variable or the file, since other users can see command lines
    #[arg(long, env = "POSTER_API_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    pub(crate) api_key: Option<ApiKey>,

    /// The configuration file [default: ~/.config/poster/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Print data as JSON lines on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print only errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make one poster: submit, wait, save, open
    Make(Make),
    /// Make a poster from each line of a file; run it again to continue
    Batch(Batch),
    /// Wait for jobs and batches to end, and show their progress
    Watch(Ids),
    /// List your jobs or batches, newest first, or the jobs of a batch
    List(List),
    /// Show jobs or batches
    Get(Ids),
    /// Cancel jobs, or the queued jobs of batches
    Cancel(Ids),
    /// Retry failed and canceled jobs, or the failed jobs of batches
    Retry(Ids),
    /// Download the pictures of jobs or batches
    Download(Download),
    /// Make a contact sheet and an index.html of a directory of pictures
    Sheet(Sheet),
    /// Receive webhooks on this machine, check their signatures, and print them
    Listen(Listen),
    /// Check a service step by step, with advice for each failure
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

#[derive(Clone, Debug, Default, Args, Serialize)]
pub(crate) struct PictureOptions {
    /// The shape of the picture [default: 2:3]
    #[arg(long, value_name = "RATIO", value_parser = one_of(AspectRatio::ALL, AspectRatio::as_str))]
    aspect_ratio: Option<AspectRatio>,

    /// What the picture must not show
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,

    /// The same seed and prompt give the same picture
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(Seed::MAX)))]
    seed: Option<u32>,

    /// The file format; webp works only with some models [default: png]
    #[arg(long, value_name = "FORMAT", value_parser = one_of(OutputFormat::ALL, OutputFormat::as_str))]
    output_format: Option<OutputFormat>,

    /// The model, by its Bedrock id
    #[arg(long, value_name = "ID", value_parser = one_of(Model::ALL, Model::as_str))]
    model: Option<Model>,
}

impl PictureOptions {
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let Value::Object(fields) = json!(self) else { unreachable!("a struct is an object") };
        fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

/// The lettering over a picture, and the picture.
#[derive(Clone, Debug, Args)]
pub struct OrderOptions {
    /// A title to print over the picture
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// A line to go with the title
    #[arg(long, value_name = "TEXT", requires = "title")]
    tagline: Option<String>,

    /// A line of the billing block, such as "directed by: Ada Marlowe"; may be repeated
    #[arg(long = "credit", value_name = "ROLE: NAME", requires = "title", value_parser = credit)]
    credits: Vec<Value>,

    /// The style of the lettering [default: as the prompt suggests]
    #[arg(long, requires = "title", value_parser = one_of(Style::ALL, Style::as_str))]
    style: Option<Style>,

    /// The position of the title [default: where the picture is calmest]
    #[arg(long, requires = "title", value_parser = one_of(Placement::ALL, Placement::as_str))]
    placement: Option<Placement>,

    #[command(flatten)]
    picture: PictureOptions,
}

impl OrderOptions {
    /// The fields of a request for these words, with the options.
    pub fn fields(&self, prompt: &[String]) -> Map<String, Value> {
        let mut fields = self.picture.fields();
        fields.insert("prompt".to_owned(), prompt.join(" ").into());
        if let Some(title) = &self.title {
            let poster = json!({
                "title": title, "tagline": self.tagline, "credits": self.credits,
                "style": self.style.unwrap_or_default(), "placement": self.placement.unwrap_or_default(),
            });
            fields.insert("poster".to_owned(), poster);
        }
        fields
    }
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WebhookOptions {
    /// Send the end to this URL; `poster listen` is a receiver for a local service
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,

    /// Which ends to send, separated by commas [default: all of a job's, or only the batch's own]
    #[arg(long, value_name = "EVENTS", requires = "webhook", value_delimiter = ',')]
    #[arg(value_parser = one_of(EventType::ALL, EventType::as_str))]
    webhook_events: Option<Vec<EventType>>,
}

impl WebhookOptions {
    pub(crate) fn field(&self) -> Option<Value> {
        let mut webhook = json!({ "url": self.webhook.as_ref()? });
        if let Some(events) = &self.webhook_events {
            webhook["events"] = json!(events);
        }
        Some(webhook)
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

    #[command(flatten)]
    pub(crate) order: OrderOptions,

    #[command(flatten)]
    pub(crate) webhook: WebhookOptions,

    /// In how many hours the job fails if it is unfinished, 1 to 96 [default: as the service is deployed]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u8).range(1..=96))]
    pub(crate) deadline_hours: Option<u8>,

    /// The directory for the picture
    #[arg(long, short, value_name = "DIR", default_value = "posters")]
    pub(crate) out: PathBuf,

    /// Submit only; do not wait
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Do not open the picture
    #[arg(long)]
    pub(crate) no_open: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a job: a prompt, any other field of POST /jobs, and custom_id,
your own name for it.
  .ndjson  {\"prompt\": \"A heist on the moon\", \"custom_id\": \"moon\"}
  .json    [{\"prompt\": ...}, ...] or {\"defaults\": {...}, \"jobs\": [...]}
  .csv     a header such as prompt,seed,poster.title, and a row for each job
  .txt     a prompt on each line

Every line is checked before the file is uploaded. After a Ctrl-C, a crash or
a lost network, run the same command again to continue. Nothing is painted
twice or downloaded twice. Failed lines are written to FILE.failed.ndjson,
ready for another batch.

Examples:
  poster batch prompts.ndjson
  poster batch prompts.txt --aspect-ratio 1:1 --output-format jpeg --out friday
  poster batch prompts.csv --skip-bad --json > results.ndjson
  generate | poster batch - --format ndjson")]
pub(crate) struct Batch {
    /// The file, or - for standard input
    pub(crate) file: PathBuf,

    /// The format of the file [default: by its name, else by its first line]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// The name of the batch [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) picture: PictureOptions,

    /// The directory for the pictures [default: FILE-posters]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Leave out bad lines
    #[arg(long)]
    pub(crate) skip_bad: bool,

    /// Only check the lines
    #[arg(long)]
    pub(crate) check: bool,

    /// Submit only; run the command without this flag to wait and download
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Do not make a contact sheet and an index.html
    #[arg(long)]
    pub(crate) no_sheet: bool,

    /// The state file [default: FILE.poster-state]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) webhook: WebhookOptions,

    /// In how many hours unfinished jobs fail, 1 to 96 [default: as the service is deployed]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u8).range(1..=96))]
    pub(crate) deadline_hours: Option<u8>,

    /// How many pictures to download at once
    #[arg(long, value_name = "PICTURES", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) at_once: u8,

    /// How long to retry while the service does not answer, such as 90s, 15m or 12h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object on each line
    Ndjson,
    /// A JSON document of up to 64 MB: an array of jobs, or a batch as POST /batches takes it
    Json,
    /// Comma-separated values with a header
    Csv,
    /// A prompt on each line
    #[value(alias = "txt")]
    Text,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  poster list
  poster list --batches
  poster list --status failed --limit 100
  poster list --batch 77981ec5-c758-89cb-ad6f-dbb3af96b75c --all")]
pub(crate) struct List {
    /// Batches instead of jobs
    #[arg(long, conflicts_with_all = ["status", "batch"])]
    pub(crate) batches: bool,

    /// Only jobs of this status
    #[arg(long, value_parser = one_of(Status::ALL, Status::as_str))]
    pub(crate) status: Option<Status>,

    /// The jobs of this batch, given by its id or its state file
    #[arg(long, value_name = "ID", value_hint = ValueHint::FilePath)]
    pub(crate) batch: Option<String>,

    /// How many to list at most
    #[arg(long, default_value_t = 20, conflicts_with = "all")]
    pub(crate) limit: usize,

    /// List all
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// The ids of jobs or batches; a state file of `poster batch` stands for its batch
    #[arg(required = true, value_name = "ID", value_hint = ValueHint::FilePath)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    #[command(flatten)]
    pub(crate) ids: Ids,

    /// The directory for the pictures
    #[arg(long, short, value_name = "DIR", default_value = "posters")]
    pub(crate) out: PathBuf,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Titles come from posters.ndjson, which poster writes beside its pictures.
Other pictures are titled by their file names.

Examples:
  poster sheet posters
  poster sheet posters --all --title \"The autumn season\"")]
pub(crate) struct Sheet {
    /// The directory of pictures
    pub(crate) dir: PathBuf,

    /// The heading of the sheet [default: the directory's name]
    #[arg(long)]
    pub(crate) title: Option<String>,

    /// Draw all sheets, not only the first
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Answers 200 to a request whose signature is good, and 400 to any other. A line
has the time of the event in UTC, its type, the id of the job or batch, its
custom id or name, the code of its error, and \"again\" if it came before.

Examples:
  cargo run -- --webhooks-to-loopback       a local service that sends to this machine
  poster listen
  poster make \"A heist on the moon\" --webhook http://127.0.0.1:8788/")]
pub(crate) struct Listen {
    /// The port on 127.0.0.1; 0 for a free one
    #[arg(long, default_value_t = 8788)]
    pub(crate) port: u16,

    /// End after the first request; the exit code is 1 if its signature is bad
    #[arg(long)]
    pub(crate) once: bool,

    /// The secret that signs the requests [default: the service is asked for yours]
    #[arg(long, env = "POSTER_WEBHOOK_SECRET", hide_env_values = true, value_name = "whsec_...")]
    pub(crate) secret: Option<WebhookSecret>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The steps: the URL, the host name, a connection to the host or the proxy, TLS,
the health of the service, the clock, the key, and with --paint one picture
from its submission to its download. Each step prints a line, and advice if it
fails. Nothing is saved.

Examples:
  poster doctor
  poster doctor --paint                     costs as much as one picture
  poster doctor --paint --title \"Moonfall\"   checks the lettering too")]
pub(crate) struct Doctor {
    /// Paint and download one picture; on AWS that costs $0.04 to $0.14, depending on the model
    #[arg(long)]
    pub(crate) paint: bool,

    /// A title to print over that picture
    #[arg(long, value_name = "TEXT", requires = "paint")]
    pub(crate) title: Option<String>,
}

/// A person or company of the billing block. The text before the first colon is the role.
fn credit(text: &str) -> Result<Value, String> {
    Ok(match text.split_once(':') {
        Some((role, name)) => json!({ "role": role.trim(), "name": name.trim() }),
        None => json!({ "name": text.trim() }),
    })
}

/// Parses one of a few values, which completions and `--help` list.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let named = move |text: &str| all.iter().copied().find(|value| name(*value) == text);
    PossibleValuesParser::new(all.iter().map(|value| name(*value)))
        .map(move |text| named(&text).expect("only these are possible"))
}

/// The command line for completions, which offer file names only for arguments that are files.
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
