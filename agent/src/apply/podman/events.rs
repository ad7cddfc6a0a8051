//! Podman's events: whatever happens to containers of ours wakes the agent.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::json;
use titan_api::templates::Applier as Kind;

use super::{
    libpod::{Ask, Libpod},
    marks,
};
use crate::wake::Wake;

/// The shortest and the longest pause before podman is asked for its events again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many containers' health is remembered.
const CONTAINERS: usize = 1024;
/// What happens to containers that matters here.
const MATTERS: [&str; 11] =
    ["died", "die", "stop", "kill", "remove", "destroy", "pause", "unpause", "start", "oom", "restart"];

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default, alias = "status", alias = "Status")]
    status: String,
    #[serde(default, rename = "Actor")]
    actor: Actor,
    #[serde(default, rename = "HealthStatus", alias = "health_status")]
    health: String,
    /// Podman's program tells of the container here.
    #[serde(flatten)]
    container: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

/// Wakes the agent for as long as it is polled. What happens while there is no connection is made up for by waking it
/// once there is one again.
pub(super) async fn watch(libpod: Libpod, wake: Wake) {
    let mut pause = PAUSES.0;
    let filters = json!({ "type": ["container"] }).to_string();
    let mut healths = BTreeMap::new();
    loop {
        let ask = Ask::get("/events").with("stream", "true").with("filters", filters.clone());
        match libpod.lines(ask, None).await {
            Ok(mut lines) => {
                wake.stirred(Kind::Podman);
                pause = PAUSES.0;
                while let Ok(Some(line)) = lines.next().await {
                    if matters(&line, &mut healths) {
                        wake.stirred(Kind::Podman);
                    }
                }
                wake.stirred(Kind::Podman);
            }
            Err(error) => tracing::debug!("podman's events cannot be followed: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether an event may have changed how a deployment does, as podman's service, its program or Docker's tells of it. A
/// health check that says what it said before has not.
pub(in crate::apply) fn matters(line: &[u8], healths: &mut BTreeMap<String, String>) -> bool {
    let Ok(event) = serde_json::from_slice::<Event>(line) else { return false };
    let Event { status, actor, health, container } = event;
    let actor = if actor.attributes.is_empty() { container } else { actor };
    if ![marks::DEPLOYMENT, marks::HOME].iter().any(|mark| actor.attributes.contains_key(*mark)) {
        return false;
    }
    if !status.starts_with("health_status") {
        if matches!(status.as_str(), "remove" | "destroy") {
            healths.remove(&actor.id);
        }
        return MATTERS.contains(&status.as_str());
    }
    // It is told in a field of its own, or behind a colon, or not at all.
    let said = status.split_once(':').map_or(health, |(_, health)| health.trim().to_owned());
    if healths.len() >= CONTAINERS && !healths.contains_key(&actor.id) {
        healths.clear();
    }
    said.is_empty() || healths.insert(actor.id, said.clone()).is_none_or(|before| before != said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: &str, id: &str, ours: bool) -> Vec<u8> {
        let attributes =
            if ours { json!({ "titan.home": "default/x", "name": "web" }) } else { json!({ "name": "web" }) };
        json!({ "status": status, "Type": "container", "Actor": { "ID": id, "Attributes": attributes } })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn what_happens_to_containers_of_ours_wakes_the_agent() {
        let mut healths = BTreeMap::new();
        for (status, ours, expected) in [
            ("died", true, true),
            ("died", false, false),
            ("exec_died", true, false),
            ("remove", true, true),
            ("health_status: healthy", true, true),
            ("health_status: healthy", true, false),
            ("health_status: unhealthy", true, true),
            ("health_status: healthy", false, false),
        ] {
            assert_eq!(matters(&event(status, "1", ours), &mut healths), expected, "{status} {ours}");
        }
        assert!(!matters(b"not json", &mut healths));
        let told = br#"{"ID":"x","Image":"i","Name":"n","Status":"died","Type":"container","Attributes":{"titan.deployment":"x"}}"#;
        assert!(matters(told, &mut healths), "podman's program");
        let told = br#"{"status":"die","id":"x","from":"i","Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"titan.deployment":"x"}},"scope":"local","time":1}"#;
        assert!(matters(told, &mut healths), "Docker's program");
        for id in 0..2 * CONTAINERS {
            matters(&event("health_status: healthy", &id.to_string(), true), &mut healths);
        }
        assert!(healths.len() <= CONTAINERS);
    }
}
