//! What deployments leave to each other: to whom, and what goes with it.

use std::collections::BTreeMap;

use titan_api::deployments::OnRemove;
use uuid::Uuid;

use super::{Pass, Worker, chain, steps::Wants};
use crate::{
    apply::{ApplyError, Readiness, Target, Work, files::Files, switch::SwitchError},
    bundles::Bundle,
    claims::Claims,
    ledger::Giver,
};

/// For whom something is being taken down in the name of whoever made it, by that one's id: for one after the other.
#[derive(Debug, Default)]
pub(super) struct Ends {
    now: BTreeMap<Uuid, Uuid>,
    /// As of the pass before.
    before: BTreeMap<Uuid, Uuid>,
}

impl Ends {
    /// Begins a pass: whoever did not go on in the one before has to make room for others.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Begins, or goes on, for a deployment, unless that is done for another one.
    pub(super) fn begin(&mut self, maker: Uuid, heir: Uuid) -> bool {
        let free = self.now.get(&maker).or(self.before.get(&maker)).is_none_or(|other| *other == heir);
        if free {
            self.now.insert(maker, heir);
        }
        free
    }

    pub(super) fn end(&mut self, maker: Uuid) {
        self.now.remove(&maker);
        self.before.remove(&maker);
    }

    /// Forgets a deployment that is gone.
    pub(super) fn forget(&mut self, heir: Uuid) {
        self.now.retain(|_, other| *other != heir);
        self.before.retain(|_, other| *other != heir);
    }
}

impl Worker {
    /// Returns what those are to own that are neither at what they are to be nor tried now: they failed, or wait. What others
    /// give up of that is left to them all the same.
    pub(super) fn meant(&mut self, due: &Wants) -> Wants {
        let mut meant = Wants::new();
        for id in self.desired.entries.keys().copied().filter(|id| !due.contains_key(id)).collect::<Vec<_>>() {
            let Some(course) = self.course(id) else { continue };
            if self.in_place(id) != Some(course.target.digest)
                && let Ok(Some(bundle)) = self.bundles.get(&course.target.digest)
                && let Ok(wants) = self.wants(&course.target, &bundle)
            {
                meant.insert(id, wants);
            }
        }
        meant
    }

    /// Returns how much was left to whom, who does not have it yet.
    pub(super) fn heirs(&self) -> BTreeMap<Uuid, usize> {
        let mut heirs = BTreeMap::new();
        let files = self.ledger.inherited.iter().map(|(id, files)| (*id, files.len()));
        let claims = self.ledger.bequeathed.iter().map(|(id, claims)| (*id, claims.len()));
        files.chain(claims).for_each(|(id, count)| *heirs.entry(id).or_default() += count);
        heirs
    }

    /// Returns those that failed earlier and were left something since there were these `heirs`: it may be what they failed for.
    pub(super) fn heirs_that_failed(&self, heirs: &BTreeMap<Uuid, usize>, pass: &Pass<'_>) -> Vec<Uuid> {
        let more = |(id, count): &(Uuid, usize)| heirs.get(id).is_none_or(|before| count > before);
        let fails =
            |id: &Uuid| self.failures.contains_key(id) && !pass.tried.contains(id) && !pass.held.contains_key(id);
        self.heirs().into_iter().filter(more).map(|(id, _)| id).filter(fails).collect()
    }

    /// Takes back what was left to others, who do not have it yet, and what is to be in place again needs.
    pub(super) fn take_back(&mut self, target: &Target, bundle: &Bundle, after: &Claims) -> Result<(), ApplyError> {
        let paths = Files::wants(target, bundle)?;
        let mut next = self.ledger.clone();
        next.take_back(target.id, &paths, after);
        if next != self.ledger {
            next.write(&self.state).map_err(SwitchError::from)?;
            self.ledger = next;
        }
        Ok(())
    }

    /// Takes down what others left to a deployment beside files and what it does not want, or lets go of it: in the name of
    /// those who made it, whose marks are on it. What any `heir` wants stays, and be that itself, later. Returns what is still
    /// under way, if anything is.
    pub(super) fn decline(
        &mut self,
        id: Uuid,
        wants: &Claims,
        heir: &dyn Fn(&str) -> Option<Uuid>,
        end: OnRemove,
    ) -> Result<Option<String>, ApplyError> {
        let mut unwanted: BTreeMap<Uuid, (Giver, Claims)> = BTreeMap::new();
        let owned = self.ledger.claims(id);
        for (claim, giver) in self.ledger.made_by_others(id) {
            if !wants.contains_key(&claim) && heir(&claim.path()).is_none() {
                let digest = owned.get(&claim).copied();
                let (_, claims) = unwanted.entry(giver.id).or_insert_with(|| (giver, Claims::new()));
                claims.extend(digest.map(|digest| (claim, digest)));
            }
        }
        for (maker, (giver, claims)) in unwanted {
            if !self.ends.begin(maker, id) {
                return Ok(Some(format!("{}/{} is looked after for another deployment", giver.workspace, giver.name)));
            }
            let ended = self.ended(&giver, &claims, end);
            if let Ok(Some(_)) = ended {
                return ended;
            }
            self.ends.end(maker);
            ended?;
            let mut next = self.ledger.clone();
            next.decline(id, &claims);
            // Whoever made it and is still there takes it down itself, beside what it has.
            let there = self.maker(&giver).filter(|_| end == OnRemove::Delete);
            if there.is_some()
                && let Some(entry) = next.entries.get_mut(&maker)
            {
                entry.unfinished.get_or_insert_with(|| entry.claims.clone()).extend(claims);
            }
            next.write(&self.state).map_err(SwitchError::from)?;
            self.ledger = next;
            // Whoever leaves as well takes it down with all else.
            if let Some(target) = there
                && !self.desired.removals.contains_key(&maker)
                && let Ok(Some(bundle)) = self.bundles.get(&target.digest)
                && let Err(error) = self.enliven(&target, &bundle)
            {
                // It is not settled, so it is tried again.
                tracing::warn!("what nobody wants of {} is not down yet: {}", target.home(), chain(&error));
            }
        }
        Ok(None)
    }

