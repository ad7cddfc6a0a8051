//! Documents: what they claim, and what is refused.

use super::*;

fn read(files: &[(&str, &str)], allowed: &Allowed) -> Result<Kube, ApplyError> {
    Kube::read(&bundle(files), allowed, false)
}

fn with(spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: web }}\nspec:\n  {spec}\n  containers:\n  - name: main\n    \
         image: quay.io/team/app:1\n    {container}\n"
    )
}

#[test]
fn whatever_goes_beyond_what_the_owner_allows_is_refused_with_the_key_that_would_allow_it() {
    let allowed = Allowed {
        names: vec!["web*".to_owned()],
        registries: vec!["quay.io/team".to_owned()],
        mounts: vec!["/srv".into()],
        ..Allowed::default()
    };
    let volume = |source: &str| with(&format!("volumes: [{{ name: v, {source} }}]"), "");
    for (yaml, key) in [
        (with("hostNetwork: true", ""), "privileged"),
        (with("hostPID: true", ""), "privileged"),
        (with("hostIPC: true", ""), "privileged"),
        (with("securityContext: { sysctls: [{ name: a, value: b }] }", ""), "privileged"),
        (with("securityContext: { seLinuxOptions: { type: spc_t } }", ""), "privileged"),
        (with("securityContext: { seccompProfile: { type: Unconfined } }", ""), "privileged"),
        (with("", "securityContext: { privileged: true }"), "privileged"),
        (with("", "securityContext: { capabilities: { add: [SYS_ADMIN] } }"), "privileged"),
        (with("", "volumeDevices: [{ name: x, devicePath: /dev/sda }]"), "privileged"),
        (with("", "resources: { limits: { podman.io/device: /dev/kmsg } }"), "privileged"),
        (with("", "volumeMounts: [{ name: v, mountPath: /x, mountPropagation: Bidirectional }]"), "privileged"),
        (
            with("", "")
                .replace("name: web }", "name: web, annotations: { io.podman.annotations.privileged: 'TRUE' } }"),
            "privileged",
        ),
        (with("", "").replace("name: web }", "name: web, annotations: { run.oci.hooks: x } }"), "privileged"),
        (volume("hostPath: { path: /etc }"), "mounts"),
        (volume("hostPath: { path: /srv/../etc }"), "mounts"),
        (volume("hostPath: { path: ../two }"), "mounts"),
        (volume("hostPath: { path: /srv/x, type: BlockDevice }"), "privileged"),
        (with("", "").replace("name: web", "name: db"), "names"),
        (with("", "").replace("quay.io/team", "quay.io/others"), "registries"),
        ("kind: PersistentVolumeClaim\nmetadata: { name: data }".to_owned(), "names"),
    ] {
        let error = read(&[("pod.yaml", &yaml)], &allowed).expect_err(&yaml);
        let wanted = format!("appliers.podman.{key}");
        assert!(matches!(&error, ApplyError::Beyond { key, .. } if *key == wanted), "{yaml}: {error}");
    }
    for yaml in [
        with("", ""),
        with("hostNetwork: false", ""),
        volume("hostPath: { path: /srv/x }"),
        volume("hostPath: { path: ./x }"),
    ] {
        read(&[("pod.yaml", &yaml)], &allowed).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    }
    let privileged = Allowed { privileged: true, ..Allowed::default() };
    read(&[("pod.yaml", &with("hostNetwork: true", "securityContext: { privileged: true }"))], &privileged)
        .expect("allowed");
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let allowed = Allowed { privileged: true, ..Allowed::default() };
    let volume = |source: &str| with(&format!("volumes: [{{ name: v, {source} }}]"), "");
    let fine = with("", "");
    for (yaml, sign) in [
        // Podman would read these as the keys that they look like.
        (with("hostnetwork: true", ""), "spec.hostnetwork"),
        (with("", "securitycontext: {}"), "containers[0].securitycontext"),
        (with("", "env: [{ name: A, valuefrom: { secretKeyRef: { name: host, key: x } } }]"), "valuefrom"),
        (with("", "env: [{ name: A, valueFrom: { secretKeyRef: { name: host, key: x } } }]"), "not in the bundle"),
        (with("", "envFrom: [{ configMapRef: { name: host } }]"), "not in the bundle"),
        (with("", "env: [{ name: A, value: 1 }]"), "quotes"),
        (volume("secret: { secretName: host }"), "not in the bundle"),
        (volume("persistentVolumeClaim: { claimName: others }"), "no PersistentVolumeClaim"),
        (volume("nfs: { server: x, path: / }"), "volumes[0].nfs"),
        (volume("emptyDir: {}, hostPath: { path: /srv }"), "one source"),
        (with("", "volumeMounts: [{ name: v, mountPath: /x, subPath: ../y }]"), "subPath"),
        (with("", "").replace("name: main", "name: MAIN"), "small letters"),
        (with("", "").replace("name: web", "name: ../web"), "small letters"),
        (with("", "").replace("quay.io/team/app:1", "app"), "registry"),
        ("apiVersion: batch/v1\nkind: CronJob\nmetadata: { name: x }".to_owned(), "CronJob x"),
        ("kind: Deployment\nmetadata: { name: x }\nspec: { replicas: 3 }".to_owned(), "replicas"),
        ("kind: Deployment\nmetadata: { name: x }\nspec: {}".to_owned(), "spec.template"),
        ("kind: Pod\nmetadata: { name: x }\nspec: { containers: [] }".to_owned(), "no containers"),
        ("kind: Pod".to_owned(), "metadata.name"),
        ("- a list".to_owned(), "not a mapping"),
        ("a: [".to_owned(), "document 1"),
        (format!("{fine}---\n{fine}"), "two pods"),
        ("kind: Secret\nmetadata: { name: x }\ndata: { a: '***' }".to_owned(), "base64"),
        ("kind: ConfigMap\nmetadata: { name: x }\ndata: { a: 1 }".to_owned(), "texts"),
        (
            "kind: ConfigMap\nmetadata: { name: x }\n---\nkind: PersistentVolumeClaim\nmetadata: { name: x }"
                .to_owned(),
            "used twice",
        ),
        ("kind: A\nmetadata: { name: x }\n---\n".repeat(2), "kind"),
        ("kind: ConfigMap\nmetadata: { name: x, a: &a [b] }\n---\n".to_owned() + &"x: 1\n".repeat(300_000), "bytes"),
    ] {
        let error = read(&[("pod.yaml", &yaml)], &allowed).expect_err(sign).to_string();
        let short: String = yaml.chars().take(300).collect();
        assert!(error.contains(sign) && error.contains("pod.yaml"), "{short}: {error}");
    }
    let many: String = (0..=256).map(|i| format!("---\nkind: ConfigMap\nmetadata: {{ name: c{i} }}\n")).collect();
    assert!(read(&[("pod.yaml", &many)], &allowed).expect_err("many").to_string().contains("256"));
}

