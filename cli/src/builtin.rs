//! What is built into the binary: ready-made templates, example fleets and example plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use titan_api::templates::{MANIFEST, TemplateFile, TemplateManifest, TemplateSpec};

use crate::output::Exit;

struct File {
    path: &'static str,
    bytes: &'static [u8],
    executable: bool,
}

include!(concat!(env!("OUT_DIR"), "/builtin_files.rs"));

/// One of the sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Ready-made templates, one directory each.
    Templates,
    /// Example fleets, one directory each.
    Examples,
    /// Example plans, one directory each.
    Plans,
}

/// Why something built in cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuiltinError {
    /// There is no such thing.
    #[error("there is no ready-made {what} {name}")]
    Unknown {
        /// Template or example.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// It would overwrite something.
    #[error("{} is there already and not empty", .0.display())]
    Occupied(PathBuf),
    /// It cannot be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

impl BuiltinError {
    /// Returns how a command that meets it ends.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } => Exit::NotFound,
            Self::Occupied(_) => Exit::Refused,
            Self::Write(..) => Exit::Failed,
        }
    }

    /// Returns the way out.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { known, .. } => Some(format!("there are {known}")),
            Self::Occupied(_) => Some("name a directory that is empty or not there yet".into()),
            Self::Write(..) => None,
        }
    }
}

impl Shelf {
    const fn files(self) -> &'static [File] {
        match self {
            Self::Templates => TEMPLATES,
            Self::Examples => EXAMPLES,
            Self::Plans => PLANS,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Templates => "template",
            Self::Examples | Self::Plans => "example",
        }
    }

    /// Returns the names of what there is.
    pub(crate) fn names(self) -> BTreeSet<&'static str> {
        self.files().iter().filter_map(|file| file.path.split_once('/')).map(|(name, _)| name).collect()
    }

    /// Returns the files of `name` by path below its directory, with whether they are executable.
    pub(crate) fn get(self, name: &str) -> Result<BTreeMap<&'static str, (&'static [u8], bool)>, BuiltinError> {
        let files: BTreeMap<_, _> = self
            .files()
            .iter()
            .filter_map(|file| {
                let below = file.path.strip_prefix(name)?.strip_prefix('/')?;
                Some((below, (file.bytes, file.executable)))
            })
            .collect();
        if files.is_empty() {
            let known = self.names().into_iter().collect::<Vec<_>>().join(", ");
            return Err(BuiltinError::Unknown { what: self.what(), name: name.to_owned(), known });
        }
        Ok(files)
    }

    /// Writes the files of `name` into the directory `to`, which has to be empty or not there.
    pub(crate) fn copy(self, name: &str, to: &Path) -> Result<usize, BuiltinError> {
        let files = self.get(name)?;
        if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
            return Err(BuiltinError::Occupied(to.to_owned()));
        }
        for (path, (bytes, executable)) in &files {
            let target = to.join(path);
            let failed = |error| BuiltinError::Write(target.clone(), error);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            fs::write(&target, bytes).map_err(failed)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(files.len())
    }
}

/// Returns the ready-made template `name`.
pub(crate) fn template(name: &str) -> Result<TemplateSpec, BuiltinError> {
    let files = Shelf::Templates.get(name)?.into_iter();
    let files = files
        // A README is for people who read the directory, not for hosts.
        .filter(|(path, _)| *path != "README.md")
        .map(|(path, (bytes, executable))| (path.to_owned(), TemplateFile::of(bytes.to_vec(), executable)));
    Ok(TemplateSpec { files: files.collect() })
}

/// Returns the manifest of a template, or the default one if it has none or a malformed one.
pub(crate) fn manifest(spec: &TemplateSpec) -> TemplateManifest {
    spec.files
        .get(MANIFEST)
        .and_then(|file| file.content.as_deref())
        .and_then(|text| serde_yaml::from_str(text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_within_the_limits_and_says_what_it_is_for() {
        for name in Shelf::Templates.names() {
            let spec = template(name).expect("template");
            assert_eq!(spec.faults(""), [], "{name}");
            assert!(manifest(&spec).description.is_some(), "{name} has no description");
        }
    }

    #[test]
    fn unknown_names_are_told_what_there_is() {
        let error = template("nginx-of-the-future").expect_err("unknown");
        assert_eq!(error.exit(), Exit::NotFound);
        assert!(error.hint().is_some());
    }

    #[test]
    fn examples_are_copied_out_and_never_over_something() {
        let directory = tempfile::tempdir().expect("directory");
        let to = directory.path().join("quickstart");
        assert!(Shelf::Examples.copy("quickstart", &to).expect("copy") > 1);
        assert!(to.join("fleet.yaml").is_file());
        assert!(matches!(Shelf::Examples.copy("quickstart", &to), Err(BuiltinError::Occupied(_))));
    }
}
