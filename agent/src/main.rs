//! Titan's agent.

fn main() -> std::process::ExitCode {
    titan_agent::main()
}
