//! `kube` YAML: what a bundle's documents come to, one pod at a time. Pure.
//!
//! Documents are read as YAML 1.2 and handed to podman as JSON, so that both understand the same: a YAML 1.1 reader takes
//! `no` for false and a later key in other case for an earlier one. Deployments and DaemonSets become the pod that they
//! describe, and secrets become config maps that only this pod sees, since podman can put no mark on its own secrets.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use titan_api::Digest;

use super::{fields::Reader, pods::Pod};
use crate::{
    apply::ApplyError,
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::{self, Podman},
};

/// The largest file of documents, in bytes.
const FILE_BYTES: usize = 1024 * 1024;
/// How many documents a bundle may have.
const DOCUMENTS: usize = 256;
/// The annotation of a volume's claim that says what happens to it when the deployment leaves.
const ON_REMOVE: &str = "titan/on-remove";

/// What the documents of a bundle come to.
#[derive(Debug, Default)]
pub(super) struct Kube {
    /// The pods, in the order in which they were written.
    pub(super) pods: Vec<Pod>,
    /// The volumes by name.
    pub(super) volumes: BTreeMap<String, Volume>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// Of everything that it is made from.
    pub(super) digest: Digest,
    /// Whether it goes with whatever made it: what is in it is from the bundle, or the bundle says so.
    pub(super) goes: bool,
    /// Whether the bundle says what is in it.
    pub(super) config: bool,
}

impl Kube {
    /// Reads the documents of a bundle: all files that end in `.yaml` or `.yml` at its top.
    pub(super) fn read(bundle: &Bundle, allowed: &Podman, exchanged: bool) -> Result<Self, ApplyError> {
        let (mut kube, mut pods, mut configs, mut count) = (Self::default(), Vec::new(), BTreeMap::new(), 0);
        for file in bundle.files.iter().filter(|file| is_kube(&file.path) && !file.rooted) {
            let reader = Reader { file: &file.path, allowed };
            let text = file.text(FILE_BYTES)?;
            for (i, document) in serde_yaml::Deserializer::from_str(&text).enumerate() {
                let at = format!("document {}", i + 1);
                let value = Value::deserialize(document).map_err(|error| reader.malformed(&at, error))?;
                if value.is_null() {
                    continue;
                }
                count += 1;
                if count > DOCUMENTS {
                    return Err(reader.malformed(&at, format!("is one too many: a bundle may have {DOCUMENTS}")));
                }
                kube.take(&reader, value, &at, &mut configs, &mut pods)?;
            }
        }
        for (file, document) in pods {
            let mut pod = Pod::read(&Reader { file: &file, allowed }, document, &configs, &mut kube.volumes)?;
            if kube.pods.iter().any(|other| other.name == pod.name) {
                return Err(Reader { file: &file, allowed }.malformed(&pod.name, "is the name of two pods"));
            }
            pod.take_files(bundle, exchanged);
            kube.pods.push(pod);
        }
        Ok(kube)
    }

    fn take(
        &mut self,
        reader: &Reader<'_>,
        mut value: Value,
        at: &str,
        configs: &mut BTreeMap<String, Value>,
        pods: &mut Vec<(String, Value)>,
    ) -> Result<(), ApplyError> {
        let map = value.as_object_mut().ok_or_else(|| reader.malformed(at, "is not a mapping"))?;
        let kind = reader.text(map, at, "kind")?.to_owned();
        let metadata = map.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = reader.text(&metadata, &format!("{at}: metadata"), "name")?.to_owned();
        let at = format!("{kind} {name}");
        check_name(reader, &name, &at)?;
        match kind.as_str() {
            "Pod" => {
                let spec = map.remove("spec").unwrap_or_default();
                pods.push((reader.file.to_owned(), pod_document(&name, &metadata, spec)));
            }
            "Deployment" | "DaemonSet" => {
                if map.get("spec").and_then(|spec| spec.get("replicas")).is_some_and(|n| n.as_u64() != Some(1)) {
                    return Err(reader.malformed(&format!("{at}: spec.replicas"), "has to be 1: podman runs one"));
                }
                let template = map.get_mut("spec").and_then(|spec| spec.get_mut("template"));
                let template = template.and_then(Value::as_object_mut);
                let template = template.ok_or_else(|| reader.malformed(&at, "has no spec.template"))?;
                let metadata = template.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
                let spec = template.remove("spec").unwrap_or_default();
                pods.push((reader.file.to_owned(), pod_document(&format!("{name}-pod"), &metadata, spec)));
            }
            "ConfigMap" => {
                let entries = config(map, reader, &at)?;
                self.put_config(reader, configs, &name, &at, entries)?;
            }
            "Secret" => {
                let entries = secret(map, reader, &at)?;
                self.put_config(reader, configs, &name, &at, entries)?;
            }
            "PersistentVolumeClaim" => {
                let annotations = metadata.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default();
                if let Some(key) = annotations.keys().find(|key| key.starts_with("volume.podman.io/")) {
                    return Err(reader.malformed(&at, format!("has the annotation {key}, which is not supported")));
                }
                let goes = match annotations.get(ON_REMOVE).map(Value::as_str) {
                    None | Some(Some("keep")) => false,
                    Some(Some("delete")) => true,
                    Some(_) => return Err(reader.malformed(&at, format!("{ON_REMOVE} is neither keep nor delete"))),
                };
                if !appliers::allows(&reader.allowed.names, &name) {
                    return Err(not_named("volume", &name));
                }
                // What a volume is made from never changes: there would be no way to keep what is in it.
                let volume = Volume { digest: Digest::of(name.as_bytes()), goes, config: false };
                if self.volumes.insert(name.clone(), volume).is_some() || configs.contains_key(&name) {
                    return Err(reader.malformed(&at, "is a name that is used twice"));
                }
            }
            _ => {
                let known = "Pod, Deployment, DaemonSet, ConfigMap, Secret and PersistentVolumeClaim";
                return Err(reader.malformed(&at, format!("is of a kind that podman does not run; it runs {known}")));
            }
        }
        Ok(())
    }

