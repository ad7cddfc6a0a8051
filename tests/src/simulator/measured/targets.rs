//! Target edits: commit to planned, in proportion to what moves.

use titan_api::{changes::ApplyRequest, client::WriteOptions};

use super::PATIENCE;
use crate::{
    measures::{Figure, Goal, Samples},
    simulator::{documents, stage::Stage},
};

/// The deployment whose target is edited.
const MOVING: &str = "moving";
/// Assignments that have moved, as the control plane counts them once they are in the view.
const MOVED: &str = "titan_assignments_moved_total";

/// Measures edits that concern 10, 1000 and a tenth of the hosts.
pub(super) async fn measure(stage: &Stage, rounds: u64) -> anyhow::Result<Vec<Figure>> {
    let nobody = documents::target(MOVING, "region", &["nowhere".to_owned()]);
    let template = documents::template(MOVING, 0);
    apply(stage, vec![template, nobody.clone(), documents::deployment(MOVING, MOVING, MOVING)]).await?;
    stage.server.settled(PATIENCE).await?;
    stage.server.at_rest(PATIENCE).await?;
    let hosts = stage.hosts;
    let serials: Vec<_> = (0..10.min(hosts)).map(documents::serial).collect();
    let edits = [
        (serials.len(), documents::target(MOVING, "serial", &serials)),
        (1000.min(hosts), documents::target(MOVING, "rack", &["rack-0000".to_owned()])),
        (hosts.div_ceil(10), documents::target(MOVING, "region", &["region-0".to_owned()])),
    ];
    let mut figures = Vec::new();
    for (size, edit) in edits {
        let mut times = Samples::default();
        for _ in 0..rounds {
            let before = stage.server.metric(MOVED).await?.unwrap_or_default();
            apply(stage, vec![edit.clone()]).await?;
            let took = stage.server.reaches(MOVED, before + size as f64, PATIENCE).await?;
            times.push(took.as_secs_f64() * 1e3);
            stage.server.settled(PATIENCE).await?;
            apply(stage, vec![nobody.clone()]).await?;
            stage.server.settled(PATIENCE).await?;
        }
        let note = format!("of {hosts} hosts, median of {rounds}; to the view, by the metric");
        let figure = Figure::new(format!("target edit that concerns {size} hosts"), times.median(), "ms").note(note);
        figures.push(if size >= 100_000 { figure.goal(Goal::AtMost(1000.0)) } else { figure });
    }
    Ok(figures)
}

async fn apply(stage: &Stage, resources: Vec<serde_json::Value>) -> anyhow::Result<()> {
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    stage.server.admin.apply(&request, &WriteOptions::default()).await?;
    Ok(())
}
