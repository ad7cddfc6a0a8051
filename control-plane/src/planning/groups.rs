//! Groups: hosts for which a deployment comes to the same outcome, told apart by little.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use roaring::RoaringBitmap;
use titan_api::Digest;

use crate::{
    fleet::{
        contexts,
        hosts::Aspect,
        model::{Deployment, Host, Model},
        releases::Resolution,
    },
    render::{
        self, Job,
        reads::{HostReads, KeysRead},
    },
    store::Release,
};

/// For fewer hosts than these, overrides are matched host by host.
const FEW: usize = 64;

/// Outcomes of one release, by what a template can tell hosts apart by.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    deployment: &'a Deployment,
    resolution: &'a Resolution,
    number: i64,
    /// What to look at; `None` if each host has to be looked at as a whole.
    aspect: Option<Aspect>,
    /// Which hosts the overrides match, if values are read and there are many hosts.
    overrides: Option<Vec<RoaringBitmap>>,
    sees_values: bool,
    known: HashMap<Vec<u64>, Digest>,
    seen: Vec<u32>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(
        model: &Model,
        deployment: &'a Deployment,
        resolution: &'a Resolution,
        release: &Release,
        hosts: usize,
    ) -> Self {
        let reads = resolution.template.reads();
        let sees_values = reads.sees_values();
        let matching = || deployment.overrides.iter().map(|matcher| model.hosts().matching(matcher)).collect();
        Self {
            deployment,
            resolution,
            number: release.number,
            aspect: keys(&reads.host()).map(|keys| model.hosts().aspect(&keys)),
            overrides: (sees_values && hosts >= FEW).then(matching),
            sees_values,
            known: HashMap::new(),
            seen: Vec::new(),
        }
    }

    /// Returns the key of a host's outcome, adding what is to be rendered for it if no host before had the same.
    pub(super) fn key(&mut self, host: Host<'_>, jobs: &mut BTreeMap<Digest, Job>) -> Digest {
        // Almost no host has any. One that does is looked at by itself.
        let overlay = host.spec().files_of(&self.deployment.workspace, &self.deployment.name);
        let signature = if overlay.is_none() { self.signature(host) } else { None };
        if let Some(key) = signature.as_ref().and_then(|signature| self.known.get(signature)) {
            return *key;
        }
        let context = contexts::context(self.resolution, self.deployment, self.number, host);
        let key = render::outcome_key(&self.resolution.template, &context);
        let key = overlay.map_or(key, |overlay| render::overlay::key(key, overlay));
        let template = &self.resolution.template;
        jobs.entry(key).or_insert_with(|| Job {
            template: Arc::clone(template),
            context: Arc::new(context),
            overlay: overlay.cloned().map(Arc::new),
        });
        if let Some(signature) = signature {
            self.known.insert(signature, key);
        }
        key
    }

    /// Returns numbers that are the same only for hosts that the template cannot tell apart, or `None` if that would be as
    /// dear as the whole context.
    fn signature(&mut self, host: Host<'_>) -> Option<Vec<u64>> {
        let aspect = self.aspect.as_ref()?;
        self.seen.clear();
        host.look(aspect, &mut self.seen);
        let mut signature: Vec<u64> = self.seen.iter().map(|number| u64::from(*number)).collect();
        if self.sees_values {
            // Specs that say the same are one.
            signature.push(std::ptr::from_ref(host.spec()).addr() as u64);
            let matches: Box<dyn Iterator<Item = bool>> = match &self.overrides {
                Some(sets) => Box::new(sets.iter().map(|set| set.contains(host.number().0))),
                None => Box::new(self.deployment.overrides.iter().map(|matcher| matcher.matches(host))),
            };
            signature.extend(matches.map(u64::from));
        }
        Some(signature)
    }
}

/// Returns the keys of the labels and facts that are read, or `None` if more than that is.
fn keys(reads: &HostReads) -> Option<Vec<String>> {
    let of = |keys: &KeysRead, prefix: &str| match keys {
        KeysRead::None => Some(Vec::new()),
        KeysRead::Some(keys) => Some(keys.iter().map(|key| format!("{prefix}{key}")).collect()),
        KeysRead::All => None,
    };
    if reads.name || reads.everything {
        return None;
    }
    Some([of(&reads.labels, "")?, of(&reads.facts, "fact/")?].concat())
}
