//! Writing what is planned.

use std::collections::HashSet;

use titan_api::{Problem, Revision};

use crate::{
    fleet::{agenda::Item, causes::Affected},
    planning::Planned,
    store::{Assignment, Lease, StoreError, Tx},
    workplans::StepError,
};

/// How a chunk of what is planned is written.
#[derive(Debug, Clone, Copy)]
pub struct Writing {
    /// Whoever writes must hold it.
    pub lease: Lease,
    /// What was decided takes everything into account that was declared up to here.
    pub model: Revision,
    /// What was decided takes every assignment into account that moved up to here.
    pub view: Revision,
    /// The wall clock.
    pub wall: Revision,
}

/// Why a chunk was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database failed, or another replica leads.
    #[error("the plan could not be written")]
    Store(#[from] StoreError),
    /// Something moved since it was decided.
    #[error("something moved since the plan was made")]
    Overtaken,
    /// A release cannot be handed out as its strategy says.
    #[error("a release could not be handed out: {0}")]
    Refused(Box<Problem>),
}

impl From<StepError> for WriteError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Store(StoreError::Overtaken(_)) => Self::Overtaken,
            StepError::Store(error) => Self::Store(error),
            StepError::Refused(problem) => Self::Refused(problem),
        }
    }
}

impl Planned {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.problems.is_empty() && self.releases.is_empty()
    }

    /// Returns what is to be decided because of it.
    #[must_use]
    pub fn follow_up(&self) -> Affected {
        Affected { targets: self.again.clone(), ..Affected::default() }
    }

    /// Forgets what was planned for these deployments on these hosts.
    pub(super) fn forget<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        let pairs: HashSet<_> = items.flat_map(|item| item.hosts.iter().map(|host| (item.deployment, *host))).collect();
        if !pairs.is_empty() {
            self.moved.retain(|(moved, _)| !pairs.contains(&(moved.deployment, moved.host)));
            self.problems.retain(|(deployment, host, _)| !pairs.contains(&(*deployment, *host)));
        }
    }

    /// Takes in what was planned beside this.
    pub(super) fn join(&mut self, other: Self) {
        self.moved.extend(other.moved);
        self.problems.extend(other.problems);
        for release in other.releases {
            if self.releases.iter().all(|known| known.deployment != release.deployment) {
                self.releases.push(release);
            }
        }
        self.bundles.extend(other.bundles);
        self.reused.extend(other.reused);
        self.renderings.extend(other.renderings);
        self.unchanged += other.unchanged;
    }

    /// Writes everything in one transaction: the clock moves only if an assignment does. Returns the revision if so.
    pub async fn write(&self, tx: &mut Tx, writing: Writing) -> Result<Option<Revision>, WriteError> {
        let Writing { lease, wall, .. } = writing;
        // The clock first, always: whoever holds it is alone.
        let moves = !self.moved.is_empty() || !self.rollouts.is_empty();
        let revision = if moves { Some(tx.tick(wall).await?) } else { None };
        tx.check_lease(lease).await?;
        for release in &self.releases {
            tx.add_release(release).await?;
        }
        tx.put_bundles(&self.bundles, wall).await?;
        if let Some(revision) = revision {
            let reused: Vec<_> = self.reused.iter().copied().collect();
            // A leader before this one may have written late, or a bundle may have been swept away.
            if tx.newest_move().await? > writing.view || tx.touch_bundles(&reused, wall).await? < reused.len() as u64 {
                return Err(WriteError::Overtaken);
            }
            // A host that was removed by force since it was decided gets nothing.
            let gone = tx.hosts_deleted_after(writing.model).await?;
            let moved = self.moved.iter().filter(|(assignment, _)| !gone.contains(&assignment.host));
            let moved: Vec<_> = moved.map(|(assignment, _)| Assignment { revision, ..assignment.clone() }).collect();
            tx.put_assignments(&moved, wall).await?;
        }
        if let Some(revision) = revision {
            for rollout in &self.rollouts {
                rollout.write(tx, revision, wall).await?;
            }
        }
        tx.put_renderings(&self.renderings).await?;
        tx.set_render_problems(&self.problems, writing.model).await?;
        tx.notify().await?;
        Ok(revision)
    }
}
