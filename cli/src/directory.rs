//! A template's directory, read for upload: plain files only, within the limits.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use titan_api::{
    limits,
    problems::Fault,
    templates::{TemplateFile, TemplateSpec},
};

/// Why a directory cannot be a template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It is not there, or not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Something in it cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// There is something other than files and directories in it.
    #[error("{} is {what}: a template holds plain files and directories only", .path.display())]
    Special {
        /// What was found.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A name is not UTF-8.
    #[error("{} has a name that is not UTF-8", .0.display())]
    Name(PathBuf),
    /// It is larger than a template may be.
    #[error("{} is too large for a template: {what}", .path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// Which limit was passed.
        what: String,
    },
    /// Paths or contents are not allowed.
    #[error("{} cannot be a template", .path.display())]
    Faults {
        /// The directory.
        path: PathBuf,
        /// Each fault, by path.
        faults: Vec<Fault>,
    },
}

impl DirectoryError {
    /// Returns the way out.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotADirectory(_) => {
                Some("name the directory that holds the template's files: -f ./device-service".into())
            }
            Self::Special { .. } => Some("put a copy of the file in its place".into()),
            _ => None,
        }
    }
}

/// Returns the template that the directory at `root` holds. Hidden files are part of it; the executable bit is kept.
/// A symbolic link at `root` itself is followed, since it is the person's own word.
pub(crate) fn read(root: &Path) -> Result<TemplateSpec, DirectoryError> {
    if !root.is_dir() {
        return Err(DirectoryError::NotADirectory(root.to_owned()));
    }
    let mut walk = Walk { root, files: BTreeMap::new(), bytes: 0 };
    walk.directory(root, "")?;
    let spec = TemplateSpec { files: walk.files };
    let faults = spec.faults("");
    if faults.is_empty() { Ok(spec) } else { Err(DirectoryError::Faults { path: root.to_owned(), faults }) }
}

struct Walk<'a> {
    root: &'a Path,
    files: BTreeMap<String, TemplateFile>,
    bytes: usize,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, prefix: &str) -> Result<(), DirectoryError> {
        let unread = |error| DirectoryError::Read(directory.to_owned(), error);
        for entry in fs::read_dir(directory).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| DirectoryError::Name(path.clone()))?;
            let below = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            // The type of the entry itself: links are not followed.
            let kind = entry.file_type().map_err(|error| DirectoryError::Read(path.clone(), error))?;
            if kind.is_dir() {
                if below.len() > limits::PATH_BYTES {
                    return Err(self.too_large(format!("{below:?} is longer than {} bytes", limits::PATH_BYTES)));
                }
                self.directory(&path, &below)?;
            } else if kind.is_file() {
                self.file(&path, below)?;
            } else {
                let what = if kind.is_symlink() { "a symbolic link" } else { "a device, socket or pipe" };
                return Err(DirectoryError::Special { path, what });
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, below: String) -> Result<(), DirectoryError> {
        let unread = |error| DirectoryError::Read(path.to_owned(), error);
        if self.files.len() >= limits::TEMPLATE_FILES {
            return Err(self.too_large(format!("more than {} files", limits::TEMPLATE_FILES)));
        }
        // Without following a link that was put there in between, and without waiting for a pipe.
        let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits();
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(flags.cast_signed());
        let file = options.open(path).map_err(unread)?;
        let metadata = file.metadata().map_err(unread)?;
        if !metadata.is_file() {
            return Err(DirectoryError::Special { path: path.to_owned(), what: "a device, socket or pipe" });
        }
        let left = limits::TEMPLATE_BYTES - self.bytes;
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, left as u64 + 1), &mut content).map_err(unread)?;
        if content.len() > left {
            return Err(self.too_large(format!("more than {} bytes in all", limits::TEMPLATE_BYTES)));
        }
        self.bytes += content.len();
        let executable = metadata.permissions().mode() & 0o100 != 0;
        self.files.insert(below, TemplateFile::of(content, executable));
        Ok(())
    }

    fn too_large(&self, what: String) -> DirectoryError {
        DirectoryError::TooLarge { path: self.root.to_owned(), what }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("directory")
    }

    #[test]
    fn files_are_taken_with_hidden_ones_and_the_executable_bit() {
        let root = directory();
        fs::create_dir_all(root.path().join("etc/.d")).expect("mkdir");
        fs::write(root.path().join("etc/.d/.env"), "A=1").expect("write");
        fs::write(root.path().join("run.sh"), "#!/bin/sh").expect("write");
        fs::set_permissions(root.path().join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::write(root.path().join("raw"), [0xff, 0xfe]).expect("write");
        let spec = read(root.path()).expect("template");
        assert_eq!(spec.files.keys().collect::<Vec<_>>(), ["etc/.d/.env", "raw", "run.sh"]);
        assert!(spec.files["run.sh"].executable && !spec.files["raw"].executable);
        assert_eq!(spec.files["raw"].bytes(), Ok(vec![0xff, 0xfe]));
    }

    #[test]
    fn symlinks_are_refused_by_path() {
        let root = directory();
        fs::create_dir(root.path().join("etc")).expect("mkdir");
        symlink("/etc/passwd", root.path().join("etc/link")).expect("symlink");
        let error = read(root.path()).expect_err("symlink");
        assert!(error.to_string().contains("etc/link is a symbolic link"), "{error}");
    }

    #[test]
    fn links_to_directories_are_refused_too() {
        let root = directory();
        symlink("/etc", root.path().join("all")).expect("symlink");
        assert!(matches!(read(root.path()), Err(DirectoryError::Special { .. })));
    }

    #[test]
    fn pipes_and_sockets_are_refused_without_waiting() {
        let root = directory();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("socket");
        assert!(matches!(read(root.path()), Err(DirectoryError::Special { .. })));
    }

    #[test]
    fn limits_are_kept() {
        let root = directory();
        fs::write(root.path().join("large"), vec![b'x'; limits::TEMPLATE_BYTES + 1]).expect("write");
        assert!(matches!(read(root.path()), Err(DirectoryError::TooLarge { .. })));
        fs::write(root.path().join("large"), vec![b'x'; limits::TEMPLATE_BYTES]).expect("write");
        assert!(read(root.path()).is_ok());
        let many = directory();
        for index in 0..=limits::TEMPLATE_FILES {
            fs::write(many.path().join(index.to_string()), "").expect("write");
        }
        assert!(matches!(read(many.path()), Err(DirectoryError::TooLarge { .. })));
    }

    #[test]
    fn names_that_do_not_travel_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let root = directory();
        fs::write(root.path().join("back\\slash"), "").expect("write");
        assert!(matches!(read(root.path()), Err(DirectoryError::Faults { .. })));
        let other = directory();
        fs::write(other.path().join(std::ffi::OsStr::from_bytes(&[0xff])), "").expect("write");
        assert!(matches!(read(other.path()), Err(DirectoryError::Name(_))));
    }

    #[test]
    fn what_is_empty_or_no_directory_is_refused() {
        let root = directory();
        assert!(matches!(read(root.path()), Err(DirectoryError::Faults { .. })));
        fs::write(root.path().join("file"), "").expect("write");
        assert!(matches!(read(&root.path().join("file")), Err(DirectoryError::NotADirectory(_))));
        assert!(matches!(read(&root.path().join("none")), Err(DirectoryError::NotADirectory(_))));
    }
}
