//! Matching by algebra over bitmaps: what a selector costs depends on the hosts that its rarest rule leaves.

use std::{borrow::Cow, collections::HashMap};

use roaring::RoaringBitmap;
use titan_api::selectors::{Operator, Selector};

use super::{Host, Hosts, pairs::FACT};
use crate::{
    fleet::matchers::Matcher,
    render::{Expression, reads::Reads},
};

/// Answers of an expression that are remembered at most, each for all hosts that look the same to it.
const REMEMBERED: usize = 1 << 16;
/// Stands for a key that a host does not have.
const NONE: u32 = u32::MAX;

/// Some keys of labels and facts, to tell hosts apart by.
#[derive(Debug, Clone)]
pub struct Aspect(Vec<Option<u32>>);

impl Hosts {
    /// Returns the numbers of the hosts that match: exactly those that [`Matcher::matches`].
    #[must_use]
    pub fn matching(&self, matcher: &Matcher) -> RoaringBitmap {
        self.matching_of(matcher, self.all())
    }

    /// Returns those of the hosts of a set that match, asking nobody else.
    #[must_use]
    pub fn matching_of(&self, matcher: &Matcher, set: &RoaringBitmap) -> RoaringBitmap {
        let found = self.ruled(matcher.selector()) & set;
        match matcher.expression() {
            Some(expression) => self.satisfying(expression, &found),
            None => found,
        }
    }

    /// Returns the hosts for which `matchLabels` and `matchExpressions` hold.
    fn ruled(&self, selector: &Selector) -> RoaringBitmap {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for (key, value) in &selector.match_labels {
            wanted.push(self.having(key, std::slice::from_ref(value)));
        }
        for requirement in &selector.match_expressions {
            match requirement.operator {
                Operator::In => wanted.push(self.having(&requirement.key, &requirement.values)),
                Operator::Exists => wanted.push(self.having_any(&requirement.key)),
                Operator::NotIn => unwanted.push(self.having(&requirement.key, &requirement.values)),
                Operator::DoesNotExist => unwanted.push(self.having_any(&requirement.key)),
            }
        }
        wanted.sort_by_key(|hosts| hosts.len());
        let mut wanted = wanted.into_iter();
        let mut found = wanted.next().map_or_else(|| self.all().clone(), Cow::into_owned);
        wanted.for_each(|hosts| found &= &*hosts);
        unwanted.into_iter().for_each(|hosts| found -= &*hosts);
        found
    }

    /// Returns the hosts that have a key.
    fn having_any(&self, key: &str) -> Cow<'_, RoaringBitmap> {
        let key = self.pairs.key(key).and_then(|key| self.pairs.keys.get(key));
        key.map_or_else(Cow::default, |key| key.members.bitmap())
    }

    /// Returns the hosts that have a key with one of the values.
    fn having(&self, key: &str, values: &[String]) -> Cow<'_, RoaringBitmap> {
        let Some(key) = self.pairs.key(key) else { return Cow::default() };
        let mut pairs = values.iter().flat_map(|value| self.pairs.reading(key, value));
        let Some(first) = pairs.next() else { return Cow::default() };
        pairs.fold(first.members.bitmap(), |hosts, pair| Cow::Owned(hosts.into_owned() | &*pair.members.bitmap()))
    }

    /// Returns those of the hosts for which an expression holds.
    fn satisfying(&self, expression: &Expression, among: &RoaringBitmap) -> RoaringBitmap {
        let ask = |host: &Host<'_>| expression.evaluate(host.name(), &host.to_labels(), &host.to_facts());
        let Some(keys) = keys(expression.reads()) else {
            return self.among(among).filter(ask).map(|host| host.number().0).collect();
        };
        // Hosts that are the same in all that the expression reads are asked once.
        let aspect = self.aspect(&keys);
        let mut answers: HashMap<Box<[u32]>, bool> = HashMap::new();
        let mut seen = Vec::with_capacity(keys.len());
        let holds = |host: &Host<'_>| {
            seen.clear();
            host.look(&aspect, &mut seen);
            if let Some(answer) = answers.get(seen.as_slice()) {
                return *answer;
            }
            let answer = ask(host);
            if answers.len() < REMEMBERED {
                answers.insert(seen.as_slice().into(), answer);
            }
            answer
        };
        self.among(among).filter(holds).map(|host| host.number().0).collect()
    }

    /// Returns the aspect of some keys; facts have `fact/` before their name. It holds for this table as it is now.
    #[must_use]
    pub fn aspect<S: AsRef<str>>(&self, keys: &[S]) -> Aspect {
        Aspect(keys.iter().map(|key| self.pairs.key(key.as_ref())).collect())
    }
}

impl Host<'_> {
    /// Adds what the host is in an aspect: one number for each key. Hosts have the same numbers if and only if they have
    /// the same values, types included.
    pub fn look(&self, aspect: &Aspect, into: &mut Vec<u32>) {
        into.extend(aspect.0.iter().map(|key| key.and_then(|key| self.pair(key)).unwrap_or(NONE)));
    }
}

/// Returns the keys that an expression reads, or `None` if it reads the name, or all labels or facts.
fn keys(reads: &Reads) -> Option<Vec<String>> {
    if reads.is_whole() || reads.part("name").is_some() {
        return None;
    }
    let mut keys = Vec::new();
    for (root, prefix) in [("labels", ""), ("facts", FACT)] {
        match reads.part(root) {
            Some(part) if part.is_whole() => return None,
            Some(part) => keys.extend(part.names().map(|name| format!("{prefix}{name}"))),
            None => {}
        }
    }
    Some(keys)
}
