//! The command `poster`, with room for two batches in a group, so that a short file makes many groups.

use std::process::ExitCode;

fn main() -> ExitCode {
    poster::main(2)
}
