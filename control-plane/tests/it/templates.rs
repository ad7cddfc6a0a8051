//! The ready-made templates, rendered as they are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use titan_api::{
    poll::Bundle,
    templates::{TemplateFile, TemplateSpec},
    values::Values,
};
use titan_control_plane::render::{Job, Layers, Renderer, RendererConfig, Template, WorkerCommand, merge};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates")
}

fn read(directory: &Path, prefix: &str, files: &mut BTreeMap<String, TemplateFile>) {
    for entry in std::fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry")) {
        let path = format!("{prefix}{}", entry.file_name().to_str().expect("name"));
        if entry.file_type().expect("type").is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path, TemplateFile::of(std::fs::read(entry.path()).expect("file"), false));
        }
    }
}

fn template(name: &str) -> Arc<Template> {
    let mut files = BTreeMap::new();
    read(&directory().join(name), "", &mut files);
    Arc::new(Template::parse(&TemplateSpec { files }).unwrap_or_else(|problem| panic!("{name}: {problem:#?}")))
}

/// Renders as the founding document's deployment `prod` of `temperature-sensor` does.
async fn bundle(name: &str, values: Value) -> Bundle {
    let Value::Object(own) = values else { panic!("values are a map") };
    let template = template(name);
    let defaults = template.manifest().values.clone();
    let values: Values = merge(&Layers { template: Some(&defaults), deployment: Some(&own), ..Layers::default() });
    let context = json!({
        "host": {"name": "tim-pi", "labels": {"name": "tim-pi", "platform": "kubernetes"}, "facts": {}},
        "workspace": {"name": "default", "config": {}},
        "workload": {"name": "temperature-sensor", "repository": "https://github.com/timfpark/temp-sensor", "version": null, "labels": {}},
        "deployment": {"name": "prod", "labels": {}},
        "release": {"name": "prod#1", "number": 1},
        "values": values,
    });
    let program = env!("CARGO_BIN_EXE_titan-control-plane").into();
    let worker = WorkerCommand { program, args: vec!["render-worker".into()] };
    let renderer = Renderer::new(RendererConfig::new(worker));
    let result = renderer.render(vec![Job { template, context: Arc::new(context), overlay: None }]).await.remove(0);
    serde_json::from_slice(&result.unwrap_or_else(|problem| panic!("{name}: {problem:#?}")).body).expect("bundle")
}

fn page(bundle: &Bundle) -> String {
    let file = |file: &titan_api::poll::BundleFile| {
        let mode = String::from(file.mode);
        let bytes = file.bytes().expect("content").len();
        let text = file.content.clone().unwrap_or_else(|| format!("({bytes} bytes)\n"));
        format!("==> {} {mode}\n{text}", file.path)
    };
    bundle.files.iter().map(file).collect()
}

fn documents(bundle: &Bundle) -> Vec<Value> {
    let texts = bundle.files.iter().filter_map(|file| file.content.as_deref());
    let documents = texts.flat_map(|text| text.split("---\n"));
    let values =
        documents.map(|text| serde_yaml::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}")));
    values.filter(|value| !value.is_null()).collect()
}

#[tokio::test]
async fn device_service_needs_no_values() {
    insta::assert_snapshot!(page(&bundle("device-service", json!({})).await));
}

#[tokio::test]
async fn device_service_takes_all_its_values() {
    let values = json!({"name": "probe", "description": "100% probe", "exec": "/opt/probe", "arguments": ["--cost", "5$ \"net\""],
        "user": "probe", "interval": "5min", "environment": {"LEVEL": "a \"b\" \\ c", "PORT": 80, "ON": true}});
    insta::assert_snapshot!(page(&bundle("device-service", values).await));
}

#[tokio::test]
async fn kubernetes_service_needs_no_values() {
    let bundle = bundle("kubernetes-service", json!({})).await;
    let documents = documents(&bundle);
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0]["spec"]["template"]["spec"]["containers"][0]["image"], "temperature-sensor:latest");
    insta::assert_snapshot!(page(&bundle));
}

#[tokio::test]
async fn kubernetes_service_takes_all_its_values() {
    let values = json!({"name": "no", "namespace": "on", "image": "registry:5000/a/b:1", "replicas": 3, "healthPath": "/healthz",
        "environment": {"A": "no", "B": 12, "C": "12:30", "D": "x\ny\n"}, "files": {"app.conf": "[a]\nb = c\n\nd\n", "on": "off"}});
    let bundle = bundle("kubernetes-service", values).await;
    let documents = documents(&bundle);
    assert_eq!(documents.len(), 4);
    let data: Vec<_> = documents.iter().filter_map(|document| document.get("data")).collect();
    assert_eq!(data[0], &json!({"A": "no", "B": "12", "C": "12:30", "D": "x\ny\n"}));
    assert_eq!(data[1], &json!({"app.conf": "[a]\nb = c\n\nd\n", "on": "off"}));
    insta::assert_snapshot!(page(&bundle));
}

#[tokio::test]
async fn static_site_needs_no_values() {
    insta::assert_snapshot!(page(&bundle("static-site", json!({})).await));
}

