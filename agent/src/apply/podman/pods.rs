//! One pod of `kube` YAML: what it asks for, whether it may, and what podman is to play. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};
use titan_api::Digest;

use super::{
    fields::{self, Reader},
    kube::{Volume, check_name, not_named},
    references::{self, Mount},
};
use crate::{apply::ApplyError, bundles::Bundle, config::appliers};

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    /// Its name, which is the only one of a pod on the host.
    pub(super) name: String,
    /// The images that its containers want.
    pub(super) images: BTreeSet<String>,
    /// The names that its containers will have.
    pub(super) containers: Vec<String>,
    /// Whether its containers are to run for ever, rather than until they have done their work.
    pub(super) forever: bool,
    /// Whether they are not started again whatever their end was.
    pub(super) never_again: bool,
    /// How many seconds its containers have to end.
    pub(super) grace: u64,
    /// What it mounts of the host.
    pub(super) mounts: Vec<Mount>,
    /// The volumes that it wants.
    pub(super) volumes: BTreeSet<String>,
    /// Images that are to be pulled even if there is one of that name.
    pub(super) always: BTreeSet<String>,
    document: Value,
    configs: Vec<Value>,
    files: String,
}

impl Pod {
    pub(super) fn read(
        reader: &Reader<'_>,
        mut document: Value,
        configs: &BTreeMap<String, Value>,
        volumes: &mut BTreeMap<String, Volume>,
    ) -> Result<Self, ApplyError> {
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = format!("Pod {name}");
        if !appliers::allows(&reader.allowed.names, &name) {
            return Err(not_named("pod", &name));
        }
        if let Some(annotations) = document["metadata"]["annotations"].as_object() {
            reader.annotations(annotations, &at)?;
        }
        let mut pod = Self {
            name,
            images: BTreeSet::new(),
            containers: Vec::new(),
            forever: true,
            never_again: false,
            grace: 10,
            mounts: Vec::new(),
            volumes: BTreeSet::new(),
            always: BTreeSet::new(),
            document: Value::Null,
            configs: Vec::new(),
            files: String::new(),
        };
        let at = format!("{at}: spec");
        let mut used = BTreeSet::new();
        let spec = document["spec"].take();
        let mut spec = reader.object(&spec, &at, &fields::SPEC)?.clone();
        reader.security(&spec, &at)?;
        let restart = spec.get("restartPolicy").and_then(Value::as_str);
        (pod.forever, pod.never_again) = (matches!(restart, None | Some("Always")), restart == Some("Never"));
        pod.grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(10).min(600);
        for key in ["initContainers", "containers"] {
            for (at, container) in reader.list(&spec, &at, key)? {
                pod.check_container(reader, container, &at, key == "containers")?;
            }
            for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                environment(reader, container, &at, configs, &mut used)?;
            }
        }
        if pod.containers.is_empty() {
            return Err(reader.malformed(&at, "has no containers"));
        }
        for (i, volume) in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            let at = format!("{at}.volumes[{i}]");
            pod.check_volume(reader, volume, &at, configs, &mut used, volumes)?;
        }
        document["spec"] = Value::Object(spec);
        pod.document = document;
        pod.configs = used.iter().filter_map(|name| configs.get(name)).cloned().collect();
        Ok(pod)
    }

    fn check_container(&mut self, reader: &Reader<'_>, value: &Value, at: &str, stays: bool) -> Result<(), ApplyError> {
        let container = reader.object(value, at, &fields::CONTAINER)?;
        let name = reader.text(container, at, "name")?;
        check_name(reader, name, &format!("{at}.name"))?;
        let image = reader.text(container, at, "image")?;
        references::check_image(image, &reader.allowed.registries, "appliers.podman.registries")
            .map_err(|error| error.of(reader.file))?;
        reader.container(container, at)?;
        if stays {
            self.containers.push(format!("{}-{name}", self.name));
        }
        if !image.contains('@') && container.get("imagePullPolicy").and_then(Value::as_str) == Some("Always") {
            self.always.insert(image.to_owned());
        }
        self.images.insert(image.to_owned());
        Ok(())
    }

    fn check_volume(
        &mut self,
        reader: &Reader<'_>,
        value: &mut Value,
        at: &str,
        configs: &BTreeMap<String, Value>,
        used: &mut BTreeSet<String>,
        volumes: &mut BTreeMap<String, Volume>,
    ) -> Result<(), ApplyError> {
        reader.object(value, at, &fields::VOLUME)?;
        let Some(volume) = value.as_object_mut() else { return Ok(()) };
        reader.text(volume, at, "name")?;
        let kinds: Vec<String> = volume.keys().filter(|key| *key != "name").cloned().collect();
        let [kind] = kinds.as_slice() else { return Err(reader.malformed(at, "has to have one source")) };
        let mut source = volume.remove(kind).unwrap_or_default();
        if source.is_null() {
            source = json!({});
        }
        let at = format!("{at}.{kind}");
        match kind.as_str() {
            "hostPath" => {
                let map = reader.object(&source, &at, &fields::HOST_PATH)?;
                let path = reader.text(map, &at, "path")?;
                let device = matches!(map.get("type").and_then(Value::as_str), Some("BlockDevice" | "CharDevice"));
                if device && !reader.allowed.privileged {
                    return Err(ApplyError::Beyond { what: format!("the device {path}"), key: fields::PRIVILEGED });
                }
                let mount = Mount::of(path, &reader.allowed.mounts).ok_or_else(|| ApplyError::Beyond {
                    what: format!("mounting {path}"),
                    key: "appliers.podman.mounts",
                })?;
                self.mounts.push(mount);
            }
            "configMap" | "secret" => {
                let (keys, key) = match kind.as_str() {
                    "secret" => (&fields::SECRET_VOLUME, "secretName"),
                    _ => (&fields::CONFIG_VOLUME, "name"),
                };
                let mut map = reader.object(&source, &at, keys)?.clone();
                let name = reader.text(&map, &at, key)?.to_owned();
                let Some(document) = configs.get(&name) else {
                    return Err(reader.malformed(&at, format!("names {name:?}, which is not in the bundle")));
                };
                reader.items(&mut map, &at)?;
                map.remove(key);
                map.insert("name".to_owned(), name.clone().into());
                if !appliers::allows(&reader.allowed.names, &name) {
                    return Err(not_named("volume", &name));
                }
                let digest = Digest::of(document.to_string().as_bytes());
                volumes.insert(name.clone(), Volume { digest, goes: true, config: true });
                self.volumes.insert(name.clone());
                used.insert(name);
                volume.insert("configMap".to_owned(), Value::Object(map));
                return Ok(());
            }
            "persistentVolumeClaim" => {
                let map = reader.object(&source, &at, &fields::CLAIM)?;
                let name = reader.text(map, &at, "claimName")?;
                if volumes.get(name).is_none_or(|volume| volume.config) {
                    let why = format!("names {name:?}, of which the bundle has no PersistentVolumeClaim");
                    return Err(reader.malformed(&at, why));
                }
                self.volumes.insert(name.to_owned());
            }
            _ => drop(reader.object(&source, &at, &fields::EMPTY_DIR)?),
        }
        volume.insert(kind.clone(), source);
        Ok(())
    }

    /// Takes in what it mounts of the deployment's own directory: it is made anew when that changes. If the directory is
    /// `exchanged` as a whole at each change, a mount of a part of it would show what was thrown away.
    pub(super) fn take_files(&mut self, bundle: &Bundle, exchanged: bool) {
        self.files = references::own_files(&self.mounts, bundle, exchanged);
    }

    /// Returns the digest of everything that it is made from.
    pub(super) fn digest(&self) -> Digest {
        let mut all = self.document.to_string();
        for config in &self.configs {
            all.push('\n');
            all.push_str(&config.to_string());
        }
        all.push('\n');
        all.push_str(&self.files);
        Digest::of(all.as_bytes())
    }

    /// Returns what podman is to play: with these labels, with each image as `image` knows it, and with paths on this
    /// host.
    pub(super) fn play(
        &self,
        labels: &BTreeMap<String, String>,
        home: &Path,
        image: impl Fn(&str) -> String,
    ) -> String {
        let mut text: String = self.configs.iter().map(|config| format!("{config}\n---\n")).collect();
        let mut document = self.document.clone();
        for (key, value) in labels {
            document["metadata"]["labels"][key] = value.as_str().into();
        }
        let mut mounts = self.mounts.iter();
        for volume in document["spec"]["volumes"].as_array_mut().into_iter().flatten() {
            if let Some(path) = volume.get_mut("hostPath").and_then(|source| source.get_mut("path"))
                && let Some(mount) = mounts.next()
            {
                *path = mount.path(home).to_string_lossy().as_ref().into();
            }
        }
        for key in ["initContainers", "containers"] {
            for container in document["spec"].get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                let wanted = container["image"].as_str().map(&image).unwrap_or_default();
                container["image"] = wanted.into();
                // It was pulled before the switch; from here on the network is not needed.
                container["imagePullPolicy"] = "Never".into();
            }
        }
        text.push_str(&document.to_string());
        text.push('\n');
        text
    }
}

