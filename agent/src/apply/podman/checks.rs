//! Health checks of containers on hosts without systemd: podman itself has systemd's timers run them, so that without it
//! nobody would.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    libpod::{Ask, Libpod, encode},
    sight::Listed,
};
use crate::{apply::appliers::Ground, background::Background};

/// How long a check may take at most.
const LONGEST: Duration = Duration::from_mins(5);
/// How long podman may take beyond the check itself: it starts what failed again before it answers.
const BEYOND: Duration = Duration::from_mins(2);
/// How often a container is checked at most.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs health checks where nobody else does.
#[derive(Debug)]
pub(super) struct Checks {
    needed: bool,
    running: Background<String, ()>,
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    every: Duration,
    timeout: Duration,
    due: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    healthcheck: Option<Check>,
}

/// Lengths are in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Check {
    interval: u64,
    timeout: u64,
}

impl Checks {
    pub(super) fn new(ground: &Ground) -> Self {
        Self {
            needed: !Path::new("/run/systemd/system").is_dir(),
            running: Background::new(ground.io.clone(), ground.wake.clone()),
            known: BTreeMap::new(),
        }
    }

    /// Has the checks run that are due, and returns how long it is to the next.
    pub(super) async fn run(&mut self, libpod: &Libpod, containers: &[Listed]) -> Option<Duration> {
        if !self.needed {
            return None;
        }
        let mut next = None;
        for container in containers {
            let checked = matches!(container.status.as_str(), "starting" | "healthy" | "unhealthy");
            if container.state != "running" || !checked {
                self.known.remove(&container.id);
                continue;
            }
            if !self.known.contains_key(&container.id) {
                let path = format!("/containers/{}/json", encode(&container.id));
                let Ok(inspected) = libpod.read::<Inspected>(Ask::get(&path)).await else { continue };
                let check = inspected.config.healthcheck.unwrap_or_default();
                let every = Duration::from_nanos(check.interval).max(SHORTEST);
                let timeout = Duration::from_nanos(check.timeout).clamp(SHORTEST, LONGEST) + BEYOND;
                self.known.insert(container.id.clone(), Known { every, timeout, due: Instant::now() });
            }
            let Some(known) = self.known.get_mut(&container.id) else { continue };
            let now = Instant::now();
            if known.due <= now {
                known.due = now + known.every;
                // What it found is told with the container the next time.
                let _seen_already = self.running.look(&container.id);
                let (libpod, id, timeout) = (libpod.clone(), container.id.clone(), known.timeout);
                self.running.start(container.id.clone(), async move {
                    let path = format!("/containers/{}/healthcheck", encode(&id));
                    let _told_with_the_container = libpod.ask(Ask::get(&path).within(timeout)).await;
                });
            }
            let wait = known.due.saturating_duration_since(now);
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
        }
        next
    }

    /// Forgets containers that are not there any more.
    pub(super) fn forget(&mut self) {
        self.known.retain(|_, known| known.due.elapsed() < LONGEST);
    }
}
