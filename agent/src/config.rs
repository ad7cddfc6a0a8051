//! The agent's settings: defaults, then `agent.yaml`, then the environment, then flags.
//!
//! [`Settings`] is the result, checked once at the start; nothing reads the environment afterwards. The file's shape
//! is in [`file`]; `agent.sample.yaml` shows every key.

pub mod appliers;
pub mod file;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use titan_api::windows::Windows;

use crate::spaces::Limits;
use appliers::Appliers;
use file::ConfigFile;

/// Where the file is looked for if neither a flag nor the environment names one.
const DEFAULT_FILE: &str = "/etc/titan/agent.yaml";

/// Everything that the agent was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane's address; absent: as told when enrolling.
    pub server: Option<String>,
    /// The directory with everything that the agent remembers.
    pub state_dir: PathBuf,
    /// The `files` applier; absent: the host's owner does not allow it.
    pub files: Option<FilesSettings>,
    /// What else the host's owner allows.
    pub appliers: Appliers,
    /// The Git sink; absent: nothing is committed.
    pub git: Option<GitSettings>,
    /// When the host's owner lets things be changed.
    pub windows: Windows,
    /// What may be used of the host's disks.
    pub limits: Limits,
    /// How often what is done.
    pub polling: Polling,
    /// What is logged, and how.
    pub logging: Logging,
}

/// Settings of the `files` applier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSettings {
    /// The directory that all files are below.
    pub root: PathBuf,
    /// Directories below the root in which files may have a `destination`; absent: all of it.
    pub paths: Option<Vec<String>>,
    /// Whether files that the agent does not own are overwritten.
    pub overwrite: bool,
    /// How a new set of files takes the place of the old one.
    pub switch: Switch,
}

/// How a new set of files takes the place of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Switch {
    /// The deployment's directory is exchanged as a whole, in one step, wherever that is possible.
    #[default]
    Directory,
    /// Each file is replaced by itself; the directory stays the same one, as a container that mounts it needs.
    File,
}

/// Settings of the Git sink.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The local repository; made bare if it is missing.
    pub repository: PathBuf,
    /// Where commits are pushed to, if anywhere: a path, `file://`, `ssh://`, `user@host:path`, `http://`, `https://`.
    pub remote: Option<String>,
    /// The branch.
    pub branch: String,
    /// Directory in the repository under which everything is kept; empty: its top.
    pub path: String,
    /// Who commits: name and mail address.
    pub author: (String, String),
    /// User name and password for HTTP(S).
    pub credentials: Option<Credentials>,
    /// How `ssh` is run.
    pub ssh: SshSettings,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a push is tried anew when somebody else was faster.
    pub attempts: u32,
    /// How long one exchange with the remote may be silent.
    pub timeout: Duration,
}

/// A user name and a password or token.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user; forges that take a token ignore it.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// How `ssh` is run.
#[derive(Debug, Clone, Default)]
pub struct SshSettings {
    /// The private key's file; absent: as the user's own `ssh` finds one.
    pub key_file: Option<PathBuf>,
    /// The file of known hosts; absent: the user's own.
    pub known_hosts_file: Option<PathBuf>,
    /// Further options, each as for `ssh -o`.
    pub options: Vec<String>,
}

/// How often what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polling {
    /// How long the control plane may hold a poll.
    pub wait: Duration,
    /// The longest pause after failures.
    pub max_backoff: Duration,
    /// How often everything is checked for drift and reported though nothing changed.
    pub beat: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logging {
    /// The least level that is written.
    pub level: Level,
    /// For people or for programs.
    pub format: Format,
}

/// The least level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Text that is shown to nobody.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file does not fit.
    #[error("{}: {key}: {message}", .file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key, with dots.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Settings {
    /// Returns the settings of an agent that was told nothing but where to keep its state.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        Self {
            server: None,
            files: Some(FilesSettings {
                root: state_dir.join("files"),
                paths: None,
                overwrite: false,
                switch: Switch::default(),
            }),
            appliers: Appliers::default(),
            git: Some(GitSettings::new(state_dir.join("git"))),
            windows: Windows::default(),
            limits: Limits::default(),
            polling: Polling::default(),
            logging: Logging::default(),
            state_dir,
        }
    }

    /// Returns the settings from file, environment (through `env`) and flags.
    ///
    /// `config` and `state_dir` are the flags; `TITAN_AGENT_CONFIG` and `TITAN_STATE_DIR` stand in for them. A file
    /// that was named must exist; the usual one is read only if it does.
    pub fn load(
        config: Option<&Path>,
        state_dir: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let named = config.map(Path::to_owned).or_else(|| env("TITAN_AGENT_CONFIG").map(PathBuf::from));
        let path = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()));
        let file = match &path {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let state_dir = state_dir
            .map(Path::to_owned)
            .or_else(|| env("TITAN_STATE_DIR").map(PathBuf::from))
            .or_else(|| file.state_dir.clone())
            .unwrap_or_else(|| default_state_dir(&env));
        let state_dir = std::path::absolute(&state_dir).unwrap_or(state_dir);
        file.settings(state_dir, path.as_deref().unwrap_or(Path::new("the configuration")))
    }
}

impl GitSettings {
    /// Returns the settings of a sink that commits to `repository` and pushes nowhere.
    #[must_use]
    pub fn new(repository: impl Into<PathBuf>) -> Self {
        Self {
            repository: repository.into(),
            remote: None,
            branch: "main".to_owned(),
            path: String::new(),
            author: ("titan-agent".to_owned(), "titan-agent@localhost".to_owned()),
            credentials: None,
            ssh: SshSettings::default(),
            ca_file: None,
            attempts: 5,
            timeout: Duration::from_mins(1),
        }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30), max_backoff: Duration::from_mins(5), beat: Duration::from_mins(10) }
    }
}

/// Returns where state is kept if nobody says: the system's place for root, the user's own for anybody else.
fn default_state_dir(env: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let home = |rest: &str| env("HOME").map(|home| PathBuf::from(home).join(rest));
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/titan-agent");
    }
    let base = env("XDG_STATE_HOME").map(PathBuf::from).or_else(|| home(".local/state"));
    base.map_or_else(|| PathBuf::from("/var/lib/titan-agent"), |base| base.join("titan-agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(hidden)");
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("agent.yaml");
        std::fs::write(&file, "stateDir: /from/file\n").expect("file");
        let named = file.clone();
        let env = |key: &str| (key == "TITAN_STATE_DIR").then(|| OsString::from("/from/env"));
        let load = |flag: Option<&str>, env: &dyn Fn(&str) -> Option<OsString>| {
            Settings::load(Some(&named), flag.map(Path::new), env).expect("settings").state_dir
        };
        assert_eq!(load(Some("/from/flag"), &env), Path::new("/from/flag"));
        assert_eq!(load(None, &env), Path::new("/from/env"));
        assert_eq!(load(None, &|_| None), Path::new("/from/file"));
        let by_env = |key: &str| (key == "TITAN_AGENT_CONFIG").then(|| file.clone().into_os_string());
        assert_eq!(Settings::load(None, None, by_env).expect("settings").state_dir, Path::new("/from/file"));
    }

    #[test]
    fn without_a_file_everything_is_below_the_state_directory() {
        let settings = Settings::new("/s");
        assert_eq!(settings.files.expect("files").root, Path::new("/s/files"));
        assert_eq!(settings.git.expect("git").repository, Path::new("/s/git"));
    }
}
