//! Values of a quadlet's settings that say more than one thing.

use std::collections::BTreeSet;

use super::{
    file::{Part, Reader},
    keys::Rule,
};
use crate::apply::{ApplyError, podman::fields};

/// Options of a volume that give nothing away.
const VOLUME: [&str; 17] = [
    "O", "U", "Z", "bind", "copy", "exec", "idmap", "nocopy", "nodev", "noexec", "nosuid", "private", "rbind", "ro",
    "rprivate", "rw", "z",
];
/// Keys of a mount that give nothing away.
const MOUNT: [&str; 19] = [
    "U",
    "chown",
    "destination",
    "dst",
    "nodev",
    "noexec",
    "nosuid",
    "notmpcopyup",
    "readonly",
    "relabel",
    "ro",
    "rw",
    "size",
    "target",
    "tmpcopyup",
    "tmpfs-mode",
    "tmpfs-size",
    "type",
    "volume-nocopy",
];
/// Networks that every podman has.
const NETWORKS: [&str; 6] = ["bridge", "none", "pasta", "podman", "private", "slirp4netns"];
/// Targets that are reached at every boot anyway.
const TARGETS: [&str; 9] = [
    "basic.target",
    "default.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "nss-lookup.target",
    "time-sync.target",
    "timers.target",
];

/// Reads a value by its rule; other quadlets that it names go to `needs`.
pub(super) fn read(
    reader: &Reader<'_>,
    rule: Rule,
    setting: &str,
    value: &str,
    needs: &mut BTreeSet<String>,
) -> Result<Vec<Part>, ApplyError> {
    let plain = vec![Part::Text(value.to_owned())];
    let words = || value.split_whitespace();
    match rule {
        Rule::Volume => return volume(reader, setting, value, needs),
        Rule::Mount => return mount(reader, setting, value, needs),
        Rule::File => {
            if value.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c)) || value.starts_with('-') {
                return Err(reader.malformed(format!("{setting}: it has to be the path of one file")));
            }
            return Ok(vec![Part::Path(reader.mount(value, setting)?)]);
        }
        Rule::Network => network(reader, setting, value, needs)?,
        Rule::Labels if words().any(|word| word.trim_start_matches(['"', '\'']).starts_with("titan.")) => {
            return Err(reader.malformed(format!("{setting}: labels that begin with titan. are the agent's own")));
        }
        // By these podman knows what it is to update by itself.
        Rule::Labels if value.contains("io.containers.") || value.contains('\\') => reader.privileged(setting)?,
        Rule::Annotations => {
            let acts = |word: &str| fields::acts(word.trim_start_matches(['"', '\'']));
            if words().any(acts) || value.contains('\\') {
                reader.privileged(setting)?;
            }
        }
        Rule::Users => {
            let kind = value.split_once(':').map_or(value, |(kind, _)| kind);
            if !["auto", "keep-id", "nomap"].contains(&kind) {
                reader.privileged(setting)?;
            }
        }
        Rule::Pull if !["missing", "never"].contains(&value) => {
            let message =
                format!("{setting}: leave it out; images are pulled before the switch, and not at every start");
            return Err(reader.malformed(message));
        }
        Rule::Units => {
            for word in words().filter(|word| !TARGETS.contains(word)) {
                if !reader.own.contains(word) {
                    reader.privileged(setting)?;
                }
            }
        }
        Rule::Wanted => {
            for word in words().filter(|word| !word.ends_with(".target") || word.contains('%')) {
                if !reader.own.contains(word) {
                    reader.privileged(setting)?;
                }
            }
        }
        _ => {}
    }
    Ok(plain)
}

/// Reads `source:where:options`, or `where` alone for a volume without a name.
fn volume(
    reader: &Reader<'_>,
    setting: &str,
    value: &str,
    needs: &mut BTreeSet<String>,
) -> Result<Vec<Part>, ApplyError> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, options) = match parts.as_slice() {
        [_] => return Ok(vec![Part::Text(value.to_owned())]),
        [source, _] => (*source, ""),
        [source, _, options] => (*source, *options),
        _ => return Err(reader.malformed(format!("{setting}: it is not source:where:options"))),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if !VOLUME.contains(&option) {
            reader.privileged(setting)?;
        }
    }
    if source.ends_with(".volume") && !source.contains('/') {
        needs.insert(reader.known(source, setting)?);
        return Ok(vec![Part::Text(value.to_owned())]);
    }
    if !source.starts_with(['/', '.']) {
        let message = format!(
            "{setting}: a volume of that name may be anybody's; describe it in a .volume file, or write ./ before a path of the bundle"
        );
        return Err(reader.malformed(message));
    }
    let rest = &value[source.len()..];
    Ok(vec![Part::Path(reader.mount(source, setting)?), Part::Text(rest.to_owned())])
}

/// Reads `type=...,source=...,...`.
fn mount(
    reader: &Reader<'_>,
    setting: &str,
    value: &str,
    needs: &mut BTreeSet<String>,
) -> Result<Vec<Part>, ApplyError> {
    let plain = || vec![Part::Text(value.to_owned())];
    if value.contains(['"', '\'', '\\', '%']) {
        return reader.privileged(setting).map(|()| plain());
    }
    let fields: Vec<(&str, &str)> =
        value.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
    let is_source = |key: &str| key == "source" || key == "src";
    let kinds: Vec<&str> = fields.iter().filter(|(key, _)| *key == "type").map(|(_, kind)| *kind).collect();
    let sources: Vec<&str> = fields.iter().filter(|(key, _)| is_source(key)).map(|(_, source)| *source).collect();
    let known = |key: &str| is_source(key) || MOUNT.contains(&key);
    let source = match (kinds.as_slice(), sources.as_slice()) {
        _ if !fields.iter().all(|(key, _)| known(key)) => return reader.privileged(setting).map(|()| plain()),
        (["tmpfs" | "volume"], []) => return Ok(plain()),
        (["volume"], [source]) if source.ends_with(".volume") => {
            needs.insert(reader.known(source, setting)?);
            return Ok(plain());
        }
        (["bind"], [source]) => *source,
        _ => return reader.privileged(setting).map(|()| plain()),
    };
    let mount = reader.mount(source, setting)?;
    let mut parts = Vec::new();
    for (index, (key, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        if is_source(key) {
            parts.extend([Part::Text(format!("{comma}{key}=")), Part::Path(mount.clone())]);
        } else if value.is_empty() {
            parts.push(Part::Text(format!("{comma}{key}")));
        } else {
            parts.push(Part::Text(format!("{comma}{key}={value}")));
        }
    }
    Ok(parts)
}

fn network(reader: &Reader<'_>, setting: &str, value: &str, needs: &mut BTreeSet<String>) -> Result<(), ApplyError> {
    let (name, options) = value.split_once(':').unwrap_or((value, ""));
    if name.ends_with(".network") || name.ends_with(".container") {
        needs.insert(reader.known(name, setting)?);
        return Ok(());
    }
    // Options of what connects without a bridge open ways to the host itself.
    let plain = NETWORKS.contains(&name) && (options.is_empty() || name == "bridge");
    if plain { Ok(()) } else { reader.privileged(setting) }
}
