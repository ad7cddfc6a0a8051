//! One round over twenty files of a kilobyte, nothing changed and all changed, beside other tools that do the same.

use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use serde_json::json;
use titan_tests::{
    manifests,
    measures::{Figure, Goal, Samples},
    processes,
};

use super::{
    Agent, binaries, linked,
    peers::{self, Peer},
};
use crate::{children::Plane, hosts, options::Options};

/// The host, and the first of the three values in each file.
pub(super) const HOST: &str = "device";
/// Files of one round.
pub(super) const FILES: usize = 20;
/// The size of each.
const SIZE: usize = 1049;

/// What runs took, each by itself.
#[derive(Default)]
struct Taken {
    processor: Samples,
    elapsed: Samples,
}

impl Taken {
    /// Takes in one batch of `runs`.
    fn batch(&mut self, runs: u32, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (before, begun) = (waited()?, Instant::now());
        for _ in 0..runs {
            run()?;
        }
        self.push(runs, waited()? - before, begun.elapsed());
        Ok(())
    }

    fn push(&mut self, runs: u32, processor: f64, elapsed: Duration) {
        self.processor.push(processor / f64::from(runs));
        self.elapsed.push(elapsed.as_secs_f64() / f64::from(runs));
    }
}

/// Processor time of whole processes, the Git commit and the report included where there are such things.
pub(crate) async fn rounds(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for binary in binaries(options) {
        let (idle, busy) = of_agent(options, binary).await?;
        let kind = linked(binary)?;
        let [idle, busy] = told(&format!("titan-agent once, {kind}"), &idle, &busy);
        figures.extend([idle.goal(Goal::AtMost(0.02)), busy.goal(Goal::AtMost(0.03))]);
    }
    for peer in Peer::ALL {
        match of_peer(options, peer)? {
            Some((name, idle, busy)) => figures.extend(told(&name, &idle, &busy)),
            None => crate::tell(&format!("left out: {} is not on the path", peer.program())),
        }
    }
    Ok(figures)
}

fn told(name: &str, idle: &Taken, busy: &Taken) -> [Figure; 2] {
    let figure = |what: &str, taken: &Taken| {
        // The smallest: whatever else runs on the machine only ever adds to it.
        let [least, elapsed] = [&taken.processor, &taken.elapsed].map(|samples| samples.quantile(0.0));
        let median = taken.processor.median();
        Figure::new(format!("20 files, {what}, {name}"), least, "s of CPU").note(format!(
            "least of {} batches, median {median:.3}; {elapsed:.3} s by the clock",
            taken.processor.len()
        ))
    };
    [figure("no change", idle), figure("all changed", busy)]
}

async fn of_agent(options: &Options, binary: &std::path::Path) -> anyhow::Result<(Taken, Taken)> {
    let (batches, runs) = options.pick((7, 20), (1, 2));
    let plane = Plane::start().await?;
    let templates: Vec<_> = (0..FILES)
        .map(|number| {
            let text = text("{{ host.name }}", &format!("{number:02}"), "{{ values.revision }}");
            (format!("file-{number:02}.conf.j2"), text)
        })
        .collect();
    let files: Vec<_> = templates.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let deployment = |revision: &str| {
        let values = json!({ "values": { "revision": revision } });
        manifests::deployment("twenty", "service", "twenty", "all", &values)
    };
    let mut documents = hosts::ground();
    documents.push(manifests::host(HOST, "site=bench"));
    documents.push(manifests::template("twenty", &files));
    documents.push(deployment(&revision()?));
    hosts::apply(&plane, documents).await?;
    hosts::settled(&plane).await?;
    let agent = Agent::enrol(binary, &plane, HOST, &plane.url(), None).await?;
    agent.round(&["once"])?;
    let (mut idle, mut busy) = (Taken::default(), Taken::default());
    for _ in 0..batches {
        idle.batch(runs, || agent.round(&["once"]))?;
        let (mut processor, mut elapsed) = (0.0, Duration::ZERO);
        for _ in 0..runs {
            let revision = revision()?;
            hosts::apply(&plane, vec![deployment(&revision)]).await?;
            hosts::settled(&plane).await?;
            let (before, begun) = (waited()?, Instant::now());
            agent.round(&["once"])?;
            processor += waited()? - before;
            elapsed += begun.elapsed();
            check(&agent.folder.path().join("root/default/twenty"), &revision)?;
        }
        busy.push(runs, processor, elapsed);
    }
    Ok((idle, busy))
}

fn of_peer(options: &Options, peer: Peer) -> anyhow::Result<Option<(String, Taken, Taken)>> {
    let Some(version) = peers::version(peer) else { return Ok(None) };
    let batches = options.pick(5, 1);
    let runs = options.pick(peer.runs(), 1);
    let fixture = peers::Fixture::new(peer)?;
    let (mut idle, mut busy) = (Taken::default(), Taken::default());
    let mut last = revision()?;
    fixture.declare(&last)?;
    fixture.run()?;
    check(&fixture.output(), &last)?;
    for _ in 0..batches {
        idle.batch(runs, || fixture.run())?;
        busy.batch(runs, || {
            last = revision()?;
            fixture.declare(&last)?;
            fixture.run()?;
            check(&fixture.output(), &last)
        })?;
    }
    Ok(Some((version, idle, busy)))
}

/// Makes sure that the work was done: as many files as there should be, each with its size and the revision.
fn check(folder: &std::path::Path, revision: &str) -> anyhow::Result<()> {
    for number in 0..FILES {
        let text = std::fs::read_to_string(folder.join(format!("file-{number:02}.conf")))?;
        ensure!(text.len() == SIZE && text.contains(revision), "file {number} is not as declared: {text}");
    }
    Ok(())
}

/// Returns a file, or a template of one, with these three values in it.
pub(super) fn text(name: &str, index: &str, revision: &str) -> String {
    let mut text = format!("name = {name}\nindex = {index}\nrevision = {revision}\n");
    // What is left with values of the lengths that they have: six, two and nineteen characters.
    let mut left = SIZE - "name = \nindex = \nrevision = \n".len() - 6 - 2 - 19;
    let line = "setting = a plain line of an ordinary file\n";
    while left > 0 {
        let piece = if left > line.len() { line } else { &line[line.len() - left..] };
        text.push_str(piece);
        left -= piece.len();
    }
    text
}

/// Returns nineteen digits that no run before had.
fn revision() -> anyhow::Result<String> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos().to_string())
}

/// Returns the seconds of processor time of all children that were waited for, and of theirs.
fn waited() -> anyhow::Result<f64> {
    Ok(processes::processor(std::process::id())?.children.as_secs_f64())
}
