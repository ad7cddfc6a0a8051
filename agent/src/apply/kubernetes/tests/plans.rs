//! What a bundle claims, and what is refused before anything is sent.

use super::bench::{Bench, bundle, target, web};
use crate::{
    apply::{Applier as _, ApplyError, kubernetes::manifests},
    config::appliers::Kubernetes as Allowed,
};

fn plan(content: &str, change: impl FnOnce(&mut Allowed)) -> Result<Vec<String>, ApplyError> {
    let mut allowed = Allowed { cluster_scoped: true, ..Allowed::default() };
    change(&mut allowed);
    let found = manifests::read(&target("shop", 7), &bundle(&[("a.yaml", content)]), &allowed, "default")?;
    Ok(found.iter().map(|manifest| manifest.key.claim().name).collect())
}

#[test]
fn every_document_is_an_object_and_comes_after_what_it_needs() {
    let content = format!(
        "{}---\n# nothing\n---\n{}",
        web("x:1").replace("---", "---\n---"),
        "{apiVersion: v1, kind: List, items: \
        [{apiVersion: v1, kind: Service, metadata: {name: web}}]}"
    );
    let expected = [
        "/Namespace//shop",
        "/ConfigMap/default/titan.default.shop",
        "/ConfigMap/shop/web",
        "/Service/default/web",
        "apps/Deployment/shop/web",
    ];
    assert_eq!(plan(&content, |_| {}).expect("plan"), expected);
}

#[test]
fn what_a_server_writes_is_left_out_and_old_octal_numbers_are_numbers() {
    let content = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: x, managedFields: []}\nstatus: {}\n\
                   spec: {no: off, defaultMode: 0644}\n";
    let found = manifests::read(&target("shop", 7), &bundle(&[("a.yaml", content)]), &Allowed::default(), "default");
    let found = found.expect("manifests");
    let value = &found.iter().find(|manifest| !manifest.path.is_empty()).expect("the map").value;
    assert_eq!(value["spec"], serde_json::json!({"no": "off", "defaultMode": 420}), "YAML 1.2, sent as JSON");
    assert!(value.get("status").is_none() && value["metadata"].get("uid").is_none());
}

#[test]
fn malformed_objects_name_file_document_and_fault() {
    for (content, part) in [
        ("a: [", "document 1"),
        ("a: 1\na: 2", "duplicate"),
        ("{}", "needs apiVersion and kind"),
        ("{apiVersion: v1, kind: ConfigMap}", "needs metadata.name"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a/b}}", "no object's name"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ../x}}", "no namespace's name"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}", "is in no namespace"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: titan.default.shop}}", "own record"),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {applyset.kubernetes.io/part-of: x}}}",
            "agent's to set",
        ),
        ("# nothing", "declares an object"),
        ("[1]", "not an object"),
    ] {
        let message = plan(content, |_| {}).expect_err(content).to_string();
        assert!(message.contains(part), "{content}: {message}");
    }
    let twice = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}";
    let message = plan(twice, |_| {}).expect_err("twice").to_string();
    assert!(message.starts_with("a.yaml: document 2: ConfigMap default/a"), "{message}");
    let one = |n: usize| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a{n}}}}}\n");
    let many: String = (0..=manifests::OBJECTS).map(one).collect();
    assert!(plan(&many, |_| {}).expect_err("many").to_string().contains("500"));
    let large = format!("# {}", "x".repeat(manifests::FILE_BYTES));
    assert!(plan(&large, |_| {}).expect_err("large").to_string().contains("at most"));
}

#[test]
fn what_the_owner_does_not_allow_is_refused_with_the_key_that_says_so() {
    let refused = |content: &str, change: fn(&mut Allowed)| plan(content, change).expect_err(content).to_string();
    let web = web("x:1");
    let message = refused(&web, |allowed| allowed.cluster_scoped = false);
    assert!(message.contains("Namespace shop") && message.contains("clusterScoped"), "{message}");
    let message = refused(&web, |allowed| allowed.namespaces = vec!["team-*".to_owned()]);
    assert!(message.contains("namespace shop") && message.contains("appliers.kubernetes.namespaces"), "{message}");
    let message = refused(&web, |allowed| allowed.kinds = vec!["Namespace".to_owned(), "ConfigMap".to_owned()]);
    assert!(message.contains("apps/Deployment") && message.contains("appliers.kubernetes.kinds"), "{message}");
}

#[test]
fn nothing_is_sent_by_planning() {
    let bench = Bench::new();
    bench.applier.plan(&bench.target, &bundle(&[("a.yaml", &web("x:1"))])).expect("plan");
    assert!(bench.server.calls().is_empty());
}
