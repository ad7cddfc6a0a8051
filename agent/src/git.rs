//! The Git sink: commits what was applied, and pushes it if there is a remote.
//!
//! Trees are built straight in the object database, so the repository may be bare and nothing is read from a work tree.
//! A deployment's files are below `<path>/<workspace>/<deployment>/`, those with a place of their own below
//! `_rooted/` in it. Only paths that the deployment has, or had in the commit before, are written or removed;
//! whatever else is in the branch stays. All of it blocks. `remote` knows where to push, `wire` how.

pub(crate) mod file;
mod history;
pub(crate) mod http;
mod locks;
pub(crate) mod remote;
pub(crate) mod replay;
pub(crate) mod ssh;
pub(crate) mod trees;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use git2::{
    Commit, ConfigLevel, ErrorCode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature, Tree,
    build::CheckoutBuilder,
};
use titan_api::{Digest, Revision};

use crate::{
    bundles::{Bundle, BundleFile},
    config::GitSettings,
    disk::{self, DiskError},
    ledger::{Committed, LedgerEntry, Removal},
    pace,
};
use remote::{Address, RemoteError};
use trees::{Edits, TreeError};

/// Has libgit2 sync what it writes, and keep small what it remembers of objects while it makes a pack. It looks for deltas
/// only among those that the cache's size is enough for.
const DURABLE: &[u8] = b"[core]\n\tfsyncObjectFiles = true\n\tbigFileThreshold = 512k\n\
    [pack]\n\tdeltaCacheSize = 512k\n\twindowMemory = 2m\n\tthreads = 1\n";
/// Bytes of a file that is committed as it is. Packing takes a whole file into memory, so of a larger one its name, digest
/// and size are committed: what Git LFS calls a pointer, and what people's tools know as one.
const LARGE: u64 = 4 * 1024 * 1024;
/// Bytes of a file that is read into memory to see whether the repository has it.
const SMALL: u64 = 64 * 1024;
/// How many commits are looked through for one that was made before a crash.
const LOOK_BACK: usize = 1000;

