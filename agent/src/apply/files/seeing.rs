//! Looking at what is in place: before a change, and for what others did to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use rustix::fs::FileType;
use titan_api::drift::Drift;

use super::Files;
use crate::{
    apply::{
        ApplyError, Strays, Target,
        accounts::Accounts,
        changes::{self, Found, Wanted},
        root::RootError,
    },
    bundles::{Bundle, BundleFile},
    drifts,
    ledger::{Ledger, OwnedFile},
    spaces::Need,
};

impl Files {
    fn look_at(&self, path: &str, wanted: bool, owned: &BTreeMap<String, OwnedFile>) -> Result<Found, RootError> {
        let above = |path: &str| path.match_indices('/').any(|(end, _)| owned.contains_key(&path[..end]));
        let stat = match self.root.stat(path) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Found::Missing),
            // One of the deployment's own files is in the way and goes; or a directory that it had is none any more,
            // so its file is not there either.
            Err(RootError::NotDirectory(_)) if !wanted || above(path) => return Ok(Found::Missing),
            Err(RootError::Link(_)) if !wanted => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let sha256 = self.root.digest(path)?;
                Found::File { sha256, mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid }
            }
            FileType::Symlink => Found::Link,
            FileType::Directory => Found::Directory,
            _ => Found::Special,
        })
    }

    pub(super) fn found(
        &self,
        wanted: &BTreeMap<String, Wanted<'_>>,
        owned: &BTreeMap<String, OwnedFile>,
    ) -> Result<BTreeMap<String, Found>, RootError> {
        let paths: BTreeSet<&String> = wanted.keys().chain(owned.keys()).collect();
        paths
            .into_iter()
            .map(|path| Ok((path.clone(), self.look_at(path, wanted.contains_key(path), owned)?)))
            .collect()
    }

    /// Returns what of a bundle that is in place is not as it was applied, and since when, where that is content.
    pub(crate) fn examine(
        &self,
        ledger: &Ledger,
        target: &Target,
        bundle: &Bundle,
    ) -> Result<(Vec<Drift>, Strays), ApplyError> {
        let wanted = changes::wanted(target, bundle, &Accounts::read())?;
        let owned = ledger.owned(target.id);
        let found = self.found(&wanted, &owned)?;
        let changes = changes::changes(&wanted, &owned, &found, true)?;
        let drift = |(path, how): &(String, &'static str)| match (found.get(path), wanted.get(path)) {
            (Some(Found::File { mode, .. }), Some(file)) if *how == "content" => {
                let applied = file.file.content(drifts::COMPARED).ok();
                let is = self.root.read_at_most(path, drifts::COMPARED).ok().flatten();
                let side = |mode, content| drifts::Side { mode, content };
                let applied = side(file.record.mode.bits(), applied.as_deref());
                drifts::of_content(path, applied, side(*mode, is.as_deref()))
            }
            _ => {
                Drift { what: path.clone(), how: (*how).to_owned(), diff: String::new(), found: None, repaired: false }
            }
        };
        // Nothing takes in permissions and owners.
        let strayed = changes.drift.iter().filter(|(_, how)| !["mode", "owner"].contains(how));
        let strays = strayed.map(|(path, _)| (path.clone(), self.since(path))).collect();
        Ok((changes.drift.iter().map(drift).collect(), strays))
    }

    /// Returns since when what is at a path is as it is; if nothing is there, the directory above it.
    fn since(&self, path: &str) -> SystemTime {
        let whole = self.settings.root.join(path);
        let about = whole.ancestors().find_map(|path| fs::symlink_metadata(path).ok());
        let since = about.map(|about| (about.ctime().try_into().ok(), about.ctime_nsec().try_into().ok()));
        let Some((Some(seconds), Some(nanos))) = since else { return SystemTime::UNIX_EPOCH };
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
    }

    /// Returns how many bytes and files of a bundle are not in place, which is what a switch has to write.
    pub(crate) fn need(&self, ledger: &Ledger, target: &Target, bundle: &Bundle) -> Need {
        let owned = ledger.owned(target.id);
        let in_place = |file: &&BundleFile| {
            let path = if file.rooted { file.path.clone() } else { format!("{}/{}", target.home(), file.path) };
            owned.get(&path).is_some_and(|owned| owned.sha256 == file.sha256)
        };
        let new = bundle.files.iter().filter(|file| !in_place(file));
        new.fold(Need::default(), |need, file| Need { bytes: need.bytes + file.size, files: need.files + 1 })
    }
}
