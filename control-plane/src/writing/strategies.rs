//! Strategies: what can be known of one before a release goes by it.

use titan_api::{Code, Problem, problems::Fault, strategies::Strategy, windows::Windows};

use super::plans;
use crate::fleet::{matchers::Matcher, rollouts::compile, workplans::graph};

/// Checks a strategy without the store: its windows, of which the zones have to be known here, its expressions, and that it
/// fits its deadline on a fleet of one host at least.
pub(crate) fn check(strategy: &Strategy, pointer: &str) -> Result<(), Problem> {
    check_windows(&strategy.windows, pointer)?;
    for (index, stage) in strategy.stages.iter().enumerate() {
        let here = format!("{pointer}/stages/{index}");
        check_windows(&stage.windows, &here)?;
        if let Some(selector) = &stage.selector {
            Matcher::new(selector.clone()).map_err(|fault| refused(fault.under(&format!("{here}/match"))))?;
        }
        for (index, check) in stage.checks.iter().enumerate() {
            plans::check_run(Some(check), &format!("{here}/checks/{index}"))?;
        }
    }
    let Some(deadline) = strategy.deadline else { return Ok(()) };
    let plan = compile(Some(strategy), 1, |_| Vec::new());
    graph::budget(&plan.nodes, deadline.0).map_err(|problem| {
        let detail = problem.detail;
        Problem::new(problem.code, detail.clone())
            .at(format!("{pointer}/deadline"), detail)
            .hint("lower progressDeadline, minReadySeconds or the times of the checks, or raise the deadline")
    })
}

fn check_windows(windows: &[String], pointer: &str) -> Result<(), Problem> {
    let fault = |(index, detail): (usize, String)| Fault::new(format!("{pointer}/windows/{index}"), detail);
    Windows::parse(windows).map(drop).map_err(|found| refused(fault(found)))
}

fn refused(fault: Fault) -> Problem {
    Problem::new(Code::Invalid, format!("the strategy is not valid: {}", fault.detail)).with([fault])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(key: &str, value: Value, stage: Value) -> Result<(), (Code, String, String)> {
        let mut strategy = json!({"stages": [{"name": "canary", "hosts": 1}, {"name": "all", "hosts": "100%"}]});
        if key.is_empty() {
            strategy["stages"][0] = stage;
        } else {
            strategy[key] = value;
        }
        let strategy: Strategy = serde_json::from_value(strategy).expect("strategy");
        assert_eq!(strategy.faults(""), []);
        check(&strategy, "/spec/strategy").map_err(|problem| {
            let fault = problem.errors[0].clone();
            (problem.code, fault.pointer, fault.detail)
        })
    }

    #[test]
    fn what_only_the_control_plane_knows_is_checked_by_it() {
        assert_eq!(found("windows", json!(["Mon 09:00-10:00"]), Value::Null), Ok(()));
        let (code, pointer, detail) =
            found("windows", json!(["* 00:00-24:00", "Mon 09:00-10:00 Europe/Nowhere"]), Value::Null)
                .expect_err("zone");
        assert_eq!((code, pointer.as_str()), (Code::Invalid, "/spec/strategy/windows/1"));
        assert!(detail.contains("knows no time zone"), "{detail}");
        for (stage, pointer) in [
            (json!({"windows": ["* 00:00-24:00 Nowhere"], "hosts": 1}), "/spec/strategy/stages/0/windows/0"),
            (json!({"match": {"expression": "labels."}}), "/spec/strategy/stages/0/match/expression"),
            (
                json!({"hosts": 1, "checks": [{"http": {"url": "http://a", "condition": "status =="}}]}),
                "/spec/strategy/stages/0/checks/0/http/condition",
            ),
        ] {
            let mut stage = stage;
            stage["name"] = json!("canary");
            assert_eq!(found("", Value::Null, stage).expect_err(pointer).1, pointer);
        }
    }

    #[test]
    fn a_deadline_that_no_fleet_can_keep_is_refused_with_the_sum() {
        assert_eq!(found("deadline", json!("30m"), Value::Null), Ok(()));
        let (code, pointer, detail) = found("deadline", json!("29m"), Value::Null).expect_err("too short");
        assert_eq!((code, pointer.as_str()), (Code::BudgetExceeded, "/spec/strategy/deadline"));
        assert!(detail.contains("preflight 10m + canary 10m + all 10m = 30m"), "{detail}");
    }
}
