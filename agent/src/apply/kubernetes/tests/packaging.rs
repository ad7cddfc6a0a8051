//! The manifest that runs the agent in a cluster.

use serde_json::{Value, json};

use crate::{apply::kubernetes::manifests::documents, config::Settings};

const MANIFEST: &str = include_str!("../../../../packaging/kubernetes.yaml");

fn objects() -> Vec<Value> {
    documents("kubernetes.yaml", MANIFEST).expect("YAML")
}

fn settings(objects: &[Value]) -> Settings {
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("config");
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, config["data"]["agent.yaml"].as_str().expect("text")).expect("file");
    Settings::load(Some(&file), None, |_| None).expect("settings")
}

fn texts<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    rule[key].as_array().expect(key).iter().filter_map(Value::as_str).collect()
}

#[test]
fn its_roles_name_every_verb_and_resource_and_none_that_gives_more_rights() {
    let objects = objects();
    let roles: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "ClusterRole").collect();
    assert_eq!(roles.len(), 1);
    for rule in roles[0]["rules"].as_array().expect("rules") {
        let (verbs, resources) = (texts(rule, "verbs"), texts(rule, "resources"));
        let allowed = ["create", "delete", "get", "list", "patch", "watch"];
        assert!(verbs.iter().all(|verb| allowed.contains(verb)), "{rule}");
        let none =
            ["*", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "nodes", "namespaces", "pods/exec"];
        assert!(resources.iter().all(|resource| !none.contains(resource)), "{rule}");
        assert!(!texts(rule, "apiGroups").contains(&"*"), "{rule}");
        if resources.iter().any(|resource| resource.starts_with("pods")) {
            assert!(
                verbs.iter().all(|verb| ["get", "list"].contains(verb)),
                "pods are looked at and nothing else: {rule}"
            );
        }
    }
    assert!(
        !objects.iter().any(|object| object["kind"] == "ClusterRoleBinding"),
        "it holds in namespaces that bind it"
    );
}

#[test]
fn its_pods_are_hardened_and_its_configuration_is_one() {
    let objects = objects();
    let pods = objects.iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "Job");
    for pod in pods.map(|object| &object["spec"]["template"]["spec"]) {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0];
        let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
        assert_eq!(container["securityContext"], expected);
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
    let kubernetes = settings(&objects).appliers.kubernetes.expect("allowed");
    assert_eq!((kubernetes.namespaces.as_slice(), kubernetes.cluster_scoped), (&["apps".to_owned()][..], false));
    let bound: Vec<&str> = objects
        .iter()
        .filter(|object| object["kind"] == "RoleBinding")
        .filter_map(|b| b["metadata"]["namespace"].as_str())
        .collect();
    assert_eq!(bound, ["apps"], "one binding for each namespace that is allowed");
}

#[test]
fn its_volume_holds_all_that_it_may_keep() {
    let objects = objects();
    let claim = objects.iter().find(|object| object["kind"] == "PersistentVolumeClaim").expect("claim");
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(|size| size.strip_suffix("Mi"));
    let size: u64 = size.and_then(|size| size.parse().ok()).expect("a size in MiB");
    let settings = settings(&objects);
    // The rest is for the file system itself, and for what the limit does not keep out.
    let most = size * 1024 * 1024 / 4 * 3;
    assert!(settings.limits.state_bytes <= most, "{} of {most} bytes", settings.limits.state_bytes);
    let (state, root) = (&settings.state_dir, settings.files.map(|files| files.root).unwrap_or_default());
    let repository = settings.git.map(|git| git.repository).unwrap_or_default();
    assert!(root.starts_with(state) && repository.starts_with(state), "all of it is on the volume");
}
