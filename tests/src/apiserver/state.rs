//! What the double keeps: objects, their versions, who watches, and what a call does to them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Uri},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    kinds::{self, Kind},
    ownership,
};

/// How long a definition takes to be established, and what is deleted to be gone.
const MOMENT: Duration = Duration::from_millis(100);

/// Where an object is: plural, group, namespace, name.
type Place = (String, String, String, String);

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; a text is sent as it is.
    pub value: Value,
}

impl Answer {
    fn ok(value: Value) -> Self {
        Self { status: 200, value }
    }

    /// Returns a failure as the server puts it.
    pub fn failure(status: u16, reason: &str, message: &str, causes: &[Value]) -> Self {
        let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                           "reason": reason, "details": {"causes": causes}, "code": status});
        Self { status, value }
    }

    fn missing(what: &str) -> Self {
        Self::failure(404, "NotFound", &format!("{what} not found"), &[])
    }
}

/// A call.
#[derive(Debug)]
pub struct Ask {
    method: Method,
    path: Vec<String>,
    full: String,
    query: BTreeMap<String, String>,
    media: String,
    body: Value,
    /// Whether it is a watch.
    pub watch: bool,
}

impl Ask {
    /// Reads a call.
    pub fn new(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Result<Self, Answer> {
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decode(value)))
            .collect();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body).map_err(|_| Answer::failure(400, "BadRequest", "the body is not JSON", &[]))?
        };
        let media = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let watch = query.get("watch").is_some_and(|watch| watch == "true");
        let path = uri.path().split('/').filter(|part| !part.is_empty()).map(decode).collect();
        Ok(Self { method: method.clone(), path, full: uri.to_string(), query, media, body, watch })
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
struct Watcher {
    plural: String,
    group: String,
    namespace: String,
    selector: String,
    say: UnboundedSender<Bytes>,
}

