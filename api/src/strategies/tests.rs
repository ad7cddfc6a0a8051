use serde_json::{Value, json};

use super::*;
use crate::{limits, parse};

fn read(value: Value) -> Result<Strategy, Vec<(String, String)>> {
    let pair = |fault: crate::problems::Fault| (fault.pointer, fault.detail);
    let strategy: Strategy = parse::from_value(value).map_err(|fault| vec![pair(fault)])?;
    let faults: Vec<_> = strategy.faults("").into_iter().map(pair).collect();
    if faults.is_empty() { Ok(strategy) } else { Err(faults) }
}

fn stages(stages: Value) -> Result<Strategy, Vec<(String, String)>> {
    let mut strategy = json!({});
    strategy["stages"] = stages;
    read(strategy)
}

/// The strategy that the design shows.
#[test]
fn example_of_the_design_is_read() {
    let value = json!({
        "stages": [
            {"name": "canary", "hosts": 1, "minReadySeconds": 60},
            {"name": "early", "hosts": "10%", "maxUnavailable": "5%",
             "checks": [{"approval": {"role": "admin", "deadline": "24h"}}]},
            {"name": "rest", "hosts": "100%", "maxUnavailable": "20%"},
        ],
        "maxFailures": "2%",
        "progressDeadline": "10m",
        "offline": {"after": "10m", "do": "exclude"},
        "onFailure": "rollback",
        "windows": ["Mon-Fri 09:00-16:00 Europe/Berlin"],
    });
    let strategy = read(value).expect("strategy");
    assert_eq!(strategy.stages[0].hosts, Some(Share::Count(1)));
    assert_eq!(strategy.stages[0].max_unavailable, Share::ALL);
    assert_eq!(strategy.stages[1].max_unavailable, Share::Percent(5));
    assert!(matches!(&strategy.stages[1].checks[..], [Executor::Approval(approval)] if approval.minimum == 1));
    assert_eq!((strategy.max_failures, strategy.on_failure), (Share::Percent(2), OnFailure::Rollback));
    // What is written again is what was meant, the defaults left out.
    let again = serde_json::to_value(&strategy).expect("value");
    assert!(again.get("progressDeadline").is_none() && again.get("onFailure").is_none());
    assert_eq!(read(again).expect("again"), strategy);
}

#[test]
fn defaults_are_the_careful_ones() {
    let strategy = stages(json!([{"name": "all", "hosts": "100%"}])).expect("strategy");
    assert_eq!(strategy.max_failures, Share::NONE);
    assert_eq!(strategy.progress_deadline.to_string(), "10m");
    assert_eq!((strategy.offline.after.to_string(), strategy.offline.then), ("10m".into(), OfflineAction::Exclude));
    assert_eq!(strategy.on_failure, OnFailure::Rollback);
}

