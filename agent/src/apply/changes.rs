//! What has to change for a bundle's files to be in place. Pure: wanted, owned and found in, changes out.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::{
    Digest,
    templates::{FileMode, PathError, check_path},
};

use super::{
    Target,
    accounts::{AccountError, Accounts},
};
use crate::{
    bundles::{Bundle, BundleFile},
    ledger::OwnedFile,
};

/// The name that no path may have a part of: the agent stages below it.
pub(crate) const STAGING: &str = ".titan";

/// Why a bundle is refused before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A path leaves the root or is malformed.
    #[error("the path {path:?} is refused")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// A path uses the staging directory's name.
    #[error("the path {0:?} is refused: {STAGING} is where the agent stages files")]
    Staging(String),
    /// Two files of the bundle have paths of which one is the other or lies below it.
    #[error("the paths {0:?} and {1:?} of the bundle cannot both be files")]
    Twice(String, String),
    /// The owner or group cannot be had.
    #[error("{path:?} cannot have the owner that it is to have")]
    Account {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: AccountError,
    },
    /// Another deployment owns the path.
    #[error("{path:?} belongs to the deployment {owner}, which owns {owned:?}")]
    Owned {
        /// The path that is wanted.
        path: String,
        /// The owner, as `workspace/name`.
        owner: String,
        /// The path that it owns.
        owned: String,
    },
    /// Another deployment owns something beside files.
    #[error("{claim} belongs to the deployment {owner}")]
    Claimed {
        /// What is wanted.
        claim: String,
        /// The owner, as `workspace/name`.
        owner: String,
    },
    /// A path is outside of what the host's owner allows.
    #[error("the path {path:?} is not allowed on this host; appliers.files.paths in agent.yaml says what is")]
    Beyond {
        /// The path below the root.
        path: String,
    },
    /// Something that the agent did not put there is at the path.
    #[error(
        "{path:?} exists with other content and was not put there by the agent; move it away, or set \
         appliers.files.overwrite in agent.yaml"
    )]
    Foreign {
        /// The path.
        path: String,
    },
    /// Something that cannot be replaced by a file is at the path.
    #[error("{path:?} is {kind}, which the agent does not replace")]
    InTheWay {
        /// The path.
        path: String,
        /// What is there.
        kind: &'static str,
    },
}

/// One file as the bundle wants it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// The file, which has the content.
    pub(crate) file: &'a BundleFile,
    /// How the ledger writes it down.
    pub(crate) record: OwnedFile,
    /// The owning user's id, if it matters.
    pub(crate) uid: Option<u32>,
    /// The owning group's id, if it matters.
    pub(crate) gid: Option<u32>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Missing,
    /// A regular file.
    File { sha256: Digest, mode: u32, uid: u32, gid: u32 },
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
    /// Anything else.
    Special,
}

/// What has to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    /// Paths to write, new or changed.
    pub(crate) put: BTreeSet<String>,
    /// Paths to remove.
    pub(crate) take: BTreeSet<String>,
    /// Wanted paths at which a directory is that holds only what is given up.
    pub(crate) over_directory: BTreeSet<String>,
    /// What had drifted: each path, and how.
    pub(crate) drift: Vec<(String, &'static str)>,
}

impl Changes {
    /// Returns a phrase for each file that had drifted.
    pub(crate) fn phrases(&self) -> Vec<String> {
        self.drift.iter().map(|(path, how)| format!("{path} ({how})")).collect()
    }

    /// Whether nothing has to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.take.is_empty()
    }
}

/// Returns the path below the root of one of the bundle's files.
fn place(target: &Target, file: &BundleFile) -> Result<String, Refusal> {
    check_path(&file.path).map_err(|source| Refusal::Path { path: file.path.clone(), source })?;
    if file.path.split('/').any(|part| part == STAGING) {
        return Err(Refusal::Staging(file.path.clone()));
    }
    Ok(if file.rooted { file.path.clone() } else { format!("{}/{}", target.home(), file.path) })
}

/// Returns the paths below the root of the bundle's files.
pub(crate) fn places(target: &Target, bundle: &Bundle) -> Result<BTreeSet<String>, Refusal> {
    bundle.files.iter().map(|file| place(target, file)).collect()
}

