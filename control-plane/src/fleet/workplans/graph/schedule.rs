//! Schedules: in which order nodes begin and end, and how long all of it can take.
//!
//! A node has a beginning and an end. It ends after it began, begins after what it waits for has ended, ends after its
//! children and, if it is a check, after the stages that answer it. The longest way through is the worst case.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use titan_api::{
    Code, Name, Problem,
    spans::Span,
    workplans::{Executor, NodeSpec},
};

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
    let (worst_case, way) = Schedule::of(nodes, "/spec/nodes")?.longest();
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

/// Beginnings and ends of nodes in an order in which each comes after all that it waits for.
pub(super) struct Schedule<'a> {
    names: Vec<&'a Name>,
    order: Vec<usize>,
    before: Vec<Vec<usize>>,
    weights: Vec<Duration>,
}

impl<'a> Schedule<'a> {
    /// Returns the schedule of nodes; what is refused of them is told with pointers that begin at `pointer`.
    pub(super) fn of(nodes: &'a BTreeMap<Name, NodeSpec>, pointer: &str) -> Result<Self, Problem> {
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
            return Err(cycle((nodes, pointer), &names, (&before, &waits)));
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
fn cycle(
    (nodes, pointer): (&BTreeMap<Name, NodeSpec>, &str),
    names: &[&Name],
    (before, waits): (&[Vec<usize>], &[usize]),
) -> Problem {
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
    // Children and answers close a circle as well; then it is told of a node as a whole.
    let waits_after = |name: &&&str| {
        let mut waits = false;
        if let Some(after) = nodes.get(**name).and_then(|spec| spec.after.as_ref()) {
            after.each_edge(&mut |edge| waits |= around.contains(&edge.node.as_str()));
        }
        waits
    };
    let pointer = match around.iter().find(waits_after) {
        Some(name) => format!("{pointer}/{name}/after"),
        None => format!("{pointer}/{}", around.first().copied().unwrap_or_default()),
    };
    Problem::new(Code::Cycle, detail.clone()).at(pointer, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn nodes(value: Value) -> BTreeMap<Name, NodeSpec> {
        serde_json::from_value(value).expect("nodes")
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
}
