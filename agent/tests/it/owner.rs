//! What the owner of a host has set goes, whatever the control plane says: it is refused, reported with the key that would
//! allow it, and nothing is written.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    host::{Host, map},
    plane::Plane,
};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Returns a day of the week that is neither today nor next to it; day 0 of Unix was a Thursday.
fn another_day() -> &'static str {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    DAYS[usize::try_from((days + 3) % 7).unwrap()]
}

#[test]
fn windows_of_the_owner_hold_changes_until_they_open() {
    let plane = Plane::start();
    let host = Host::with(&plane, "windows: ['* 00:00-24:00']\n");
    plane.deploy("one", &[("a", "1\n")]);
    host.settle();
    let shut = format!("windows: ['{} 00:00-01:00']\n", another_day());
    host.configure(&shut);
    fs::write(host.home("one").join("a"), "by hand\n").unwrap();
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "1\n")]), "what is declared already is kept so");
    plane.deploy("one", &[("a", "2\n")]);
    plane.deploy("two", &[("b", "1\n")]);
    host.once();
    assert_eq!((host.files_of("one"), host.files_of("two")), (map(&[("a", "1\n")]), map(&[])));
    for name in ["one", "two"] {
        let report = plane.reported(name);
        assert_eq!(report["phase"], "pending", "{report}");
        assert!(report["message"].as_str().is_some_and(|why| why.contains("window")), "{report}");
    }
    host.configure("windows: ['* 00:00-24:00']\n");
    host.settle();
    assert_eq!((host.files_of("one"), host.files_of("two")), (map(&[("a", "2\n")]), map(&[("b", "1\n")])));
}

fn bundle(applier: &str, files: &[(&str, &str)], more: &Value) -> Value {
    let file = |(path, content): &(&str, &str)| json!({"path": path, "mode": "0644", "content": content});
    let mut bundle = json!({"applier": applier, "files": files.iter().map(file).collect::<Vec<_>>()});
    bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bundle
}

fn pod(name: &str, spec: &str) -> String {
    const IMAGE: &str = "quay.io/team/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  containers:\n  - name: main\n    image: {IMAGE}\n{spec}"
    )
}

const KUBECONFIG: &str = r#"{
    "current-context": "a",
    "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a" } }],
    "clusters": [{ "name": "a", "cluster": { "server": "http://127.0.0.1:9" } }],
    "users": [{ "name": "a", "user": {} }]
}"#;

fn service(keys: &str) -> String {
    format!("services:\n  web:\n    image: quay.io/team/app:1\n    {keys}\n")
}

#[test]
fn whatever_goes_beyond_is_refused_and_reported_with_the_key_that_would_allow_it() {
    let none = json!({});
    let unit = [("other.service", "[Service]\nExecStart=/bin/true\n")];
    let hook = json!({ "hooks": { "preApply": { "command": ["/bin/true"] } } });
    let probe = json!({ "health": { "probes": [{ "exec": { "command": ["/bin/true"] } }] } });
    let podman = "podman: { names: ['app-*'], registries: [quay.io/team], mounts: [/srv] }";
    let compose = "compose: { projects: ['*'], registries: [quay.io/team], mounts: [/srv] }";
    // Nobody is there; nobody is asked.
    let directory = tempfile::tempdir().unwrap();
    let access = directory.path().join("kubeconfig");
    fs::write(&access, KUBECONFIG).unwrap();
    let access = format!("kubeconfig: {}", access.display());
    let cluster = format!("kubernetes: {{ {access}, namespaces: ['team-*'], kinds: [ConfigMap] }}");
    let cluster = cluster.as_str();
    let narrow = format!("kubernetes: {{ {access} }}");
    let map_in = |namespace: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: a, namespace: {namespace} }}\ndata: {{ a: b }}\n")
    };
    let secret = map_in("team-a").replace("ConfigMap", "Secret");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: { name: team-a }\n";
    let host_path = "  volumes: [{ name: etc, hostPath: { path: /etc } }]\n";
    let elsewhere = pod("app-a", "").replace("quay.io/team", "elsewhere.example");
    let shared = pod("app-a", "  hostNetwork: true\n");
    let cases = [
        ("", bundle("systemd", &unit, &none), "systemd"),
        ("systemd: { units: ['app-*.service'] }", bundle("systemd", &unit, &none), "appliers.systemd.units"),
        (podman, bundle("podman", &[("pod.yaml", &pod("other", ""))], &none), "appliers.podman.names"),
        (podman, bundle("podman", &[("pod.yaml", &elsewhere)], &none), "appliers.podman.registries"),
        (podman, bundle("podman", &[("pod.yaml", &pod("app-a", host_path))], &none), "appliers.podman.mounts"),
        (podman, bundle("podman", &[("pod.yaml", &shared)], &none), "appliers.podman.privileged"),
        (
            "compose: { projects: ['app-*'] }",
            bundle("compose", &[("compose.yaml", &service(""))], &none),
            "appliers.compose.projects",
        ),
        (
            compose,
            bundle("compose", &[("compose.yaml", &service("").replace("quay.io/team", "x.example"))], &none),
            "appliers.compose.registries",
        ),
        (
            compose,
            bundle("compose", &[("compose.yaml", &service("volumes: ['/etc:/etc']"))], &none),
            "appliers.compose.mounts",
        ),
        (
            compose,
            bundle("compose", &[("compose.yaml", &service("privileged: true"))], &none),
            "appliers.compose.privileged",
        ),
        (cluster, bundle("kubernetes", &[("a.yaml", &map_in("shop"))], &none), "appliers.kubernetes.namespaces"),
        (cluster, bundle("kubernetes", &[("a.yaml", &secret)], &none), "appliers.kubernetes.kinds"),
        (&narrow, bundle("kubernetes", &[("a.yaml", namespace)], &none), "appliers.kubernetes.clusterScoped"),
        ("", bundle("files", &[("a", "1")], &hook), "appliers.exec"),
        ("exec: { hooks: [onRemove] }", bundle("files", &[("a", "1")], &hook), "appliers.exec.hooks"),
        (
            "exec: { hooks: [preApply], commands: [/usr/bin/systemctl] }",
            bundle("files", &[("a", "1")], &hook),
            "appliers.exec.commands",
        ),
        ("exec: { probes: false }", bundle("files", &[("a", "1")], &probe), "appliers.exec.probes"),
    ];
    for (allowed, bundle, key) in cases {
        let plane = Plane::start();
        let allowed = if allowed.is_empty() { String::new() } else { format!(", {allowed}") };
        let host = Host::with(&plane, &format!("appliers: {{ files: {{}}{allowed} }}\n"));
        plane.deploy_with("one", &[], |row| row.bundle = Some(bundle.to_string()));
        let ended = host.once();
        assert_eq!(ended.code, Some(1), "{key}: {ended:?}");
        let report = plane.reported("one");
        let told = report["message"].as_str().unwrap_or_default();
        assert!(report["phase"] == "failed" && told.contains(key), "{key}: {report}");
        assert_eq!((host.files_of("one"), host.ledger().entries.len()), (map(&[]), 0), "{key}");
    }
}
