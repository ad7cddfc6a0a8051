//! How pods and volumes do, as podman tells it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::json;
use titan_api::{Digest, drift::Drift, limits};

use super::{
    libpod::{Ask, Libpod, LibpodError, PATIENCE, encode},
    lookups::{VolumeThere, find_pod, list},
    marks::{self, Labels, Mark, Whose, or_default},
    pods::Pod,
};
use crate::{
    apply::{Condition, Observation},
    claims::Claim,
};

/// For how long a container that came up again counts as one that does not stay up.
const SETTLES: Duration = Duration::from_secs(10);
/// For how long podman has the chance to start a container again by itself.
const RESTARTS: Duration = Duration::from_secs(3);
/// How many of the last lines of a container are asked for.
const LINES: &str = "400";

/// A container, as podman lists it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) names: Vec<String>,
    #[serde(default)]
    pod_name: String,
    #[serde(default)]
    pub(super) state: String,
    /// How its health is, where it has a check; newer versions add words of their own, which are none of these.
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    exit_code: i32,
    /// Seconds since the epoch.
    #[serde(default)]
    started_at: i64,
    #[serde(default)]
    exited_at: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
}

/// A container, as podman tells of it alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    restart_count: i64,
    state: InspectedState,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default, rename = "OOMKilled")]
    oom_killed: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    failing_streak: u32,
    #[serde(default, deserialize_with = "or_default")]
    log: Vec<Checked>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checked {
    #[serde(default)]
    exit_code: i32,
    #[serde(default)]
    output: String,
}

/// What was seen of a deployment's containers and volumes.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    pub(super) libpod: &'a Libpod,
    mark: &'a Mark,
    pub(super) containers: Vec<Listed>,
    volumes: BTreeMap<String, Labels>,
    /// Something is about to change by itself: when to look again.
    pub(super) again: Option<Duration>,
}

