//! How an object does, by the rules that `kstatus` has made usual.

use serde_json::Value;

use super::objects::{Key, items, number, text};
use crate::apply::Condition;

/// Returns how a live object does.
pub(crate) fn of(key: &Key, live: &Value) -> Condition {
    if !text(live, &["metadata", "deletionTimestamp"]).is_empty() {
        return Condition::Ill("it is being deleted".to_owned());
    }
    let generation = number(live, &["metadata", "generation"]).unwrap_or_default();
    if number(live, &["status", "observedGeneration"]).is_some_and(|seen| seen < generation) {
        return Condition::Starting("its controller has not seen the change yet".to_owned());
    }
    match (key.group.as_str(), key.kind.as_str()) {
        ("apps" | "extensions", "Deployment") => deployment(live),
        ("apps", "StatefulSet") => stateful_set(live),
        ("apps" | "extensions", "DaemonSet") => daemon_set(live),
        ("apps" | "extensions", "ReplicaSet") => replica_set(live),
        ("batch", "Job") => job(live),
        ("", "Pod") => pod(live),
        ("", "PersistentVolumeClaim") => phase(live, "Bound"),
        ("", "Namespace") => phase(live, "Active"),
        ("", "Service") => service(live),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(live),
        _ => general(live),
    }
}

fn starting(text: impl Into<String>) -> Condition {
    Condition::Starting(text.into())
}

/// Returns a condition's status, reason and message.
fn condition<'a>(live: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = items(live, &["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == kind);
    found.map(|found| (text(found, &["status"]), text(found, &["reason"]), text(found, &["message"])))
}

