//! Images: pulled before the switch, pinned while a bundle that may come back wants them, removed when none does.
//!
//! What was pulled is written down before the pull begins, so that an image of ours is known as such after a cut. Only
//! those are ever removed. Which image a tag meant is written down with the bundle: to go back to a bundle is to go back
//! to its images, offline, wherever the tag has moved to meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use titan_api::Digest;

use super::{
    libpod::{Ask, Libpod, LibpodError, encode},
    marks::or_default,
};
use crate::{
    apply::{ApplyError, Readiness, appliers::Ground},
    background::{Background, Stands},
    disk,
    faults::fault,
    settle::chain,
};

/// How long a pull may say nothing.
const SILENCE: Duration = Duration::from_mins(5);
/// How long the removal of one image may take.
const REMOVAL: Duration = Duration::from_mins(2);

/// When images that did not go are tried again at the earliest, if nothing else is to go by then: a container may have them for
/// long, and the end of each try wakes the agent.
const AGAIN: Duration = Duration::from_secs(5);

/// What is remembered of images.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Which image each reference meant, by the bundle's digest.
    bundles: BTreeMap<Digest, BTreeMap<String, String>>,
    /// What the agent pulled, or was about to.
    pulled: BTreeSet<String>,
    /// Images that its references meant once, by what podman calls them, and that no bundle wants any more. A tag that moved on
    /// leaves one without a name.
    left: BTreeSet<String>,
}

impl Record {
    /// Lets go of all bundles but these; what only they meant is left.
    fn keep(&mut self, wanted: &BTreeSet<Digest>) {
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.bundles).into_iter().partition(|(digest, _)| wanted.contains(digest));
        let ours =
            gone.into_values().flatten().filter(|(reference, id)| reference != id && self.pulled.contains(reference));
        self.left.extend(ours.map(|(_, id)| id));
        self.bundles = kept;
        let pinned = self.pinned();
        self.left.retain(|id| !pinned.contains(id));
    }

    /// Returns the images that bundles want.
    fn pinned(&self) -> BTreeSet<String> {
        self.bundles.values().flat_map(BTreeMap::values).cloned().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Job {
    Pull(Digest),
    Sweep,
}

#[derive(Debug)]
enum Outcome {
    Pulled(Result<BTreeMap<String, String>, String>),
    Swept(BTreeSet<String>),
}

/// The images of this host's bundles.
#[derive(Debug)]
pub(crate) struct Images {
    libpod: Libpod,
    file: PathBuf,
    record: Record,
    jobs: Background<Job, Outcome>,
    progress: BTreeMap<Digest, Arc<Mutex<String>>>,
    /// What was to go when it was tried last, and when that was.
    tried: Option<(Instant, BTreeSet<String>)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    repo_digests: Vec<String>,
}

/// One line of a pull.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    id: String,
}

impl Images {
    /// Whether images are being fetched.
    pub(crate) fn pulls(&self) -> bool {
        self.jobs.are_busy(|job| matches!(job, Job::Pull(_)))
    }

    /// Reads what is remembered in `file`, a name in the state directory.
    pub(crate) fn open(libpod: Libpod, ground: &Ground, file: &str) -> Result<Self, ApplyError> {
        let file = ground.state.file(file);
        let record = disk::read_json(&file).map_err(|error| disk_error(&error))?.unwrap_or_default();
        let jobs = Background::new(ground.io.clone(), ground.wake.clone());
        Ok(Self { libpod, file, record, jobs, progress: BTreeMap::new(), tried: None })
    }

    fn save(&mut self, record: Record) -> Result<(), ApplyError> {
        if record != self.record {
            disk::write_json(&self.file, &record).map_err(|error| disk_error(&error))?;
            self.record = record;
        }
        Ok(())
    }

    /// Returns the image that `reference` means for a bundle.
    pub(crate) fn id(&self, bundle: &Digest, reference: &str) -> String {
        let known = self.record.bundles.get(bundle).and_then(|images| images.get(reference));
        known.map_or_else(|| reference.to_owned(), Clone::clone)
    }

