//! Appliers: what each needs of a bundle, as far as that is cheap to see before a host has it.
//!
//! The host looks closer and knows its owner's limits; this catches what could not work on any.

use serde::Deserialize as _;
use serde_yaml::Value;
use titan_api::{
    poll::{Bundle, BundleFile},
    templates::Applier,
};

/// Endings of systemd's units.
const UNITS: [&str; 10] =
    ["service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice", "scope"];
/// Endings of quadlets.
const QUADLETS: [&str; 5] = ["container", "image", "network", "pod", "volume"];
/// Endings of quadlets that no host applies, and what to do instead.
const NO_QUADLETS: [(&str, &str); 2] = [
    ("build", "build the image beforehand, and name it by its digest"),
    ("kube", "leave it out: kube YAML is applied as it is"),
];
/// Names of a Compose project's file.
const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// What is wrong, and with which of the bundle's files if it is one's.
pub type Fault = (Option<usize>, String);

/// Returns what `applier` could not do with a bundle, given as JSON.
#[must_use]
pub fn fault(applier: Applier, bundle: &[u8]) -> Option<Fault> {
    if applier == Applier::Files {
        return None;
    }
    match serde_json::from_slice::<Bundle>(bundle) {
        Ok(bundle) => check(applier, &bundle.files).err(),
        Err(error) => Some((None, format!("the bundle: {error}"))),
    }
}

fn check(applier: Applier, files: &[BundleFile]) -> Result<(), Fault> {
    let none =
        |what: &str| Err((None, format!("the applier {} needs {what} at the top of the bundle", applier.as_str())));
    let top = || files.iter().enumerate().filter(|(_, file)| !file.rooted && !file.path.contains('/'));
    match applier {
        Applier::Files => Ok(()),
        Applier::Systemd => match files.iter().any(|file| !file.rooted && is_unit_or_drop_in(&file.path)) {
            true => Ok(()),
            false => none("a unit such as app.service, or a drop-in such as app.service.d/limits.conf,"),
        },
        Applier::Podman => {
            for (ending, instead) in NO_QUADLETS {
                if let Some((index, _)) = top().find(|(_, file)| ends_in(&file.path, &[ending])) {
                    return Err((Some(index), format!("a .{ending} file is not applied: {instead}")));
                }
            }
            let mut found = false;
            for (index, file) in top().filter(|(_, file)| ends_in(&file.path, &QUADLETS)) {
                section(file).map_err(|message| (Some(index), message))?;
                found = true;
            }
            for (index, file) in top().filter(|(_, file)| ends_in(&file.path, &["yaml", "yml"])) {
                if found {
                    let message = "kube YAML and quadlets do not go into one bundle".to_owned();
                    return Err((Some(index), message));
                }
                objects(file).map_err(|message| (Some(index), message))?;
            }
            let any = found || top().any(|(_, file)| ends_in(&file.path, &["yaml", "yml"]));
            if any { Ok(()) } else { none("a pod such as app.yaml, or a quadlet such as app.container,") }
        }
        Applier::Compose => {
            let mut projects = top().filter(|(_, file)| COMPOSE.contains(&file.path.as_str()));
            match (projects.next(), projects.next()) {
                (Some((index, file)), None) => services(file).map_err(|message| (Some(index), message)),
                (Some(_), Some((index, _))) => Err((Some(index), "a project of Compose has one file".to_owned())),
                (None, _) => none("a file compose.yaml"),
            }
        }
        Applier::Kubernetes => {
            let mut count = 0;
            for (index, file) in files.iter().enumerate().filter(|(_, file)| !file.rooted) {
                if ends_in(&file.path, &["yaml", "yml", "json"]) {
                    count += objects(file).map_err(|message| (Some(index), message))?;
                }
            }
            if count > 0 {
                Ok(())
            } else {
                Err((None, "the applier kubernetes needs at least one object in a .yaml or .json file".to_owned()))
            }
        }
    }
}

/// Whether a path ends in a dot and one of `endings`, with something before.
fn ends_in(path: &str, endings: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && endings.contains(&ending))
}

fn is_unit_or_drop_in(path: &str) -> bool {
    match path.split_once('/') {
        None => ends_in(path, &UNITS),
        Some((directory, name)) => {
            directory.strip_suffix(".d").is_some_and(|unit| ends_in(unit, &UNITS))
                && !name.contains('/')
                && ends_in(name, &["conf"])
        }
    }
}

