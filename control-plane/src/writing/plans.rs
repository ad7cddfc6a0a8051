//! Plans: what can be known of one before it is made.

use titan_api::{
    Code, Problem,
    workplans::{Executor, WorkPlanSpec},
};

use crate::{fleet::workplans::graph, render::schema::Schema, workplans::expressions};

/// Checks a plan without the store: its graph, its worst case, its expressions and that its values fit its schema.
pub(crate) fn check(spec: &WorkPlanSpec, pointer: &str) -> Result<(), Problem> {
    let nodes = format!("{pointer}/nodes");
    graph::check(&spec.nodes, &|_| None, &nodes)?;
    if spec.start {
        graph::complete(&spec.nodes, &nodes)?;
    }
    if let Some(deadline) = spec.deadline {
        graph::budget(&spec.nodes, deadline.0)?;
    }
    check_texts(spec, pointer)
}

/// Checks what is written in the expression language, in a plan and in those inside it.
fn check_texts(spec: &WorkPlanSpec, pointer: &str) -> Result<(), Problem> {
    fits(spec)?;
    for (name, node) in &spec.nodes {
        check_run(node.run.as_ref(), &format!("{pointer}/nodes/{name}/run"))?;
    }
    Ok(())
}

/// Checks that the values of a plan fit its schema.
pub(crate) fn fits(spec: &WorkPlanSpec) -> Result<(), Problem> {
    let Some(schema) = &spec.schema else { return Ok(()) };
    let refused = |error: String| Problem::new(Code::Invalid, error.clone()).at("/spec/schema", error);
    Schema::compile(schema).map_err(|error| refused(error.to_string()))?.check(&spec.values)
}

/// Checks what an executor says in the expression language.
pub(crate) fn check_run(run: Option<&Executor>, pointer: &str) -> Result<(), Problem> {
    let refuse = |key: &str, error: String| {
        Err(Problem::new(Code::Invalid, format!("an expression is not valid: {error}"))
            .at(format!("{pointer}/{key}"), error))
    };
    let condition = |key: &str, text: &str| expressions::check(text).or_else(|error| refuse(key, error));
    let text = |key: &str, text: &str| expressions::check_text(text).or_else(|error| refuse(key, error));
    match run {
        Some(Executor::Metric(metric)) => {
            condition("metric/success", &metric.success)?;
            metric.failure.as_ref().map_or(Ok(()), |failure| condition("metric/failure", failure))?;
            text("metric/query", &metric.query)?;
            text("metric/server", &metric.server)
        }
        Some(Executor::Http(call)) => {
            text("http/url", &call.url)?;
            for value in call.headers.values() {
                text("http/headers", value)?;
            }
            if let Some(body) = &call.body {
                text("http/body", &body.to_string())?;
            }
            call.condition.as_ref().map_or(Ok(()), |text| condition("http/condition", text))
        }
        Some(Executor::Plan(plan)) => check_texts(plan, &format!("{pointer}/plan")),
        _ => Ok(()),
    }
}
