//! The alerts that are shipped: Prometheus takes them, they ring when they should, and what they look at is there.

use std::{collections::BTreeSet, path::Path, process::Command};

use reqwest::Method;
use titan_tests::{prometheus, worlds::World};

fn packaging() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/packaging")
}

/// S4-41.
#[test]
fn alerts_ring_when_something_lasts_and_not_before() {
    if !prometheus::is_here() {
        return;
    }
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let told = Command::new("promtool").args(arguments).current_dir(packaging()).output().expect("promtool runs");
        assert!(told.status.success(), "{arguments:?}: {told:?}");
    }
}

/// S4-41.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_look_at_nothing_that_is_not_told() {
    let rules = std::fs::read_to_string(packaging().join("alerts.yaml")).expect("the alerts");
    let rules: serde_json::Value = serde_yaml::from_str(&rules).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    let words = rules.iter().flat_map(|rule| {
        let expression = rule["expr"].as_str().expect("an expression");
        expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
    });
    let names: BTreeSet<_> = words.filter(|word| word.starts_with("titan_")).collect();
    assert!(names.len() >= 6, "{names:?}");

    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut host = world.host("pi", "").await.expect("a host");
    host.poll(0).await.expect("polled");
    let told = world.admin_call(Method::GET, "/metrics", "").await.expect("answered").text;
    for name in names {
        // A counter with labels is there from its first event on, and is described before.
        let family = format!("# TYPE {} ", name.trim_end_matches("_total"));
        assert!(told.contains(&family), "{name} is not among\n{told}");
    }
    assert!(told.contains("titan_polls_total{answer=\"Full\""), "{told}");
}
