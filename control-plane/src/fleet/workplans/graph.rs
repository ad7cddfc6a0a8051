//! Graphs: who waits for whom, that nobody waits for himself, and how long all of it can take.
//!
//! A node has a beginning and an end. It ends after it began, begins after what it waits for has ended, ends after its
//! children and, if it is a check, after the stages that answer it. The longest way through is the worst case.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use titan_api::{
    Code, Name, Problem,
    problems::Fault,
    spans::Span,
    workplans::{Executor, NodeKind, NodeSpec, nodes::Goal},
};

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
    Schedule::of(nodes).map(drop)
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

/// Returns the longest that a node can take, whatever goes wrong.
#[must_use]
pub fn worst(spec: &NodeSpec) -> Duration {
    let Some(run) = &spec.run else { return Duration::ZERO };
    let mut limit = run.limit(spec.timeouts.per_attempt);
    if matches!(run, Executor::External(_)) {
        limit = limit.saturating_add(spec.timeouts.schedule_to_start.map_or(Duration::ZERO, |span| span.0));
    }
    // What comes to its end by itself is not tried again.
    let attempts = if matches!(run, Executor::Wait(_) | Executor::Approval(_)) { 1 } else { spec.retry.attempts };
    let waits = (1..attempts).fold(Duration::ZERO, |sum, after| sum.saturating_add(spec.retry.longest_wait(after)));
    let all = limit.saturating_mul(attempts).saturating_add(waits);
    match spec.timeouts.total {
        Some(total) if attempts == 0 || total.0 < all => total.0,
        _ => all,
    }
}

/// Refuses a plan whose worst case takes longer than `deadline`, with the sum.
pub fn budget(nodes: &BTreeMap<Name, NodeSpec>, deadline: Duration) -> Result<(), Problem> {
    let (worst_case, way) = Schedule::of(nodes)?.longest();
    if worst_case <= deadline {
        return Ok(());
    }
    let terms: Vec<_> = way
        .iter()
        .filter_map(|name| Some((name, nodes.get(*name)?)))
        .filter(|(_, spec)| !worst(spec).is_zero())
        .map(|(name, spec)| term(name, spec))
        .collect();
    let detail = format!(
        "in the worst case it takes {}, and its deadline is {}: {} = {}",
        Span(worst_case),
        Span(deadline),
        terms.join(" + "),
        Span(worst_case)
    );
    Err(Problem::new(Code::BudgetExceeded, detail.clone())
        .at("/spec/deadline", detail)
        .hint("lower attempts or timeouts (timeouts.total caps a node over all its attempts), or raise the deadline"))
}

fn term(name: &str, spec: &NodeSpec) -> String {
    let sum = Span(worst(spec));
    let attempts = spec.retry.attempts;
    let Some(run) = spec.run.as_ref().filter(|_| spec.timeouts.total.is_none_or(|total| total != sum)) else {
        return format!("{name} {sum} in total");
    };
    if attempts < 2 || matches!(run, Executor::Wait(_) | Executor::Approval(_)) {
        return format!("{name} {sum}");
    }
    let waits = (1..attempts).fold(Duration::ZERO, |sum, after| sum.saturating_add(spec.retry.longest_wait(after)));
    format!("{name} ({attempts} x {} + {} of backoff = {sum})", Span(run.limit(spec.timeouts.per_attempt)), Span(waits))
}

/// Beginnings and ends in an order in which each comes after all that it waits for.
struct Schedule<'a> {
    names: Vec<&'a Name>,
    order: Vec<usize>,
    before: Vec<Vec<usize>>,
    weights: Vec<Duration>,
}

impl<'a> Schedule<'a> {
    fn of(nodes: &'a BTreeMap<Name, NodeSpec>) -> Result<Self, Problem> {
        let names: Vec<&Name> = nodes.keys().collect();
        let numbers: HashMap<&Name, usize> = names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
        // Vertex 2n is the beginning of node n, 2n + 1 its end.
        let mut before = vec![Vec::new(); names.len() * 2];
        let mut after = vec![Vec::new(); names.len() * 2];
        let mut follows = |first: usize, then: usize| {
            before[then].push(first);
            after[first].push(then);
        };
        for (number, spec) in nodes.values().enumerate() {
            let (begin, end) = (number * 2, number * 2 + 1);
            follows(begin, end);
            if let Some(group) = &spec.after {
                group.each_edge(&mut |edge| {
                    if let Some(target) = numbers.get(&edge.node) {
                        follows(target * 2 + 1, begin);
                    }
                });
            }
            for check in spec.answers.iter().filter_map(|answers| numbers.get(&answers.check)) {
                follows(end, check * 2 + 1);
            }
            if let Some(parent) = spec.parent.as_ref().and_then(|parent| numbers.get(parent)) {
                follows(parent * 2, begin);
                follows(end, parent * 2 + 1);
            }
        }
        let mut waits: Vec<usize> = before.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..waits.len()).filter(|vertex| waits[*vertex] == 0).collect();
        let mut at = 0;
        while let Some(vertex) = order.get(at).copied() {
            at += 1;
            for then in &after[vertex] {
                waits[*then] -= 1;
                if waits[*then] == 0 {
                    order.push(*then);
                }
            }
        }
        if order.len() < waits.len() {
            return Err(cycle(&names, &before, &waits));
        }
        let weigh = |spec: &NodeSpec| if spec.compensation { Duration::ZERO } else { worst(spec) };
        let weights = nodes.values().map(weigh).collect();
        Ok(Self { names, order, before, weights })
    }

    /// Returns the longest way through, and the nodes on it.
    fn longest(&self) -> (Duration, Vec<&'a Name>) {
        let mut times = vec![Duration::ZERO; self.before.len()];
        let mut from: Vec<Option<usize>> = vec![None; self.before.len()];
        for vertex in &self.order {
            for first in &self.before[*vertex] {
                let own = *vertex == first + 1 && first % 2 == 0;
                let weight = if own { self.weights[first / 2] } else { Duration::ZERO };
                let time = times[*first].saturating_add(weight);
                if from[*vertex].is_none() || time > times[*vertex] {
                    (times[*vertex], from[*vertex]) = (time, Some(*first));
                }
            }
        }
        let last = (0..times.len()).max_by_key(|vertex| times[*vertex]);
        let mut way = Vec::new();
        let mut at = last;
        while let Some(vertex) = at {
            let before = from[vertex];
            if before.is_some_and(|before| before + 1 == vertex && before % 2 == 0) {
                way.push(self.names[vertex / 2]);
            }
            at = before;
        }
        way.reverse();
        (last.map_or(Duration::ZERO, |last| times[last]), way)
    }
}

