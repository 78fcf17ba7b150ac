//! The command `poster`.

use std::process::ExitCode;

fn main() -> ExitCode {
    poster::main()
}