/// Returns the documents of a file of YAML, and of JSON, which is YAML.
fn documents(file: &BundleFile) -> Result<Vec<Value>, String> {
    let text = file.content.as_deref().ok_or("it is not text")?;
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    let documents: Result<Vec<_>, _> = documents.collect();
    let documents = documents.map_err(|error| format!("what it comes out as is not YAML: {error}"))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Counts the objects in a file; each has to say what it is and have a name.
fn objects(file: &BundleFile) -> Result<usize, String> {
    let documents = documents(file)?;
    for (index, document) in documents.iter().enumerate() {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let missing = if !document.is_mapping() {
            "is not a map"
        } else if !text(document.get("apiVersion")) {
            "has no apiVersion"
        } else if !text(document.get("kind")) {
            "has no kind"
        } else if !text(document.get("metadata").and_then(|metadata| metadata.get("name"))) {
            "has no metadata.name"
        } else {
            continue;
        };
        return Err(match documents.len() {
            1 => format!("the object {missing}"),
            _ => format!("object {} of the file {missing}", index + 1),
        });
    }
    Ok(documents.len())
}

/// Checks that a quadlet has the section that its ending says.
fn section(file: &BundleFile) -> Result<(), String> {
    let text = file.content.as_deref().ok_or("it is not text")?;
    let mut section = file.path.rsplit('.').next().unwrap_or_default().to_owned();
    section[..1].make_ascii_uppercase();
    let is_it = |line: &str| line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) == Some(&section);
    if text.lines().any(is_it) { Ok(()) } else { Err(format!("the quadlet has no section [{section}]")) }
}

/// Checks that a file is a project with services.
fn services(file: &BundleFile) -> Result<(), String> {
    let documents = documents(file)?;
    let [project] = documents.as_slice() else { return Err("a project of Compose is one document".to_owned()) };
    match project.get("services").and_then(Value::as_mapping) {
        Some(services) if !services.is_empty() => Ok(()),
        _ => Err("the project has no services".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use titan_api::templates::FileMode;

    use super::*;

    fn faults(applier: Applier, files: &[(&str, &str)]) -> Option<Fault> {
        let file = |(path, content): &(&str, &str)| BundleFile {
            path: (*path).to_owned(),
            rooted: path.starts_with("etc/"),
            mode: FileMode::PLAIN,
            owner: None,
            group: None,
            content: Some((*content).to_owned()),
            content_base64: None,
        };
        let bundle = Bundle { applier, files: files.iter().map(file).collect(), ..Bundle::default() };
        fault(applier, &serde_json::to_vec(&bundle).expect("json"))
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";

    #[test]
    fn bundles_have_what_their_applier_works_with() {
        for (applier, files) in [
            (Applier::Files, &[("a", "")][..]),
            (Applier::Systemd, &[("app.service", "")]),
            (Applier::Systemd, &[("x", ""), ("app@.timer", "")]),
            (Applier::Systemd, &[("ssh.service.d/a.conf", "")]),
            (Applier::Podman, &[("app.yaml", POD), ("data/x.yaml", "- 1")]),
            (Applier::Podman, &[("app.container", "[Container]\nImage=x\n"), ("conf/app.yaml", "- 1")]),
            (Applier::Compose, &[("compose.yaml", "services: {web: {image: x}}")]),
            (Applier::Kubernetes, &[("a/b.yml", &format!("---\n{POD}---\n{POD}")), ("notes.md", "")]),
            (Applier::Kubernetes, &[("a.json", r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}"#)]),
        ] {
            assert_eq!(faults(applier, files), None, "{applier:?} {files:?}");
        }
    }

    #[test]
    fn what_could_not_work_on_any_host_is_refused() {
        for (applier, files, file, expected) in [
            (
                Applier::Systemd,
                &[("app.conf", ""), ("x/app.service", ""), ("etc/a.service", "")][..],
                None,
                "needs a unit",
            ),
            (Applier::Systemd, &[(".service", ""), ("a.service.d/x/a.conf", "")], None, "needs a unit"),
            (Applier::Podman, &[("app.conf", "")], None, "needs a pod"),
            (Applier::Podman, &[("app.container", "")], Some(0), "the quadlet has no section [Container]"),
            (Applier::Podman, &[("app.container", "[container]\n")], Some(0), "the quadlet has no section [Container]"),
            (Applier::Podman, &[("a.container", "[Container]\n"), ("a.yaml", POD)], Some(1), "do not go into one"),
            (Applier::Podman, &[("a.yaml", POD), ("a.build", "[Build]\n")], Some(1), "is not applied: build the image"),
            (Applier::Podman, &[("a.kube", "[Kube]\n")], Some(0), "is not applied: leave it out"),
            (Applier::Podman, &[("b.yaml", "a: 1")], Some(0), "the object has no apiVersion"),
            (Applier::Compose, &[("app.yaml", "")], None, "needs a file compose.yaml"),
            (Applier::Compose, &[("compose.yaml", "services: {}")], Some(0), "the project has no services"),
            (Applier::Compose, &[("compose.yaml", "services: {a: {}}"), ("compose.yml", "")], Some(1), "has one file"),
            (Applier::Kubernetes, &[("a.txt", POD)], None, "at least one object"),
            (Applier::Kubernetes, &[("a.yaml", "---\n# nothing\n")], None, "at least one object"),
            (Applier::Kubernetes, &[("x", ""), ("a.yaml", "a: [")], Some(1), "is not YAML"),
            (Applier::Kubernetes, &[("a.yaml", "- a")], Some(0), "the object is not a map"),
            (
                Applier::Kubernetes,
                &[("a.yaml", &format!("{POD}---\napiVersion: v1\n"))],
                Some(0),
                "object 2 of the file has no kind",
            ),
            (
                Applier::Kubernetes,
                &[("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n")],
                Some(0),
                "has no metadata.name",
            ),
        ] {
            let (at, message) = faults(applier, files).expect(expected);
            assert_eq!(at, file, "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}
