//! The agent at rest, over TLS: memory, threads, wake-ups, processor time, bytes on the wire, flushes of the disk.
//! S4-37.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use titan_tests::{
    manifests,
    measures::{Figure, Goal},
    processes::{self, Memory},
};

use super::{Agent, Running, binaries, linked};
use crate::{children::Plane, hosts, options::Options, wire::Wire};

/// Deployments that are applied before an agent is looked at.
const DEPLOYMENTS: [usize; 2] = [0, 50];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: f64 = 1024.0 * 1024.0;
const DAY: f64 = 86_400.0;

/// One agent that is looked at.
struct Seen {
    kind: &'static str,
    deployments: usize,
    agent: Agent,
    wire: Wire,
    flushes: bool,
    _certificate: TempDir,
}

/// What it had done by a moment.
struct Moment {
    processor: Duration,
    switches: u64,
    bytes: (u64, u64),
}

impl Seen {
    fn moment(&self, id: u32) -> anyhow::Result<Moment> {
        let processor = processes::processor(id)?.own;
        Ok(Moment { processor, switches: processes::switches(id)?, bytes: self.wire.counts() })
    }
}

/// Agents at rest after they have applied some deployments and two changes of each: each binary with none and with many.
pub(crate) async fn rest(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let span = options.pick(Duration::from_secs(600), Duration::from_secs(3));
    let plane = Plane::start().await?;
    let mut seen = Vec::new();
    let mut documents = hosts::ground();
    let mut figures = Vec::new();
    for binary in binaries(options) {
        let kind = linked(binary)?;
        let size = std::fs::metadata(binary)?.len();
        figures.push(
            Figure::new(format!("agent, binary, {kind}"), size as f64 / 1e6, "MB")
                .goal(Goal::AtMost(6.0))
                .note("profile edge, built alone, default features"),
        );
        for (deployments, flushes) in DEPLOYMENTS.map(|count| [(count, false), (count, true)]).into_iter().flatten() {
            let host = format!("device-{deployments}-{kind}{}", if flushes { "-traced" } else { "" });
            // The labels say which of the deployments it has.
            documents.push(manifests::host(&host, &format!("site=bench,has-{deployments}=yes")));
            seen.push((binary, kind, deployments, host, flushes));
        }
    }
    for deployments in DEPLOYMENTS {
        documents.push(manifests::target(&format!("has-{deployments}"), &format!("has-{deployments}=yes")));
    }
    documents.extend(services(1));
    hosts::apply(&plane, documents).await?;
    hosts::settled(&plane).await?;
    let mut agents = Vec::new();
    for (binary, kind, deployments, host, flushes) in seen {
        agents.push(enrolled(&plane, binary, kind, deployments, &host, flushes).await?);
    }
    let running: Vec<_> = agents.iter().map(|seen| seen.agent.run()).collect::<Result<_, _>>()?;
    healthy(&plane).await?;
    for serial in [10, 20] {
        hosts::apply(&plane, services(serial)).await?;
        healthy(&plane).await?;
    }
    let tracers: Vec<_> = agents
        .iter()
        .zip(&running)
        .filter(|(seen, _)| seen.flushes)
        .filter_map(|(seen, running)| traced(&seen.agent, running.0.id()).map(|tracer| (seen, tracer)))
        .collect();
    // What came after the last report, its answer and its commit are no rest.
    tokio::time::sleep(options.pick(Duration::from_secs(45), Duration::from_secs(2))).await;
    let looked: Vec<_> = agents.iter().zip(&running).filter(|(seen, _)| !seen.flushes).collect();
    let before: Vec<_> =
        looked.iter().map(|(seen, running)| seen.moment(running.0.id())).collect::<anyhow::Result<_>>()?;
    let flushed = |seen: &Seen| lines(&trace(&seen.agent));
    let flushes_before: Vec<_> = tracers.iter().map(|(seen, _)| flushed(seen)).collect();
    tokio::time::sleep(span).await;
    for ((seen, running), before) in looked.into_iter().zip(before) {
        let id = running.0.id();
        let after = seen.moment(id)?;
        let (memory, threads) = (processes::memory(id)?, processes::threads(id)?);
        figures.extend(told(seen, span, &before, &after, memory, threads));
    }
    for ((seen, _tracer), before) in tracers.iter().zip(flushes_before) {
        let name = format!("agent at rest, flushes, {}, {} deployments", seen.kind, seen.deployments);
        let count = flushed(seen)?.saturating_sub(before?);
        let note = format!("fsync, fdatasync, msync, sync in {} s, by strace", span.as_secs());
        figures.push(Figure::new(name, count as f64, "").goal(Goal::AtMost(0.0)).note(note));
    }
    Ok(figures)
}

