use std::fmt::Display;
use std::path::Path;

use shared::problem::ProblemDetails;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was done: exit code 0.
    AllDone,
    /// Some posters failed or were canceled, or some lines were bad: exit code 1.
    SomeFailed,
    /// `poster doctor` found a fault that would end another command with this exit code.
    Found(u8),
}

/// Why a command ended early. The variant decides the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the input is wrong: 2.
    #[error("{0}")]
    Usage(String),
    /// The service refused the request: 2, or 3 if it may accept the same request later.
    #[error("the service refused ({}, {}): {}", .0.status, .0.code, .0.detail)]
    Refused(Box<ProblemDetails>),
    /// The service cannot be reached, or its answer makes no sense: 3.
    #[error("{0}")]
    Service(String),
    /// A file cannot be read or written: 4.
    #[error("{0}")]
    Local(String),
    /// Nobody reads standard output any more: 141, as of a process that SIGPIPE ends.
    #[error("nobody reads standard output")]
    Unread,
    /// The process was stopped: 130 by Ctrl-C, 143 by SIGTERM.
    #[error("stopped")]
    Interrupted(u8),
}

impl Failure {
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

    /// Whether the service itself has no such job or batch. A proxy may answer 404 too, with another code.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 404 && problem.code == "not_found")
    }

    pub(crate) fn file(path: &Path, error: impl Display) -> Self {
        Self::Local(format!("{}: {error}", path.display()))
    }
}

pub(crate) trait OfFile<T> {
    /// Says which file the error is about.
    fn of_file(self, path: &Path) -> Result<T, Failure>;
}

impl<T, E: Display> OfFile<T> for Result<T, E> {
    fn of_file(self, path: &Path) -> Result<T, Failure> {
        self.map_err(|error| Failure::file(path, error))
    }
}

/// Turns the failure that the service has no such job or batch into `None`.
pub(crate) fn if_found<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(failure) if failure.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

/// Runs blocking work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Local(error.to_string()))?
}
