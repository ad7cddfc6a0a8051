//! What the source itself shows: which layer knows of what, and what is not built at all.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns every Rust file below a directory, with its text.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{} is empty", directory.display());
    found
}

/// S3-23: what decides knows neither the database nor HTTP, the store knows no HTTP, and the routes know no SQL.
#[test]
fn layers_know_only_what_is_theirs() {
    let plane = root().join("control-plane/src");
    for (layer, foreign) in [
        ("fleet", &["sqlx", "axum", "reqwest"] as &[&str]),
        ("store", &["axum", "http::", "reqwest"]),
        ("routes", &["sqlx", "SELECT ", "INSERT INTO"]),
    ] {
        for (path, text) in sources(&plane.join(layer)) {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let met = foreign.iter().find(|word| line.contains(**word));
                assert_eq!(met, None, "{}: {line}", path.display());
            }
        }
    }
}

/// S3-32: each layer has tests of its own.
#[test]
fn every_layer_has_tests_of_its_own() {
    let root = root();
    for layer in [
        "api/src",
        "agent/src",
        "cli/src",
        "control-plane/src/fleet",
        "control-plane/src/render",
        "control-plane/src/routes",
        "tests/tests/it/store",
    ] {
        let tests =
            |(_, text): &(PathBuf, String)| text.matches("#[test]").count() + text.matches("#[tokio::test").count();
        let count: usize = sources(&root.join(layer)).iter().map(tests).sum();
        assert!(count >= 5, "{layer} has {count} tests");
    }
}

/// S3-40, S3-41, S4-44: HTTP and JSON in one binary over SQLite or PostgreSQL; nothing else has to be run beside it.
#[test]
fn what_is_not_needed_is_not_built_in() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let packages: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert!(packages.contains(&"\"sqlx\"") && packages.contains(&"\"axum\""));
    for absent in ["tonic", "prost", "redis", "async-graphql", "juniper", "google-cloud-spanner", "temporal-sdk"] {
        assert!(!packages.contains(&format!("{absent:?}").as_str()), "{absent}");
    }
}
