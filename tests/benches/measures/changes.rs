//! From a write to its effect: to every assignment decided, and to the answer of a held poll.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use titan_api::Revision;
use titan_tests::{
    manifests,
    measures::{Figure, Samples},
};
use tokio::sync::mpsc;

use crate::{children::Plane, hosts, options::Options, rows::Rows};

/// Hosts that a deployment is planned for.
const FLEET: usize = 1000;
/// Changes that a host waits for.
const CHANGES: usize = 200;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time from the 2xx of a write to the last of a thousand assignments in the view.
pub(crate) async fn plans(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (size, rounds) = options.pick((FLEET, 7), (100, 1));
    let plane = Plane::start().await?;
    let mut rows = Rows::open().await?;
    let http = reqwest::Client::new();
    let (mut declared, mut hosts_alone) = (Samples::default(), Samples::default());
    let begun = Instant::now();
    hosts::declare(&plane, 0, size).await?;
    declared.push(milliseconds(begun));
    hosts_alone.push(rows.write(&contexts(size), 0, false).await?);
    hosts::apply(&plane, hosts::ground()).await?;
    hosts::settled(&plane).await?;
    let mut shared = (Samples::default(), Samples::default());
    let mut own = (Samples::default(), Samples::default());
    for round in 1..=rounds {
        for (template, (subject, least)) in [("shared", &mut shared), ("own", &mut own)] {
            least.push(rows.write(&contexts(size), round, template == "own").await?);
            let document = hosts::deployment(&format!("{template}-{round}"), template, "all", round);
            subject.push(planned(&plane, &http, document, size).await?);
        }
    }
    let note = |samples: &Samples| {
        let (low, high) = samples.spread();
        format!("{rounds} rounds, {low:.2} to {high:.2} of the median; {size} hosts")
    };
    Ok(vec![
        Figure::new(format!("declare {size} hosts, to 2xx"), declared.median(), "ms")
            .beside("as many rows, one transaction", hosts_alone.median())
            .note("once"),
        Figure::new(format!("commit to {size} assignments, one bundle"), shared.0.median(), "ms")
            .beside("as many rows, one transaction", shared.1.median())
            .note(note(&shared.0)),
        Figure::new(format!("commit to {size} assignments, a bundle each"), own.0.median(), "ms")
            .beside("bare minijinja and as many rows", own.1.median())
            .note(note(&own.0)),
    ])
}

fn contexts(size: usize) -> Vec<Arc<Value>> {
    (0..size).map(|number| Arc::new(hosts::context(number, number))).collect()
}

/// Writes a deployment and returns the milliseconds from its 2xx until all its assignments are in the view.
async fn planned(plane: &Plane, http: &reqwest::Client, document: Value, size: usize) -> anyhow::Result<f64> {
    let before = plane.metric(http, hosts::MOVED).await?;
    hosts::apply(plane, vec![document]).await?;
    let begun = Instant::now();
    while plane.metric(http, hosts::MOVED).await? < before + size as f64 {
        ensure!(begun.elapsed() < PATIENCE, "the assignments were not decided in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(milliseconds(begun))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Time from a write to the answer that a host gets which waits for it, in a fleet of a thousand.
pub(crate) async fn answers(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (size, changes) = options.pick((FLEET, CHANGES), (50, 10));
    let plane = Plane::start().await?;
    hosts::declare(&plane, 0, size - 1).await?;
    let mut documents = hosts::ground();
    documents.push(manifests::host("probe", "role=probe,site=bench"));
    documents.push(manifests::target("probe", "role=probe"));
    documents.push(hosts::deployment("everywhere", "shared", "all", 0));
    documents.push(hosts::deployment("probe", "own", "probe", 0));
    hosts::apply(&plane, documents).await?;
    hosts::assigned(&plane, size + 1).await?;
    let mut host = hosts::enrol(&plane, &plane.url(), "probe").await?;
    let (told, mut answers) = mpsc::unbounded_channel();
    let waiting = tokio::spawn(async move {
        loop {
            let changed = host.poll(60).await;
            let at = Instant::now();
            if !matches!(changed, Ok(false)) && told.send(changed.map(|_| (at, host.cursor))).is_err() {
                return;
            }
        }
    });
    let (mut written, mut from_write, mut from_commit) = (Samples::default(), Samples::default(), Samples::default());
    for serial in 1..=changes {
        // The host asks again meanwhile, and is waiting when the change comes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sent = Instant::now();
        let answer = hosts::apply(&plane, vec![hosts::deployment("probe", "own", "probe", serial)]).await?;
        let committed = Instant::now();
        let revision = answer.revision.context("the write changes something")?;
        let answered = answered(&mut answers, revision).await?;
        let since = |from: Instant| answered.saturating_duration_since(from).as_secs_f64() * 1e3;
        written.push(committed.duration_since(sent).as_secs_f64() * 1e3);
        from_write.push(since(sent));
        from_commit.push(since(committed));
    }
    waiting.abort();
    let note = format!("{changes} changes, {size} hosts");
    let figure = |name: &str, samples: &Samples, part: f64| {
        Figure::new(name, samples.quantile(part), "ms").beside("the write itself, to 2xx", written.quantile(part))
    };
    Ok(vec![
        figure("2xx to a waiting host's answer, p50", &from_commit, 0.5).note(note),
        figure("2xx to a waiting host's answer, p99", &from_commit, 0.99),
        figure("write sent to a waiting host's answer, p50", &from_write, 0.5),
        figure("write sent to a waiting host's answer, p99", &from_write, 0.99),
    ])
}

type Told = mpsc::UnboundedReceiver<anyhow::Result<(Instant, Revision)>>;

/// Waits for the answer that covers `revision` and returns when it came.
async fn answered(answers: &mut Told, revision: Revision) -> anyhow::Result<Instant> {
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.recv()).await.context("no answer came")?;
        let (at, cursor) = answer.context("the host stopped asking")??;
        if cursor > revision {
            return Ok(at);
        }
    }
}
