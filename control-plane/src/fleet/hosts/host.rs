//! One host of the table.

use std::borrow::Cow;

use serde_json::Value;
use titan_api::{
    Name,
    hosts::{Facts, HostSpec},
    labels::Labels,
    resources,
};
use uuid::Uuid;

use super::{
    HostNumber, Hosts,
    chunks::Record,
    pairs::{FACT, Given, Pair},
};

/// A host as it is declared, with its facts; borrowed from its table.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    table: &'a Hosts,
    number: HostNumber,
    record: Record<'a>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("number", &self.number).field("record", &self.record).finish_non_exhaustive()
    }
}

impl<'a> Host<'a> {
    pub(super) const fn new(table: &'a Hosts, number: HostNumber, record: Record<'a>) -> Self {
        Self { table, number, record }
    }

    /// Returns its number in the table.
    #[must_use]
    pub const fn number(&self) -> HostNumber {
        self.number
    }

    /// Returns its id.
    #[must_use]
    pub const fn uid(&self) -> Uuid {
        self.record.uid
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.record.name
    }

    /// Returns its name, to be kept.
    #[must_use]
    pub fn to_name(&self) -> Name {
        Name::new(self.name()).expect("only names are put into the table")
    }

    /// Returns what is declared, apart from its labels.
    #[must_use]
    pub fn spec(&self) -> &'a HostSpec {
        self.table.specs.get(self.record.spec).expect("a spec stays while a host has it")
    }

    fn pairs(self, numbers: &'a [u32]) -> impl Iterator<Item = (&'a str, &'a Pair)> {
        let pairs = &self.table.pairs;
        numbers.iter().filter_map(|number| Some((pairs.key_name(*number), pairs.get(*number)?)))
    }

    /// Returns its labels in order of their keys.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.pairs(self.record.labels).filter_map(|(key, pair)| match pair.value.given() {
            Given::Text(value) => Some((key, value)),
            Given::Json(_) => None,
        })
    }

    /// Returns its facts in order of their names.
    pub fn facts(self) -> impl Iterator<Item = (&'a str, Cow<'a, Value>)> {
        self.pairs(self.record.facts).map(|(key, pair)| {
            let value = match pair.value.given() {
                Given::Text(text) => Cow::Owned(Value::String(text.to_owned())),
                Given::Json(value) => Cow::Borrowed(value),
            };
            (key.strip_prefix(FACT).unwrap_or(key), value)
        })
    }

    /// Returns the number of the pair of a key, if the host has one.
    pub(super) fn pair(&self, key: u32) -> Option<u32> {
        let all = self.record.labels.iter().chain(self.record.facts);
        let is = |pair: &&u32| self.table.pairs.get(**pair).is_some_and(|pair| pair.key == key);
        all.copied().find(|pair| is(&pair))
    }

    /// Returns a label's value, or a fact's as text for `fact/<name>`.
    #[must_use]
    pub fn lookup(&self, key: &str) -> Option<Cow<'a, str>> {
        let pair = self.pair(self.table.pairs.key(key)?)?;
        Some(self.table.pairs.get(pair)?.value.given().text())
    }

    /// Returns how much of a resource it has, whoever uses it; `None` for any amount. What is declared comes before what the
    /// agent reports, and only of cores and memory an amount that nobody knows is no limit.
    #[must_use]
    pub fn capacity(&self, resource: &str) -> Option<u64> {
        let reported = match resource {
            _ if self.spec().capacity.get(resource).is_some() => return self.spec().capacity.get(resource),
            resources::CPU => self.counted("fact/cpus")?.saturating_mul(1000),
            resources::MEMORY => self.counted("fact/memoryBytes")?,
            _ => 0,
        };
        Some(reported)
    }

    /// Returns a fact that is a whole number.
    fn counted(&self, key: &str) -> Option<u64> {
        let pair = self.pair(self.table.pairs.key(key)?)?;
        match self.table.pairs.get(pair)?.value.given() {
            Given::Json(value) => value.as_u64(),
            Given::Text(_) => None,
        }
    }

    /// Returns every key of a label or fact, facts with `fact/` before their name, with its value as text.
    pub fn terms(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let facts = self.pairs(self.record.facts);
        self.pairs(self.record.labels).chain(facts).map(|(key, pair)| (key, pair.value.given().text()))
    }

    /// Returns its labels, to be kept.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        let map = self.labels().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Labels::try_from(map.collect::<std::collections::BTreeMap<_, _>>()).expect("only labels are put into the table")
    }

    /// Returns its facts, to be kept.
    #[must_use]
    pub fn to_facts(&self) -> Facts {
        self.facts().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }
}
