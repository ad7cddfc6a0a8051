//! The engine on a part of a plan: what it asks for is enough, and no more than what a step touches.

use super::*;
use crate::fleet::workplans::{Listing, Need, tally};

/// A plan that gives out only what is asked for, as a database does.
struct Rows {
    plan: Plan,
    nodes: BTreeMap<Name, (Node, titan_api::workplans::NodeSpec)>,
    given: usize,
}

impl Rows {
    fn step(&mut self, input: Input, now: i64) -> Result<Step, Problem> {
        let mut working = Working::new(self.plan.clone(), now, 3);
        working.submit(input);
        loop {
            match working.advance() {
                Ok(()) => break,
                Err(Stop::Refused(problem)) => return Err(*problem),
                Err(Stop::Missing(need)) => self.give(&mut working, need),
            }
        }
        let step = working.finish();
        self.plan = step.plan.clone();
        for node in &step.nodes {
            let spec = step.written.get(&node.name).cloned().or_else(|| Some(self.nodes.get(&node.name)?.1.clone()));
            self.nodes.insert(node.name.clone(), (node.clone(), spec.expect("a spec")));
        }
        Ok(step)
    }

    fn give(&mut self, working: &mut Working, need: Need) {
        match need {
            Need::Nodes(names) => {
                let found: Vec<_> = names.iter().filter_map(|name| Some(self.nodes.get(name)?.0.clone())).collect();
                self.given += found.len();
                working.give_nodes(&names, found);
            }
            Need::Dependants(target) => {
                let links = self.nodes.iter().flat_map(|(name, (_, spec))| tally::links(name, spec));
                let links: Vec<_> = links.filter(|link| link.target == target).collect();
                self.given += links.len();
                working.give_links(target, links);
            }
            Need::Listed(listing) => {
                let of = |node: &&Node| match listing {
                    Listing::Open => !node.is_final(),
                    Listing::Ready => node.state == NodeState::Planned && node.is_ready(),
                };
                let found: Vec<_> = self.nodes.values().map(|(node, _)| node).filter(of).cloned().collect();
                self.given += found.len();
                working.give_listed(listing, found);
            }
            Need::Whole => {
                self.given += self.nodes.len();
                working.give_whole(self.nodes.values().cloned().collect());
            }
        }
    }

    fn of(spec: Value) -> Self {
        let mut rows = Self { plan: Plan::new(Uuid::nil()), nodes: BTreeMap::new(), given: 0 };
        let spec: WorkPlanSpec = serde_json::from_value(spec).expect("spec");
        let mut working = Working::whole(rows.plan.clone(), 0, 3);
        working.submit(Input::Make { spec: Box::new(spec), author: "token:ann".into() });
        working.submit(Input::Start);
        working.advance().expect("made");
        let step = working.finish();
        rows.plan = step.plan;
        rows.nodes = step
            .nodes
            .into_iter()
            .map(|node| (node.name.clone(), (node.clone(), step.written[&node.name].clone())))
            .collect();
        rows
    }
}

/// Chains of three below one root, all of which one last node waits for.
fn wide(chains: usize) -> Value {
    let mut nodes = BTreeMap::new();
    let mut last = Vec::new();
    for chain in 0..chains {
        for link in 0..3 {
            let mut node = json!({"run": external()});
            if link > 0 {
                node["after"] = json!({"edges": [format!("c{chain}-{}", link - 1)]});
            }
            nodes.insert(format!("c{chain}-{link}"), node);
        }
        last.push(format!("c{chain}-2"));
    }
    nodes.insert("last".to_owned(), json!({"after": {"edges": last}}));
    json!({ "nodes": nodes })
}

/// A step of a plan of 10 000 nodes is given no more than one of a plan of 1 000.
#[test]
fn a_step_touches_what_changed_and_not_the_plan() {
    let cost = |chains: usize| {
        let mut rows = Rows::of(wide(chains));
        rows.given = 0;
        let node = || name("c7-0");
        rows.step(Input::Claim { node: node(), number: 1, uid: "w".into() }, SECOND).expect("claimed");
        let end = Finished {
            node: node(),
            number: 1,
            uid: "w".into(),
            end: Ok(Verdict::Passed),
            message: None,
            details: None,
            results: Vec::new(),
        };
        let step = rows.step(Input::Finish(Box::new(end)), 2 * SECOND).expect("finished");
        (rows.given, step.nodes.len(), step.events.len())
    };
    let (small, large) = (cost(333), cost(3333));
    assert_eq!(small, large);
    assert!(small.0 <= 4, "{small:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A step on what it asked for does what it does on the whole plan.
    #[test]
    fn a_part_is_enough(
        seed in prop::collection::vec(any::<u8>(), 8..48),
        size in 1..12_usize,
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 0..60),
    ) {
        let spec = spec(&seed, size);
        let mut rows = Rows::of(spec.clone());
        let mut whole = Working::whole(Plan::new(Uuid::nil()), 0, 3);
        whole.submit(Input::Make { spec: Box::new(serde_json::from_value(spec).expect("spec")), author: "token:ann".into() });
        whole.submit(Input::Start);
        whole.advance().expect("made");
        let _made = whole.finish();
        let names: Vec<Name> = rows.nodes.keys().cloned().collect();
        let mut now = SECOND;
        for (dice, more) in steps {
            let node = names[usize::from(more) % names.len()].clone();
            let number = rows.nodes[&node].0.attempt.as_ref().map_or(1, |attempt| attempt.number);
            let uid = "w".to_owned();
            let end = |end| Finished { node: node.clone(), number, uid: uid.clone(), end, message: None, details: None, results: Vec::new() };
            let told = |signal: Signal, node: Option<Name>| {
                let reason = Some("because".to_owned());
                Input::Told(Told { request: SignalRequest { node, reason, ..SignalRequest::new(signal, "r") }, actor: "token:bob".into() })
            };
            let input = match dice % 10 {
                0..3 => Input::Claim { node: node.clone(), number, uid: uid.clone() },
                3 | 4 => Input::Finish(Box::new(end(Ok(Verdict::Passed)))),
                5 => Input::Finish(Box::new(end(Err("crash".to_owned())))),
                6 => told(Signal::Skip, Some(node.clone())),
                7 if more.is_multiple_of(8) => told(Signal::Rollback, None),
                8 => told(if more.is_multiple_of(2) { Signal::Pause } else { Signal::Resume }, None),
                _ => Input::Due(Some(node.clone())),
            };
            now += i64::from(more) * 100_000;
            let part = rows.step(input.clone(), now).map(|step| step.events);
            let kept = (whole.plan.clone(), rows.nodes.clone());
            whole.again(now, 3);
            whole.submit(input);
            let all = match whole.advance() {
                Ok(()) => Ok(whole.finish().events),
                Err(Stop::Refused(problem)) => {
                    let _begun = whole.finish();
                    let nodes = kept.1.into_values().collect();
                    whole = Working::new(kept.0, now, 3);
                    whole.give_whole(nodes);
                    Err(*problem)
                }
                Err(Stop::Missing(need)) => panic!("{need:?}"),
            };
            let sorted = |events: Result<Vec<Event>, Problem>| events.map(|events| {
                let mut texts: Vec<_> = events.iter().map(|event| serde_json::to_string(event).expect("json")).collect();
                texts.sort();
                texts
            }).map_err(|problem| problem.code);
            prop_assert_eq!(sorted(part), sorted(all));
        }
    }
}
