//! Which step comes after which: what is desired and what is owned in, an ordered list out. Pure.
//!
//! Removals come before everything else, the dependent before what it depends on. Then the deployments that stay, each
//! after those that it depends on, and whoever gives up a path before whoever takes it. A circle is broken at the
//! first name in alphabetical order, and a note says so.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::{Name, deployments::Dependency};
use uuid::Uuid;

/// One deployment as far as its order matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The assignment's id.
    pub id: Uuid,
    /// The workspace.
    pub workspace: Name,
    /// The name.
    pub name: Name,
    /// Deployments of the same workspace that go first.
    pub depends_on: Vec<Dependency>,
    /// Paths that it owns now.
    pub owns: BTreeSet<String>,
    /// Paths that it is to own.
    pub wants: BTreeSet<String>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Remove the deployment.
    Remove(Uuid),
    /// Bring the deployment to what is desired.
    Apply(Uuid),
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What a person should know about the order.
    pub notes: Vec<String>,
}

/// Returns the steps that remove `gone` and bring `present` to what is desired.
#[must_use]
pub fn plan(gone: &[Item], present: &[Item]) -> Plan {
    let mut plan = Plan::default();
    let mut removals = ordered(gone, &dependencies(gone), &mut plan.notes);
    removals.reverse();
    plan.steps.extend(removals.into_iter().map(Step::Remove));
    let mut before = dependencies(present);
    for (index, taken_from) in handovers(present).into_iter().enumerate() {
        before[index].extend(taken_from);
    }
    plan.steps.extend(ordered(present, &before, &mut plan.notes).into_iter().map(Step::Apply));
    plan
}

/// Whether one of two paths is the other or lies below it.
#[must_use]
pub fn paths_clash(one: &str, other: &str) -> bool {
    let below = |path: &str, dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    one == other || below(one, other) || below(other, one)
}

/// Returns the paths of `set` that clash with `path`: itself, one above it, or those below it.
pub fn clashes<'a>(set: &'a BTreeSet<String>, path: &'a str) -> impl Iterator<Item = &'a String> {
    let above = path.match_indices('/').filter_map(|(end, _)| set.get(&path[..end]));
    let from = format!("{path}/");
    let below = set.range(from.clone()..).take_while(move |known| known.starts_with(&from));
    set.get(path).into_iter().chain(above).chain(below)
}

/// Returns for each item the indices of those it depends on.
fn dependencies(items: &[Item]) -> Vec<BTreeSet<usize>> {
    let known: BTreeMap<_, _> = items.iter().enumerate().map(|(i, item)| ((&item.workspace, &item.name), i)).collect();
    let of = |(own, item): (usize, &Item)| {
        let found = item.depends_on.iter().filter_map(|on| known.get(&(&item.workspace, &on.name)).copied());
        found.filter(|index| *index != own).collect()
    };
    items.iter().enumerate().map(of).collect()
}

/// Returns for each item the indices of those that give up a path it wants.
fn handovers(items: &[Item]) -> Vec<BTreeSet<usize>> {
    let mut given_up: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        given_up.extend(item.owns.difference(&item.wants).map(|path| (path.as_str(), index)));
    }
    if given_up.is_empty() {
        return vec![BTreeSet::new(); items.len()];
    }
    let paths: BTreeSet<String> = given_up.keys().map(|path| (*path).to_owned()).collect();
    let of = |(own, item): (usize, &Item)| {
        let clashing = item.wants.iter().flat_map(|path| clashes(&paths, path));
        clashing.filter_map(|path| given_up.get(path.as_str()).copied()).filter(|index| *index != own).collect()
    };
    items.iter().enumerate().map(of).collect()
}

/// Returns the ids with each after those in its `before`, alphabetical where that leaves a choice.
fn ordered(items: &[Item], before: &[BTreeSet<usize>], notes: &mut Vec<String>) -> Vec<Uuid> {
    let key = |index: usize| (&items[index].workspace, &items[index].name, items[index].id);
    let mut left: BTreeMap<_, _> = (0..items.len()).map(|index| (key(index), index)).collect();
    let mut done = vec![false; items.len()];
    let mut order = Vec::with_capacity(items.len());
    while let Some((_, first)) = left.first_key_value() {
        let ready = left.values().copied().find(|index| before[*index].iter().all(|other| done[*other]));
        let next = ready.unwrap_or_else(|| {
            let circle = circle(*first, before, &done);
            let least = circle.iter().copied().min_by_key(|index| key(*index)).unwrap_or(*first);
            let names: Vec<_> =
                circle.iter().map(|index| format!("{}/{}", items[*index].workspace, items[*index].name)).collect();
            let goes_first = format!("{}/{}", items[least].workspace, items[least].name);
            notes.push(format!("{} wait for each other; {goes_first} goes first", names.join(", ")));
            least
        });
        left.remove(&key(next));
        done[next] = true;
        order.push(items[next].id);
    }
    order
}

