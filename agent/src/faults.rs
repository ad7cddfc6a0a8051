//! Fault points: places at which a test ends the process, to see what is on disk then.
//!
//! They exist only with feature `fault-points` in a build with debug assertions; anywhere else `fault!` is nothing.
//! `TITAN_FAULT=name` ends the process the first time it comes to that point, `TITAN_FAULT=name:3` the third time.

macro_rules! points {
    ($(#[$about:meta])* $list:ident: $($name:literal: $doc:literal,)*) => {
        $(#[$about])*
        pub const $list: &[&str] = &[$($name,)*];
    };
}

points! {
    /// The name of every fault point that bundles of any kind pass, in the order in which an apply passes them.
    FAULT_POINTS:
    "bundle-cached": "a bundle of the answer is in the cache",
    "desired-saved": "the desired set is written down",
    "journal-staging": "the journal says what is being staged",
    "file-staged": "one file is staged",
    "stage-synced": "everything is staged and on disk",
    "journal-switching": "the journal says how to switch",
    "switch-step": "one step of the switch is done",
    "switch-synced": "the switch is on disk",
    "ledger-saved": "the ledger says who owns what",
    "stage-removed": "the staging directory is gone",
    "journal-removed": "the journal is gone",
    "removal-settled": "a removal is taken off the list",
    "outcome-noted": "what was done waits to be reported",
    "git-committed": "the commit is made, the ledger does not know of it",
    "git-noted": "the ledger knows the commit",
    "files-applied": "the files are switched, what is beside them is as before",
    "beside-applied": "what is beside the files is in line, the ledger does not know",
    "taken-down": "what was beside the files is gone, the files are there",
    "proved-good": "the ledger knows that a bundle is healthy",
    "proved-bad": "the ledger knows that a bundle is bad, which is still in place",
    "report-sent": "the control plane has the report, the agent has not noted it",
    "report-noted": "the agent has noted that the report is sent",
    "journal-undoing": "the journal says that the switch is being undone",
    "undo-step": "one step of the switch is undone",
}

points! {
    /// The names of those that bundles of pods pass besides.
    PODMAN_FAULT_POINTS:
    "pull-recorded": "the agent has noted what it is about to pull",
    "images-recorded": "the agent has noted which images it pulled",
    "pods-stopped": "pods that are to go or to change are gone",
    "volumes-made": "volumes are there",
    "pod-played": "one pod was made and started",
}

points! {
    /// The names of those that bundles of quadlets pass besides.
    QUADLET_FAULT_POINTS:
    "quadlets-stopped": "units that leave have stopped, their files are there",
    "quadlets-cleared": "files and networks that leave are gone",
    "quadlets-written": "files are as they are to be, systemd does not know",
    "quadlets-reloaded": "systemd has read its files again",
}

points! {
    /// The names of those that bundles of units pass besides.
    SYSTEMD_FAULT_POINTS:
    "units-stopped": "units that leave have stopped, their links are there",
    "units-unlinked": "links that leave are gone",
    "units-linked": "links are as they are to be, systemd does not know",
    "units-reloaded": "systemd has read its files again",
    "unit-asked": "one unit is about to start or restart",
}

points! {
    /// The names of those that projects of Compose pass besides.
    COMPOSE_FAULT_POINTS:
    "project-written": "what Compose is given is written, nothing is started",
    "project-up": "Compose has brought a project up",
    "project-down": "Compose has taken a project down",
}

points! {
    /// The names of those that bundles of objects pass besides.
    KUBERNETES_FAULT_POINTS:
    "objects-noted": "the agent has noted what it is about to send and to remove",
    "object-sent": "one object is applied, the agent has not noted it",
    "object-going": "the server was asked to remove one object",
    "objects-recorded": "the agent has noted what it has sent and removed",
}

/// Ends the process at once if a test asked for it here.
#[cfg(all(feature = "fault-points", debug_assertions))]
pub(crate) fn reached(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static HITS: AtomicU32 = AtomicU32::new(0);
    debug_assert!(
        FAULT_POINTS
            .iter()
            .chain(PODMAN_FAULT_POINTS)
            .chain(QUADLET_FAULT_POINTS)
            .chain(SYSTEMD_FAULT_POINTS)
            .chain(COMPOSE_FAULT_POINTS)
            .chain(KUBERNETES_FAULT_POINTS)
            .any(|point| *point == name),
        "{name} is not listed"
    );
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("TITAN_FAULT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().unwrap_or(1)))
    });
    if let Some((point, count)) = wanted
        && point == name
        && HITS.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        let _killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Whether a test asked that what comes at this point fails: `TITAN_FAIL=name` the first time, `name:3` the third time,
/// `name:3+` from the third time on; several with commas between.
#[cfg(all(feature = "fault-points", debug_assertions))]
pub(crate) fn fails(name: &str) -> bool {
    use std::{
        collections::BTreeMap,
        sync::{Mutex, PoisonError},
    };
    static HITS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    let Ok(text) = std::env::var("TITAN_FAIL") else { return false };
    let mut hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
    let hit = hits.entry(name.to_owned()).and_modify(|hit| *hit += 1).or_insert(1);
    let fails = text.split(',').any(|wanted| {
        let (point, count) = wanted.split_once(':').unwrap_or((wanted, "1"));
        let on = count.strip_suffix('+');
        let first: u32 = on.unwrap_or(count).parse().unwrap_or(1);
        point == name && (*hit == first || (on.is_some() && *hit > first))
    });
    if fails {
        tracing::warn!("{name} fails, as a test wants it");
    }
    fails
}

/// Whether a test asked that the step at this point fails; never in this build.
#[cfg(not(all(feature = "fault-points", debug_assertions)))]
pub(crate) const fn fails(_: &str) -> bool {
    false
}

macro_rules! fault {
    ($name:literal) => {
        #[cfg(all(feature = "fault-points", debug_assertions))]
        $crate::faults::reached($name);
    };
}

pub(crate) use fault;
