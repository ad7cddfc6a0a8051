//! Titan's command line: what an operator types, and what they get to see.
//!
//! It speaks to a control plane through [`titan_api::client`] alone; only the demo and `template lint` use the other
//! two libraries. It knows nothing of how decisions are made or stored. Read `arguments.rs` first, then
//! `commands/documents/`.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser};
use titan_control_plane::render::{worker::COMMAND as RENDER_WORKER, worker_main};

mod arguments;
mod away;
mod builtin;
mod commands;
mod config;
mod demo;
mod directory;
mod errors;
mod manifests;
mod output;
mod session;
mod values;

use arguments::Arguments;
use output::Exit;
use session::Session;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs the command line `args`, whose first is the program's name. Output goes to this process's standard streams; the
/// returned code is one of 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable, 6 differences found.
pub fn run_with<I: IntoIterator<Item = OsString>>(args: I) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == RENDER_WORKER) {
        // Started by the demo's control plane; it limits itself before there are threads.
        return worker_main();
    }
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell when the stream is closed.
            let _closed = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let format = arguments.global.output;
    let session = Session::new(arguments.global);
    let result =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(errors::CliError::from).and_then(
            |runtime| {
                let result = runtime.block_on(arguments.command.run(&session));
                // A watched terminal may leave work behind that nobody waits for.
                runtime.shutdown_background();
                result
            },
        );
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.report(format);
            error.exit().into()
        }
    }
}

/// Returns the grammar, from which completions and the reference are generated.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}
