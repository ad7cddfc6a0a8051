//! What the files of a bundle declare: objects, as they are sent to the server.
//!
//! Every document of every `*.yaml`, `*.yml` and `*.json` file is one. They are read as YAML 1.2 and sent as JSON, so that no
//! reader of YAML 1.1 can take `no` for false on the way. What only a server writes (`status`, `managedFields`, ...) is left
//! out, and the owner's caps hold before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;
use serde_json::{Map, Value};
use titan_api::Digest;

use super::{
    applyset,
    objects::{Key, is_builtin, is_cluster_scoped, text},
};
use crate::{
    apply::{ApplyError, Target},
    bundles::Bundle,
    claims::Claims,
    config::appliers::{Kubernetes, allows},
};

/// The largest file with objects, in bytes: YAML takes some twenty times as much memory while it is read.
pub(crate) const FILE_BYTES: usize = 1024 * 1024;
/// How many objects one deployment may have.
pub(crate) const OBJECTS: usize = 500;
/// What a server writes into `metadata` by itself.
const SERVERS_OWN: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// One object as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// What names it.
    pub(crate) key: Key,
    /// The version of its group in which it is written.
    pub(crate) version: String,
    /// The file it stands in; empty for what no file declares.
    pub(crate) path: String,
    /// Which document of the file, from 0.
    pub(crate) document: usize,
    /// All of it, with our label.
    pub(crate) value: Value,
}

impl Manifest {
    /// Returns the digest of what is sent.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.value.to_string().as_bytes())
    }
}

/// Returns the claims on objects.
pub(crate) fn claims(manifests: &[Manifest]) -> Claims {
    manifests.iter().map(|manifest| (manifest.key.claim(), manifest.digest())).collect()
}

/// Returns all objects of a bundle in the order in which they come, the ApplySet's parent among them. `namespace` is the
/// one of objects that name none.
pub(crate) fn read(
    target: &Target,
    bundle: &Bundle,
    allowed: &Kubernetes,
    namespace: &str,
) -> Result<Vec<Manifest>, ApplyError> {
    let mut found = declared(bundle, namespace)?;
    if let Some(many) = found.get(OBJECTS) {
        return Err(malformed(many, format!("it is the object after the {OBJECTS} that one deployment may have")));
    }
    let mut known: BTreeMap<&Key, &Manifest> = BTreeMap::new();
    for manifest in &found {
        check_caps(&manifest.key, allowed)?;
        if manifest.key.is("", "ConfigMap") && manifest.key.name == applyset::parent_name(target) {
            return Err(malformed(manifest, "this name is the one of the agent's own record; choose another"));
        }
        if let Some(other) = known.insert(&manifest.key, manifest) {
            let message = format!("{} stands in {} too", manifest.key, other.path);
            return Err(malformed(manifest, message));
        }
    }
    let members: BTreeSet<Key> = found.iter().map(|manifest| manifest.key.clone()).collect();
    let home = members.iter().map(|key| key.namespace.as_str()).filter(|name| !name.is_empty()).min();
    let key = applyset::parent_key(target, home.unwrap_or(namespace));
    check_namespace(&key.namespace, allowed)?;
    let id = applyset::id(&key);
    for manifest in &mut found {
        label(&mut manifest.value, &id)
            .map_err(|message| ApplyError::Malformed { path: manifest.path.clone(), message })?;
    }
    let value = applyset::parent(target, &key, &members);
    found.push(Manifest { key, version: "v1".to_owned(), path: String::new(), document: 0, value });
    // The parent comes before whatever it stands for, and after the namespace it is in.
    found.sort_by_cached_key(|manifest| {
        let rank = if manifest.path.is_empty() { super::objects::WAITED_FOR } else { manifest.key.rank() };
        (rank, !manifest.path.is_empty(), manifest.key.clone())
    });
    Ok(found)
}

/// Returns the objects that files declare, in the files' order.
fn declared(bundle: &Bundle, namespace: &str) -> Result<Vec<Manifest>, ApplyError> {
    let mut found = Vec::new();
    let is_read = |path: &str| [".yaml", ".yml", ".json"].iter().any(|ending| path.ends_with(ending));
    for file in bundle.files.iter().filter(|file| !file.rooted && is_read(&file.path)) {
        let content = file.text(FILE_BYTES)?;
        for (document, value) in documents(&file.path, &content)?.into_iter().enumerate() {
            let fault = |message: String| ApplyError::Malformed {
                path: file.path.clone(),
                message: format!("document {}: {message}", document + 1),
            };
            for value in flattened(value) {
                let (key, version, value) = object(value, namespace).map_err(fault)?;
                found.push(Manifest { key, version, path: file.path.clone(), document, value });
            }
        }
    }
    definitions_say_scopes(&found, namespace)?;
    if found.is_empty() {
        let message = "no file ending in .yaml, .yml or .json declares an object".to_owned();
        return Err(ApplyError::Malformed { path: "the bundle".to_owned(), message });
    }
    Ok(found)
}

/// Returns the documents of a file; `Null` where one is empty.
pub(crate) fn documents(path: &str, content: &str) -> Result<Vec<Value>, ApplyError> {
    let fault = |document: usize, message: String| ApplyError::Malformed {
        path: path.to_owned(),
        message: format!("document {}: {message}", document + 1),
    };
    if path.ends_with(".json") {
        return Ok(vec![serde_json::from_str(content).map_err(|error| fault(0, error.to_string()))?]);
    }
    let mut values = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(content).enumerate() {
        // By way of YAML's own value, which refuses a key that stands there twice.
        let value = serde_yaml::Value::deserialize(document).map_err(|error| fault(index, error.to_string()))?;
        values.push(serde_json::to_value(value).map_err(|error| fault(index, error.to_string()))?);
    }
    Ok(values)
}

