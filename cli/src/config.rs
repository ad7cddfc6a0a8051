//! What the command line remembers, and what the environment says. Nothing else reads the environment.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use titan_api::Name;

/// How long a token may be, in bytes: longer ones are sent to nobody.
pub(crate) const TOKEN_BYTES: usize = 8 * 1024;

/// A token. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Returns `text` without the white space around it, or `None` if nothing is left.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Whether it can be a token: neither too long nor with white space, control characters or letters beyond ASCII in it.
    pub(crate) fn is_token(&self) -> bool {
        self.0.len() <= TOKEN_BYTES && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Returns the token, to be sent.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What `titan login` writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    /// The control plane's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// The token; sent to `server` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// The workspace of commands that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<Name>,
}

/// Why the configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Nobody says where it is.
    #[error("there is no place for the configuration: neither TITAN_CLI_CONFIG nor XDG_CONFIG_HOME nor HOME is set")]
    NoPlace,
    /// It cannot be read.
    #[error("the configuration {} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It does not make sense.
    #[error("the configuration {} is malformed", .0.display())]
    Malformed(PathBuf, #[source] serde_yaml::Error),
    /// It cannot be written.
    #[error("the configuration {} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The stored token belongs to another server.
    #[error("there is no token for {asked}: the stored one belongs to {stored}")]
    OtherServer {
        /// The server that was asked for.
        asked: String,
        /// The server one is logged in to.
        stored: String,
    },
}

impl ConfigError {
    /// Returns the way out.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoPlace => Some("set TITAN_CLI_CONFIG to a file, or TITAN_SERVER and TITAN_TOKEN".into()),
            Self::Malformed(path, _) => {
                Some(format!("keys are server, token and workspace; or remove {} and log in again", path.display()))
            }
            Self::OtherServer { asked, .. } => {
                Some(format!("titan login --server {asked} --token-file FILE, or set TITAN_TOKEN as well"))
            }
            Self::Read(..) | Self::Write(..) => None,
        }
    }
}

/// Returns a variable of the environment, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns where the configuration is kept.
pub(crate) fn path() -> Result<PathBuf, ConfigError> {
    place(variable).ok_or(ConfigError::NoPlace)
}

fn place(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("TITAN_CLI_CONFIG") {
        return Some(path.into());
    }
    let base = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("titan/config.yaml"))
}

/// Returns the command that edits a file, split at spaces: `$VISUAL` or `$EDITOR`, if one is set.
pub(crate) fn editor() -> Option<Vec<String>> {
    let command = variable("VISUAL").or_else(|| variable("EDITOR"))?;
    Some(command.split_whitespace().map(str::to_owned).collect())
}

impl Config {
    /// Returns what is kept at `path`, or nothing if there is no such file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(ConfigError::Read(path.to_owned(), error)),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml::from_str(&text).map_err(|error| ConfigError::Malformed(path.to_owned(), error))
    }

    /// Writes the configuration to `path`, readable by its owner only, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |error| ConfigError::Write(path.to_owned(), error);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(directory).map_err(failed)?;
        let text = serde_yaml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        // Temporary files are made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Returns the server and token to use, given what flags and environment say. A stored token is sent to no server
    /// but the one it was stored with.
    pub(crate) fn choose(
        &self,
        server: Option<&str>,
        token: Option<&str>,
    ) -> Result<(Option<String>, Option<Secret>), ConfigError> {
        let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
        let given = token.and_then(Secret::new);
        match (server, given, &self.server) {
            (Some(server), Some(token), _) => Ok((Some(server.to_owned()), Some(token))),
            (Some(server), None, Some(stored)) if !same(server, stored) && self.token.is_some() => {
                Err(ConfigError::OtherServer { asked: server.to_owned(), stored: stored.clone() })
            }
            (server, token, stored) => {
                Ok((server.map(str::to_owned).or_else(|| stored.clone()), token.or_else(|| self.token.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn place_follows_the_environment() {
        let with = |pairs: &[(&str, &str)]| {
            place(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[("TITAN_CLI_CONFIG", "/a/b"), ("HOME", "/h")]), Some("/a/b".into()));
        assert_eq!(with(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), Some("/x/titan/config.yaml".into()));
        assert_eq!(with(&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]), Some("/h/.config/titan/config.yaml".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("deep/config.yaml");
        let config = Config { server: Some("http://a:1".into()), token: Secret::new(" t \n"), workspace: None };
        config.save(&path).expect("save");
        config.save(&path).expect("save again");
        assert_eq!(Config::load(&path).expect("load"), config);
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(Config::load(&directory.path().join("none")).expect("load"), Config::default());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("config.yaml");
        fs::write(&path, "sever: http://a\n").expect("write");
        assert!(matches!(Config::load(&path), Err(ConfigError::Malformed(..))));
    }

    #[test]
    fn a_stored_token_stays_with_its_server() {
        let config = Config { server: Some("http://a:1".into()), token: Secret::new("stored"), workspace: None };
        let token = |choice: (Option<String>, Option<Secret>)| choice.1.map(|token| token.reveal().to_owned());
        assert!(matches!(config.choose(Some("http://b"), None), Err(ConfigError::OtherServer { .. })));
        assert_eq!(token(config.choose(Some("http://a:1/"), None).expect("same")).as_deref(), Some("stored"));
        assert_eq!(token(config.choose(Some("http://b"), Some("mine")).expect("own")).as_deref(), Some("mine"));
        assert_eq!(token(config.choose(None, Some("")).expect("empty")).as_deref(), Some("stored"));
    }

    #[test]
    fn what_is_no_token_is_told_from_one() {
        let is_token = |text: &str| Secret::new(text).is_some_and(|secret| secret.is_token());
        assert!(is_token(" titan_a.b-c_d=\n") && is_token(&"x".repeat(TOKEN_BYTES)));
        for other in ["", "\n", "a b", "a\nb", "a\0b", "\u{1b}[31m", "tokén", &"x".repeat(TOKEN_BYTES + 1)] {
            assert!(!is_token(other), "{other:?}");
        }
    }

    #[test]
    fn tokens_are_hidden() {
        assert_eq!(format!("{:?}", Secret::new("abc")), "Some(Secret(hidden))");
    }
}
