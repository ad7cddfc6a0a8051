//! The agent for small devices: its memory at rest, its binary, and the processor time of one round.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use titan_tests::{
    manifests,
    measures::{Figure, Goal, Samples},
    processes,
};

use crate::{
    children::{self, Plane},
    hosts,
    options::Options,
};

/// The host that the agent is for.
const HOST: &str = "device";
/// Deployments that are applied before the agent is looked at.
const DEPLOYMENTS: usize = 3;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files of one round, each of about 1 KB.
const FILES: usize = 20;
const MIB: f64 = 1024.0 * 1024.0;

/// An agent with its own directories, enrolled.
struct Agent {
    binary: PathBuf,
    folder: TempDir,
}

impl Agent {
    async fn enrol(binary: &Path, plane: &Plane) -> anyhow::Result<Self> {
        let agent = Self { binary: binary.to_owned(), folder: TempDir::with_prefix("titan-bench-agent-")? };
        let (root, repository) = (agent.folder.path().join("root"), agent.folder.path().join("git"));
        std::fs::create_dir(&root)?;
        let settings = format!(
            "appliers: {{ files: {{ root: {} }} }}\ngit: {{ repository: {} }}\nlogging: {{ level: warn }}\n",
            root.display(),
            repository.display()
        );
        std::fs::write(agent.folder.path().join("agent.yaml"), settings)?;
        let token = hosts::join_token(plane, HOST).await?;
        agent.round(&["enrol", "--server", &plane.url(), "--host", HOST, "--token", &token])?;
        Ok(agent)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null());
        command.arg("--config").arg(self.folder.path().join("agent.yaml"));
        command.arg("--state-dir").arg(self.folder.path().join("state"));
        children::without_settings(&mut command);
        command
    }

    /// Runs a subcommand to its end, which must go well.
    fn round(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.command(args).output().with_context(|| format!("{} runs", self.binary.display()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("titan-agent {} ended with {}: {}", args[0], output.status, String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    fn run(&self) -> anyhow::Result<Running> {
        Ok(Running(self.command(&["run"]).stdout(Stdio::null()).spawn()?))
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        children::end(&mut self.0);
    }
}

/// Waits until the control plane knows that everything is healthy.
async fn healthy(plane: &Plane) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for number in 0..DEPLOYMENTS {
        let name = format!("service-{number}");
        while !plane.admin.deployment_status("default", &name).await?.converged() {
            ensure!(Instant::now() < deadline, "{name} was not healthy after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

fn services(serial: usize) -> Vec<Value> {
    let service = |number| {
        let template = if number == 0 { "own" } else { "shared" };
        hosts::deployment(&format!("service-{number}"), template, "all", serial + number)
    };
    (0..DEPLOYMENTS).map(service).collect()
}

/// Returns the agent's binary, or says that there is none.
fn binary(options: &Options) -> Option<&Path> {
    if options.agent.is_none() {
        crate::tell(
            "left out: name the agent's binary with --agent FILE or TITAN_AGENT_BINARY; 'just bench' builds it",
        );
    }
    options.agent.as_deref()
}

/// Memory of the agent that waits for a change after it has applied some, and the size of its binary.
pub(crate) async fn idle(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let Some(binary) = binary(options) else { return Ok(Vec::new()) };
    let span = options.pick(Duration::from_secs(65), Duration::from_secs(3));
    let plane = Plane::start().await?;
    let mut documents = hosts::ground();
    documents.push(manifests::host(HOST, "site=bench"));
    documents.extend(services(1));
    hosts::apply(&plane, documents).await?;
    let agent = Agent::enrol(binary, &plane).await?;
    let running = agent.run()?;
    healthy(&plane).await?;
    for serial in [10, 20] {
        hosts::apply(&plane, services(serial)).await?;
        healthy(&plane).await?;
    }
    let id = running.0.id();
    let before = processes::processor(id)?.own;
    tokio::time::sleep(span).await;
    let spent = processes::processor(id)?.own.saturating_sub(before);
    let memory = processes::memory(id)?;
    let a_minute = spent.as_secs_f64() * 60.0 / span.as_secs_f64();
    let size = std::fs::metadata(binary)?.len();
    let note = format!("{DEPLOYMENTS} deployments applied, two changes after, then {} s at rest", span.as_secs());
    Ok(vec![
        Figure::new("agent at rest, PSS", memory.proportional as f64 / MIB, "MiB").goal(Goal::AtMost(5.0)).note(note),
        Figure::new("agent at rest, RSS", memory.resident as f64 / MIB, "MiB"),
        Figure::new("agent at rest, anonymous", memory.anonymous as f64 / MIB, "MiB"),
        Figure::new("agent at rest, threads", processes::threads(id)? as f64, "").goal(Goal::AtMost(1.0)),
        Figure::new("agent at rest, CPU of a minute", a_minute * 1e3, "ms"),
        Figure::new("agent, binary", size as f64 / 1e6, "MB")
            .goal(Goal::AtMost(6.0))
            .note("appliers: files; Git sink; TLS"),
    ])
}

/// Processor time of `titan-agent once` over twenty files, nothing changed and all changed, the Git commit included.
pub(crate) async fn rounds(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let Some(binary) = binary(options) else { return Ok(Vec::new()) };
    let (batches, runs) = options.pick((5, 10), (1, 2));
    let plane = Plane::start().await?;
    let files: Vec<_> = (0..FILES).map(|number| (format!("file-{number:02}.conf.j2"), file(number))).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut documents = hosts::ground();
    documents.push(manifests::host(HOST, "site=bench"));
    documents.push(manifests::template("twenty", &files));
    documents.push(hosts::deployment("twenty", "twenty", "all", 0));
    hosts::apply(&plane, documents).await?;
    hosts::settled(&plane).await?;
    let agent = Agent::enrol(binary, &plane).await?;
    agent.round(&["once"])?;
    let (mut idle, mut busy) = (Samples::default(), Samples::default());
    let mut serial = 0;
    for _ in 0..batches {
        let before = waited()?;
        for _ in 0..runs {
            agent.round(&["once"])?;
        }
        idle.push((waited()? - before) / f64::from(runs));
        let before = waited()?;
        for _ in 0..runs {
            serial += 1;
            hosts::apply(&plane, vec![hosts::deployment("twenty", "twenty", "all", serial)]).await?;
            hosts::settled(&plane).await?;
            agent.round(&["once"])?;
        }
        busy.push((waited()? - before) / f64::from(runs));
    }
    let note = format!("{batches} batches of {runs} runs, the process's start and the poll included");
    Ok(vec![
        Figure::new("one round, 20 files, no change", idle.median(), "s of CPU").goal(Goal::AtMost(0.02)).note(note),
        Figure::new("one round, 20 files, all changed", busy.median(), "s of CPU")
            .goal(Goal::AtMost(0.03))
            .note("with Git commit and report"),
    ])
}

/// Returns the seconds of processor time of all children that were waited for.
fn waited() -> anyhow::Result<f64> {
    Ok(processes::processor(std::process::id())?.children.as_secs_f64())
}

/// Returns a file of about 1 KB with three values in it, one of which changes.
fn file(number: usize) -> String {
    let mut text = format!("name = {{{{ host.name }}}}\nindex = {number}\nrevision = {{{{ values.serial }}}}\n");
    for line in 0..20 {
        text.push_str(&format!("setting-{line:02} = a plain line of an ordinary file, {number:02}\n"));
    }
    text
}
