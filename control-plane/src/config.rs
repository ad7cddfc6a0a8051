//! Configuration: defaults, then the file, then the environment and flags.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{connections::tls::Certificate, render::WorkerCommand, store::postgres_options};

/// Everything that can be set. The sample is `control-plane.sample.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS, spoken on that address instead of clear text.
    pub tls: Option<TlsConfig>,
    /// Connections at a time; as many as open files allow unless told.
    pub connections: Option<usize>,
    /// The database: `sqlite://FILE` or `postgres://...`.
    pub database_url: String,
    /// A hot standby of a PostgreSQL database, from which lists and histories are read.
    pub replica_url: Option<String>,
    /// Where the first admin token is written, at the first start.
    pub admin_token_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// Seconds between a host's polls, at least; grows with the fleet.
    pub poll_after_seconds: u32,
    /// Requests a second that one credential may make, polls aside; five seconds' worth may come at once.
    pub requests_per_second: u32,
    /// Processes that render.
    pub render_workers: usize,
    /// Seconds that held polls and requests get to finish at shutdown.
    pub shutdown_seconds: u64,
    /// How to start a process that renders; the binary itself unless told.
    #[serde(skip)]
    pub render_worker: Option<WorkerCommand>,
}

/// With what TLS is spoken. The files are read anew when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its root, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM; readable by its owner only.
    pub key: PathBuf,
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
            tls: None,
            connections: None,
            database_url: "sqlite://titan.db".to_owned(),
            replica_url: None,
            admin_token_file: None,
            log_format: LogFormat::default(),
            log_level: LogLevel::default(),
            poll_after_seconds: 5,
            requests_per_second: 1000,
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
    /// A file that a key names cannot be read.
    #[error("{key}: {} cannot be read", path.display())]
    Unread {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that a key names does not hold what it should.
    #[error("{key}: {} is not valid: {detail}", path.display())]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// There can be no such replica. The address is not told, for what may be in it.
    #[error("replicaUrl {0}")]
    Replica(&'static str),
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
        if !(1..=1_000_000).contains(&self.requests_per_second) {
            return range("requestsPerSecond", self.requests_per_second.to_string(), "1 to 1000000");
        }
        if self.shutdown_seconds > 600 {
            return range("shutdownSeconds", self.shutdown_seconds.to_string(), "at most 600");
        }
        if let Some(connections) = self.connections.filter(|count| !(1..=1_000_000).contains(count)) {
            return range("connections", connections.to_string(), "1 to 1000000");
        }
        if let Some(url) = &self.replica_url {
            check_replica(&self.database_url, url).map_err(ConfigError::Replica)?;
        }
        if let Some(tls) = &self.tls {
            Certificate::read(tls)?;
        }
        Ok(())
    }
}

/// Checks that `replica` can be a hot standby of `database`, by their addresses.
fn check_replica(database: &str, replica: &str) -> Result<(), &'static str> {
    if postgres_options(database).is_none() {
        return Err(
            "is set, but only a PostgreSQL database has replicas and databaseUrl names none; take replicaUrl away, \
             or set databaseUrl to postgres://...",
        );
    }
    if postgres_options(replica).is_none() {
        return Err("is no address of a PostgreSQL server; write postgres://USER@HOST/NAME of a hot standby, or take \
             the key away");
    }
    if replica == database {
        return Err("is the address in databaseUrl; name a hot standby of it, or take the key away");
    }
    Ok(())
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
        let database_url = "postgres://titan@db/titan".to_owned();
        Config { tls: None, database_url, ..parsed }.check().expect("in range");
        let keys = serde_json::to_value(Config::default()).expect("json");
        for key in keys.as_object().expect("object").keys() {
            assert!(open.iter().any(|line| line.starts_with(&format!("{key}:"))), "{key} is not in the sample");
        }
    }

    #[test]
    fn certificate_that_cannot_be_used_is_named_with_its_key_and_file() {
        let folder = tempfile::tempdir().expect("a directory");
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let config =
            Config { tls: Some(TlsConfig { certificate: certificate.clone(), key: key.clone() }), ..Config::default() };
        let error = || config.check().expect_err("not usable").to_string();
        assert_eq!(error(), format!("tls.certificate: {} cannot be read", certificate.display()));
        std::fs::write(&certificate, "no certificate").expect("written");
        assert_eq!(
            error(),
            format!("tls.certificate: {} is not valid: there is no certificate in it", certificate.display())
        );
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&certificate, pair.cert.pem()).expect("written");
        assert_eq!(error(), format!("tls.key: {} cannot be read", key.display()));
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&key, other.signing_key.serialize_pem()).expect("written");
        assert!(error().starts_with("tls.key: "), "it is the key of another certificate");
        std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
        config.check().expect("they belong together");
    }

    #[test]
    fn connections_are_within_their_range() {
        for (connections, fits) in [(0, false), (1, true), (1_000_000, true), (1_000_001, false)] {
            let config = Config { connections: Some(connections), ..Config::default() };
            assert_eq!(config.check().is_ok(), fits, "{connections}");
        }
    }

    /// S3-22.
    #[test]
    fn rates_are_within_their_range() {
        for (requests_per_second, fits) in [(0, false), (1, true), (1_000_000, true), (1_000_001, false)] {
            let config = Config { requests_per_second, ..Config::default() };
            assert_eq!(config.check().is_ok(), fits, "{requests_per_second}");
        }
    }

    /// S4-36.
    #[test]
    fn replica_that_cannot_be_one_is_refused_without_its_address() {
        let error = |database: &str, replica: &str| {
            let (database_url, replica_url) = (database.to_owned(), Some(replica.to_owned()));
            Config { database_url, replica_url, ..Config::default() }.check().err().map(|error| error.to_string())
        };
        let of_sqlite = error("sqlite://titan.db", "postgres://titan:secret@standby/titan").expect("refused");
        assert_eq!(
            of_sqlite,
            "replicaUrl is set, but only a PostgreSQL database has replicas and databaseUrl names none; take replicaUrl \
             away, or set databaseUrl to postgres://..."
        );
        let primary = "postgres://titan:secret@db/titan";
        for no_server in
            ["", "standby", "sqlite://copy.db", "mysql://titan:secret@db/x", "postgres://titan:secret@:x/y"]
        {
            assert_eq!(
                error(primary, no_server).expect(no_server),
                "replicaUrl is no address of a PostgreSQL server; write postgres://USER@HOST/NAME of a hot standby, or \
                 take the key away"
            );
        }
        assert!(error(primary, primary).is_some_and(|error| !error.contains("secret")), "the primary itself");
        assert_eq!(error(primary, "postgresql://titan:secret@standby/titan"), None);
    }

    #[test]
    fn unknown_and_bad_keys_are_named() {
        let error = |text: &str| Config::parse(Path::new("c.yaml"), text).expect_err(text).to_string();
        assert!(error("lisen: x").contains("lisen"));
        assert!(error("listen: nowhere").contains("listen"));
    }
}
