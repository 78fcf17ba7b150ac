//! Why a command did not do what was asked, and the exit code that tells.

use std::fmt::Display;
use std::path::Path;

use shared::problem::ProblemDetails;

/// How a command ended that did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it: exit code 0.
    AllDone,
    /// Some posters failed or were canceled, or some lines were bad: exit code 1.
    SomeFailed,
    /// Something was found that would end another command with this exit code.
    Found(u8),
}

/// Why a command ended early. The variant is the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the input is wrong: 2.
    #[error("{0}")]
    Usage(String),
    /// The service refused the request: 2, or 3 where the same request may be taken another time.
    #[error("{}", refusal(.0))]
    Refused(Box<ProblemDetails>),
    /// The service is out of reach, or does not answer as it should: 3.
    #[error("{0}")]
    Service(String),
    /// A file cannot be read or written: 4.
    #[error("{0}")]
    Local(String),
    /// Nobody reads standard output any more: 141, as of a process that the system stops for that.
    #[error("nobody reads standard output")]
    Unread,
    /// Somebody stopped the process: 130 by Ctrl-C, 143 by SIGTERM.
    #[error("stopped")]
    Interrupted(u8),
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(problem) if problem.status == 429 || problem.status >= 500 => 3,
            Self::Refused(_) => 2,
            Self::Service(_) => 3,
            Self::Local(_) => 4,
            Self::Unread => 141,
            Self::Interrupted(code) => *code,
        }
    }

    /// Whether the service has nothing of the name that was asked for. Another server on the way may answer 404 too.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 404 && problem.code == "not_found")
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: impl Display) -> Self {
        Self::Local(format!("{}: {error}", path.display()))
    }
}

/// A refusal in the service's own words.
fn refusal(problem: &ProblemDetails) -> String {
    format!("the service refuses ({}, {}): {}", problem.status, problem.code, problem.detail)
}