#[tokio::test]
async fn systemd_service_takes_all_its_values() {
    let values = json!({"name": "probe", "exec": "/opt/probe", "arguments": ["--cost", "5$ \"net\""], "user": "probe",
        "config": {"level": "a"}, "environment": {"LEVEL": "50% \"b\" $c", "ON": true}, "address": "127.0.0.1:80",
        "healthUrl": "http://127.0.0.1/", "minReadySeconds": 1, "deadline": "30s"});
    let bundle = bundle("systemd-service", values).await;
    let paths: Vec<_> = bundle.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "probe.service"]);
    let unit = bundle.files[1].content.as_deref().expect("text");
    for line in [
        r#"ExecStart=/opt/probe "--cost" "5$$ \"net\"""#,
        r#"Environment="TITAN_CONFIG=/srv/titan/default/prod/config.json""#,
        r#"Environment="LEVEL=50%% \"b\" $c""#,
        r#"Environment="ON=true""#,
        "User=probe",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
    }
    assert_eq!((bundle.health.min_ready_seconds, bundle.health.probes.len()), (1, 2));
}

#[tokio::test]
async fn podman_kube_takes_all_its_values() {
    let values = json!({"image": "a/b@sha256:0", "arguments": ["no", "{{ x }}"], "environment": {"A": "no", "B": 12},
        "port": 80, "hostPort": 8080, "healthPath": "/ready", "memory": "64Mi"});
    let bundle = bundle("podman-kube", values).await;
    let container = &documents(&bundle)[0]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["no", "{{ x }}"]));
    assert_eq!(container["env"], json!([{"name": "A", "value": "no"}, {"name": "B", "value": "12"}]));
    assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 8080}]));
    assert_eq!(container["resources"]["limits"]["memory"], "64Mi");
    let health = serde_json::to_value(&bundle.health).expect("json");
    assert_eq!(health["probes"][0]["tcp"]["address"], "127.0.0.1:8080");
    assert_eq!(health["probes"][1]["http"]["url"], "http://127.0.0.1:8080/ready");
}

#[tokio::test]
async fn podman_quadlet_takes_all_its_values() {
    let values = json!({"image": "quay.io/a/b@sha256:0", "arguments": ["--cost", "5$ \"net\" 100%"], "port": 80,
        "environment": {"A": "b c", "ON": true}, "hostPort": 8080, "dataPath": "/data", "memory": "64M",
        "healthCommand": "test -e /ok"});
    let bundle = bundle("podman-quadlet", values).await;
    let paths: Vec<_> = bundle.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["default-prod.container", "default-prod.volume"]);
    let quadlet = bundle.files[0].content.as_deref().expect("text");
    for line in [
        "ContainerName=default-prod",
        "Image=quay.io/a/b@sha256:0",
        r#"Exec="--cost" "5$$ \"net\" 100%%""#,
        r#"Environment="A=b c""#,
        r#"Environment="ON=true""#,
        "PublishPort=8080:80",
        "Volume=default-prod.volume:/data",
        "HealthCmd=test -e /ok",
        "MemoryMax=64M",
        "Restart=always",
    ] {
        assert!(quadlet.lines().any(|found| found == line), "{line} is not in\n{quadlet}");
    }
    let health = serde_json::to_value(&bundle.health).expect("json");
    assert_eq!(health["probes"][0]["tcp"]["address"], "127.0.0.1:8080");
}

#[tokio::test]
async fn compose_project_takes_all_its_values() {
    let values = json!({"services": {"web": {"image": "a:1", "command": ["no"]}}, "volumes": {"data": {}}});
    let bundle = bundle("compose-project", values).await;
    let expected = json!({"services": {"web": {"image": "a:1", "command": ["no"]}}, "volumes": {"data": {}}});
    assert_eq!(documents(&bundle), [expected]);
    assert!(bundle.health.probes.is_empty());
}

#[tokio::test]
async fn kubernetes_app_takes_all_its_values() {
    let values = json!({"name": "no", "namespace": "on", "image": "registry:5000/a/b:1", "replicas": 3,
        "readyPath": "/healthz", "environment": {"A": "no", "B": 12}, "minReadySeconds": 0});
    let bundle = bundle("kubernetes-app", values).await;
    let documents = documents(&bundle);
    let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().expect("kind")).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment", "Service"]);
    assert_eq!(documents[0]["data"], json!({"A": "no", "B": "12"}));
    let container = &documents[1]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/healthz", "port": "http"}));
    assert!(documents.iter().all(|document| document["metadata"]["name"] == "no"));
}

#[test]
fn values_that_do_not_fit_are_refused() {
    for (name, values, pointer) in [
        ("device-service", json!({"description": "a\nExecStartPre=/bin/evil"}), "/values/description"),
        ("device-service", json!({"environment": {"A B": "x"}}), "/values/environment"),
        ("kubernetes-service", json!({"replicas": "three"}), "/values/replicas"),
        ("static-site", json!({"root": "/x; include /etc/passwd"}), "/values/root"),
        ("systemd-service", json!({"arguments": ["a\nExecStartPre=/bin/evil"]}), "/values/arguments/0"),
        ("podman-kube", json!({"port": 0}), "/values/port"),
        ("podman-quadlet", json!({"dataPath": "/x:/y:z,\nPodmanArgs=--privileged"}), "/values/dataPath"),
        ("podman-quadlet", json!({"arguments": ["a\nPodmanArgs=--privileged"]}), "/values/arguments/0"),
        ("kubernetes-app", json!({"deadline": "soon"}), "/values/deadline"),
    ] {
        let Value::Object(values) = values else { panic!("values are a map") };
        let problem = template(name).check_values(&values).expect_err(name);
        assert_eq!(problem.errors[0].pointer, pointer, "{name}");
    }
}

#[test]
fn every_template_says_what_it_is_for() {
    let names: Vec<_> = std::fs::read_dir(directory()).expect("directory").map(|entry| entry.expect("entry")).collect();
    assert!(names.len() >= 3);
    for entry in names {
        let name = entry.file_name();
        assert!(template(name.to_str().expect("name")).manifest().description.is_some(), "{name:?}");
    }
}
