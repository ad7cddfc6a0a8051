//! Titan's agent: keeps one host in the state that was declared for it.
//!
//! It asks the control plane what changed, verifies it, applies it so that a deployment is the old bundle or the new
//! one and never a mixture, repairs what drifted, reports, and commits what it applied to Git. It knows nothing of
//! templates, targets or other hosts. Read [`desired`] and [`plan`] first, which decide and touch nothing; then
//! [`agent`], which drives; then the private modules `apply` and `git`, which act.

pub mod agent;
mod apply;
mod background;
mod bundles;
pub mod claims;
mod cli;
mod clocks;
mod commands;
pub mod config;
mod descriptors;
pub mod desired;
mod disk;
mod doctor;
mod drifts;
pub mod enrolment;
mod excerpts;
mod facts;
pub mod faults;
mod git;
mod identity;
pub mod ledger;
mod logs;
mod notify;
mod outbox;
mod output;
mod pace;
pub mod plan;
mod probes;
mod pulse;
mod settle;
pub mod spaces;
mod state;
mod status;
mod summary;
pub mod trials;
mod wake;
mod watches;

pub use agent::{Agent, AgentError};
pub use cli::{main, run_with};
pub use config::Settings;
pub use enrolment::enrol;
pub use faults::{
    COMPOSE_FAULT_POINTS, FAULT_POINTS, KUBERNETES_FAULT_POINTS, PODMAN_FAULT_POINTS, QUADLET_FAULT_POINTS,
    SYSTEMD_FAULT_POINTS,
};
pub use settle::{Action, Done};
pub use summary::OnceSummary;