    fn put_config(
        &self,
        reader: &Reader<'_>,
        configs: &mut BTreeMap<String, Value>,
        name: &str,
        at: &str,
        (data, binary): (Map<String, Value>, Map<String, Value>),
    ) -> Result<(), ApplyError> {
        let document = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data, "binaryData": binary,
        });
        if configs.insert(name.to_owned(), document).is_some() || self.volumes.contains_key(name) {
            return Err(reader.malformed(at, "is a name that is used twice among config maps, secrets and volumes"));
        }
        Ok(())
    }

    /// Returns what these are as claims.
    pub(super) fn claims(&self) -> Claims {
        let pods = self.pods.iter().map(|pod| (Claim::new("pod", &pod.name), pod.digest()));
        let volumes = self.volumes.iter().map(|(name, volume)| (Claim::new("volume", name), volume.digest));
        pods.chain(volumes).collect()
    }

    /// Returns every image that is wanted.
    pub(super) fn images(&self) -> BTreeSet<&str> {
        self.pods.iter().flat_map(|pod| &pod.images).map(String::as_str).collect()
    }
}

/// Whether a file at the top of a bundle holds documents.
pub(super) fn is_kube(path: &str) -> bool {
    !path.contains('/') && (path.ends_with(".yaml") || path.ends_with(".yml"))
}

/// Names are what Kubernetes allows: nothing that means something else in an address or a path.
pub(super) fn check_name(reader: &Reader<'_>, name: &str, at: &str) -> Result<(), ApplyError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 253 && bytes.iter().all(|b| plain(*b)) && ends(bytes.first()) && ends(bytes.last()) {
        return Ok(());
    }
    Err(reader.malformed(at, "is not a name: small letters, digits, '-' and '.' within, at most 253"))
}

pub(super) fn not_named(kind: &str, name: &str) -> ApplyError {
    ApplyError::Beyond { what: format!("the {kind} {name}"), key: "appliers.podman.names" }
}

/// Returns a pod's document with nothing in it that was not looked at.
fn pod_document(name: &str, metadata: &Map<String, Value>, spec: Value) -> Value {
    let part = |key| metadata.get(key).filter(|value| value.is_object()).cloned().unwrap_or_else(|| json!({}));
    let mut document = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": part("labels"), "annotations": part("annotations") },
    });
    document["spec"] = spec;
    document
}

type Entries = (Map<String, Value>, Map<String, Value>);

fn config(map: &Map<String, Value>, reader: &Reader<'_>, at: &str) -> Result<Entries, ApplyError> {
    let part = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(part)) if part.values().all(Value::is_string) => Ok(part.clone()),
        Some(_) => Err(reader.malformed(&format!("{at}: {key}"), "has to be a mapping of texts; quote the others")),
    };
    Ok((part("data")?, part("binaryData")?))
}

fn secret(map: &Map<String, Value>, reader: &Reader<'_>, at: &str) -> Result<Entries, ApplyError> {
    let (coded, _) = config(map, reader, at)?;
    let (mut data, mut binary) = Entries::default();
    for (key, value) in coded {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.ok_or_else(|| reader.malformed(&format!("{at}: data.{key}"), "is not base64"))?;
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, text.into()),
            Err(_) => binary.insert(key, value),
        };
    }
    if let Some(plain) = map.get("stringData").and_then(Value::as_object) {
        data.extend(plain.iter().filter(|(_, value)| value.is_string()).map(|(k, v)| (k.clone(), v.clone())));
    }
    Ok((data, binary))
}
