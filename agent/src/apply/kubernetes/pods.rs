//! Why a workload is not well, as its pods tell it: what keeps a container from running, and its last lines.

use serde_json::Value;

use super::{
    client::encode,
    cluster::Cluster,
    objects::{Key, at, items, number, text},
};

/// How much is told in all, in bytes.
pub(crate) const TOLD_BYTES: usize = 16 * 1024;
/// How much of one container's log is read, in bytes.
const LOG_BYTES: usize = 4 * 1024;
/// Of how many containers the log is read.
const LOGS: usize = 3;
/// How many pods of a workload are looked at.
const PODS: usize = 20;
/// What does not pass by waiting for a moment.
const TROUBLE: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Returns what the pods of a workload that is not well say, if they say anything. That they cannot be looked at is no
/// failure: the host's owner need not allow it.
pub(crate) async fn explain(cluster: &Cluster, key: &Key, live: &Value) -> Option<String> {
    let pods = match (key.group.as_str(), key.kind.as_str()) {
        ("", "Pod") => vec![live.clone()],
        ("apps" | "batch" | "extensions", _) => {
            let labels = at(live, &["spec", "selector", "matchLabels"])?.as_object()?;
            let selector: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}={}", value.as_str().unwrap_or_default())).collect();
            let query = encode(&selector.join(","));
            let path = format!("/api/v1/namespaces/{}/pods?limit={PODS}&labelSelector={query}", encode(&key.namespace));
            let mut list = cluster.client.get(&path).await.ok()?;
            match list.get_mut("items").map(Value::take) {
                Some(Value::Array(pods)) => pods,
                _ => return None,
            }
        }
        _ => return None,
    };
    let mut told = String::new();
    let mut logs = 0;
    for pod in &pods {
        for trouble in troubles(pod) {
            let name = text(pod, &["metadata", "name"]);
            told.push_str(&format!("pod {name}: {}\n", trouble.what));
            if trouble.has_log && logs < LOGS {
                logs += 1;
                let previous = if trouble.restarts > 0 { "&previous=true" } else { "" };
                let path = format!(
                    "/api/v1/namespaces/{}/pods/{}/log?container={}&tailLines=20&limitBytes={LOG_BYTES}{previous}",
                    encode(&key.namespace),
                    encode(name),
                    encode(&trouble.container)
                );
                let log = cluster.client.text(&path, LOG_BYTES + 1024).await.unwrap_or_default();
                log.lines().for_each(|line| told.push_str(&format!("    {line}\n")));
            }
        }
    }
    let end = told.trim_end().len().min(TOLD_BYTES);
    told.truncate((0..=end).rev().find(|end| told.is_char_boundary(*end)).unwrap_or_default());
    (!told.is_empty()).then_some(told)
}

struct Trouble {
    what: String,
    container: String,
    restarts: i64,
    has_log: bool,
}

fn troubles(pod: &Value) -> Vec<Trouble> {
    let scheduled = items(pod, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "PodScheduled");
    if let Some(refused) = scheduled.filter(|scheduled| text(scheduled, &["status"]) == "False") {
        let what = format!("{}: {}", text(refused, &["reason"]), text(refused, &["message"]));
        return vec![Trouble { what, container: String::new(), restarts: 0, has_log: false }];
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    lists.iter().flat_map(|list| items(pod, &["status", list])).filter_map(trouble).collect()
}

fn trouble(status: &Value) -> Option<Trouble> {
    let container = text(status, &["name"]).to_owned();
    let restarts = number(status, &["restartCount"]).unwrap_or_default();
    let waiting = text(status, &["state", "waiting", "reason"]);
    let ended = number(status, &["state", "terminated", "exitCode"]).filter(|code| *code != 0);
    let before = number(status, &["lastState", "terminated", "exitCode"]);
    let said = |reason: &str, message: &str| match message {
        "" => format!("container {container}: {reason}"),
        message => format!("container {container}: {reason}: {message}"),
    };
    let what = if TROUBLE.contains(&waiting) {
        let code = before.map_or_else(String::new, |code| format!(" (it ended with {code} before)"));
        said(waiting, text(status, &["state", "waiting", "message"])) + &code
    } else if let Some(code) = ended {
        said(&format!("ended with {code}"), text(status, &["state", "terminated", "message"]))
    } else {
        return None;
    };
    let has_log = ended.is_some() || before.is_some();
    Some(Trouble { what, container, restarts, has_log })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_that_cannot_run_say_why() {
        let pod = |state: Value| json!({"status": {"containerStatuses": [{"name": "app", "state": state}]}});
        let pull = pod(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        assert_eq!(troubles(&pull)[0].what, "container app: ImagePullBackOff: no such image");
        assert!(!troubles(&pull)[0].has_log);
        assert!(troubles(&pod(json!({"waiting": {"reason": "ContainerCreating"}}))).is_empty());
        assert!(troubles(&pod(json!({"terminated": {"exitCode": 0}}))).is_empty());
        assert!(troubles(&pod(json!({"terminated": {"exitCode": 3}})))[0].has_log);
    }
}
