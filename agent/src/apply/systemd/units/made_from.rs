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

/// What each unit is made from.
pub(super) type Parts<'a> = BTreeMap<String, Vec<&'a BundleFile>>;

/// Returns what each unit of a bundle is made from: its file, its drop-ins, and the plain files that these name. A plain
/// file that nobody names counts for every service.
pub(super) fn parts<'a>(
    target: &Target,
    bundle: &'a Bundle,
    units: &Units,
    texts: &BTreeMap<String, String>,
    instances: &BTreeMap<String, String>,
) -> Parts<'a> {
    let home = target.home();
    let is_text = |file: &BundleFile| !file.rooted && texts.contains_key(&file.path);
    let says: BTreeMap<&str, BTreeSet<&str>> = units
        .own
        .keys()
        .map(|name| {
            let template = instances.get(name);
            let of = |unit: &str| unit == name || template.is_some_and(|template| template == unit);
            let mine = |path: &&String| names::drop_in(path).map_or_else(|| of(path), |(unit, _)| of(unit));
            (name.as_str(), texts.keys().filter(mine).map(String::as_str).collect())
        })
        .collect();
    let mut parts: Parts<'a> = units.own.keys().map(|name| (name.clone(), Vec::new())).collect();
    for file in &bundle.files {
        let mine = |name: &&str| match is_text(file) {
            true => says[*name].contains(file.path.as_str()),
            false => says[*name].iter().any(|path| mentions_any(&texts[*path], file, &home)),
        };
        let mut users: Vec<&str> = says.keys().copied().filter(mine).collect();
        if users.is_empty() && !is_text(file) {
            users = says.keys().copied().filter(|name| name.ends_with(".service")).collect();
        }
        for name in users {
            parts.entry(name.to_owned()).or_default().push(file);
        }
    }
    parts
}

/// Returns the claims of units that were read from a bundle, each with the digest of what it is made from.
pub(super) fn claims(target: &Target, bundle: &Bundle, units: &Units, parts: &Parts<'_>) -> Claims {
    let home = target.home();
    let by_path: BTreeMap<&str, &BundleFile> =
        bundle.files.iter().filter(|file| !file.rooted).map(|file| (file.path.as_str(), file)).collect();
    let mut claims: Claims = parts
        .iter()
        .map(|(name, files)| {
            let mut lines: Vec<String> = files.iter().map(|file| line(file)).collect();
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

/// Returns the paths below the agent's root of what each unit is made from.
pub(super) fn paths(target: &Target, parts: &Parts<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let home = target.home();
    let place = |file: &&BundleFile| if file.rooted { file.path.clone() } else { format!("{home}/{}", file.path) };
    parts.iter().map(|(name, files)| (name.clone(), files.iter().map(place).collect())).collect()
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