#[test]
fn claims_are_of_pods_and_volumes_and_change_with_what_they_are_made_from() {
    let allowed = Allowed::default();
    let conf = |text: &str| format!("---\nkind: ConfigMap\nmetadata: {{ name: conf }}\ndata: {{ a: {text} }}\n");
    let one = with("volumes: [{ name: v, configMap: { name: conf } }, { name: h, hostPath: { path: etc } }]", "");
    let two = "---\nkind: Deployment\nmetadata: { name: db }\nspec: { template: { spec: { containers: [{ name: a, image: quay.io/x/y }] } } }\n";
    let claims = |conf_text: &str, file: &str| {
        let yaml = format!("{one}{}{two}", conf(conf_text));
        let files =
            [("pods.yml", yaml.as_str()), ("etc/x", file), ("other", file), ("deep/pod.yaml", "not: looked at")];
        read(&files, &allowed).expect("kube").claims()
    };
    let first = claims("one", "x");
    let names: Vec<_> = first.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["pod:db-pod", "pod:web", "volume:conf"]);
    assert_eq!(first, claims("one", "x"));
    let changed = |next: &Claims| {
        let changed = next.iter().filter(|(claim, digest)| first.get(*claim) != Some(*digest));
        changed.map(|(claim, _)| claim.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(changed(&claims("two", "x")), ["pod:web", "volume:conf"]);
    assert_eq!(changed(&claims("one", "y")), ["pod:web"], "a file that it mounts");
}

#[test]
fn podman_gets_what_was_looked_at_and_nothing_to_pull() {
    let yaml = with(
        "volumes: [{ name: v, hostPath: { path: data } }, { name: c, secret: { secretName: key, defaultMode: 0640 } }]",
        "env: [{ name: A, value: no }, { name: B, valueFrom: { secretKeyRef: { name: key, key: k } } }]",
    ) + "---\nkind: Secret\nmetadata: { name: key }\ndata: { k: aHVzaA== }\n";
    let kube = read(&[("pod.yaml", &yaml)], &Allowed::default()).expect("kube");
    let labels = BTreeMap::from([("titan.home".to_owned(), "default/one".to_owned())]);
    let text = kube.pods[0].play(&labels, std::path::Path::new("/home/of"), |_| "abc".to_owned());
    let documents: Vec<Value> = text.split("---\n").map(|part| serde_json::from_str(part).expect("JSON")).collect();
    assert_eq!(documents[0]["data"]["k"], "hush");
    let pod = &documents[1];
    assert_eq!(pod["metadata"]["labels"]["titan.home"], "default/one");
    let container = &pod["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["imagePullPolicy"]), (&"abc".into(), &"Never".into()));
    assert_eq!(container["env"][0]["value"], "no", "YAML 1.2: a text");
    assert_eq!(container["env"][1]["valueFrom"]["configMapKeyRef"]["name"], "key");
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(volumes[0]["hostPath"]["path"], "/home/of/data");
    assert_eq!(
        (&volumes[1]["configMap"]["name"], &volumes[1]["configMap"]["defaultMode"]),
        (&"key".into(), &0o640.into())
    );
}