/// Returns the problem of nodes that wait for each other, with the way around.
fn cycle(names: &[&Name], before: &[Vec<usize>], waits: &[usize]) -> Problem {
    let mut way = Vec::new();
    let mut at = waits.iter().position(|waits| *waits > 0);
    while let Some(vertex) = at.filter(|vertex| !way.contains(vertex)) {
        way.push(vertex);
        at = before[vertex].iter().copied().find(|first| waits[*first] > 0);
    }
    let start = way.iter().position(|vertex| Some(*vertex) == at).unwrap_or_default();
    let mut around: Vec<&str> = way[start..].iter().map(|vertex| names[vertex / 2].as_str()).collect();
    around.dedup();
    if let Some(first) = around.first().copied()
        && (around.len() == 1 || around.last() != Some(&first))
    {
        around.push(first);
    }
    let detail = format!("nodes wait for each other: {}", around.join(" waits for "));
    let pointer = format!("/nodes/{}", around.first().copied().unwrap_or_default());
    Problem::new(Code::Cycle, detail.clone()).at(pointer, detail)
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
        assert_eq!(refused(json!({"a": {"after": {"edges": ["a"]}}})).code, Code::Cycle);
        // A check waits for its stages, a stage for its children.
        let answered = json!({"c": {"kind": "check"}, "s": {"answers": [{"check": "c"}], "after": {"edges": ["c"]}}});
        assert_eq!(refused(answered).code, Code::Cycle);
        let child = json!({"p": {}, "c": {"parent": "p", "after": {"edges": ["p"]}}});
        assert_eq!(refused(child).code, Code::Cycle);
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

    /// S4-19 (b): 2 x 4 s + 1 s fits into 15 s; 3 x 4 + 1 + 2 leaves nothing for the rest.
    #[test]
    fn worst_case_is_the_longest_way_through_and_is_told() {
        let plan = |attempts: u32| {
            let http = json!({"http": {"url": "http://x"}});
            nodes(json!({
                "accept": {"run": http, "retry": {"attempts": 1}, "timeouts": {"perAttempt": "500ms"}},
                "apply": {"run": http, "retry": {"attempts": attempts}, "timeouts": {"perAttempt": "4s"},
                    "after": {"edges": ["accept"]}},
                "beside": {"run": {"wait": {"for": "5s"}}, "after": {"edges": ["accept"]}},
            }))
        };
        budget(&plan(2), Duration::from_secs(15)).expect("9.5 s");
        let problem = budget(&plan(3), Duration::from_secs(15)).expect_err("15.5 s");
        assert_eq!((problem.code, problem.status), (Code::BudgetExceeded, 422));
        assert_eq!(
            problem.detail,
            "in the worst case it takes 15500ms, and its deadline is 15s: \
             accept 500ms + apply (3 x 4s + 3s of backoff = 15s) = 15500ms"
        );
    }

    #[test]
    fn total_timeouts_cap_the_worst_case() {
        let spec = |total: &str, attempts: u32| {
            nodes(json!({"a": {"run": {"http": {"url": "http://x"}}, "retry": {"attempts": attempts},
                "timeouts": {"perAttempt": "4s", "total": total}}}))
        };
        assert_eq!(worst(&spec("5s", 3)[&Name::new("a").expect("name")]), Duration::from_secs(5));
        assert_eq!(worst(&spec("5s", 0)[&Name::new("a").expect("name")]), Duration::from_secs(5));
        assert_eq!(worst(&spec("1h", 3)[&Name::new("a").expect("name")]), Duration::from_secs(15));
    }

    #[test]
    fn who_answers_a_check_is_known_when_a_plan_starts() {
        let silent = nodes(json!({"c": {"kind": "check"}, "s": {}}));
        assert_eq!(complete(&silent, "").expect_err("silent").code, Code::Invalid);
        assert_eq!(complete(&nodes(json!({})), "").expect_err("empty").code, Code::Invalid);
    }
}
