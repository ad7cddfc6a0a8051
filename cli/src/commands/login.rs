//! `titan login`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use titan_api::{
    Kind,
    client::{Client, ListOptions},
};

use crate::{
    config::{self, Secret, TOKEN_BYTES},
    errors::CliError,
    output::{Exit, Tone, View},
    session::{GIVEN, Session},
};

/// Keep the address of a control plane and the token for it.
///
/// The token is checked with a request, then both are kept in $XDG_CONFIG_HOME/titan/config.yaml (or where
/// TITAN_CLI_CONFIG says), readable by you only. With --workspace, that workspace is used by commands that name none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan login --server http://127.0.0.1:7420 --token-file admin.token
  TITAN_TOKEN=... titan login --server https://titan.example:7420 --workspace iot")]
pub(crate) struct Login {
    /// File that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

/// Returns the token that a file holds.
fn token_in(file: &Path) -> Result<Secret, CliError> {
    let mut bytes = Vec::new();
    // White space around it, such as an editor leaves, is no part of it.
    let most = 2 * TOKEN_BYTES as u64;
    let read = fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|source| CliError::File { doing: "read", path: file.to_owned(), source })?;
    let token = String::from_utf8(bytes).ok().and_then(|text| Secret::new(&text));
    token.filter(Secret::is_token).ok_or_else(|| CliError::no_token(file.display()))
}

impl Login {
    /// Checks the token and keeps it.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let path = config::path()?;
        let mut config = session.config()?;
        let same_server = session.given_server().is_none_or(|given| Some(given) == config.server.as_deref());
        let server = session.given_server().map(str::to_owned).or_else(|| config.server.clone());
        let token = match &self.token_file {
            Some(file) => Some(token_in(file)?),
            None => session.given_token().and_then(Secret::new),
        };
        if token.as_ref().is_some_and(|token| !token.is_token()) {
            return Err(CliError::no_token(GIVEN));
        }
        let (Some(server), Some(token)) = (server, token) else {
            return Err(CliError::usage(
                "login needs the control plane's address and a token",
                "titan login --server http://127.0.0.1:7420 --token-file FILE; the control plane writes its first token \
                 to the file that its --admin-token-file names, `titan token create NAME` makes more",
            ));
        };
        let client = Client::new(&server, Some(token.reveal().to_owned()))?;
        let workspaces =
            client.list(Kind::Workspace, None, &ListOptions { limit: Some(1), ..ListOptions::default() }).await?;
        config.server = Some(client.server().to_owned());
        config.token = Some(token);
        config.workspace = match session.given_workspace() {
            Some(workspace) => Some(workspace.clone()),
            None if same_server => config.workspace,
            None => None,
        };
        config.save(&path)?;
        let workspace = config.workspace.as_ref().map_or("default", |workspace| workspace.as_str());
        let mut line = format!("{} to {server}; kept in {}", Tone::Good.paint("logged in"), path.display());
        if config.workspace.is_some() {
            line.push_str(&format!("; workspace {workspace}"));
        }
        if workspaces.items.is_empty() {
            line.push_str("; you have access to no workspace yet");
        }
        let data = json!({ "server": server, "config": path, "workspace": workspace });
        session.output.show(&View::new(&data).text(line))?;
        Ok(Exit::Done)
    }
}
