//! Loading many hosts at once, from the texts that the store keeps.

use std::{borrow::Cow, collections::HashMap, fmt};

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

/// Makes a table of hosts from texts.
#[derive(Debug, Default)]
pub struct Loader {
    hosts: Hosts,
    labels: HashMap<Box<str>, Box<[u32]>>,
    facts: HashMap<Box<str>, Box<[u32]>>,
    specs: HashMap<Box<str>, u32>,
    found: Vec<u32>,
}

impl Loader {
    /// Takes a host in. `labels`, `spec` and `facts` are JSON; no text at all stands for no facts. A host that cannot be
    /// read is an error and left out.
    pub fn add(&mut self, uid: Uuid, name: &str, labels: &str, spec: &str, facts: &str) -> Result<(), LoadError> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let read = self.read(&mut found, uid, name, labels, spec, facts);
        match read {
            Ok((labels, spec)) => {
                let number = self.hosts.next().0;
                let (labels, facts) = found.split_at(labels);
                self.hosts.write(number, Record { uid, name, spec, labels, facts });
            }
            // What was new is nobody's.
            Err(_) => found.iter().for_each(|pair| self.hosts.pairs.let_go(*pair)),
        }
        self.found = found;
        read.map(|_| ())
    }

    /// Reads the pairs of a host into `found`; returns how many are labels, and the spec.
    fn read(
        &mut self,
        found: &mut Vec<u32>,
        uid: Uuid,
        name: &str,
        labels: &str,
        spec: &str,
        facts: &str,
    ) -> Result<(usize, u32), LoadError> {
        if self.hosts.number(uid).is_some() {
            return Err(LoadError::Twice(uid));
        }
        Name::check(name).map_err(LoadError::Name)?;
        let pairs = &mut self.hosts.pairs;
        remembered(&mut self.labels, labels, found, |found| read_map(labels, Column::Labels, pairs, found))
            .map_err(LoadError::Labels)?;
        let count = found.len();
        if !facts.is_empty() {
            remembered(&mut self.facts, facts, found, |found| read_map(facts, Column::Facts, pairs, found))
                .map_err(LoadError::Facts)?;
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

    /// Returns the table.
    #[must_use]
    pub fn finish(self) -> Hosts {
        let mut hosts = self.hosts;
        hosts.shrink();
        hosts
    }
}

/// Adds the pairs of a text to `found`, read or remembered.
fn remembered(
    known: &mut HashMap<Box<str>, Box<[u32]>>,
    text: &str,
    found: &mut Vec<u32>,
    read: impl FnOnce(&mut Vec<u32>) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    if let Some(pairs) = known.get(text) {
        found.extend_from_slice(pairs);
        return Ok(());
    }
    let start = found.len();
    read(found)?;
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(text.into(), found[start..].into());
    Ok(())
}

/// What a map of pairs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Labels,
    Facts,
}

/// Adds the pairs of a JSON map to `found`, in order of their keys.
fn read_map(text: &str, column: Column, pairs: &mut Pairs, found: &mut Vec<u32>) -> Result<(), serde_json::Error> {
    let start = found.len();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    PairsOf { column, pairs, found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    if found[start..].is_sorted_by(|a, b| pairs.key_name(*a) < pairs.key_name(*b)) {
        return Ok(());
    }
    // As in any map, of two values of one key the later stands.
    let mut sorted = found.split_off(start);
    sorted.sort_by(|a, b| pairs.key_name(*a).cmp(pairs.key_name(*b)));
    for (at, pair) in sorted.iter().enumerate() {
        if sorted.get(at + 1).is_some_and(|next| pairs.key_name(*next) == pairs.key_name(*pair)) {
            continue;
        }
        found.push(*pair);
    }
    sorted.iter().filter(|pair| !found[start..].contains(pair)).for_each(|pair| pairs.let_go(*pair));
    Ok(())
}

struct PairsOf<'a> {
    column: Column,
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
        let mut labels = 0;
        while let Some(Text(key)) = map.next_key()? {
            let pair = match self.column {
                Column::Labels => {
                    let Text(value) = map.next_value()?;
                    labels += 1;
                    if labels > limits::LABELS {
                        return Err(A::Error::custom(LabelError::TooMany(labels)));
                    }
                    Labels::check(&key, &value).map_err(A::Error::custom)?;
                    self.pairs.intern(&key, Given::Text(&value))
                }
                Column::Facts => {
                    full.truncate(FACT.len());
                    full.push_str(&key);
                    self.pairs.intern(&full, Given::of(&map.next_value()?))
                }
            };
            self.found.push(pair);
        }
        Ok(())
    }
}
