//! What a command works with: the flags that all commands share, the configuration, the connection.

use titan_api::{Kind, Name, client::Client, workspaces};

use crate::{
    arguments::Global,
    config::{self, Config},
    errors::CliError,
    output::Output,
};

/// Where a token is given that is not the one kept at login.
pub(crate) const GIVEN: &str = "--token or TITAN_TOKEN";

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Session {
    global: Global,
    /// Where output goes.
    pub(crate) output: Output,
}

impl Session {
    /// Returns a session of these flags. Nothing is read or connected before it is asked for.
    pub(crate) const fn new(global: Global) -> Self {
        let output = Output::new(global.output);
        Self { global, output }
    }

    /// Returns what `titan login` kept.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        match config::path() {
            Ok(path) => Ok(Config::load(&path)?),
            // Flags may say everything.
            Err(_) => Ok(Config::default()),
        }
    }

    /// Returns the server that flags and environment name.
    pub(crate) fn given_server(&self) -> Option<&str> {
        self.global.server.as_deref().filter(|text| !text.is_empty())
    }

    /// Returns the token that flags and environment give.
    pub(crate) fn given_token(&self) -> Option<&str> {
        self.global.token.as_deref().filter(|text| !text.is_empty())
    }

    /// Returns the workspace that the flag names.
    pub(crate) const fn given_workspace(&self) -> Option<&Name> {
        self.global.workspace.as_ref()
    }

    /// Returns a connection as whom one is logged in, with the address.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let (server, token) = self.config()?.choose(self.given_server(), self.given_token())?;
        let server = server.ok_or(CliError::NotLoggedIn { missing: "the server" })?;
        let token = token.ok_or(CliError::NotLoggedIn { missing: "the token" })?;
        if !token.is_token() {
            return Err(match self.given_token() {
                Some(_) => CliError::no_token(GIVEN),
                None => CliError::no_token(config::path()?.display()),
            });
        }
        Ok(Client::new(&server, Some(token.reveal().to_owned()))?)
    }

    /// Returns the workspace to work in: the flag's, the configured one, or `default`.
    pub(crate) fn workspace(&self) -> Result<Name, CliError> {
        if let Some(workspace) = &self.global.workspace {
            return Ok(workspace.clone());
        }
        match self.config()?.workspace {
            Some(workspace) => Ok(workspace),
            None => Ok(Name::new(workspaces::DEFAULT)?),
        }
    }

    /// Returns the workspace for documents of `kind`, if they live in one.
    pub(crate) fn workspace_of(&self, kind: Kind) -> Result<Option<Name>, CliError> {
        if kind.in_workspace() { self.workspace().map(Some) } else { Ok(None) }
    }
}
