//! What podman has under a name. It is asked for lists, of which only the very name counts: asked for one thing, podman
//! takes a name that nothing has for the beginning of an id or of another name, and tells of somebody else's.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    libpod::{Ask, Libpod, LibpodError, PATIENCE},
    marks::{Labels, or_default},
    sight::Listed,
};
use crate::claims::Claim;

/// How often a list is asked for, with a pause between: the whole of it fails where a thing goes while it is made.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// A pod as podman lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PodThere {
    pub(super) id: String,
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) containers: Vec<ContainerThere>,
}

/// A container of a pod as podman lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerThere {
    #[serde(rename = "Names")]
    pub(super) name: String,
    #[serde(default, rename = "Status")]
    pub(super) state: String,
}

/// A volume as podman lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeThere {
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
}

/// A network as podman lists it.
#[derive(Debug, Deserialize)]
pub(super) struct NetworkThere {
    pub(super) id: String,
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
}

/// Returns what `filters` leave of everything at `path`, which has `all` of it on request.
pub(super) async fn list<T: DeserializeOwned>(
    libpod: &Libpod,
    path: &str,
    filters: &Value,
    patience: Duration,
) -> Result<Vec<T>, LibpodError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let ask = Ask::get(path).with("all", "true").with("filters", filters.to_string()).within(patience);
        match libpod.read::<Option<Vec<T>>>(ask).await {
            Err(LibpodError::Said(_) | LibpodError::Missing(_)) if tries > 0 => tokio::time::sleep(PAUSE).await,
            // An empty list is `null` in some versions.
            listed => return listed.map(Option::unwrap_or_default),
        }
    }
}

/// Returns the pod of this name.
pub(super) async fn find_pod(libpod: &Libpod, name: &str, patience: Duration) -> Result<Option<PodThere>, LibpodError> {
    let listed = list(libpod, "/pods/json", &exactly(name), patience).await?;
    Ok(listed.into_iter().find(|there: &PodThere| there.name == name))
}

/// Returns the volume of this name.
pub(super) async fn find_volume(
    libpod: &Libpod,
    name: &str,
    patience: Duration,
) -> Result<Option<VolumeThere>, LibpodError> {
    let listed = list(libpod, "/volumes/json", &named(name), patience).await?;
    Ok(listed.into_iter().find(|there: &VolumeThere| there.name == name))
}

/// Returns the network of this name.
pub(super) async fn find_network(libpod: &Libpod, name: &str) -> Result<Option<NetworkThere>, LibpodError> {
    let listed = list(libpod, "/networks/json", &named(name), PATIENCE).await?;
    Ok(listed.into_iter().find(|there: &NetworkThere| there.name == name))
}

/// Returns the labels of what a claim is about, if that is there.
pub(super) async fn find_labels(libpod: &Libpod, claim: &Claim) -> Result<Option<Labels>, LibpodError> {
    let name = &claim.name;
    Ok(match claim.kind.as_str() {
        "pod" => find_pod(libpod, name, PATIENCE).await?.map(|pod| pod.labels),
        "volume" => find_volume(libpod, name, PATIENCE).await?.map(|volume| volume.labels),
        "network" => find_network(libpod, name).await?.map(|network| network.labels),
        _ => {
            let listed: Vec<Listed> = list(libpod, "/containers/json", &exactly(name), PATIENCE).await?;
            listed.into_iter().find(|there| there.names.contains(name)).map(|there| there.labels)
        }
    })
}

/// Leaves what has the name, and perhaps more: some versions take it for a pattern.
fn named(name: &str) -> Value {
    json!({ "name": [name] })
}

/// Leaves pods or containers of the name, for which every version takes a pattern. Others are not even looked at: podman
/// does not tell of what it is stopping.
fn exactly(name: &str) -> Value {
    json!({ "name": [format!("^{name}$")] })
}