/// Returns the bundle's files by path below the root.
pub(crate) fn wanted<'a>(
    target: &Target,
    bundle: &'a Bundle,
    accounts: &Accounts,
) -> Result<BTreeMap<String, Wanted<'a>>, Refusal> {
    let mut wanted: BTreeMap<String, Wanted<'a>> = BTreeMap::new();
    for file in &bundle.files {
        let path = place(target, file)?;
        let account = |source| Refusal::Account { path: path.clone(), source };
        let uid = file.owner.as_deref().map(|name| accounts.user(name)).transpose().map_err(account)?;
        let gid = file.group.as_deref().map(|name| accounts.group(name)).transpose().map_err(account)?;
        let record = OwnedFile {
            sha256: file.sha256,
            mode: file.mode,
            owner: file.owner.clone(),
            group: file.group.clone(),
            rooted: file.rooted,
        };
        let above = path.match_indices('/').find_map(|(end, _)| wanted.get_key_value(&path[..end]));
        let from = format!("{path}/");
        let below = || wanted.range(from.clone()..).next().filter(|(known, _)| known.starts_with(&from));
        if let Some((known, _)) = wanted.get_key_value(&path).or(above).or_else(below) {
            return Err(Refusal::Twice(known.clone(), path));
        }
        wanted.insert(path, Wanted { file, record, uid, gid });
    }
    Ok(wanted)
}

/// Returns what has to change so that `wanted` is in place, given what the deployment owns and what was found at every
/// path of both.
pub(crate) fn changes(
    wanted: &BTreeMap<String, Wanted<'_>>,
    owned: &BTreeMap<String, OwnedFile>,
    found: &BTreeMap<String, Found>,
    overwrite: bool,
) -> Result<Changes, Refusal> {
    let mut changes = Changes::default();
    for (path, file) in wanted {
        let own = owned.get(path);
        let settled = own == Some(&file.record);
        let drift = match found.get(path).unwrap_or(&Found::Missing) {
            Found::Missing => "missing",
            Found::File { sha256, .. } if *sha256 != file.record.sha256 => {
                if own.is_none() && !overwrite {
                    return Err(Refusal::Foreign { path: path.clone() });
                }
                "content"
            }
            Found::File { mode, uid, gid, .. } => {
                let other = |want: Option<u32>, is: u32| want.is_some_and(|want| want != is);
                if mode & 0o7777 != file.record.mode.bits() {
                    "mode"
                } else if other(file.uid, *uid) || other(file.gid, *gid) {
                    "owner"
                } else {
                    continue;
                }
            }
            Found::Link if own.is_some() || overwrite => "a symbolic link in its place",
            Found::Link => return Err(Refusal::InTheWay { path: path.clone(), kind: "a symbolic link" }),
            Found::Directory => {
                let below = format!("{path}/");
                if !owned.range(below.clone()..).next().is_some_and(|(known, _)| known.starts_with(&below)) {
                    return Err(Refusal::InTheWay { path: path.clone(), kind: "a directory" });
                }
                changes.over_directory.insert(path.clone());
                "a directory in its place"
            }
            Found::Special => return Err(Refusal::InTheWay { path: path.clone(), kind: "neither file nor directory" }),
        };
        if settled {
            changes.drift.push((path.clone(), drift));
        }
        changes.put.insert(path.clone());
    }
    for path in owned.keys().filter(|path| !wanted.contains_key(*path)) {
        if matches!(found.get(path), Some(Found::File { .. } | Found::Link)) {
            changes.take.insert(path.clone());
        }
    }
    Ok(changes)
}

/// Returns the permissions that a file on disk has, as a [`FileMode`] would write them.
pub(crate) const fn attributes(file: &Wanted<'_>) -> super::root::Attributes {
    super::root::Attributes { mode: FileMode::bits(file.record.mode), uid: file.uid, gid: file.gid }
}

#[cfg(test)]
mod tests {
    use titan_api::{
        Name, Revision,
        poll::{self, BundleFile},
    };
    use uuid::Uuid;

    use super::*;

