//! What this binary is when it is started as a child: a control plane, a bare server, a render worker, a view.

use std::{ffi::OsString, io::Read as _, process::ExitCode};

use anyhow::Context as _;
use axum::{Router, http::StatusCode, routing::get, serve::ListenerExt as _};

use crate::views;

/// The control plane: the arguments are those of `titan-control-plane`.
pub(crate) const PLANE: &str = "role-control-plane";
/// A server with nothing behind its routes: the argument is the port.
pub(crate) const BARE: &str = "role-bare";
/// A view in memory: the arguments are hosts and assignments of each.
pub(crate) const VIEW: &str = "role-view";

/// The route of the bare server that takes the shortest request.
pub(crate) const LEAST: &str = "/";

/// Plays the role that `args` name; `None` if they name none.
pub(crate) fn play(args: &[OsString]) -> Option<ExitCode> {
    let role = args.get(1)?.to_str()?;
    let rest = &args[2..];
    let ended = match role {
        "render-worker" => return Some(titan_control_plane::render::worker_main()),
        PLANE => {
            end_with_parent();
            let name = OsString::from("titan-control-plane");
            return Some(titan_control_plane::command::run_with(std::iter::once(name).chain(rest.iter().cloned())));
        }
        BARE => {
            end_with_parent();
            bare(rest)
        }
        VIEW => views::fill(rest),
        _ => return None,
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    })
}

/// Ends this process as soon as its standard input does: the parent holds the other end for as long as it lives.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ended_or_failed = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Serves the poll's path with an empty answer: the same runtime, library and socket options as the control plane, and
/// nothing else.
fn bare(args: &[OsString]) -> anyhow::Result<()> {
    let port: u16 = args.first().and_then(|port| port.to_str()).context("a port")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let listener = listener.tap_io(|connection| {
            let _best_effort = connection.set_nodelay(true);
        });
        let empty = || get(|| std::future::ready(StatusCode::NO_CONTENT));
        let router: Router = Router::new().route("/v1/hosts/{name}/changes", empty()).route(LEAST, empty());
        Ok(axum::serve(listener, router).await?)
    })
}