fn told(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn status(live: &Value, name: &str) -> i64 {
    number(live, &["status", name]).unwrap_or_default()
}

fn wanted(live: &Value) -> i64 {
    number(live, &["spec", "replicas"]).unwrap_or(1)
}

fn deployment(live: &Value) -> Condition {
    let progress = condition(live, "Progressing");
    if let Some((_, "ProgressDeadlineExceeded", message)) = progress {
        return Condition::Failed(told("ProgressDeadlineExceeded", message));
    }
    if let Some(("True", reason, message)) = condition(live, "ReplicaFailure") {
        return Condition::Ill(told(reason, message));
    }
    if number(live, &["status", "observedGeneration"]).is_none() {
        return starting("its controller has not seen it yet");
    }
    let wanted = wanted(live);
    let (updated, all) = (status(live, "updatedReplicas"), status(live, "replicas"));
    let (available, ready) = (status(live, "availableReplicas"), status(live, "readyReplicas"));
    if updated < wanted {
        return starting(format!("{updated} of {wanted} replicas are of this release"));
    }
    if all > updated {
        return starting(format!("{} replicas of the release before are still there", all - updated));
    }
    if available >= wanted && ready >= wanted {
        return Condition::Well;
    }
    let said = format!("{ready} of {wanted} replicas are ready, {available} available");
    // Once the rollout is over, what is missing is not on its way.
    match progress {
        Some(("True", "NewReplicaSetAvailable", _)) => Condition::Ill(said),
        _ => starting(said),
    }
}

fn stateful_set(live: &Value) -> Condition {
    let wanted = wanted(live);
    if number(live, &["status", "observedGeneration"]).is_none() {
        return starting("its controller has not seen it yet");
    }
    let ready = status(live, "readyReplicas");
    if text(live, &["spec", "updateStrategy", "type"]) != "OnDelete" {
        let first = number(live, &["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or_default();
        let (updated, due) = (status(live, "updatedReplicas"), (wanted - first).max(0));
        let over = text(live, &["status", "updateRevision"]) == text(live, &["status", "currentRevision"]);
        if updated < due && !(over && first == 0 && updated == 0 && ready >= wanted) {
            return starting(format!("{updated} of {due} replicas are of this release"));
        }
    }
    if ready < wanted {
        return starting(format!("{ready} of {wanted} replicas are ready"));
    }
    Condition::Well
}

fn daemon_set(live: &Value) -> Condition {
    if number(live, &["status", "observedGeneration"]).is_none() {
        return starting("its controller has not seen it yet");
    }
    let wanted = status(live, "desiredNumberScheduled");
    let on_delete = text(live, &["spec", "updateStrategy", "type"]) == "OnDelete";
    let updated = status(live, "updatedNumberScheduled");
    if updated < wanted && !on_delete {
        return starting(format!("{updated} of {wanted} pods are of this release"));
    }
    let (ready, available) = (status(live, "numberReady"), status(live, "numberAvailable"));
    if ready < wanted || available < wanted {
        return starting(format!("{ready} of {wanted} pods are ready, {available} available"));
    }
    Condition::Well
}

fn replica_set(live: &Value) -> Condition {
    if let Some(("True", reason, message)) = condition(live, "ReplicaFailure") {
        return Condition::Ill(told(reason, message));
    }
    let (wanted, ready) = (wanted(live), status(live, "readyReplicas"));
    if ready < wanted { starting(format!("{ready} of {wanted} replicas are ready")) } else { Condition::Well }
}

fn job(live: &Value) -> Condition {
    match (condition(live, "Failed"), condition(live, "Complete")) {
        (Some(("True", reason, message)), _) => Condition::Failed(told(reason, message)),
        (_, Some(("True", ..))) => Condition::Well,
        // One that runs is as it should be; whether it ends well, the next look tells.
        _ if !text(live, &["status", "startTime"]).is_empty() && status(live, "failed") == 0 => Condition::Well,
        _ if status(live, "failed") > 0 => Condition::Ill(format!("{} of its pods failed", status(live, "failed"))),
        _ => starting("it has not been started yet"),
    }
}

fn pod(live: &Value) -> Condition {
    match text(live, &["status", "phase"]) {
        "Succeeded" => Condition::Well,
        "Failed" => Condition::Failed(told(text(live, &["status", "reason"]), text(live, &["status", "message"]))),
        _ => match condition(live, "Ready") {
            Some(("True", ..)) => Condition::Well,
            Some((_, reason, message)) => starting(told(reason, message)),
            None => match condition(live, "PodScheduled") {
                Some(("False", reason, message)) => Condition::Ill(told(reason, message)),
                _ => starting("it has not been started yet"),
            },
        },
    }
}

fn phase(live: &Value, well: &str) -> Condition {
    match text(live, &["status", "phase"]) {
        phase if phase == well => Condition::Well,
        "Lost" => Condition::Failed("the volume behind it is lost".to_owned()),
        "" => starting("its controller has not seen it yet"),
        phase => starting(format!("it is {phase}")),
    }
}

fn service(live: &Value) -> Condition {
    let balanced = text(live, &["spec", "type"]) == "LoadBalancer";
    if balanced && items(live, &["status", "loadBalancer", "ingress"]).is_empty() {
        return starting("the load balancer has given it no address yet");
    }
    Condition::Well
}

fn definition(live: &Value) -> Condition {
    if let Some(("False", reason, message)) = condition(live, "NamesAccepted") {
        return Condition::Failed(told(reason, message));
    }
    match condition(live, "Established") {
        Some(("True", ..)) => Condition::Well,
        Some((_, reason, message)) => starting(told(reason, message)),
        None => starting("it is not established yet"),
    }
}

/// Whatever else: the conditions that well-behaved controllers write. What has none is well by being there.
fn general(live: &Value) -> Condition {
    if let Some(("True", reason, message)) = condition(live, "Stalled") {
        return Condition::Failed(told(reason, message));
    }
    if let Some(("True", reason, message)) = condition(live, "Reconciling") {
        return starting(told(reason, message));
    }
    match condition(live, "Ready") {
        Some(("False", reason, message)) => Condition::Ill(told(reason, message)),
        Some(("Unknown", reason, message)) => starting(told(reason, message)),
        _ => Condition::Well,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look(group: &str, kind: &str, live: &Value) -> &'static str {
        match of(&Key::new(group, kind, "n", "x"), live) {
            Condition::Well => "well",
            Condition::Starting(_) => "starting",
            Condition::Ill(_) => "ill",
            Condition::Failed(_) => "failed",
        }
    }

    fn with(kind: &str, status: &str) -> Value {
        json!({"status": {"conditions": [{"type": kind, "status": status, "reason": "R", "message": "m"}]}})
    }

    #[test]
    fn a_deployment_is_well_when_all_replicas_are_of_the_release_and_available() {
        let live = |status: Value| json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        let whole = |ready: i64, updated: i64, all: i64| {
            json!({"observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "readyReplicas": ready,
                   "availableReplicas": ready})
        };
        let look = |status: Value| look("apps", "Deployment", &live(status));
        assert_eq!(look(json!({})), "starting");
        assert_eq!(look(json!({"observedGeneration": 1})), "starting");
        assert_eq!(look(whole(2, 1, 2)), "starting");
        assert_eq!(look(whole(2, 2, 3)), "starting");
        assert_eq!(look(whole(1, 2, 2)), "starting");
        assert_eq!(look(whole(2, 2, 2)), "well");
        let mut over = whole(1, 2, 2);
        over["conditions"] = json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
        assert_eq!(look(over.clone()), "ill", "it was well once");
        over["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(look(over), "failed");
    }

    #[test]
    fn other_workloads_are_well_when_what_they_want_is_ready() {
        let set = |ready: i64| {
            json!({"metadata": {"generation": 1}, "spec": {"replicas": 2},
                   "status": {"observedGeneration": 1, "updatedReplicas": 2, "readyReplicas": ready}})
        };
        assert_eq!(look("apps", "StatefulSet", &set(1)), "starting");
        assert_eq!(look("apps", "StatefulSet", &set(2)), "well");
        let daemon = |ready: i64| {
            json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 2,
                   "updatedNumberScheduled": 2, "numberReady": ready, "numberAvailable": ready}})
        };
        assert_eq!(look("apps", "DaemonSet", &daemon(1)), "starting");
        assert_eq!(look("apps", "DaemonSet", &daemon(2)), "well");
        assert_eq!(look("batch", "Job", &with("Failed", "True")), "failed");
        assert_eq!(look("batch", "Job", &with("Complete", "True")), "well");
        assert_eq!(look("batch", "Job", &json!({"status": {"startTime": "t", "failed": 1}})), "ill");
    }

    #[test]
    fn pods_claims_services_and_definitions_tell_by_their_phase_or_conditions() {
        assert_eq!(look("", "Pod", &with("Ready", "True")), "well");
        assert_eq!(look("", "Pod", &with("PodScheduled", "False")), "ill");
        assert_eq!(look("", "Pod", &json!({"status": {"phase": "Failed"}})), "failed");
        assert_eq!(look("", "PersistentVolumeClaim", &json!({"status": {"phase": "Pending"}})), "starting");
        assert_eq!(look("", "PersistentVolumeClaim", &json!({"status": {"phase": "Lost"}})), "failed");
        let balanced = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(look("", "Service", &balanced), "starting");
        assert_eq!(look("", "Service", &json!({})), "well");
        let group = "apiextensions.k8s.io";
        assert_eq!(look(group, "CustomResourceDefinition", &json!({})), "starting");
        assert_eq!(look(group, "CustomResourceDefinition", &with("Established", "True")), "well");
        assert_eq!(look(group, "CustomResourceDefinition", &with("NamesAccepted", "False")), "failed");
    }

    #[test]
    fn anything_else_is_well_unless_its_conditions_say_otherwise() {
        assert_eq!(look("example.org", "Widget", &json!({})), "well");
        assert_eq!(look("example.org", "Widget", &with("Ready", "False")), "ill");
        assert_eq!(look("example.org", "Widget", &with("Reconciling", "True")), "starting");
        assert_eq!(look("example.org", "Widget", &with("Stalled", "True")), "failed");
        let behind = json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 2}});
        assert_eq!(look("example.org", "Widget", &behind), "starting");
        let leaving = json!({"metadata": {"deletionTimestamp": "t"}});
        assert_eq!(look("example.org", "Widget", &leaving), "ill");
    }
}
