use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fleet::workplans::graph;

fn strategy(value: serde_json::Value) -> titan_api::strategies::Strategy {
    let strategy: titan_api::strategies::Strategy = serde_json::from_value(value).expect("strategy");
    assert_eq!(strategy.faults(""), []);
    strategy
}

fn zones(label: &str) -> Vec<String> {
    assert_eq!(label, "zone");
    ["south", "EU_north", "EU-north", "south"].map(str::to_owned).into()
}

/// Every node as `name <- what it waits for`.
fn outline(plan: &WorkPlanSpec) -> Vec<String> {
    let after = |node: &NodeSpec| {
        let mut edges = Vec::new();
        if let Some(group) = &node.after {
            group.each_edge(&mut |edge| edges.push(edge.to_string()));
        }
        let joined = if node.after.as_ref().is_some_and(|group| group.threshold == Some(1)) { " or " } else { " and " };
        edges.join(joined)
    };
    plan.nodes.iter().map(|(name, node)| format!("{name} <- {}", after(node))).collect()
}

fn stage<'a>(plan: &'a WorkPlanSpec, name: &str) -> &'a ReleaseStage {
    match &plan.nodes[name].run {
        Some(Executor::Release(ReleaseStep::Stage(stage))) => stage,
        other => panic!("{name}: {other:?}"),
    }
}

fn is_lawful(plan: &WorkPlanSpec) {
    graph::check(&plan.nodes, &|_| None, "").expect("graph");
    graph::complete(&plan.nodes, "").expect("complete");
    assert!(plan.nodes.len() <= limits::WRITTEN_NODES);
    for node in plan.nodes.values() {
        assert_eq!(node.timeouts.faults(""), []);
    }
    let value = serde_json::to_value(plan).expect("value");
    assert_eq!(&serde_json::from_value::<WorkPlanSpec>(value).expect("plan"), plan, "it survives its JSON");
}

/// The strategy that the design shows.
#[test]
fn stages_and_checks_follow_each_other() {
    let plan = compile(
        Some(&strategy(json!({
            "stages": [
                {"name": "canary", "hosts": 1, "minReadySeconds": 60},
                {"name": "early", "hosts": "10%", "maxUnavailable": "5%", "maxFailures": 0,
                 "windows": ["Tue 10:00-11:00"],
                 "checks": [{"approval": {"role": "admin", "deadline": "24h"}}, {"wait": {"for": "1h"}}]},
                {"name": "rest", "hosts": "100%", "maxUnavailable": "20%"},
            ],
            "maxFailures": "2%",
            "windows": ["Mon-Fri 09:00-16:00 Europe/Berlin"],
        }))),
        100,
        zones,
    );
    is_lawful(&plan);
    assert_eq!(
        outline(&plan),
        [
            "canary <- preflight",
            "early <- canary",
            "early-check-1 <- early",
            "early-check-2 <- early",
            "preflight <- ",
            "rest <- early-check-1 and early-check-2",
            "roll-back <- ",
        ]
    );
    assert_eq!((plan.on_failure, plan.deadline), (OnPlanFailure::Rollback, None));
    assert!(plan.nodes["roll-back"].compensation && !plan.nodes["rest"].compensation);
    let checks = ["preflight", "early-check-1", "early-check-2"];
    assert!(plan.nodes.iter().all(|(name, node)| (node.kind == NodeKind::Check) == checks.contains(&name.as_str())));
    let early = stage(&plan, "early");
    assert_eq!((early.hosts, early.max_unavailable), (Share::Percent(10), Share::Percent(5)));
    assert_eq!((early.max_failures, &early.windows[..]), (Share::Count(0), &["Tue 10:00-11:00".to_owned()][..]));
    assert_eq!(stage(&plan, "rest").max_failures, Share::Percent(2));
    assert_eq!(stage(&plan, "rest").windows, ["Mon-Fri 09:00-16:00 Europe/Berlin"]);
    assert_eq!(plan.nodes["rest"].retry.attempts, 1);
    assert_eq!(plan.nodes["rest"].timeouts.per_attempt, Some(Span(limits::PLAN_SPAN_MOST)), "it judges itself");
}

#[test]
fn going_on_after_a_failure_opens_no_gate_that_a_check_keeps_closed() {
    let plan = compile(
        Some(&strategy(json!({
            "stages": [
                {"name": "a", "hosts": 1},
                {"name": "b", "hosts": 2, "checks": [{"approval": {}}]},
                {"name": "c", "hosts": "100%"},
            ],
            "onFailure": "continue",
        }))),
        100,
        zones,
    );
    is_lawful(&plan);
    assert_eq!(
        outline(&plan),
        [
            "a <- preflight or preflight:failed",
            "b <- a or a:failed",
            "b-check-1 <- b or b:failed",
            "c <- b-check-1",
            "preflight <- ",
            "roll-back <- ",
        ]
    );
    assert_eq!(plan.on_failure, OnPlanFailure::Fail);
}

