//! Configuration: defaults, then the file, then the environment and flags.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::render::WorkerCommand;

/// Everything that can be set. The sample is `control-plane.sample.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The database: `sqlite://FILE` or `postgres://...`.
    pub database_url: String,
    /// Where the first admin token is written, at the first start.
    pub admin_token_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// Seconds between a host's polls, at least; grows with the fleet.
    pub poll_after_seconds: u32,
    /// Processes that render.
    pub render_workers: usize,
    /// Seconds that held polls and requests get to finish at shutdown.
    pub shutdown_seconds: u64,
    /// How to start a process that renders; the binary itself unless told.
    #[serde(skip)]
    pub render_worker: Option<WorkerCommand>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs, an object a line.
    Json,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            database_url: "sqlite://titan.db".to_owned(),
            admin_token_file: None,
            log_format: LogFormat::default(),
            log_level: LogLevel::default(),
            poll_after_seconds: 5,
            render_workers: 2,
            shutdown_seconds: 20,
            render_worker: None,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file does not fit.
    #[error("the configuration {} is not valid: {key}: {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key at fault.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A value is out of its range.
    #[error("{key} is {value}; it must be {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
}

impl Config {
    /// Reads a file over the defaults.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &std::path::Path, text: &str) -> Result<Self, ConfigError> {
        let invalid = |key: String, detail: String| ConfigError::Invalid { path: path.to_owned(), key, detail };
        let yaml = serde_yaml::Deserializer::from_str(text);
        serde_path_to_error::deserialize(yaml)
            .map_err(|error| invalid(error.path().to_string(), error.inner().to_string()))
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: String, range| Err(ConfigError::Range { key, value, range });
        if !(1..=64).contains(&self.render_workers) {
            return range("renderWorkers", self.render_workers.to_string(), "1 to 64");
        }
        if !(1..=3600).contains(&self.poll_after_seconds) {
            return range("pollAfterSeconds", self.poll_after_seconds.to_string(), "1 to 3600");
        }
        if self.shutdown_seconds > 600 {
            return range("shutdownSeconds", self.shutdown_seconds.to_string(), "at most 600");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn sample_with_every_comment_mark_removed_is_every_key() {
        let sample = include_str!("../control-plane.sample.yaml");
        let open: Vec<_> = sample.lines().map(|line| line.strip_prefix("#:").map_or(line, str::trim_start)).collect();
        let parsed = Config::parse(Path::new("sample"), &open.join("\n")).expect("valid");
        parsed.check().expect("in range");
        let keys = serde_json::to_value(Config::default()).expect("json");
        for key in keys.as_object().expect("object").keys() {
            assert!(open.iter().any(|line| line.starts_with(&format!("{key}:"))), "{key} is not in the sample");
        }
    }

    #[test]
    fn unknown_and_bad_keys_are_named() {
        let error = |text: &str| Config::parse(Path::new("c.yaml"), text).expect_err(text).to_string();
        assert!(error("lisen: x").contains("lisen"));
        assert!(error("listen: nowhere").contains("listen"));
    }
}
