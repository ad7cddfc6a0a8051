//! Target edits and relabels: commit to planned, in proportion to what moves, and whom that keeps waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use titan_api::{
    Kind,
    changes::ApplyRequest,
    client::{Client, WriteOptions},
};
use tokio::task::JoinHandle;

use super::PATIENCE;
use crate::{
    measures::{Figure, Goal, Samples},
    simulator::{credentials, documents, stage::Stage},
};

/// The deployment whose target is edited.
const MOVING: &str = "moving";
/// Assignments that have moved, as the control plane counts them once they are in the view.
const MOVED: &str = "titan_assignments_moved_total";

/// The deployment whose target is a label that a host gets and loses.
const MARKED: &str = "marked";
/// A template that nobody has deployed, which somebody writes meanwhile.
const BESIDE: &str = "beside";
/// The pause between two writes of somebody else.
const PAUSE: Duration = Duration::from_millis(10);

/// Measures edits that concern 10, 1000 and a tenth of the hosts, what somebody else's writes wait for the largest, and
/// relabels of one host.
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
    let (mut figures, mut beside) = (Vec::new(), Samples::default());
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
        if size == hosts.div_ceil(10) {
            // Once more, with somebody beside it.
            let writer = Writer::begin(stage.server.admin.clone());
            for _ in 0..rounds {
                for edit in [&edit, &nobody] {
                    apply(stage, vec![edit.clone()]).await?;
                    stage.server.settled(PATIENCE).await?;
                }
            }
            beside = writer.end().await?;
        }
    }
    let note = format!(
        "{} writes while a tenth of {hosts} hosts is moved to and fro, p50 {:.1} ms",
        beside.len(),
        beside.median()
    );
    let longest = Figure::new("somebody else's write beside that edit, longest", beside.quantile(1.0), "ms");
    figures.push(longest.goal(Goal::AtMost(100.0)).note(note));
    figures.extend(relabels(stage, RELABELS).await?);
    Ok(figures)
}

/// How often a host is relabelled.
const RELABELS: u64 = 50;

/// Measures how soon a host's new label is seen in what it is to have.
async fn relabels(stage: &Stage, count: u64) -> anyhow::Result<Vec<Figure>> {
    let target = documents::target(MARKED, "marked", &["yes".to_owned()]);
    apply(stage, vec![target, documents::deployment(MARKED, MOVING, MARKED)]).await?;
    stage.server.settled(PATIENCE).await?;
    let (mut times, host) = (Samples::default(), credentials::name(0));
    for round in 0..count {
        let before = stage.server.metric(MOVED).await?.unwrap_or_default();
        let label = if round % 2 == 0 { json!("yes") } else { json!(null) };
        let patch = json!({ "metadata": { "labels": { "marked": label } } });
        stage.server.admin.patch(Kind::Host, None, &host, &patch, &WriteOptions::default()).await?;
        let took = stage.server.reaches(MOVED, before + 1.0, PATIENCE).await?;
        times.push(took.as_secs_f64() * 1e3);
    }
    let note = format!("{count} relabels of one of {} hosts; to the view, by the metric", stage.hosts);
    let figure =
        |what: &str, part| Figure::new(format!("2xx of a relabel to the view, {what}"), times.quantile(part), "ms");
    Ok(vec![figure("p50", 0.5).goal(Goal::AtMost(5.0)).note(note), figure("p99", 0.99)])
}

/// Somebody who writes all the time, one document after the other.
struct Writer {
    over: Arc<AtomicBool>,
    writes: JoinHandle<anyhow::Result<Samples>>,
}

impl Writer {
    fn begin(admin: Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let writes = tokio::spawn(async move {
            let (mut times, mut edition) = (Samples::default(), super::fanout::edition(0));
            while !until.load(Ordering::Relaxed) {
                edition += 1;
                let resources = vec![documents::template(BESIDE, edition)];
                let begun = Instant::now();
                admin.apply(&ApplyRequest { resources, ..ApplyRequest::default() }, &WriteOptions::default()).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(PAUSE).await;
            }
            Ok(times)
        });
        Self { over, writes }
    }

    /// Returns how many milliseconds each write took.
    async fn end(self) -> anyhow::Result<Samples> {
        self.over.store(true, Ordering::Relaxed);
        self.writes.await?
    }
}

async fn apply(stage: &Stage, resources: Vec<serde_json::Value>) -> anyhow::Result<()> {
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    stage.server.admin.apply(&request, &WriteOptions::default()).await?;
    Ok(())
}
