//! The command `poster`.

use std::process::ExitCode;

use shared::group::Group;

fn main() -> ExitCode {
    poster::main(Group::MAX_PARTS)
}
