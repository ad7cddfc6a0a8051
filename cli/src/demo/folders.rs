//! What is on a host's disk: files before and after, and how they differ.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::output::{Tone, diffs};

/// Files larger than this are shown by size only.
const SHOWN_BYTES: usize = 64 * 1024;
/// Lines of a file, or of a difference, that are shown.
const SHOWN_LINES: usize = 14;

/// The files below a directory, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Folder {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Folder {
    /// Returns what is below `root`; nothing if it is not there. Hidden entries at its top are the agent's own.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut folder = Self::default();
        match fs::read_dir(root) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                        folder.take(root, &entry.path())?;
                    }
                }
                Ok(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(folder),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, root: &Path, path: &Path) -> io::Result<()> {
        // An agent may be changing the directory meanwhile: what is gone again was not there.
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            let entries = match fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) if gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            for entry in entries {
                self.take(root, &entry?.path())?;
            }
        } else if metadata.is_file() {
            match fs::read(path) {
                Ok(bytes) => {
                    let below = path.strip_prefix(root).unwrap_or(path).to_owned();
                    self.files.insert(below, bytes);
                }
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether anything is below `directory`.
    pub(super) fn has(&self, directory: &Path) -> bool {
        self.files.keys().any(|path| path.starts_with(directory))
    }

    /// Returns each file with its size and first lines.
    pub(super) fn tree(&self) -> String {
        let mut text = String::new();
        for (path, bytes) in &self.files {
            let size = Tone::Faint.paint(&format!("({} bytes)", bytes.len()));
            text.push_str(&format!("  {} {size}\n", path.display()));
            for line in readable(bytes).lines().take(3) {
                text.push_str(&format!("    {}\n", Tone::Faint.paint(&cut(line))));
            }
        }
        if text.is_empty() { "  no files\n".to_owned() } else { text }
    }

    /// Returns what has to happen to become `after`: files that come, go and change, the latter with their difference.
    pub(super) fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, bytes) in &after.files {
            let name = path.display().to_string();
            match self.files.get(path) {
                None => changes.push(format!("    {} {name}\n", Tone::Good.paint("new"))),
                Some(before) if before != bytes => {
                    let mut text = format!("    {} {name}\n", Tone::Care.paint("changed"));
                    text.push_str(&difference(&readable(before), &readable(bytes)));
                    changes.push(text);
                }
                Some(_) => {}
            }
        }
        for path in self.files.keys().filter(|path| !after.files.contains_key(*path)) {
            changes.push(format!("    {} {}\n", Tone::Bad.paint("removed"), path.display()));
        }
        changes
    }
}

/// Returns the lines that go and come, without what stays around them.
fn difference(before: &str, after: &str) -> String {
    let diff = diffs::unified(before, after, "", "").unwrap_or_default();
    // The first two lines would name the files.
    let moved = diff.lines().skip(2).filter(|line| line.starts_with(['+', '-']));
    let shown: String = moved.take(SHOWN_LINES).map(|line| format!("{}\n", cut(line))).collect();
    diffs::paint(&shown, "      ", None)
}

fn readable(bytes: &[u8]) -> String {
    if bytes.len() > SHOWN_BYTES {
        return String::new();
    }
    String::from_utf8_lossy(bytes).replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

fn cut(line: &str) -> String {
    if line.chars().count() > 100 { line.chars().take(99).chain(['…']).collect() } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_new_changed_and_removed_files() {
        let root = tempfile::tempdir().expect("directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        };
        write("iot/a/one", "x\ny\n");
        write("iot/b/two", "z\n");
        write(".staging/secret", "not shown");
        let before = Folder::read(root.path()).expect("folder");
        assert!(
            before.has(Path::new("iot/a")) && !before.has(Path::new("iot/c")) && !before.has(Path::new(".staging"))
        );
        write("iot/a/one", "x\nw\n");
        write("iot/c/three", "");
        fs::remove_file(root.path().join("iot/b/two")).expect("remove");
        let changes = before.changes(&Folder::read(root.path()).expect("folder")).concat();
        let plain = anstream::adapter::strip_str(&changes).to_string();
        assert_eq!(plain, "    changed iot/a/one\n      -y\n      +w\n    new iot/c/three\n    removed iot/b/two\n");
        assert!(before.changes(&before).is_empty());
        assert_eq!(Folder::read(&root.path().join("none")).expect("folder"), Folder::default());
    }
}