#[test]
fn fleets_of_more_than_twenty_are_not_changed_at_once() {
    let few = Strategy::usual(20);
    assert_eq!((few.stages.len(), few.max_failures, few.on_failure), (1, Share::ALL, OnFailure::Continue));
    let many = Strategy::usual(21);
    let hosts: Vec<_> = many.stages.iter().filter_map(|stage| stage.hosts).collect();
    assert_eq!(hosts, [Share::Count(1), Share::Percent(10), Share::ALL]);
    assert_eq!((many.max_failures, many.on_failure), (Share::Percent(5), OnFailure::Rollback));
    assert!(few.faults("").is_empty() && many.faults("").is_empty());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let all = json!({"name": "all", "hosts": "100%"});
    let approval = json!({"approval": {}});
    for (value, pointer, hint) in [
        (json!([]), "/stages", "no stages"),
        (json!(vec![all.clone(); limits::STRATEGY_STAGES + 1]), "/stages", "33 stages, the limit is 32"),
        (json!([{"name": "a", "hosts": "120%"}]), "/stages/0/hosts", "write 0% to 100%"),
        (json!([{"name": "a", "hosts": "100%", "host": 1}]), "/stages/0/host", "did you mean \"hosts\"?"),
        (json!([{"name": "a", "hosts": 1}, {"name": "a", "hosts": "100%"}]), "/stages/1/name", "a name of its own"),
        (json!([{"name": "preflight", "hosts": "100%"}]), "/stages/0/name", "name the stage otherwise"),
        (json!([{"name": "x".repeat(41), "hosts": "100%"}]), "/stages/0/name", "41 bytes, the limit is 40"),
        (json!([{"name": "a", "hosts": "90%"}]), "/stages/0/hosts", "some hosts would never have"),
        (json!([{"name": "a", "match": {"matchLabels": {"a": "b"}}}]), "/stages/0/match", "some hosts would never"),
        (json!([all, {"name": "b", "by": "zone"}]), "/stages/0/hosts", "put it last"),
        (json!([{"name": "a", "hosts": "20%"}, {"name": "b", "hosts": "10%"}, all]), "/stages/1/hosts", "it grows"),
        (json!([{"name": "a", "hosts": 2}, {"name": "b", "hosts": 2}, all]), "/stages/1/hosts", "it grows"),
        (json!([{"name": "a", "hosts": 0}, all]), "/stages/0/hosts", "a stage of nobody"),
        (json!([{"name": "a"}, all]), "/stages/0", "hosts: 10%, match: a selector, or by: a label"),
        (json!([{"name": "a", "match": {}}, all]), "/stages/0/match", "it matches everybody"),
        (json!([{"name": "a", "by": "zone", "hosts": 1}]), "/stages/0/hosts", "leave hosts out"),
        (json!([{"name": "a", "by": "zone", "match": {"expression": "true"}}]), "/stages/0/by", "make two of it"),
        (json!([{"name": "a", "by": "fact/arch"}]), "/stages/0/by", "not the key of a label"),
        (json!([{"name": "a", "by": "zone"}, {"name": "b", "by": "rack"}]), "/stages/1/by", "another stage"),
        (json!([{"name": "a", "hosts": "100%", "maxUnavailable": "0%"}]), "/stages/0/maxUnavailable", "at least 1"),
        (json!([{"name": "a", "hosts": "100%", "minReadySeconds": 604_801}]), "/stages/0/minReadySeconds", "604800"),
        (json!([{"name": "a", "hosts": "100%", "checks": vec![approval; 17]}]), "/stages/0/checks", "limit is 16"),
        (
            json!([{"name": "a", "hosts": "100%", "checks": [{"plan": {}}]}]),
            "/stages/0/checks/0/plan",
            "a check is one of",
        ),
        (
            json!([{"name": "a", "hosts": "100%", "checks": [{"release": {"back": {"progressDeadline": "1m", "offline": {}}}}]}]),
            "/stages/0/checks/0/release",
            "a check is one of",
        ),
        (
            json!([{"name": "a", "hosts": "100%", "checks": [{"approval": {"role": "boss"}}]}]),
            "/stages/0/checks/0/approval/role",
            "no role",
        ),
        (
            json!([{"name": "a", "hosts": "100%", "windows": ["* 00:00-24:00", "Mon 9-10"]}]),
            "/stages/0/windows/1",
            "not hours",
        ),
    ] {
        let faults = stages(value.clone()).expect_err(&value.to_string());
        let [(found, detail)] = &faults[..] else { panic!("{value}: {faults:?}") };
        assert!(found == pointer && detail.contains(hint), "{value}: {found}: {detail}");
    }
    let with = |key: &str, value: Value| {
        let mut strategy = json!({"stages": [{"name": "all", "hosts": "100%"}]});
        strategy[key] = value;
        read(strategy).expect_err(key).remove(0)
    };
    assert_eq!(with("maxFailures", json!("101%")).0, "/maxFailures");
    assert_eq!(with("onFailure", json!("stop")).0, "/onFailure");
    assert_eq!(with("progressDeadline", json!("10ms")).0, "/progressDeadline");
    assert_eq!(with("deadline", json!("0s")).0, "/deadline");
    assert_eq!(with("offline", json!({"after": "1ms"})).0, "/offline/after");
    assert_eq!(with("offline", json!({"do": "panic"})).0, "/offline/do");
    assert_eq!(with("windows", json!(vec!["* 00:00-24:00"; 65])).0, "/windows");
    assert_eq!(with("windows", json!(["Mon"])).0, "/windows/0");
    let (pointer, detail) = with("stage", json!([]));
    assert_eq!(pointer, "/stage");
    assert!(detail.starts_with("unknown key \"stage\", did you mean \"stages\"? known are stages, "), "{detail}");
}

#[test]
fn stages_by_label_reach_everybody_when_they_are_last() {
    assert!(stages(json!([{"name": "canary", "hosts": 1}, {"name": "zones", "by": "zone"}])).is_ok());
    let counts_then_parts =
        json!([{"name": "a", "hosts": 50}, {"name": "b", "hosts": "10%"}, {"name": "c", "hosts": "100%"}]);
    assert!(stages(counts_then_parts).is_ok(), "which of the two is more depends on the fleet");
    let some_that_match =
        json!([{"name": "a", "hosts": "10%", "match": {"expression": "true"}}, {"name": "c", "hosts": "100%"}]);
    assert!(stages(some_that_match).is_ok());
}

/// A document without a strategy is written as it was before there were any.
#[test]
fn deployments_without_a_strategy_stay_the_same_bytes() {
    let value = json!({"workload": "w", "target": "t", "onRemove": "delete"});
    let spec = crate::Spec::parse(crate::Kind::Deployment, value.clone()).expect("spec");
    assert_eq!(spec.to_value(), value);
    let bad = json!({"workload": "w", "target": "t", "strategy": {"stages": []}});
    let faults = crate::Spec::parse(crate::Kind::Deployment, bad).expect_err("faults");
    assert_eq!(faults[0].pointer, "/spec/strategy/stages");
}