async fn enrolled(
    plane: &Plane,
    binary: &Path,
    kind: &'static str,
    deployments: usize,
    host: &str,
    flushes: bool,
) -> anyhow::Result<Seen> {
    let certificate = TempDir::with_prefix("titan-bench-wire-")?;
    let wire = Wire::start(&plane.server.address, certificate.path()).await?;
    let agent = Agent::enrol(binary, plane, host, &wire.url, Some(wire.authorities.clone())).await?;
    Ok(Seen { kind, deployments, agent, wire, flushes, _certificate: certificate })
}

fn told(seen: &Seen, span: Duration, before: &Moment, after: &Moment, memory: Memory, threads: usize) -> Vec<Figure> {
    let name = |what: &str| format!("agent at rest, {what}, {}, {} deployments", seen.kind, seen.deployments);
    let seconds = span.as_secs_f64();
    let (up, down) = (after.bytes.0 - before.bytes.0, after.bytes.1 - before.bytes.1);
    let processor = after.processor.saturating_sub(before.processor).as_secs_f64();
    let note = format!("each deployment changed twice, then {seconds} s at rest, polls held 30 s, over TLS");
    vec![
        Figure::new(name("PSS"), memory.proportional as f64 / MIB, "MiB").goal(Goal::AtMost(5.0)).note(note),
        Figure::new(name("RSS"), memory.resident as f64 / MIB, "MiB"),
        Figure::new(name("anonymous"), memory.anonymous as f64 / MIB, "MiB"),
        Figure::new(name("threads"), threads as f64, "").goal(Goal::AtMost(1.0)),
        Figure::new(name("CPU of a minute"), processor * 1e3 * 60.0 / seconds, "ms"),
        Figure::new(name("wake-ups of a minute"), (after.switches - before.switches) as f64 * 60.0 / seconds, "")
            .note("voluntary context switches of all threads"),
        Figure::new(name("sent"), up as f64, "B").note(format!("in {seconds} s, TLS included")),
        Figure::new(name("received"), down as f64, "B").note(format!("in {seconds} s, TLS included")),
        Figure::new(name("bytes of a day"), (up + down) as f64 / seconds * DAY / 1e6, "MB").goal(Goal::AtMost(1.0)),
    ]
}

/// Counts from now on how often a process flushes anything to the disk; `None`, with a word, without `strace`.
fn traced(agent: &Agent, id: u32) -> Option<Running> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,msync,sync,syncfs,sync_file_range", "-o"]);
    command.arg(trace(agent)).args(["-p", &id.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Some(Running(child)),
        Err(error) => {
            crate::tell(&format!("flushes are left out: strace cannot be run: {error}"));
            None
        }
    }
}

fn trace(agent: &Agent) -> std::path::PathBuf {
    agent.folder.path().join("flushes")
}

/// Returns how many calls a trace has.
fn lines(trace: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(trace).with_context(|| format!("{} is read", trace.display()))?;
    Ok(text.lines().filter(|line| line.contains("sync")).count())
}

/// Waits until the control plane knows that everything is healthy everywhere.
async fn healthy(plane: &Plane) -> anyhow::Result<()> {
    hosts::settled(plane).await?;
    let deadline = Instant::now() + PATIENCE;
    for name in names() {
        while !plane.admin.deployment_status("default", &name).await?.converged() {
            ensure!(Instant::now() < deadline, "{name} was not healthy after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

fn names() -> impl Iterator<Item = String> {
    DEPLOYMENTS.into_iter().flat_map(|count| (0..count).map(move |number| format!("service-{count}-{number}")))
}

fn services(serial: usize) -> Vec<Value> {
    let service = |(number, name): (usize, String)| {
        let template = if number % 3 == 0 { "own" } else { "shared" };
        let target = name.rsplit_once('-').map_or("", |(rest, _)| rest).replace("service", "has");
        hosts::deployment(&name, template, &target, serial + number)
    };
    names().enumerate().map(service).collect()
}