#[test]
fn a_plan_that_pauses_does_so_at_every_node() {
    let plan = compile(
        Some(&strategy(json!({
            "stages": [{"name": "all", "hosts": "100%", "checks": [{"wait": {"for": "1s"}}]}], "onFailure": "pause",
        }))),
        5,
        zones,
    );
    is_lawful(&plan);
    assert_eq!(plan.nodes.len(), 4);
    let pauses = |node: &NodeSpec| node.on_failure == OnNodeFailure::Pause;
    assert!(
        plan.nodes.values().all(|node| pauses(node) != node.compensation),
        "there is no way back from the way back"
    );
}

#[test]
fn a_label_gives_a_stage_for_each_value_and_one_for_all_others() {
    let by = strategy(json!({"stages": [
        {"name": "canary", "hosts": 1},
        {"name": "zones", "by": "zone", "maxUnavailable": 2, "checks": [{"wait": {"for": "1s"}}]},
    ]}));
    let plan = compile(Some(&by), 100, zones);
    is_lawful(&plan);
    assert_eq!(
        outline(&plan),
        [
            "canary <- preflight",
            "preflight <- ",
            "roll-back <- ",
            "zones-eu-north <- canary",
            "zones-eu-north-2 <- zones-eu-north-check-1",
            "zones-eu-north-2-check-1 <- zones-eu-north-2",
            "zones-eu-north-check-1 <- zones-eu-north",
            "zones-others <- zones-south-check-1",
            "zones-others-check-1 <- zones-others",
            "zones-south <- zones-eu-north-2-check-1",
            "zones-south-check-1 <- zones-south",
        ]
    );
    let others = stage(&plan, "zones-others").selector.clone().expect("selector");
    for (zone, other) in [(Some("south"), false), (Some("EU_north"), false), (Some("west"), true), (None, true)] {
        assert_eq!(others.rules_match(|_| zone.map(Into::into)), other, "{zone:?}");
    }
    assert_eq!(stage(&plan, "zones-eu-north-2").selector.as_ref().expect("selector").match_labels["zone"], "EU_north");
    assert_eq!(stage(&plan, "zones-others").max_unavailable, Share::Count(2));
    let nobody = compile(Some(&by), 100, |_| Vec::new());
    assert_eq!(stage(&nobody, "zones-others").selector, None, "everybody");
    // Before a stage that reaches everybody, that one is the rest.
    let followed = strategy(json!({"stages": [{"name": "zones", "by": "zone"}, {"name": "rest", "hosts": "100%"}]}));
    assert!(!compile(Some(&followed), 9, zones).nodes.contains_key("zones-others"));
}

#[test]
fn the_largest_strategy_fits_into_one_write() {
    let checks = vec![json!({"wait": {"for": "1s"}}); limits::STAGE_CHECKS];
    let name = |n: usize| format!("{}{n:02}", "x".repeat(limits::STAGE_NAME_BYTES - 2));
    let mut stages: Vec<_> =
        (1..limits::STRATEGY_STAGES).map(|n| json!({"name": name(n), "hosts": n, "checks": checks})).collect();
    stages.push(json!({"name": name(99), "by": "zone", "checks": checks}));
    let many = |_: &str| (0..limits::STAGE_VALUES + 50).map(|n| format!("{n:063}")).collect();
    let plan = compile(Some(&strategy(json!({ "stages": stages }))), 1_000_000, many);
    is_lawful(&plan);
    let by = limits::STAGE_VALUES + 1;
    assert_eq!(plan.nodes.len(), (limits::STRATEGY_STAGES - 1 + by) * (1 + limits::STAGE_CHECKS) + 2);
}

#[test]
fn small_fleets_have_one_stage_and_large_ones_a_canary() {
    let few = compile(None, 20, zones);
    is_lawful(&few);
    assert_eq!(outline(&few), ["all <- ", "roll-back <- "], "what cannot fail is not asked");
    assert_eq!(stage(&few, "all").max_failures, Share::ALL);
    let many = compile(None, 21, zones);
    is_lawful(&many);
    assert_eq!(
        outline(&many),
        ["all <- tenth", "canary <- preflight", "preflight <- ", "roll-back <- ", "tenth <- canary"]
    );
    assert_eq!(stage(&many, "all").max_unavailable, Share::Percent(25));
    assert_eq!(stage(&many, "canary").max_failures, Share::Percent(5));
}

