//! What one round of the agent did, for people and for programs around it.

use titan_api::client::ClientError;
use uuid::Uuid;

use crate::settle::{Action, Done};

/// What one round did.
#[derive(Debug, Default)]
pub struct OnceSummary {
    /// What was done with each deployment, in order.
    pub done: Vec<Done>,
    /// Deployments that run though nobody declares them, as `workspace/name` with their id.
    pub orphans: Vec<(Uuid, String)>,
    /// Why the control plane did not answer, or why its answer was not accepted. The host is settled all the same, to
    /// what it was told last.
    pub fault: Option<ClientError>,
    /// Why the report did not get through; it is sent again.
    pub unreported: Option<ClientError>,
    /// Set if the answer was refused, and why.
    pub refused: Option<String>,
}

impl OnceSummary {
    /// Takes in what one more pass did.
    pub(crate) fn take(&mut self, done: Vec<Done>) {
        for done in done {
            match self.done.iter_mut().find(|known| known.id == done.id) {
                // What was changed and looked at again was changed.
                Some(known) if done.action == Action::Unchanged && known.action != Action::Waiting => {
                    known.commit = done.commit.or(known.commit.take());
                }
                Some(known) => *known = done,
                None => self.done.push(done),
            }
        }
    }

    /// Returns what was done with `action`.
    pub fn with(&self, action: Action) -> impl Iterator<Item = &Done> {
        self.done.iter().filter(move |done| done.action == action)
    }

    /// Whether the control plane answered and every deployment is as declared.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let bad =
            |done: &Done| matches!(done.action, Action::Failed | Action::RolledBack | Action::Stuck | Action::Waiting);
        self.fault.is_none() && self.refused.is_none() && !self.done.iter().any(bad)
    }

    /// Returns the commits that were made or stand, by `workspace/name`.
    pub fn commits(&self) -> impl Iterator<Item = (&str, &str)> {
        self.done.iter().filter_map(|done| done.commit.as_deref().map(|commit| (done.title.as_str(), commit)))
    }
}
