//! Reports: what agents say. They never take the fleet's clock.

use axum::{extract::State, http::StatusCode};
use serde_json::Value;
use titan_api::{
    Code, Problem, Revision,
    hosts::Facts,
    labels::is_key,
    limits,
    reports::{DeploymentReport, Phase, Report},
};
use uuid::Uuid;

use crate::{
    routes::{
        extract::{Caller, Large, Names},
        respond::Answer,
    },
    state::AppState,
    store::{ObservedDeployment, ObservedHost, Tx},
    tasks::sweep,
};

/// `POST /v1/hosts/{name}/report`. The answer comes when the report is on disk.
pub async fn report(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Names(host): Names<String>,
    Large(report): Large<Report>,
) -> Answer<StatusCode> {
    let uid = principal.require_host(&host)?;
    let now = state.clock.now();
    state.view.see(&state.view.slot(uid), now);
    if let Some(facts) = &report.facts {
        check_facts(facts)?;
    }
    let mut tx = state.store.write("report").await?;
    let mut observed = tx.observed_host(uid).await?.unwrap_or_else(|| ObservedHost { uid, ..ObservedHost::default() });
    let seq = i64::try_from(report.seq)
        .map_err(|_| Problem::new(Code::Invalid, "the report's number is too large").at("/seq", "larger than 2^63"))?;
    if seq == observed.report_seq {
        // Repeated, because the answer was lost.
        return Ok(StatusCode::NO_CONTENT);
    }
    if seq < observed.report_seq {
        // Late, or from an agent that was restored from the past: it must not believe that this arrived.
        let newest = observed.report_seq;
        return Err(Problem::new(
            Code::Stale,
            format!("report {seq} is older than {newest}, which was taken in before"),
        )
        .at("/seq", newest.to_string())
        .hint("go on counting from the newest number")
        .into());
    }
    observed.report_seq = seq;
    observed.last_seen = Some(now).max(observed.last_seen);
    observed.acked_cursor = report.acked_cursor.max(observed.acked_cursor);
    if let Some(orphans) = report.orphans {
        observed.orphans = orphans;
    }
    let facts_changed = report.facts.as_ref().is_some_and(|facts| *facts != observed.facts);
    if let Some(facts) = report.facts.filter(|_| facts_changed) {
        observed.facts = facts;
    }
    tx.put_observed_host(&observed).await?;
    let mut deployments = report.deployments;
    deployments.sort_by_key(|deployment| deployment.id);
    let mut removed = Vec::new();
    for deployment in deployments {
        removed.extend(take(&mut tx, uid, deployment, now).await?);
    }
    if facts_changed {
        // Last, as in the planner's transaction: in another order the two could wait for each other.
        tx.queue_facts(uid, now).await?;
    }
    tx.commit().await?;
    state.metrics.reports.inc();
    for (id, revision) in &removed {
        state.view.forget(uid, *id, *revision);
    }
    if facts_changed {
        state.committed();
    }
    if !removed.is_empty() {
        sweep::settle(&state).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes in what is said of one deployment; returns the tombstone that it confirmed, if it did.
async fn take(
    tx: &mut Tx,
    host: Uuid,
    mut report: DeploymentReport,
    now: Revision,
) -> Result<Option<(Uuid, Revision)>, Problem> {
    let id = report.id;
    if report.phase == Phase::Removed {
        let confirmed = tx.purge_tombstone(id, host, report.revision).await?;
        if confirmed {
            tx.purge_report(host, id).await?;
        }
        return Ok(confirmed.then_some((id, report.revision)));
    }
    // An orphan has no assignment; it is in the list of orphans.
    if tx.assignment(id).await?.is_some_and(|assignment| assignment.host == host) {
        cut(&mut report.message, limits::MESSAGE_BYTES);
        tx.put_report(&ObservedDeployment { host, report, reported_at: now }).await?;
    }
    Ok(None)
}

/// Cuts a text to at most `limit` bytes, between characters.
fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
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

    #[test]
    fn messages_are_cut_between_characters() {
        let mut text = "aü".repeat(10);
        cut(&mut text, 5);
        assert_eq!(text, "aüa");
    }
}
