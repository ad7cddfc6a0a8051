//! What a change has to pass before anything is switched: what it depends on, and what its hook says.

use std::{collections::BTreeSet, time::Duration};

use titan_api::{
    Digest,
    deployments::DependencyState,
    hooks::{Hook, Hooks},
    reports::Phase,
    windows::Opening,
};
use uuid::Uuid;

use super::{Worker, courses::Course, now};
use crate::{
    apply::{ApplyError, Target},
    background::Stands,
    bundles::Bundle,
    commands::Order,
    config::appliers::HookKind,
};

/// One run of a hook: of which deployment, which bundle, which hook.
pub(super) type HookKey = (Uuid, Digest, HookKind);

/// Why something is not done now: the phase that this is, and the reason for people.
pub(super) type Held = (Phase, String);

impl Worker {
    /// Returns why a change has to wait, if it has to. `earlier` are those whose turn comes before in this pass.
    pub(super) fn held_back(&self, course: &Course, earlier: &BTreeSet<Uuid>) -> Option<Held> {
        if course.returns {
            // A way back waits for nobody.
            return None;
        }
        if let Some(why) = self.closed() {
            return Some((Phase::Pending, why));
        }
        let target = &course.target;
        for dependency in &target.depends_on {
            let Some(other) = self.desired.declared(&target.workspace, &dependency.name) else { continue };
            // In a circle one goes first, whatever it waits for.
            if other == target.id || !earlier.contains(&other) {
                continue;
            }
            let is = match dependency.state {
                DependencyState::Applied => self.is_settled(other),
                DependencyState::Healthy => self.is_settled(other) && self.is_healthy(other),
            };
            if !is {
                let state = dependency.state.as_str();
                let why = format!("it waits until {}/{} is {state}", target.workspace, dependency.name);
                return Some((Phase::Pending, why));
            }
        }
        None
    }

    /// Returns why nothing new is begun now, if the owner's windows are closed.
    pub(super) fn closed(&self) -> Option<String> {
        match self.windows.opening(now(), self.desired.cursor) {
            Opening::Open => None,
            Opening::Closed { why, .. } => Some(why),
        }
    }

    /// Returns how long it is until a window opens, if one has to.
    pub(super) fn opens_after(&self) -> Option<Duration> {
        match self.windows.opening(now(), self.desired.cursor) {
            Opening::Closed { next: Some(next), .. } => {
                let micros = next.micros().saturating_sub(now().micros()).max(0);
                Some(Duration::from_micros(micros.unsigned_abs()))
            }
            _ => None,
        }
    }

    /// Runs a hook of a bundle once and returns why it is not done yet, if it is not.
    pub(super) fn hooked(
        &mut self,
        kind: HookKind,
        target: &Target,
        bundle: &Bundle,
    ) -> Result<Option<Held>, ApplyError> {
        let Some(hook) = hook(&bundle.hooks, kind) else { return Ok(None) };
        let key = (target.id, target.digest, kind);
        if self.hooked.contains(&key) {
            return Ok(None);
        }
        match self.hooks.look(&key) {
            Stands::Unknown | Stands::Lost => {
                let order = Order::hook(target, &self.home(target), kind, hook, self.exec.as_ref())?;
                self.hooks.start(key, order.run());
                Ok(Some(under_way(kind)))
            }
            Stands::Running => Ok(Some(under_way(kind))),
            Stands::Ended(ended) => match ended.failure() {
                None => {
                    self.hooked.insert(key);
                    Ok(None)
                }
                Some(message) => Err(ApplyError::Platform { what: format!("the hook {}", kind.as_str()), message }),
            },
        }
    }
}

impl Worker {
    /// Ends the hooks of a deployment, but for those of the bundle that `waits`, and has them run again when their time
    /// comes.
    pub(super) fn forget_hooks(&mut self, id: Uuid, waits: Option<Digest>) {
        let stays = |(other, digest, _): &HookKey| *other != id || Some(*digest) == waits;
        self.hooked.retain(stays);
        self.hooks.retain(stays);
    }
}

fn under_way(kind: HookKind) -> Held {
    (Phase::Applying, format!("the hook {} runs", kind.as_str()))
}

fn hook(hooks: &Hooks, kind: HookKind) -> Option<&Hook> {
    match kind {
        HookKind::PreApply => hooks.pre_apply.as_ref(),
        HookKind::PostApply => hooks.post_apply.as_ref(),
        HookKind::OnRemove => hooks.on_remove.as_ref(),
    }
}