/// Why something cannot be committed or pushed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// The repository cannot be opened or made.
    #[error("the repository {} cannot be used", .path.display())]
    Open {
        /// The repository.
        path: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// A file of the state directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something inside the repository.
    #[error("Git failed")]
    Git(#[from] git2::Error),
    /// A tree cannot be built.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file of the bundle cannot be taken into the repository.
    #[error("{path:?} cannot be taken into the repository")]
    Content {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The remote.
    #[error("the remote {remote} cannot be used")]
    Remote {
        /// The remote, without any secret.
        remote: String,
        /// Why.
        #[source]
        source: RemoteError,
    },
    /// The remote did not take the commits.
    #[error("{remote} did not take the commits: {reason}")]
    Rejected {
        /// The remote, without any secret.
        remote: String,
        /// What it said.
        reason: String,
    },
}

/// The sink. Its clones may be used at the same time: one commits while another pushes.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    settings: GitSettings,
    spool: PathBuf,
    /// The newest time that the host was told by its control plane.
    newest: Option<Revision>,
    /// Held while the branch is read and moved, never while a remote is waited for.
    branch: Arc<Mutex<()>>,
}

impl Sink {
    /// Returns a sink that keeps packs on their way in `spool`; `newest` is the newest time that the host was told by its
    /// control plane. Nothing is opened yet.
    pub(crate) fn new(settings: &GitSettings, spool: &Path, newest: Option<Revision>) -> Self {
        Self { settings: settings.clone(), spool: spool.to_owned(), newest, branch: Arc::default() }
    }

    /// Whether there is anywhere to push to.
    pub(crate) const fn has_remote(&self) -> bool {
        self.settings.remote.is_some()
    }

    /// Says how the repository is, without making one.
    pub(crate) fn examine(&self) -> Result<String, GitError> {
        let path = &self.settings.repository;
        if !path.exists() {
            return Ok(format!("{} will be made with the first commit", path.display()));
        }
        let repo = self.open()?;
        let tip = self.tip(&repo)?.map_or_else(|| "no commit yet".to_owned(), |tip| format!("at {tip}"));
        let mut text = format!("{}, branch {}, {tip}", path.display(), self.settings.branch);
        if let Some(remote) = &self.settings.remote {
            let pushed = self.tracked(&repo)? == self.tip(&repo)?;
            text.push_str(&format!(", {} {remote}", if pushed { "pushed to" } else { "not yet pushed to" }));
        }
        Ok(text)
    }

    /// Commits the files of a deployment that is in place, if that changes anything.
    pub(crate) fn commit(&self, entry: &LedgerEntry, bundle: &Bundle) -> Result<Committed, GitError> {
        let repo = self.open_durable()?;
        let mut edits = Edits::new();
        let mut paths = BTreeSet::new();
        for file in &bundle.files {
            let blob = blob(&repo, file)?;
            let mode = if file.mode.bits() & 0o111 == 0 { 0o100_644 } else { 0o100_755 };
            let path = self.path(&entry.title(), &file.path, file.rooted);
            edits.insert(path.clone(), Some((blob, mode)));
            paths.insert(path);
        }
        let before = entry.committed.iter().flat_map(|committed| &committed.paths);
        edits.extend(before.filter(|path| !paths.contains(*path)).map(|path| (path.clone(), None)));
        let LedgerEntry { release, revision, digest, .. } = entry;
        let title = entry.title();
        let trailers = format!("Deployment: {title}\nRelease: {release}\nRevision: {revision}\nDigest: {digest}");
        let commit = self.record(&repo, &edits, &format!("{title} {release}"), &trailers)?;
        Ok(Committed { digest: *digest, commit, paths })
    }

    /// Commits that a deployment is gone, if that changes anything. Returns the commit.
    pub(crate) fn commit_removal(&self, removal: &Removal) -> Result<String, GitError> {
        let repo = self.open_durable()?;
        let edits = removal.paths.iter().map(|path| (path.clone(), None)).collect();
        let title = format!("{}/{}", removal.workspace, removal.name);
        let trailers = format!("Deployment: {title}\nRevision: {}", removal.revision);
        self.record(&repo, &edits, &format!("{title} removed"), &trailers)
    }

    /// Brings the remote's branch to ours. Returns commits that had to be made anew on top of others', old to new.
    pub(crate) fn sync(&self) -> Result<BTreeMap<String, String>, GitError> {
        let mut moved = BTreeMap::new();
        let Some(name) = self.settings.remote.as_deref() else { return Ok(moved) };
        let repo = self.open_durable()?;
        let ours = self.tip(&repo)?;
        if ours.is_none() || self.tracked(&repo)? == ours {
            return Ok(moved);
        }
        let fault = |source| GitError::Remote { remote: name.to_owned(), source };
        let mut remote =
            Address::parse(name).and_then(|to| to.connect(&self.settings, &self.spool, self.newest)).map_err(fault)?;
        let branch = self.branch();
        let (mut theirs_before, mut reason) = (None, String::new());
        for attempt in 0..self.settings.attempts {
            let theirs = remote.tip(&branch).map_err(fault)?;
            if attempt > 0 && theirs == theirs_before {
                // Nobody was faster: it was refused for a reason that another try does not mend.
                break;
            }
            theirs_before = theirs;
            if let Some(theirs) = theirs.filter(|theirs| repo.find_commit(*theirs).is_err()) {
                let have: Vec<_> = [self.tip(&repo)?, self.tracked(&repo)?].into_iter().flatten().collect();
                remote.fetch(&repo, theirs, &have).map_err(fault)?;
            }
            let Some(ours) = self.onto(&repo, theirs, &mut moved)? else { return Ok(moved) };
            match remote.push(&repo, &branch, theirs, ours) {
                Ok(()) => {
                    self.track(&repo, ours)?;
                    return Ok(moved);
                }
                Err(RemoteError::Rejected(why)) => reason = why,
                Err(error) => return Err(fault(error)),
            }
            let most = Duration::from_millis(200).saturating_mul(2_u32.saturating_pow(attempt.min(6)));
            std::thread::sleep(most.mul_f64(pace::chance()));
        }
        Err(GitError::Rejected { remote: name.to_owned(), reason })
    }

    /// Brings our branch onto theirs and notes which commits had to be made anew for that. Returns what is to be pushed,
    /// or `None` if there is nothing.
    fn onto(
        &self,
        repo: &Repository,
        theirs: Option<Oid>,
        moved: &mut BTreeMap<String, String>,
    ) -> Result<Option<Oid>, GitError> {
        let _held = self.hold();
        // Read anew: something may have been committed while the remote was asked.
        let (ours, theirs) = match (self.tip(repo)?, theirs) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            (Some(ours), None) if repo.is_shallow() => return Ok(Some(self.begin_anew(repo, ours, moved)?)),
            (ours, _) => return Ok(ours),
        };
        if ours != theirs && repo.graph_descendant_of(ours, theirs)? {
            return Ok(Some(ours));
        }
        let tip = if ours == theirs || repo.graph_descendant_of(theirs, ours)? {
            theirs
        } else {
            let (tip, map) = replay::replay(repo, ours, theirs)?;
            for new in moved.values_mut() {
                if let Some(newer) = map.get(new) {
                    new.clone_from(newer);
                }
            }
            moved.extend(map);
            tip
        };
        self.advance(repo, Some(ours), tip)?;
        if tip == theirs {
            self.track(repo, theirs)?;
            return Ok(None);
        }
        Ok(Some(tip))
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.branch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, title: &str, path: &str, rooted: bool) -> String {
        let top = if self.settings.path.is_empty() { String::new() } else { format!("{}/", self.settings.path) };
        format!("{top}{title}/{}{path}", if rooted { "_rooted/" } else { "" })
    }

    fn open(&self) -> Result<Repository, GitError> {
        let path = &self.settings.repository;
        let open = || match Repository::open(path) {
            Err(error) if error.code() == ErrorCode::NotFound => {
                let mut options = RepositoryInitOptions::new();
                options.bare(true).mkpath(true).external_template(false).initial_head(&self.settings.branch);
                Repository::init_opts(path, &options)
            }
            other => other,
        };
        open().map_err(|source| GitError::Open { path: path.clone(), source })
    }

    /// Opens the repository so that everything written into it is on disk before it is relied on: a power cut must not
    /// leave empty objects behind. libgit2 goes by a setting that `git` itself has given up and warns of, so it stands in
    /// a file that only we read, not in the repository's own configuration.
    fn open_durable(&self) -> Result<Repository, GitError> {
        let repo = self.open()?;
        let file = self.spool.join("git.config");
        if disk::read(&file)?.is_none_or(|text| text != DURABLE) {
            disk::write(&file, DURABLE)?;
        }
        repo.config()?.add_file(&file, ConfigLevel::App, true)?;
        Ok(repo)
    }

    fn branch(&self) -> String {
        format!("refs/heads/{}", self.settings.branch)
    }

    fn tip(&self, repo: &Repository) -> Result<Option<Oid>, git2::Error> {
        reference(repo, &self.branch())
    }

    /// The name under which the remote's branch is remembered: another remote has another one.
    fn tracking(&self) -> String {
        let remote = Digest::of(self.settings.remote.as_deref().unwrap_or_default().as_bytes()).short();
        format!("refs/titan/{remote}/{}", self.settings.branch)
    }

    fn tracked(&self, repo: &Repository) -> Result<Option<Oid>, git2::Error> {
        reference(repo, &self.tracking())
    }

    fn track(&self, repo: &Repository, id: Oid) -> Result<(), git2::Error> {
        let name = self.tracking();
        locks::past(repo, &[&name], || repo.reference(&name, id, true, "titan: pushed").map(drop))
    }

    /// Makes a commit with these edits on top of the branch. Returns it, or the one that stands for it already.
    fn record(&self, repo: &Repository, edits: &Edits, subject: &str, trailers: &str) -> Result<String, GitError> {
        let _held = self.hold();
        let tip = self.tip(repo)?;
        let parent: Option<Commit<'_>> = tip.map(|tip| repo.find_commit(tip)).transpose()?;
        let base: Option<Tree<'_>> = parent.as_ref().map(Commit::tree).transpose()?;
        let tree = trees::edit(repo, base.as_ref(), edits)?;
        if let (Some(parent), Some(base)) = (&parent, &base)
            && base.id() == tree
        {
            return Ok(find(repo, parent.id(), trailers)?.unwrap_or_else(|| parent.id()).to_string());
        }
        let (name, email) = &self.settings.author;
        let author = Signature::now(name, email)?;
        let message = format!("{subject}\n\n{trailers}\n");
        let parents: Vec<_> = parent.iter().collect();
        let id = repo.commit(None, &author, &author, &message, &repo.find_tree(tree)?, &parents)?;
        self.advance(repo, tip, id)?;
        Ok(id.to_string())
    }

    /// Moves the branch, and with it a work tree that has it checked out.
    fn advance(&self, repo: &Repository, from: Option<Oid>, to: Oid) -> Result<(), git2::Error> {
        if from == Some(to) {
            return Ok(());
        }
        let branch = self.branch();
        let head = repo.find_reference("HEAD").ok();
        let head = head.as_ref().and_then(|head| head.symbolic_target().ok().flatten());
        if !repo.is_bare() && head == Some(branch.as_str()) {
            // Before the branch moves, so that what somebody changed in the work tree is seen as theirs.
            let found = repo.find_object(to, None)?;
            locks::past(repo, &[], || repo.checkout_tree(&found, Some(CheckoutBuilder::new().safe())))?;
        }
        locks::past(repo, &[&branch], || match from {
            Some(from) => repo.reference_matching(&branch, to, true, from, "titan: commit").map(drop),
            None => repo.reference(&branch, to, false, "titan: commit").map(drop),
        })
    }
}

