//! Keys of `kube` YAML: those that are known, and those that only an owner who allows `privileged` lets through.
//!
//! A key that is not known is refused rather than passed on: podman reads keys without regard to case, so `hostnetwork`
//! would mean what `hostNetwork` does, behind the back of whoever looked for the latter.

use serde_json::{Map, Value};

use crate::{apply::ApplyError, config::appliers::Podman};

/// The key that allows what is privileged.
pub(super) const PRIVILEGED: &str = "appliers.podman.privileged";

/// Keys of one kind of object.
pub(super) struct Keys {
    free: &'static [&'static str],
    privileged: &'static [&'static str],
}

const fn keys(free: &'static [&'static str], privileged: &'static [&'static str]) -> Keys {
    Keys { free, privileged }
}

/// Of a pod's `spec`.
pub(super) const SPEC: Keys = keys(
    &[
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostname",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
        "priorityClassName",
        "restartPolicy",
        "schedulerName",
        "securityContext",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "volumes",
    ],
    &["hostIPC", "hostNetwork", "hostPID", "hostUsers", "runtimeClassName"],
);

/// Of a container.
pub(super) const CONTAINER: Keys = keys(
    &[
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resources",
        "restartPolicy",
        "securityContext",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeMounts",
        "workingDir",
    ],
    &["volumeDevices"],
);

/// Of a `securityContext`.
const SECURITY: Keys = keys(
    &[
        "allowPrivilegeEscalation",
        "capabilities",
        "fsGroup",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
        "supplementalGroups",
    ],
    &["appArmorProfile", "privileged", "procMount", "seLinuxOptions", "sysctls"],
);
const CAPABILITIES: Keys = keys(&["drop"], &["add"]);
const SECCOMP: Keys = keys(&["type"], &["localhostProfile"]);
const PORT: Keys = keys(&["containerPort", "hostIP", "hostPort", "name", "protocol"], &[]);
const MOUNT: Keys = keys(&["mountPath", "name", "readOnly", "subPath"], &["mountPropagation"]);
const RESOURCES: Keys = keys(&["limits", "requests"], &["claims"]);
const AMOUNTS: Keys = keys(&["cpu", "ephemeral-storage", "memory"], &["io.podman/device", "podman.io/device"]);
pub(super) const ENV: Keys = keys(&["name", "value", "valueFrom"], &[]);
pub(super) const ENV_SOURCE: Keys = keys(&["configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef"], &[]);
pub(super) const ENV_FROM: Keys = keys(&["configMapRef", "prefix", "secretRef"], &[]);
pub(super) const REFERENCE: Keys = keys(&["key", "name", "optional"], &[]);
pub(super) const VOLUME: Keys =
    keys(&["configMap", "emptyDir", "hostPath", "name", "persistentVolumeClaim", "secret"], &[]);
pub(super) const HOST_PATH: Keys = keys(&["path", "type"], &[]);
pub(super) const EMPTY_DIR: Keys = keys(&["medium", "sizeLimit"], &[]);
pub(super) const CLAIM: Keys = keys(&["claimName", "readOnly"], &[]);
pub(super) const CONFIG_VOLUME: Keys = keys(&["defaultMode", "items", "name", "optional"], &[]);
pub(super) const SECRET_VOLUME: Keys = keys(&["defaultMode", "items", "optional", "secretName"], &[]);
const PATH_ITEM: Keys = keys(&["key", "mode", "path"], &[]);

/// Annotations with these beginnings change how a container is run, not what people read about it.
const ANNOTATIONS: [&str; 9] = [
    "io.podman.",
    "io.containers.",
    "io.kubernetes.cri-o.",
    "run.oci.",
    "org.systemd.",
    "org.criu.",
    "org.opencontainers.image.stopsignal",
    "volume.podman.io/",
    "bind-mount-options",
];

/// Reads one file, and says where in it something is wrong.
pub(super) struct Reader<'a> {
    /// The file.
    pub(super) file: &'a str,
    /// What the owner allows.
    pub(super) allowed: &'a Podman,
}