/// S4-19: three stages with a second of proof each fit into fifteen seconds, and the sum is told if they do not.
#[test]
fn what_cannot_fit_its_deadline_is_refused_with_the_sum() {
    let of = |progress: &str| {
        strategy(json!({
            "stages": [
                {"name": "canary", "hosts": 1, "minReadySeconds": 1},
                {"name": "tenth", "hosts": "10%", "minReadySeconds": 1},
                {"name": "all", "hosts": "100%", "minReadySeconds": 1},
            ],
            "progressDeadline": progress, "deadline": "15s",
        }))
    };
    let check = |plan: WorkPlanSpec| graph::budget(&plan.nodes, plan.deadline.expect("deadline").0);
    assert_eq!(check(compile(Some(&of("3s")), 100, zones)), Ok(()));
    let problem = check(compile(Some(&of("4s")), 100, zones)).expect_err("too long");
    assert_eq!(
        problem.detail,
        "in the worst case it takes 19s, and its deadline is 15s: preflight 4s + canary 5s + tenth 5s + all 5s = 19s"
    );
}

#[test]
fn a_stage_has_its_time_for_as_often_as_hosts_take_turns() {
    for (share, members, hosts, expected) in [
        (Share::ALL, Some(90), 100, 1),
        (Share::Percent(25), Some(90), 100, 5),
        (Share::Count(20), Some(90), 100, 5),
        (Share::Count(20), None, 100, 5),
        (Share::Percent(50), Some(3), 100, 3),
        (Share::Percent(50), None, 100, 3),
        (Share::Percent(1), Some(0), 0, 1),
        (Share::Percent(1), None, 0, 1),
    ] {
        assert_eq!(waves(share, members, hosts), expected, "{share} of {members:?} of {hosts}");
    }
    for percent in 1..=100 {
        let known = (0..=300).map(|members| waves(Share::Percent(percent), Some(members), 300)).max();
        assert_eq!(Some(waves(Share::Percent(percent), None, 300)), known, "{percent}%");
    }
}

/// Returns all that has to be over before a node begins.
fn before(plan: &WorkPlanSpec, name: &str) -> BTreeSet<String> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(name) = todo.pop() {
        if let Some(group) = &plan.nodes[name.as_str()].after {
            group.each_edge(&mut |edge| {
                if found.insert(edge.node.to_string()) {
                    todo.push(edge.node.to_string());
                }
            });
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever a strategy says: its plan is in order, and its last stage begins when everything else is over.
    #[test]
    fn every_strategy_has_a_plan_in_which_each_stage_waits_for_all_before_it(
        kinds in prop::collection::vec((0..4_u8, 0..3_usize), 0..6),
        on_failure in prop_oneof![Just("rollback"), Just("pause"), Just("continue")],
        max_failures in prop_oneof![Just("0%"), Just("5%"), Just("100%")],
        hosts in 0..500_u64,
        labels in prop::collection::vec("[a-zA-Z0-9_.]{1,50}", 0..5),
    ) {
        let mut stages = Vec::new();
        for (n, (kind, checks)) in kinds.iter().enumerate() {
            let first_by = kinds.iter().position(|(kind, _)| *kind == 3) == Some(n);
            let mut stage = match kind {
                1 => json!({"hosts": format!("{}%", n + 1)}),
                2 => json!({"match": {"matchLabels": {"zone": n.to_string()}}, "maxUnavailable": 1}),
                3 if first_by => json!({"by": "zone"}),
                _ => json!({"hosts": n + 1}),
            };
            stage["name"] = json!(format!("s-check-{n}"));
            stage["checks"] = json!(vec![json!({"wait": {"for": "1s"}}); *checks]);
            stages.push(stage);
        }
        stages.push(json!({"name": "all", "hosts": "100%"}));
        let strategy = strategy(json!({"stages": stages, "onFailure": on_failure, "maxFailures": max_failures}));
        let plan = compile(Some(&strategy), hosts, |_| labels.clone());
        is_lawful(&plan);
        let others = plan.nodes.iter().filter(|(name, node)| !node.compensation && **name != *"all");
        let others: BTreeSet<_> = others.map(|(name, _)| name.to_string()).collect();
        prop_assert_eq!(before(&plan, "all"), others);
        prop_assert_eq!(plan.nodes.contains_key(PREFLIGHT), max_failures != "100%");
        prop_assert_eq!(plan.nodes.contains_key(ROLL_BACK), true);
    }
}
