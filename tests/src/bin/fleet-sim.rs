//! Up to a million simulated agents: `fleet-sim quick`, `fleet-sim run`, `fleet-sim measure`, `fleet-sim seed`.

use std::process::ExitCode;

fn main() -> ExitCode {
    titan_tests::simulator::command::main()
}
