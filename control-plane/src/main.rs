//! The binary `titan-control-plane`.

use std::process::ExitCode;

fn main() -> ExitCode {
    titan_control_plane::command::main()
}
