//! How many connections there may be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are left for the database, render processes and everything else.
const RESERVE: u64 = 256;
/// Connections if the system sets no limit.
const UNLIMITED: usize = 1_000_000;
/// Connections at least, however low the system's limit is.
const LEAST: u64 = 64;

/// Returns how many connections the limit on open files leaves room for. The limit that the process starts with is a
/// habit; it is raised as far as the system lets it.
pub(super) fn connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Refused, it stays as it is.
        let _raised_or_not = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    within(getrlimit(Resource::Nofile).current)
}

fn within(files: Option<u64>) -> usize {
    let Some(files) = files else { return UNLIMITED };
    usize::try_from(files.saturating_sub(RESERVE).max(LEAST)).unwrap_or(UNLIMITED).min(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_everything_else() {
        assert_eq!(within(Some(20_000)), 19_744);
        assert_eq!(within(Some(100)), 64);
        assert_eq!(within(None), UNLIMITED);
        assert_eq!(within(Some(u64::MAX)), UNLIMITED);
    }
}
