//! Plans: what would happen, grouped by identical difference.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use similar::TextDiff;
use titan_api::{
    Digest, Name,
    plans::{PlanEffect, PlanGroup},
    poll::{Bundle, BundleFile},
};
use uuid::Uuid;

use crate::{fleet::model::Model, planning::Planned};

/// Hosts named in one group.
const NAMED: usize = 20;
/// Bytes of one difference that are shown.
const DETAIL_BYTES: usize = 64 * 1024;

/// Groups what is planned. `bundles` has every bundle that is named, old and new.
#[must_use]
pub fn groups(planned: &Planned, model: &Model, bundles: &HashMap<Digest, Bundle>) -> Vec<PlanGroup> {
    let mut differences: HashMap<(Option<Digest>, Option<Digest>), (String, String)> = HashMap::new();
    let mut groups: BTreeMap<GroupKey, (String, Vec<Name>)> = BTreeMap::new();
    let mut add =
        |workspace: &Name, deployment: &Name, effect: PlanEffect, identity: String, shown: String, host: Uuid| {
            let host = model.host(host).map(|host| host.to_name());
            let key = (workspace.clone(), deployment.clone(), PlanEffectOrder(effect), identity);
            groups.entry(key).or_insert_with(|| (shown, Vec::new())).1.extend(host);
        };
    for (after, before) in &planned.moved {
        let before = before.as_ref().filter(|before| before.present());
        let (effect, (identity, shown)) = if after.present() {
            let pair = (before.and_then(crate::fleet::view::Entry::bundle), after.bundle);
            let detail = differences.entry(pair).or_insert_with(|| {
                let bundle = |digest: Option<Digest>| digest.and_then(|digest| bundles.get(&digest));
                // What is the same around a change may differ from host to host; the change itself makes the group.
                let changed = difference(bundle(pair.0), bundle(pair.1), 0);
                (changed, difference(bundle(pair.0), bundle(pair.1), 3))
            });
            let effect = if before.is_some() { PlanEffect::Change } else { PlanEffect::Add };
            (effect, detail.clone())
        } else {
            let reason = after.description.reason.map_or("", titan_api::poll::RemovalReason::as_str).to_owned();
            (PlanEffect::Remove, (reason.clone(), reason))
        };
        add(&after.description.workspace, &after.description.name, effect, identity, shown, after.host);
    }
    for (deployment, host, problem) in &planned.problems {
        if let (Some(problem), Some(deployment)) = (problem, model.deployment(*deployment)) {
            let faults: String =
                problem.errors.iter().map(|fault| format!("\n  {}: {}", fault.pointer, fault.detail)).collect();
            let detail = format!("{}{faults}", problem.detail);
            add(&deployment.workspace, &deployment.name, PlanEffect::Fail, detail.clone(), detail, *host);
        }
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|((workspace, deployment, effect, _), (detail, mut hosts))| {
            hosts.sort();
            let count = hosts.len();
            hosts.truncate(NAMED);
            PlanGroup { deployment, workspace, effect: effect.0, count, hosts, detail }
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

/// What makes a group: workspace, deployment, effect, and what exactly would change.
type GroupKey = (Name, Name, PlanEffectOrder, String);

/// Effects in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlanEffectOrder(PlanEffect);

impl PartialOrd for PlanEffectOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PlanEffectOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

/// Returns what a bundle says beside its files, as `template.yaml` has it: what applies it, its health, hooks and what is done about
/// drift.
fn manner(bundle: &Bundle) -> String {
    let Bundle { applier, health, hooks, drift, .. } = bundle;
    let alone =
        Bundle { applier: *applier, health: health.clone(), hooks: hooks.clone(), drift: *drift, files: Vec::new() };
    // By way of JSON: YAML alone writes a probe as `!http`.
    let mut value = serde_json::to_value(&alone).unwrap_or_default();
    if let Some(keys) = value.as_object_mut() {
        keys.remove("files");
    }
    serde_yaml::to_string(&value).unwrap_or_default()
}

fn unified(old: &str, new: &str, context: usize, names: (&str, &str)) -> String {
    TextDiff::from_lines(old, new).unified_diff().context_radius(context).header(names.0, names.1).to_string()
}

/// Returns the difference of two bundles as a unified diff over all files, with `context` lines around each change. What comes of
/// `template.yaml` (the applier, health, hooks, drift) is the first of them.
#[must_use]
pub fn difference(before: Option<&Bundle>, after: Option<&Bundle>, context: usize) -> String {
    let mut text = String::new();
    if let Some(after) = after {
        let (old, new) = (before.map(manner), manner(after));
        let name = if old.is_some() { "a/template.yaml" } else { "/dev/null" };
        if *old.as_ref().unwrap_or(&manner(&Bundle::default())) != new {
            text.push_str(&unified(&old.unwrap_or_default(), &new, context, (name, "b/template.yaml")));
        }
    }
    let files = |bundle: Option<&Bundle>| -> BTreeMap<String, BundleFile> {
        bundle.iter().flat_map(|bundle| &bundle.files).map(|file| (file.path.clone(), file.clone())).collect()
    };
    let (before, after) = (files(before), files(after));
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let name = |file: Option<&BundleFile>, side| match file {
            Some(_) => format!("{side}/{path}"),
            None => "/dev/null".to_owned(),
        };
        if let (Some(old), Some(new)) = (old, new)
            && (old.mode, &old.owner, &old.group) != (new.mode, &new.owner, &new.group)
        {
            let shown = |file: &BundleFile| {
                let owner = file.owner.as_deref().unwrap_or("-");
                let group = file.group.as_deref().unwrap_or("-");
                format!("{} {owner}:{group}", String::from(file.mode))
            };
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{path}: {} -> {}", shown(old), shown(new));
        }
        let content = |file: Option<&BundleFile>| file.and_then(|file| file.content.clone());
        let binary = |file: Option<&BundleFile>| file.is_some_and(|file| file.content.is_none());
        if binary(old) || binary(new) {
            let _infallible = writeln!(text, "{} and {} differ and are not text", name(old, "a"), name(new, "b"));
            continue;
        }
        let (old_text, new_text) = (content(old).unwrap_or_default(), content(new).unwrap_or_default());
        if old_text != new_text {
            text.push_str(&unified(&old_text, &new_text, context, (&name(old, "a"), &name(new, "b"))));
        }
    }
    if text.len() > DETAIL_BYTES {
        let end = (0..=DETAIL_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push_str("\n... cut here\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use titan_api::{drift::DriftPolicy, templates::FileMode};

    use super::*;

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let file = |(path, content): &(&str, &str)| BundleFile {
            path: (*path).to_owned(),
            rooted: false,
            mode: FileMode::PLAIN,
            owner: None,
            group: None,
            content: Some((*content).to_owned()),
            content_base64: None,
        };
        Bundle { files: files.iter().map(file).collect(), ..Bundle::default() }
    }

    #[test]
    fn difference_is_a_unified_diff_per_file() {
        let before = bundle(&[("a.conf", "x=1\n"), ("gone", "1\n"), ("same", "s\n")]);
        let after = bundle(&[("a.conf", "x=2\n"), ("new", "2\n"), ("same", "s\n")]);
        let text = difference(Some(&before), Some(&after), 3);
        assert!(text.contains("--- a/a.conf\n+++ b/a.conf\n"), "{text}");
        assert!(text.contains("-x=1\n+x=2\n"), "{text}");
        assert!(text.contains("--- a/gone\n+++ /dev/null\n"), "{text}");
        assert!(!text.contains("same"), "{text}");
        assert_eq!(difference(Some(&before), Some(&before), 3), "");
    }

    #[test]
    fn difference_tells_what_runs_beside_the_files() {
        let before = bundle(&[("a", "1\n")]);
        let hooks =
            serde_json::from_value(serde_json::json!({ "postApply": { "command": ["/bin/rm", "-rf", "/srv"] } }));
        let health = serde_json::from_value(serde_json::json!({ "probes": [{ "http": { "url": "http://[::1]/" } }] }));
        let (hooks, health) = (hooks.expect("hooks"), health.expect("health"));
        let after = Bundle { hooks, health, drift: DriftPolicy::Report, ..before.clone() };
        let text = difference(Some(&before), Some(&after), 3);
        assert!(text.starts_with("--- a/template.yaml\n+++ b/template.yaml\n"), "{text}");
        assert!(text.contains("+    - /bin/rm\n") && text.contains("+drift: report\n"), "{text}");
        assert!(text.contains("http:") && !text.contains('!'), "{text}");
        assert!(!text.contains("a/a") && !text.contains("files:"), "{text}");
        let first = difference(None, Some(&after), 3);
        assert!(first.starts_with("--- /dev/null\n+++ b/template.yaml\n") && first.contains("+++ b/a\n"), "{first}");
        assert!(!difference(None, Some(&before), 3).contains("template.yaml"), "nothing but files");
    }
}
