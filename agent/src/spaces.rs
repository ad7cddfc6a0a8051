//! Spaces: whether there is room on the host's disks for a bundle, before anything of it is fetched or staged.
//!
//! A disk that is filled to the last byte takes the host down, and the agent with it, which then cannot even write down
//! why. So some room is left in any case, and what the agent keeps for itself has a limit.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{stat, statvfs};

use crate::faults;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// What the agent may use of the host's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes the state directory may hold.
    pub state_bytes: u64,
    /// How many bytes stay free on each disk; absent: 16 MiB or a hundredth of the disk, whichever is less, and at least
    /// 1 MiB.
    pub reserve_bytes: Option<u64>,
}

/// What is to be written to one disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) files: u64,
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    /// The disk is nearly full.
    #[error(
        "the disk of {} has {} left, the bundle needs {} and {} stay free; make room there, or set limits.reserveBytes \
         in agent.yaml",
        .path.display(), Bytes(*.left), Bytes(*.needed), Bytes(*.reserve)
    )]
    Full {
        /// Where on the disk it was to be written.
        path: PathBuf,
        /// How much can be written yet.
        left: u64,
        /// How much was to be written.
        needed: u64,
        /// How much is to stay free.
        reserve: u64,
    },
    /// The disk can hold no more files, however small.
    #[error("the disk of {} can hold {left} more files and the bundle needs {needed}; remove some there", .path.display())]
    Files {
        /// Where on the disk they were to be written.
        path: PathBuf,
        /// How many it can hold.
        left: u64,
        /// How many were to be written.
        needed: u64,
    },
    /// The agent would keep more than it may.
    #[error(
        "{} holds {}, with {} of the bundle it would be more than the {} that limits.stateBytes in agent.yaml allows; \
         remove deployments, or allow more",
        .path.display(), Bytes(*.held), Bytes(*.needed), Bytes(*.allowed)
    )]
    State {
        /// The state directory.
        path: PathBuf,
        /// What is in it.
        held: u64,
        /// What was to come.
        needed: u64,
        /// What may be in it.
        allowed: u64,
    },
    /// It cannot be found out.
    #[error("the room on the disk of {} cannot be found out", .path.display())]
    Unknown {
        /// Where on the disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self { state_bytes: GIB, reserve_bytes: None }
    }
}

impl Limits {
    /// Checks that all `needs` find room where they are to be written, and what stays free stays so. Directories may be
    /// missing yet. Several on one disk are added up; a block of the disk is the least that a file takes.
    pub(crate) fn check_disks(&self, needs: &[(impl AsRef<Path>, Need)]) -> Result<(), NoRoom> {
        let mut disks: BTreeMap<u64, (PathBuf, Need)> = BTreeMap::new();
        for (path, need) in needs {
            let path = path.as_ref();
            let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            let disk = stat(there).map_err(|error| unknown(path, error))?.st_dev;
            let (_, sum) = disks.entry(disk).or_insert_with(|| (there.to_owned(), Need::default()));
            sum.bytes = sum.bytes.saturating_add(need.bytes);
            sum.files = sum.files.saturating_add(need.files);
        }
        if faults::fails("room-unseen") {
            return Ok(());
        }
        for (path, need) in disks.into_values() {
            let disk = statvfs(&path).map_err(|error| unknown(&path, error))?;
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            let reserve = self.reserve_bytes.unwrap_or_else(|| (bytes(disk.f_blocks) / 100).clamp(MIB, 16 * MIB));
            // On average half of a file's last block is empty.
            let needed = need.bytes.saturating_add(need.files.saturating_mul(disk.f_frsize) / 2);
            let left = bytes(disk.f_bavail);
            if need != Need::default() && needed.saturating_add(reserve) > left {
                return Err(NoRoom::Full { path, left, needed, reserve });
            }
            // File systems that make room for files as they come say 0 of 0.
            if disk.f_files > 0 && need.files > disk.f_favail {
                return Err(NoRoom::Files { path, left: disk.f_favail, needed: need.files });
            }
        }
        Ok(())
    }

    /// Checks that the state directory may hold `needed` bytes more.
    pub(crate) fn check_state(&self, state: &Path, needed: u64) -> Result<(), NoRoom> {
        let held = bytes_below(state);
        if held.saturating_add(needed) <= self.state_bytes {
            return Ok(());
        }
        Err(NoRoom::State { path: state.to_owned(), held, needed, allowed: self.state_bytes })
    }
}

