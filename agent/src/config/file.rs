//! `agent.yaml`: its shape, and how it becomes [`Settings`].

use std::path::{Path, PathBuf};

use serde::Deserialize;
use titan_api::{spans::Span, templates::check_path, windows::Windows};

use super::{
    ConfigError, Credentials, FilesSettings, Format, GitSettings, Level, Logging, Polling, Secret, Settings,
    SshSettings, appliers::Appliers,
};
use crate::spaces::Limits;

/// The least that `limits.stateBytes` may be: the ledger and a few small bundles.
const LEAST_STATE: u64 = 1024 * 1024;

/// The whole file. Unknown keys are refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigFile {
    /// The control plane's address.
    pub server: Option<String>,
    /// The directory with everything that the agent remembers.
    pub state_dir: Option<PathBuf>,
    /// What may be applied; only what is named here is allowed. Absent: `files` with its defaults.
    pub appliers: Option<Appliers>,
    /// The Git sink.
    pub git: Option<Git>,
    /// When things may be changed, as in `Mon-Fri 09:00-16:00 Europe/Berlin`; absent: always.
    pub windows: Option<Vec<String>>,
    /// What may be used of the host's disks.
    pub limits: Option<LimitKeys>,
    /// How often what is done.
    pub polling: Option<PollingKeys>,
    /// What is logged, and how.
    pub logging: Option<LoggingKeys>,
}

/// The Git sink.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Git {
    /// Whether anything is committed; yes unless told.
    pub enabled: Option<bool>,
    /// The local repository.
    pub repository: Option<PathBuf>,
    /// Where commits are pushed to.
    pub remote: Option<String>,
    /// The branch; `main` unless told.
    pub branch: Option<String>,
    /// Directory in the repository under which everything is kept.
    pub path: Option<String>,
    /// Who commits.
    pub author: Option<Author>,
    /// User name and password or token for HTTP(S).
    pub credentials: Option<CredentialKeys>,
    /// How `ssh` is run.
    pub ssh: Option<Ssh>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a push is tried anew when somebody else was faster.
    pub attempts: Option<u32>,
    /// How long one exchange with the remote may be silent.
    pub timeout: Option<Span>,
}

/// Who commits.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// User name and password or token, in the file or in a file of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CredentialKeys {
    /// The user; `titan` unless told, which is good for a token.
    pub username: Option<String>,
    /// The password or token.
    pub password: Option<Secret>,
    /// A file that holds the password or token.
    pub password_file: Option<PathBuf>,
}

/// How `ssh` is run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ssh {
    /// The private key's file.
    pub key_file: Option<PathBuf>,
    /// The file of known hosts.
    pub known_hosts_file: Option<PathBuf>,
    /// Further options, each as for `ssh -o`.
    pub options: Vec<String>,
}

/// What may be used of the host's disks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitKeys {
    /// How many bytes the state directory may hold; 1 GiB unless told.
    pub state_bytes: Option<u64>,
    /// How many bytes stay free on each disk; 16 MiB or a hundredth of the disk unless told, whichever is less.
    pub reserve_bytes: Option<u64>,
}

/// How often what is done.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PollingKeys {
    /// How long the control plane may hold a poll; at most 60 s.
    pub wait: Option<Span>,
    /// The longest pause after failures.
    pub max_backoff: Option<Span>,
    /// How often everything is checked for drift and reported though nothing changed.
    pub beat: Option<Span>,
}

