//! Watches: the server says when an object of ours changes, so that nobody has to ask.
//!
//! One watch for each kind and namespace in which something is owned, of objects with an ApplySet's label. A watch that
//! breaks off is taken up where it was, with a pause that grows; while there is none, what was seen in its place does not
//! hold, and objects are looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use titan_api::templates::Applier as Kind;
use tokio::{runtime::Handle, task::AbortHandle};

use super::{
    applyset,
    client::{BODY_BYTES, CallError, encode},
    cluster::Cluster,
    objects::{Key, number, text},
    seen::Place,
};
use crate::wake::Wake;

/// How many watches there are at most; objects in further places are looked at every time.
pub(crate) const WATCHES: usize = 64;
/// How long one watch lasts before it is begun anew.
const LENGTH: Duration = Duration::from_mins(8);
/// The first and the longest pause before a watch that broke off is taken up.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long after the first news the agent is woken, so that all that comes with it is seen at once.
const GATHER: Duration = Duration::from_millis(200);

/// All watches of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    running: BTreeMap<Place, AbortHandle>,
}

impl Watches {
    /// Watches these places and no others.
    pub(crate) fn want(&mut self, io: &Handle, cluster: &Arc<Cluster>, wake: &Wake, places: &BTreeSet<Place>) {
        self.running.retain(|place, task| {
            let kept = places.contains(place);
            if !kept {
                task.abort();
                cluster.seen.watched(place, false);
            }
            kept
        });
        for place in places {
            if self.running.len() >= WATCHES || self.running.contains_key(place) {
                continue;
            }
            let watch = Watch { cluster: Arc::clone(cluster), wake: wake.clone(), place: place.clone(), version: None };
            self.running.insert(place.clone(), io.spawn(watch.run()).abort_handle());
        }
    }

    /// Ends all of them.
    pub(crate) fn end(&mut self) {
        std::mem::take(&mut self.running).values().for_each(AbortHandle::abort);
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.end();
    }
}

struct Watch {
    cluster: Arc<Cluster>,
    wake: Wake,
    place: Place,
    /// What was heard last.
    version: Option<String>,
}

/// How a watch came to its end.
enum Over {
    /// It lasted as long as it was to.
    InTime,
    /// What was heard last is too long ago to go on from there.
    TooOld,
    /// It broke off.
    Broken,
}

impl Watch {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            match self.once().await {
                Ok(Over::InTime) => pause = PAUSES.0,
                Ok(Over::TooOld) => {
                    self.version = None;
                    tokio::time::sleep(pause).await;
                }
                other => {
                    if let Err(error) = other {
                        tracing::debug!("{} cannot be watched: {error}", self.place.kind);
                        // What happens meanwhile may be told, but who knows.
                        self.cluster.seen.watched(&self.place, false);
                        self.wake.stirred(Kind::Kubernetes);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn once(&mut self) -> Result<Over, CallError> {
        let Place { group, kind, namespace } = &self.place;
        let found = self.cluster.discovery.any(&self.cluster.client, group, kind).await?;
        let Some(resource) = found else { return Ok(Over::Broken) };
        let version = self.version.as_ref().map_or_else(String::new, |version| format!("&resourceVersion={version}"));
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&labelSelector={}{version}",
            resource.collection(namespace),
            LENGTH.as_secs(),
            encode(applyset::PART_OF)
        );
        let mut response = self.cluster.client.stream(&path, LENGTH + Duration::from_secs(30)).await?;
        if self.version.is_none() {
            // From here on nothing goes unheard, and what is there already is told at once.
            self.cluster.seen.watched(&self.place, true);
        }
        let mut rest: Vec<u8> = Vec::new();
        let mut news = false;
        loop {
            let chunk = match news {
                false => response.chunk().await,
                true => match tokio::time::timeout(GATHER, response.chunk()).await {
                    Ok(chunk) => chunk,
                    Err(_) => {
                        news = false;
                        self.wake.stirred(Kind::Kubernetes);
                        continue;
                    }
                },
            };
            let over = match chunk {
                Ok(Some(chunk)) => {
                    rest.extend_from_slice(&chunk);
                    None
                }
                Ok(None) => Some(Over::InTime),
                Err(_) => Some(Over::Broken),
            };
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match self.hear(&line) {
                    Some(told) => news |= told,
                    None => return Ok(Over::TooOld),
                }
            }
            if rest.len() > BODY_BYTES {
                return Ok(Over::TooOld);
            }
            if let Some(over) = over {
                if news {
                    self.wake.stirred(Kind::Kubernetes);
                }
                return Ok(over);
            }
        }
    }

    /// Takes one line. Returns whether it tells of a change, or `None` if the watch has to begin anew.
    fn hear(&mut self, line: &[u8]) -> Option<bool> {
        let event: Value = serde_json::from_slice(line).ok()?;
        let object = event.get("object")?;
        let kind = text(&event, &["type"]);
        if kind == "ERROR" {
            let gone = number(object, &["code"]) == Some(410);
            tracing::debug!("the watch of {} ends: {}", self.place.kind, text(object, &["message"]));
            return (!gone && self.version.is_some()).then_some(false);
        }
        let metadata = |name| text(object, &["metadata", name]);
        if !metadata("resourceVersion").is_empty() {
            self.version = Some(metadata("resourceVersion").to_owned());
        }
        if kind == "BOOKMARK" {
            return Some(false);
        }
        let Place { group, kind, .. } = &self.place;
        self.cluster.seen.forget(&Key::new(group, kind, metadata("namespace"), metadata("name")));
        Some(true)
    }
}
