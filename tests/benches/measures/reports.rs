//! Reports: how many a second are acknowledged, all of which are on disk before they are.

use std::time::{Duration, Instant};

use serde_json::json;
use titan_api::{
    client::Polled,
    reports::{DeploymentReport, Phase, Report},
};
use titan_tests::measures::{Figure, Samples};
use tokio::task::JoinSet;

use crate::{
    children::Plane,
    hosts::{self, Polling},
    options::Options,
};

/// Hosts that report at the same time.
const REPORTING: usize = 256;

/// A host, the deployment that it reports of, and how often it has.
struct Reporting {
    host: Polling,
    about: DeploymentReport,
    seq: u64,
}

/// Acknowledged reports a second: from 256 hosts at the same time, beside one host after the other; each is news, and then
/// each says again what was said.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (reporting, rounds, span) =
        options.pick((REPORTING, 5, Duration::from_secs(2)), (8, 1, Duration::from_millis(300)));
    let plane = Plane::start().await?;
    hosts::declare(&plane, 0, reporting).await?;
    let mut documents = hosts::ground();
    documents.push(hosts::deployment("service", "shared", "all", 0));
    hosts::apply(&plane, documents).await?;
    hosts::assigned(&plane, reporting).await?;
    let mut all = Vec::with_capacity(reporting);
    for number in 0..reporting {
        all.push(Reporting::new(&plane, number).await?);
    }
    let (mut alone, mut together, mut again) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        alone.push(rate(&mut all, 1, span, true).await?);
        together.push(rate(&mut all, reporting, span, true).await?);
        again.push(rate(&mut all, reporting, span, false).await?);
    }
    let (low, high) = together.spread();
    let note =
        format!("{rounds} rounds, {low:.2} to {high:.2} of the median; {reporting} hosts, a phase changes each time");
    Ok(vec![
        Figure::new("acknowledged reports", together.median(), "1/s")
            .beside("one after the other", alone.median())
            .note(note),
        Figure::new("reports that say nothing new", again.median(), "1/s").beside("news", together.median()),
    ])
}

impl Reporting {
    async fn new(plane: &Plane, number: usize) -> anyhow::Result<Self> {
        let host = hosts::enrol(plane, &plane.url(), &hosts::name(number)).await?;
        let Polled::Changed(answer) = host.client.poll(&host.name, None, None, 0).await? else {
            anyhow::bail!("{} was told nothing", host.name);
        };
        let told = &answer.deployments[0];
        let about = json!({
            "id": told.id, "release": told.release, "revision": told.revision, "digest": told.digest, "phase": "healthy",
            "message": "as it should be",
        });
        Ok(Self { host, about: serde_json::from_value(about)?, seq: 0 })
    }

    async fn report(&mut self, news: bool) -> anyhow::Result<()> {
        self.seq += 1;
        if news {
            self.about.phase = if self.about.phase == Phase::Healthy { Phase::Degraded } else { Phase::Healthy };
        }
        let report = Report { seq: self.seq, deployments: vec![self.about.clone()], ..Report::default() };
        Ok(self.host.client.report(&self.host.name, &report).await?)
    }
}

/// Lets the first `count` hosts report again and again, and returns how many reports a second were acknowledged.
async fn rate(all: &mut Vec<Reporting>, count: usize, span: Duration, news: bool) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    let others = all.split_off(count);
    for mut one in all.drain(..) {
        running.spawn(async move {
            let mut acknowledged = 0_u64;
            while begun.elapsed() < span {
                one.report(news).await?;
                acknowledged += 1;
            }
            anyhow::Ok((one, acknowledged))
        });
    }
    let mut sum = 0;
    while let Some(ended) = running.join_next().await {
        let (one, acknowledged) = ended??;
        sum += acknowledged;
        all.push(one);
    }
    let elapsed = begun.elapsed();
    all.extend(others);
    Ok(sum as f64 / elapsed.as_secs_f64())
}
