//! The steps from one bundle to the next: units of quadlets leave first, then pods and volumes, and then what is to be
//! comes. What takes long is waited for between the steps, so a deployment can change from one kind to the other.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Podman, Standing,
    errands::Trouble,
    quadlets::{self, Quadlets},
    sight::observation,
};
use crate::{
    apply::{ApplyError, Condition, Observation, Readiness, Work},
    claims::{Claim, Claims},
};

/// When it is looked again whether units have stopped, if systemd does not say so.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a claim is on what podman itself is asked to take away.
pub(super) fn is_podmans(claim: &Claim) -> bool {
    claim.kind == "pod" || claim.kind == "volume"
}

impl Podman {
    /// Returns the quadlets of the work's bundle, if it is one of them.
    pub(super) fn read_quadlets(&self, work: &Work<'_>) -> Result<Option<Quadlets>, ApplyError> {
        let bundle = work.bundle.filter(|bundle| quadlets::are(bundle) && quadlets::own(work.after));
        bundle.map(|bundle| Quadlets::read(bundle, &self.allowed, self.exchanged)).transpose()
    }

    /// Takes the next step from `before` to `work.after`. Returns what has to come to an end before the one after it.
    pub(super) fn bring(&mut self, work: &Work<'_>, before: &Claims) -> Result<Option<String>, ApplyError> {
        let quadlets = self.read_quadlets(work)?;
        if let Some(why) = self.take_units(work, before, quadlets.as_ref())? {
            return Ok(Some(why));
        }
        let Some(quadlets) = quadlets else { return self.begin(work, before).map(|()| None) };
        let mut gone = before.clone();
        gone.retain(|claim, _| is_podmans(claim) && !work.after.contains_key(claim));
        if !gone.is_empty()
            && let Readiness::Underway(why) = self.take_down(work, &gone)?
        {
            return Ok(Some(why));
        }
        let (images, digest) = (&self.images, &work.target.digest);
        let image = |reference: &str| images.id(digest, reference);
        self.keeper.start(work, before, &quadlets, &self.allowed.mounts, image)?;
        Ok(None)
    }

    /// Takes units down that are only in `before`. Returns what has to come to an end first.
    pub(super) fn take_units(
        &mut self,
        work: &Work<'_>,
        before: &Claims,
        quadlets: Option<&Quadlets>,
    ) -> Result<Option<String>, ApplyError> {
        if !quadlets::own(before) && quadlets.is_none() {
            return Ok(None);
        }
        if let Some(why) = self.keeper.stop(work, before, quadlets)? {
            self.wake_after(LOOK);
            return Ok(Some(why));
        }
        let cleared = self.keeper.clear(work, before)?;
        // What was cut off before systemd heard of it is told now.
        if quadlets.is_none() && (cleared || self.keeper.remembers(work, before)?) {
            self.keeper.forget(work, before)?;
        }
        Ok(None)
    }

    /// Takes pods and volumes down, in the background.
    pub(super) fn take_down(&mut self, work: &Work<'_>, gone: &Claims) -> Result<Readiness, ApplyError> {
        let id = work.target.id;
        let underway = || Readiness::Underway("containers are being stopped".to_owned());
        let goal = (gone.keys().cloned().collect::<BTreeSet<_>>(), Claims::new());
        let about = self.goals.get(&id) == Some(&goal);
        match self.look(id) {
            Standing::Running if about => return Ok(underway()),
            Standing::Ended if about => {
                let troubles = self.troubles.remove(&id).unwrap_or_default();
                self.goals.remove(&id);
                return match troubles.into_iter().next() {
                    None => Ok(Readiness::Ready),
                    Some((claim, trouble)) => {
                        let message = match trouble {
                            Trouble::Foreign => "it is somebody else's".to_owned(),
                            Trouble::Failed(message) | Trouble::Unreachable(message) => message,
                        };
                        Err(ApplyError::Platform { what: format!("removing {claim}"), message })
                    }
                };
            }
            _ => {}
        }
        let nothing = Work { bundle: None, after: &Claims::new(), ..*work };
        self.begin(&nothing, gone)?;
        Ok(underway())
    }

    /// Returns how quadlets do, after the next step to where they are to be.
    pub(super) fn observe_quadlets(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        let id = work.target.id;
        if let Some(before) = self.underway.get(id).cloned() {
            if let Some(why) = self.bring(work, &before)? {
                let waits = |claim: &Claim| observation(claim.clone(), (Condition::Starting(why.clone()), None));
                return Ok(work.after.keys().map(waits).collect());
            }
            self.underway.end(id)?;
        }
        let Some(quadlets) = self.read_quadlets(work)? else { return Ok(Vec::new()) };
        let (images, digest) = (&self.images, &work.target.digest);
        let (seen, again) = self.keeper.observe(work, &quadlets, |reference| images.id(digest, reference))?;
        if let Some(again) = again {
            self.wake_after(again);
        }
        Ok(seen)
    }
}
