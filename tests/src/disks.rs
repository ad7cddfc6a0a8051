//! Disks of their own, for what a directory cannot show: a power cut that loses what was not synced.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use tempfile::TempDir;

use crate::nodes;

/// A file system in a file that is mounted on a directory of its own, and is gone with this value.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Makes a file system in a file and mounts it. Nothing of it is written before somebody asks for it.
    ///
    /// Returns `None`, and says so, where this user may mount nothing.
    pub fn in_file(mebibytes: u64) -> anyhow::Result<Option<Self>> {
        let disk = Self { folder: TempDir::with_prefix("titan-disk-")? };
        let image = disk.image();
        fs::create_dir(disk.path())?;
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        nodes::succeed(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(&image))?;
        Ok(allowed(disk.mount().is_ok()).then_some(disk))
    }

    /// Returns the directory on which it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Mounts it.
    pub fn mount(&self) -> anyhow::Result<()> {
        let mut mount = Command::new("mount");
        // What is not synced stays in memory for longer than a test takes.
        mount.args(["-o", "loop,commit=300,noatime"]).arg(self.image()).arg(self.path());
        nodes::succeed(&mut mount).map(drop)
    }

    /// Unmounts it in good order.
    pub fn unmount(&self) -> anyhow::Result<()> {
        nodes::succeed(Command::new("umount").arg(self.path())).map(drop)
    }

    /// Returns what is on the disk, and would be after a power cut: not what only the kernel's memory holds.
    pub fn snapshot(&self) -> anyhow::Result<Vec<u8>> {
        Ok(fs::read(self.image())?)
    }

    /// Puts a snapshot in the place of what is on the disk, and mounts that.
    pub fn restore(&self, snapshot: &[u8]) -> anyhow::Result<()> {
        ensure!(self.unmount().is_ok() || !self.is_mounted(), "the disk is busy");
        fs::write(self.image(), snapshot)?;
        self.mount()
    }

    fn is_mounted(&self) -> bool {
        let at = self.path();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|path| Path::new(path) == at))
    }
}

/// Whether disks may be mounted; says so if not.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn allowed(mounted: bool) -> bool {
    if !mounted {
        assert!(std::env::var_os("CI").is_none(), "mounting needs root");
        eprintln!("skipped: this user may not mount a disk");
    }
    mounted
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _busy = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}
