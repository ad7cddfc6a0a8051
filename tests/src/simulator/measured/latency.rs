//! From one commit to the answer of the one host that it concerns, among many that wait.

use std::time::Duration;

use serde_json::json;
use titan_api::{Kind, changes::ApplyRequest, client::WriteOptions};

use super::{PATIENCE, differences, fanout};
use crate::{
    measures::{Figure, Goal, Samples},
    simulator::{
        credentials, documents,
        fleet::Fleet,
        script::{Carrier, Script},
        stage::Stage,
    },
};

/// The deployment whose target is one host by its serial.
const ALONE: &str = "alone";
/// The deployment whose target is a label that a host gets and loses.
const MARKED: &str = "marked";

/// Measures `rounds` changes and as many relabels.
pub(super) async fn measure(stage: &Stage, connections: usize, rounds: u64) -> anyhow::Result<Vec<Figure>> {
    let resources = vec![
        documents::template(ALONE, 0),
        documents::target(ALONE, "serial", &[documents::serial(0)]),
        documents::target(MARKED, "marked", &["yes".to_owned()]),
        deployment(0),
        documents::deployment(MARKED, ALONE, MARKED),
    ];
    apply(stage, resources).await?;
    stage.server.settled(PATIENCE).await?;
    let script = Script { carrier: Carrier::Mux, connections, wait: 60, verify: 0.0, ..Script::default() };
    let fleet = fanout::waiting(stage, stage.hosts, script).await?;
    let (mut changes, mut relabels) = (Samples::default(), Samples::default());
    for round in 1..=rounds {
        let answered = fleet.tally.deltas.get();
        apply(stage, vec![deployment(fanout::edition(round))]).await?;
        changes.push(answer(&fleet, answered).await?);
    }
    for round in 1..=rounds {
        let answered = fleet.tally.deltas.get();
        let label = if round % 2 == 1 { json!("yes") } else { json!(null) };
        let patch = json!({ "metadata": { "labels": { "marked": label } } });
        let host = credentials::name(0);
        stage.server.admin.patch(Kind::Host, None, &host, &patch, &WriteOptions::default()).await?;
        relabels.push(answer(&fleet, answered).await?);
    }
    fleet.stop().await;
    let verdict = fleet.verdict().await;
    let note = format!("{rounds} changes, {} hosts waiting over {connections} connections", stage.hosts);
    let p = |samples: &Samples, part| samples.quantile(part);
    Ok(vec![
        Figure::new("2xx of a change to its host's answer, p50", p(&changes, 0.5), "ms").note(&note),
        Figure::new("2xx of a change to its host's answer, p99", p(&changes, 0.99), "ms").goal(Goal::AtMost(10.0)),
        Figure::new("2xx of a relabel to its host's answer, p50", p(&relabels, 0.5), "ms")
            .goal(Goal::AtMost(5.0))
            .note(&note),
        Figure::new("2xx of a relabel to its host's answer, p99", p(&relabels, 0.99), "ms"),
        differences("one change", &verdict),
    ])
}

fn deployment(serial: u64) -> serde_json::Value {
    documents::free(ALONE, ALONE, ALONE, &format!("{ALONE}-{serial}"))
}

async fn apply(stage: &Stage, resources: Vec<serde_json::Value>) -> anyhow::Result<()> {
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    stage.server.admin.apply(&request, &WriteOptions::default()).await?;
    Ok(())
}

/// Returns how many milliseconds after now the next answer with a change is read.
async fn answer(fleet: &Fleet, answered: u64) -> anyhow::Result<f64> {
    let committed = fleet.tally.elapsed();
    fleet.until("the answer", PATIENCE, |fleet| fleet.tally.deltas.get() > answered).await?;
    let took = fleet.tally.last_change().saturating_sub(committed);
    // The host asks again within half a second, and is waiting when the next change comes.
    tokio::time::sleep(Duration::from_millis(600)).await;
    Ok(took.as_secs_f64() * 1e3)
}
