//! The commands, by noun.

pub(crate) mod changes;
pub(crate) mod completions;
pub(crate) mod deployments;
pub(crate) mod doctor;
pub(crate) mod documents;
pub(crate) mod hosts;
pub(crate) mod login;
pub(crate) mod pipelines;
pub(crate) mod plans;
pub(crate) mod rollouts;
pub(crate) mod status;
pub(crate) mod targets;
pub(crate) mod tasks;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod workloads;
pub(crate) mod workplans;
pub(crate) mod workspaces;