fn unknown(path: &Path, error: rustix::io::Errno) -> NoRoom {
    NoRoom::Unknown { path: path.to_owned(), source: error.into() }
}

/// Returns the bytes that all files below a directory take on the disk, as far as they can be seen: a small one takes a
/// whole block.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| Some((entry.metadata().ok()?, entry.path())));
    let taken = |entry: &fs::Metadata| entry.len().max(entry.blocks() * 512);
    bytes.map(|(entry, path)| if entry.is_dir() { bytes_below(&path) } else { taken(&entry) }).sum()
}

/// Bytes as people read them.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..KIB => return write!(f, "{} bytes", self.0),
            KIB..MIB => (KIB, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            _ => (GIB, "GiB"),
        };
        match (self.0 / unit, self.0 % unit * 10 / unit) {
            (whole @ 0..10, tenth @ 1..) => write!(f, "{whole}.{tenth} {name}"),
            (whole, _) => write!(f, "{whole} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A small disk of its own, if this user may have one.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn mount(options: &str) -> Option<Self> {
            let dir = tempfile::tempdir().expect("dir");
            let mut mount = Command::new("mount");
            let mounted = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
            if !mounted.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: this user may not mount a disk");
                return None;
            }
            Some(Self(dir))
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _gone = Command::new("umount").arg(self.0.path()).status();
        }
    }

    fn need(bytes: u64, files: u64) -> Need {
        Need { bytes, files }
    }

    #[test]
    fn a_bundle_that_does_not_fit_is_refused_before_it_is_written() {
        let Some(disk) = Disk::mount("size=8m,nr_inodes=20") else { return };
        let path = disk.0.path();
        let limits = Limits { reserve_bytes: Some(2 * MIB), ..Limits::default() };
        let check = |bytes, files| limits.check_disks(&[(path, need(bytes, files))]);
        assert!(check(5 * MIB, 10).is_ok());
        let message = check(7 * MIB, 0).expect_err("full").to_string();
        let shown = path.display();
        assert_eq!(
            message,
            format!(
                "the disk of {shown} has 8 MiB left, the bundle needs 7 MiB and 2 MiB stay free; make room there, or set \
                 limits.reserveBytes in agent.yaml"
            )
        );
        fs::write(path.join("x"), vec![0; 5 * 1024 * 1024]).expect("write");
        let message = check(2 * MIB, 1).expect_err("fuller").to_string();
        assert!(message.contains("has 3 MiB left, the bundle needs 2 MiB"), "{message}");
        let message = check(0, 19).expect_err("files").to_string();
        assert!(message.contains("can hold 18 more files and the bundle needs 19"), "{message}");
        let both = [(path, need(MIB / 2, 1)), (&*path.join("a/b"), need(MIB, 1))];
        assert!(limits.check_disks(&both[..1]).is_ok() && limits.check_disks(&both[1..]).is_err());
        let both = [(path, need(MIB / 2, 1)), (&*path.join("a/b"), need(MIB / 2, 1))];
        assert!(limits.check_disks(&both[1..]).is_ok() && limits.check_disks(&both).is_err(), "added up");
        // A hundredth would be less than what the ledger needs.
        let usual = Limits::default();
        assert!(usual.check_disks(&[(path, need(2 * MIB - 1, 0))]).is_ok());
        assert!(usual.check_disks(&[(path, need(2 * MIB + 1, 0))]).is_err());
        assert!(limits.check_disks(&[(path, Need::default())]).is_ok(), "nothing to write always fits");
    }

    #[test]
    fn the_agent_keeps_no_more_than_it_may() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(dir.path().join("bundles")).expect("dir");
        fs::write(dir.path().join("bundles/x"), [0; 16384]).expect("write");
        fs::write(dir.path().join("y"), [0; 16384]).expect("write");
        let limits = Limits { state_bytes: 33_000, ..Limits::default() };
        assert!(limits.check_state(dir.path(), 232).is_ok());
        let message = limits.check_state(dir.path(), 233).expect_err("more").to_string();
        assert!(message.contains("holds 32 KiB, with 233 bytes of the bundle it would be more"), "{message}");
        assert!(limits.check_state(&dir.path().join("missing"), 1).is_ok());
    }

    #[test]
    fn bytes_are_shown_for_people() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (16 * MIB, "16 MiB"),
            (16 * MIB + 700 * KIB, "16 MiB"),
            (1024 * MIB, "1 GiB"),
            (u64::MAX, "17179869183 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }
}
