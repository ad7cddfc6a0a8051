//! The file of a project: what is known of it, what the owner allows, and what Compose is given instead of it. Pure.
//!
//! Compose gets a file that was made from what was looked at, with nothing left to be looked up: no variables, no other
//! files that say what to run, no paths but absolute ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use titan_api::Digest;

use crate::{
    apply::{
        ApplyError,
        podman::references::{Mount, check_image},
    },
    bundles::Bundle,
    config::appliers::Compose,
};

/// The names that the file may have, at the bundle's top.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The largest file, in bytes.
const FILE_BYTES: usize = 1024 * 1024;
/// The key that allows what is privileged.
const PRIVILEGED: &str = "appliers.compose.privileged";

/// Keys of a service that ask for nothing of the host.
const FREE: &[&str] = &[
    "command",
    "configs",
    "cpu_shares",
    "cpus",
    "depends_on",
    "deploy",
    "dns",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "labels",
    "mem_limit",
    "mem_reservation",
    "network_mode",
    "networks",
    "pids_limit",
    "ports",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "secrets",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
    "cap_drop",
    "platform",
];
/// Keys of a service that only an owner who allows `privileged` lets through.
const OWNERS: &[&str] = &[
    "annotations",
    "cap_add",
    "cgroup",
    "cgroup_parent",
    "device_cgroup_rules",
    "devices",
    "gpus",
    "group_add",
    "ipc",
    "logging",
    "pid",
    "privileged",
    "runtime",
    "security_opt",
    "sysctls",
    "userns_mode",
    "uts",
];
/// Labels with these beginnings are Compose's and the agent's own.
const LABELS: [&str; 3] = ["titan.", "com.docker.compose.", "io.podman.compose."];

/// A project.
#[derive(Debug)]
pub(super) struct Project {
    /// The services that are to run, each with the digest of what it is made from.
    pub(super) services: BTreeMap<String, Service>,
    /// What they mount of the host.
    pub(super) mounts: BTreeSet<Mount>,
    document: Value,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) image: String,
    pub(super) digest: Digest,
    /// Whether it is started again after its end.
    pub(super) restarts: bool,
}

struct Reader<'a> {
    file: &'a str,
    allowed: &'a Compose,
    bundle: &'a Bundle,
}

