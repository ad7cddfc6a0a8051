//! Errands: what it takes to bring one deployment's pods and volumes to what they are to be, run in the background since
//! a container may take its time to stop. Each looks at what is there first, so it may be begun again after any cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use titan_api::Digest;
use tokio::sync::RwLock;

use super::{
    libpod::{Ask, Libpod, LibpodError, encode},
    lookups::{ContainerThere, find_pod, find_volume},
    marks::{self, Mark, Whose, or_default},
    references::Mount,
};
use crate::{claims::Claim, faults::fault};

/// How long podman may take to tell of one thing: it waits while it stops a container of it.
const LOOK: Duration = Duration::from_mins(1);
/// How long podman may take to make and start one pod.
const PLAY: Duration = Duration::from_mins(3);
/// How long podman may take beyond what the containers themselves have for their end.
const BEYOND: Duration = Duration::from_secs(30);
/// How often a pod is tried, with a pause between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// The pause before an errand that podman did not answer is run again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long containers have for their end if nothing says so, in seconds.
const GRACE: u64 = 10;

/// What is to be brought about.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) mark: Mark,
    pub(super) home: PathBuf,
    /// Directories of the host that may be mounted.
    pub(super) roots: Vec<PathBuf>,
    /// Pods and volumes that are to go.
    pub(super) down: BTreeSet<Claim>,
    /// Volumes that are to be there.
    pub(super) volumes: Vec<WantedVolume>,
    /// Pods that are to run.
    pub(super) pods: Vec<WantedPod>,
    /// Whether what nobody marked may be replaced.
    pub(super) adopt: bool,
    /// What may be replaced though it has no mark, since the ledger says whose it is.
    pub(super) owned: BTreeSet<Claim>,
    /// What may be replaced though it has the mark of another deployment, since the ledger says that it was left to this one.
    pub(super) left: BTreeSet<Claim>,
    /// Held by whatever stops a pod of the deployment. Podman goes on stopping though nobody waits for it any more, so
    /// that whoever comes next would see a pod that runs for now.
    pub(super) stops: Arc<RwLock<()>>,
}

/// A pod that is to run.
#[derive(Debug)]
pub(super) struct WantedPod {
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) grace: u64,
    pub(super) containers: Vec<String>,
    /// Whether they are to run for ever.
    pub(super) forever: bool,
    pub(super) mounts: Vec<Mount>,
    /// What podman is to play.
    pub(super) play: String,
}

/// A volume that is to be there.
#[derive(Debug)]
pub(super) struct WantedVolume {
    pub(super) name: String,
    pub(super) digest: Digest,
    /// Whether it goes with its deployment.
    pub(super) goes: bool,
    /// Whether podman fills it anew from the bundle.
    pub(super) config: bool,
}

/// Why a claim is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Something is in its place that the agent did not make.
    Foreign,
    /// Podman did not do it.
    Failed(String),
    /// Podman did not answer: it is tried again.
    Unreachable(String),
}

impl Trouble {
    /// Whether the errand has to be run again. `leaving`: whether what it is about was to go, which the ledger does not
    /// know of any more.
    pub(super) const fn leaves_to_do(&self, leaving: bool) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Failed(_) => leaving,
            Self::Foreign => false,
        }
    }
}

/// What came of an errand: nothing for whatever went well.
pub(super) type Troubles = BTreeMap<Claim, Trouble>;

/// What podman says after it played something.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Played {
    #[serde(default, deserialize_with = "or_default")]
    pods: Vec<PlayedPod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PlayedPod {
    #[serde(default, deserialize_with = "or_default")]
    container_errors: Vec<String>,
}

