//! Every Titan binary in one, with fault points: `titan-node control-plane serve ...`, `titan-node agent once ...`,
//! `titan-node cli get ...`. For tests alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "render-worker") {
        return titan_control_plane::render::worker_main();
    }
    let role = if args.len() > 1 { args.remove(1) } else { args[0].clone() };
    match role.to_str() {
        Some("control-plane") => titan_control_plane::command::run_with(args),
        Some("agent") => titan_agent::run_with(args),
        Some("cli") => titan_cli::run_with(args),
        _ => ExitCode::from(2),
    }
}
