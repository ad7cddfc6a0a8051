//! A template edit that changes every waiting host, beside serving the same bodies from memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;
use titan_api::{changes::ApplyRequest, client::WriteOptions};

use super::{Measuring, PATIENCE};
use crate::{
    measures::{Figure, Goal, Samples},
    simulator::{
        answers::Answer,
        bare::Bare,
        checks::Verdict,
        documents,
        fleet::Fleet,
        fold::Desired,
        script::{Carrier, Script},
        stage::Stage,
        transports::{Place, Transport},
        wire::Ask,
    },
};

/// Seconds that polls are held: longer than a round takes.
const WAIT: u64 = 60;

/// What was measured.
#[derive(Debug)]
pub struct Fanout {
    /// Milliseconds from the 2xx of the edit to the last answer read.
    pub told: f64,
    /// Milliseconds in which as many bodies were served from memory.
    pub memory: f64,
    /// How many hosts, connections, bytes.
    pub note: String,
    /// What the agents held in the end.
    pub verdict: Verdict,
}

impl Fanout {
    /// Returns the figures for the table.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let ratio = self.told / self.memory;
        vec![
            Figure::new("template edit to the last waiting host's answer", self.told, "ms")
                .beside("the same bodies from memory", self.memory)
                .note(&self.note),
            Figure::new("fan-out, times the bodies from memory", ratio, "x").goal(Goal::AtMost(2.0)),
        ]
    }
}

/// Returns a fleet of waiting agents over HTTP/2, all of them told everything and waiting.
pub async fn waiting(stage: &Stage, waiters: usize, script: Script) -> anyhow::Result<Arc<Fleet>> {
    let fleet = Fleet::new(&stage.server.place, script, stage.credentials.clone(), waiters)?;
    fleet.start(Duration::from_secs_f64(waiters as f64 / 10_000.0));
    wait_for_all(&fleet).await?;
    Ok(fleet)
}

/// Waits until every agent has been told everything and waits for more.
pub async fn wait_for_all(fleet: &Fleet) -> anyhow::Result<()> {
    let all = fleet.agents() as u64;
    fleet.until("every agent's first answer", PATIENCE, |fleet| fleet.tally.fulls.get() >= all).await?;
    let waiting = |fleet: &Fleet| fleet.tally.under_way.load(Ordering::Relaxed) >= all;
    fleet.until("every agent to wait", PATIENCE, waiting).await?;
    // What is under way has been sent; the control plane takes it up.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// Measures `rounds` edits for `waiters` agents over `connections` connections.
pub async fn measure(
    stage: &Stage,
    options: &Measuring,
    waiters: usize,
    connections: usize,
    rounds: u64,
) -> anyhow::Result<Fanout> {
    let script = Script { carrier: Carrier::Mux, connections, wait: WAIT, verify: 0.0, ..Script::default() };
    let fleet = waiting(stage, waiters, script.clone()).await?;
    let mut told = Samples::default();
    let mut body = Vec::new();
    // The first edit warms everything up and does not count.
    for round in 0..=rounds {
        let before = fleet.with(0, |agent| agent.desired.cursor().map(|cursor| (cursor, agent.desired.digest())));
        let answered = fleet.tally.deltas.get();
        fleet.park();
        let request = ApplyRequest {
            resources: vec![documents::template(&documents::base(0), edition(round))],
            ..ApplyRequest::default()
        };
        stage.server.admin.apply(&request, &WriteOptions::default()).await?;
        let committed = fleet.tally.elapsed();
        let all = answered + waiters as u64;
        fleet.until("every agent's answer", PATIENCE, |fleet| fleet.tally.deltas.get() >= all).await?;
        if round > 0 {
            told.push(fleet.tally.last_change().saturating_sub(committed).as_secs_f64() * 1e3);
        }
        if round == rounds {
            let ask = Ask::poll(0, stage.credentials.host(0), before, 0, false);
            let answer = fleet.transport.exchange(0, &ask, false).await?;
            ensure!(answer.status == 200, "the edit is not to be had again");
            body = answer.body;
        }
        fleet.unpark(Duration::from_millis(200));
        let waiting = |fleet: &Fleet| fleet.tally.under_way.load(Ordering::Relaxed) >= waiters as u64;
        fleet.until("every agent to wait again", PATIENCE, waiting).await?;
    }
    fleet.stop().await;
    ensure!(fleet.tally.errors() == 0, "there were errors: {:?}", fleet.tally.faults());
    let verdict = fleet.verdict().await;
    let memory = from_memory(stage, options, &body, waiters, &script, rounds).await?;
    let bytes = body.len();
    Ok(Fanout {
        told: told.median(),
        memory,
        note: format!("{waiters} hosts over {connections} connections, {bytes} B each, median of {rounds}"),
        verdict,
    })
}

/// Another edition each time, in runs over the same database too.
pub fn edition(round: u64) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default() + round
}

/// Returns in how many milliseconds a bare server answers every agent with `body`, which each of them reads and folds.
async fn from_memory(
    stage: &Stage,
    options: &Measuring,
    body: &[u8],
    waiters: usize,
    script: &Script,
    rounds: u64,
) -> anyhow::Result<f64> {
    let file = stage.folder().join("body.json");
    std::fs::write(&file, body)?;
    let bare = Bare::start(&options.stage.program, Some(&file)).await?;
    let place: &Place = &bare.place;
    let transport = Arc::new(Transport::new(place, script, waiters, &Arc::default())?);
    let mut times = Samples::default();
    for round in 0..=rounds {
        let begun = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for number in 0..waiters {
            let (transport, credentials) = (Arc::clone(&transport), stage.credentials.clone());
            running.spawn(async move {
                let token = credentials.host(number);
                let have = Some((titan_api::Revision::from_micros(1), titan_api::SetDigest::default()));
                let ask = Ask::poll(number as u32, token, have, WAIT, false);
                let told = transport.exchange(number as u32, &ask, false).await?;
                let envelope = Answer::read(&told.body)?.envelope();
                anyhow::Ok(Desired::default().fold(&envelope))
            });
        }
        while let Some(ended) = running.join_next().await {
            let _folded = ended??;
        }
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times.median())
}
