//! A hot standby of the test binary's server.

use std::{path::PathBuf, process::Child};

use anyhow::Context as _;

use super::{SERVER, folder, programs, psql, run, succeed, unprivileged};
use crate::databases::Database;

/// A running hot standby; it ends with this value, or with this process.
#[derive(Debug)]
pub struct Standby {
    port: u16,
    folder: PathBuf,
    keeper: Child,
}

impl Standby {
    /// Copies the server that `database` is on, and follows it. `settings`: of the standby alone, `name=value`.
    pub fn of(database: &Database, settings: &[&str]) -> anyhow::Result<Self> {
        let server = SERVER.get().and_then(Option::as_ref).with_context(|| format!("no server has {database:?}"))?;
        let (programs, folder) = (programs()?, folder()?);
        succeed(
            unprivileged(&programs.join("pg_basebackup"))
                .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync"])
                .args(["-p", &server.port.to_string(), "-D"])
                .arg(folder.join("data")),
        )?;
        let (port, keeper) = run(&programs, &folder, settings)?;
        Ok(Self { port, folder, keeper })
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the address of `database` on the standby.
    #[must_use]
    pub fn url(&self, database: &Database) -> String {
        at(database, &self.address())
    }

    /// Runs a statement on the standby.
    pub fn execute(&self, sql: &str) -> anyhow::Result<()> {
        psql(self.port, sql)
    }

    /// Returns what the standby wrote to its log.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("log"))?)
    }

    /// Ends the standby.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        drop(self.keeper.stdin.take());
        self.keeper.wait()?;
        Ok(())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ended_already = self.stop();
    }
}

/// Returns the address of `database` as it is on another server.
#[must_use]
pub fn at(database: &Database, server: &str) -> String {
    let name = database.url.rsplit('/').next().unwrap_or_default();
    format!("postgres://postgres@{server}/{name}")
}