/// Puts a file's content into the repository and returns its name there. What is small and there already is not written
/// again: a commit that cannot be made is tried again and again.
fn blob(repo: &Repository, file: &BundleFile) -> Result<Oid, GitError> {
    let failed = |source| GitError::Content { path: file.path.clone(), source };
    if file.size <= SMALL {
        let mut content = Vec::new();
        file.reader().read_to_end(&mut content).map_err(failed)?;
        let name = Oid::hash_object(ObjectType::Blob, &content)?;
        return if repo.odb()?.exists(name) { Ok(name) } else { Ok(repo.blob(&content)?) };
    }
    let mut blob = repo.blob_writer(None)?;
    let written = if file.size > LARGE {
        blob.write_all(pointer(file).as_bytes())
    } else {
        io::copy(&mut file.reader(), &mut blob).map(drop)
    };
    written.map_err(failed)?;
    Ok(blob.commit()?)
}

/// Returns what stands for a large file.
fn pointer(file: &BundleFile) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", file.sha256, file.size)
}

fn reference(repo: &Repository, name: &str) -> Result<Option<Oid>, git2::Error> {
    match repo.refname_to_id(name) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the newest commit with these trailers; revisions aside, which move while the files stay.
fn find(repo: &Repository, tip: Oid, trailers: &str) -> Result<Option<Oid>, git2::Error> {
    let wanted: Vec<_> =
        trailers.lines().filter(|line| line.starts_with("Deployment: ") || line.starts_with("Digest: ")).collect();
    let mut walk = repo.revwalk()?;
    walk.push(tip)?;
    walk.simplify_first_parent()?;
    for id in walk.take(LOOK_BACK) {
        let commit = repo.find_commit(id?)?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        if wanted.iter().all(|line| message.lines().any(|known| known == *line)) {
            return Ok(Some(commit.id()));
        }
    }
    Ok(None)
}
