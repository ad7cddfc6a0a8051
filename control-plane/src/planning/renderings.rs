//! Renderings: what is decided once a template was rendered for whoever waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use titan_api::{Digest, Problem, problems::Code};
use uuid::Uuid;

use super::{Planned, Planning, breathe};
use crate::{
    fleet::{moves, view::Entry},
    render::Job,
    store::Description,
};

/// A pair of deployment and host that waits for its rendering.
pub(super) struct Waiting {
    pub(super) told: Arc<Description>,
    pub(super) host: Uuid,
    pub(super) key: Digest,
    /// What the host has.
    pub(super) existing: Option<Entry>,
}

/// What is being decided.
#[derive(Default)]
pub(super) struct Deciding {
    pub(super) planned: Planned,
    pub(super) waiting: Vec<Waiting>,
    pub(super) jobs: BTreeMap<Digest, Job>,
}

impl Planning<'_> {
    /// Renders what is not known, and decides for whoever waits for it.
    pub(super) async fn render(&self, deciding: Deciding) -> Result<Planned, Problem> {
        let Deciding { mut planned, waiting, jobs } = deciding;
        let outcomes: Vec<_> = jobs.keys().copied().collect();
        let mut known = match outcomes.is_empty() {
            true => HashMap::new(),
            false => self.store.read().await?.renderings(&outcomes).await?,
        };
        let written_now = |key: &Digest| Some((*key, *self.standing.rendered.get(key)?));
        known.extend(outcomes.iter().filter_map(written_now));
        let fresh = jobs.into_iter().filter(|(key, _)| !known.contains_key(key));
        let (keys, jobs): (Vec<_>, Vec<_>) = fresh.unzip();
        let mut failed: HashMap<Digest, Problem> = HashMap::new();
        for (key, rendered) in keys.into_iter().zip(self.renderer.render(jobs).await) {
            match rendered {
                Ok(bundle) => {
                    known.insert(key, bundle.digest);
                    planned.renderings.insert(key, bundle.digest);
                    planned.bundles.insert(bundle.digest, bundle.body);
                }
                Err(problem) if problem.code == Code::Internal => return Err(problem),
                Err(problem) => {
                    failed.insert(key, problem);
                }
            }
        }
        for (number, Waiting { told, host, key, existing }) in waiting.into_iter().enumerate() {
            breathe(number).await;
            let Some(bundle) = known.get(&key) else {
                let lost = || Problem::new(Code::Internal, "a rendering was lost");
                let problem = failed.get(&key).cloned().ok_or_else(lost)?;
                self.stays(&mut planned, told.deployment, host, Some(problem));
                continue;
            };
            match moves::present(&told, host, existing.as_ref(), *bundle) {
                Some(moved) => {
                    if !planned.bundles.contains_key(bundle) {
                        planned.reused.insert(*bundle);
                    }
                    self.moves(&mut planned, moved, existing);
                }
                None => self.stays(&mut planned, told.deployment, host, None),
            }
        }
        // What nobody takes is not kept, and so it is not known later either.
        let taken: BTreeSet<_> = planned.moved.iter().filter_map(|(moved, _)| moved.bundle).collect();
        planned.bundles.retain(|digest, _| taken.contains(digest));
        planned.renderings.retain(|_, digest| taken.contains(digest));
        Ok(planned)
    }
}
