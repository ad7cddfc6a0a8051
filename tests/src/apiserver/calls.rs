//! What a call does: watches, discovery, reading, server-side apply, deletion.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use axum::{body::Bytes, http::Method};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    asks::{Answer, Ask},
    controllers::MOMENT,
    kinds::{self, Kind},
    ownership::{self, Step},
    state::{Logged, Place, State, Watcher, line, selected},
};

impl State {
    /// Begins a watch. Returns what there is to say at once, and where the rest will come from.
    pub(super) fn watch(&mut self, ask: &Ask) -> Result<(VecDeque<Bytes>, UnboundedReceiver<Bytes>), Answer> {
        self.ripen(Instant::now());
        let (kind, namespace, _, _) = self.route(&ask.path).ok_or_else(|| Answer::missing("the resource"))?;
        self.check_allowed("watch", &kind.plural)?;
        let selector = ask.query("labelSelector").to_owned();
        let here = |place: &Place| {
            place.0 == kind.plural && place.1 == kind.group && (namespace.is_empty() || namespace == place.2)
        };
        let mut first = VecDeque::new();
        match ask.query("resourceVersion").parse::<u64>() {
            Ok(since) if since < self.compacted => {
                let gone = Answer::failure(410, "Expired", "too old resource version", &[]);
                first.push_back(line("ERROR", &gone.value));
            }
            Ok(since) => {
                let missed = self.history.iter().filter(|(version, _, place, object)| {
                    *version > since && here(place) && selected(object, &selector)
                });
                first.extend(missed.map(|(_, word, _, object)| line(word, object)));
            }
            Err(_) => {
                let there = self.objects.iter().filter(|(place, object)| here(place) && selected(object, &selector));
                first.extend(there.map(|(_, object)| line("ADDED", object)));
            }
        }
        let bookmark = json!({"kind": kind.kind, "metadata": {"resourceVersion": self.version.to_string()}});
        first.push_back(line("BOOKMARK", &bookmark));
        let (say, news) = unbounded_channel();
        self.watchers.push(Watcher { plural: kind.plural, group: kind.group, namespace, selector, say });
        Ok((first, news))
    }

