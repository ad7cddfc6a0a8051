//! Fault points: places at which a test may end the process as a power cut would.
//!
//! They exist only in a debug build with the feature `fault-points`; otherwise they are nothing.

/// Ends the process with SIGKILL if the environment variable `TITAN_FAULT` is `name:N` and this is the N-th time that
/// the point `name` is reached.
#[cfg(all(feature = "fault-points", debug_assertions))]
pub(crate) fn reach(name: &str) {
    reach_if(|armed| armed == name);
}

/// The same for a point `name-commit`, just before and just after whatever was done for `name` is durable.
#[cfg(all(feature = "fault-points", debug_assertions))]
pub(crate) fn reach_commit(name: &str) {
    reach_if(|armed| armed == name || armed.strip_suffix("-commit") == Some(name));
}

#[cfg(all(feature = "fault-points", debug_assertions))]
fn reach_if(is_armed: impl Fn(&str) -> bool) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    };

    static ARMED: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let text = std::env::var("TITAN_FAULT").ok()?;
        let (name, count) = text.rsplit_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static REACHED: AtomicUsize = AtomicUsize::new(0);

    if let Some((armed, count)) = &*ARMED
        && is_armed(armed)
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        let _never_returns = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(all(feature = "fault-points", debug_assertions)))]
pub(crate) const fn reach(_name: &str) {}

/// Does nothing.
#[cfg(not(all(feature = "fault-points", debug_assertions)))]
pub(crate) const fn reach_commit(_name: &str) {}
