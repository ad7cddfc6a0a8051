//! What the double keeps: objects, their versions, and who watches.

use std::{collections::BTreeMap, time::Instant};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    kinds::{self, Kind},
    ownership,
};

/// Where an object is: plural, group, namespace, name.
pub(super) type Place = (String, String, String, String);

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
}

/// Whoever watches.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) plural: String,
    pub(super) group: String,
    pub(super) namespace: String,
    pub(super) selector: String,
    pub(super) say: UnboundedSender<Bytes>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) compacted: u64,
    pub(super) kinds: Vec<Kind>,
    pub(super) objects: BTreeMap<Place, Value>,
    pub(super) ripe: BTreeMap<Place, Instant>,
    pub(super) history: Vec<(u64, &'static str, Place, Value)>,
    pub(super) watchers: Vec<Watcher>,
    /// The calls, apart from watches.
    pub(super) log: Vec<Logged>,
    /// How many there were.
    pub(super) calls: usize,
    /// After how many nobody answers.
    pub(super) silent_after: Option<usize>,
    /// What is forbidden.
    pub(super) forbidden: Vec<(&'static str, &'static str)>,
    /// Whether nobody makes deployments ready.
    pub(super) uncontrolled: bool,
}

impl Default for State {
    fn default() -> Self {
        let mut state = Self {
            version: 100,
            compacted: 0,
            kinds: kinds::builtin(),
            objects: BTreeMap::new(),
            ripe: BTreeMap::new(),
            history: Vec::new(),
            watchers: Vec::new(),
            log: Vec::new(),
            calls: 0,
            silent_after: None,
            forbidden: Vec::new(),
            uncontrolled: false,
        };
        state.edit("namespaces", "", "default", "kube-apiserver", |_| {});
        state
    }
}

impl State {
    fn kind(&self, plural: &str) -> Kind {
        self.kinds.iter().find(|kind| kind.plural == plural).cloned().expect("a kind that is served")
    }

    fn place(&self, plural: &str, namespace: &str, name: &str) -> Place {
        (plural.to_owned(), self.kind(plural).group, namespace.to_owned(), name.to_owned())
    }

    /// Returns an object.
    pub(super) fn get(&mut self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.ripen(Instant::now());
        self.objects.get(&self.place(plural, namespace, name)).cloned()
    }

    /// Changes an object as another manager does.
    pub(super) fn edit(
        &mut self,
        plural: &str,
        namespace: &str,
        name: &str,
        manager: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let kind = self.kind(plural);
        let place = self.place(plural, namespace, name);
        let live = self.objects.get(&place).cloned().unwrap_or(Value::Null);
        let mut new = live.clone();
        if new.is_null() {
            new = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}});
            if kind.namespaced {
                new["metadata"]["namespace"] = namespace.into();
            }
        }
        change(&mut new);
        let new = ownership::update(&live, new, manager);
        self.store(&place, new);
    }

    /// Removes an object at once.
    pub(super) fn delete_now(&mut self, plural: &str, namespace: &str, name: &str) {
        let place = self.place(plural, namespace, name);
        self.take(&place);
    }

    /// Returns all names.
    pub(super) fn names(&mut self) -> Vec<String> {
        self.ripen(Instant::now());
        let shown = |(plural, _, namespace, name): &Place| format!("{plural} {namespace}/{name}");
        self.objects.keys().filter(|place| place.0 != "pods").map(shown).collect()
    }

    /// Forgets the past.
    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    /// Ends all watches.
    pub(super) fn break_watches(&mut self) {
        self.watchers.clear();
    }

    /// Returns how many watches there are.
    pub(super) fn watches(&mut self) -> usize {
        self.watchers.retain(|watcher| !watcher.say.is_closed());
        self.watchers.len()
    }

    /// Puts an object in its place. Returns it as it is then.
    pub(super) fn store(&mut self, place: &Place, mut new: Value) -> Value {
        kinds::fill_in(&mut new);
        let old = self.objects.get(place).cloned();
        let spec = |value: &Value| {
            let mut value = value.clone();
            ["metadata", "status"]
                .iter()
                .for_each(|name| drop(value.as_object_mut().map(|fields| fields.remove(*name))));
            value
        };
        match &old {
            Some(old) => {
                let changed = spec(old) != spec(&new);
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
                new["metadata"]["generation"] = (generation + i64::from(changed)).into();
                new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                if *old == new {
                    return new;
                }
            }
            None => {
                new["metadata"]["uid"] = format!("uid-{}", self.version + 1).into();
                new["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
                new["metadata"]["generation"] = 1.into();
            }
        }
        self.version += 1;
        new["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(place.clone(), new.clone());
        let word = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(word, place, old.as_ref(), &new);
        self.controllers(place, &new);
        self.objects.get(place).cloned().unwrap_or(new)
    }

    pub(super) fn take(&mut self, place: &Place) {
        let Some(mut old) = self.objects.remove(place) else { return };
        self.ripe.remove(place);
        self.version += 1;
        old["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell("DELETED", place, Some(&old.clone()), &old);
        if place.0 == "customresourcedefinitions" {
            let plural = old["spec"]["names"]["plural"].as_str().unwrap_or_default().to_owned();
            self.kinds.retain(|kind| kind.plural != plural);
            let gone: Vec<Place> = self.objects.keys().filter(|place| place.0 == plural).cloned().collect();
            gone.iter().for_each(|place| self.take(place));
        }
    }

    fn tell(&mut self, word: &'static str, place: &Place, old: Option<&Value>, new: &Value) {
        self.history.push((self.version, word, place.clone(), new.clone()));
        for watcher in &self.watchers {
            let here = (watcher.plural == place.0 && watcher.group == place.1)
                && (watcher.namespace.is_empty() || watcher.namespace == place.2);
            let (was, is) = (old.is_some_and(|old| selected(old, &watcher.selector)), selected(new, &watcher.selector));
            let word = match (was, is) {
                (true, false) => "DELETED",
                (false, true) if word != "DELETED" => "ADDED",
                _ => word,
            };
            if here && (was || is) {
                let _ended = watcher.say.send(line(word, new));
            }
        }
    }
}

/// Whether a selector means an object.
pub(super) fn selected(object: &Value, selector: &str) -> bool {
    let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
    selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        Some((name, value)) => label(name) == Some(value),
        None => label(part).is_some(),
    })
}

/// Returns one line of a watch.
pub(super) fn line(word: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": word, "object": object})).into()
}