/// Returns the circle that one comes to when following what is waited for from `start`.
fn circle(start: usize, before: &[BTreeSet<usize>], done: &[bool]) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let at = path[path.len() - 1];
        let Some(next) = before[at].iter().copied().find(|other| !done[*other]) else { return path };
        if let Some(from) = path.iter().position(|seen| *seen == next) {
            return path.split_off(from);
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(name: &str, depends_on: &[&str], owns: &[&str], wants: &[&str]) -> Item {
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Item {
            id: Uuid::from_u128(name.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte))),
            workspace: Name::new("default").expect("name"),
            name: Name::new(name).expect("name"),
            depends_on: depends_on.iter().map(|name| name.parse().expect("name")).collect(),
            owns: set(owns),
            wants: set(wants),
        }
    }

    fn names(plan: &Plan, items: &[Item]) -> Vec<String> {
        let name = |id: &Uuid| items.iter().find(|item| item.id == *id).map_or("?", |item| item.name.as_str());
        let text = |step: &Step| match step {
            Step::Remove(id) => format!("-{}", name(id)),
            Step::Apply(id) => name(id).to_owned(),
        };
        plan.steps.iter().map(text).collect()
    }

    #[test]
    fn what_is_depended_on_goes_first_and_leaves_last() {
        let items = [item("app", &["db"], &[], &[]), item("db", &["disk"], &[], &[]), item("disk", &[], &[], &[])];
        assert_eq!(names(&plan(&[], &items), &items), ["disk", "db", "app"]);
        assert_eq!(names(&plan(&items, &[]), &items), ["-app", "-db", "-disk"]);
    }

    #[test]
    fn removals_come_before_everything_else() {
        let (gone, here) = ([item("z", &[], &["etc/x"], &[])], [item("a", &[], &[], &["etc/x"])]);
        let all = [gone[0].clone(), here[0].clone()];
        assert_eq!(names(&plan(&gone, &here), &all), ["-z", "a"]);
    }

    #[test]
    fn whoever_gives_up_a_path_goes_before_whoever_takes_it() {
        let items = [item("a", &[], &[], &["etc/x/y"]), item("b", &[], &["etc/x"], &[])];
        assert_eq!(names(&plan(&[], &items), &items), ["b", "a"]);
    }

    #[test]
    fn a_circle_is_broken_and_said() {
        let items = [item("c", &["b"], &[], &[]), item("b", &["c"], &[], &[]), item("a", &["b"], &[], &[])];
        let plan = plan(&[], &items);
        assert_eq!(names(&plan, &items), ["b", "a", "c"]);
        assert_eq!(plan.notes.len(), 1);
        assert!(plan.notes[0].contains("wait for each other; default/b goes first"), "{:?}", plan.notes);
        let own = [item("a", &["a", "missing"], &[], &[])];
        assert_eq!(super::plan(&[], &own).notes, Vec::<String>::new());
    }

    #[test]
    fn paths_clash_with_themselves_and_with_what_is_above_or_below() {
        for (one, other, clash) in
            [("a", "a", true), ("a", "a/b", true), ("a/b/c", "a", true), ("a", "ab", false), ("a/b", "a/c", false)]
        {
            assert_eq!(paths_clash(one, other), clash, "{one} {other}");
            assert_eq!(clashes(&[one.to_owned()].into(), other).count(), usize::from(clash), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn every_deployment_has_exactly_one_step_whatever_depends_on_what(
            edges in prop::collection::vec((0_usize..8, 0_usize..8), 0..30),
        ) {
            let name = |n: usize| format!("n{n}");
            let items: Vec<_> = (0..8)
                .map(|own| {
                    let on: Vec<_> = edges.iter().filter(|(from, _)| *from == own).map(|(_, to)| name(*to)).collect();
                    item(&name(own), &on.iter().map(String::as_str).collect::<Vec<_>>(), &[], &[])
                })
                .collect();
            let plan = plan(&[], &items);
            let mut order = names(&plan, &items);
            if plan.notes.is_empty() {
                for (from, to) in edges.iter().filter(|(from, to)| from != to) {
                    let at = |n: usize| order.iter().position(|known| *known == name(n));
                    prop_assert!(at(*to) < at(*from));
                }
            }
            order.sort();
            prop_assert_eq!(order, (0..8).map(name).collect::<Vec<_>>());
        }
    }
}