/// What is logged, and how.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoggingKeys {
    /// The least level that is written.
    pub level: Level,
    /// For people or for programs.
    pub format: Format,
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Returns `text` as a file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(blank) {
            return Ok(Self::default());
        }
        serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Key { file: path.to_owned(), key, message: error.into_inner().to_string() }
        })
    }

    /// Returns the settings, with defaults where the file is silent; `path` is for messages.
    pub fn settings(self, state_dir: PathBuf, path: &Path) -> Result<Settings, ConfigError> {
        let fault =
            |key: &str, message: String| ConfigError::Key { file: path.to_owned(), key: key.to_owned(), message };
        let mut settings = Settings::new(state_dir);
        if let Some(server) = &self.server
            && !(server.starts_with("http://") || server.starts_with("https://"))
        {
            return Err(fault("server", format!("{server:?} does not begin with http:// or https://")));
        }
        settings.server = self.server;
        if let Some(appliers) = self.appliers {
            let default_root = settings.state_dir.join("files");
            settings.files = appliers.files.clone().map(|files| FilesSettings {
                root: files.root.unwrap_or(default_root),
                paths: files.paths,
                overwrite: files.overwrite,
                switch: files.switch,
            });
            settings.appliers = appliers;
        }
        if let Some(root) = settings.files.as_ref().map(|files| &files.root).filter(|root| !root.is_absolute()) {
            return Err(fault("appliers.files.root", format!("{} is not absolute", root.display())));
        }
        if let Some(git) = self.git {
            settings.git = git.settings(settings.git.take(), &fault)?;
        }
        if let Some(windows) = &self.windows {
            settings.windows =
                Windows::parse(windows).map_err(|(index, message)| fault(&format!("windows[{index}]"), message))?;
        }
        if let Some(LimitKeys { state_bytes, reserve_bytes }) = self.limits {
            let state_bytes = state_bytes.unwrap_or(settings.limits.state_bytes);
            if state_bytes < LEAST_STATE {
                let message =
                    format!("{state_bytes} bytes are too few for anything; at least {LEAST_STATE} are needed");
                return Err(fault("limits.stateBytes", message));
            }
            settings.limits = Limits { state_bytes, reserve_bytes };
        }
        if let Some(polling) = self.polling {
            settings.polling = polling.settings(&fault)?;
        }
        if let Some(LoggingKeys { level, format }) = self.logging {
            settings.logging = Logging { level, format };
        }
        Ok(settings)
    }
}

impl Git {
    fn settings(
        self,
        defaults: Option<GitSettings>,
        fault: &impl Fn(&str, String) -> ConfigError,
    ) -> Result<Option<GitSettings>, ConfigError> {
        let Some(mut git) = defaults.filter(|_| self.enabled != Some(false)) else { return Ok(None) };
        if let Some(repository) = self.repository {
            git.repository = repository;
        }
        if !git.repository.is_absolute() {
            return Err(fault("git.repository", format!("{} is not absolute", git.repository.display())));
        }
        git.remote = self.remote;
        if let Some(remote) = &git.remote {
            crate::git::remote::Address::parse(remote).map_err(|error| fault("git.remote", error.to_string()))?;
        }
        git.branch = self.branch.unwrap_or(git.branch);
        if !git2::Reference::is_valid_name(&format!("refs/heads/{}", git.branch)) {
            return Err(fault("git.branch", format!("{:?} is not a branch's name", git.branch)));
        }
        git.path = self.path.unwrap_or_default().trim_matches('/').to_owned();
        if !git.path.is_empty() {
            check_path(&git.path).map_err(|error| fault("git.path", format!("{:?} is refused: {error}", git.path)))?;
        }
        if let Some(Author { name, email }) = self.author {
            git2::Signature::now(&name, &email).map_err(|error| fault("git.author", error.message().to_owned()))?;
            git.author = (name, email);
        }
        git.credentials = self.credentials.map(|keys| keys.settings(fault)).transpose()?;
        if let Some(ssh) = self.ssh {
            if let Some(bad) = ssh.options.iter().find(|option| !option.contains('=')) {
                return Err(fault("git.ssh.options", format!("{bad:?} is not of the form Key=value")));
            }
            git.ssh =
                SshSettings { key_file: ssh.key_file, known_hosts_file: ssh.known_hosts_file, options: ssh.options };
        }
        git.ca_file = self.ca_file;
        git.attempts = self.attempts.unwrap_or(git.attempts).max(1);
        git.timeout = self.timeout.map_or(git.timeout, |span| span.0);
        Ok(Some(git))
    }
}

impl CredentialKeys {
    fn settings(self, fault: &impl Fn(&str, String) -> ConfigError) -> Result<Credentials, ConfigError> {
        let password = match (self.password, self.password_file) {
            (Some(password), None) => password,
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    fault("git.credentials.passwordFile", format!("{} cannot be read: {error}", file.display()))
                })?;
                Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            _ => return Err(fault("git.credentials", "it needs either password or passwordFile".to_owned())),
        };
        Ok(Credentials { username: self.username.unwrap_or_else(|| "titan".to_owned()), password })
    }
}

