//! Pairs of key and value that hosts have as labels and facts: each stored once, with the hosts that have it.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use serde_json::Value;

use super::{lookup::Lookup, members::Members, slab::Slab};

/// What facts are called in selectors begins with this.
pub(super) const FACT: &str = "fact/";

/// A value to be stored or found. Labels are text; facts keep their type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    /// Text.
    Text(&'a str),
    /// Anything but text.
    Json(&'a Value),
}

impl<'a> Given<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            other => Self::Json(other),
        }
    }

    /// Returns the value as selectors see it.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(value) => Cow::Owned(value.to_string()),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Stored {
    Text(Box<str>),
    Json(Box<Value>),
}

impl Stored {
    pub(super) fn given(&self) -> Given<'_> {
        match self {
            Self::Text(text) => Given::Text(text),
            Self::Json(value) => Given::Json(value),
        }
    }
}

/// A pair that at least one host has.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: u32,
    pub(super) value: Stored,
    pub(super) members: Members,
}

/// A key that at least one host has: a label's, or a fact's with `fact/` before its name.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) name: Box<str>,
    pairs: u32,
    pub(super) members: Members,
}

/// Every pair in use. Numbers are given out again, so all of it is bounded by what hosts have.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs {
    pub(super) keys: Slab<Key>,
    pub(super) key_names: Lookup,
    pub(super) pairs: Slab<Pair>,
    pub(super) values: Lookup,
    hasher: RandomState,
}

impl Pairs {
    /// Returns the number of a key.
    pub(super) fn key(&self, name: &str) -> Option<u32> {
        let is = |key| self.keys.get(key).is_some_and(|key: &Key| *key.name == *name);
        self.key_names.find(self.hasher.hash_one(name), is)
    }

    /// Returns a pair.
    pub(super) fn get(&self, pair: u32) -> Option<&Pair> {
        self.pairs.get(pair)
    }

    /// Returns the name of a pair's key.
    pub(super) fn key_name(&self, pair: u32) -> &str {
        self.get(pair).and_then(|pair| self.keys.get(pair.key)).map_or("", |key| &key.name)
    }

    /// Returns the pairs of a key whose value reads like `text`: a text, and perhaps a number or the like.
    pub(super) fn reading(&self, key: u32, text: &str) -> impl Iterator<Item = &Pair> {
        let hash = self.hasher.hash_one((key, text));
        let find = move |json: bool| {
            let pair = self.values.find(hash, |pair| self.is(pair, key, text, json))?;
            self.get(pair)
        };
        [find(false), find(true)].into_iter().flatten()
    }

    fn is(&self, pair: u32, key: u32, text: &str, json: bool) -> bool {
        self.get(pair).is_some_and(|pair| {
            let given = pair.value.given();
            pair.key == key && matches!(given, Given::Json(_)) == json && given.text() == text
        })
    }

    /// Returns the number of a pair, new or known. A new one is to be attached to a host, or let go. `guess` is a key that
    /// may be the one.
    pub(super) fn intern(&mut self, name: &str, value: Given<'_>, guess: Option<u32>) -> u32 {
        let guess = guess.filter(|guess| self.keys.get(*guess).is_some_and(|key| *key.name == *name));
        let key = guess.or_else(|| self.key(name)).unwrap_or_else(|| {
            let key = self.keys.insert(Key { name: name.into(), pairs: 0, members: Members::default() });
            let (keys, hasher) = (&self.keys, &self.hasher);
            let rehash = |key| keys.get(key).map_or(0, |key: &Key| hasher.hash_one(&*key.name));
            self.key_names.insert(hasher.hash_one(name), key, rehash);
            key
        });
        let text = value.text();
        let hash = self.hasher.hash_one((key, &*text));
        let json = matches!(value, Given::Json(_));
        if let Some(pair) = self.values.find(hash, |pair| self.is(pair, key, &text, json)) {
            return pair;
        }
        let value = match value {
            Given::Text(text) => Stored::Text(text.into()),
            Given::Json(value) => Stored::Json(Box::new(value.clone())),
        };
        let pair = self.pairs.insert(Pair { key, value, members: Members::default() });
        if let Some(key) = self.keys.get_mut(key) {
            key.pairs += 1;
        }
        let (pairs, hasher) = (&self.pairs, &self.hasher);
        self.values.insert(hash, pair, |pair| hash_of(pairs, hasher, pair));
        pair
    }

    /// Adds a host to those that have a pair.
    pub(super) fn attach(&mut self, pair: u32, host: u32) {
        let Some(found) = self.pairs.get_mut(pair) else { return };
        found.members.insert(host);
        if let Some(key) = self.keys.get_mut(found.key) {
            key.members.insert(host);
        }
    }

    /// Adds a host, whose number is the highest, to those that have a pair; [`Pairs::join_keys`] is to follow.
    pub(super) fn push(&mut self, pair: u32, host: u32) {
        if let Some(pair) = self.pairs.get_mut(pair) {
            pair.members.push(host);
        }
    }

    /// Makes out of the hosts that have each pair those that have each key.
    pub(super) fn join_keys(&mut self) {
        for pair in self.pairs.values() {
            if let Some(key) = self.keys.get_mut(pair.key) {
                key.members.join(&pair.members);
            }
        }
    }

    /// Takes a host out of those that have a pair.
    pub(super) fn detach(&mut self, pair: u32, host: u32) {
        let Some(found) = self.pairs.get_mut(pair) else { return };
        found.members.remove(host);
        if let Some(key) = self.keys.get_mut(found.key) {
            key.members.remove(host);
        }
        self.let_go(pair);
    }

    /// Removes a pair that no host has, and its key with its last pair.
    pub(super) fn let_go(&mut self, pair: u32) {
        if !self.get(pair).is_some_and(|pair| pair.members.is_empty()) {
            return;
        }
        self.values.remove(hash_of(&self.pairs, &self.hasher, pair), pair);
        let Some(gone) = self.pairs.remove(pair) else { return };
        let Some(key) = self.keys.get_mut(gone.key) else { return };
        key.pairs -= 1;
        if key.pairs == 0 {
            let hash = self.hasher.hash_one(&*key.name);
            self.key_names.remove(hash, gone.key);
            self.keys.remove(gone.key);
        }
    }

    /// Gives back what was reserved for growth.
    pub(super) fn shrink(&mut self) {
        self.pairs.values_mut().for_each(|pair| pair.members.shrink());
        self.keys.values_mut().for_each(|key| key.members.shrink());
    }
}

/// Returns the hash under which a pair is found, the same for `5` and `"5"`.
fn hash_of(pairs: &Slab<Pair>, hasher: &RandomState, pair: u32) -> u64 {
    pairs.get(pair).map_or(0, |pair| hasher.hash_one((pair.key, &*pair.value.given().text())))
}
