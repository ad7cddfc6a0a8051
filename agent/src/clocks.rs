//! The host's clocks: one that only goes forward and counts sleep too, and the boot that it counts from.

use std::{fs, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// An instant since a boot of the host. Whatever people or time servers do to the date, it only goes forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Which boot: two moments of different boots cannot be compared.
    pub(crate) boot: Arc<str>,
    /// Milliseconds since then, those in which the host slept among them.
    pub(crate) millis: u64,
}

/// Knows the present moment.
#[derive(Debug, Clone)]
pub(crate) struct BootClock(Arc<str>);

impl BootClock {
    /// Finds out which boot this is.
    pub(crate) fn new() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self(boot.trim().into())
    }

    /// Returns the present moment.
    pub(crate) fn now(&self) -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
        let since = seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or(0));
        Moment { boot: self.0.clone(), millis: since.as_millis().try_into().unwrap_or(u64::MAX) }
    }
}

/// Returns how long the host has run since its boot, without the time in which it slept: as systemd tells of units.
pub(crate) fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_one_boot_only_go_forward() {
        let clock = BootClock::new();
        let (one, other) = (clock.now(), BootClock::new().now());
        assert!(one.boot == other.boot && !one.boot.is_empty());
        assert!(one.millis > 0 && one.millis <= other.millis);
    }
}
