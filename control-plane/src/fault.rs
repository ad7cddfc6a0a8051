//! Fault points: places at which a test may end the process as a power cut would.
//!
//! They exist only in a debug build with the feature `fault-points`; otherwise they are nothing.

/// Ends the process with SIGKILL if the environment variable `TITAN_FAULT` is `name:N` and this is the N-th time that
/// the point `name` is reached.
#[cfg(all(feature = "fault-points", debug_assertions))]
pub(crate) fn reach(name: &str) {
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
        && armed == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        let _never_returns = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(all(feature = "fault-points", debug_assertions)))]
pub(crate) const fn reach(_name: &str) {}