/// Returns the objects of a document: none if it is empty, those of a `List`, or itself.
fn flattened(mut value: Value) -> Vec<Value> {
    let is_list = text(&value, &["kind"]).ends_with("List") && value.get("items").is_some_and(Value::is_array);
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(items) => {
            value["items"] = items;
            vec![value]
        }
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

fn object(mut value: Value, namespace: &str) -> Result<(Key, String, Value), String> {
    let Some(fields) = value.as_object_mut() else { return Err("it is not an object".to_owned()) };
    fields.remove("status");
    let api_version = fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if !is_name(version) || !is_name(&kind) || !(group.is_empty() || is_name(group)) {
        return Err("it needs apiVersion and kind".to_owned());
    }
    let metadata = fields.entry("metadata").or_insert_with(|| Map::new().into());
    let Some(metadata) = metadata.as_object_mut() else { return Err("metadata is not an object".to_owned()) };
    SERVERS_OWN.iter().for_each(|name| drop(metadata.remove(*name)));
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(format!("{kind}: it needs metadata.name (generateName makes another object each time)"));
    }
    if !is_name(&name) {
        return Err(format!("{kind}: {name:?} is no object's name"));
    }
    let written = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if is_name(text) && !text.contains(['.', ':']) => Some(text.clone()),
        Some(other) => return Err(format!("{kind} {name}: {other} is no namespace's name")),
    };
    let cluster_scoped = is_cluster_scoped(group, &kind);
    let namespace = match written {
        Some(_) if cluster_scoped => {
            return Err(format!("{kind} {name}: it is in no namespace; remove metadata.namespace"));
        }
        Some(written) => written,
        None if cluster_scoped || !is_builtin(group) => String::new(),
        None => namespace.to_owned(),
    };
    match namespace.as_str() {
        "" => drop(metadata.remove("namespace")),
        namespace => drop(metadata.insert("namespace".to_owned(), namespace.into())),
    }
    let key = Key::new(group, &kind, &namespace, &name);
    let version = version.to_owned();
    octal_modes(&mut value);
    Ok((key, version, value))
}

/// Whether a text may be a part of an address on the server.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(plain) && text != "." && text != ".."
}

/// Custom objects that name no namespace are in the usual one if their definition, in the same bundle, says so.
fn definitions_say_scopes(found: &[Manifest], namespace: &str) -> Result<(), ApplyError> {
    let is_definition = |manifest: &&Manifest| manifest.key.is("apiextensions.k8s.io", "CustomResourceDefinition");
    for definition in found.iter().filter(is_definition) {
        let spec = |path: &[&str]| text(&definition.value, path).to_owned();
        let (group, kind) = (spec(&["spec", "group"]), spec(&["spec", "names", "kind"]));
        let namespaced = spec(&["spec", "scope"]) == "Namespaced";
        for manifest in found.iter().filter(|manifest| manifest.key.is(&group, &kind)) {
            if namespaced == manifest.key.namespace.is_empty() {
                let message = match namespaced {
                    true => {
                        format!("its definition says that it is in a namespace; write metadata.namespace: {namespace}")
                    }
                    false => "its definition says that it is in no namespace; remove metadata.namespace".to_owned(),
                };
                return Err(malformed(manifest, message));
            }
        }
    }
    Ok(())
}

/// Turns modes of files as YAML 1.1 wrote them, `0644`, into the numbers that they were meant to be: to us they are texts,
/// and a text is never right there.
fn octal_modes(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let octal = value.as_str().filter(|text| text.len() == 4 && text.starts_with('0'));
                match octal.and_then(|text| u32::from_str_radix(text, 8).ok()) {
                    Some(mode) if name == "defaultMode" || name == "mode" => *value = mode.into(),
                    _ => octal_modes(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(octal_modes),
        _ => {}
    }
}

fn label(value: &mut Value, id: &str) -> Result<(), String> {
    let labels = value.pointer("/metadata/labels");
    if labels.is_some_and(|labels| !labels.is_object() && !labels.is_null()) {
        return Err("metadata.labels is not an object".to_owned());
    }
    if labels.and_then(|labels| labels.get(applyset::PART_OF)).is_some() {
        return Err(format!("the label {} is the agent's to set; remove it", applyset::PART_OF));
    }
    value["metadata"]["labels"][applyset::PART_OF] = id.into();
    Ok(())
}

fn malformed(manifest: &Manifest, message: impl Into<String>) -> ApplyError {
    let message = format!("document {}: {}: {}", manifest.document + 1, manifest.key, message.into());
    ApplyError::Malformed { path: manifest.path.clone(), message }
}

/// Checks that the owner allows an object.
fn check_caps(key: &Key, allowed: &Kubernetes) -> Result<(), ApplyError> {
    if !allows(&allowed.kinds, &key.grouped()) {
        let what = format!("the kind {} ({key})", key.grouped());
        return Err(ApplyError::Beyond { what, key: "appliers.kubernetes.kinds" });
    }
    if !key.namespace.is_empty() {
        return check_namespace(&key.namespace, allowed);
    }
    if !allowed.cluster_scoped {
        let what = format!("{key}, which is in no namespace,");
        return Err(ApplyError::Beyond { what, key: "appliers.kubernetes.clusterScoped" });
    }
    if key.is("", "Namespace") { check_namespace(&key.name, allowed) } else { Ok(()) }
}

fn check_namespace(namespace: &str, allowed: &Kubernetes) -> Result<(), ApplyError> {
    if allows(&allowed.namespaces, namespace) {
        return Ok(());
    }
    Err(ApplyError::Beyond { what: format!("the namespace {namespace}"), key: "appliers.kubernetes.namespaces" })
}
