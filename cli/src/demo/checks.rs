//! `titan demo ci-checks`: a commit that is released though some of what was asked came out badly, and one that is not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use titan_api::{
    Name,
    client::{Client, ClientError},
    workplans::{
        Outcome, PlanState,
        attempts::{ClaimRequest, Completion, Verdict},
    },
};
use tokio::task::JoinSet;

use super::{orders::follow, plays::Play};
use crate::{
    commands::workplans::follow::Follow,
    errors::CliError,
    output::{Tone, lines::Line},
};

/// The scenario's name, which is also that of the example and of its plan.
pub(super) const NAME: &str = "ci-checks";
/// How many workers there are.
const WORKERS: usize = 6;
/// How long a job takes, the shortest, and how much longer one takes than the one before, up to eight times.
const JOB: (Duration, Duration) = (Duration::from_millis(60), Duration::from_millis(40));

/// What comes of a node's job; `None`: the worker breaks off.
type Judge = fn(&str) -> Option<Verdict>;

/// Shows it.
pub(super) async fn show(mut play: Play<'_>) -> Result<(), CliError> {
    let title = format!(
        "a commit: 50 shards of tests by {WORKERS} workers; one of three reviews says no, one of two mirrors is away"
    );
    let judge: Judge = |node| match node {
        "style" => Some(Verdict::Failed),
        "mirror-a" => None,
        _ => Some(Verdict::Passed),
    };
    let (state, outcomes, jobs) = commit(&mut play, NAME, &title, judge).await?;
    let of = |name: &str| outcomes.get(name).copied().flatten();
    play.expect(state == PlanState::Succeeded, format!("the first commit {state}, in {jobs} jobs"));
    play.expect(of("release") == Some(Outcome::Passed), "it was released");
    play.expect(
        of("style") == Some(Outcome::Failed) && of("reviewed") == Some(Outcome::Passed),
        "though style said no: two of three reviews are enough",
    );
    play.expect(
        of("mirror-a") == Some(Outcome::Failed) && of("published") == Some(Outcome::Passed),
        "though mirror-a was away: one of two is enough",
    );
    play.expect(of("blame") == Some(Outcome::Skipped), "and nobody was blamed");

    let judge: Judge = |node| Some(if node == "shard-17" { Verdict::Failed } else { Verdict::Passed });
    let title = "another commit: shard 17 of its tests fails";
    let (state, outcomes, _) = commit(&mut play, "ci-checks-broken", title, judge).await?;
    let of = |name: &str| outcomes.get(name).copied().flatten();
    play.expect(state == PlanState::Failed, format!("the second commit {state}"));
    play.expect(of("tests-pass") == Some(Outcome::Failed), "one failed shard of 50 is a no to all tests");
    play.expect(of("release") == Some(Outcome::Skipped), "it was not released: a check that failed opens nothing");
    play.expect(of("blame") == Some(Outcome::Passed), "and whoever broke it was told");
    play.end()
}

/// Plays a plan with workers that judge, and returns its end, what came of its nodes, and how many jobs were done.
async fn commit(
    play: &mut Play<'_>,
    name: &str,
    title: &str,
    judge: Judge,
) -> Result<(PlanState, BTreeMap<String, Option<Outcome>>, usize), CliError> {
    play.act(title, &format!("titan workplan watch {name}"))?;
    let mut plan = follow(play, NAME, name, json!({})).await?;
    let done: Arc<Vec<AtomicUsize>> = Arc::new((0..WORKERS).map(|_| AtomicUsize::new(0)).collect());
    // Dropped with the set, workers end where they are.
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(play.client.clone(), format!("{name}-{worker}"), judge, (worker, Arc::clone(&done))));
    }
    let begin = Instant::now();
    let painted = play.output.repaints();
    let mut beside = || {
        if let Some(ended) = workers.try_join_next() {
            return Err(CliError::Failed(format!("a worker ended: {ended:?}")));
        }
        // A line for each job would be too much where nothing can be painted.
        if !painted {
            return Ok(Vec::new());
        }
        let each: Vec<usize> = done.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let text = format!("  jobs done by each worker: {each:?}, {} in all", each.iter().sum::<usize>());
        Ok(vec![Line::new().add(Tone::Faint, text)])
    };
    play.follow(&mut plan, &mut beside, Follow::is_over).await?;
    let jobs = done.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let took = begin.elapsed().as_secs_f64();
    play.output.line(&Tone::Faint.paint(&format!("{jobs} jobs in {took:.1} s")))?;
    let outcomes = plan.nodes.values().map(|node| (node.name.to_string(), node.outcome)).collect();
    Ok((plan.status.state, outcomes, jobs))
}

/// Takes jobs from all queues and does them, for as long as it is let.
async fn work(
    client: Client,
    uid: String,
    judge: Judge,
    (worker, done): (usize, Arc<Vec<AtomicUsize>>),
) -> Result<(), ClientError> {
    let queues = ["builds", "tests", "reviews"].map(|queue| Name::like(queue, 40)).to_vec();
    let mut jobs = 0;
    loop {
        let claim = ClaimRequest { queues: queues.clone(), process_uid: uid.clone(), wait: 5 };
        let Some(taken) = client.claim(&claim).await?.attempt else { continue };
        tokio::time::sleep(JOB.0 + JOB.1 * (jobs % 8)).await;
        jobs += 1;
        let verdict = judge(&taken.node);
        let completion = Completion {
            process_uid: uid.clone(),
            verdict,
            code: verdict.is_none().then(|| "away".to_owned()),
            message: verdict.is_none().then(|| "nobody answers there".to_owned()),
            details: None,
            results: Vec::new(),
        };
        client.complete((taken.plan, &taken.node, taken.number), &completion).await?;
        if let Some(count) = done.get(worker) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