impl Reader<'_> {
    pub(super) fn malformed(&self, at: &str, message: impl std::fmt::Display) -> ApplyError {
        ApplyError::Malformed { path: self.file.to_owned(), message: format!("{at} {message}") }
    }

    /// Returns an object, if it has none but the keys that it may have.
    pub(super) fn object<'v>(
        &self,
        value: &'v Value,
        at: &str,
        keys: &Keys,
    ) -> Result<&'v Map<String, Value>, ApplyError> {
        let map = value.as_object().ok_or_else(|| self.malformed(at, "is not a mapping"))?;
        for key in map.keys() {
            if keys.free.contains(&key.as_str()) {
                continue;
            }
            if !keys.privileged.contains(&key.as_str()) {
                return Err(self.malformed(&format!("{at}.{key}"), "is not a key that is known here; remove it"));
            }
            // What is switched off asks for nothing.
            if !self.allowed.privileged && map[key] != Value::Bool(false) && !map[key].is_null() {
                return Err(ApplyError::Beyond { what: format!("{at}.{key}"), key: PRIVILEGED });
            }
        }
        Ok(map)
    }

    /// Returns the entries of a list, each with its place; none if there is no list.
    pub(super) fn list<'v>(
        &self,
        map: &'v Map<String, Value>,
        at: &str,
        key: &str,
    ) -> Result<Vec<(String, &'v Value)>, ApplyError> {
        let at = format!("{at}.{key}");
        match map.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list.iter().enumerate().map(|(i, v)| (format!("{at}[{i}]"), v)).collect()),
            Some(_) => Err(self.malformed(&at, "is not a list")),
        }
    }

    /// Returns a text that has to be there.
    pub(super) fn text<'v>(&self, map: &'v Map<String, Value>, at: &str, key: &str) -> Result<&'v str, ApplyError> {
        let text = map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| self.malformed(&format!("{at}.{key}"), "has to be a text"))
    }

    /// Checks what a pod or container says of its rights.
    pub(super) fn security(&self, map: &Map<String, Value>, at: &str) -> Result<(), ApplyError> {
        let Some(value) = map.get("securityContext").filter(|value| !value.is_null()) else { return Ok(()) };
        let at = format!("{at}.securityContext");
        let security = self.object(value, &at, &SECURITY)?;
        if let Some(capabilities) = security.get("capabilities").filter(|value| !value.is_null()) {
            self.object(capabilities, &format!("{at}.capabilities"), &CAPABILITIES)?;
        }
        if let Some(seccomp) = security.get("seccompProfile").filter(|value| !value.is_null()) {
            let at = format!("{at}.seccompProfile");
            let profile = self.object(seccomp, &at, &SECCOMP)?;
            if !self.allowed.privileged && self.text(profile, &at, "type")? != "RuntimeDefault" {
                return Err(ApplyError::Beyond { what: at, key: PRIVILEGED });
            }
        }
        Ok(())
    }

    /// Checks the parts of a container that are passed on as they are.
    pub(super) fn container(&self, map: &Map<String, Value>, at: &str) -> Result<(), ApplyError> {
        self.security(map, at)?;
        for (at, port) in self.list(map, at, "ports")? {
            self.object(port, &at, &PORT)?;
        }
        for (at, mount) in self.list(map, at, "volumeMounts")? {
            let mount = self.object(mount, &at, &MOUNT)?;
            let sub = mount.get("subPath").and_then(Value::as_str).unwrap_or_default();
            if sub.starts_with('/') || sub.split('/').any(|part| part == "..") {
                return Err(self.malformed(&format!("{at}.subPath"), "leaves its volume"));
            }
        }
        if let Some(resources) = map.get("resources").filter(|value| !value.is_null()) {
            let at = format!("{at}.resources");
            for (key, amounts) in self.object(resources, &at, &RESOURCES)? {
                if key != "claims" && !amounts.is_null() {
                    self.object(amounts, &format!("{at}.{key}"), &AMOUNTS)?;
                }
            }
        }
        Ok(())
    }

    /// Checks annotations.
    pub(super) fn annotations(&self, map: &Map<String, Value>, at: &str) -> Result<(), ApplyError> {
        match map.keys().find(|key| acts(key)).filter(|_| !self.allowed.privileged) {
            Some(key) => Err(ApplyError::Beyond { what: format!("{at}.annotations[{key:?}]"), key: PRIVILEGED }),
            None => Ok(()),
        }
    }

    /// Checks the files that a volume is to have; modes may be written in octal, which is how people think of them.
    pub(super) fn items(&self, source: &mut Map<String, Value>, at: &str) -> Result<(), ApplyError> {
        octal(source, "defaultMode");
        for (at, item) in self.list(source, at, "items")? {
            let item = self.object(item, &at, &PATH_ITEM)?;
            let path = self.text(item, &at, "path")?;
            if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(self.malformed(&format!("{at}.path"), "leaves its volume"));
            }
        }
        for item in source.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(item) = item.as_object_mut() {
                octal(item, "mode");
            }
        }
        Ok(())
    }
}

/// Whether an annotation changes how a container is run.
pub(super) fn acts(annotation: &str) -> bool {
    let annotation = annotation.to_ascii_lowercase();
    ANNOTATIONS.iter().any(|start| annotation.starts_with(start))
}

/// Makes a number of what YAML 1.1 takes for one in octal and YAML 1.2 for a text: `0644`, `0o644`.
fn octal(map: &mut Map<String, Value>, key: &str) {
    if let Some(text) = map.get(key).and_then(Value::as_str)
        && let Ok(mode) = u32::from_str_radix(text.trim_start_matches("0o"), 8)
    {
        map.insert(key.to_owned(), mode.into());
    }
}
