//! What happens in a cluster by itself: controllers, and what takes a moment.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    kinds::Kind,
    state::{Place, State},
};

/// How long a definition takes to be established, and what is deleted to be gone.
pub(super) const MOMENT: Duration = Duration::from_millis(100);

impl State {
    /// What controllers do by themselves.
    pub(super) fn controllers(&mut self, place: &Place, new: &Value) {
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
    pub(super) fn ripen(&mut self, now: Instant) {
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
}
