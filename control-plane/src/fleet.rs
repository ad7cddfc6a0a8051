//! The fleet: which host runs what, decided by plain functions over a model in memory.
//!
//! Nothing here knows HTTP, SQL or clocks. Read [`model`] first, then [`hosts`], [`causes`], [`placements`] and [`moves`];
//! [`polls`] decides what a host is told.

pub mod absences;
pub mod agenda;
pub mod bookings;
pub mod causes;
pub mod contexts;
pub mod deployments;
pub mod drift;
pub mod graphs;
pub mod holders;
pub mod hosts;
pub mod matchers;
pub mod model;
pub mod moves;
pub mod pipelines;
pub mod placements;
pub mod plans;
pub mod polls;
pub mod releases;
pub mod reports;
pub mod rollouts;
pub mod statuses;
pub mod targets;
pub mod told;
pub mod view;
pub mod why;
pub mod workplans;