impl From<LibpodError> for Trouble {
    fn from(error: LibpodError) -> Self {
        match error {
            LibpodError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Errand {
    /// Does it, and returns what went wrong. One failure leaves the rest to be done.
    pub(super) async fn run(self, libpod: Libpod) -> Troubles {
        drop(self.stops.write().await);
        let mut troubles = Troubles::new();
        let mut play = Vec::new();
        let mut stop = Vec::new();
        for pod in &self.pods {
            let claim = Claim::new("pod", &pod.name);
            match self.look(&libpod, pod, &claim).await {
                Ok(Way::Stays) => {}
                Ok(Way::Made) => play.push(pod),
                Ok(Way::Replaced(id)) => {
                    stop.push((claim, id, pod.grace));
                    play.push(pod);
                }
                Err(trouble) => drop(troubles.insert(claim, trouble)),
            }
        }
        for claim in self.down.iter().filter(|claim| claim.kind == "pod") {
            match find_pod(&libpod, &claim.name, LOOK).await {
                Ok(Some(there)) if self.mark.whose(&there.labels) == Whose::Ours => {
                    stop.push((claim.clone(), there.id, GRACE));
                }
                // Not there, or not ours any more.
                Ok(_) => {}
                Err(error) => drop(troubles.insert(claim.clone(), error.into())),
            }
        }
        let mut stopping = Vec::new();
        for (claim, id, grace) in stop {
            let (libpod, held) = (libpod.clone(), Arc::clone(&self.stops).read_owned().await);
            stopping.push(tokio::spawn(async move {
                let taken = take_pod(&libpod, &claim.name, &id, grace).await;
                drop(held);
                (taken, claim)
            }));
        }
        for ended in stopping {
            if let Ok((Err(error), claim)) = ended.await {
                troubles.insert(claim, error.into());
            }
        }
        fault!("pods-stopped");
        for claim in self.down.iter().filter(|claim| claim.kind == "volume") {
            if let Err(error) = self.let_go(&libpod, &claim.name).await {
                troubles.insert(claim.clone(), error.into());
            }
        }
        for volume in &self.volumes {
            if let Err(trouble) = self.put_volume(&libpod, volume).await {
                troubles.insert(Claim::new("volume", &volume.name), trouble);
            }
        }
        fault!("volumes-made");
        for pod in play {
            let claim = Claim::new("pod", &pod.name);
            if troubles.contains_key(&claim) {
                continue;
            }
            if let Err(trouble) = self.play(&libpod, pod).await {
                troubles.insert(claim, trouble);
            }
            fault!("pod-played");
        }
        if troubles.iter().any(|(claim, trouble)| trouble.leaves_to_do(self.down.contains(claim))) {
            tokio::time::sleep(AGAIN).await;
        }
        troubles
    }

    /// Returns what has to be done about a pod. One that is as it should be and only stopped is started at once.
    async fn look(&self, libpod: &Libpod, pod: &WantedPod, claim: &Claim) -> Result<Way, Trouble> {
        let Some(there) = find_pod(libpod, &pod.name, LOOK).await? else { return Ok(Way::Made) };
        let (id, labels) = (there.id, there.labels);
        match self.mark.whose(&labels) {
            Whose::Ours => {}
            Whose::Nobody if self.adopt || self.owned.contains(claim) => return Ok(Way::Replaced(id)),
            // What another deployment of the ledger owns is not claimed by this one at all: it was left to this one, or its
            // deployment is gone.
            Whose::Another if self.adopt || self.left.contains(claim) => return Ok(Way::Replaced(id)),
            Whose::Nobody | Whose::Another => return Err(Trouble::Foreign),
        }
        let containers = there.containers;
        let complete = pod.containers.iter().all(|name| containers.iter().any(|there| there.name == *name));
        if !marks::fits(&labels, &pod.digest) || !complete {
            return Ok(Way::Replaced(id));
        }
        let is = |state: &str| containers.iter().any(|there| there.state == state);
        let path = |verb: &str| format!("/pods/{}/{verb}", encode(&id));
        if is("paused") {
            libpod.ask(Ask::post(&path("unpause")).within(PLAY)).await?;
        }
        let down = |there: &&ContainerThere| {
            let ended = there.state == "exited" || there.state == "stopped";
            pod.containers.contains(&there.name) && there.state != "running" && (pod.forever || !ended)
        };
        if containers.iter().find(down).is_some_and(|there| there.state != "paused") {
            // One that does not start that way is made anew.
            if libpod.ask(Ask::post(&path("start")).within(PLAY)).await.is_err() {
                return Ok(Way::Replaced(id));
            }
        }
        Ok(Way::Stays)
    }

    async fn play(&self, libpod: &Libpod, pod: &WantedPod) -> Result<(), Trouble> {
        if let Some(mount) = pod.mounts.iter().find(|mount| !mount.stays(&self.home, &self.roots)) {
            let path = mount.path(&self.home);
            let message = format!("{} leads out of what may be mounted; a link is in the way", path.display());
            return Err(Trouble::Failed(message));
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let ask = Ask::post("/play/kube").with("start", "true");
            let body = pod.play.clone();
            match libpod.read::<Played>(ask.body("application/yaml", body).within(PLAY)).await {
                Ok(played) => {
                    let errors = played.pods.into_iter();
                    let errors: Vec<_> = errors.flat_map(|pod| pod.container_errors).collect();
                    return if errors.is_empty() { Ok(()) } else { Err(Trouble::Failed(errors.join("; "))) };
                }
                Err(error) if attempt < ATTEMPTS => {
                    tracing::debug!("the pod {} is tried again: {error}", pod.name);
                    tokio::time::sleep(PAUSE).await;
                    let claim = Claim::new("pod", &pod.name);
                    // Half of it may be there, or the other half of one that was cut short.
                    match self.look(libpod, pod, &claim).await? {
                        Way::Stays => return Ok(()),
                        Way::Made => {}
                        Way::Replaced(id) => take_pod(libpod, &pod.name, &id, pod.grace).await?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn put_volume(&self, libpod: &Libpod, volume: &WantedVolume) -> Result<(), Trouble> {
        if let Some(there) = find_volume(libpod, &volume.name, LOOK).await? {
            let labels = there.labels;
            let claim = Claim::new("volume", &volume.name);
            match self.mark.whose(&labels) {
                Whose::Ours if !volume.config || marks::fits(&labels, &volume.digest) => return Ok(()),
                Whose::Ours => {}
                // What is in it is somebody's: it is used as it is, and stays when the deployment leaves.
                Whose::Nobody if !(self.adopt || self.owned.contains(&claim)) => return Err(Trouble::Foreign),
                Whose::Another if !(self.adopt || self.left.contains(&claim)) => return Err(Trouble::Foreign),
                Whose::Nobody | Whose::Another if !volume.config => return Ok(()),
                Whose::Nobody | Whose::Another => {}
            }
            libpod.ask(Ask::delete(&format!("/volumes/{}", encode(&volume.name))).within(BEYOND)).await?;
        }
        let mut labels = self.mark.labels(&volume.digest);
        labels.insert(marks::ON_REMOVE.to_owned(), if volume.goes { "delete" } else { "keep" }.to_owned());
        let body = json!({ "Name": volume.name, "Driver": "local", "Labels": labels }).to_string();
        libpod.ask(Ask::post("/volumes/create").body("application/json", body).within(BEYOND)).await?;
        Ok(())
    }

    /// Removes a volume that was marked to go with its deployment.
    async fn let_go(&self, libpod: &Libpod, name: &str) -> Result<(), LibpodError> {
        let Some(there) = find_volume(libpod, name, LOOK).await? else { return Ok(()) };
        let labels = there.labels;
        if self.mark.whose(&labels) != Whose::Ours || labels.get(marks::ON_REMOVE).is_none_or(|what| what != "delete") {
            return Ok(());
        }
        libpod.ask(Ask::delete(&format!("/volumes/{}", encode(name))).within(BEYOND)).await.map(drop)
    }
}

/// What has to be done about a pod.
enum Way {
    /// Nothing more.
    Stays,
    /// There is none: it is made.
    Made,
    /// What is there goes first: the pod of this id.
    Replaced(String),
}

/// Stops and removes one pod. It is named by its id: a name that no pod has any more would be taken for another's.
async fn take_pod(libpod: &Libpod, name: &str, id: &str, grace: u64) -> Result<(), LibpodError> {
    let patience = Duration::from_secs(grace) + BEYOND;
    let stop = format!("/pods/{}/stop", encode(id));
    let remove = format!("/pods/{}", encode(id));
    let mut attempt = 0;
    loop {
        attempt += 1;
        // What cannot be stopped is removed by force all the same.
        let _stopped = libpod.ask(Ask::post(&stop).with("t", grace.to_string()).within(patience)).await;
        let error = match libpod.ask(Ask::delete(&remove).with("force", "true").within(patience)).await {
            Ok(_) | Err(LibpodError::Missing(_)) => return Ok(()),
            Err(error) => error,
        };
        // Podman trips over itself while what it runs after a container's end is still clearing away.
        tokio::time::sleep(PAUSE).await;
        if find_pod(libpod, name, LOOK).await?.is_none_or(|there| there.id != id) {
            return Ok(());
        }
        if attempt >= ATTEMPTS {
            return Err(error);
        }
    }
}
