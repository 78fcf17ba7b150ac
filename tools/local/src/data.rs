use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;

use crate::StartError;

/// The file that a stack keeps locked. The operating system releases the lock when the process ends, however it ends.
const LOCK_FILE: &str = "lock";

/// The file with the secret from which the secrets of callers are derived.
const SECRET_FILE: &str = "webhook-secret";

pub(crate) struct Lock(File);

/// A process that this one is just starting has a copy of the open file until it runs its program, so closing the file is
/// not enough.
impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the data directory");
        }
    }
}

pub(crate) enum Data {
    /// A directory that outlives the stack, and its lock.
    Kept(PathBuf, #[expect(dead_code, reason = "it is only held")] Lock),
    /// A directory that is deleted with the stack.
    Temporary(TempDir),
}

impl Data {
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let Some(path) = path else {
            let directory = tempfile::Builder::new().prefix("movie-posters-").tempdir();
            return directory
                .map(Self::Temporary)
                .map_err(|source| StartError::Data { path: std::env::temp_dir(), source });
        };
        let failed = |source| StartError::Data { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self::Kept(path.canonicalize().map_err(failed)?, Lock(lock))),
            Err(TryLockError::WouldBlock) => Err(StartError::DataInUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path, _) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }

    /// The secret of this data, which is made on the first call.
    pub(crate) fn secret(&self) -> Result<String, StartError> {
        let path = self.path().join(SECRET_FILE);
        let failed = |source| StartError::Data { path: path.clone(), source };
        match std::fs::read_to_string(&path) {
            Ok(secret) => Ok(secret),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let secret = [Uuid::new_v4(), Uuid::new_v4()].map(|half| half.simple().to_string()).concat();
                std::fs::write(&path, &secret).map_err(failed)?;
                Ok(secret)
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(..))
    }
}