/// Checks a container's environment, and makes what it reads of secrets come from their config maps.
fn environment(
    reader: &Reader<'_>,
    container: &mut Value,
    at: &str,
    configs: &BTreeMap<String, Value>,
    used: &mut BTreeSet<String>,
) -> Result<(), ApplyError> {
    let Some(container) = container.as_object_mut() else { return Ok(()) };
    let mut known = |source: &Value, at: &str| {
        let map = reader.object(source, at, &fields::REFERENCE)?;
        let name = reader.text(map, at, "name")?;
        if configs.contains_key(name) {
            used.insert(name.to_owned());
        } else if map.get("optional") != Some(&Value::Bool(true)) {
            return Err(reader.malformed(at, format!("names {name:?}, which is not in the bundle")));
        }
        Ok(())
    };
    for (at, entry) in reader.list(container, at, "env")? {
        let entry = reader.object(entry, &at, &fields::ENV)?;
        reader.text(entry, &at, "name")?;
        if entry.get("value").is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(reader.malformed(&format!("{at}.value"), "has to be a text; put it in quotes"));
        }
        let Some(from) = entry.get("valueFrom").filter(|from| !from.is_null()) else { continue };
        let from = reader.object(from, &format!("{at}.valueFrom"), &fields::ENV_SOURCE)?;
        for key in ["configMapKeyRef", "secretKeyRef"] {
            from.get(key).map(|source| known(source, &format!("{at}.valueFrom.{key}"))).transpose()?;
        }
    }
    for (at, entry) in reader.list(container, at, "envFrom")? {
        let entry = reader.object(entry, &at, &fields::ENV_FROM)?;
        for key in ["configMapRef", "secretRef"] {
            entry.get(key).map(|source| known(source, &format!("{at}.{key}"))).transpose()?;
        }
    }
    let entries = |list: Option<&mut Value>| list.and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let rename = |mut entry: Value, from: &str, to: &str| {
        if let Some(map) = entry.as_object_mut()
            && let Some(source) = map.remove(from)
        {
            map.insert(to.to_owned(), source);
        }
        entry
    };
    let env = entries(container.get_mut("env")).into_iter().map(|mut entry| {
        if let Some(from) = entry.get_mut("valueFrom") {
            *from = rename(from.take(), "secretKeyRef", "configMapKeyRef");
        }
        entry
    });
    let env: Vec<Value> = env.collect();
    let from = entries(container.get_mut("envFrom")).into_iter();
    let from: Vec<Value> = from.map(|entry| rename(entry, "secretRef", "configMapRef")).collect();
    if !env.is_empty() {
        container.insert("env".to_owned(), env.into());
    }
    if !from.is_empty() {
        container.insert("envFrom".to_owned(), from.into());
    }
    Ok(())
}
