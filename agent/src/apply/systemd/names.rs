//! Names of units, and the places of links to them.

use crate::claims::Claim;

/// What a name of a unit may end with.
const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".slice",
    ".scope",
    ".device",
];
/// Units that no file makes: whoever runs them does.
const NOT_FROM_FILES: [&str; 2] = [".scope", ".device"];
/// Bytes of a unit's name, as in systemd.
const NAME_BYTES: usize = 255;
/// The kind of the claim on a unit; its link has the unit's name, unless it is an instance of a template.
pub(in crate::apply) const UNIT: &str = "unit";
/// The kind of the claim on a drop-in: `app.service.d/10-limits.conf`.
pub(super) const DROP_IN: &str = "dropin";
/// The kind of the claim on what makes another unit want one: `multi-user.target.wants/app.service`.
pub(super) const ENABLED: &str = "enabled";
/// The kind of the claim on another name of a unit.
pub(super) const ALIAS: &str = "alias";

/// Returns the suffix of what is a unit's name, or `None` if it is not one.
pub(in crate::apply) fn suffix(name: &str) -> Option<&'static str> {
    let suffix = SUFFIXES.iter().find(|suffix| name.ends_with(**suffix))?;
    let stem = &name[..name.len() - suffix.len()];
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let good = !stem.is_empty() && name.len() <= NAME_BYTES && !stem.starts_with(['@', '.']) && stem.chars().all(plain);
    good.then_some(*suffix)
}

/// Returns the suffix of a unit that a file can make.
pub(super) fn suffix_of_file(name: &str) -> Option<&'static str> {
    suffix(name).filter(|suffix| !NOT_FROM_FILES.contains(suffix))
}

/// Returns the name without its suffix.
pub(super) fn stem(name: &str) -> &str {
    suffix(name).map_or(name, |suffix| &name[..name.len() - suffix.len()])
}

/// Returns the template's name and the instance, which is empty for the template itself, if it is one of the two.
pub(super) fn instance(name: &str) -> Option<(String, &str)> {
    let suffix = suffix(name)?;
    let (prefix, instance) = stem(name).split_once('@')?;
    Some((format!("{prefix}@{suffix}"), instance))
}

/// Whether it is a template: `app@.service`.
pub(super) fn is_template(name: &str) -> bool {
    instance(name).is_some_and(|(_, instance)| instance.is_empty())
}

/// Returns a pattern of systemd's for all instances of a template, and maybe of some others: versions differ in whether a
/// backslash stands for itself there.
pub(super) fn instances_pattern(template: &str) -> String {
    instantiate(template, "*").replace('\\', "?")
}

/// Returns the name of a template's instance.
pub(super) fn instantiate(template: &str, with: &str) -> String {
    match (template.split_once('@'), suffix(template)) {
        (Some((prefix, _)), Some(suffix)) => format!("{prefix}@{with}{suffix}"),
        _ => template.to_owned(),
    }
}

/// Returns the unit and the file of a drop-in's path `app.service.d/x.conf`.
pub(super) fn drop_in(path: &str) -> Option<(&str, &str)> {
    let (directory, file) = path.split_once('/')?;
    let unit = directory.strip_suffix(".d").filter(|unit| suffix(unit).is_some())?;
    let good = file.ends_with(".conf") && !file.contains('/') && !file.starts_with('.');
    good.then_some((unit, file))
}

/// Returns where the link of a claim is, below the directory of units: nowhere for what is no claim of this applier, so
/// whatever a damaged ledger says, nothing beyond that directory is touched.
pub(super) fn place(claim: &Claim) -> Option<&str> {
    let name = claim.name.as_str();
    let good = match claim.kind.as_str() {
        UNIT | ALIAS => suffix(name).is_some(),
        DROP_IN => drop_in(name).is_some(),
        ENABLED => name.split_once('/').is_some_and(|(directory, unit)| {
            let wanting = [".wants", ".requires", ".upholds"].iter().find_map(|kind| directory.strip_suffix(kind));
            wanting.is_some_and(|wanting| suffix(wanting).is_some()) && suffix(unit).is_some()
        }),
        _ => false,
    };
    good.then_some(name)
}

/// Returns the unit that a claim is about: that of a drop-in, the one that is enabled.
pub(super) fn unit_of(claim: &Claim) -> Option<&str> {
    match claim.kind.as_str() {
        UNIT => suffix(&claim.name).map(|_| claim.name.as_str()),
        DROP_IN => drop_in(&claim.name).map(|(unit, _)| unit),
        ENABLED => claim.name.split_once('/').map(|(_, unit)| unit),
        _ => None,
    }
}

/// Returns a unit's path on the bus.
pub(in crate::apply) fn bus_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_systemd_takes_are_names() {
        for good in
            ["app.service", "a@.service", "a@b.timer", "srv-x.mount", "A:b_c.socket", r"dev-disk-by\x2dlabel.mount"]
        {
            assert!(suffix_of_file(good).is_some(), "{good}");
        }
        let long = format!("{}.service", "x".repeat(248));
        for bad in ["app", ".service", "a/b.service", "@x.service", "a b.service", ".a.service", "x.scope", &long] {
            assert!(suffix_of_file(bad).is_none(), "{bad}");
        }
        assert_eq!(instance("a@b.service"), Some(("a@.service".to_owned(), "b")));
        assert!(is_template("a@.service") && !is_template("a.service") && !is_template("a@b.service"));
        assert_eq!(instantiate("a@.service", "b"), "a@b.service");
        assert_eq!(instances_pattern(r"a\x2db@.service"), "a?x2db@*.service");
    }

    #[test]
    fn places_never_leave_the_directory() {
        for (kind, name) in [
            (UNIT, "../x.service"),
            (UNIT, "/etc/x.service"),
            (DROP_IN, "../a.service.d/x.conf"),
            (DROP_IN, "a.service.d/../x.conf"),
            (DROP_IN, "a.service.d/.x.conf"),
            (ENABLED, "../a.wants/b.service"),
            (ENABLED, "a.target.wants/../b.service"),
            (ENABLED, "a.target.d/b.service"),
            ("pod", "a.service"),
        ] {
            assert_eq!(place(&Claim::new(kind, name)), None, "{kind}:{name}");
        }
        for good in ["a.target.wants/b.service", r"local-fs.target.wants/srv-a\x2db.mount"] {
            assert_eq!(place(&Claim::new(ENABLED, good)), Some(good));
        }
    }

    #[test]
    fn paths_on_the_bus_are_escaped() {
        assert_eq!(bus_path("a-1.service"), "/org/freedesktop/systemd1/unit/a_2d1_2eservice");
        assert_eq!(bus_path("1.service"), "/org/freedesktop/systemd1/unit/_31_2eservice");
        assert_eq!(bus_path(r"srv-a\x2db.mount"), "/org/freedesktop/systemd1/unit/srv_2da_5cx2db_2emount");
    }
}
