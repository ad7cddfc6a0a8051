//! What each unit is made from, so that only what changed is restarted.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::Digest;

use super::Units;
use crate::{
    apply::{
        Target,
        systemd::names::{self, DROP_IN, UNIT},
    },
    bundles::{Bundle, BundleFile},
    claims::{Claim, Claims},
};

/// Returns the claims of units that were read from a bundle, each with the digest of what it is made from: a unit from its
/// file, its drop-ins, and the plain files that these name. A plain file that nobody names counts for every service.
pub(super) fn claims(
    target: &Target,
    bundle: &Bundle,
    units: &Units,
    texts: &BTreeMap<String, String>,
    instances: &BTreeMap<String, String>,
) -> Claims {
    let home = target.home();
    let by_path: BTreeMap<&str, &BundleFile> = bundle.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let parts: BTreeMap<&str, BTreeSet<&str>> = units
        .own
        .keys()
        .map(|name| {
            let template = instances.get(name);
            let of = |unit: &str| unit == name || template.is_some_and(|template| template == unit);
            let mine = |path: &&String| names::drop_in(path).map_or_else(|| of(path), |(unit, _)| of(unit));
            (name.as_str(), texts.keys().filter(mine).map(String::as_str).collect())
        })
        .collect();
    let mut lines: BTreeMap<&str, Vec<String>> =
        parts.iter().map(|(name, parts)| (*name, parts.iter().map(|path| line(by_path[path])).collect())).collect();
    for file in bundle.files.iter().filter(|file| !texts.contains_key(&file.path) || file.rooted) {
        let named = |name: &&str| parts[*name].iter().any(|path| mentions_any(&texts[*path], file, &home));
        let mut users: Vec<&str> = units.own.keys().map(String::as_str).filter(named).collect();
        if users.is_empty() {
            users = units.own.keys().map(String::as_str).filter(|name| name.ends_with(".service")).collect();
        }
        for name in users {
            lines.entry(name).or_default().push(line(file));
        }
    }
    let mut claims: Claims = lines
        .into_iter()
        .map(|(name, mut lines)| {
            lines.sort();
            (Claim::new(UNIT, name), Digest::of(lines.join("\n").as_bytes()))
        })
        .collect();
    for (claim, path) in &units.links {
        let made = if claim.kind == DROP_IN { line(by_path[path.as_str()]) } else { format!("{home}/{path}") };
        claims.entry(claim.clone()).or_insert_with(|| Digest::of(made.as_bytes()));
    }
    claims
}

fn line(file: &BundleFile) -> String {
    format!("{} {:o} {}", file.path, file.mode.bits(), file.sha256)
}

/// Whether a text names a file or a directory that it is in.
fn mentions_any(text: &str, file: &BundleFile, home: &str) -> bool {
    let mut path = file.path.as_str();
    loop {
        if mentions(text, path, (!file.rooted).then_some(home)) {
            return true;
        }
        match path.rsplit_once('/') {
            // The first directories below the root are named by everybody.
            Some((above, _)) if !(file.rooted && above.matches('/').count() < 2) => path = above,
            _ => return false,
        }
    }
}

/// Whether a text names a path, below `home` if that is given.
fn mentions(text: &str, path: &str, home: Option<&str>) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.match_indices(path).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + path.len()..]);
        let elsewhere = before.strip_suffix('/').is_some_and(|above| home.is_some_and(|home| !above.ends_with(home)));
        !elsewhere && !before.chars().next_back().is_some_and(part) && !after.chars().next().is_some_and(part)
    })
}
