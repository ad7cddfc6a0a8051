//! Disks of their own, for what a directory cannot show: a power cut that loses what was not synced, a disk that is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::nodes;

/// A file system that is mounted on a directory of its own, and is gone with this value.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    /// Whether it lies in a file, with a copy of it as it is on the disk, or in memory.
    image: Option<PathBuf>,
}

impl Disk {
    /// Makes a file system in a file and mounts it. Nothing of it is written before somebody asks for it.
    ///
    /// Returns `None`, and says so, where this user may mount nothing.
    pub fn in_file(mebibytes: u64) -> anyhow::Result<Option<Self>> {
        let mut disk = Self::new()?;
        let image = disk.folder.path().join("image");
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        nodes::succeed(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(&image))?;
        disk.image = Some(image);
        Ok(allowed(disk.mount().is_ok()).then_some(disk))
    }

    /// Makes a file system in memory.
    ///
    /// Returns `None`, and says so, where this user may mount nothing.
    pub fn in_memory(options: &str) -> anyhow::Result<Option<Self>> {
        let disk = Self::new()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(disk.path());
        Ok(allowed(nodes::succeed(&mut mount).is_ok()).then_some(disk))
    }

    fn new() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("titan-disk-")?;
        fs::create_dir(folder.path().join("at"))?;
        Ok(Self { folder, image: None })
    }

    /// Returns the directory on which it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    fn image(&self) -> anyhow::Result<&Path> {
        self.image.as_deref().context("a disk in memory has no image")
    }

    /// Mounts it.
    pub fn mount(&self) -> anyhow::Result<()> {
        let mut mount = Command::new("mount");
        // What is not synced stays in memory for longer than a test takes.
        mount.args(["-o", "loop,commit=300,noatime"]).arg(self.image()?).arg(self.path());
        nodes::succeed(&mut mount).map(drop)
    }

    /// Mounts a disk in memory anew, with other options and the same content.
    pub fn remount(&self, options: &str) -> anyhow::Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(self.path());
        nodes::succeed(&mut mount).map(drop)
    }

    /// Unmounts it in good order.
    pub fn unmount(&self) -> anyhow::Result<()> {
        nodes::succeed(Command::new("umount").arg(self.path())).map(drop)
    }

    /// Returns what is on the disk, and would be after a power cut: not what only the kernel's memory holds.
    pub fn snapshot(&self) -> anyhow::Result<Vec<u8>> {
        Ok(fs::read(self.image()?)?)
    }

    /// Puts a snapshot in the place of what is on the disk, and mounts that.
    pub fn restore(&self, snapshot: &[u8]) -> anyhow::Result<()> {
        ensure!(self.unmount().is_ok() || !self.is_mounted(), "the disk is busy");
        fs::write(self.image()?, snapshot)?;
        self.mount()
    }

    fn is_mounted(&self) -> bool {
        let at = self.path();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|path| Path::new(path) == at))
    }
}

/// Whether disks may be mounted; says so if not.
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