    /// Returns what a path means: kind, namespace, name, subresource.
    fn route(&self, path: &[String]) -> Option<(Kind, String, String, String)> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let plural = rest.first()?;
        let is = |kind: &&Kind| kind.group == group && kind.version == version && kind.plural == *plural;
        let kind = self.kinds.iter().find(is)?.clone();
        let of = |index: usize| rest.get(index).map_or_else(String::new, |text| (*text).to_owned());
        Some((kind, namespace.to_owned(), of(1), of(2)))
    }

    fn check_allowed(&self, verb: &str, plural: &str) -> Result<(), Answer> {
        if self.forbidden.iter().any(|(no, which)| *no == verb && *which == plural) {
            let message = format!("{plural} is forbidden: User \"titan\" cannot {verb} resource");
            return Err(Answer::failure(403, "Forbidden", &message, &[]));
        }
        Ok(())
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, ask: &Ask, now: Instant) -> Answer {
        self.log.push(Logged { method: ask.method.to_string(), path: ask.full.clone() });
        self.ripen(now);
        if let Some(answer) = self.discovery(ask) {
            return Answer::ok(answer);
        }
        if let ["apis", group, version, ..] = ask.path.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && !self.kinds.iter().any(|kind| *kind.group == *group && *kind.version == *version)
        {
            // As a real one says it of a group or version that it does not know, or not any more.
            return Answer { status: 404, value: Value::String("404 page not found\n".to_owned()) };
        }
        self.object(ask, now).unwrap_or_else(|failure| failure)
    }

    fn discovery(&self, ask: &Ask) -> Option<Value> {
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        let (group, version) = match path.as_slice() {
            ["api"] => return Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
            ["apis"] => {
                let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for kind in self.kinds.iter().filter(|kind| !kind.group.is_empty()) {
                    groups.entry(&kind.group).or_default().push(&kind.version);
                }
                let of = |(name, versions): (&&str, &Vec<&str>)| {
                    let version =
                        |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
                    json!({"name": name, "preferredVersion": version(&versions[0]),
                           "versions": versions.iter().map(version).collect::<Vec<_>>()})
                };
                return Some(json!({"kind": "APIGroupList", "groups": groups.iter().map(of).collect::<Vec<_>>()}));
            }
            ["api", version] => ("", *version),
            ["apis", group, version] => (*group, *version),
            _ => return None,
        };
        let kinds = self.kinds.iter().filter(|kind| kind.group == group && kind.version == version);
        let of = |kind: &Kind| {
            json!({"name": kind.plural, "kind": kind.kind, "namespaced": kind.namespaced,
                   "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
        };
        let resources: Vec<Value> = kinds.map(of).collect();
        (!resources.is_empty()).then(|| json!({"kind": "APIResourceList", "resources": resources}))
    }

    fn object(&mut self, ask: &Ask, now: Instant) -> Result<Answer, Answer> {
        let Some((kind, namespace, name, sub)) = self.route(&ask.path) else {
            return Err(Answer::missing("the server could not find the requested resource"));
        };
        let place = (kind.plural.clone(), kind.group.clone(), namespace.clone(), name.clone());
        let missing = || Answer::missing(&format!("{} {name:?}", kind.plural));
        match (&ask.method, name.as_str(), sub.as_str()) {
            (&Method::GET, "", _) => {
                self.check_allowed("list", &kind.plural)?;
                Ok(Answer::ok(self.list(ask, &kind, &namespace)))
            }
            (&Method::GET, _, "log") => {
                self.check_allowed("get", "pods/log")?;
                self.objects.get(&place).ok_or_else(missing)?;
                Ok(Answer::ok(Value::String("starting\ncannot reach the database\n".to_owned())))
            }
            (&Method::GET, ..) => {
                self.check_allowed("get", &kind.plural)?;
                self.objects.get(&place).cloned().map(Answer::ok).ok_or_else(missing)
            }
            (&Method::PATCH, ..) => {
                self.check_allowed("patch", &kind.plural)?;
                match ask.media.as_str() {
                    "application/merge-patch+json" => self.merge(ask, &place).ok_or_else(missing)?,
                    _ => self.apply(ask, &kind, &place),
                }
            }
            (&Method::DELETE, ..) => {
                self.check_allowed("delete", &kind.plural)?;
                let object = self.objects.get(&place).cloned().ok_or_else(missing)?;
                self.delete(ask, &place, object, now)
            }
            _ => Err(Answer::failure(405, "MethodNotAllowed", "not allowed", &[])),
        }
    }

    fn list(&self, ask: &Ask, kind: &Kind, namespace: &str) -> Value {
        let here = |place: &Place| {
            place.0 == kind.plural && place.1 == kind.group && (namespace.is_empty() || namespace == place.2)
        };
        let selector = ask.query("labelSelector");
        let all: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(place, o)| here(place) && selected(o, selector))
            .map(|(_, object)| object)
            .collect();
        let from: usize = ask.query("continue").parse().unwrap_or(0);
        let limit: usize = ask.query("limit").parse().unwrap_or(usize::MAX);
        let next = from.saturating_add(limit);
        let more = if next < all.len() { next.to_string() } else { String::new() };
        let items: Vec<&&Value> = all.iter().skip(from).take(limit).collect();
        json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
               "metadata": {"resourceVersion": self.version.to_string(), "continue": more}, "items": items})
    }

    fn apply(&mut self, ask: &Ask, kind: &Kind, place: &Place) -> Result<Answer, Answer> {
        let bad = |status, message: &str| Answer::failure(status, "BadRequest", message, &[]);
        if ask.media != "application/apply-patch+yaml" {
            return Err(bad(415, "the double takes nothing but server-side applies"));
        }
        let manager = ask.query("fieldManager");
        if manager.is_empty() {
            return Err(bad(400, "fieldManager is required for apply patch"));
        }
        let applied = &ask.body;
        if applied["apiVersion"] != kind.api_version()
            || applied["kind"] != kind.kind
            || applied["metadata"]["name"] != place.3
        {
            return Err(bad(400, "the object in the body is another one than that in the address"));
        }
        if applied["metadata"].get("managedFields").is_some() {
            return Err(bad(400, "metadata.managedFields must be nil"));
        }
        let home = self.objects.get(&("namespaces".into(), String::new(), String::new(), place.2.clone()));
        if kind.namespaced && home.is_none() {
            return Err(Answer::missing(&format!("namespaces {:?}", place.2)));
        }
        let live = self.objects.get(place).cloned();
        if live.is_none() && home.is_some_and(|home| home["metadata"].get("deletionTimestamp").is_some()) {
            return Err(Answer::failure(403, "Forbidden", "the namespace is being terminated", &[]));
        }
        let merged =
            ownership::apply(&live.unwrap_or_else(|| json!({})), applied, manager, ask.query("force") == "true");
        let mut merged = merged.map_err(|conflicts| {
            let cause = |conflict: &ownership::Conflict| {
                let message = format!("conflict with {:?} using {}", conflict.manager, kind.api_version());
                json!({"reason": "FieldManagerConflict", "message": message, "field": ownership::shown(&conflict.path)})
            };
            let message = format!("Apply failed with {} conflicts", conflicts.len());
            Answer::failure(409, "Conflict", &message, &conflicts.iter().map(cause).collect::<Vec<_>>())
        })?;
        kinds::fill_in(&mut merged);
        if let Some((field, message)) = kinds::invalid(&merged) {
            let message = format!("{} {:?} is invalid: {field}: {message}", kind.kind, place.3);
            let cause = json!({"reason": "FieldValueInvalid", "field": field, "message": message});
            return Err(Answer::failure(422, "Invalid", &message, &[cause]));
        }
        if ask.query("dryRun") == "All" {
            return Ok(Answer::ok(merged));
        }
        Ok(Answer::ok(self.store(place, merged)))
    }

    /// A patch that says what is to be otherwise: here labels and annotations of the very object that it names.
    fn merge(&mut self, ask: &Ask, place: &Place) -> Option<Result<Answer, Answer>> {
        let live = self.objects.get(place)?.clone();
        let patch = &ask.body["metadata"];
        if patch["uid"] != live["metadata"]["uid"] {
            return Some(Err(Answer::failure(409, "Conflict", "the UID in the precondition does not match", &[])));
        }
        let only = |value: &Value, names: &[&str]| {
            value.as_object().is_some_and(|object| object.keys().all(|name| names.contains(&name.as_str())))
        };
        if !only(&ask.body, &["metadata"]) || !only(patch, &["uid", "labels", "annotations"]) {
            return Some(Err(Answer::failure(415, "BadRequest", "the double merges no more than that", &[])));
        }
        let mut changed = live.clone();
        for marks in ["labels", "annotations"] {
            for (name, value) in patch[marks].as_object().into_iter().flatten() {
                if value.is_null() {
                    ownership::cut(&mut changed, &["metadata", marks, name].map(|name| Step::Field(name.to_owned())));
                } else {
                    changed["metadata"][marks][name] = value.clone();
                }
            }
        }
        let changed = ownership::update(&live, changed, ask.query("fieldManager"));
        Some(Ok(Answer::ok(self.store(place, changed))))
    }

    fn delete(&mut self, ask: &Ask, place: &Place, mut object: Value, now: Instant) -> Result<Answer, Answer> {
        let uid = &ask.body["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return Err(Answer::failure(409, "Conflict", "the UID in the precondition does not match", &[]));
        }
        if ask.body["propagationPolicy"] != "Foreground" {
            return Err(Answer::failure(400, "BadRequest", "the double deletes in the foreground only", &[]));
        }
        if object["metadata"].get("deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.push("foregroundDeletion".into());
            object["metadata"]["finalizers"] = finalizers.into();
            self.store(place, object.clone());
            self.ripe.insert(place.clone(), now + MOMENT / 2);
        }
        Ok(Answer::ok(object))
    }
}
