//! Graphs: who waits for whom, that nobody waits for himself, and how long all of it can take.

mod schedule;

use std::collections::BTreeMap;

use titan_api::{
    Code, Name, Problem,
    problems::Fault,
    workplans::{Executor, NodeKind, NodeSpec, nodes::Goal},
};

use self::schedule::Schedule;
pub use self::schedule::{budget, worst};

/// Checks the nodes of a plan that stand alone: what they name is among them or `known` and of the sort that it has to be,
/// and nobody waits for himself. Plans inside them are checked too. Pointers begin at `pointer`.
pub fn check<'a>(
    nodes: &'a BTreeMap<Name, NodeSpec>,
    known: &dyn Fn(&Name) -> Option<&'a NodeSpec>,
    pointer: &str,
) -> Result<(), Problem> {
    let there = |name: &Name| nodes.contains_key(name) || known(name).is_some();
    for (name, spec) in nodes {
        let here = format!("{pointer}/{name}");
        let unknown = |key: &str, named: &Name| {
            let near = titan_api::parse::nearest(named, nodes.keys().map(Name::as_str));
            let near = near.map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
            let detail = format!("node {name} names {named}, and there is no such node{near}");
            Err(Problem::new(Code::UnknownNode, detail.clone()).with([Fault::new(format!("{here}/{key}"), detail)]))
        };
        let mut missing = None;
        if let Some(after) = &spec.after {
            after.each_edge(&mut |edge| {
                if !there(&edge.node) {
                    missing.get_or_insert(&edge.node);
                }
            });
        }
        if let Some(named) = missing {
            return unknown("after", named);
        }
        if let Some(answers) = spec.answers.iter().find(|answers| !there(&answers.check)) {
            return unknown("answers", &answers.check);
        }
        if let Some(parent) = spec.parent.as_ref().filter(|parent| !there(parent)) {
            return unknown("parent", parent);
        }
        let found = |name: &Name| nodes.get(name).or_else(|| known(name));
        alike(&found, name, spec, &here)?;
        fitting(&found, spec, &here)?;
        if let Some(Executor::Plan(plan)) = &spec.run {
            let inner = format!("{here}/run/plan/nodes");
            complete(&plan.nodes, &inner)?;
            check(&plan.nodes, &|_| None, &inner)?;
            if let Some(deadline) = plan.deadline {
                budget(&plan.nodes, deadline.0)?;
            }
        }
    }
    Schedule::of(nodes, pointer).map(drop)
}

/// Checks that a plan can be started: it has nodes, and somebody answers every check.
pub fn complete(nodes: &BTreeMap<Name, NodeSpec>, pointer: &str) -> Result<(), Problem> {
    if nodes.values().all(|spec| spec.compensation) {
        let detail = "a plan that is started has at least one node";
        return Err(Problem::new(Code::Invalid, detail).at(pointer, detail));
    }
    let answered: std::collections::HashSet<&Name> =
        nodes.values().flat_map(|spec| spec.answers.iter().map(|answers| &answers.check)).collect();
    let silent = |(name, spec): &(&Name, &NodeSpec)| {
        spec.kind == NodeKind::Check && spec.run.is_none() && !answered.contains(name) && !spec.planning
    };
    match nodes.iter().find(silent) {
        Some((name, _)) => {
            let detail = format!("nobody answers check {name}");
            Err(Problem::new(Code::Invalid, detail.clone())
                .at(format!("{pointer}/{name}"), detail)
                .hint("give it a run, or let a stage name it in its answers"))
        }
        None => Ok(()),
    }
}

/// Refuses that a node leans on one that only begins when the plan is undone.
fn alike<'a>(
    found: &dyn Fn(&Name) -> Option<&'a NodeSpec>,
    name: &Name,
    spec: &NodeSpec,
    here: &str,
) -> Result<(), Problem> {
    let compensation = |other: &Name| found(other).map(|other| other.compensation);
    let refuse = |key: &str, other: &Name| {
        let detail =
            format!("node {name} cannot lean on {other}: one of them begins only when the plan is rolled back");
        Err(Problem::new(Code::Invalid, detail.clone()).at(format!("{here}/{key}"), detail))
    };
    let mut wrong = None;
    if let Some(after) = spec.after.as_ref().filter(|_| !spec.compensation) {
        after.each_edge(&mut |edge| {
            if compensation(&edge.node) == Some(true) {
                wrong.get_or_insert(&edge.node);
            }
        });
    }
    if let Some(other) = wrong {
        return refuse("after", other);
    }
    let differs = |other: &&Name| compensation(other).is_some_and(|other| other != spec.compensation);
    if let Some(parent) = spec.parent.as_ref().filter(differs) {
        return refuse("parent", parent);
    }
    match spec.answers.iter().map(|answers| &answers.check).find(differs) {
        Some(check) => refuse("answers", check),
        None => Ok(()),
    }
}

