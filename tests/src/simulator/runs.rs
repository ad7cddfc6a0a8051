//! A run: a fleet plays a script, then everything is compared.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::simulator::{
    checks::Verdict,
    churn::Churn,
    credentials::Credentials,
    fleet::Fleet,
    histogram::Histogram,
    progress::{Progress, tell},
    script::Script,
    servers::Server,
    tally::{BUCKET, Evenness, Tally},
};

/// How long the planner may take to decide what was written last.
const SETTLING: Duration = Duration::from_secs(300);
/// How often to look what is to be done.
const LOOK: Duration = Duration::from_millis(50);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Whether every agent holds what it should.
    pub verdict: Verdict,
    /// What happened, the comparison left out.
    pub fleet: Arc<Fleet>,
    /// Storms that were raised, and when, since the fleet began.
    pub storms: Vec<Duration>,
    /// How long the control plane took to come back, each time.
    pub restarts: Vec<Duration>,
    /// Resident bytes of the control plane: at the beginning, the most, at the end.
    pub resident: (u64, u64, u64),
    /// Resident bytes of the control plane before each restart.
    pub before_restarts: Vec<u64>,
    /// Cores that the control plane kept busy, on average.
    pub cores: f64,
    /// Errors of the run, the comparison left out.
    pub errors: u64,
    /// How long the script was played.
    pub played: Duration,
    /// When it ended, since the fleet began.
    pub ended: Duration,
}

/// Lets a fleet of `hosts` play `script` against `server` and compares everything at the end.
pub async fn play(
    server: &mut Server,
    script: Script,
    credentials: &Credentials,
    hosts: usize,
) -> anyhow::Result<Outcome> {
    let fleet = Fleet::new(&server.place, script.clone(), credentials.clone(), hosts)?;
    fleet.start(script.ramp());
    played(server, &fleet, &script).await
}

/// The same for a fleet that has begun.
pub async fn played(server: &mut Server, fleet: &Arc<Fleet>, script: &Script) -> anyhow::Result<Outcome> {
    let mut churn = None;
    if script.changes_per_second > 0.0 {
        churn = Some(Churn::begin(server.admin.clone(), fleet.agents(), script.changes, 1).await?);
    }
    let changing = churn.map(|mut churn| {
        let (rate, tally) = (script.changes_per_second, Arc::clone(&fleet.tally));
        tokio::spawn(async move { churn.run(rate, &tally).await })
    });
    let mut timeline = Timeline::begin(server, fleet, script)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs_f64(script.seconds) {
        tokio::time::sleep(LOOK).await;
        timeline.step(server, fleet, script, begun.elapsed()).await?;
    }
    let Timeline { storms, restarts, before_restarts, first, most, processor, spent, .. } = timeline;
    if let Some(changing) = changing {
        changing.abort();
        let _cancelled = changing.await;
    }
    let (played, ended) = (begun.elapsed(), fleet.tally.elapsed());
    let spent = spent + server.processor()?.saturating_sub(processor);
    let last = server.resident()?;
    fleet.stop().await;
    let errors = fleet.tally.errors();
    server.settled(SETTLING).await?;
    tell(&format!("comparing {} agents with their full answers ...", fleet.agents()));
    let verdict = fleet.verdict().await;
    Ok(Outcome {
        verdict,
        fleet: Arc::clone(fleet),
        storms,
        restarts,
        before_restarts,
        resident: (first, most.max(last), last),
        cores: spent.as_secs_f64() / played.as_secs_f64(),
        errors,
        played,
        ended,
    })
}

/// What happens beside the polls, when.
struct Timeline {
    progress: Progress,
    storms: Vec<Duration>,
    restarts: Vec<Duration>,
    before_restarts: Vec<u64>,
    next_storm: Duration,
    next_restart: Duration,
    phases: f64,
    first: u64,
    most: u64,
    sampled: Instant,
    /// Processor time of the control plane's process when it began to count, and of those before it.
    processor: Duration,
    spent: Duration,
}

