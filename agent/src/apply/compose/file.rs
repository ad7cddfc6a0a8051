//! The file of a project: what is known of it, what the owner allows, and what Compose is given instead of it. Pure.
//!
//! Compose gets a file that was made from what was looked at, with nothing left to be looked up: no variables, no other
//! files that say what to run, no paths but absolute ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize as _;
use serde_json::{Map, Value};
use titan_api::Digest;

use super::services::Service;
use crate::{
    apply::{ApplyError, podman::references::Mount},
    bundles::Bundle,
    config::appliers::Compose,
};

/// The names that the file may have, at the bundle's top.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The largest file, in bytes.
pub(super) const FILE_BYTES: usize = 1024 * 1024;
/// The key that allows what is privileged.
const PRIVILEGED: &str = "appliers.compose.privileged";

/// A project.
#[derive(Debug)]
pub(super) struct Project {
    /// The services that are to run, each with the digest of what it is made from.
    pub(super) services: BTreeMap<String, Service>,
    /// What they mount of the host.
    pub(super) mounts: BTreeSet<Mount>,
    document: Value,
}

/// Reads one file, and says where in it something is wrong.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) allowed: &'a Compose,
    pub(super) bundle: &'a Bundle,
}

impl Reader<'_> {
    pub(super) fn malformed(&self, at: &str, message: impl std::fmt::Display) -> ApplyError {
        ApplyError::Malformed { path: self.file.to_owned(), message: format!("{at} {message}") }
    }

    pub(super) fn beyond(&self, at: &str) -> Result<(), ApplyError> {
        if self.allowed.privileged {
            return Ok(());
        }
        Err(ApplyError::Beyond { what: at.to_owned(), key: PRIVILEGED })
    }

    pub(super) fn map<'v>(&self, value: &'v Value, at: &str) -> Result<&'v Map<String, Value>, ApplyError> {
        value.as_object().ok_or_else(|| self.malformed(at, "is not a mapping"))
    }

    pub(super) fn known(&self, map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), ApplyError> {
        match map.keys().find(|key| !known.contains(&key.as_str()) && !key.starts_with("x-")) {
            Some(key) => Err(self.malformed(&format!("{at}.{key}"), "is not a key that is known here; remove it")),
            None => Ok(()),
        }
    }

    /// Nothing is looked up later: a variable would be, in an environment that nobody sees here.
    fn no_variables(&self, value: &Value, at: &str) -> Result<(), ApplyError> {
        match value {
            Value::String(text) if text.replace("$$", "").contains('$') => {
                Err(self.malformed(at, "holds a variable; have the template fill it in, and write $$ for a dollar"))
            }
            Value::Array(list) => {
                list.iter().enumerate().try_for_each(|(i, v)| self.no_variables(v, &format!("{at}[{i}]")))
            }
            Value::Object(map) => map.iter().try_for_each(|(key, v)| {
                self.no_variables(&Value::String(key.clone()), at)?;
                self.no_variables(v, &format!("{at}.{key}"))
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn mount(&self, path: &str, mounts: &mut BTreeSet<Mount>) -> Result<Mount, ApplyError> {
        let mount = Mount::of(path, &self.allowed.mounts)
            .ok_or_else(|| ApplyError::Beyond { what: format!("mounting {path}"), key: "appliers.compose.mounts" })?;
        mounts.insert(mount.clone());
        Ok(mount)
    }
}

impl Project {
    /// Reads the file of a project.
    pub(super) fn read(bundle: &Bundle, allowed: &Compose) -> Result<Self, ApplyError> {
        let mut files = bundle.files.iter().filter(|file| !file.rooted && NAMES.contains(&file.path.as_str()));
        let malformed =
            |message: &str| ApplyError::Malformed { path: NAMES[0].to_owned(), message: message.to_owned() };
        let file = files.next().ok_or_else(|| malformed("the bundle has no such file at its top"))?;
        if files.next().is_some() {
            return Err(malformed("the bundle has a second file of this kind; one is enough"));
        }
        let reader = Reader { file: &file.path, allowed, bundle };
        let text = file.text(FILE_BYTES)?;
        let value = serde_yaml::Deserializer::from_str(&text);
        let mut document = Value::deserialize(value).map_err(|error| reader.malformed("the file", error))?;
        reader.no_variables(&document, "the file")?;
        let top = document.as_object_mut().ok_or_else(|| reader.malformed("the file", "is not a mapping"))?;
        reader.known(top, "the file", &["configs", "name", "networks", "secrets", "services", "version", "volumes"])?;
        // The project is named after its deployment.
        top.remove("name");
        let mut mounts = BTreeSet::new();
        let none = Map::new();
        let section = |key: &str| match top.get(key) {
            None | Some(Value::Null) => Ok(&none),
            Some(value) => reader.map(value, key),
        };
        for (name, volume) in section("volumes")? {
            reader.volume(volume, &format!("volumes.{name}"))?;
        }
        for (name, network) in section("networks")? {
            reader.network(network, &format!("networks.{name}"))?;
        }
        let volumes: BTreeSet<String> = section("volumes")?.keys().cloned().collect();
        for key in ["configs", "secrets"] {
            for (name, source) in section(key)? {
                let at = format!("{key}.{name}");
                let source = reader.map(source, &at)?;
                reader.known(source, &at, &["content", "file"])?;
                if let Some(path) = source.get("file") {
                    let path = path.as_str().ok_or_else(|| reader.malformed(&at, "has a file that is not a text"))?;
                    reader.mount(path, &mut mounts)?;
                }
            }
        }
        let mut services = BTreeMap::new();
        let Some(all) = top.get_mut("services").and_then(Value::as_object_mut).filter(|all| !all.is_empty()) else {
            return Err(reader.malformed("services", "has to name at least one"));
        };
        for (name, value) in all {
            let mut own = BTreeSet::new();
            let service = reader.service(name, value, &volumes, &mut own)?;
            mounts.append(&mut own);
            if value.get("profiles").is_none() {
                services.insert(name.clone(), service);
            }
        }
        Ok(Self { services, mounts, document })
    }

    /// Returns the digest of everything that it is made from.
    pub(super) fn digest(&self, bundle: &Bundle) -> Digest {
        let mut all = self.document.to_string();
        for file in bundle.files.iter().filter(|file| !file.rooted) {
            all.push_str(&format!("\n{} {} {:o}", file.path, file.sha256, file.mode.bits()));
        }
        Digest::of(all.as_bytes())
    }

    /// Returns what Compose is given: with these labels on every container, and with paths on this host.
    pub(super) fn document(&self, home: &Path, labels: impl Fn(&Digest) -> Vec<(String, String)>) -> String {
        let mut document = self.document.clone();
        for key in ["configs", "secrets"] {
            for source in document.get_mut(key).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
                if let Some(path) = source.get_mut("file") {
                    absolute(path, home);
                }
            }
        }
        let services = document.get_mut("services").and_then(Value::as_object_mut);
        for (name, service) in services.into_iter().flatten() {
            if let Some(known) = self.services.get(name) {
                for (key, value) in labels(&known.digest) {
                    service["labels"][key] = value.into();
                }
            }
            for volume in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
                if volume["type"] == "bind" {
                    absolute(&mut volume["source"], home);
                }
            }
        }
        document.to_string()
    }
}

fn absolute(path: &mut Value, home: &Path) {
    if let Some(mount) = path.as_str().and_then(|text| Mount::of(text, &["/".into()])) {
        *path = mount.path(home).to_string_lossy().as_ref().into();
    }
}

impl Reader<'_> {
    fn volume(&self, value: &Value, at: &str) -> Result<(), ApplyError> {
        if value.is_null() {
            return Ok(());
        }
        let map = self.map(value, at)?;
        self.known(map, at, &["driver", "driver_opts", "labels"])?;
        if map.get("driver").is_some_and(|driver| driver != "local") || map.contains_key("driver_opts") {
            self.beyond(at)?;
        }
        Ok(())
    }

    fn network(&self, value: &Value, at: &str) -> Result<(), ApplyError> {
        if value.is_null() {
            return Ok(());
        }
        let map = self.map(value, at)?;
        self.known(map, at, &["attachable", "driver", "driver_opts", "enable_ipv6", "internal", "ipam", "labels"])?;
        if map.get("driver").is_some_and(|driver| driver != "bridge") || map.contains_key("driver_opts") {
            self.beyond(at)?;
        }
        Ok(())
    }
}
