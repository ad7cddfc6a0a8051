//! Steps of plans, each a transaction: what one costs depends on what it changes, not on how large the plan is.

use std::time::Instant;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use titan_api::{
    Name, Revision,
    workplans::{WorkPlanSpec, attempts::Verdict},
};
use titan_control_plane::{
    fleet::workplans::{Finished, Input},
    store::Store,
    workplans::{Context, declare, step},
};
use titan_tests::measures::{Figure, Goal, Samples};
use uuid::Uuid;

use crate::{options::Options, rows::Rows};

/// Nodes of the plans: each is ten times as large as the one before.
const SIZES: [usize; 2] = [1000, 10_000];
/// How many nodes follow each other, the last ones of a chain aside.
const CHAIN: usize = 10;
/// Nodes that are done, each in two steps.
const DONE: usize = 400;

/// A plan of chains whose nodes wait for a worker.
struct Chains {
    id: Uuid,
    size: usize,
    /// Milliseconds to declare it.
    declared: f64,
    /// Microseconds of each step.
    steps: Samples,
}

/// What a step costs of a plan of a thousand nodes and of one of ten thousand, in turns, beside a row in a transaction.
pub(crate) async fn steps(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (sizes, done) = options.pick((SIZES, DONE), ([20, 200], 10));
    let folder = TempDir::with_prefix("titan-bench-plans-")?;
    let store = Store::open(&format!("sqlite://{}", folder.path().join("titan.db").display())).await?;
    let mut rows = Rows::open().await?;
    let mut plans = Vec::new();
    for size in sizes {
        plans.push(Chains::declare(&store, size).await?);
    }
    let mut alone = Samples::default();
    for round in 0..done {
        alone.push(rows.one(round).await? * 1e3);
        for plan in &mut plans {
            plan.work(&store, round).await?;
        }
    }
    let [small, large] = &plans[..] else { anyhow::bail!("two plans were made") };
    let (low, high) = large.steps.spread();
    let note = format!("{} steps, {low:.2} to {high:.2} of the median; taken and ended by a worker", large.steps.len());
    let ratio = large.steps.median() / small.steps.median();
    let step = |plan: &Chains| Figure::new(format!("step of a plan of {} nodes", plan.size), plan.steps.median(), "us");
    let nodes = |plan: &Chains| plan.declared * 1e3 / plan.size as f64;
    Ok(vec![
        step(small).beside("a row in a transaction of its own", alone.median()),
        step(large).beside("a row in a transaction of its own", alone.median()).note(note),
        Figure::new(format!("step of {} nodes, times that of {}", large.size, small.size), ratio, "x")
            .goal(Goal::AtMost(1.25)),
        Figure::new(format!("declare {} nodes, each", large.size), nodes(large), "us")
            .beside(format!("of {} nodes", small.size), nodes(small))
            .note("once, in one transaction"),
    ])
}

impl Chains {
    async fn declare(store: &Store, size: usize) -> anyhow::Result<Self> {
        let nodes: Map<String, Value> = (0..size)
            .map(|number| {
                let mut spec = json!({ "run": { "external": { "queue": "bench" } } });
                if number % CHAIN > 0 {
                    spec["after"] = json!({ "edges": [name(number - 1)] });
                }
                (name(number), spec)
            })
            .collect();
        let spec: WorkPlanSpec = serde_json::from_value(json!({ "nodes": nodes }))?;
        let id = Uuid::now_v7();
        let begun = Instant::now();
        let mut tx = store.write("bench").await?;
        let named = (&Name::new("default")?, &Name::new(format!("of-{size}"))?);
        declare(&mut tx, (id, named.0, named.1), &spec, Default::default(), context(1)).await?;
        tx.commit().await?;
        Ok(Self { id, size, declared: begun.elapsed().as_secs_f64() * 1e3, steps: Samples::default() })
    }

    /// Takes and ends a node: the first of a chain, and then those that it lets begin.
    async fn work(&mut self, store: &Store, round: usize) -> anyhow::Result<()> {
        let chains = self.size / CHAIN;
        let number = round % chains * CHAIN + round / chains;
        let (node, uid) = (Name::new(name(number))?, "bench".to_owned());
        let claim = Input::Claim { node: node.clone(), number: 1, uid: uid.clone() };
        let (end, message, details, results) = (Ok(Verdict::Passed), None, None, Vec::new());
        let finish = Input::Finish(Box::new(Finished { node, number: 1, uid, end, message, details, results }));
        for input in [claim, finish] {
            let begun = Instant::now();
            let mut tx = store.write("bench").await?;
            step(&mut tx, self.id, vec![input], context(2)).await?;
            tx.commit().await?;
            self.steps.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("node-{number:05}")
}

const fn context(micros: i64) -> Context<'static> {
    Context { actor: "bench", wall: Revision::from_micros(micros) }
}