/// How one thing does, and how it differs from what was made.
pub(super) type Seen = (Condition, Option<&'static str>);

impl<'a> Sight<'a> {
    /// Looks at all containers that have the deployment's mark, and at `volumes` if there are to be some, whoever made them.
    pub(super) async fn take(libpod: &'a Libpod, mark: &'a Mark, volumes: bool) -> Result<Self, LibpodError> {
        let filters = json!({ "label": [mark.label()] });
        let containers = list(libpod, "/containers/json", &filters, PATIENCE).await?;
        let volumes: Vec<VolumeThere> = match volumes {
            true => list(libpod, "/volumes/json", &json!({}), PATIENCE).await?,
            false => Vec::new(),
        };
        let volumes = volumes.into_iter().map(|v| (v.name, v.labels)).collect();
        Ok(Self { libpod, mark, containers, volumes, again: None })
    }

    /// Returns how a volume does: one with data whoever made it, one of `config` if it is the deployment's own.
    pub(super) fn volume(&self, name: &str, config: bool) -> Seen {
        match self.volumes.get(name).map(|labels| self.mark.whose(labels)) {
            None => (Condition::Ill("there is no such volume".to_owned()), Some("missing")),
            Some(Whose::Nobody | Whose::Another) if config => {
                (Condition::Ill("another volume has its name".to_owned()), Some("replaced"))
            }
            Some(_) => (Condition::Well, None),
        }
    }

    /// Returns how a pod does.
    pub(super) async fn pod(&mut self, pod: &Pod, digest: &Digest) -> Result<Seen, LibpodError> {
        let of_pod = |there: &&Listed| there.pod_name == pod.name;
        let there: Vec<Listed> = self.containers.iter().filter(of_pod).cloned().collect();
        if there.is_empty() {
            let (why, how) = match find_pod(self.libpod, &pod.name, PATIENCE).await? {
                None => ("there is no such pod", "missing"),
                Some(found) if self.mark.whose(&found.labels) == Whose::Ours => {
                    ("the pod has no containers", "missing containers")
                }
                Some(_) => ("another pod has its name", "replaced"),
            };
            return Ok((Condition::Ill(why.to_owned()), Some(how)));
        }
        if there.iter().any(|there| !marks::fits(&there.labels, digest)) {
            return Ok((Condition::Ill("the pod is made from something else".to_owned()), Some("replaced")));
        }
        let mut worst: Seen = (Condition::Well, None);
        for name in &pod.containers {
            let is = |there: &&Listed| there.names.contains(name);
            let seen = match there.iter().find(is) {
                None => (Condition::Ill(format!("the container {name} is missing")), Some("missing containers")),
                Some(container) => self.container(name, container, pod.forever, pod.never_again).await?,
            };
            if seen.1.is_some() && worst.1.is_none() || weight(&seen.0) > weight(&worst.0) {
                worst = seen;
            }
        }
        Ok(worst)
    }

    /// Returns how a container does. `forever`: whether it is to run until it is stopped. `never`: whether it is not
    /// started again.
    pub(super) async fn container(
        &mut self,
        name: &str,
        there: &Listed,
        forever: bool,
        never: bool,
    ) -> Result<Seen, LibpodError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let since = |then: i64| now.checked_sub(u64::try_from(then).ok()?).map(Duration::from_secs);
        match there.state.as_str() {
            "running" if there.status == "unhealthy" => {
                Ok((Condition::Ill(self.story(&format!("{name} is unhealthy"), there, false).await?), None))
            }
            "running" => {
                if let Some(up) = since(there.started_at).filter(|up| *up < SETTLES) {
                    let inspected: Inspected = self.inspect(there).await?;
                    if inspected.restart_count > 0 {
                        self.look_again(SETTLES.saturating_sub(up) + Duration::from_secs(1));
                        let what = format!("{name} does not stay up: restarted {} times", inspected.restart_count);
                        return Ok((Condition::Ill(self.story(&what, there, true).await?), None));
                    }
                }
                if there.status == "starting" {
                    // Podman starts what failed its check again, and begins to count anew.
                    let health = self.inspect(there).await?.state.health;
                    if health.is_some_and(|health| health.failing_streak > 0) {
                        let what = format!("{name} fails its health check");
                        return Ok((Condition::Ill(self.story(&what, there, false).await?), None));
                    }
                    let why = format!("{name} runs, and its health check has not said yet that it is healthy");
                    return Ok((Condition::Starting(why), None));
                }
                Ok((Condition::Well, None))
            }
            "stopping" => {
                self.look_again(RESTARTS);
                Ok((Condition::Ill(format!("{name} is being stopped")), None))
            }
            "paused" => Ok((Condition::Ill(format!("{name} is paused")), Some("paused"))),
            "exited" | "stopped" | "dead" if !forever && there.exit_code == 0 => Ok((Condition::Well, None)),
            "exited" | "stopped" | "dead" => {
                let what = format!("{name} ended with {}", there.exit_code);
                let story = self.story(&what, there, true).await?;
                if never {
                    return Ok((Condition::Failed(story), None));
                }
                // Podman may be about to start it again.
                match since(there.exited_at).filter(|since| *since < RESTARTS) {
                    Some(_) => {
                        self.look_again(RESTARTS + Duration::from_secs(1));
                        Ok((Condition::Ill(story), None))
                    }
                    None => Ok((Condition::Ill(story), forever.then_some("stopped"))),
                }
            }
            // "created", "configured", "initialized", "removing": on the way somewhere, or left there by a failed start.
            state => Ok((Condition::Ill(format!("{name} is {state}, not running")), Some("stopped"))),
        }
    }

    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }

    async fn inspect(&self, there: &Listed) -> Result<Inspected, LibpodError> {
        self.libpod.read(Ask::get(&format!("/containers/{}/json", encode(&there.id)))).await
    }

    /// Returns what happened to a container with the last that it said.
    async fn story(&self, what: &str, there: &Listed, ended: bool) -> Result<String, LibpodError> {
        let mut text = what.to_owned();
        let inspected = self.inspect(there).await?;
        if ended && inspected.state.oom_killed {
            text.push_str(", out of memory");
        }
        if ended && !inspected.state.error.is_empty() {
            text.push_str(&format!(": {}", inspected.state.error));
        }
        let last = inspected.state.health.and_then(|health| health.log.into_iter().next_back());
        // One that failed its check is ended for that, and podman does not always start it again.
        if let Some(checked) = last.filter(|checked| checked.exit_code != 0) {
            text.push_str(&format!("; its health check ended with {}: {}", checked.exit_code, checked.output.trim()));
        }
        let said = self.said(there).await;
        if !said.trim().is_empty() {
            text.push_str(":\n");
            text.push_str(said.trim_end());
        }
        Ok(text)
    }

    /// Returns the last that a container wrote.
    async fn said(&self, there: &Listed) -> String {
        let path = format!("/containers/{}/logs", encode(&there.id));
        let ask = Ask::get(&path).with("stdout", "true").with("stderr", "true").with("tail", LINES);
        // What a log driver does not keep cannot be told.
        let said = self.libpod.ask(ask).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&frames(&said)).into_owned();
        let start = text.len().saturating_sub(limits::MESSAGE_BYTES);
        let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[start..].to_owned()
    }
}

/// How bad a condition is, for the worst of several.
const fn weight(condition: &Condition) -> u8 {
    match condition {
        Condition::Well => 0,
        Condition::Starting(_) => 1,
        Condition::Ill(_) => 2,
        Condition::Failed(_) => 3,
    }
}

/// Returns an observation of a claim.
pub(super) fn observation(claim: Claim, (condition, how): Seen) -> Observation {
    let drift = how.map(|how| Drift {
        what: claim.to_string(),
        how: how.to_owned(),
        diff: String::new(),
        found: None,
        repaired: false,
    });
    Observation { claim, condition, drift }
}

/// Returns what is in the frames of a log: eight bytes before each part say to which stream it went, and how long it is.
fn frames(mut log: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some((&[stream, 0, 0, 0, a, b, c, d], rest)) = log.split_first_chunk::<8>() {
        if stream > 2 {
            break;
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        text.extend_from_slice(&rest[..length.min(rest.len())]);
        log = &rest[length.min(rest.len())..];
    }
    // A container with a terminal has no frames.
    if text.is_empty() { log.to_vec() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_log_are_taken_off() {
        let log = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"hi\n", &[2, 0, 0, 0, 0, 0, 0, 200], b"cut short"].concat();
        assert_eq!(frames(&log), b"hi\ncut short");
        assert_eq!(frames(b"plain text, no frames"), b"plain text, no frames");
        assert_eq!(frames(b""), b"");
    }
}