impl Reader<'_> {
    fn malformed(&self, at: &str, message: impl std::fmt::Display) -> ApplyError {
        ApplyError::Malformed { path: self.file.to_owned(), message: format!("{at} {message}") }
    }

    fn beyond(&self, at: &str) -> Result<(), ApplyError> {
        if self.allowed.privileged {
            return Ok(());
        }
        Err(ApplyError::Beyond { what: at.to_owned(), key: PRIVILEGED })
    }

    fn map<'v>(&self, value: &'v Value, at: &str) -> Result<&'v Map<String, Value>, ApplyError> {
        value.as_object().ok_or_else(|| self.malformed(at, "is not a mapping"))
    }

    fn known(&self, map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), ApplyError> {
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

    fn mount(&self, path: &str, mounts: &mut BTreeSet<Mount>) -> Result<Mount, ApplyError> {
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

    fn service(
        &self,
        name: &str,
        value: &mut Value,
        volumes: &BTreeSet<String>,
        mounts: &mut BTreeSet<Mount>,
    ) -> Result<Service, ApplyError> {
        let at = format!("services.{name}");
        let map = value.as_object_mut().ok_or_else(|| self.malformed(&at, "is not a mapping"))?;
        for key in ["build", "extends"] {
            if map.contains_key(key) {
                return Err(self.malformed(&format!("{at}.{key}"), "is not done on hosts; name an image"));
            }
        }
        if map.contains_key("container_name") {
            return Err(
                self.malformed(&format!("{at}.container_name"), "is not used: containers are named after the project")
            );
        }
        self.known(map, &at, &[FREE, OWNERS].concat())?;
        if let Some(key) = OWNERS.iter().find(|key| map.get(**key).is_some_and(|v| !v.is_null() && *v != false)) {
            self.beyond(&format!("{at}.{key}"))?;
        }
        if map.get("deploy").is_some_and(|deploy| deploy.to_string().contains("\"devices\"")) {
            self.beyond(&format!("{at}.deploy"))?;
        }
        if let Some(mode) = map.get("network_mode").and_then(Value::as_str)
            && !matches!(mode, "none" | "bridge" | "default")
            && !mode.starts_with("service:")
        {
            self.beyond(&format!("{at}.network_mode"))?;
        }
        let image = map.get("image").and_then(Value::as_str).ok_or_else(|| self.malformed(&at, "has no image"))?;
        let image = image.to_owned();
        check_image(&image, &self.allowed.registries, "appliers.compose.registries")
            .map_err(|error| error.of(self.file))?;
        let list = match map.remove("volumes") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.malformed(&format!("{at}.volumes"), "is not a list")),
        };
        let list = list
            .into_iter()
            .enumerate()
            .map(|(i, v)| self.service_volume(v, &format!("{at}.volumes[{i}]"), volumes, mounts));
        let list: Vec<Value> = list.collect::<Result<_, _>>()?;
        if !list.is_empty() {
            map.insert("volumes".to_owned(), list.into());
        }
        let labels = self.pairs(map.remove("labels"), &format!("{at}.labels"))?;
        if let Some(key) = labels.keys().find(|key| LABELS.iter().any(|start| key.starts_with(start))) {
            return Err(self.malformed(&format!("{at}.labels"), format!("has {key}, which is not free to be set")));
        }
        map.insert("labels".to_owned(), Value::Object(labels));
        let environment = self.environment(map, &at)?;
        map.insert("environment".to_owned(), Value::Object(environment));
        // It was pulled before the switch; from here on the network is not needed.
        map.insert("pull_policy".to_owned(), "never".into());
        let restarts = map.get("restart").and_then(Value::as_str).is_some_and(|restart| restart != "no");
        let mut all = value.to_string();
        for mount in mounts.iter() {
            let Mount::Own(path) = mount else { continue };
            for file in self.bundle.files.iter().filter(|file| Path::new(&file.path).starts_with(path)) {
                all.push_str(&format!("\n{} {}", file.path, file.sha256));
            }
        }
        Ok(Service { image, digest: Digest::of(all.as_bytes()), restarts })
    }

    /// Returns a mount in its long form.
    fn service_volume(
        &self,
        value: Value,
        at: &str,
        volumes: &BTreeSet<String>,
        mounts: &mut BTreeSet<Mount>,
    ) -> Result<Value, ApplyError> {
        let long = match value {
            Value::String(text) => {
                let parts: Vec<&str> = text.split(':').collect();
                let (source, target, options) = match parts.as_slice() {
                    [target] => return Ok(json!({ "type": "volume", "target": target })),
                    [source, target] => (*source, *target, ""),
                    [source, target, options] => (*source, *target, *options),
                    _ => return Err(self.malformed(at, "is not source:target:options")),
                };
                if options.split(',').any(|option| !matches!(option, "" | "ro" | "rw")) {
                    return Err(self.malformed(at, "has options other than ro and rw; write it in its long form"));
                }
                let bind = source.starts_with(['.', '/', '~']);
                let kind = if bind { "bind" } else { "volume" };
                let read_only = options.split(',').any(|option| option == "ro");
                json!({ "type": kind, "source": source, "target": target, "read_only": read_only })
            }
            long => long,
        };
        let map = self.map(&long, at)?;
        self.known(map, at, &["bind", "read_only", "source", "target", "tmpfs", "type", "volume"])?;
        let source = map.get("source").and_then(Value::as_str);
        match (map.get("type").and_then(Value::as_str), source) {
            (Some("bind"), Some(source)) => {
                if let Some(bind) = map.get("bind") {
                    let at = format!("{at}.bind");
                    let bind = self.map(bind, &at)?;
                    self.known(bind, &at, &["create_host_path", "propagation"])?;
                    if bind.contains_key("propagation") {
                        self.beyond(&format!("{at}.propagation"))?;
                    }
                }
                if source.starts_with('~') {
                    return Err(self.malformed(at, "begins at a home directory; write it as an absolute path"));
                }
                self.mount(source, mounts)?;
            }
            (Some("volume"), Some(source)) if volumes.contains(source) => {}
            (Some("volume"), Some(source)) => {
                return Err(self.malformed(at, format!("names {source:?}, which is not among the file's volumes")));
            }
            (Some("volume" | "tmpfs"), None) => {}
            _ => return Err(self.malformed(at, "is neither bind, volume nor tmpfs with what that needs")),
        }
        Ok(long)
    }

    /// Returns a mapping, or a list of `key=value`, as a mapping.
    fn pairs(&self, value: Option<Value>, at: &str) -> Result<Map<String, Value>, ApplyError> {
        match value {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) if map.values().all(|v| !v.is_object() && !v.is_array() && !v.is_null()) => {
                let text = |v: Value| if v.is_string() { v } else { v.to_string().into() };
                Ok(map.into_iter().map(|(key, v)| (key, text(v))).collect())
            }
            Some(Value::Array(list)) => {
                let pair = |v: &Value| v.as_str()?.split_once('=').map(|(k, v)| (k.to_owned(), Value::from(v)));
                let pairs: Option<Map<String, Value>> = list.iter().map(pair).collect();
                pairs.ok_or_else(|| self.malformed(at, "has an entry that is not key=value"))
            }
            Some(_) => Err(self.malformed(at, "has a key without a value")),
        }
    }

    /// Returns the environment, with what files of the bundle say beneath it.
    fn environment(&self, map: &mut Map<String, Value>, at: &str) -> Result<Map<String, Value>, ApplyError> {
        let own = self.pairs(map.remove("environment"), &format!("{at}.environment"))?;
        let at = format!("{at}.env_file");
        let files = match map.remove("env_file") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(path)) => vec![path],
            Some(Value::Array(list)) => {
                let texts: Option<_> = list.iter().map(|path| path.as_str().map(str::to_owned)).collect();
                texts.ok_or_else(|| self.malformed(&at, "has an entry that is not a path"))?
            }
            Some(_) => return Err(self.malformed(&at, "is neither a path nor a list of paths")),
        };
        let mut environment = Map::new();
        for path in files {
            let wanted = path.strip_prefix("./").unwrap_or(&path);
            let file = self.bundle.files.iter().find(|file| !file.rooted && file.path == wanted);
            let file =
                file.ok_or_else(|| self.malformed(&at, format!("names {path:?}, which is not in the bundle")))?;
            for line in file.text(FILE_BYTES)?.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                let (key, value) = line
                    .split_once('=')
                    .ok_or_else(|| self.malformed(&at, format!("{path}: {line:?} is not KEY=value")))?;
                // What Compose reads is looked through for variables; here it means itself.
                environment.insert(key.trim().to_owned(), value.replace('$', "$$").into());
            }
        }
        environment.extend(own);
        Ok(environment)
    }
}