impl Timeline {
    fn begin(server: &Server, fleet: &Fleet, script: &Script) -> anyhow::Result<Self> {
        let first = server.resident()?;
        Ok(Self {
            progress: Progress::new(fleet),
            storms: Vec::new(),
            restarts: Vec::new(),
            before_restarts: Vec::new(),
            next_storm: Duration::from_secs_f64(script.storm_every),
            next_restart: Duration::from_secs_f64(script.restart_every),
            phases: 0.0,
            first,
            most: first,
            sampled: Instant::now(),
            processor: server.processor()?,
            spent: Duration::ZERO,
        })
    }

    async fn step(
        &mut self,
        server: &mut Server,
        fleet: &Arc<Fleet>,
        script: &Script,
        now: Duration,
    ) -> anyhow::Result<()> {
        self.progress.draw(fleet, server.id());
        if self.sampled.elapsed() >= Duration::from_secs(1) {
            self.most = self.most.max(server.resident()?);
            self.sampled = Instant::now();
        }
        if script.storm_every > 0.0 && now >= self.next_storm {
            self.storms.push(fleet.tally.elapsed());
            fleet.storm().await;
            self.next_storm += Duration::from_secs_f64(script.storm_every);
        }
        if script.restart_every > 0.0 && now >= self.next_restart {
            self.spent += server.processor()?.saturating_sub(self.processor);
            self.before_restarts.push(server.resident()?);
            self.restarts.push(server.restart().await?);
            // What the new process did until it was ready counts too.
            self.processor = Duration::ZERO;
            self.next_restart += Duration::from_secs_f64(script.restart_every);
        }
        let due = script.phases_per_second * now.as_secs_f64();
        while self.phases < due {
            self.phases += 1.0;
            let agent = (fleet.chance() * fleet.agents() as f64) as u32;
            fleet.phase(agent.min(fleet.agents() as u32 - 1));
        }
        Ok(())
    }
}

impl Outcome {
    /// Returns how even the arrivals were after each storm, from two cadences after it to the next one.
    #[must_use]
    pub fn evenness(&self, cadence: Duration) -> Vec<Evenness> {
        let ends = self.storms.iter().skip(1).copied().chain([self.ended]);
        let stretches = self.storms.iter().zip(ends).map(|(storm, end)| (*storm + cadence * 2, end));
        let long_enough = stretches.filter(|(from, to)| *to > *from + 5 * BUCKET);
        long_enough.map(|(from, to)| Evenness::of(&self.fleet.tally.arrivals(from, to))).collect()
    }

    /// Returns everything for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let tally: &Tally = &self.fleet.tally;
        let times = |histogram: &Histogram| {
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            json!({ "count": histogram.count(), "p50Ms": milliseconds(histogram.quantile(0.5)),
                "p99Ms": milliseconds(histogram.quantile(0.99)), "maxMs": milliseconds(histogram.max()) })
        };
        let seconds = |times: &[Duration]| times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        json!({
            "verdict": self.verdict.to_string(), "agents": self.fleet.agents(), "seconds": self.played.as_secs_f64(),
            "polls": tally.polls(), "unchanged": tally.unchanged.get(), "deltas": tally.deltas.get(),
            "fulls": tally.fulls.get(), "lost": tally.lost.get(), "readSlowly": tally.slow.get(),
            "away": tally.away.get(), "putOff": tally.put_off.get(),
            "reports": tally.reports.get(), "bundlesVerified": tally.verified.get(),
            "mismatches": tally.mismatches.get(), "errors": self.errors, "errorsByKind": tally.faults(),
            "connections": tally.connects.get(), "fullHandshakes": tally.handshakes.0.get(),
            "resumedHandshakes": tally.handshakes.1.get(), "answers": times(&tally.answered),
            "connecting": times(&tally.connecting), "reporting": times(&tally.reporting), "late": times(&tally.late),
            "restartSeconds": seconds(&self.restarts), "stormsAtSeconds": seconds(&self.storms),
            "serverBytes": { "first": self.resident.0, "most": self.resident.1, "last": self.resident.2,
                "beforeRestarts": self.before_restarts },
            "serverCores": self.cores, "bytesPerAgent": self.fleet.bytes() / self.fleet.agents().max(1),
        })
    }

    /// Returns everything for people.
    #[must_use]
    pub fn text(&self) -> String {
        let json = self.to_json();
        let mut text = String::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            text.push_str(&format!("{key:<18} {}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
        text
    }
}
