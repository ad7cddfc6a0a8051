//! Specs: what documents declare, by kind, and what is wrong with it.

use serde_json::Value;

use super::Kind;
use crate::{
    Name,
    deployments::DeploymentSpec,
    hosts::HostSpec,
    limits, parse,
    problems::Fault,
    targets::{self, TargetSpec},
    templates::TemplateSpec,
    values::Values,
    workloads::WorkloadSpec,
    workplans::WorkPlanSpec,
    workspaces::WorkspaceSpec,
};

/// What is declared, by kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is the spec of the kind of its name")]
pub enum Spec {
    Workspace(WorkspaceSpec),
    Host(HostSpec),
    Template(TemplateSpec),
    Workload(WorkloadSpec),
    Target(TargetSpec),
    Deployment(DeploymentSpec),
    WorkPlan(WorkPlanSpec),
}

impl Spec {
    /// Returns `value` as the spec of a `kind`, or everything that is wrong, with pointers from `/spec`.
    pub fn parse(kind: Kind, value: Value) -> Result<Self, Vec<Fault>> {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Vec<Fault>> {
            // A list would be read as the fields in their order.
            if !value.is_object() {
                return Err(vec![Fault::new("/spec", "a spec is a map")]);
            }
            parse::from_value(value).map_err(|fault| vec![fault.under("/spec")])
        }
        let spec = match kind {
            Kind::Workspace => Self::Workspace(read(value)?),
            Kind::Host => Self::Host(read(value)?),
            Kind::Template => Self::Template(read(value)?),
            Kind::Workload => Self::Workload(read(value)?),
            Kind::Target => Self::Target(read(value)?),
            Kind::Deployment => Self::Deployment(read(value)?),
            Kind::WorkPlan => Self::WorkPlan(read(value)?),
        };
        let faults = spec.faults();
        if faults.is_empty() { Ok(spec) } else { Err(faults) }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Workspace(spec) => values_faults(&spec.config, "/spec/config"),
            Self::Host(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.files_faults("/spec/files"));
                faults.extend(spec.taints_faults("/spec/taints"));
                for (index, workspace) in spec.workspaces.iter().enumerate() {
                    if workspace != "*"
                        && let Err(error) = Name::new(workspace.as_str())
                    {
                        faults.push(Fault::new(format!("/spec/workspaces/{index}"), error.to_string()));
                    }
                }
                faults
            }
            Self::Template(spec) => spec.faults("/spec"),
            Self::Workload(spec) => values_faults(&spec.values, "/spec/values"),
            Self::Target(spec) => targets::faults(spec, "/spec"),
            Self::Deployment(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.placement_faults("/spec"));
                if spec.overrides.len() > limits::OVERRIDES {
                    let detail = format!("{} entries, the limit is {}", spec.overrides.len(), limits::OVERRIDES);
                    faults.push(Fault::new("/spec/overrides", detail));
                }
                for (index, entry) in spec.overrides.iter().enumerate() {
                    faults.extend(targets::faults(&entry.selector, &format!("/spec/overrides/{index}/match")));
                    faults.extend(values_faults(&entry.values, &format!("/spec/overrides/{index}/values")));
                }
                faults.extend(spec.strategy.iter().flat_map(|strategy| strategy.faults("/spec/strategy")));
                faults
            }
            Self::WorkPlan(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.faults("/spec"));
                faults
            }
        }
    }

    /// Returns the spec in its canonical form: defaults filled in, keys in order.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Workspace(spec) => serde_json::to_value(spec),
            Self::Host(spec) => serde_json::to_value(spec),
            Self::Template(spec) => serde_json::to_value(spec),
            Self::Workload(spec) => serde_json::to_value(spec),
            Self::Target(spec) => serde_json::to_value(spec),
            Self::Deployment(spec) => serde_json::to_value(spec),
            Self::WorkPlan(spec) => serde_json::to_value(spec),
        };
        // Specs are maps with text keys; writing them cannot fail.
        value.unwrap_or_default()
    }
}

fn values_faults(values: &Values, pointer: &str) -> Vec<Fault> {
    let size = serde_json::to_string(values).map_or(0, |text| text.len());
    let depth = values.values().map(depth).max().unwrap_or_default() + 1;
    if size > limits::VALUES_BYTES {
        vec![Fault::new(pointer, format!("{size} bytes as JSON, the limit is {}", limits::VALUES_BYTES))]
    } else if depth > limits::VALUES_DEPTH {
        vec![Fault::new(
            pointer,
            format!("{depth} maps and lists inside each other, the limit is {}", limits::VALUES_DEPTH),
        )]
    } else {
        Vec::new()
    }
}

/// Returns how many maps and lists are inside each other. Whatever was parsed is not deeper than the parser allows.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
