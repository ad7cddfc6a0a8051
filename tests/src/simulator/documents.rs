//! What a simulated fleet is declared to run.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use titan_api::Document;

use crate::manifests;

/// A file as an ordinary one is: some 600 bytes the same for every host, and a line that its region decides.
const FILE: &str = "# A service's settings.\n\
    serial = {{ values.serial }}\n\
    region = {{ host.labels.region }}\n\
    [listen]\naddress = 0.0.0.0\nport = 8080\nbacklog = 1024\n\
    [upstreams]\n{% for number in range(8) %}upstream-{{ number }} = 10.0.{{ number }}.1:9000 weight=10 max_fails=3\n{% endfor %}\
    [limits]\nconnections = 512\nmemory = 64M\nfiles = 1024\n";

/// The workload that everything deploys.
pub const WORKLOAD: &str = "service";

/// Returns the labels of a host by its number: ten regions, a hundred zones, racks of a thousand hosts, twenty roles, and a
/// serial that is its own.
#[must_use]
pub fn labels(number: usize) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("region", format!("region-{}", number % 10)),
        ("zone", format!("zone-{:02}", number % 100)),
        ("rack", format!("rack-{:04}", number / 1000)),
        ("role", format!("role-{:02}", number / 7 % 20)),
        ("serial", serial(number)),
    ])
}

/// Returns the label that a host has to itself.
#[must_use]
pub fn serial(number: usize) -> String {
    format!("s{number:07}")
}

/// Returns the name of one of the deployments that every host has.
#[must_use]
pub fn base(number: usize) -> String {
    format!("base-{number}")
}

/// Returns a template with one file; another `edition` is another content.
#[must_use]
pub fn template(name: &str, edition: u64) -> Value {
    manifests::template(name, &[("settings.conf.j2", &format!("{FILE}edition = {edition}\n"))])
}

/// Returns a deployment of the workload by the template and target of the given names, whose releases reach all hosts at once.
#[must_use]
pub fn deployment(name: &str, template: &str, target: &str) -> Value {
    free(name, template, target, name)
}

/// Returns such a deployment with another `serial` among its values.
#[must_use]
pub fn free(name: &str, template: &str, target: &str, serial: &str) -> Value {
    let mut strategy = manifests::free();
    // Most of these agents do not report, and nobody should go on waiting until they do.
    strategy["progressDeadline"] = "1s".into();
    let more = json!({ "values": { "serial": serial }, "strategy": strategy });
    manifests::deployment(name, WORKLOAD, template, target, &more)
}

/// Returns a target that matches hosts whose label `key` is one of `values`.
#[must_use]
pub fn target(name: &str, key: &str, values: &[String]) -> Value {
    let spec = json!({ "matchExpressions": [{ "key": key, "operator": "In", "values": values }] });
    manifests::document("Target", None, name, &spec)
}

/// Returns what gives every host `assignments` deployments, each with a template of its own.
#[must_use]
pub fn ground(assignments: usize) -> Vec<Value> {
    let mut documents = vec![manifests::workload(WORKLOAD, "1.2.3"), manifests::target("all", "")];
    for number in 0..assignments {
        let name = base(number);
        documents.push(template(&name, 0));
        documents.push(deployment(&name, &name, "all"));
    }
    documents
}

/// Returns a document as the client takes it.
pub fn typed(mut document: Value) -> anyhow::Result<Document> {
    if document["kind"] != "Host" {
        document["metadata"]["workspace"] = "default".into();
    }
    Ok(serde_json::from_value(document)?)
}