    fn target() -> Target {
        Target {
            id: Uuid::from_u128(1),
            workspace: Name::new("default").expect("name"),
            name: Name::new("one").expect("name"),
            release: "one#1".into(),
            revision: Revision::ZERO,
            digest: Digest::of(b""),
            depends_on: vec![],
        }
    }

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let file = |(path, content): &(&str, &str)| BundleFile {
            path: (*path).to_owned(),
            rooted: path.starts_with("etc"),
            mode: FileMode::PLAIN,
            owner: None,
            group: None,
            content: Some((*content).to_owned()),
            content_base64: None,
        };
        poll::Bundle { files: files.iter().map(file).collect(), ..poll::Bundle::default() }.try_into().expect("bundle")
    }

    fn file(content: &str, mode: u32) -> Found {
        Found::File { sha256: Digest::of(content.as_bytes()), mode: 0o100_000 | mode, uid: 0, gid: 0 }
    }

    fn run(
        bundle: &Bundle,
        owned: &[(&str, &str)],
        found: &[(&str, Found)],
        overwrite: bool,
    ) -> Result<Changes, Refusal> {
        let wanted = wanted(&target(), bundle, &Accounts::default())?;
        let record = |content: &str| OwnedFile {
            sha256: Digest::of(content.as_bytes()),
            mode: FileMode::PLAIN,
            owner: None,
            group: None,
            rooted: false,
        };
        let owned = owned.iter().map(|(path, content)| ((*path).to_owned(), record(content))).collect();
        let found = found.iter().map(|(path, found)| ((*path).to_owned(), found.clone())).collect();
        changes(&wanted, &owned, &found, overwrite)
    }

    const A: &str = "default/one/a";

    #[test]
    fn a_settled_file_plans_nothing() {
        let changes = run(&bundle(&[("a", "x")]), &[(A, "x")], &[(A, file("x", 0o644))], false).expect("changes");
        assert!(changes.is_empty() && changes.drift.is_empty());
    }

    #[test]
    fn drift_is_repaired_and_named() {
        for (found, word) in [
            (file("y", 0o644), "content"),
            (file("x", 0o600), "mode"),
            (Found::Missing, "missing"),
            (Found::Link, "link"),
        ] {
            let changes = run(&bundle(&[("a", "x")]), &[(A, "x")], &[(A, found)], false).expect("changes");
            assert!(changes.put.contains(A) && changes.phrases()[0].contains(word), "{changes:?}");
        }
        let changes = run(&bundle(&[("a", "new")]), &[(A, "x")], &[(A, file("x", 0o644))], false).expect("changes");
        assert!(changes.put.contains(A) && changes.drift.is_empty(), "a new release is no drift");
    }

    #[test]
    fn a_foreign_file_is_adopted_if_equal_and_refused_if_not() {
        let bundle = bundle(&[("a", "x")]);
        assert!(run(&bundle, &[], &[(A, file("x", 0o644))], false).expect("equal").is_empty());
        let refusal = run(&bundle, &[], &[(A, file("y", 0o644))], false).expect_err("foreign");
        assert_eq!(refusal, Refusal::Foreign { path: A.to_owned() });
        assert!(run(&bundle, &[], &[(A, file("y", 0o644))], true).expect("overwrite").put.contains(A));
        assert!(matches!(run(&bundle, &[], &[(A, Found::Link)], false), Err(Refusal::InTheWay { .. })));
        assert!(matches!(run(&bundle, &[(A, "x")], &[(A, Found::Directory)], true), Err(Refusal::InTheWay { .. })));
    }

    #[test]
    fn only_what_is_owned_and_there_is_removed() {
        let (b, c) = ("default/one/b", "default/one/c");
        let found = [(A, file("x", 0o644)), (b, file("drifted", 0o644)), (c, Found::Missing)];
        let changes = run(&bundle(&[("a", "x")]), &[(A, "x"), (b, "y"), (c, "z")], &found, false).expect("changes");
        assert_eq!(changes.take, [b.to_owned()].into());
    }

    #[test]
    fn bundles_with_bad_paths_are_refused_whole() {
        for (files, sign) in [
            (vec![("../x", "")], "'..'"),
            (vec![("/etc/passwd", "")], "absolute"),
            (vec![(".titan/x", "")], "stages"),
            (vec![("a", ""), ("a", "")], "cannot both"),
            (vec![("a/b", ""), ("a", "")], "cannot both"),
            (vec![("a", ""), ("a/b", "")], "cannot both"),
        ] {
            let refusal = run(&bundle(&files), &[], &[], true).expect_err(sign);
            let text = format!("{refusal} {:?}", std::error::Error::source(&refusal).map(ToString::to_string));
            assert!(text.contains(sign), "{text}");
        }
    }
}