/// Refuses that a node answers what asks nothing or asks by itself, or is the child of what waits for none.
fn fitting<'a>(found: &dyn Fn(&Name) -> Option<&'a NodeSpec>, spec: &NodeSpec, here: &str) -> Result<(), Problem> {
    let refuse = |key: &str, detail: String| {
        Err(Problem::new(Code::Invalid, detail.clone()).at(format!("{here}/{key}"), detail))
    };
    for answers in &spec.answers {
        match found(&answers.check) {
            Some(check) if check.kind == NodeKind::Stage => {
                return refuse("answers", format!("node {} is a stage and asks nothing", answers.check));
            }
            Some(check) if check.run.is_some() && answers.goal == Goal::Final => {
                return refuse("answers", format!("check {} has a run of its own and is not answered", answers.check));
            }
            _ => {}
        }
    }
    match &spec.parent {
        Some(parent) if found(parent).is_some_and(|parent| parent.kind == NodeKind::Check) => {
            refuse("parent", format!("node {parent} is a check, and only a stage has children"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn nodes(value: Value) -> BTreeMap<Name, NodeSpec> {
        serde_json::from_value(value).expect("nodes")
    }

    fn refused(value: Value) -> Problem {
        check(&nodes(value), &|_| None, "/spec/nodes").expect_err("refused")
    }

    /// S3-16.
    #[test]
    fn nobody_waits_for_himself() {
        let problem = refused(json!({"a": {"after": {"edges": ["c"]}}, "b": {"after": {"edges": ["a"]}},
            "c": {"after": {"groups": [{"edges": ["b:final"]}]}}, "d": {}}));
        assert_eq!((problem.code, problem.status), (Code::Cycle, 422));
        for part in ["a waits for c", "c waits for b", "b waits for a"] {
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
        assert_eq!(problem.errors[0].pointer, "/spec/nodes/a/after");
        let inside = json!({"o": {"run": {"plan": {"nodes": {"x": {"after": {"edges": ["x"]}}}}}}});
        assert_eq!(refused(inside).errors[0].pointer, "/spec/nodes/o/run/plan/nodes/x/after");
        assert_eq!(refused(json!({"a": {"after": {"edges": ["a"]}}})).code, Code::Cycle);
        // A check waits for its stages, a stage for its children.
        let answered = json!({"c": {"kind": "check"}, "s": {"answers": [{"check": "c"}], "after": {"edges": ["c"]}}});
        let problem = refused(answered);
        assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::Cycle, "/spec/nodes/s/after"));
        let child = json!({"p": {}, "c": {"parent": "p", "after": {"edges": ["p"]}}});
        assert_eq!(refused(child).code, Code::Cycle);
        let parents = refused(json!({"p": {"parent": "q"}, "q": {"parent": "p"}}));
        assert_eq!((parents.code, parents.errors[0].pointer.as_str()), (Code::Cycle, "/spec/nodes/p"));
        let fine = json!({"p": {}, "c": {"parent": "p"}, "q": {"kind": "check"}, "s": {"answers": [{"check": "q"}]}});
        check(&nodes(fine), &|_| None, "").expect("acyclic");
    }

    #[test]
    fn names_of_nodes_are_known_names() {
        let problem = refused(json!({"build": {}, "b": {"after": {"edges": ["biuld"]}}}));
        assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::UnknownNode, "/spec/nodes/b/after"));
        assert!(problem.detail.contains("did you mean \"build\"?"), "{}", problem.detail);
        assert_eq!(refused(json!({"s": {"answers": [{"check": "c"}]}})).errors[0].pointer, "/spec/nodes/s/answers");
        assert_eq!(refused(json!({"s": {"parent": "c"}})).errors[0].pointer, "/spec/nodes/s/parent");
        let inside = json!({"s": {"run": {"plan": {"nodes": {"x": {"after": {"edges": ["y"]}}}}}}});
        assert_eq!(refused(inside).errors[0].pointer, "/spec/nodes/s/run/plan/nodes/x/after");
        // Answered is what asks and does not run by itself, and only stages have children; inside other plans as well.
        let run = json!({"external": {"queue": "q"}});
        for (key, wrong) in [
            ("s/answers", json!({"s": {"answers": [{"check": "c"}]}, "c": {"kind": "check", "run": run}})),
            ("s/answers", json!({"s": {"answers": [{"check": "c"}]}, "c": {}})),
            ("s/parent", json!({"s": {"parent": "c"}, "c": {"kind": "check", "run": run}})),
        ] {
            let problem = refused(wrong.clone());
            assert_eq!(
                (problem.code, problem.errors[0].pointer.clone()),
                (Code::Invalid, format!("/spec/nodes/{key}"))
            );
            let inside = refused(json!({"o": {"run": {"plan": {"nodes": wrong}}}}));
            assert_eq!(inside.errors[0].pointer, format!("/spec/nodes/o/run/plan/nodes/{key}"));
        }
        let planned =
            json!({"s": {"answers": [{"check": "c", "goal": "planned"}]}, "c": {"kind": "check", "run": run}});
        check(&nodes(planned), &|_| None, "").expect("put together by a stage, answered by itself");
        let leans = json!({"a": {"after": {"edges": ["undo"]}}, "undo": {"compensation": true}});
        assert_eq!(refused(leans).code, Code::Invalid);
    }

    #[test]
    fn who_answers_a_check_is_known_when_a_plan_starts() {
        let silent = nodes(json!({"c": {"kind": "check"}, "s": {}}));
        assert_eq!(complete(&silent, "").expect_err("silent").code, Code::Invalid);
        assert_eq!(complete(&nodes(json!({})), "").expect_err("empty").code, Code::Invalid);
    }
}
