//! What was seen of objects, so that nobody is asked twice for what has not changed.
//!
//! An object is looked at again when a watch told of it, when its kind is not watched, when it was not well, and every now
//! and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use titan_api::Digest;

use super::objects::Key;
use crate::apply::{Condition, Observation};

/// After how long an object is looked at though nobody told of it.
const AGE: Duration = Duration::from_mins(10);

/// A kind in a namespace, or in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The group.
    pub(crate) group: String,
    /// The kind.
    pub(crate) kind: String,
    /// The namespace; empty for kinds that are in none.
    pub(crate) namespace: String,
}

impl Place {
    pub(crate) fn of(key: &Key) -> Self {
        Self { group: key.group.clone(), kind: key.kind.clone(), namespace: key.namespace.clone() }
    }
}

/// What was seen. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    watched: BTreeSet<Place>,
    objects: BTreeMap<Key, Sight>,
}

#[derive(Debug, Default)]
struct Sight {
    /// What the object was like when nothing had drifted, for which content to be applied.
    clean: Option<(Digest, Digest)>,
    last: Option<(Observation, Digest, Instant)>,
    /// How often something was told of it.
    told: u64,
}

impl Seen {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was seen of an object that is to be as `wanted`, if that still holds.
    pub(crate) fn last(&self, key: &Key, wanted: Digest) -> Option<Observation> {
        let inner = self.inner();
        let (observation, of, at) = inner.objects.get(key)?.last.as_ref()?;
        let well = observation.condition == Condition::Well && observation.drift.is_none();
        let holds = well && *of == wanted && at.elapsed() < AGE && inner.watched.contains(&Place::of(key));
        holds.then(|| observation.clone())
    }

    /// Begins to look at an object. Returns how often something was told of it.
    pub(crate) fn looking(&self, key: &Key) -> u64 {
        self.inner().objects.entry(key.clone()).or_default().told
    }

    /// Notes what was seen, unless something was told of the object since `looking` began.
    pub(crate) fn note(&self, key: &Key, wanted: Digest, observation: &Observation, looking: u64) {
        let mut inner = self.inner();
        let sight = inner.objects.entry(key.clone()).or_default();
        sight.last = (sight.told == looking).then(|| (observation.clone(), wanted, Instant::now()));
    }

    /// Notes that an object which is to be as `wanted` is as it should be.
    pub(crate) fn note_clean(&self, key: &Key, wanted: Digest, live: &Value) {
        self.inner().objects.entry(key.clone()).or_default().clean = Some((wanted, fingerprint(live)));
    }

    /// Whether an object is as it was when it was as it should be.
    pub(crate) fn is_clean(&self, key: &Key, wanted: Digest, live: &Value) -> bool {
        self.inner().objects.get(key).is_some_and(|sight| sight.clean == Some((wanted, fingerprint(live))))
    }

    /// Something happened to an object.
    pub(crate) fn forget(&self, key: &Key) {
        if let Some(sight) = self.inner().objects.get_mut(key) {
            sight.last = None;
            sight.told += 1;
        }
    }

    /// An object is nobody's business any more.
    pub(crate) fn drop(&self, key: &Key) {
        self.inner().objects.remove(key);
    }

    /// A place is watched from now on, or not any more; what was seen in it before does not hold.
    pub(crate) fn watched(&self, place: &Place, is: bool) {
        let mut inner = self.inner();
        if is {
            inner.watched.insert(place.clone());
        } else {
            inner.watched.remove(place);
        }
        for (key, sight) in &mut inner.objects {
            if Place::of(key) == *place {
                sight.last = None;
                sight.told += 1;
            }
        }
    }
}

/// Returns what an object is like, without what changes by itself.
fn fingerprint(live: &Value) -> Digest {
    let mut live = live.clone();
    if let Some(fields) = live.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            ["managedFields", "resourceVersion", "generation"].iter().for_each(|name| drop(metadata.remove(*name)));
        }
    }
    Digest::of(live.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_seen_holds_until_somebody_tells_of_it() {
        let (seen, key, wanted) = (Seen::default(), Key::new("apps", "Deployment", "n", "x"), Digest::of(b"1"));
        let place = Place::of(&key);
        let well = Observation { claim: key.claim(), condition: Condition::Well, drift: None };
        let note = || {
            let looking = seen.looking(&key);
            seen.note(&key, wanted, &well, looking);
        };
        note();
        assert_eq!(seen.last(&key, wanted), None, "nobody watches");
        seen.watched(&place, true);
        note();
        assert_eq!(seen.last(&key, wanted), Some(well.clone()));
        assert_eq!(seen.last(&key, Digest::of(b"2")), None, "of something else");
        seen.forget(&key);
        assert_eq!(seen.last(&key, wanted), None);
        let looking = seen.looking(&key);
        seen.forget(&key);
        seen.note(&key, wanted, &well, looking);
        assert_eq!(seen.last(&key, wanted), None, "it changed while it was looked at");
        note();
        seen.watched(&place, false);
        assert_eq!(seen.last(&key, wanted), None);
    }

    #[test]
    fn status_does_not_make_an_object_another_one() {
        let (seen, key, wanted) = (Seen::default(), Key::new("", "Service", "n", "x"), Digest::of(b"1"));
        seen.note_clean(&key, wanted, &json!({"metadata": {"resourceVersion": "1"}, "spec": 1}));
        let later = json!({"metadata": {"resourceVersion": "2"}, "spec": 1, "status": {}});
        assert!(seen.is_clean(&key, wanted, &later));
        assert!(!seen.is_clean(&key, wanted, &json!({"metadata": {}, "spec": 2})));
    }
}
