//! Loading many hosts at once, from the texts that the store keeps.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::Value;
use titan_api::{
    Kind, Name, Spec,
    labels::{LabelError, Labels},
    limits,
    names::NameError,
};
use uuid::Uuid;

use super::{
    Hosts,
    chunks::Record,
    members::Members,
    pairs::{FACT, Given, Pairs},
};

/// Texts of one column that are remembered; then it begins anew, for they may all be different.
const REMEMBERED: usize = 4096;

/// Why a host cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is a host of this id already.
    #[error("there are two hosts of the id {0}")]
    Twice(Uuid),
    /// Its name is none.
    #[error("its name cannot be read")]
    Name(#[source] NameError),
    /// Its labels are not.
    #[error("its labels cannot be read")]
    Labels(#[source] serde_json::Error),
    /// Its facts are not.
    #[error("its facts cannot be read")]
    Facts(#[source] serde_json::Error),
    /// What is declared is not JSON.
    #[error("its spec cannot be read")]
    Spec(#[source] serde_json::Error),
    /// What is declared is not valid.
    #[error("its spec is not valid: {0}")]
    Invalid(String),
}

/// Makes a table of hosts from texts. It is quicker than putting them in one by one: what many hosts have in common is
/// read once, and the sets of hosts are put together at the end.
#[derive(Debug)]
pub struct Loader {
    hosts: Hosts,
    labels: Column,
    facts: Column,
    specs: HashMap<Box<str>, u32>,
    /// The hosts by the number of their spec.
    spec_hosts: Vec<Members>,
    found: Vec<u32>,
}

impl Loader {
    /// Returns a loader that has room for `expected` hosts; more may come.
    #[must_use]
    pub fn new(expected: usize) -> Self {
        let mut hosts = Hosts::default();
        hosts.uids.reserve(expected, |_| 0);
        hosts.names.reserve(expected, |_| 0);
        Self {
            hosts,
            labels: Column::new(Map::Labels),
            facts: Column::new(Map::Facts),
            specs: HashMap::new(),
            spec_hosts: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Takes a host in. `labels`, `spec` and `facts` are JSON; no text at all stands for no facts. A host that cannot be
    /// read is an error and left out.
    pub fn add(&mut self, uid: Uuid, name: &str, labels: &str, spec: &str, facts: &str) -> Result<(), LoadError> {
        if self.hosts.number(uid).is_some() {
            return Err(LoadError::Twice(uid));
        }
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let read = self.read(&mut found, name, labels, spec, facts);
        match read {
            Ok((labels, spec)) => {
                let (labels, facts) = found.split_at(labels);
                self.append(Record { uid, name, spec, labels, facts });
            }
            // What was new is nobody's, and not to be remembered.
            Err(_) => {
                self.labels.known.clear();
                self.facts.known.clear();
                found.iter().for_each(|pair| self.hosts.pairs.let_go(*pair));
            }
        }
        self.found = found;
        read.map(|_| ())
    }

    /// Reads the pairs of a host into `found`; returns how many are labels, and the spec.
    fn read(
        &mut self,
        found: &mut Vec<u32>,
        name: &str,
        labels: &str,
        spec: &str,
        facts: &str,
    ) -> Result<(usize, u32), LoadError> {
        Name::check(name).map_err(LoadError::Name)?;
        let pairs = &mut self.hosts.pairs;
        self.labels.read(labels, pairs, found).map_err(LoadError::Labels)?;
        let count = found.len();
        if !facts.is_empty() {
            self.facts.read(facts, pairs, found).map_err(LoadError::Facts)?;
        }
        if let Some(spec) = self.specs.get(spec) {
            return Ok((count, *spec));
        }
        let value: Value = serde_json::from_str(spec).map_err(LoadError::Spec)?;
        let parsed = match Spec::parse(Kind::Host, value) {
            Ok(Spec::Host(parsed)) => parsed,
            Ok(_) => return Err(LoadError::Invalid("it is of another kind".to_owned())),
            Err(faults) => {
                let fault = faults.first().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
                return Err(LoadError::Invalid(fault.unwrap_or_default()));
            }
        };
        let number = self.hosts.specs.intern(parsed);
        if self.specs.len() >= REMEMBERED {
            self.specs.clear();
        }
        self.specs.insert(spec.into(), number);
        Ok((count, number))
    }

    /// Adds the record of a host at the end.
    fn append(&mut self, record: Record<'_>) {
        let number = self.hosts.end;
        self.hosts.end += 1;
        for pair in record.labels.iter().chain(record.facts) {
            self.hosts.pairs.push(*pair, number);
        }
        let spec = record.spec as usize;
        if spec >= self.spec_hosts.len() {
            self.spec_hosts.resize(spec + 1, Members::default());
        }
        self.spec_hosts[spec].push(number);
        self.hosts.set(number, record);
        self.hosts.file_uid(number, record.uid);
        self.hosts.file_name(number, record.name);
    }

    /// Returns the table.
    #[must_use]
    pub fn finish(self) -> Hosts {
        let mut hosts = self.hosts;
        Arc::make_mut(&mut hosts.live).insert_range(0..hosts.end);
        for (spec, of_spec) in self.spec_hosts.iter().enumerate() {
            hosts.specs.attach(spec as u32, of_spec);
        }
        hosts.pairs.join_keys();
        hosts.shrink();
        hosts
    }
}

/// What a map of pairs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    Labels,
    Facts,
}

/// A column of maps, most of which look like those before.
#[derive(Debug)]
struct Column {
    map: Map,
    known: HashMap<Box<str>, Box<[u32]>>,
    /// How often a text was known since the last time that they were forgotten.
    hits: usize,
    /// Whether texts repeat; where each is another one, remembering them is work for nothing.
    repeats: bool,
    /// The keys of the last map, in order.
    keys: Vec<u32>,
}

impl Column {
    fn new(map: Map) -> Self {
        Self { map, known: HashMap::new(), hits: 0, repeats: true, keys: Vec::new() }
    }

    /// Adds the pairs of a map to `found`, in order of their keys.
    fn read(&mut self, text: &str, pairs: &mut Pairs, found: &mut Vec<u32>) -> Result<(), serde_json::Error> {
        if self.repeats
            && let Some(known) = self.known.get(text)
        {
            self.hits += 1;
            found.extend_from_slice(known);
            return Ok(());
        }
        let start = found.len();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        PairsOf { map: self.map, keys: &mut self.keys, pairs, found }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        if !found[start..].is_sorted_by(|a, b| pairs.key_name(*a) < pairs.key_name(*b)) {
            sort(pairs, found, start);
        }
        if self.repeats {
            if self.known.len() >= REMEMBERED {
                self.repeats = self.hits >= REMEMBERED;
                self.hits = 0;
                self.known.clear();
            }
            self.known.insert(text.into(), found[start..].into());
        }
        Ok(())
    }
}

/// Brings pairs into the order of their keys. As in any map, of two values of one key the later stands.
fn sort(pairs: &mut Pairs, found: &mut Vec<u32>, start: usize) {
    let mut sorted = found.split_off(start);
    sorted.sort_by(|a, b| pairs.key_name(*a).cmp(pairs.key_name(*b)));
    for (at, pair) in sorted.iter().enumerate() {
        let again = sorted.get(at + 1).is_some_and(|next| pairs.key_name(*next) == pairs.key_name(*pair));
        if !again {
            found.push(*pair);
        }
    }
    sorted.iter().filter(|pair| !found[start..].contains(pair)).for_each(|pair| pairs.let_go(*pair));
}

struct PairsOf<'a> {
    map: Map,
    keys: &'a mut Vec<u32>,
    pairs: &'a mut Pairs,
    found: &'a mut Vec<u32>,
}

/// A text that is borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for PairsOf<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PairsOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut full = String::from(FACT);
        let mut at = 0;
        while let Some(Text(key)) = map.next_key()? {
            let guess = self.keys.get(at).copied();
            at += 1;
            let pair = match self.map {
                Map::Labels => {
                    let Text(value) = map.next_value()?;
                    if at > limits::LABELS {
                        return Err(A::Error::custom(LabelError::TooMany(at)));
                    }
                    Labels::check(&key, &value).map_err(A::Error::custom)?;
                    self.pairs.intern(&key, Given::Text(&value), guess)
                }
                Map::Facts => {
                    full.truncate(FACT.len());
                    full.push_str(&key);
                    self.pairs.intern(&full, Given::of(&map.next_value()?), guess)
                }
            };
            if let Some(pair) = self.pairs.get(pair)
                && guess != Some(pair.key)
            {
                self.keys.truncate(at - 1);
                self.keys.push(pair.key);
            }
            self.found.push(pair);
        }
        Ok(())
    }
}