    /// Returns whoever made something, if it has something else beside files by the same applier.
    fn maker(&self, giver: &Giver) -> Option<Target> {
        let entry = self.ledger.entries.get(&giver.id);
        let entry = entry.filter(|entry| entry.applier == giver.applier && !entry.claims.is_empty());
        entry.map(|entry| Target::in_place(giver.id, entry))
    }

    /// Takes down what somebody made who has nothing else, or lets go of it. Returns what is still under way, if anything is.
    fn ended(&mut self, giver: &Giver, before: &Claims, end: OnRemove) -> Result<Option<String>, ApplyError> {
        let there = self.maker(giver);
        if there.is_some() && end == OnRemove::Delete {
            return Ok(None);
        }
        let target = there.clone().unwrap_or_else(|| giver.target());
        let entry = there.and_then(|target| self.ledger.entries.get(&target.id));
        let after = entry.map(|entry| entry.claims.clone()).unwrap_or_default();
        let (home, bundle) = (self.home(&target), self.bundles.get(&target.digest).ok().flatten());
        let applier = match self.appliers.of(giver.applier) {
            // Whoever takes an applier away from the agent has it let go of everything at once.
            Err(ApplyError::NotAllowed(_)) if end == OnRemove::Orphan => return Ok(None),
            #[cfg(not(feature = "kubernetes"))]
            Err(ApplyError::NotBuilt(_)) if end == OnRemove::Orphan => return Ok(None),
            applier => applier?,
        };
        let Some(applier) = applier else { return Ok(None) };
        let work = Work { target: &target, home: &home, bundle: bundle.as_ref(), before, after: &after };
        let ended = match end {
            OnRemove::Delete => applier.remove(&work)?,
            OnRemove::Orphan => applier.release(&work)?,
        };
        Ok(match ended {
            Readiness::Ready => None,
            Readiness::Underway(why) => Some(why),
        })
    }

    /// Returns the files, by path below the root, that what a deployment gives up rests on, each with whoever takes that over:
    /// itself, later, if it is what others left to it and nobody else wants it. `after` is what it has next.
    pub(super) fn left_with(
        &mut self,
        id: Uuid,
        after: &Claims,
        heir: &dyn Fn(&str) -> Option<Uuid>,
    ) -> BTreeMap<String, Uuid> {
        let mut given: BTreeMap<(Uuid, Option<Uuid>), Claims> = BTreeMap::new();
        let (others, has) = (self.ledger.made_by_others(id), self.ledger.has(id));
        for (claim, digest) in self.ledger.claims(id).into_iter().filter(|(claim, _)| !after.contains_key(claim)) {
            let maker = others.get(&claim).map(|giver| giver.id);
            let heir = heir(&claim.path()).or_else(|| maker.map(|_| id));
            let Some(heir) = heir.filter(|heir| *heir != id || maker.is_some()) else { continue };
            // What is its own by now, and is still marked as of whoever made it, may rest on the files of both.
            if maker.is_some() && has.contains_key(&claim) {
                given.entry((heir, None)).or_default().insert(claim.clone(), digest);
            }
            given.entry((heir, maker)).or_default().insert(claim, digest);
        }
        let mut left = BTreeMap::new();
        for ((heir, maker), claims) in given {
            let maker = maker.and_then(|maker| others.values().find(|giver| giver.id == maker));
            let own = || self.ledger.entries.get(&id).map(|entry| (Target::in_place(id, entry), entry.applier));
            let Some((target, kind)) = maker.map(|giver| (giver.target(), giver.applier)).or_else(own) else {
                continue;
            };
            let Some(bundle) = self.bundles.get(&target.digest).ok().flatten() else { continue };
            let rests = match self.appliers.of(kind) {
                Ok(Some(applier)) => applier.rests_on(&target, &bundle, &claims),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let rests = rests.unwrap_or_else(|error| {
                // Such as that of an applier which the agent may not use any more: anything may be needed.
                tracing::debug!("what is left rests on files that are not known: {}", chain(&error));
                self.ledger.inherited.get(&id).into_iter().flatten().map(|(path, _)| path.clone()).collect()
            });
            left.extend(rests.into_iter().map(|path| (path, heir)));
        }
        left
    }

    /// Hands on what a deployment that leaves has and others take over, with the files that it rests on, before the rest is down:
    /// where that cannot go.
    pub(super) fn hand_on(&mut self, id: Uuid, heir: &dyn Fn(&str) -> Option<Uuid>) -> Result<(), ApplyError> {
        let mut given = self.ledger.claims(id);
        given.retain(|claim, _| heir(&claim.path()).is_some_and(|heir| heir != id));
        if given.is_empty() {
            return Ok(());
        }
        let left = self.left_with(id, &Claims::new(), heir);
        let mut next = self.ledger.clone();
        next.bequeath(id, &given, heir);
        next.hand_on(id, &given, &left);
        next.write(&self.state).map_err(SwitchError::from)?;
        self.ledger = next;
        Ok(())
    }
}

impl Giver {
    /// Returns the deployment as it was.
    fn target(&self) -> Target {
        let Self { id, workspace, name, release, revision, digest, .. } = self.clone();
        Target { id, workspace, name, release, revision, digest, depends_on: Vec::new() }
    }
}
