//! What a process has used, from `/proc`.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

/// A running process.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// The processor time of all running threads. A function's threads end only with it.
    pub fn cpu(self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(self.file("task"))? {
            // A thread may end between the listing and the reading.
            let Ok(counters) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += counters.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The memory in use, in bytes.
    pub fn memory(self) -> io::Result<u64> {
        self.status("VmRSS:")
    }

    /// The memory in use that is not mapped from a file, in bytes.
    pub fn own_memory(self) -> io::Result<u64> {
        self.status("RssAnon:")
    }

    /// The most memory in use since its start or since `forget_peak`, in bytes.
    pub fn peak(self) -> io::Result<u64> {
        self.status("VmHWM:")
    }

    /// Resets the peak.
    pub fn forget_peak(self) -> io::Result<()> {
        fs::write(self.file("clear_refs"), "5")
    }

    fn status(self, name: &str) -> io::Result<u64> {
        let status = fs::read_to_string(self.file("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kibibytes: Option<u64> = line.trim().trim_end_matches(" kB").parse().ok();
        kibibytes.map(|number| number * 1024).ok_or_else(|| io::Error::other(format!("the kernel tells no {name}")))
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}
