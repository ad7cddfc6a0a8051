//! Reports: what agents say. They never take the fleet's clock.

use std::collections::HashMap;

use axum::{extract::State, http::StatusCode};
use serde_json::Value;
use titan_api::{Code, Problem, drift::Drift, hosts::Facts, labels::is_key, limits, reports::Report};

use crate::{
    fleet::reports::Said,
    routes::{
        extract::{Caller, Large, Names},
        respond::Answer,
    },
    state::AppState,
    tasks::{follow, reports},
};

/// `POST /v1/hosts/{name}/report`. The answer comes when the report is on disk, if it says anything new.
pub async fn report(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Names(host): Names<String>,
    Large(report): Large<Report>,
) -> Answer<StatusCode> {
    let uid = principal.require_host(&host)?;
    let now = state.clock.now();
    let slot = state.view.slot(uid);
    state.view.see(&slot, now);
    if let Some(facts) = &report.facts {
        check_facts(facts)?;
    }
    check_drift(&report)?;
    let seq = i64::try_from(report.seq)
        .map_err(|_| Problem::new(Code::Invalid, "the report's number is too large").at("/seq", "larger than 2^63"))?;
    let newest = report.deployments.iter().map(|deployment| deployment.revision).max();
    if newest > Some(state.view.revision()) {
        // Another replica told the host of it a moment ago.
        follow::pass(&state).await?;
    }
    let set = slot.set();
    let ids: HashMap<_, _> = set.entries().iter().map(|entry| (entry.id(uid), entry.deployment())).collect();
    let deployment_of = |id| ids.get(&id).copied();
    let said = Said::new((uid, now, seq), report, (set.digest(), &state.reports.key), deployment_of);
    reports::take(&state, &slot, said).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks that what is said of drift keeps to its limits.
fn check_drift(report: &Report) -> Result<(), Problem> {
    let deployments = report.deployments.iter().enumerate();
    let faults: Vec<_> = deployments
        .flat_map(|(index, said)| Drift::faults(&said.drift, &format!("/deployments/{index}/drift")))
        .collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Problem::new(Code::TooLarge, "the report says more of drift than it may").with(faults)),
    }
}

/// Checks that facts are few, short and plain.
pub(super) fn check_facts(facts: &Facts) -> Result<(), Problem> {
    let refuse = |pointer: String, detail: String| {
        Err(Problem::new(Code::Invalid, "the facts are not valid").at(pointer, detail))
    };
    if facts.len() > limits::FACTS {
        return refuse("/facts".to_owned(), format!("{} facts, the limit is {}", facts.len(), limits::FACTS));
    }
    for (name, value) in facts {
        let pointer = format!("/facts/{}", titan_api::parse::escape(name));
        if !is_key(name) || name.contains('/') {
            return refuse(pointer, format!("{name:?} is not a fact's name"));
        }
        match value {
            Value::String(text) if text.len() > limits::FACT_BYTES => {
                return refuse(pointer, format!("longer than {} bytes", limits::FACT_BYTES));
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
            _ => return refuse(pointer, "a fact is text, a number or a boolean".to_owned()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_few_short_and_plain() {
        let facts = |value: Value| check_facts(&serde_json::from_value(value).expect("facts"));
        assert!(facts(json!({"arch": "arm", "memoryBytes": 5, "swap": false})).is_ok());
        assert!(facts(json!({"a b": "x"})).is_err());
        assert!(facts(json!({"a": ["x"]})).is_err());
        assert!(facts(json!({"a": "x".repeat(limits::FACT_BYTES + 1)})).is_err());
        let many: serde_json::Map<_, _> = (0..=limits::FACTS).map(|n| (format!("f{n}"), json!(1))).collect();
        assert!(facts(Value::Object(many)).is_err());
    }
}
