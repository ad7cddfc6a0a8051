//! Calls about plans: how soon people are answered who start one, look at it and tell it something, beside a fleet.
//! S4-8, S4-9, S4-10, S4-11.

use std::time::Instant;

use anyhow::ensure;
use serde_json::json;
use titan_api::workplans::{NewPlan, Signal, SignalRequest};
use titan_tests::measures::{Figure, Goal, Samples};

use crate::{
    children::Server,
    options::Options,
    polls::{self, ASSIGNMENTS},
    roles,
    rows::Rows,
};

/// Hosts, each with its assignments.
const FLEET: usize = 1000;
/// Plans that are started, looked at and told something, one after the other.
const PLANS: usize = 1000;
/// Nodes of each plan: the steps of an order.
const NODES: usize = 6;

/// How long each sort of call takes, 19 of 20 times, at most.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (fleet, plans) = options.pick((FLEET, PLANS), (50, 20));
    let plane = polls::fleet(fleet).await?;
    let bare = Server::bare().await?;
    let mut rows = Rows::open().await?;
    let http = reqwest::Client::new();
    let least = format!("http://{}{}", bare.address, roles::LEAST);
    let (alive, ready) = (format!("{}/healthz", plane.url()), format!("{}/readyz", plane.url()));
    let (mut start, mut status, mut signal) = (Samples::default(), Samples::default(), Samples::default());
    let (mut healthy, mut whole) = (Samples::default(), Samples::default());
    let (mut empty, mut row) = (Samples::default(), Samples::default());
    for number in 0..plans {
        let plan = plan(number)?;
        let begun = Instant::now();
        let made = plane.admin.create_plan(&plan).await?;
        start.push(milliseconds(begun));
        let begun = Instant::now();
        let found = plane.admin.plan_status(made.id, 0).await?;
        status.push(milliseconds(begun));
        ensure!(found.current.len() == 1, "{} has begun with {} nodes", found.name, found.current.len());
        let pause = SignalRequest::new(Signal::Pause, "bench");
        let begun = Instant::now();
        plane.admin.signal(made.id, &pause).await?;
        signal.push(milliseconds(begun));
        for (url, samples) in [(&alive, &mut healthy), (&ready, &mut whole), (&least, &mut empty)] {
            let begun = Instant::now();
            http.get(url).send().await?.error_for_status()?.bytes().await?;
            samples.push(milliseconds(begun));
        }
        row.push(rows.one(number).await?);
    }
    let (row, empty) = (("a row in a transaction of its own", row), ("an empty answer of a bare server", empty));
    let figure = |name: &str, samples: &Samples, most: f64, (beside, least): &(&str, Samples)| {
        let note = format!(
            "{} calls one after the other, p50 {:.2}, longest {:.2}; {fleet} hosts with {ASSIGNMENTS} assignments",
            samples.len(),
            samples.median(),
            samples.quantile(1.0)
        );
        let figure = Figure::new(format!("{name}, p95"), samples.quantile(0.95), "ms").goal(Goal::AtMost(most));
        figure.beside(*beside, least.quantile(0.95)).note(note)
    };
    Ok(vec![
        figure("start a plan", &start, 100.0, &row),
        figure("how far a plan is", &status, 50.0, &empty),
        figure("tell a plan something", &signal, 50.0, &row),
        figure("whether the process answers (/healthz)", &healthy, 10.0, &empty),
        figure("whether each component is ready (/readyz)", &whole, 10.0, &empty),
    ])
}

/// Returns a plan of steps that follow each other and wait for workers.
fn plan(number: usize) -> anyhow::Result<NewPlan> {
    let nodes: serde_json::Map<_, _> = (0..NODES)
        .map(|step| {
            let mut node = json!({ "run": { "external": { "queue": "bench" } } });
            if step > 0 {
                node["after"] = json!({ "edges": [format!("step-{}", step - 1)] });
            }
            (format!("step-{step}"), node)
        })
        .collect();
    Ok(serde_json::from_value(json!({ "name": format!("order-{number:05}"), "spec": { "nodes": nodes } }))?)
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
