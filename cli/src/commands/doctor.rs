//! `titan doctor`: is everything between here and the control plane in order?

use std::os::unix::fs::PermissionsExt;

use clap::Args;
use serde_json::json;
use titan_api::{
    Kind,
    client::{Client, ClientError, ListOptions},
};

use crate::{
    config::{self, Config},
    errors::{CliError, chain},
    output::{
        Exit, Tone, View,
        tables::{Cell, Table},
    },
    session::Session,
};

/// Look at each step between here and the control plane.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

struct Finding {
    step: &'static str,
    fine: bool,
    found: String,
}

impl Doctor {
    /// Looks, shows, and ends with the exit code of the first thing that is wrong.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let mut findings = Vec::new();
        let exit = look(session, &mut findings).await;
        let mut table = Table::new(&["STEP", "STATE", "FOUND"]);
        for finding in &findings {
            let state = if finding.fine { Cell::toned("ok", Tone::Good) } else { Cell::toned("wrong", Tone::Bad) };
            table.row([finding.step.into(), state, finding.found.as_str().into()]);
        }
        let items: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "step": finding.step, "ok": finding.fine, "found": finding.found }))
            .collect();
        session.output.show(&View::new(&json!({ "items": items })).table(table))?;
        Ok(exit)
    }
}

async fn look(session: &Session, findings: &mut Vec<Finding>) -> Exit {
    let mut found = |step, fine, found: String| findings.push(Finding { step, fine, found });
    found("version", true, format!("titan {}", env!("CARGO_PKG_VERSION")));
    let config = match config::path() {
        Ok(path) => match Config::load(&path) {
            Ok(config) => {
                let mode = std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o077);
                match mode {
                    Ok(0) => found("configuration", true, path.display().to_string()),
                    Ok(_) => {
                        found("configuration", false, format!("{} can be read by others; chmod 600 it", path.display()))
                    }
                    Err(_) => found("configuration", true, format!("{} is not there yet", path.display())),
                }
                config
            }
            Err(error) => {
                found("configuration", false, chain(&error));
                return Exit::Usage;
            }
        },
        Err(error) => {
            found("configuration", true, error.to_string());
            Config::default()
        }
    };
    let (server, token) = match config.choose(session.given_server(), session.given_token()) {
        Ok(chosen) => chosen,
        Err(error) => {
            found("token", false, error.to_string());
            return Exit::Usage;
        }
    };
    let Some(server) = server else {
        found("server", false, "not logged in: no server is known".to_owned());
        return Exit::Usage;
    };
    // Without a token first: that tells an address that is wrong from a token that is.
    let probe = match Client::new(&server, None) {
        Ok(client) => client.list(Kind::Workspace, None, &one()).await.err(),
        Err(error) => Some(error),
    };
    match probe {
        Some(error @ (ClientError::Address(_) | ClientError::Setup(_) | ClientError::Tls(_))) => {
            found("server", false, chain(&error));
            return Exit::Usage;
        }
        Some(error @ (ClientError::Unreachable { .. } | ClientError::NotTitan { .. } | ClientError::Slow { .. })) => {
            found("server", false, chain(&error));
            return Exit::Unreachable;
        }
        Some(ClientError::Refused { .. }) => found("server", true, format!("{server} is a Titan control plane")),
        None => found("server", false, format!("{server} answers without a token")),
    }
    let Some(token) = token else {
        found("token", false, "not logged in: no token is known".to_owned());
        return Exit::Usage;
    };
    if !token.is_token() {
        found("token", false, "what is kept or given as the token is none".to_owned());
        return Exit::Usage;
    }
    let client = match Client::new(&server, Some(token.reveal().to_owned())) {
        Ok(client) => client,
        Err(error) => {
            found("token", false, chain(&error));
            return Exit::Usage;
        }
    };
    match client.list(Kind::Workspace, None, &one()).await {
        Ok(_) => {
            found("token", true, "accepted".to_owned());
            Exit::Done
        }
        Err(error) => {
            found("token", false, chain(&error));
            CliError::from(error).exit()
        }
    }
}

fn one() -> ListOptions {
    ListOptions { limit: Some(1), ..ListOptions::default() }
}