    /// Fetches the images of a bundle that are not there; those of `always` even if they are, once for this bundle.
    pub(crate) fn prepare(
        &mut self,
        bundle: Digest,
        wanted: &BTreeSet<&str>,
        always: &BTreeSet<&str>,
    ) -> Result<Readiness, ApplyError> {
        match self.jobs.look(&Job::Pull(bundle)) {
            Stands::Running => return Ok(Readiness::Underway(self.progress(&bundle))),
            Stands::Ended(Outcome::Pulled(Ok(images))) => {
                let mut next = self.record.clone();
                next.bundles.entry(bundle).or_default().extend(images);
                self.save(next)?;
                fault!("images-recorded");
            }
            Stands::Ended(Outcome::Pulled(Err(message))) => {
                return Err(ApplyError::Platform { what: "pulling images".to_owned(), message });
            }
            _ => {}
        }
        self.progress.remove(&bundle);
        let known = self.record.bundles.get(&bundle).cloned().unwrap_or_default();
        let (mut found, mut missing) = (known.clone(), Vec::new());
        for reference in wanted {
            let known = known.get(*reference);
            let there = match known {
                Some(id) => self.find(id)?,
                None if always.contains(reference) => None,
                None => self.find(reference)?,
            };
            match there {
                Some(image) => drop(found.insert((*reference).to_owned(), image.id)),
                None => missing.push(((*reference).to_owned(), always.contains(reference))),
            }
        }
        let mut next = self.record.clone();
        if missing.is_empty() {
            next.bundles.insert(bundle, found);
            self.save(next)?;
            return Ok(Readiness::Ready);
        }
        // An image that is there under this name is somebody else's, unless it was ours before.
        for (reference, _) in &missing {
            if self.find(reference)?.is_none() {
                next.pulled.insert(reference.clone());
            }
        }
        next.bundles.insert(bundle, found);
        self.save(next)?;
        fault!("pull-recorded");
        let progress = Arc::new(Mutex::new(format!("pulling {}", missing[0].0)));
        self.progress.insert(bundle, Arc::clone(&progress));
        let libpod = self.libpod.clone();
        self.jobs.start(Job::Pull(bundle), async move {
            let mut images = BTreeMap::new();
            for (reference, always) in missing {
                match pull(&libpod, &reference, always, &progress).await {
                    Ok(id) => drop(images.insert(reference, id)),
                    Err(error) => return Outcome::Pulled(Err(format!("{reference}: {error}"))),
                }
            }
            Outcome::Pulled(Ok(images))
        });
        Ok(Readiness::Underway(self.progress(&bundle)))
    }

    fn progress(&self, bundle: &Digest) -> String {
        let text = self.progress.get(bundle).map(|text| text.lock().unwrap_or_else(PoisonError::into_inner).clone());
        text.unwrap_or_else(|| "pulling images".to_owned())
    }

    fn find(&self, reference: &str) -> Result<Option<Image>, ApplyError> {
        match self.libpod.read_now(Ask::get(&path(reference))) {
            Ok(image) => Ok(Some(image)),
            Err(LibpodError::Missing(_)) => Ok(None),
            Err(error) => Err(platform("looking for images", &error)),
        }
    }

    /// Lets go of every image that none of `bundles` wants, in the background: if the agent pulled it, and nothing runs it.
    pub(crate) fn keep(&mut self, bundles: &BTreeSet<Digest>) -> Result<(), ApplyError> {
        let mut next = self.record.clone();
        match self.jobs.look(&Job::Sweep) {
            Stands::Running => return Ok(()),
            Stands::Ended(Outcome::Swept(gone)) => {
                next.pulled.retain(|reference| !gone.contains(reference));
                next.left.retain(|id| !gone.contains(id));
            }
            _ => {}
        }
        next.keep(bundles);
        self.save(next)?;
        let pinned = self.record.pinned();
        let Record { bundles, pulled, left } = self.record.clone();
        let wanted: BTreeSet<String> = bundles.values().flatten().map(|(reference, _)| reference.clone()).collect();
        let idle: BTreeSet<String> = pulled.difference(&wanted).cloned().collect();
        // What is being pulled is not in any bundle's list yet.
        if (idle.is_empty() && left.is_empty()) || !self.jobs.is_idle() {
            return Ok(());
        }
        let all: BTreeSet<String> = idle.union(&left).cloned().collect();
        if self.tried.as_ref().is_some_and(|(when, tried)| *tried == all && when.elapsed() < AGAIN) {
            return Ok(());
        }
        self.tried = Some((Instant::now(), all));
        let libpod = self.libpod.clone();
        self.jobs.start(Job::Sweep, async move {
            let mut gone = BTreeSet::new();
            for reference in idle {
                if sweep(&libpod, &reference, &pulled, &pinned).await {
                    gone.insert(reference);
                }
            }
            for id in left {
                if sweep_nameless(&libpod, &id).await {
                    gone.insert(id);
                }
            }
            Outcome::Swept(gone)
        });
        Ok(())
    }
}

