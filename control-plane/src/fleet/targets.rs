//! Targets, found by the hosts that they may match.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use titan_api::selectors::{Operator, Selector};

use crate::fleet::{hosts::Host, matchers::Matcher, model::Place};

/// A rule of a target without which it matches no host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// There is none: any host may match.
    Nothing,
    /// The host has this key.
    Key(String),
    /// The host has this key with one of the values.
    Values(String, Vec<String>),
}

/// Targets that ask for one key.
#[derive(Debug, Clone, Default)]
struct Asking {
    /// With whatever value.
    any: BTreeSet<Place>,
    /// With this value.
    values: HashMap<String, BTreeSet<Place>>,
}

/// Every target.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    matchers: HashMap<Place, (Arc<Matcher>, Rule)>,
    /// Each is filed under one of its rules, or else among those that are always asked.
    asking: HashMap<String, Asking>,
    always: BTreeSet<Place>,
}

impl Targets {
    /// Returns the matcher of a target.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<&Arc<Matcher>> {
        self.matchers.get(place).map(|(matcher, _)| matcher)
    }

    /// Takes in a target.
    pub fn insert(&mut self, place: Place, matcher: Arc<Matcher>) {
        self.remove(&place);
        let rule = self.rule(matcher.selector());
        match &rule {
            Rule::Nothing => {
                self.always.insert(place.clone());
            }
            Rule::Key(key) => {
                self.asking.entry(key.clone()).or_default().any.insert(place.clone());
            }
            Rule::Values(key, values) => {
                let asking = self.asking.entry(key.clone()).or_default();
                for value in values {
                    asking.values.entry(value.clone()).or_default().insert(place.clone());
                }
            }
        }
        self.matchers.insert(place, (matcher, rule));
    }

    /// Takes a target out.
    pub fn remove(&mut self, place: &Place) {
        let Some((_, rule)) = self.matchers.remove(place) else { return };
        let (Rule::Key(key) | Rule::Values(key, _)) = &rule else {
            self.always.remove(place);
            return;
        };
        let Some(asking) = self.asking.get_mut(key) else { return };
        if let Rule::Values(_, values) = &rule {
            for value in values {
                if let Some(places) = asking.values.get_mut(value) {
                    places.remove(place);
                    if places.is_empty() {
                        asking.values.remove(value);
                    }
                }
            }
        } else {
            asking.any.remove(place);
        }
        if asking.any.is_empty() && asking.values.is_empty() {
            self.asking.remove(key);
        }
    }

    /// Returns the rule to file a target under: of those without which it matches nothing, the one that the fewest others
    /// are filed under, so that a host meets as few as can be.
    fn rule(&self, selector: &Selector) -> Rule {
        let mut rules: Vec<_> =
            selector.match_labels.iter().map(|(key, value)| Rule::Values(key.clone(), vec![value.clone()])).collect();
        rules.extend(selector.match_expressions.iter().filter_map(|requirement| match requirement.operator {
            Operator::In => Some(Rule::Values(requirement.key.clone(), requirement.values.clone())),
            Operator::Exists => Some(Rule::Key(requirement.key.clone())),
            Operator::NotIn | Operator::DoesNotExist => None,
        }));
        let filed = |rule: &Rule| match rule {
            Rule::Nothing => usize::MAX,
            // A host that has the key meets it whatever the value: the last choice.
            Rule::Key(key) => usize::MAX / 2 + self.asking.get(key).map_or(0, |asking| asking.any.len()),
            Rule::Values(key, values) => {
                let asking = self.asking.get(key);
                let filed = |value| asking.and_then(|asking| asking.values.get(value)).map_or(0, BTreeSet::len);
                values.iter().map(filed).sum()
            }
        };
        rules.into_iter().min_by_key(filed).unwrap_or(Rule::Nothing)
    }

    /// Returns the targets that may match a host; every other one does not.
    pub fn candidates<'a>(&'a self, host: Host<'a>) -> impl Iterator<Item = &'a Place> {
        let asking = host.terms().filter_map(|(key, value)| {
            let asking = self.asking.get(key)?;
            Some(asking.any.iter().chain(asking.values.get(&*value).into_iter().flatten()))
        });
        self.always.iter().chain(asking.flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use titan_api::{Name, hosts::HostSpec, labels::Labels};
    use uuid::Uuid;

    use super::*;
    use crate::fleet::hosts::{Hosts, tests::selector};

    proptest! {
        #[test]
        fn whatever_matches_is_a_candidate_and_meets_a_host_once(
            changes in prop::collection::vec((0_u8..8, prop::option::of(selector())), 1..40),
            labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
        ) {
            let mut hosts = Hosts::default();
            let labels = Labels::try_from(labels).expect("labels");
            let number = hosts.put(Uuid::nil(), &Name::new("a").expect("name"), &labels, HostSpec::default());
            let host = hosts.host(number).expect("a host");
            let mut targets = Targets::default();
            for (number, selector) in changes {
                let place = (Name::new("w").expect("name"), Name::new(format!("t{number}")).expect("name"));
                match selector {
                    Some(selector) => targets.insert(place, Arc::new(Matcher::new(selector).expect("selector"))),
                    None => targets.remove(&place),
                }
                let found: Vec<_> = targets.candidates(host).collect();
                let set: BTreeSet<_> = found.iter().copied().collect();
                prop_assert_eq!(found.len(), set.len());
                for (place, (matcher, _)) in &targets.matchers {
                    prop_assert!(!matcher.matches(host) || set.contains(place), "{:?}", matcher);
                }
                let all = targets.matchers.len();
                prop_assert!(set.len() <= all);
            }
            let places: Vec<_> = targets.matchers.keys().cloned().collect();
            places.iter().for_each(|place| targets.remove(place));
            prop_assert!(targets.asking.is_empty() && targets.always.is_empty());
        }
    }
}
