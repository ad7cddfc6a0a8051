//! Titan's command line.

fn main() -> std::process::ExitCode {
    titan_cli::main()
}
