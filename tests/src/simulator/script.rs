//! What a fleet does: a script, from a YAML file or made in code.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::simulator::{churn::Weights, pace::Absence};

/// What carries the polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// A kept connection for each agent, HTTP/1.1.
    Own,
    /// HTTP/2 over a few connections, as behind a gateway.
    Mux,
    /// A new connection for each poll, HTTP/1.1.
    Once,
}

/// What a fleet does. Times are in seconds, shares from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Script {
    /// How long it runs before everything is compared.
    pub seconds: f64,
    /// What carries the polls.
    pub carrier: Carrier,
    /// Connections of [`Carrier::Mux`].
    pub connections: usize,
    /// Whether connections are encrypted. A control plane that the simulator starts then gets a certificate.
    pub tls: bool,
    /// Whether handshakes resume a session where they can.
    pub resumption: bool,
    /// How often each agent polls; absent: as often as the control plane says.
    pub cadence: Option<f64>,
    /// Over how long the first polls are spread; absent: one cadence, at most 30 s.
    pub ramp: Option<f64>,
    /// How long polls are held.
    pub wait: u64,
    /// The longest pause after failures.
    pub longest_backoff: f64,
    /// Whether answers may be compressed.
    pub gzip: bool,
    /// Share of answers that are read and then lost.
    pub lost: f64,
    /// Share of agents that read answers slowly.
    pub slow: f64,
    /// Share of agents that are away at a time.
    pub offline: f64,
    /// How long each is away.
    pub offline_period: f64,
    /// How often every connection is dropped and all agents reconnect at once; 0: never.
    pub storm_every: f64,
    /// How often the control plane is restarted, if the simulator started it; 0: never.
    pub restart_every: f64,
    /// Whether agents report what they did after each change; they always confirm removals.
    pub reports: bool,
    /// Changes of phase a second that some agent reports.
    pub phases_per_second: f64,
    /// Writes a second through the API.
    pub changes_per_second: f64,
    /// What is written, by weight.
    pub changes: Weights,
    /// Share of changed answers whose bundles are checked byte for byte.
    pub verify: f64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            seconds: 30.0,
            carrier: Carrier::Mux,
            connections: 64,
            tls: false,
            resumption: true,
            cadence: None,
            ramp: None,
            wait: 0,
            longest_backoff: 30.0,
            gzip: false,
            lost: 0.0,
            slow: 0.0,
            offline: 0.0,
            offline_period: 10.0,
            storm_every: 0.0,
            restart_every: 0.0,
            reports: false,
            phases_per_second: 0.0,
            changes_per_second: 0.0,
            changes: Weights::default(),
            verify: 0.01,
        }
    }
}

impl Script {
    /// Reads a file over the defaults and checks it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let script: Self = serde_yaml::from_str(&text).with_context(|| format!("{} is no script", path.display()))?;
        script.check()?;
        Ok(script)
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> anyhow::Result<()> {
        for (key, share) in
            [("lost", self.lost), ("slow", self.slow), ("offline", self.offline), ("verify", self.verify)]
        {
            ensure!((0.0..=1.0).contains(&share), "{key} is {share}; it is a share from 0 to 1");
        }
        let times = [
            ("seconds", self.seconds),
            ("cadence", self.cadence.unwrap_or_default()),
            ("ramp", self.ramp.unwrap_or_default()),
            ("longestBackoff", self.longest_backoff),
            ("offlinePeriod", self.offline_period),
            ("stormEvery", self.storm_every),
            ("restartEvery", self.restart_every),
            ("phasesPerSecond", self.phases_per_second),
            ("changesPerSecond", self.changes_per_second),
        ];
        for (key, value) in times {
            ensure!((0.0..=86_400.0).contains(&value), "{key} is {value}; it must be 0 to 86400");
        }
        ensure!(self.connections > 0 || self.carrier != Carrier::Mux, "connections is 0; at least one is needed");
        ensure!(self.wait <= titan_api::limits::WAIT_SECONDS, "wait is {}; at most 60", self.wait);
        Ok(())
    }

    /// Returns how often each agent polls, if the script says so.
    #[must_use]
    pub fn cadence(&self) -> Option<Duration> {
        self.cadence.map(Duration::from_secs_f64)
    }

    /// Returns who is away.
    #[must_use]
    pub fn absence(&self) -> Absence {
        Absence { share: self.offline, period: Duration::from_secs_f64(self.offline_period) }
    }

    /// Returns over how long the first polls are spread.
    #[must_use]
    pub fn ramp(&self) -> Duration {
        Duration::from_secs_f64(self.ramp.unwrap_or_else(|| self.cadence.unwrap_or(5.0).min(30.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Script> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Script::read(file.path())
    }

    #[test]
    fn sample_with_every_comment_mark_removed_is_the_default_with_every_key() {
        let sample = include_str!("../../fleet-sim.sample.yaml");
        let open: Vec<_> = sample.lines().map(|line| line.strip_prefix("#:").map_or(line, str::trim_start)).collect();
        assert_eq!(read(&open.join("\n")).expect("a script"), Script::default());
        let keys = serde_json::to_value(Script::default()).expect("json");
        for key in keys.as_object().expect("object").keys() {
            assert!(open.iter().any(|line| line.starts_with(&format!("{key}:"))), "{key} is not in the sample");
        }
    }

    #[test]
    fn scripts_are_read_strictly() {
        let script = read("seconds: 5\ncarrier: own\ncadence: 0.5\nchanges: { relabel: 3 }\n").expect("a script");
        assert_eq!(
            (script.carrier, script.cadence(), script.changes.relabel),
            (Carrier::Own, Some(Duration::from_millis(500)), 3)
        );
        let told = |text: &str| format!("{:#}", read(text).expect_err(text));
        assert!(told("cadense: 1").contains("cadense"));
        assert!(told("lost: 2").contains("share"));
        assert!(told("wait: 61").contains("wait"));
        assert!(told("connections: 0").contains("connections"));
        assert!(told("cadence: -1").contains("cadence"));
    }
}
