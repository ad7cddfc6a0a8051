//! What is refused, without an engine.

mod real;

use super::*;
use crate::apply::podman::tests::{bundle, target};

fn read(files: &[(&str, &str)], allowed: &Allowed) -> Result<Project, ApplyError> {
    Project::read(&bundle(files), allowed)
}

fn service(keys: &str) -> String {
    format!("services:\n  web:\n    image: quay.io/team/app:1\n    {keys}\nvolumes: {{ data: {{}} }}\n")
}

#[test]
fn whatever_goes_beyond_what_the_owner_allows_is_refused_with_the_key_that_would_allow_it() {
    let registries = vec!["quay.io/team".to_owned()];
    let allowed = Allowed { registries, mounts: vec!["/srv".into()], ..Allowed::default() };
    for (yaml, key) in [
        (service("privileged: true"), "privileged"),
        (service("network_mode: host"), "privileged"),
        (service("network_mode: container:other"), "privileged"),
        (service("pid: host"), "privileged"),
        (service("ipc: host"), "privileged"),
        (service("userns_mode: host"), "privileged"),
        (service("devices: [/dev/sda]"), "privileged"),
        (service("cap_add: [SYS_ADMIN]"), "privileged"),
        (service("security_opt: [seccomp=unconfined]"), "privileged"),
        (service("logging: { driver: k8s-file, options: { path: /etc/cron.d/x } }"), "privileged"),
        (service("deploy: { resources: { reservations: { devices: [{ capabilities: [gpu] }] } } }"), "privileged"),
        (service("volumes: [/etc:/etc]"), "mounts"),
        (service("volumes: [../two:/x]"), "mounts"),
        (service("volumes: [{ type: bind, source: /var/run/docker.sock, target: /s }]"), "mounts"),
        (service("volumes: [{ type: bind, source: /srv/x, target: /s, bind: { propagation: shared } }]"), "privileged"),
        (service("") + "secrets: { s: { file: /etc/shadow } }", "mounts"),
        (service("").replace("data: {}", "data: { driver_opts: { device: /etc, o: bind } }"), "privileged"),
        (service("") + "networks: { n: { driver: host } }", "privileged"),
        (service("").replace("quay.io/team", "quay.io/others"), "registries"),
    ] {
        let error = read(&[("compose.yaml", &yaml)], &allowed).expect_err(&yaml);
        let wanted = format!("appliers.compose.{key}");
        assert!(matches!(&error, ApplyError::Beyond { key, .. } if *key == wanted), "{yaml}: {error}");
    }
    for yaml in [
        service("volumes: [./conf:/conf:ro, data:/data, /srv/x:/x, /anonymous]"),
        service("privileged: false"),
        service("network_mode: none"),
        service("command: [echo, '$$5']"),
    ] {
        read(&[("compose.yaml", &yaml)], &allowed).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let allowed = Allowed { privileged: true, ..Allowed::default() };
    for (yaml, sign) in [
        (service("build: ."), "services.web.build"),
        (service("extends: { file: other.yaml, service: x }"), "services.web.extends"),
        ("include: [other.yaml]\n".to_owned() + &service(""), "include"),
        (service("container_name: sshd"), "container_name"),
        (service("surprise: 1"), "services.web.surprise"),
        (service("environment: { A: '${SECRET}' }"), "variable"),
        (service("volumes: ['$HOME:/x']"), "variable"),
        (service("env_file: /etc/environment"), "not in the bundle"),
        (service("environment: [PATH]"), "key=value"),
        (service("volumes: [others:/x]"), "not among"),
        (service("volumes: [~/x:/x]"), "home directory"),
        (service("volumes: ['a:b:c:d']"), "source:target"),
        (service("volumes: [./x:/x:shared]"), "long form"),
        (service("labels: { titan.deployment: x }"), "titan.deployment"),
        (service("") + "volumes: 1\n", "compose.yaml"),
        (service("").replace("data: {}", "data: { external: true }"), "volumes.data.external"),
        (service("").replace("image: quay.io/team/app:1", "command: x"), "no image"),
        ("services: {}".to_owned(), "at least one"),
        ("- x".to_owned(), "not a mapping"),
        ("a: [".to_owned(), "compose.yaml"),
    ] {
        let error = read(&[("compose.yaml", &yaml)], &allowed).expect_err(sign).to_string();
        assert!(error.contains(sign), "{yaml}: {error}");
    }
    assert!(read(&[("pod.yaml", "")], &allowed).expect_err("none").to_string().contains("compose.yaml"));
    let two = [("compose.yaml", "services: {}"), ("docker-compose.yml", "services: {}")];
    assert!(read(&two, &allowed).expect_err("two").to_string().contains("second file"));
}

#[test]
fn compose_is_given_nothing_to_look_up() {
    let yaml = service("volumes: [./conf:/conf:ro, data:/data]\n    env_file: app.env\n    environment: { B: own }");
    let files = [("compose.yaml", yaml.as_str()), ("app.env", "# first\nA=$5\nB=file\n"), ("conf/x", "1")];
    let project = read(&files, &Allowed::default()).expect("project");
    let text = project.document(Path::new("/home/of"), |_| vec![("titan.home".to_owned(), "default/one".to_owned())]);
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let web = &document["services"]["web"];
    assert_eq!(web["volumes"][0]["source"], "/home/of/conf");
    assert_eq!(web["environment"], serde_json::json!({ "A": "$$5", "B": "own" }));
    assert_eq!(web["labels"]["titan.home"], "default/one");
    assert_eq!(web["pull_policy"], "never");
    // A service changes with the files that it mounts, and with no others.
    let digest = |files: &[(&str, &str)]| read(files, &Allowed::default()).expect("project").services["web"].digest;
    let changed = |path: &str, content: &'static str| {
        let mut files = files;
        files.iter_mut().filter(|file| file.0 == path).for_each(|file| file.1 = content);
        digest(&files)
            != digest(&[("compose.yaml", yaml.as_str()), ("app.env", "# first\nA=$5\nB=file\n"), ("conf/x", "1")])
    };
    assert!(changed("conf/x", "2") && changed("app.env", "A=6\n") && !changed("app.env", "A=$5\n#\nB=file"));
}
