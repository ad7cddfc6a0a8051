//! Staging what is to take the place of what is there: file by file, or the deployment's own directory as a whole.

use std::collections::BTreeSet;

use super::{Files, Work};
use crate::{
    apply::{
        ApplyError,
        changes::{self, Found, Refusal},
        root::RootError,
        stage::{self, Survey, Whole},
        step::Step,
        switch::Switch,
    },
    config::Switch as How,
    ledger::Ledger,
};

impl Files {
    pub(super) fn stage(&self, work: &mut Work<'_>, switch: &mut Switch<'_>, name: &str) -> Result<(), ApplyError> {
        let whole = self.stage_whole(work, switch, name)?;
        let inside = |path: &String| path.strip_prefix(&work.home).is_some_and(|rest| rest.starts_with('/'));
        let single = |path: &&String| !(whole && inside(path));
        if let Some(path) = work.changes.over_directory.iter().find(single) {
            return Err(Refusal::InTheWay { path: path.clone(), kind: "a directory" }.into());
        }
        for path in work.changes.take.iter().filter(single) {
            let backup = switch.fresh(&self.root.mount_of(path)?, name);
            switch.step(Step::Take { path: path.clone(), backup });
        }
        let puts: Vec<_> = work.changes.put.iter().filter(single).collect();
        for path in &puts {
            self.make_dirs_above(path, &work.changes.take, &mut work.next, switch)?;
        }
        for path in puts {
            let mount = self.root.mount_of(path)?;
            let from = switch.fresh(&mount, name);
            let file = &work.wanted[path];
            self.root.write_new(&from, file.file.reader(), changes::attributes(file))?;
            crate::faults::fault!("file-staged");
            let backup = match work.found.get(path) {
                Some(Found::File { .. } | Found::Link) => {
                    let backup = switch.fresh(&mount, name);
                    stage::back_up(&self.root, path, &backup)?;
                    Some(backup)
                }
                _ => None,
            };
            switch.step(Step::Put { from, to: path.clone(), backup });
        }
        Ok(())
    }

    /// Stages the deployment's own directory as a whole, if it can and if that is of use. Returns whether it did.
    fn stage_whole(&self, work: &mut Work<'_>, switch: &mut Switch<'_>, name: &str) -> Result<bool, ApplyError> {
        let home = work.home.clone();
        let inside = |path: &&String| path.strip_prefix(&home).is_some_and(|rest| rest.starts_with('/'));
        let changed = work.changes.put.iter().chain(&work.changes.take).filter(inside).count();
        let stays = work.wanted.keys().any(|path| inside(&path));
        let known: BTreeSet<String> = work.wanted.keys().chain(work.owned.keys()).cloned().collect();
        if changed == 0 {
            return Ok(false);
        }
        let mount = self.root.mount_of(&format!("{home}/x"))?;
        let made = work.next.dirs.clone();
        let (mut kept, dirs, missing) = match stage::survey(&self.root, &home, &known, &made)? {
            Survey::Missing => (BTreeSet::new(), Vec::new(), true),
            Survey::Whole { foreign, dirs } => (foreign, dirs, false),
            Survey::Mixed => return Ok(false),
        };
        let foreign = kept.clone();
        kept.extend(work.kept.iter().filter(inside).cloned());
        if !stays {
            let ours = kept.is_empty() && made.contains(&home) && dirs.iter().all(|dir| made.contains(dir));
            if ours && changed > 1 {
                let backup = switch.fresh(&mount, name);
                switch.step(Step::Take { path: home, backup });
                return Ok(true);
            }
            return Ok(false);
        }
        let in_one_step = changed > 1 || work.changes.over_directory.iter().any(|path| inside(&path));
        let wished = in_one_step && self.settings.switch == How::Directory;
        if !missing && (!wished || !self.exchanges(switch, &mount, name)?) {
            return Ok(false);
        }
        let whole =
            Whole { home: &home, wanted: &work.wanted, changes: &work.changes, kept: &kept, dirs: &dirs, made: &made };
        let from = switch.fresh(&mount, name);
        if !whole.build(&self.root, switch, &from)? {
            return Ok(false);
        }
        let new_dirs: Vec<_> =
            whole.all_dirs().into_iter().filter(|dir| missing || !(dirs.contains(dir) || *dir == home)).collect();
        self.make_dirs_above(&home, &BTreeSet::new(), &mut work.next, switch)?;
        work.next.dirs.extend(new_dirs);
        if missing {
            switch.step(Step::Put { from, to: home, backup: None });
            return Ok(true);
        }
        let below = |paths: &mut dyn Iterator<Item = &String>| -> BTreeSet<String> {
            paths.filter(inside).map(|path| path[home.len() + 1..].to_owned()).collect()
        };
        let inode = self.root.stat(&from)?.map_or(0, |stat| stat.st_ino);
        let (foreign, owned) = (below(&mut foreign.iter()), below(&mut known.iter()));
        switch.step(Step::Swap { from, to: home, inode, foreign, owned });
        Ok(true)
    }

    /// Whether the file system can exchange two directories; found out once, by trying.
    fn exchanges(&self, switch: &mut Switch<'_>, mount: &str, name: &str) -> Result<bool, RootError> {
        if let Some(known) = self.exchanges.get() {
            return Ok(*known);
        }
        let (one, other) = (switch.fresh(mount, name), switch.fresh(mount, name));
        self.root.make_dir(&one, 0o700)?;
        self.root.make_dir(&other, 0o700)?;
        Ok(*self.exchanges.get_or_init(|| self.root.exchange(&one, &other).is_ok()))
    }

    fn make_dirs_above(
        &self,
        path: &str,
        gone: &BTreeSet<String>,
        next: &mut Ledger,
        switch: &mut Switch<'_>,
    ) -> Result<(), RootError> {
        let mut missing = false;
        for (end, _) in path.match_indices('/') {
            let dir = &path[..end];
            missing = missing || gone.contains(dir) || self.root.stat(dir)?.is_none();
            if missing {
                next.dirs.insert(dir.to_owned());
                switch.make_dir(dir);
            }
        }
        Ok(())
    }
}
