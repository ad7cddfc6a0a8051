//! Plans: what can be known of one before it is made.

use titan_api::{
    Code, Problem, Revision, Spec,
    workplans::{Executor, WorkPlanSpec},
};
use uuid::Uuid;

use super::Writer;
use crate::{
    fleet::workplans::{Input, graph},
    render::schema::Schema,
    store::Stored,
    workplans::{self, expressions},
};

impl Writer<'_> {
    /// Stops a plan, if it is there and goes on.
    pub(super) async fn halt(&mut self, plan: Uuid, reason: &str) -> Result<(), Problem> {
        if self.tx.plan(plan).await?.is_none_or(|row| row.plan.state.is_final()) {
            return Ok(());
        }
        let halt = Input::Halt { reason: reason.to_owned(), superseded: false };
        let context = workplans::Context { actor: &self.author.actor, wall: self.revision };
        Ok(workplans::step(&mut self.tx, plan, vec![halt], context).await.map(drop)?)
    }

    /// Makes what a document that declares a plan says, in the same transaction.
    pub(super) async fn make_plan(&mut self, stored: &Stored, wall: Revision) -> Result<(), Problem> {
        let (Spec::WorkPlan(spec), Some(workspace)) = (&stored.spec, &stored.workspace) else { return Ok(()) };
        let context = workplans::Context { actor: &self.author.actor, wall };
        let before = self.declared_before.remove(&stored.uid).unwrap_or_default();
        Ok(workplans::declare(&mut self.tx, (stored.uid, workspace, &stored.name), spec, before, context).await?)
    }
}

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
