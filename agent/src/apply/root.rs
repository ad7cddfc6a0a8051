//! The directory that everything is below, and file operations that cannot leave it.
//!
//! Each path is walked part by part from the root's descriptor, and no part may be a symbolic link: whoever plants one
//! below the root gets a refusal, not a file somewhere else. The last part is never followed either.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd as _, OwnedFd},
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};
use titan_api::Digest;

/// Why something below the root cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// The system refused.
    #[error("{} cannot be {what}", .path.display())]
    Io {
        /// What was to be done, as a participle.
        what: &'static str,
        /// The whole path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of the path is a symbolic link.
    #[error("{} is a symbolic link; the agent does not follow links below its root", .0.display())]
    Link(PathBuf),
    /// A part of the path is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
}

/// The result of an operation below the root.
pub(crate) type Result<T> = std::result::Result<T, RootError>;

/// The root.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a new file is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    /// Permission bits.
    pub(crate) mode: u32,
    /// The user's id, if it matters.
    pub(crate) uid: Option<u32>,
    /// The group's id, if it matters.
    pub(crate) gid: Option<u32>,
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Root {
    /// Opens the root, making it and what is missing above it. The root itself may be reached through links.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source: io::Error| RootError::Io { what: "opened", path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|error| io(error.into()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Returns the whole path, for messages.
    pub(crate) fn full(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(path) }
    }

    fn io<'a>(&'a self, what: &'static str, path: &'a str) -> impl Fn(Errno) -> RootError + 'a {
        move |error| RootError::Io { what, path: self.full(path), source: error.into() }
    }

    /// Returns a descriptor of a directory, or `None` if there is none. It only serves to look further.
    fn dir(&self, path: &str) -> Result<Option<OwnedFd>> {
        let mut fd = fs::openat(&self.fd, ".", LOOK, Mode::empty()).map_err(self.io("opened", ""))?;
        let mut end = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            end += part.len() + usize::from(end > 0);
            let so_far = &path[..end];
            fd = match fs::openat(&fd, part, LOOK, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => return Ok(None),
                Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let link = fs::statat(&fd, part, AtFlags::SYMLINK_NOFOLLOW)
                        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
                    return Err(match error {
                        _ if link => RootError::Link(self.full(so_far)),
                        _ => RootError::NotDirectory(self.full(so_far)),
                    });
                }
                Err(error) => return Err(self.io("opened", so_far)(error)),
            };
        }
        Ok(Some(fd))
    }

    /// Returns a descriptor of the directory that holds `path`, with the last part.
    fn parent<'a>(&self, path: &'a str) -> Result<Option<(OwnedFd, &'a str)>> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.dir(dir)?.map(|fd| (fd, name)))
    }

    fn existing<'a>(&self, what: &'static str, path: &'a str) -> Result<(OwnedFd, &'a str)> {
        self.parent(path)?.ok_or_else(|| self.io(what, path)(Errno::NOENT))
    }

    /// Returns what is at `path`, links not followed, or `None` if there is nothing.
    pub(crate) fn stat(&self, path: &str) -> Result<Option<Stat>> {
        if path.is_empty() {
            return fs::fstat(&self.fd).map(Some).map_err(self.io("looked at", path));
        }
        let Some((dir, name)) = self.parent(path)? else { return Ok(None) };
        match fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.io("looked at", path)(error)),
        }
    }

    /// Returns the regular file at `path`, to be read.
    pub(crate) fn read(&self, path: &str) -> Result<File> {
        let (dir, name) = self.existing("read", path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(&dir, name, flags, Mode::empty()).map_err(self.io("read", path))?;
        Ok(File::from(fd))
    }

    /// Returns the content of the regular file at `path`, if it has at most `limit` bytes.
    pub(crate) fn read_at_most(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self.read(path)?.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| RootError::Io { what: "read", path: self.full(path), source })?;
        Ok((bytes.len() <= limit).then_some(bytes))
    }

    /// Returns the digest of the regular file at `path`, which is never in memory as a whole.
    pub(crate) fn digest(&self, path: &str) -> Result<Digest> {
        let mut file = self.read(path)?;
        Digest::read(&mut file).map_err(|source| RootError::Io { what: "read", path: self.full(path), source })
    }

    /// Writes a new file with what `content` brings, synced. There must not be one.
    pub(crate) fn write_new(&self, path: &str, mut content: impl io::Read, attributes: Attributes) -> Result<()> {
        let (dir, name) = self.existing("written", path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600)).map_err(self.io("written", path))?;
        if attributes.uid.is_some() || attributes.gid.is_some() {
            let uid = attributes.uid.map(rustix::process::Uid::from_raw);
            let gid = attributes.gid.map(rustix::process::Gid::from_raw);
            fs::fchown(&fd, uid, gid).map_err(self.io("given to its owner", path))?;
        }
        fs::fchmod(&fd, Mode::from_raw_mode(attributes.mode)).map_err(self.io("given its mode", path))?;
        let mut file = File::from(fd);
        io::copy(&mut content, &mut file).and_then(|_| file.sync_all()).map_err(|source| RootError::Io {
            what: "written",
            path: self.full(path),
            source,
        })
    }

    /// Makes a directory; it is fine if there is one. Returns whether it was made.
    pub(crate) fn make_dir(&self, path: &str, mode: u32) -> Result<bool> {
        let (dir, name) = self.existing("made", path)?;
        match fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                // The umask must not decide.
                let fd = fs::openat(&dir, name, LOOK & !OFlags::PATH, Mode::empty()).map_err(self.io("made", path))?;
                fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(self.io("made", path))?;
                Ok(true)
            }
            Err(Errno::EXIST) => match self.stat(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Some(FileType::Directory) => Ok(false),
                Some(FileType::Symlink) => Err(RootError::Link(self.full(path))),
                _ => Err(RootError::NotDirectory(self.full(path))),
            },
            Err(error) => Err(self.io("made", path)(error)),
        }
    }

    /// Gives a directory the owner and permissions of another.
    pub(crate) fn copy_owner(&self, stat: &Stat, to: &str) -> Result<()> {
        let Some(now) = self.stat(to)? else { return Ok(()) };
        let (dir, name) = self.existing("given to its owner", to)?;
        if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (rustix::process::Uid::from_raw(stat.st_uid), rustix::process::Gid::from_raw(stat.st_gid));
            fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.io("given to its owner", to))?;
        }
        if now.st_mode != stat.st_mode {
            let fd = fs::openat(&dir, name, LOOK & !OFlags::PATH, Mode::empty()).map_err(self.io("opened", to))?;
            fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(self.io("given its mode", to))?;
        }
        Ok(())
    }

    /// Renames; whatever file is at `to` is replaced in the same instant.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    /// Renames if there is nothing at `to`.
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, RenameFlags::NOREPLACE)
    }

    /// Exchanges two directories in one instant.
    pub(crate) fn exchange(&self, one: &str, other: &str) -> Result<()> {
        self.rename_with(one, other, RenameFlags::EXCHANGE)
    }

    fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let (from_dir, from_name) = self.existing("renamed", from)?;
        let (to_dir, to_name) = self.existing("put in place", to)?;
        let done = if flags.is_empty() {
            fs::renameat(&from_dir, from_name, &to_dir, to_name)
        } else {
            fs::renameat_with(&from_dir, from_name, &to_dir, to_name, flags)
        };
        done.map_err(self.io("put in place", to))
    }

    /// Gives the file at `from` a second name. Returns whether the file system can do that.
    pub(crate) fn link(&self, from: &str, to: &str) -> Result<bool> {
        let (from_dir, from_name) = self.existing("linked", from)?;
        let (to_dir, to_name) = self.existing("linked", to)?;
        match fs::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::NOTSUP | Errno::MLINK | Errno::XDEV | Errno::NOSYS) => Ok(false),
            Err(error) => Err(self.io("linked", to)(error)),
        }
    }

    /// Removes a file; it is fine if there is none.
    pub(crate) fn unlink(&self, path: &str) -> Result<()> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.io("removed", path)(error)),
        }
    }

    /// Removes a directory if it is empty. Returns whether it is gone.
    pub(crate) fn remove_dir(&self, path: &str) -> Result<bool> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(true) };
        match fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(error) => Err(self.io("removed", path)(error)),
        }
    }

    /// Removes a directory with everything in it; links are removed, not followed.
    pub(crate) fn clear(&self, path: &str) -> Result<()> {
        for (name, kind) in self.list(path)? {
            let inside = format!("{path}/{name}");
            if kind == FileType::Directory { self.clear(&inside)? } else { self.unlink(&inside)? }
        }
        self.remove_dir(path).map(drop)
    }

    /// Writes a directory's entries to disk; it is fine if it is gone.
    pub(crate) fn sync_dir(&self, path: &str) -> Result<()> {
        let Some(dir) = self.dir(path)? else { return Ok(()) };
        let fd = self.readable(&dir, path)?;
        fs::fsync(&fd).map_err(self.io("synced", path))
    }

    fn readable(&self, dir: &OwnedFd, path: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(dir, ".", flags, Mode::empty()).map_err(self.io("opened", path))
    }

    /// Returns the names in a directory with their kinds, in order; none if there is no directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<(String, FileType)>> {
        let Some(dir) = self.dir(path)? else { return Ok(Vec::new()) };
        let fd = self.readable(&dir, path)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(fd.as_fd()).map_err(self.io("listed", path))? {
            let entry = entry.map_err(self.io("listed", path))?;
            // A name that is not text is nobody's business; it counts as something unknown.
            let Ok(name) = entry.file_name().to_str().map(str::to_owned) else {
                found.push((entry.file_name().to_string_lossy().into_owned(), FileType::Unknown));
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
                }
                kind => kind,
            };
            found.push((name, kind));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Returns the directory nearest to the root that is on the same device as `path` will be.
    pub(crate) fn mount_of(&self, path: &str) -> Result<String> {
        let root = fs::fstat(&self.fd).map_err(self.io("looked at", ""))?;
        let (mut device, mut mount) = (root.st_dev, String::new());
        for (end, _) in path.match_indices('/') {
            match self.stat(&path[..end])? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => break,
                Some(stat) if stat.st_dev != device => (device, mount) = (stat.st_dev, path[..end].to_owned()),
                Some(_) => {}
                None => break,
            }
        }
        Ok(mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes { mode: 0o644, uid: None, gid: None };

    #[test]
    fn links_below_the_root_are_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let outside = tempfile::tempdir().expect("outside");
        std::fs::write(outside.path().join("secret"), "s").expect("secret");
        let root = Root::open(dir.path()).expect("root");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).expect("link");
        assert!(matches!(root.read("link/secret"), Err(RootError::Link(_))));
        assert!(matches!(root.write_new("link/x", io::empty(), PLAIN), Err(RootError::Link(_))));
        assert!(matches!(root.unlink("link/secret"), Err(RootError::Link(_))));
        assert!(matches!(root.make_dir("link", 0o755), Err(RootError::Link(_))));
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("file")).expect("link");
        assert!(root.read("file").is_err());
        assert!(root.write_new("file", io::empty(), PLAIN).is_err());
        assert_eq!(std::fs::read(outside.path().join("secret")).expect("secret"), b"s");
    }

    #[test]
    fn a_file_in_the_way_is_no_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let root = Root::open(&dir.path().join("made/too")).expect("root");
        root.write_new("a", b"x".as_slice(), PLAIN).expect("write");
        assert!(matches!(root.stat("a/b"), Err(RootError::NotDirectory(_))));
        assert!(root.stat("b/c").expect("missing").is_none());
        assert_eq!(root.mount_of("a/b/c").expect("mount"), "");
        assert!(root.write_new("a", b"y".as_slice(), PLAIN).is_err(), "exists");
    }
}
