//! One service of a project: what is known of it, and what the owner allows. Pure.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Map, Value, json};
use titan_api::Digest;

use super::file::{FILE_BYTES, Reader};
use crate::apply::{
    ApplyError,
    podman::references::{Mount, check_image},
};

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

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) image: String,
    pub(super) digest: Digest,
    /// Whether it is started again after its end.
    pub(super) restarts: bool,
}

impl Reader<'_> {
    /// Checks a service, and makes of it what Compose is given.
    pub(super) fn service(
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
