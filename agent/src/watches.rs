//! Watches: the agent is woken when somebody changes a file that it owns, through the kernel's inotify.
//!
//! Directories are watched, and in them names: those of files that a deployment owns and of the directories that lead to
//! them, from the root on. Whatever else happens beside them (data, logs) wakes nobody. What is not watched because there
//! are too many directories is found at the next beat, as everything was before there were watches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use titan_api::templates::Applier;
use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{descriptors::awaitable, wake::Wake};

/// How many directories are watched at most; the kernel needs about 1 KiB for each.
pub(crate) const WATCHED: usize = 4096;
/// A change is told once nothing more has happened for this long.
const QUIET: Duration = Duration::from_millis(200);
/// A change is told after this at the latest, whatever happens.
const LATEST: Duration = Duration::from_secs(2);
/// How long to wait for more of what nobody is interested in, from the least to the most.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// What counts as a change. Not each write: a file that is held open for writing is told about when it is closed.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::EXCL_UNLINK);

/// The watches over the files of one root.
#[derive(Debug)]
pub(crate) struct Watches {
    shared: Arc<Shared>,
    root: PathBuf,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    fd: AsyncFd<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The names of interest in each directory that is watched.
    names: HashMap<i32, BTreeSet<Vec<u8>>>,
    /// How often what had happened was forgotten.
    forgotten: u64,
}

impl Watches {
    /// Begins to watch nothing yet. Fails where the kernel gives no inotify, for lack of it or of descriptors.
    pub(crate) fn new(io: &Handle, wake: Wake, root: PathBuf) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let _inside = io.enter();
        let shared = Arc::new(Shared { fd: awaitable(fd)?, state: Mutex::default() });
        let task = io.spawn(tell(shared.clone(), wake)).abort_handle();
        Ok(Self { shared, root, task })
    }

    /// Watches the files at `paths` below the root and no others from now on. To be called whenever the agent may have
    /// made, exchanged or removed directories: it is directories themselves that are watched, not their paths.
    ///
    /// With `switched`, the agent itself has changed files since the last call: what was noticed since then and not told
    /// yet is forgotten. Returns how many directories are not watched.
    pub(crate) fn set(&self, paths: &BTreeSet<String>, switched: bool) -> usize {
        let mut state = self.shared.state();
        let mut names = HashMap::new();
        let mut unwatched = 0;
        for (dir, wanted) in directories(paths) {
            if names.len() >= WATCHED {
                unwatched += 1;
                continue;
            }
            match inotify::add_watch(self.shared.fd.get_ref(), self.root.join(dir), CHANGES) {
                // Two paths may lead to one directory, through mounts.
                Ok(watch) => names.entry(watch).or_insert_with(BTreeSet::new).extend(wanted),
                // Whatever is missing is noticed above it when it comes.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => unwatched += 1,
            }
        }
        for gone in state.names.keys().filter(|watch| !names.contains_key(watch)) {
            // One of a directory that is gone has gone with it.
            let _gone = inotify::remove_watch(self.shared.fd.get_ref(), *gone);
        }
        if switched {
            self.shared.drain(&state);
            state.forgotten += 1;
        }
        state.names = names;
        unwatched
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns all directories above `paths`, the root first, each with the names in it that lead to them.
fn directories(paths: &BTreeSet<String>) -> BTreeMap<&str, BTreeSet<Vec<u8>>> {
    let mut dirs: BTreeMap<&str, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for path in paths {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let mut dir = "";
        for end in ends {
            let name = &path[if dir.is_empty() { 0 } else { dir.len() + 1 }..end];
            dirs.entry(dir).or_default().insert(name.as_bytes().to_vec());
            dir = &path[..end];
        }
    }
    dirs
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that has happened; returns whether any of it is of interest.
    fn drain(&self, state: &State) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(self.fd.get_ref(), &mut buffer);
        let mut stirred = false;
        while let Ok(event) = events.next() {
            let seen = event.events();
            // More happened than the kernel keeps in mind.
            stirred |= seen.contains(ReadFlags::QUEUE_OVERFLOW);
            let Some(names) = state.names.get(&event.wd()) else { continue };
            stirred |= match event.file_name() {
                Some(name) => names.contains(name.to_bytes()),
                None => seen.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT),
            };
        }
        stirred
    }

    /// Takes all that has happened. If any of it is of interest, returns how often things had been forgotten by then.
    fn look(&self) -> Option<u64> {
        let state = self.state();
        self.drain(&state).then_some(state.forgotten)
    }
}

/// Wakes the agent when something of interest has happened, and it is quiet again.
async fn tell(shared: Arc<Shared>, wake: Wake) {
    let mut gather = GATHER.0;
    while let Ok(mut ready) = shared.fd.readable().await {
        sleep(gather).await;
        let stirred = shared.look();
        ready.clear_ready();
        let Some(mut at) = stirred else {
            gather = (gather * 2).min(GATHER.1);
            continue;
        };
        gather = GATHER.0;
        let first = Instant::now();
        while first.elapsed() < LATEST {
            sleep(QUIET).await;
            match shared.look() {
                Some(later) => at = later,
                None => break,
            }
        }
        if shared.state().forgotten == at {
            wake.stirred(Applier::Files);
        }
    }
}

#[cfg(test)]
mod tests;