/// Pulls one image, and returns its id.
async fn pull(libpod: &Libpod, reference: &str, always: bool, progress: &Mutex<String>) -> Result<String, LibpodError> {
    let ask = Ask::post("/images/pull")
        .with("reference", reference)
        .with("policy", if always { "always" } else { "missing" });
    let mut lines = libpod.lines(ask, Some(SILENCE)).await?;
    let (mut id, mut failed) = (None, None);
    while let Some(line) = lines.next().await? {
        let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
        if !line.stream.trim().is_empty() {
            let text = format!("pulling {reference}: {}", line.stream.trim());
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        if !line.error.is_empty() {
            failed = Some(line.error);
        }
        if !line.id.is_empty() {
            id = Some(line.id);
        }
    }
    match (id, failed) {
        (_, Some(error)) => Err(LibpodError::Said(error)),
        (Some(id), None) => Ok(id),
        (None, None) => Err(LibpodError::Said("the pull ended without an image".to_owned())),
    }
}

/// Removes one image that has no name any more. Returns whether it need not be thought of again: what has a name goes by it,
/// or is somebody's.
async fn sweep_nameless(libpod: &Libpod, id: &str) -> bool {
    match libpod.read::<Image>(Ask::get(&path(id))).await {
        Ok(image) if image.repo_tags.is_empty() && image.repo_digests.is_empty() => remove(libpod, id).await,
        Ok(_) | Err(LibpodError::Missing(_)) => true,
        Err(_) => false,
    }
}

/// Removes one image that was pulled, if nobody else put a name on it. Returns whether it need not be thought of again.
async fn sweep(libpod: &Libpod, reference: &str, pulled: &BTreeSet<String>, pinned: &BTreeSet<String>) -> bool {
    let path = path(reference);
    let image: Image = match libpod.read(Ask::get(&path)).await {
        Ok(image) => image,
        Err(LibpodError::Missing(_)) => return true,
        Err(_) => return false,
    };
    if pinned.contains(&image.id) {
        return false;
    }
    let tags = image.repo_tags;
    if reference.contains('@') && !tags.iter().all(|tag| pulled.contains(tag)) {
        return true;
    }
    remove(libpod, reference).await
}

/// Removes one image, if no container has it. Returns whether it is gone.
async fn remove(libpod: &Libpod, image: &str) -> bool {
    let path = format!("/images/{}", encode(image));
    match libpod.ask(Ask::delete(&path).with("force", "false").within(REMOVAL)).await {
        Ok(_) | Err(LibpodError::Missing(_)) => true,
        // A container has it; the next time, perhaps.
        Err(error) => {
            tracing::debug!("the image {image} stays for now: {error}");
            false
        }
    }
}

fn path(reference: &str) -> String {
    format!("/images/{}/json", encode(reference))
}

fn disk_error(error: &disk::DiskError) -> ApplyError {
    ApplyError::Platform { what: "remembering images".to_owned(), message: chain(error) }
}

/// Returns the error of whatever podman was asked for.
pub(crate) fn platform(what: impl Into<String>, error: &LibpodError) -> ApplyError {
    ApplyError::Platform { what: what.into(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_that_a_tag_meant_is_left_once_no_bundle_wants_it() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let images =
            |id: &str| BTreeMap::from([("app:1".to_owned(), id.to_owned()), ("own:1".to_owned(), "own".to_owned())]);
        let mut record = Record {
            bundles: [(digest("a"), images("one")), (digest("b"), images("two")), (digest("c"), images("two"))].into(),
            pulled: ["app:1".to_owned()].into(),
            left: BTreeSet::new(),
        };
        record.keep(&[digest("a"), digest("b"), digest("c")].into());
        assert!(record.left.is_empty());
        record.keep(&[digest("b")].into());
        assert_eq!(record.left, BTreeSet::from(["one".to_owned()]), "not what is pinned, nor what was there before");
        // It is wanted again.
        record.bundles.insert(digest("d"), images("one"));
        record.keep(&[digest("b"), digest("d")].into());
        assert!(record.left.is_empty());
    }
}