/// Everything.
#[derive(Debug)]
pub struct State {
    version: u64,
    compacted: u64,
    kinds: Vec<Kind>,
    objects: BTreeMap<Place, Value>,
    ripe: BTreeMap<Place, Instant>,
    history: Vec<(u64, &'static str, Place, Value)>,
    watchers: Vec<Watcher>,
    /// The calls, apart from watches.
    pub log: Vec<Logged>,
    /// How many there were.
    pub calls: usize,
    /// After how many nobody answers.
    pub silent_after: Option<usize>,
    /// What is forbidden.
    pub forbidden: Vec<(&'static str, &'static str)>,
    /// Whether nobody makes deployments ready.
    pub uncontrolled: bool,
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
    pub fn get(&mut self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.ripen(Instant::now());
        self.objects.get(&self.place(plural, namespace, name)).cloned()
    }

    /// Changes an object as another manager does.
    pub fn edit(&mut self, plural: &str, namespace: &str, name: &str, manager: &str, change: impl FnOnce(&mut Value)) {
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
    pub fn delete_now(&mut self, plural: &str, namespace: &str, name: &str) {
        let place = self.place(plural, namespace, name);
        self.take(&place);
    }

    /// Returns all names.
    pub fn names(&mut self) -> Vec<String> {
        self.ripen(Instant::now());
        let shown = |(plural, _, namespace, name): &Place| format!("{plural} {namespace}/{name}");
        self.objects.keys().filter(|place| place.0 != "pods").map(shown).collect()
    }

    /// Forgets the past.
    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    /// Ends all watches.
    pub fn break_watches(&mut self) {
        self.watchers.clear();
    }

    /// Returns how many watches there are.
    pub fn watches(&mut self) -> usize {
        self.watchers.retain(|watcher| !watcher.say.is_closed());
        self.watchers.len()
    }

    /// Puts an object in its place. Returns it as it is then.
    fn store(&mut self, place: &Place, mut new: Value) -> Value {
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

    fn take(&mut self, place: &Place) {
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

    /// What controllers do by themselves.
    fn controllers(&mut self, place: &Place, new: &Value) {
        let mut next = new.clone();
        match place.0.as_str() {
            "namespaces" if new["status"].is_null() => {
                next["status"] = json!({"phase": "Active"});
                let account = ("serviceaccounts".into(), String::new(), place.3.clone(), "default".into());
                let metadata = json!({"name": "default", "namespace": place.3});
                self.store(&account, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
            }
            "customresourcedefinitions" if new["status"].is_null() => {
                self.ripe.entry(place.clone()).or_insert_with(|| Instant::now() + MOMENT);
                return;
            }
            "deployments" if !self.uncontrolled => {
                let generation = &new["metadata"]["generation"];
                if new["status"]["observedGeneration"] == *generation {
                    return;
                }
                let wanted = new["spec"]["replicas"].as_i64().unwrap_or(1);
                let image = new.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
                let broken = image.is_some_and(|image| image.ends_with(":broken"));
                let ready = if broken { 0 } else { wanted };
                next["status"] = json!({"observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
                                        "readyReplicas": ready, "availableReplicas": ready});
                self.make_pod(place, new, broken);
            }
            _ => return,
        }
        self.store(place, next);
    }

    fn make_pod(&mut self, owner: &Place, deployment: &Value, broken: bool) {
        let name = format!("{}-0", owner.3);
        let place = ("pods".into(), String::new(), owner.2.clone(), name.clone());
        let state = match broken {
            true => json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}),
            false => json!({"running": {}}),
        };
        let last = if broken { json!({"terminated": {"exitCode": 3}}) } else { json!({}) };
        let references = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner.3,
                                 "uid": deployment["metadata"]["uid"], "blockOwnerDeletion": true}]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": owner.2, "ownerReferences": references,
                         "labels": deployment["spec"]["template"]["metadata"]["labels"]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "app", "restartCount": i64::from(broken), "state": state, "lastState": last}]},
        });
        self.store(&place, pod);
    }

    /// What is due: definitions are established, what is deleted goes.
    fn ripen(&mut self, now: Instant) {
        let due: Vec<Place> = self.ripe.iter().filter(|(_, at)| **at <= now).map(|(place, _)| place.clone()).collect();
        for place in due {
            self.ripe.remove(&place);
            let Some(mut object) = self.objects.get(&place).cloned() else { continue };
            if object["metadata"].get("deletionTimestamp").is_some() {
                self.finish(&place, &object, now);
            } else if place.0 == "customresourcedefinitions" {
                object["status"] = json!({"conditions": [{"type": "NamesAccepted", "status": "True"},
                                                         {"type": "Established", "status": "True"}]});
                let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
                self.kinds.push(Kind {
                    group: text("/spec/group"),
                    version: text("/spec/versions/0/name"),
                    kind: text("/spec/names/kind"),
                    plural: text("/spec/names/plural"),
                    namespaced: text("/spec/scope") == "Namespaced",
                });
                self.store(&place, object);
            }
        }
    }

    /// Lets what is being deleted go, once nothing holds it.
    fn finish(&mut self, place: &Place, object: &Value, now: Instant) {
        let uid = &object["metadata"]["uid"];
        let depends = |other: &&Place| match place.0.as_str() {
            "namespaces" => other.2 == place.3,
            _ => self.objects[*other]["metadata"]["ownerReferences"][0]["uid"] == *uid,
        };
        let dependents: Vec<Place> = self.objects.keys().filter(depends).cloned().collect();
        if !dependents.is_empty() {
            dependents.iter().for_each(|dependent| self.take(dependent));
            self.ripe.insert(place.clone(), now + MOMENT / 2);
            return;
        }
        let mut object = object.clone();
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != "foregroundDeletion");
            if !finalizers.is_empty() {
                self.ripe.insert(place.clone(), now + MOMENT / 2);
                return;
            }
        }
        self.take(place);
    }

    /// Begins a watch. Returns what there is to say at once, and where the rest will come from.
    pub fn watch(&mut self, ask: &Ask) -> Result<(VecDeque<Bytes>, UnboundedReceiver<Bytes>), Answer> {
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
    pub fn answer(&mut self, ask: &Ask, now: Instant) -> Answer {
        self.log.push(Logged { method: ask.method.to_string(), path: ask.full.clone() });
        self.ripen(now);
        self.discovery(ask).map_or_else(|| self.object(ask, now).unwrap_or_else(|failure| failure), Answer::ok)
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
                self.apply(ask, &kind, &place)
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

fn selected(object: &Value, selector: &str) -> bool {
    let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
    selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        Some((name, value)) => label(name) == Some(value),
        None => label(part).is_some(),
    })
}

fn line(word: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": word, "object": object})).into()
}