impl PollingKeys {
    fn settings(self, fault: &impl Fn(&str, String) -> ConfigError) -> Result<Polling, ConfigError> {
        let defaults = Polling::default();
        let polling = Polling {
            wait: self.wait.map_or(defaults.wait, |span| span.0),
            max_backoff: self.max_backoff.map_or(defaults.max_backoff, |span| span.0),
            beat: self.beat.map_or(defaults.beat, |span| span.0),
        };
        if polling.wait.as_secs() > titan_api::limits::WAIT_SECONDS {
            let message = format!("at most {} s are allowed", titan_api::limits::WAIT_SECONDS);
            return Err(fault("polling.wait", message));
        }
        if polling.max_backoff.is_zero() || polling.beat.is_zero() {
            return Err(fault("polling", "maxBackoff and beat must be longer than nothing".to_owned()));
        }
        Ok(polling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, ConfigError> {
        let path = Path::new("agent.yaml");
        ConfigFile::parse(text, path)?.settings(PathBuf::from("/s"), path)
    }

    #[test]
    fn the_sample_with_every_key_is_accepted() {
        let sample = include_str!("../../agent.sample.yaml");
        let keys = |line: &str| {
            let bare = line.strip_prefix('#').map_or_else(|| line.to_owned(), |rest| format!(" {rest}"));
            let key = bare.split(':').next().unwrap_or_default();
            let is_key = bare.contains(':') && !key.trim().is_empty() && !key.trim().contains(' ');
            is_key.then_some(bare)
        };
        let text: Vec<_> = sample.lines().filter_map(keys).collect();
        let settings = load(&text.join("\n")).expect("sample");
        let git = settings.git.expect("git");
        assert_eq!(git.path, "hosts/tim-pi");
        assert_eq!(git.credentials.expect("credentials").username, "titan");
        assert!(load(sample).is_ok(), "as it stands");
    }

    #[test]
    fn the_sample_has_every_key_of_every_applier() {
        let sample = include_str!("../../agent.sample.yaml");
        let (_, sample) = sample.split_once("\nappliers:\n").expect("appliers");
        let (sample, _) = sample.split_once("\ngit:\n").expect("git");
        let keys = |refused: ConfigError| -> Vec<String> {
            let message = refused.to_string();
            let (_, expected) = message.split_once("expected one of ").expect("the keys that there are");
            expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let lines: Vec<_> = sample.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
        for applier in keys(load("appliers: { no: 1 }").expect_err("a key")) {
            let from =
                lines.iter().position(|line| *line == format!("{applier}:")).unwrap_or_else(|| panic!("{applier}"));
            let section: Vec<_> = lines[from..].iter().take_while(|line| !line.is_empty()).collect();
            for key in keys(load(&format!("appliers: {{ {applier}: {{ no: 1 }} }}")).expect_err("a key")) {
                assert!(section.iter().any(|line| line.starts_with(&format!("{key}:"))), "{applier}.{key}");
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_key_and_file() {
        let message = load("git: { remot: x }").expect_err("key").to_string();
        assert!(message.starts_with("agent.yaml: git") && message.contains("remot"), "{message}");
        let message = load("servr: http://x").expect_err("key").to_string();
        assert!(message.contains("servr"), "{message}");
    }

    #[test]
    fn only_appliers_that_are_named_are_allowed() {
        assert!(load("appliers: {}").expect("settings").files.is_none());
        assert_eq!(
            load("appliers: { files: { root: /srv/titan } }").expect("settings").files.expect("files").root,
            Path::new("/srv/titan")
        );
        assert!(load("").expect("settings").files.is_some());
    }

    #[test]
    fn values_that_make_no_sense_name_their_key() {
        for (text, key) in [
            ("server: localhost", "server"),
            ("appliers: { files: { root: srv } }", "appliers.files.root"),
            ("git: { path: ../x }", "git.path"),
            ("git: { branch: 'a b' }", "git.branch"),
            ("git: { remote: 'https://user:pw@forge/x' }", "git.remote"),
            ("git: { remote: 'ext::sh -c x' }", "git.remote"),
            ("git: { ssh: { options: [x] } }", "git.ssh.options"),
            ("git: { credentials: { username: x } }", "git.credentials"),
            ("windows: ['* 00:00-24:00', 'Mon 9-10']", "windows[1]"),
            ("limits: { stateBytes: 1000 }", "limits.stateBytes"),
            ("limits: { reserveBytes: -1 }", "limits.reserveBytes"),
            ("polling: { wait: 61s }", "polling.wait"),
            ("polling: { wait: 10 }", "polling.wait"),
        ] {
            let message = load(text).expect_err(text).to_string();
            assert!(message.contains(&format!("{key}:")), "{text}: {message}");
        }
        assert!(load("git: { enabled: false }").expect("settings").git.is_none());
    }
}
